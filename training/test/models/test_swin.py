"""Swin: blocks, merging and patches, against the definition written in NumPy, token by token."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import timm
import torch
from mtl_training.models import pyramid
from mtl_training.models.pyramids import SwinPyramid
from numpy.typing import NDArray

Array = NDArray[np.float64]
SIDE, SHIFT = 7, 3
erf = np.vectorize(math.erf)
TINY: dict[str, Any] = {'embed_dim': 6, 'depths': (2, 2, 2, 2), 'num_heads': (1, 2, 3, 2)}
NAME = 'swin_tiny_patch4_window7_224'


def swin(state: dict[str, Array], image: Array, heads: tuple[int, ...]) -> list[Array]:
    """The outputs of the four stages of Swin for one image [3,H,W], from its definition.

    A token is attended to by those of its window. Windows of odd blocks begin ``SHIFT`` rows and
    columns further: no token moves, nothing is masked.
    """
    x = patches(state, image)
    outputs = []
    for stage, count in enumerate(heads):
        if stage:
            x = merged(state, f'layers_{stage}.downsample', x)
        for block in range(2):
            x = transformed(state, f'layers_{stage}.blocks.{block}', x, count, block * SHIFT)
        outputs.append(x.transpose(2, 0, 1))
    return outputs


def patches(state: dict[str, Array], image: Array) -> Array:
    """[3,H,W] -> [h,w,C]: linear maps of 4x4 patches, the last ones filled up with zeros."""
    _, height, width = image.shape
    image = np.pad(image, ((0, 0), (0, -height % 4), (0, -width % 4)))
    weight = state['patch_embed.proj.weight']  # [C,3,4,4]
    x = np.empty((image.shape[1] // 4, image.shape[2] // 4, len(weight)))
    for i, j in np.ndindex(x.shape[:2]):
        patch = image[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
        x[i, j] = np.einsum('ocyx,cyx->o', weight, patch) + state['patch_embed.proj.bias']
    return norm(state, 'patch_embed.norm', x)


def merged(state: dict[str, Array], name: str, x: Array) -> Array:
    """Four neighbours side by side, down each column first, halved in width by a linear map."""
    x = np.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2), (0, 0)))
    four = [x[0::2, 0::2], x[1::2, 0::2], x[0::2, 1::2], x[1::2, 1::2]]
    joined = norm(state, f'{name}.norm', np.concatenate(four, -1))
    return joined @ state[f'{name}.reduction.weight'].T


def transformed(state: dict[str, Array], name: str, x: Array, heads: int, first: int) -> Array:
    """x + attention, then + MLP with GELU."""
    x = x + attention(state, f'{name}.attn', norm(state, f'{name}.norm1', x), heads, first)
    hidden = linear(state, f'{name}.mlp.fc1', norm(state, f'{name}.norm2', x))
    return x + linear(state, f'{name}.mlp.fc2', hidden * (1 + erf(hidden / np.sqrt(2))) / 2)


def attention(state: dict[str, Array], name: str, x: Array, heads: int, first: int) -> Array:
    """Attention of every token to those of its window; what fills up windows is a zero token."""
    height, width, channels = x.shape
    padded = np.pad(x, ((0, -height % SIDE), (0, -width % SIDE), (0, 0)))
    windows = defaultdict(list)
    for i, j in np.ndindex(padded.shape[:2]):
        windows[(i - first) // SIDE, (j - first) // SIDE].append((i, j))
    out = np.empty_like(padded)
    table = state[f'{name}.relative_position_bias_table'].reshape(13, 13, heads)
    for places in windows.values():
        rows, columns = np.array(places).T
        qkv = linear(state, f'{name}.qkv', padded[rows, columns])
        q, k, v = qkv.reshape(-1, 3, heads, channels // heads).transpose(1, 2, 0, 3)
        down, right = rows[:, None] - rows, columns[:, None] - columns
        bias = table[down + 6, right + 6].transpose(2, 0, 1)
        logits = q @ k.transpose(0, 2, 1) / np.sqrt(channels // heads) + bias
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        out[rows, columns] = (weights @ v).transpose(1, 0, 2).reshape(len(rows), channels)
    return linear(state, f'{name}.proj', out)[:height, :width]


def linear(state: dict[str, Array], name: str, x: Array) -> Array:
    return x @ state[f'{name}.weight'].T + state[f'{name}.bias']


def norm(state: dict[str, Array], name: str, x: Array) -> Array:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * state[f'{name}.weight'] + state[f'{name}.bias']


def tiny() -> SwinPyramid:
    """A narrow Swin whose attention is far from uniform."""
    torch.manual_seed(0)
    net = SwinPyramid(NAME, TINY, pretrained=False).double().eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.normal_(std=1.0 if 'bias_table' in name else 0.4)
    return net


@pytest.mark.parametrize('size', [(480, 640), (425, 560), (224, 224), (90, 75)])
def test_every_stage_is_that_of_the_definition_at_any_size(size: tuple[int, int]) -> None:
    net = tiny()
    image = torch.randn(1, 3, *size, dtype=torch.double)
    state = {name: tensor.numpy() for name, tensor in net.net.state_dict().items()}
    with torch.no_grad():
        found = net(image)
    expected = swin(state, image[0].numpy(), TINY['num_heads'])
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours[0].numpy(), theirs, rtol=1e-8, atol=1e-8)


def test_a_batch_is_its_images_one_by_one() -> None:
    net, images = tiny(), torch.randn(3, 3, 90, 75, dtype=torch.double)
    with torch.no_grad():
        for number, features in enumerate(net(images[1:2])):
            torch.testing.assert_close(features[0], net(images)[number][1])


def test_released_weights_keep_their_names() -> None:
    with torch.device('meta'):
        ours = {n: p.shape for n, p in pyramid('swin_tiny').net.state_dict().items()}
        timms = timm.create_model(NAME, features_only=True).state_dict()
    assert ours == {n: p.shape for n, p in timms.items()}
