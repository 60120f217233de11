"""The processes of a run: how they are started, and how they act as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import cv2
import torch
from lightning.fabric import Fabric
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mtl_training.checkpoints.config import RunConfig
from mtl_training.models import Network, Predictions


def launch(config: RunConfig) -> Fabric:
    """Start the other processes of a run, on one device each."""
    if config.threads:
        torch.set_num_threads(config.threads)
    cv2.setNumThreads(0)
    fabric = Fabric(
        accelerator=config.accelerator, devices=config.devices, precision=config.precision
    )
    fabric.launch()
    return fabric


def to_device(net: Network, fabric: Fabric) -> Network:
    """A network on this process's device, with norms that count over the batches of all.

    Norms do so on GPUs only: torch has no such for CPUs.
    """
    if fabric.world_size > 1 and fabric.device.type == 'cuda':
        convert_sync_batchnorm(net)
    fabric.to_device(net.to(memory_format=torch.channels_last))
    return net


class Trainee(nn.Module):
    """A network whose forward is ``predictions``: to average gradients, it must be the forward."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Predictions:
        """See ``Network.predictions``."""
        return self.net.predictions(image)


def averaging(net: Network, fabric: Fabric) -> Callable[[Tensor], Predictions]:
    """Its predictions; gradients of losses of them become means over all processes."""
    if fabric.world_size == 1:
        return net.predictions
    devices = [fabric.device] if fabric.device.type == 'cuda' else None
    return DistributedDataParallel(Trainee(net), device_ids=devices)


@contextmanager
def averaged_later(predict: Callable[[Tensor], Predictions], later: bool) -> Iterator[None]:
    """Where gradients are averaged anyway, leave it to the last of several backward passes."""
    if later and isinstance(predict, DistributedDataParallel):
        with predict.no_sync():
            yield
    else:
        yield


def average_gradients(parameters: Iterable[nn.Parameter], fabric: Fabric) -> None:
    """Make gradients the mean over all processes."""
    if fabric.world_size == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = mean(parameter.grad, fabric)


def mean(x: Tensor, fabric: Fabric) -> Tensor:
    """The mean over all processes."""
    reduced = fabric.all_reduce(x, reduce_op='mean')
    assert isinstance(reduced, Tensor)  # as what it came from
    return reduced
