"""How far outputs are from the model's, in one measure for each, and how far is too far.

Wherever a model becomes something else, what it gives is compared with what it gave before: the
network in torch with its graph (``mtl_training export``), the graph with itself in another number
format (``quantize``), the model with the engine of a machine (``self_check``). Some come out wrong
without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from .engine import Engine, EngineError
from .probes import read_probes, sampled

# How an output is compared; those that are not here are compared in levels of 0..255.
_MEASURES = MappingProxyType(
    {'semantic': 'labels', 'human_parts': 'labels', 'depth': 'relative', 'normals': 'degrees'}
)


@dataclass(frozen=True)
class Limits:
    """How far is too far, for one purpose.

    Attributes:
        of: output -> least share of equal labels, or largest error.
        largest: whether the largest error of a pixel counts, or the typical one.
    """

    of: Mapping[str, float]
    largest: bool = False


# export: a graph in ONNX Runtime is the network in torch at every pixel, but for rounding. A
# probability on the edge of two levels may fall to either side; 0.0573 degrees are 1e-3 radians.
#
# quantize: a model in another number format is nearly the fp32 model on two pictures, or broken.
#
# engine: what an engine of a precision gives for the probes. Measured on the shipped network (TIF
# on EfficientNet-Lite0, 256x320) against onnxruntime fp32 at every 8th pixel: rooms, some of them
# at half resolution, smooth colourful noise, and flat boxes (not for int8), 11 to 47 images. The
# worst image of all, in onnxruntime and openvino:
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
# (of tif_lite0_rooms; depth 0.033 of tif_lite0_indoor, the others within the limits), and the
# limits are about twice the former or more ("engine int8 to itself"), 1.4 times the latter. On a
# CPU without VNNI they refused a model whose weights used all 8 bits, which openvino saturates
# there: labels 0.797, depth 0.057. Gray images hide that red and blue are swapped: one probe should
# be colourful, one have sharp edges.
_OUTPUTS = ('semantic', 'semantic_confidence', 'depth', 'depth_confidence', 'normals', 'edges')
_LIMITS = {
    'export': (0.999, 1.0, 0.001, 1.0, 0.0573, 1.0),
    'quantize fp16': (0.97, 2.0, 0.006, 2.0, 2.0, 2.0),
    'quantize int8': (0.80, 12.0, 0.05, 12.0, 12.0, 12.0),
    'engine fp32': (0.97, 2.3, 0.014, 1.25, 2.1, 0.55),
    'engine fp16': (0.97, 2.3, 0.014, 1.25, 2.1, 0.55),
    'engine bf16': (0.84, 12.5, 0.07, 7.6, 7.6, 2.9),
    'engine int8': (0.69, 19.0, 0.075, 5.4, 17.5, 8.5),
    'engine int8 to itself': (0.90, 10.5, 0.045, 3.6, 6.2, 4.8),
}
# Not measured: no shipped network has these outputs. They come about as those do.
_LIKE = {'human_parts': 'semantic', 'saliency': 'edges'}


def _limits(purpose: str) -> Limits:
    of = dict(zip(_OUTPUTS, _LIMITS[purpose]))
    of |= {output: of[other] for output, other in _LIKE.items()}
    return Limits(MappingProxyType(of), largest=purpose == 'export')


LIMITS: Mapping[str, Limits] = MappingProxyType({purpose: _limits(purpose) for purpose in _LIMITS})


class SelfCheckError(EngineError):
    """An engine does not compute what the model computes; the message says where and how far."""


@dataclass(frozen=True)
class Agreement:
    """How near an output is to the model's.

    Attributes:
        output: name of the tensor.
        measure: ``labels``: share of equal labels; ``relative``: median relative error of depth;
            ``degrees``: mean angle between normals; ``levels``: mean difference, 0..255; or, where
            ``Limits.largest``, ``largest relative`` and so on.
        value: found; NaN where nothing can be compared.
        limit: least share of labels, or largest error, that is accepted.
        fault: why nothing can be compared; empty if it can.
    """

    output: str
    measure: str
    value: float
    limit: float
    fault: str = ''

    @property
    def ok(self) -> bool:
        """Whether it is near enough."""
        if self.fault:
            return False
        return self.value >= self.limit if self.measure == 'labels' else self.value <= self.limit

    def __str__(self) -> str:
        if self.fault:
            return f'{self.output} {self.fault}'
        found = f'{self.output} {self.measure} {self.value:.3g}'
        if self.ok:
            return f'{found} (limit {self.limit:g})'
        return f'{found} {"<" if self.measure == "labels" else ">"} {self.limit:g}'


def compare(
    output: str,
    found: NDArray[Any],
    expected: NDArray[Any],
    purpose: str,
    *,
    stride: int = 1,
    floor: float = 1e-6,
) -> Agreement:
    """Compare an output with the model's, all images at once.

    Args:
        output: its name, which decides how it is compared.
        found: [N, H, W] or [N, H, W, 3].
        expected: the model's at every ``stride``-th pixel; where it is not finite, nothing is
            expected.
        purpose: one of ``LIMITS``.
        stride: see ``probes.sampled``.
        floor: metres; errors of depths below it are relative to it.
    """
    kind, limits = _MEASURES.get(output, 'levels'), LIMITS[purpose]
    measure = f'largest {kind}' if limits.largest and kind != 'labels' else kind
    limit = limits.of[output]
    samples = sampled(found, stride)
    fault = difference_of_kind(samples, str(expected.dtype), expected.shape)
    if not fault:
        known = np.isfinite(expected)
        # Between the samples a value may only be not finite where the model has such values too.
        if not np.isfinite(samples[known]).all() or (known.all() and not np.isfinite(found).all()):
            fault = 'has values that are not finite'
    if fault:
        return Agreement(output, measure, float('nan'), limit, fault)
    if kind == 'labels':
        return Agreement(output, measure, float((samples == expected).mean()), limit)
    errors = _errors(kind, samples, expected, floor)
    typical = np.median if kind == 'relative' else np.mean
    value = float(np.max(errors) if limits.largest else typical(errors)) if errors.size else 0.0
    return Agreement(output, measure, value, limit)


def difference_of_kind(array: NDArray[Any], dtype: str, shape: tuple[int, ...]) -> str:
    """Say that an array is of another dtype or shape; empty where it is not."""
    if array.dtype == dtype and array.shape == shape:
        return ''
    return f'is {array.dtype} {list(array.shape)}, expected {dtype} {list(shape)}'


def _errors(
    kind: str, found: NDArray[Any], expected: NDArray[Any], floor: float
) -> NDArray[np.float64]:
    """The error of every pixel of which something is expected."""
    known = np.isfinite(expected)
    if kind == 'degrees':
        known = known.all(axis=-1)
    distance: NDArray[np.float64] = np.abs(found[known].astype(np.float64) - expected[known])
    if kind == 'relative':
        distance /= np.maximum(np.abs(expected[known]), floor)
    if kind == 'degrees':
        # The angle from the chord: exact for small angles, and a wrong length counts too.
        chord = np.linalg.norm(distance, axis=-1)
        distance = np.degrees(2 * np.arcsin(np.minimum(chord / 2, 1)))
    return distance


def self_check(
    engine: Engine, bundle: Bundle, precision: str, *, max_batch: int = 1
) -> list[Agreement]:
    """Compare an engine with the model on the bundle's probes.

    Args:
        engine: opened on the bundle.
        bundle: from ``load_bundle``.
        precision: the engine's, one of ``engine.PRECISIONS``; it decides about the limits.
        max_batch: of the engine; the probes run one by one and, where it takes more, together.

    Returns:
        Of every output, in the bundle's order, the agreement for the probe where it is worst, alone
        or in a batch; empty where the bundle has no probes.

    Raises:
        SelfCheckError: an output is further from the model's than the precision explains, has
            values that are not finite, or another shape or dtype than the bundle says.
        EngineError: the engine fails.
        BundleError: the probes are not what they should be.
    """
    probes = read_probes(bundle)
    if probes is None:
        return []
    # A quantised model has outputs of its own to be compared with: an engine is nearer to them.
    own = probes.has_own(engine.variant)
    purpose = 'engine int8 to itself' if own else f'engine {precision}'
    model = probes.of(engine.variant)
    depth = bundle.task_of('depth')
    nearest, farthest = (depth.range if depth else None) or (0.0, 1.0)
    floor = max(nearest, 1e-3 * farthest)
    worst: dict[str, Agreement] = {}
    for batch in _batches(len(probes.images), max_batch):
        images = probes.images[batch]
        found = engine.run(images, list(bundle.outputs))
        for name, dtype in bundle.outputs.items():
            array = _checked(name, found.get(name), dtype, images.shape)
            for index, expected in enumerate(model[name][batch]):
                agreement = compare(
                    name,
                    array[index : index + 1],
                    expected[None],
                    purpose,
                    stride=probes.stride,
                    floor=floor,
                )
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
    fault = difference_of_kind(array, dtype, images if name == 'normals' else images[:3])
    if fault:
        raise SelfCheckError(f'{name} {fault}')
    return array


def _worse(one: Agreement, other: Agreement) -> Agreement:
    if one.fault or other.fault:
        return one if one.fault else other
    pick = min if one.measure == 'labels' else max
    return pick(one, other, key=lambda agreement: agreement.value)
