"""What every engine must agree on with the bundle: its files, tensors, images and results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, BundleError, DataFile
from .engine import EngineError


@dataclass(frozen=True)
class Tensor:
    """An input or output as an engine describes it.

    Attributes:
        name: in the ONNX file.
        dtype: as NumPy calls it; another text where NumPy has no name for it.
        shape: sizes; None or the name of a dimension where the model leaves it open.
    """

    name: str
    dtype: str
    shape: Sequence[int | str | None]


def model_file(bundle: Bundle, variant: str, precision: str, backend: str) -> DataFile:
    """The ONNX file of a bundle that an engine needs for a precision.

    Raises:
        BundleError: the bundle has no such file.
    """
    if variant not in bundle.models:
        raise BundleError(
            f'{bundle.folder / "bundle.yaml"}: has no {variant} model, expected one for '
            f'{precision} on {backend}; make it with: mtl_training quantize {bundle.folder} '
            f'--precision {precision} --data DATA'
        )
    return bundle.models[variant]


def check_tensors(
    bundle: Bundle, path: Path, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> None:
    """Compare names, dtypes and shapes of a model with the bundle's description.

    Args:
        path: of the ONNX file, for the message.

    Raises:
        BundleError: they differ.
    """
    grid: list[int | str] = ['N', bundle.height, bundle.width]
    if [tensor.name for tensor in inputs] != ['image']:
        found = ', '.join(tensor.name for tensor in inputs)
        raise BundleError(f"{path}: inputs are [{found}], expected the one input 'image'")
    _check_tensor(path, 'input', inputs[0], 'uint8', [*grid, 3])
    tensors = {tensor.name: tensor for tensor in outputs}
    for name, dtype in bundle.outputs.items():
        if name not in tensors:
            raise BundleError(
                f'{path}: output {name!r} is missing, expected by bundle.yaml; '
                f'the model has {", ".join(tensors)}'
            )
        _check_tensor(
            path, 'output', tensors[name], dtype, [*grid, 3] if name == 'normals' else grid
        )


def _check_tensor(
    path: Path, role: str, tensor: Tensor, dtype: str, shape: Sequence[int | str]
) -> None:
    if tensor.dtype != dtype:
        raise BundleError(f'{path}: {role} {tensor.name!r} is {tensor.dtype}, expected {dtype}')
    dims = list(tensor.shape)
    # The first must be open: any batch.
    fits = len(dims) == len(shape) and not isinstance(dims[0], int)
    if not fits or any(
        isinstance(d, int) and d != s for d, s in zip(dims[1:], shape[1:], strict=True)
    ):
        raise BundleError(
            f'{path}: {role} {tensor.name!r} has the shape {_text(dims)}, expected '
            f'{_text(shape)} with N free'
        )


def check_images(engine: str, images: NDArray[Any], bundle: Bundle, max_batch: int) -> None:
    """Compare the images of a run with what the engine was opened for.

    Args:
        engine: its name, for the message.

    Raises:
        EngineError: another dtype or size than the bundle's, no images, or more than ``max_batch``.
    """
    size = (bundle.height, bundle.width, 3)
    if images.dtype != np.uint8 or images.shape[1:] != size or not 1 <= len(images) <= max_batch:
        raise EngineError(
            f'{engine}: images are {images.dtype} {list(images.shape)}, expected uint8 '
            f'{_text(["N", *size])} with N from 1 to {max_batch} (max_batch)'
        )


def check_results(engine: str, arrays: Mapping[str, NDArray[Any]], images: NDArray[Any]) -> None:
    """Compare the sizes of what a run gave with those of its images.

    Raises:
        EngineError: they differ, in a model whose description leaves them open.
    """
    for name, array in arrays.items():
        if array.shape[:3] != images.shape[:3]:
            raise EngineError(
                f'{engine}: output {name} has the shape {list(array.shape)}, expected '
                f'{list(images.shape[:3])} for these images'
            )


def _text(dims: Sequence[int | str | None]) -> str:
    return '[' + ', '.join(str(dim) for dim in dims) + ']'
