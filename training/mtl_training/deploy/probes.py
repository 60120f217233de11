"""Probes of a bundle: pictures and what its models give for them, for the runtime's self-check."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_perception.engines.probes import enlarged, pack_probes, sampled, unpack_probes
from mtl_training.checkpoints.bundles import BundleFiles, open_model
from mtl_training.deploy.pictures import smooth_noise

PROBES = 2
PROBE_STRIDE = 8
PROBE_BYTES = 80_000


def make_probes(model: bytes, images: NDArray[np.uint8]) -> bytes:
    """Two pictures, and what the model gives for them, for the runtime's self-check.

    ``images`` are stored at half the network's size; the network gets every pixel repeated in both
    directions. They have as many levels per colour as fit into 80 KB with the outputs. Outputs are
    those of onnxruntime at every 8th pixel from the 4th on.

    Args:
        model: the fp32 ONNX file.
        images: [N, H, W, 3] at the network's size; the first and the middle one are taken.

    Returns:
        The bytes of ``probes.npz``: ``images``, ``stride``, and an array for every output.
    """
    chosen = images[:: max(1, (len(images) + 1) // PROBES)][:PROBES]
    height, width = chosen.shape[1:3]
    halves = np.stack(
        [cv2.resize(i, (width // 2, height // 2), interpolation=cv2.INTER_AREA) for i in chosen]
    )
    session = open_model(model, threads=1)
    names = [output.name for output in session.get_outputs()]
    content = b''
    for step in (1, 2, 4, 8, 16, 32, 64):
        small = halves // step * step + step // 2
        outputs = session.run(names, {'image': enlarged(small, 2)})
        arrays = {'images': small, 'stride': np.int64(PROBE_STRIDE)}
        arrays |= {n: sampled(a, PROBE_STRIDE) for n, a in zip(names, outputs, strict=True)}
        content = pack_probes(arrays)
        if len(content) <= PROBE_BYTES:
            break
    return content


def add_variant_probes(probes: bytes, variants: Mapping[str, bytes]) -> bytes:
    """Add what quantised models give for the pictures of ``probes.npz``, as ``VARIANT.OUTPUT``.

    Args:
        probes: of ``make_probes``.
        variants: ONNX files by name of the variant.
    """
    arrays = {name: array for name, array in unpack_probes(probes).items() if '.' not in name}
    images = enlarged(arrays['images'], 2)
    for variant, model in variants.items():
        session = open_model(model, threads=1, variant=variant)
        names = [output.name for output in session.get_outputs()]
        for name, array in zip(names, session.run(names, {'image': images}), strict=True):
            arrays[f'{variant}.{name}'] = sampled(array, int(arrays['stride']))
    return pack_probes(arrays)


def add_probes(bundle: BundleFiles, images: NDArray[np.uint8] | None = None) -> None:
    """Add probes made from pictures of the network's size, or from smooth noise."""
    if images is None:
        images = smooth_noise(bundle.size, 2)
    content = make_probes(bundle.model, images)
    bundle.put(bundle.description, 'probes', 'probes.npz', content)


def add_int8_probes(bundle: BundleFiles) -> None:
    """Let the probes have what the int8 models give: engines are compared with their own model."""
    variants = [name for name in bundle.description.get('variants', {}) if name.startswith('int8')]
    models = {name: bundle.variant(name) for name in variants}
    probes = bundle.files[bundle.description['probes']['file']]
    bundle.put(bundle.description, 'probes', 'probes.npz', add_variant_probes(probes, models))
