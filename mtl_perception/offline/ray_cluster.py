"""The workers of an existing Ray cluster, in which functions are called.

They need this package and the bundle, but not the recordings. What a worker was doing when it died
is done again by another one.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from .. import PerceptionError, one_line
from ..engines.engine import EngineError

T = TypeVar('T')
R = TypeVar('R')

# A call that has killed so many workers more is given up.
_RETRIES = 3
# Ray does not say that this is why it cannot connect.
_TOKEN = '; one that wants a token takes it from RAY_AUTH_TOKEN'


class RayCluster:
    """A ``Call`` to workers of a cluster; use with ``with``.

    Args:
        address: such as ``auto`` (the one that runs on this machine) or ``host:6379``.
        cpus: that a worker takes.
        gpu: whether it takes a GPU, too; None: if the cluster has one.

    Attributes:
        workers: how many the cluster has room for.

    Raises:
        EngineError: Ray is not installed, no cluster is there, or it has no room.
    """

    def __init__(self, address: str, *, cpus: int, gpu: bool | None) -> None:
        if 'RAY_AUTH_TOKEN' in os.environ:
            # Given to be used; Ray looks at it only in this mode, and reads that when imported.
            os.environ.setdefault('RAY_AUTH_MODE', 'token')
        try:
            import ray
        except ImportError:
            raise EngineError('--ray needs the Python package ray: pip install ray') from None
        self._ray: Any = ray
        self._own = not ray.is_initialized()
        try:
            _reach(address)
            if self._own:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        # OSError, but also ConnectionError, ValueError, RuntimeError, and gRPC's.
        except Exception as error:
            heard = ':' in address and not (isinstance(error, OSError) and error.errno)
            token = _TOKEN if heard else ''
            raise EngineError(f'no Ray cluster at {address}: {one_line(error)}{token}') from error
        resources = self._ray.cluster_resources()
        gpus = int(resources.get('GPU', 0))
        gpu = gpus > 0 if gpu is None else gpu
        self.workers = int(resources.get('CPU', 0)) // cpus
        if gpu:
            self.workers = min(self.workers, gpus)
        if not self.workers:
            self._leave()
            wanted = f'{cpus} CPUs' + (' and a GPU' if gpu else '')
            raise EngineError(f'the Ray cluster at {address} has no room for {wanted}')
        self._wanted = {'num_cpus': cpus, 'num_gpus': int(gpu), 'max_retries': _RETRIES}

    def __call__(self, function: Callable[[T], R], argument: T) -> R:
        ray = self._ray
        try:
            result: R = ray.get(ray.remote(**self._wanted)(function).remote(argument))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, PerceptionError):
                raise error.cause from None
            cause = f'{type(error.cause).__name__}: {one_line(error.cause)}'
            raise EngineError(f'a worker of the Ray cluster failed: {cause}') from error
        except ray.exceptions.RayError as error:
            said = one_line(error).partition('. ')[0]
            raise EngineError(f'the Ray cluster has lost a piece of work: {said}') from error
        return result

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._own:
            self._ray.shutdown()


def _reach(address: str) -> None:
    """Raise OSError where nobody listens, of which Ray would try to convince itself for minutes."""
    host, _, port = address.removeprefix('ray://').rpartition(':')
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()
