"""Depth: metres along the optical axis, as the papers predict it, and with a confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mtl_training.bounds import Amount
from mtl_training.tasks.depth_error import DetailedDepthError, bins
from mtl_training.tasks.task import Figure, Picture, Task, levels, masked_mean, smallest

FAR = 6.0  # metres at the dark end of the colours
# The confidence is the probability that depth is within this factor, as delta1 of the papers.
CONFIDENT_FACTOR = 1.25
SURE = 1e-6  # the smallest scale of log depth that is divided by


@dataclass(frozen=True, kw_only=True)
class DepthTask(Task):
    """Depth of some parametrisation; networks predict canonical depth, metres / zoom.

    Stored: uint16 millimetres, 0 where there is none. Soft: canonical metres d* and the scale b* of
    a Laplace distribution of log depth around log d*, [B, 2, h, w]; b* is 0 where a teacher does
    not say how sure it is, d* at most 0 where it knows nothing.
    """

    name: ClassVar[str] = 'depth'
    no_label: ClassVar[int] = 0
    quality: ClassVar[str] = 'delta1'
    figures: ClassVar[tuple[Figure, ...]] = (
        Figure('rmse', 'depth RMSE, m'),
        Figure('absrel', 'depth AbsRel'),
        Figure('delta1', 'depth < 1.25, %', 100, 1),
        Figure('coverage', 'depth coverage, %', 100, 1),
        *(Figure(f'absrel@{name}', f'depth AbsRel, {name} m') for name in bins()),
        Figure('absrel@ends', 'depth AbsRel within 5 px of where surfaces end'),
    )
    weight: float = 1.0

    def unlabelled(self, height: int, width: int) -> NDArray[np.uint16]:
        """Stored depth of a frame that has none."""
        return np.zeros((height, width), np.uint16)

    def target(self, stored: NDArray[Any], zoom: float) -> Tensor:
        """Millimetres [H, W] as canonical metres float32 [1, H, W], 0 where there is no label."""
        return torch.from_numpy(stored.astype(np.float32)[None] * np.float32(1e-3 / zoom))

    def truth(self, target: Tensor, zoom: Tensor) -> NDArray[np.float32]:
        """Metres float32 [B, H, W], 0 where there is no label."""
        return metres(target[:, 0], zoom)

    def of_maps(self, values: NDArray[Any], zoom: Tensor) -> Tensor:
        """Metres [B, H, W] as canonical metres float32 [B, 1, H, W]; 0 where there is no depth."""
        known = np.where(np.isfinite(values) & (values > 0), values, 0).astype(np.float32)
        return (torch.from_numpy(known) / zoom.view(-1, 1, 1)).unsqueeze(1)

    def metric(self) -> DetailedDepthError:
        """RMSE, AbsRel and delta1 in metres, also by distance and at the ends of surfaces."""
        return DetailedDepthError()

    def of_bundle(
        self, outputs: Mapping[str, NDArray[Any]], zoom: NDArray[Any]
    ) -> NDArray[np.float32]:
        """Metres float32 [B, H, W]."""
        return np.asarray(outputs['depth'] * zoom[:, None, None], np.float32)

    def picture(self, values: NDArray[Any]) -> Picture:
        """Metres [H, W] from yellow (0) to blue (``FAR`` and beyond)."""
        valid = np.isfinite(values) & (values > 0)
        near = np.clip(255 * (1 - np.where(valid, values, FAR) / FAR), 0, 255).astype(np.uint8)
        colors = cv2.cvtColor(cv2.applyColorMap(near, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
        return np.asarray(colors * valid[..., None], np.uint8)

    def error(self, values: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float32]:
        """|d - d*| / d* of maps [H, W], 1 from one half on."""
        known = np.isfinite(values) & (truth > 0)
        relative = np.abs(values - truth) / np.where(known, truth, 1)
        return np.where(known, np.clip(2 * relative, 0, 1), np.nan).astype(np.float32)

    def constants(self, counts: NDArray[np.int64]) -> dict[str, Any]:
        """The median, and the mean, which has the smallest RMSE."""
        (count,) = counts
        pixels = max(int(count.sum()), 1)
        median = np.searchsorted(count.cumsum(), pixels / 2)
        mean = (count * np.arange(len(count))).sum() / pixels
        return {'best constant': np.float32(median / 1000), 'mean depth': np.float32(mean / 1000)}

    @property
    def facts(self) -> dict[str, Any]:
        """The unit."""
        return {'unit': 'm'}


@dataclass(frozen=True, kw_only=True)
class L1Depth(DepthTask):
    """One channel, canonical metres, and the L1 loss of the papers."""

    @property
    def channels(self) -> int:
        """Metres."""
        return 1

    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        """|d - d*|, mean over pixels with depth."""
        return masked_mean((logits - target).abs(), target > 0)

    def soften(self, logits: Tensor, zoom: Tensor, temperature: float) -> Tensor:
        """Canonical metres, as if the teacher were sure."""
        return torch.cat([logits * zoom.view(-1, 1, 1, 1), torch.zeros_like(logits)], dim=1)

    def soft_criterion(self, logits: Tensor, soft: Tensor, temperature: float) -> Tensor:
        """|d - d*|, mean over pixels, each weighed by the teacher's confidence in it."""
        depth, scale = soft.split(1, dim=1)
        confidence = 1 - torch.exp(-math.log(CONFIDENT_FACTOR) / scale)
        return masked_mean((logits - depth).abs(), confidence * (depth > 0))

    def decode(self, logits: Tensor, zoom: Tensor) -> NDArray[np.float32]:
        """Metres float32 [B, H, W]."""
        return metres(logits[:, 0], zoom)

    def head(self, logits: Tensor) -> dict[str, Tensor]:
        """Canonical metres float32 [N, H, W]."""
        return {'depth': logits[:, 0].clamp(min=0)}


