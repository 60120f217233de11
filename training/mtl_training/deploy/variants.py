"""Models of a bundle in other number formats, which are made and checked beside fp32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from mtl_perception import one_line
from mtl_training.deploy import DeployError
from mtl_training.deploy.bundles import BundleFiles, open_model
from mtl_training.deploy.fp16 import to_fp16
from mtl_training.deploy.int8 import to_int8
from mtl_training.deploy.probes import add_int8_probes, smooth_noise

PRECISIONS = ('fp16', 'int8')
# precision -> variants of the bundle: their files are model_<variant>.onnx
VARIANTS = {'fp16': ('fp16',), 'int8': ('int8', 'int8_u8s8')}
# How far a variant may be from fp32 on the probes before it counts as broken: least share of equal
# labels; largest median relative error of depth, mean angle between normals, mean of 0..255.
LIMITS = {
    'fp16': {'labels': 0.97, 'relative': 0.006, 'degrees': 2.0, 'levels': 2.0},
    'int8': {'labels': 0.80, 'relative': 0.05, 'degrees': 12.0, 'levels': 12.0},
}
_MEASURES = {
    'semantic': 'labels', 'human_parts': 'labels', 'depth': 'relative', 'normals': 'degrees',
}  # fmt: skip


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
            content = graph.SerializeToString(deterministic=True)
            found = differences(bundle.model, content, variant, pictures)
            _check(variant, precision, found)
            made[variant] = content
            notes[variant] = {
                'onnxruntime': str(onnxruntime.__version__),
                **({'calibration_frames': len(calibration)} if precision == 'int8' else {}),
                'differences': {
                    name: f'{_MEASURES.get(name, "levels")} {value:.3g}'
                    for name, value in found.items()
                },
            }
    for variant, content in made.items():
        variants = bundle.description.setdefault('variants', {})
        bundle.put(variants, variant, f'model_{variant}.onnx', content)
        provenance = bundle.description.setdefault('provenance', {})
        provenance.setdefault('variants', {})[variant] = notes[variant]
    if 'probes' in bundle.description:
        add_int8_probes(bundle)
    return list(made)


def differences(
    reference: bytes, model: bytes, variant: str, images: NDArray[np.uint8]
) -> dict[str, float]:
    """How far a variant of a model is from the fp32 model, output by output, see ``LIMITS``.

    Raises:
        DeployError: onnxruntime cannot open it, or its outputs are of another name, dtype or
            shape, or not finite.
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
    expected, found = (session.run(names[0], {'image': images}) for session in sessions)
    result = {}
    for name, e, f in zip(names[0], expected, found, strict=True):
        if (f.dtype, f.shape) != (e.dtype, e.shape) or not np.isfinite(f).all():
            raise DeployError(
                f'{name} of the quantised model is {f.dtype} {list(f.shape)} or not finite, '
                f'expected finite {e.dtype} {list(e.shape)}'
            )
        result[name] = _MEASURE[_MEASURES.get(name, 'levels')](e, f)
    return result


_MEASURE: dict[str, Callable[[NDArray[Any], NDArray[Any]], float]] = {
    'labels': lambda e, f: float((e == f).mean()),
    'relative': lambda e, f: float(np.median(np.abs(f - e) / np.maximum(np.abs(e), 1e-6))),
    'degrees': lambda e, f: float(np.degrees(np.arccos((e * f).sum(-1).clip(-1, 1))).mean()),
    'levels': lambda e, f: float(np.abs(f.astype(np.float32) - e).mean()),
}


def _check(variant: str, precision: str, found: dict[str, float]) -> None:
    limits = LIMITS[precision]
    for name, value in found.items():
        measure = _MEASURES.get(name, 'levels')
        limit = limits[measure]
        if value < limit if measure == 'labels' else value > limit:
            raise DeployError(
                f'{variant} is too far from fp32 on the probes: {name} {measure} {value:.3g}, '
                f'expected {"at least" if measure == "labels" else "at most"} {limit:g}'
            )
