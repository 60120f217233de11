"""What runs on the robot: a network between camera pixels and the tensors of the bundle."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtl_training.models import Network
from mtl_training.tasks import TaskSet, logits_at


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
        self, net: Network, tasks: TaskSet, *, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.tasks = dict(tasks)
        self.net = copy.deepcopy(net).eval()
        self.net.keep(list(tasks))
        scale = 1 / (255 * torch.tensor(std, dtype=torch.float32))
        self.register_buffer('scale', scale.view(3, 1, 1))
        self.register_buffer('offset', (-torch.tensor(mean) * 255 * scale).view(3, 1, 1))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Image uint8 [N,H,W,3] -> outputs by tensor name."""
        # Numbers first: of uint8, TensorRT takes nothing but casts.
        images = image.float().permute(0, 3, 1, 2) * self.scale + self.offset
        logits = logits_at(images.shape[-2:], self.net.predictions(images).final, self.tasks)
        outputs: dict[str, Tensor] = {}
        for name, task in self.tasks.items():
            outputs.update(task.head(logits[name]))
        return outputs