@dataclass(frozen=True, kw_only=True)
class LaplaceDepth(DepthTask):
    """Log depth with a Laplace distribution: two channels, its mean mu and log scale s.

    The scale says how sure the network is, from which robots get a confidence; the temperature is
    a factor of it there.

    Attributes:
        gradients: weight of the ``gradient_loss`` of the mean beside the likelihood.
    """

    signed: ClassVar[bool] = True
    gradients: Amount = 0.0

    @property
    def channels(self) -> int:
        """Mean and log scale."""
        return 2

    def criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        """-log likelihood: |log d* - mu| / exp(s) + s + log 2, mean over pixels with depth."""
        return self.entropy(logits, target, torch.zeros_like(target))

    def soften(self, logits: Tensor, zoom: Tensor, temperature: float) -> Tensor:
        """exp(mu) as canonical metres, and exp(s)."""
        mean, log_scale = logits.split(1, dim=1)
        return torch.cat([mean.exp() * zoom.view(-1, 1, 1, 1), log_scale.exp()], dim=1)

    def soft_criterion(self, logits: Tensor, soft: Tensor, temperature: float) -> Tensor:
        """The cross entropy of the teacher's distribution and the network's."""
        return self.entropy(logits, *soft.split(1, dim=1))

    def entropy(self, logits: Tensor, depth: Tensor, scale: Tensor) -> Tensor:
        """-E[log likelihood] of x with a Laplace distribution of scale b* around log d*.

        E|x - mu| / exp(s) + s + log 2,   E|x - mu| = e + b* exp(-e / b*),   e = |log d* - mu|

        With b* = 0 that is the likelihood of d*. With the teacher's b* a network becomes as sure as
        the teacher is, and not as sure as it is of being near the teacher.
        """
        mean, log_scale = logits.split(1, dim=1)
        valid = depth > 0
        error = mean - torch.where(valid, depth, 1.0).log()
        distance = error.abs()
        expected = distance + scale * torch.exp(-distance / scale.clamp(min=SURE))
        loss = masked_mean(expected * torch.exp(-log_scale) + log_scale + math.log(2), valid)
        if self.gradients:
            loss = loss + self.gradients * gradient_loss(error, valid)
        return loss

    def decode(self, logits: Tensor, zoom: Tensor) -> NDArray[np.float32]:
        """Metres float32 [B, H, W]: exp(mu) is the median of the distribution."""
        return metres(logits[:, 0].exp(), zoom)

    def head(self, logits: Tensor) -> dict[str, Tensor]:
        """Canonical metres float32 and P(|log d - mu| < log 1.25) uint8, [N, H, W]."""
        mean, log_scale = logits.unbind(dim=1)
        within = self.within(log_scale, self.temperature)
        return {'depth': mean.exp(), 'depth_confidence': levels(within)}

    def within(self, log_scale: Tensor, temperature: float) -> Tensor:
        """P(|log d - mu| < log 1.25) of a Laplace distribution of the scale T exp(s)."""
        return 1 - torch.exp(-math.log(CONFIDENT_FACTOR) / temperature * torch.exp(-log_scale))

    def tempered(self, logits: Tensor, target: Tensor) -> LaplaceDepth:
        """With the T of the largest likelihood of what the confidence is about.

        -sum log P(within) over the pixels that are within a factor of 1.25, log (1 - P) over the
        others. The likelihood of all errors, whose T is the mean of |log d* - mu| / exp(s), goes by
        the largest ones, of which a Laplace distribution has too few.
        """
        mean, log_scale = logits.split(1, dim=1)
        valid = target > 0
        error = (mean - torch.where(valid, target, 1.0).log()).abs()[valid]
        right = (error < math.log(CONFIDENT_FACTOR)).to(logits)

        def entropy(temperature: float) -> Tensor:
            probability = self.within(log_scale[valid], temperature).clamp(1e-6, 1 - 1e-6)
            return functional.binary_cross_entropy(probability, right)

        return replace(self, temperature=smallest(entropy))


def gradient_loss(error: Tensor, valid: Tensor, scales: int = 4) -> Tensor:
    """Differences of the error of log depth between neighbours, which a wrong scale leaves as 0.

    Source: Ranftl et al., "Towards Robust Monocular Depth Estimation", TPAMI 2022, Eq. 11; there
    of disparity. What is smooth in the truth and not in the prediction costs, and edges that the
    prediction rounds off, on grids of every, every second, fourth, ... pixel.

    Args:
        error: log depth of the prediction minus that of the truth, [B, 1, H, W].
        valid: where there is a truth, bool [B, 1, H, W].

    Returns:
        Scalar, mean over the pairs of neighbours that are both valid, summed over both
        directions and averaged over the scales.
    """
    terms = []
    for step in (2**scale for scale in range(scales)):
        coarse, labelled = error[..., ::step, ::step], valid[..., ::step, ::step]
        for axis in (-2, -1):
            size = coarse.shape[axis] - 1
            difference = coarse.diff(dim=axis).abs()
            both = labelled.narrow(axis, 0, size) & labelled.narrow(axis, 1, size)
            terms.append(masked_mean(difference, both))
    return torch.stack(terms).sum() / scales


def metres(canonical: Tensor, zoom: Tensor) -> NDArray[np.float32]:
    """Canonical metres [B, H, W] as metres float32."""
    return np.asarray((canonical * zoom.view(-1, 1, 1)).cpu().numpy(), np.float32)
