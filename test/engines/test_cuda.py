"""Which GPU there is, through which package, and that the real package takes our calls."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from mtl_perception.engines.cuda import CudaBindings, open_gpu
from mtl_perception.engines.engine import EngineError


def refused(call):
    with pytest.raises(EngineError) as caught:
        call()
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ('state', 'message'),
    [
        ({'count_error': 35, 'driver': 0}, 'found no NVIDIA driver'),
        ({'count_error': 35, 'driver': 11040}, 'driver is for CUDA 11.4, too old'),
        ({'count_error': 100}, 'finds no GPU'),
        ({'count': 0}, 'finds no GPU'),
        ({'count_error': 3}, 'cudaGetDeviceCount: error number 3 (error 3)'),
    ],
)
def test_no_gpu(gpu, state, message):
    vars(gpu).update(state)
    assert message in refused(lambda: open_gpu(0))


@pytest.mark.parametrize('package', ['gpu', 'pycuda'])
def test_a_gpu_that_is_not_there(request, package):
    request.getfixturevalue(package)
    assert 'device is 1, expected 0 to 0' in refused(lambda: open_gpu(1))


@pytest.mark.parametrize('package', ['gpu', 'pycuda'])
def test_what_is_copied_in_comes_out_again(gpu, request, package):
    request.getfixturevalue(package)
    opened = open_gpu(0)
    assert opened.device == 'Orin (compute capability 8.7)'
    assert opened.driver == '12.6'
    with opened.use():
        stream, address = opened.new_stream(), opened.allocate(16)
        source, target = opened.pinned(16), opened.pinned(16)
        assert (target == 0).all()
        source[:] = range(16)
        opened.copy_in(address, source, stream)
        opened.copy_out(target, address, stream)
        opened.synchronize(stream)
        assert target.tolist() == list(range(16))
        for array in (source, target):
            opened.free_pinned(array)
        opened.free(address)
        opened.free_stream(stream)
    assert gpu.nothing_left


def test_pycuda_has_no_graphs_and_says_so(pycuda):
    opened = open_gpu(0)
    assert not opened.graphs
    for call in (opened.begin_capture, opened.end_capture, lambda stream: opened.launch(0, stream)):
        assert 'cuda-bindings has' in refused(lambda call=call: call(0))


def test_cuda_packages_missing(monkeypatch):
    for name in ('cuda', 'cuda.bindings', 'cuda.bindings.runtime', 'pycuda', 'pycuda.driver'):
        monkeypatch.setitem(sys.modules, name, None)
    message = refused(lambda: open_gpu(0))
    assert 'cuda-bindings' in message
    assert 'pycuda' in message


@pytest.fixture
def real_bindings():
    runtime = pytest.importorskip('cuda.bindings.runtime', reason='cuda-bindings')
    if int(runtime.cudaGetDeviceCount()[0]) != 35 or runtime.cudaDriverGetVersion()[1]:
        pytest.skip('this machine has an NVIDIA driver')
    return runtime


def test_the_real_bindings_without_a_driver(real_bindings):
    assert 'found no NVIDIA driver' in refused(lambda: open_gpu(0))


def test_the_real_bindings_take_our_calls(real_bindings):
    """Numbers as addresses and streams, these enumerations: an error of CUDA, not of types."""
    cuda = CudaBindings.__new__(CudaBindings)
    cuda._runtime, cuda._number = real_bindings, 0
    array = np.zeros(16, np.uint8)
    for call in (
        lambda: cuda.use().__enter__(),
        lambda: cuda.allocate(16),
        lambda: cuda.pinned(16),
        cuda.new_stream,
        lambda: cuda.copy_in(4096, array, 7),
        lambda: cuda.copy_out(array, 4096, 7),
        lambda: cuda.synchronize(7),
        lambda: cuda.begin_capture(7),
        lambda: cuda.end_capture(7),
        lambda: cuda.launch(real_bindings.cudaGraphExec_t(), 7),
    ):
        assert '(error 35)' in refused(call)
    cuda.free(4096)
    cuda.free_stream(7)
    cuda.free_pinned(array)
    cuda.free_graph(real_bindings.cudaGraphExec_t())
