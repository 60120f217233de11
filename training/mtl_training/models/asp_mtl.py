"""ASP-MTL: features that tasks share, and private ones that say something else.

Liu, Qiu & Huang, "Adversarial Multi-task Learning for Text Classification", ACL 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_training.bounds import Amount
from mtl_training.models.adversary import Reverse
from mtl_training.models.heads import Concatenation, DeepLabPyramidHead, HRNetHead, LastScale
from mtl_training.models.network import Network, Plan, Predictions
from mtl_training.models.pyramids import Pyramid


class Seen(NamedTuple):
    """What the last pass that may be trained left: features [B,W,h,w] and logits by task."""

    shared: Tensor
    private: dict[str, Tensor]
    final: dict[str, Tensor]


class ASPMTL(Network):
    """The adversarial shared-private network (survey, Section 3.2): a backbone for all, one each.

    s      = E_s(x),   h_t = E_t(x),   y_t = head_t([h_t ; s])
    D(s)   = softmax(b + U mean_hw(s))                             which task is the image of?
    L_adv  = min_{E_s} max_{U, b} mean_i sum_t d_it log D(s_i)_t         ``adversary``
    L_diff = sum_t ||S_t^T H_t||_F^2                                     ``overlap``
    L      = sum_t L_t + lambda L_adv + gamma L_diff

    Shared features are to say nothing of the task, private ones nothing that is shared. Min and
    max are one step: D's gradient is reversed where it reaches E_s.

    Our reading. The paper classifies texts with LSTMs, and every text is of one task; we found no
    dense network. Here an image is of the tasks that it has labels of, in equal parts (d_i; it is
    seen by where losses have gradients): the adversary is for data sets with labels of some tasks
    each. Where all images have labels of all tasks, nothing tells them apart: D, which begins as
    0, stays so, L_adv is -log T without a gradient, and L_diff is all that is left. E are the
    features that the survey's heads work on: all scales, or the last one of dilated ResNets. Rows
    of S_t and H_t are the pixels of the images of t instead of words; their columns are centred
    and of unit length, so that entries are correlations between channels, and the sum is divided
    by the number of channels: neither size, batch nor width changes what gamma means.

    Args:
        shared: E_s.
        private: E_t by task.
        tasks: output channels by task name.
        adversarial: lambda.
        orthogonality: gamma.
    """

    def __init__(
        self,
        shared: Pyramid,
        private: Mapping[str, Pyramid],
        tasks: Mapping[str, int],
        *,
        adversarial: Amount = 0.05,
        orthogonality: Amount = 0.01,
    ) -> None:
        super().__init__(tasks, mean=shared.mean, std=shared.std)
        kind = LastScale if shared.dilated else Concatenation
        width = kind(shared.channels).width
        self.shared = nn.Sequential(shared, kind(shared.channels))
        self.private = nn.ModuleDict(
            {task: nn.Sequential(own, kind(own.channels)) for task, own in private.items()}
        )
        self.heads = nn.ModuleDict(
            {
                task: DeepLabPyramidHead(2 * width, channels)
                if shared.dilated
                else HRNetHead([2 * width], channels)
                for task, channels in tasks.items()
            }
        )
        self.discriminator = nn.Linear(width, len(tasks))
        nn.init.zeros_(self.discriminator.weight)
        nn.init.zeros_(self.discriminator.bias)
        self.adversarial, self.orthogonality = adversarial, orthogonality
        self._seen: Seen | None = None

    @classmethod
    def from_plan(cls, plan: Plan, **options: Any) -> ASPMTL:
        """On a backbone for all tasks and one for each."""
        return cls(plan.pyramid(), plan.pyramids(), plan.tasks, **options)

    def predictions(self, image: Tensor) -> Predictions:
        """Normalised image [B,3,H,W] -> logits [B,o_t,h,w] by task, on the grid of the features."""
        shared = self.shared(image)
        private = {task: self.private[task](image) for task in self.kept}
        final = {t: self.heads[t]([torch.cat([h, shared], dim=1)]) for t, h in private.items()}
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # nor exporting
            self._seen = Seen(shared, private, final)
        return Predictions(final)

    def of_one_task(self) -> list[nn.Module]:
        """Private backbones and heads; the discriminator hears of no loss itself."""
        return [self.private, self.heads, self.discriminator]

    def penalties(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """L_adv and L_diff, weighted."""
        assert self._seen is not None, 'penalties are of a pass'
        (shared, private, final), self._seen = self._seen, None
        owned = {task: labelled(losses[task], final[task]) for task in self.tasks}
        overlaps = [overlap(shared[own], private[task][own]) for task, own in owned.items()]
        told = adversary(shared, self.discriminator, torch.stack([*owned.values()], dim=1))
        return {
            'adversary': self.adversarial * told,
            'orthogonality': self.orthogonality * torch.stack(overlaps).sum(),
        }


def labelled(loss: Tensor, logits: Tensor) -> Tensor:
    """Which images [B] a loss depends on: those with labels of its task."""
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    return gradient.flatten(1).any(dim=1)


def adversary(shared: Tensor, discriminator: nn.Module, owned: Tensor) -> Tensor:
    """-sum_t d_it log D(s_i)_t, mean over the images that are of a task; reversed in s.

    Args:
        shared: s [B,W,h,w].
        owned: which tasks images are of, bool [B,T].
    """
    pooled = shared.mean(dim=(2, 3))
    logits = discriminator(Reverse.apply(pooled, pooled.new_ones(())))
    shares = owned / owned.sum(dim=1, keepdim=True).clamp(min=1)
    return F.cross_entropy(logits, shares, reduction='sum') / owned.any(dim=1).sum().clamp(min=1)


def overlap(shared: Tensor, private: Tensor) -> Tensor:
    """||S^T H||_F^2 / W of features [B,W,h,w], their channels centred and of unit length."""
    first, second = (columns(x) for x in (shared, private))
    return (first @ second.mT).square().sum() / len(first)


def columns(x: Tensor) -> Tensor:
    """Channels [W,N] of [B,W,h,w], each of mean 0 and length 1; without images, of no entries."""
    flat = x.transpose(0, 1).flatten(1)
    return F.normalize(flat - flat.sum(dim=1, keepdim=True) / max(flat.shape[1], 1), dim=1)
