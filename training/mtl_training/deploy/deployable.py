"""What runs on the robot: a network between camera pixels and the tensors of the bundle."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mtl_training.models import Network

# depth_confidence is the probability that depth is within this factor, as delta1 of the papers.
CONFIDENT_FACTOR = 1.25


def _semantic(logits: Tensor) -> dict[str, Tensor]:
    """Arg max, and the softmax there."""
    size, logits = logits.shape[-2:], _classes_last(logits)
    ids = logits.argmax(dim=-1).unflatten(1, size)
    confidence = logits.softmax(dim=-1).amax(dim=-1).unflatten(1, size)
    return {'semantic': ids.to(torch.uint8), 'semantic_confidence': _levels(confidence)}


def _classes_last(logits: Tensor) -> Tensor:
    """[N,C,H,W] -> [N,HW,C], which ONNX Runtime reduces three times as fast as [N,C,H,W].

    Flat, as it would move a transposition that it can see through behind the reduction again.
    """
    return logits.permute(0, 2, 3, 1).flatten(1, 2)


def _depth(logits: Tensor) -> dict[str, Tensor]:
    """exp(mu), and P(|log d - mu| < log 1.25) of a Laplace distribution with scale b = exp(s).

    With one channel the logits are canonical metres, and there is no confidence.
    """
    if logits.shape[1] == 1:
        return {'depth': logits[:, 0].clamp(min=0)}
    mean, log_scale = logits.unbind(dim=1)
    within = 1 - torch.exp(-math.log(CONFIDENT_FACTOR) * torch.exp(-log_scale))
    return {'depth': mean.exp(), 'depth_confidence': _levels(within)}


def _normals(logits: Tensor) -> dict[str, Tensor]:
    """Unit length; of logits that are all zero, (0, 0, -1).

    A surface that is seen looks towards the camera: n . ray < 0. The graph does not know the rays,
    and n_z < 0 is another thing: at the border of a wide picture a surface that is seen may look
    slightly away from the optical axis.
    """
    x, y, z = logits.unbind(dim=1)
    length = (x * x + y * y + z * z).sqrt()
    tiny = length < 1e-6
    inverse = torch.where(tiny, 1.0, length.reciprocal())
    unit = torch.stack([x * inverse, y * inverse, torch.where(tiny, -1.0, z * inverse)], dim=1)
    return {'normals': unit.permute(0, 2, 3, 1)}


def _probability(name: str) -> Callable[[Tensor], dict[str, Tensor]]:
    return lambda logits: {name: _levels(logits[:, 0].sigmoid())}


def _labels(name: str) -> Callable[[Tensor], dict[str, Tensor]]:
    def labels(logits: Tensor) -> dict[str, Tensor]:
        ids = _classes_last(logits).argmax(dim=-1).unflatten(1, logits.shape[-2:])
        return {name: ids.to(torch.uint8)}

    return labels


def _levels(probability: Tensor) -> Tensor:
    return (255 * probability).round().to(torch.uint8)


# task -> logits [N,C,H,W] to the output tensors of the bundle
HEADS: dict[str, Callable[[Tensor], dict[str, Tensor]]] = {
    'semantic': _semantic,
    'depth': _depth,
    'normals': _normals,
    'edges': _probability('edges'),
    'saliency': _probability('saliency'),
    'human_parts': _labels('human_parts'),
}


class Deployable(nn.Module):
    """What runs on the robot: camera pixels in, the bundle's tensors out.

    image uint8 [N,H,W,3] RGB -> semantic, semantic_confidence, edges, saliency, human_parts,
    depth_confidence uint8 [N,H,W]; depth float32 [N,H,W], canonical metres; normals float32
    [N,H,W,3]. A task that is not asked for is not in the graph.

    Args:
        net: a trained network; it is copied.
        tasks: which of its tasks, in the order of the outputs.
        mean, std: normalisation of RGB in 0..1 that it was trained with.
    """

    scale: Tensor
    offset: Tensor

    def __init__(
        self, net: Network, tasks: Sequence[str], *, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.net = copy.deepcopy(net).eval()
        self.net.keep(tasks)
        self.net.fold()
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float32))
        self.register_buffer('scale', scale.view(3, 1, 1))
        self.register_buffer('offset', (-torch.tensor(mean) * 255 * scale).view(3, 1, 1))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Image uint8 [N,H,W,3] -> outputs by tensor name."""
        # Numbers first: of uint8, TensorRT takes nothing but casts.
        logits = self.net(image.float().permute(0, 3, 1, 2) * self.scale + self.offset)
        outputs: dict[str, Tensor] = {}
        for task in self.tasks:
            outputs.update(HEADS[task](logits[task]))
        return outputs
