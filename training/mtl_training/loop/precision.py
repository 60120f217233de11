"""Mixed precision, where a processor is slow at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric import Fabric
from torch.overrides import TorchFunctionMode


class PreciseDepthwise(TorchFunctionMode):
    """Depth-wise convolutions in 32 bits, whatever the precision around them.

    On CPUs their backward pass in bfloat16 takes up to fifteen times as long as in 32 bits
    (torch 2.14, benchmarks/mixed_precision.py), which makes up for all that the others win.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d and not kwargs and is_depthwise(args):
            image, weight, *further = args
            with torch.autocast('cpu', enabled=False):
                return func(image.float(), weight.float(), *further)
        return func(*args, **kwargs or {})


def is_depthwise(args: Sequence[Any]) -> bool:
    """Of ``conv2d(input, weight, bias, stride, padding, dilation, groups)``, as modules call it."""
    return len(args) == 7 and args[6] == args[0].shape[1] > 1


@contextmanager
def autocast(fabric: Fabric) -> Iterator[None]:
    """Fabric's, with the exception above."""
    with fabric.autocast():
        if fabric.device.type == 'cpu' and torch.is_autocast_enabled('cpu'):
            with PreciseDepthwise():
                yield
        else:
            yield
