"""Swin's blocks as its authors released them, for images of any size (Liu et al., ICCV 2021)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from timm.models.swin_transformer import SwinTransformerBlock, SwinTransformerStage
from torch import Tensor, nn
from torch.nn import functional as F

FAR = -100.0  # added to the logits of what must not attend to each other, as released


class ShiftedWindows(nn.Module):
    """A block of Swin: attention within whole windows, every other block's shifted by half of one.

    x <- x + attend(LN(x)),   x <- x + MLP(LN(x))

    The grid is padded to whole windows, at the right and the bottom, then shifted around, so that
    windows meet what was at the other side; a mask keeps these apart.

    Differs from timm, whose weights it takes over, name by name: there the grid is shifted before
    it is padded, and a stage whose grid is one window at 224x224 (the last) never shifts. Outputs
    of the stages were up to 11 % off at 480x640.

    Args:
        block: its parts are taken over; made with ``always_partition``.
    """

    def __init__(self, block: SwinTransformerBlock) -> None:
        super().__init__()
        self.norm1, self.attn, self.drop_path1 = block.norm1, block.attn, block.drop_path1
        self.norm2, self.mlp, self.drop_path2 = block.norm2, block.mlp, block.drop_path2
        (self.side, _), (self.shift, _) = block.window_size, block.shift_size

    def forward(self, x: Tensor) -> Tensor:
        """[B,h,w,C] -> [B,h,w,C]."""
        x = x + self.drop_path1(self.attend(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))

    def attend(self, x: Tensor) -> Tensor:
        """[B,h,w,C] -> [B,h,w,C]."""
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, -width % self.side, 0, -height % self.side))
        mask = self.mask(x.shape[1], x.shape[2], x.device) if self.shift else None
        windows = partition(x.roll((-self.shift, -self.shift), (1, 2)), self.side)
        x = merge(self.attn(windows, mask=mask), x.shape, self.side)
        return x.roll((self.shift, self.shift), (1, 2))[:, :height, :width]

    def mask(self, height: int, width: int, device: torch.device) -> Tensor:
        """[windows, 49, 49]: 0 where two places were beside each other before the shift."""
        rows, columns = self.regions(height, device), self.regions(width, device)
        regions = partition((3 * rows[:, None] + columns)[None, ..., None], self.side)[..., 0]
        return FAR * (regions[:, :, None] != regions[:, None, :]).float()

    def regions(self, size: int, device: torch.device) -> Tensor:
        """[size]: 0, in the last window 1, and 2 for what the shift brought there."""
        place = torch.arange(size, device=device)
        return (place >= size - self.side).long() + (place >= size - self.shift).long()


def partition(x: Tensor, side: int) -> Tensor:
    """[B,h,w,C] -> windows [B * windows, side^2, C]."""
    x = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))  # [B, h/side, side, w/side, side, C]
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def merge(windows: Tensor, shape: torch.Size, side: int) -> Tensor:
    """The inverse of ``partition``: windows [B * windows, side^2, C] -> ``shape`` [B,h,w,C]."""
    _, height, width, channels = shape
    x = windows.view(-1, height // side, width // side, side, side, channels)
    return x.transpose(2, 3).reshape(-1, height, width, channels)


def use_shifted_windows(stages: Iterable[nn.Module]) -> None:
    """Put ``ShiftedWindows`` in the place of timm's blocks."""
    for stage in stages:
        assert isinstance(stage, SwinTransformerStage)
        for index, block in enumerate(stage.blocks):
            assert isinstance(block, SwinTransformerBlock)
            stage.blocks[index] = ShiftedWindows(block)
