"""ONNX Runtime on the CPU: exact in fp32, from the same file that other engines are built from."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle, BundleError
from . import BackendError

_DTYPES = {'tensor(uint8)': 'uint8', 'tensor(float)': 'float32'}


class OnnxRuntimeBackend:
    """A bundle in ONNX Runtime's CPU execution provider.

    The session is made from the very bytes whose hash was compared, never from a path: what was
    checked is what runs, and no file beside the model can be pulled in.

    Unwanted outputs are not handed over, but they are computed: ONNX Runtime executes the whole
    graph whatever is fetched. (``RunOptions.only_execute_path_to_fetches`` changes nothing in the
    released CPU wheels: in 1.32 a node that fails on purpose, needed by an unwanted output only,
    still fails the run.)

    Args:
        bundle: from ``load_bundle``.
        threads: intra-op threads; 0 lets ONNX Runtime choose (one per physical core).

    Raises:
        BackendError: onnxruntime is not installed or cannot open the model.
        BundleError: the file changed since it was loaded, or its tensors are not as described.
    """

    name = 'onnxruntime'
    identity: Mapping[str, str]

    def __init__(self, bundle: Bundle, *, threads: int = 0) -> None:
        if threads < 0:
            raise BackendError(f'threads is {threads}, expected 0 (automatic) or more')
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError(
                f"the backend 'onnxruntime' needs the Python package onnxruntime: {error}"
            ) from error
        content = _model_bytes(bundle)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Idle threads sleep: spinning took 1.6 times the CPU, and was slower on a busy machine.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        options.log_severity_level = 4  # failures come as exceptions; no second copy on stderr
        try:
            self._session: Any = onnxruntime.InferenceSession(
                content, options, providers=['CPUExecutionProvider']
            )
        except Exception as error:  # onnxruntime's exceptions share no narrower base
            raise BackendError(
                f'{bundle.model_path}: onnxruntime {onnxruntime.__version__} cannot open it: '
                + _one_line(error)
            ) from error
        self._run_options = onnxruntime.RunOptions()
        self._run_options.log_severity_level = 4
        _check_tensors(bundle, self._session)
        self._size = (bundle.height, bundle.width)
        self.identity = {
            'engine': 'onnxruntime',
            'version': str(onnxruntime.__version__),
            'provider': str(self._session.get_providers()[0]),
            'device': _cpu_name(),
            'precision': 'fp32',
        }

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Run the network; see ``Backend.run``. The input is not copied if it is C-contiguous."""
        if self._session is None:
            raise BackendError('onnxruntime: the backend is closed')
        if not outputs:
            return {}
        names = list(outputs)
        try:
            arrays = self._session.run(names, {'image': images}, self._run_options)
        except Exception as error:
            raise BackendError(f'onnxruntime: {_one_line(error)}') from error
        for name, array in zip(names, arrays, strict=True):
            if array.shape[:3] != (len(images), *self._size):
                raise BackendError(
                    f'onnxruntime: output {name} has the shape {list(array.shape)}, '
                    f'expected {[len(images), *self._size]}'
                )
        return dict(zip(names, arrays, strict=True))

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _model_bytes(bundle: Bundle) -> bytes:
    try:
        content = bundle.model_path.read_bytes()
    except OSError as error:
        raise BundleError(f'{bundle.model_path}: cannot be read: {error.strerror}') from error
    if hashlib.sha256(content).hexdigest() != bundle.sha256:
        raise BundleError(
            f'{bundle.model_path}: changed since the bundle was loaded, load it again'
        )
    return content


def _check_tensors(bundle: Bundle, session: Any) -> None:
    """Compare names, dtypes and shapes of the session with the bundle's description."""
    path = bundle.model_path
    grid = ['N', bundle.height, bundle.width]
    inputs = session.get_inputs()
    if [tensor.name for tensor in inputs] != ['image']:
        found = ', '.join(tensor.name for tensor in inputs)
        raise BundleError(f"{path}: inputs are [{found}], expected the one input 'image'")
    _check_tensor(path, 'input', inputs[0], 'uint8', [*grid, 3])
    tensors = {tensor.name: tensor for tensor in session.get_outputs()}
    for name, dtype in bundle.outputs.items():
        if name not in tensors:
            raise BundleError(
                f'{path}: output {name!r} is missing, expected by bundle.yaml; '
                f'the model has {", ".join(tensors)}'
            )
        _check_tensor(
            path, 'output', tensors[name], dtype, [*grid, 3] if name == 'normals' else grid
        )


def _check_tensor(path: Path, role: str, tensor: Any, dtype: str, shape: Sequence[Any]) -> None:
    found = _DTYPES.get(tensor.type, tensor.type)
    if found != dtype:
        raise BundleError(f'{path}: {role} {tensor.name!r} is {found}, expected {dtype}')
    # A dimension the file leaves open is a name or None here; the first must be open (any batch).
    dims = list(tensor.shape)
    fits = len(dims) == len(shape) and not isinstance(dims[0], int)
    if not fits or any(
        isinstance(d, int) and d != s for d, s in zip(dims[1:], shape[1:], strict=True)
    ):
        raise BundleError(
            f'{path}: {role} {tensor.name!r} has the shape {_shape(dims)}, expected '
            f'{_shape(shape)} with N free'
        )


def _shape(dims: Sequence[Any]) -> str:
    return '[' + ', '.join(str(dim) for dim in dims) + ']'


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())[:500]


def _cpu_name() -> str:
    """The processor's model name: /proc/cpuinfo on x86, the board's on ARM, else the platform's."""
    try:
        for line in Path('/proc/cpuinfo').read_text(errors='replace').splitlines():
            key, _, value = line.partition(':')
            if key.strip() in ('model name', 'Model') and value.strip():
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
