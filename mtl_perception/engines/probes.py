"""The probes of a bundle: a few images, and what its models gave for them when they were made.

``probes.npz`` holds ``images`` [P, h, w, 3] (a whole fraction of the network's size: every pixel is
repeated), ``stride``, the outputs of the fp32 model at every ``stride``-th pixel, and as
``VARIANT.OUTPUT`` those of models in other number formats that have outputs of their own.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, BundleError


@dataclass(frozen=True)
class Probes:
    """Probes as an engine needs them.

    Attributes:
        images: [P, H, W, 3] at the network's size.
        expected: as in the file: output, or ``VARIANT.OUTPUT`` -> [P, ...] at the sampled pixels.
        stride: see ``sampled``.
    """

    images: NDArray[np.uint8]
    expected: Mapping[str, NDArray[Any]]
    stride: int

    def has_own(self, variant: str) -> bool:
        """Whether a variant of the model has outputs of its own here."""
        return any(name.startswith(f'{variant}.') for name in self.expected)

    def of(self, variant: str) -> Mapping[str, NDArray[Any]]:
        """Output -> what the model of a variant gave; the fp32 model, if that has none here."""
        prefix = f'{variant}.' if self.has_own(variant) else ''
        return {
            name.removeprefix(prefix): array
            for name, array in self.expected.items()
            if name.startswith(prefix)
        }


def sampled(array: NDArray[Any], stride: int) -> NDArray[Any]:
    """Every ``stride``-th pixel of [P, H, W, ...], beginning in the middle."""
    pixels = slice(stride // 2, None, stride)
    return array[:, pixels, pixels]


def enlarged(images: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """[P, h, w, 3] with every pixel repeated in both directions."""
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def pack_probes(arrays: Mapping[str, Any]) -> bytes:
    """The file of these arrays: as ``numpy.savez_compressed``, without the time of day."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f'{name}.npy', date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(array, order='C'), allow_pickle=False)
            archive.writestr(entry, buffer.getvalue(), compresslevel=9)
    return file.getvalue()


def unpack_probes(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of a file, as ``pack_probes`` was given them.

    Raises:
        ValueError: it is not such a file.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {
                name.removesuffix('.npy'): np.lib.format.read_array(
                    archive.open(name), allow_pickle=False
                )
                for name in archive.namelist()
            }
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f'is not an archive of NumPy arrays: {error}') from error


def read_probes(bundle: Bundle) -> Probes | None:
    """The probes of a bundle; None where it has none.

    Raises:
        BundleError: the file is not what it should be, or not of this bundle.
    """
    if bundle.probes is None:
        return None
    path = bundle.probes.path
    try:
        arrays = unpack_probes(bundle.probes.read())
    except ValueError as error:
        raise BundleError(f'{path}: {error}') from error
    stride = _stride(path, bundle, arrays.pop('stride', np.zeros(1)))
    images = _images(path, bundle, arrays.pop('images', np.zeros(0)))
    _check_outputs(path, bundle, arrays, sampled(images, stride).shape)
    return Probes(images, arrays, stride)


def _stride(path: Path, bundle: Bundle, stride: NDArray[Any]) -> int:
    if stride.shape != () or stride.dtype.kind not in 'iu' or not 1 <= stride <= bundle.height:
        raise BundleError(f'{path}: stride is {stride}, expected a whole number of pixels')
    return int(stride)


def _images(path: Path, bundle: Bundle, images: NDArray[Any]) -> NDArray[np.uint8]:
    factor = bundle.height // images.shape[1] if images.ndim == 4 and images.shape[1] else 0
    size = (bundle.height, bundle.width, 3)
    if images.dtype == np.uint8 and factor and len(images):
        images = enlarged(images, factor)
    if images.dtype != np.uint8 or images.shape[1:] != size or not len(images):
        raise BundleError(
            f'{path}: images are {images.dtype} {list(images.shape)}, expected uint8 '
            f'[P, {bundle.height}, {bundle.width}, 3] or a whole fraction of that size'
        )
    return np.ascontiguousarray(images)


def _check_outputs(
    path: Path, bundle: Bundle, arrays: Mapping[str, NDArray[Any]], grid: tuple[int, ...]
) -> None:
    """Compare the outputs of every model that has any here with the bundle's description."""
    for prefix in ('', *(f'{variant}.' for variant in bundle.models)):
        if prefix and not any(name.startswith(prefix) for name in arrays):
            continue
        for name, dtype in bundle.outputs.items():
            shape = grid if name == 'normals' else grid[:3]
            found = arrays.get(prefix + name)
            if found is None or found.dtype != dtype or found.shape != shape:
                what = 'missing' if found is None else f'{found.dtype} {list(found.shape)}'
                raise BundleError(
                    f'{path}: {prefix}{name} is {what}, expected {dtype} {list(shape)}'
                )
