"""Whether an engine computes what the model computes: run it on the bundle's probes and compare.

Engines are made from the model by compilers that choose kernels and number formats of their own,
and some come out wrong without a word. The bundle holds a few images and what the exported model
gave for them (``Bundle.probes``); an engine that is further from that than its precision explains
is refused.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, BundleError
from .engine import Engine, EngineError

# How an output is compared; those that are not here are compared in levels of 0..255.
_MEASURES = MappingProxyType(
    {'semantic': 'labels', 'human_parts': 'labels', 'depth': 'relative', 'normals': 'degrees'}
)
# Least share of labels, or largest error, by precision. Measured on the shipped network (TIF on
# EfficientNet-Lite0, 256x320) against onnxruntime fp32 at every 8th pixel: rooms, some of them at
# half resolution, smooth colourful noise, and flat boxes (not for int8), 11 to 47 images. The worst
# image of all, in onnxruntime and openvino:
#   output                 semantic  confid.  depth   confid.  normals  edges
#   f32                    1.000     0.001    3e-7    0.001    1e-4     0.001
#   f16                    0.990     0.78     0.0047  0.42     0.70     0.18
#   bf16                   0.920     6.2      0.035   3.8      3.8      1.45
#   int8 Q/DQ              0.791     12.9     0.050   3.6      11.7     5.7
# (int8 from `mtl_training quantize` with 24 frames; it knows no flat boxes: 0.75, depth 0.17. With
# every convolution in int8, and nothing else done, it is 0.37 of the labels of noise: refused, and
# rightly.) The limits are three times the error of f16, twice that of bf16, 1.5 times that of int8.
# fp32 has the limits of fp16: GPUs may multiply fp32 in TF32, whose mantissa is as short.
# What wrong engines give where it shows least, of the noise images:
#   BGR instead of RGB     0.625     23       0.055   8.7      13       12
#   ImageNet's mean/std    0.432     32       0.205   9.7      22       12
#   one convolution x 1.5  0.734     17       0.034   4.6      9.6      6.3
# and of the rooms: grid shifted by 2 pixels, edges 10; batch entries swapped, edges 46. So int8
# hides the mildest of the third kind, where the probes have only what the fp32 model gives. With
# what the int8 model itself gives (`quantize` stores it) engines are nearer: on the shipped probes
#   openvino int8 to onnxruntime int8  0.943  5.56  0.009  1.57  3.05  2.31
# and the limits are about twice that or more (``int8_own``). On a CPU without VNNI they refused a
# model whose weights used all 8 bits, which openvino saturates there: labels 0.797, depth 0.057.
# Gray images hide that red and blue are swapped: one probe should be colourful, one have sharp
# edges.
_OUTPUTS = ('semantic', 'semantic_confidence', 'depth', 'depth_confidence', 'normals', 'edges')
_LIMITS = {
    'fp32': (0.97, 2.3, 0.014, 1.25, 2.1, 0.55),
    'fp16': (0.97, 2.3, 0.014, 1.25, 2.1, 0.55),
    'bf16': (0.84, 12.5, 0.07, 7.6, 7.6, 2.9),
    'int8': (0.69, 19.0, 0.075, 5.4, 17.5, 8.5),
    'int8_own': (0.90, 10.5, 0.03, 3.6, 6.2, 4.8),
}
# Precision, or what is compared with what -> output -> limit.
TOLERANCES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        precision: MappingProxyType(
            dict(zip(_OUTPUTS, limits))
            # Not measured: no network has them yet. They come about as those do.
            | {'human_parts': limits[0], 'saliency': limits[5]}
        )
        for precision, limits in _LIMITS.items()
    }
)


class SelfCheckError(EngineError):
    """An engine does not compute what the model computes; the message says where and how far."""


@dataclass(frozen=True)
class Agreement:
    """How near an output of an engine is to the model's.

    Attributes:
        output: name of the tensor.
        measure: ``labels``: share of equal labels; ``relative``: median relative error of depth;
            ``degrees``: mean angle between normals; ``levels``: mean absolute difference, 0..255.
        value: of the probe where it is worst, alone or in a batch; NaN where the output has
            values that are not finite.
        limit: least share of labels, or largest error, that is accepted.
        ok: whether it is.
    """

    output: str
    measure: str
    value: float
    limit: float
    ok: bool

    def __str__(self) -> str:
        if np.isnan(self.value):
            return f'{self.output} has values that are not finite'
        found = f'{self.output} {self.measure} {self.value:.3g}'
        if self.ok:
            return f'{found} (limit {self.limit:g})'
        return f'{found} {"<" if self.measure == "labels" else ">"} {self.limit:g}'


def self_check(
    backend: Engine, bundle: Bundle, precision: str, *, max_batch: int = 1
) -> list[Agreement]:
    """Compare an engine with the model on the bundle's probes.

    Args:
        backend: the engine, opened on the bundle.
        bundle: from ``load_bundle``.
        precision: the engine's, one of ``engine.PRECISIONS``; it decides about the limits.
        max_batch: of the engine; the probes run one by one and, where it takes more, together.

    Returns:
        One agreement per output, in the bundle's order; empty where the bundle has no probes.

    Raises:
        SelfCheckError: an output is further from the model's than the precision explains, has
            values that are not finite, or another shape or dtype than the bundle says.
        EngineError: the engine fails.
        BundleError: the probes are not what they should be.
    """
    if bundle.probes is None:
        return []
    probes = _read_probes(bundle)
    # A quantised model has outputs of its own to be compared with: an engine is nearer to them.
    own = f'{backend.variant}.{next(iter(bundle.outputs))}' in probes.expected
    prefix, limits = (f'{backend.variant}.', 'int8_own') if own else ('', precision)
    depth = bundle.task_of('depth')
    nearest, farthest = (depth.range if depth else None) or (0.0, 1.0)
    floor = max(nearest, 1e-3 * farthest)  # of the size that a depth error is relative to
    worst: dict[str, Agreement] = {}
    for batch in _batches(len(probes.images), max_batch):
        images = probes.images[batch]
        found = backend.run(images, list(bundle.outputs))
        for name, dtype in bundle.outputs.items():
            array = _checked(name, found.get(name), dtype, images.shape)
            for one, expected in zip(array, probes.expected[prefix + name][batch], strict=True):
                agreement = _compare(name, one, expected, probes.stride, limits, floor)
                worst[name] = _worse(worst.get(name, agreement), agreement)
    refused = [str(agreement) for agreement in worst.values() if not agreement.ok]
    if refused:
        raise SelfCheckError(', '.join(refused))
    return list(worst.values())


def _batches(count: int, max_batch: int) -> Iterator[slice]:
    """One by one, then as many together as the engine takes."""
    for size in sorted({1, min(count, max_batch)}):
        for first in range(0, count, size):
            yield slice(first, first + size)


def _checked(
    name: str, array: NDArray[Any] | None, dtype: str, images: tuple[int, ...]
) -> NDArray[Any]:
    """An output as the bundle describes it."""
    if array is None:
        raise SelfCheckError(f'{name} is missing')
    shape = images if name == 'normals' else images[:3]
    if array.dtype != dtype or array.shape != shape:
        raise SelfCheckError(
            f'{name} is {array.dtype} {list(array.shape)}, expected {dtype} {list(shape)}'
        )
    return array


def _compare(
    name: str,
    array: NDArray[Any],
    expected: NDArray[Any],
    stride: int,
    precision: str,
    floor: float,
) -> Agreement:
    """Compare one image's output, [H, W] or [H, W, 3], with the model's at the sampled pixels."""
    measure = _MEASURES.get(name, 'levels')
    limit = TOLERANCES[precision][name]
    known = np.isfinite(expected)
    found = _sampled(array, stride)
    # Between the samples a value may only be not finite where the model has such values too.
    if not np.isfinite(found[known]).all() or (known.all() and not np.isfinite(array).all()):
        return Agreement(name, measure, float('nan'), limit, ok=False)
    distance = np.abs(found.astype(np.float64) - expected)
    if measure == 'labels':
        value = float((found == expected).mean())
    elif measure == 'relative':
        relative = distance[known] / np.maximum(np.abs(expected[known]), floor)
        value = float(np.median(relative)) if relative.size else 0.0
    elif measure == 'degrees':
        # The angle from the chord: exact for small angles, and a wrong length counts too.
        chord = np.linalg.norm(distance, axis=-1)[known.all(axis=-1)]
        angles = np.degrees(2 * np.arcsin(np.minimum(chord / 2, 1)))
        value = float(angles.mean()) if angles.size else 0.0
    else:
        value = float(distance.mean())
    ok = value >= limit if measure == 'labels' else value <= limit
    return Agreement(name, measure, value, limit, ok)


def _worse(one: Agreement, other: Agreement) -> Agreement:
    if np.isnan(one.value) or np.isnan(other.value):
        return one if np.isnan(one.value) else other
    pick = min if one.measure == 'labels' else max
    return pick(one, other, key=lambda agreement: agreement.value)


@dataclass(frozen=True)
class _Probes:
    """Images [P, H, W, 3] at the network's size, and the model's outputs for them at every
    ``stride``-th pixel."""

    images: NDArray[np.uint8]
    expected: Mapping[str, NDArray[Any]]
    stride: int


def _sampled(array: NDArray[Any], stride: int) -> NDArray[Any]:
    """Every ``stride``-th pixel of [H, W] or [H, W, 3]."""
    return array[stride // 2 :: stride, stride // 2 :: stride]


def _read_probes(bundle: Bundle) -> _Probes:
    """Read ``probes.npz``: ``images`` (whole fractions of the network's size), ``stride``, and an
    array for each output; ``VARIANT.OUTPUT`` for models that have outputs of their own.

    Raises:
        BundleError: it is not such a file, or not of this bundle.
    """
    assert bundle.probes is not None
    path = bundle.probes.path
    try:
        with zipfile.ZipFile(io.BytesIO(bundle.probes.read())) as archive:
            arrays = {
                Path(name).stem: np.lib.format.read_array(archive.open(name), allow_pickle=False)
                for name in archive.namelist()
            }
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(f'{path}: is not an archive of NumPy arrays: {error}') from error
    stride = arrays.get('stride', np.zeros(1))
    if stride.shape != () or stride.dtype.kind not in 'iu' or not 1 <= stride <= bundle.height:
        raise BundleError(f'{path}: stride is {stride}, expected a whole number of pixels')
    images = arrays.get('images', np.zeros(0))
    factor = bundle.height // images.shape[1] if images.ndim == 4 and images.shape[1] else 0
    size = (bundle.height, bundle.width, 3)
    if images.dtype == np.uint8 and factor and len(images):
        images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    if images.dtype != np.uint8 or images.shape[1:] != size or not len(images):
        raise BundleError(
            f'{path}: images are {images.dtype} {list(images.shape)}, expected uint8 '
            f'[P, {bundle.height}, {bundle.width}, 3] or a whole fraction of that size'
        )
    grid = _sampled(images[0], int(stride)).shape
    for prefix in ('', *(f'{variant}.' for variant in bundle.models)):
        if prefix and not any(name.startswith(prefix) for name in arrays):
            continue
        for name, dtype in bundle.outputs.items():
            shape = (len(images), *(grid if name == 'normals' else grid[:2]))
            found = arrays.get(prefix + name)
            if found is None or found.dtype != dtype or found.shape != shape:
                what = 'missing' if found is None else f'{found.dtype} {list(found.shape)}'
                raise BundleError(
                    f'{path}: {prefix}{name} is {what}, expected {dtype} {list(shape)}'
                )
    return _Probes(np.ascontiguousarray(images), arrays, int(stride))
