"""Models of a bundle in other number formats, which are made and checked beside fp32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from mtl_perception import one_line
from mtl_perception.engines.agreement import Agreement, compare
from mtl_training.checkpoints.bundles import BundleFiles, open_model
from mtl_training.checkpoints.weights import store_narrow
from mtl_training.deploy import DeployError
from mtl_training.deploy.fp16 import to_fp16
from mtl_training.deploy.int8 import to_int8
from mtl_training.deploy.pictures import smooth_noise
from mtl_training.deploy.probes import add_int8_probes

PRECISIONS = ('fp16', 'int8')
# precision -> variants of the bundle: their files are model_<variant>.onnx
VARIANTS = {'fp16': ('fp16',), 'int8': ('int8', 'int8_u8s8')}


def add_variants(
    bundle: BundleFiles, precisions: Sequence[str], calibration: Sequence[NDArray[np.uint8]]
) -> list[str]:
    """Make variants, check them on the bundle's probes' kind of pictures, and add them.

    Args:
        bundle: is added to; as it was if something is raised.
        precisions: of ``PRECISIONS``.
        calibration: uint8 [1, H, W, 3] each, at the network's size; only int8 needs them.

    Returns:
        The names of the variants, in the order in which they were made.

    Raises:
        DeployError: no pictures for int8, or a model that cannot be quantised or comes out wrong.
    """
    if 'int8' in precisions and not calibration:
        raise DeployError('int8 needs pictures to calibrate on, expected --data')
    model = onnx.load_from_string(bundle.model)
    pictures = np.concatenate(calibration[:2]) if calibration else smooth_noise(bundle.size, 2)
    made: dict[str, bytes] = {}
    notes: dict[str, Any] = {}
    for precision in precisions:
        for variant in VARIANTS[precision]:
            if precision == 'fp16':
                graph = to_fp16(model)
            else:
                graph = to_int8(model, calibration, unsigned=variant == 'int8_u8s8')
            store_narrow(graph)
            content = graph.SerializeToString(deterministic=True)
            found = compare_with_fp32(bundle.model, content, variant, pictures)
            refused = ', '.join(str(agreement) for agreement in found if not agreement.ok)
            if refused:
                raise DeployError(f'{variant} is too far from fp32 on the probes: {refused}')
            made[variant] = content
            notes[variant] = {
                'onnxruntime': str(onnxruntime.__version__),
                **({'calibration_frames': len(calibration)} if precision == 'int8' else {}),
                'differences': {a.output: f'{a.measure} {a.value:.3g}' for a in found},
            }
    for variant, content in made.items():
        variants = bundle.description.setdefault('variants', {})
        bundle.put(variants, variant, f'model_{variant}.onnx', content)
        provenance = bundle.description.setdefault('provenance', {})
        provenance.setdefault('variants', {})[variant] = notes[variant]
    if 'probes' in bundle.description:
        add_int8_probes(bundle)
    return list(made)


def compare_with_fp32(
    reference: bytes, model: bytes, variant: str, images: NDArray[np.uint8]
) -> list[Agreement]:
    """How near a variant of a model is to the fp32 model, output by output.

    Raises:
        DeployError: onnxruntime cannot open it, or its outputs have other names.
    """
    try:
        sessions = [
            open_model(reference, threads=1),
            open_model(model, threads=1, variant=variant),
        ]
    except Exception as error:  # onnxruntime's classes are not public
        raise DeployError(
            f'onnxruntime cannot open the quantised model: {one_line(error)}'
        ) from error
    names = [[output.name for output in session.get_outputs()] for session in sessions]
    if names[0] != names[1]:
        raise DeployError(f'the quantised model has outputs {names[1]}, expected {names[0]}')
    (precision,) = (precision for precision, found in VARIANTS.items() if variant in found)
    expected, found = (session.run(names[0], {'image': images}) for session in sessions)
    return [
        compare(name, f, e, f'quantize {precision}')
        for name, e, f in zip(names[0], expected, found, strict=True)
    ]
