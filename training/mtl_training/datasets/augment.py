"""Training-time augmentation of one labelled frame, on uint8 arrays with cv2.

After ATRC's (Bruggemann et al., ICCV 2021): scale, random crop with ``cat_max_ratio``, horizontal
flip, brightness, contrast, saturation, hue. Exposure, gamma, colour balance, gray conversion,
vignetting, motion and other blur, noise and JPEG come on top, for cameras that a renderer does not
know and for robots that move in the dark.

Differs from ATRC: depth is not divided by the scale. Metres stay metres and fx is scaled instead;
canonical depth (metres * canonical_focal / fx) then shrinks by the same factor, and what the
network sees stays true to a camera of that focal length. A scale of 1 is the one at which the whole
frame fits into the crop, where ATRC's is the frame's own size; pictures are padded with their
border pixels, where ATRC's are with the mean colour; and contrast always comes before saturation
and hue, where ATRC's comes after them every other time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_perception.camera import Letterbox
from mtl_training.bounds import (
    Amount,
    AmountRange,
    Fraction,
    PercentRange,
    Positive,
    PositiveRange,
    Share,
    ShareRange,
)
from mtl_training.tasks.task import Task


@dataclass(frozen=True)
class AugmentConfig:
    """Probabilities (``*_p``) and ranges of the augmentation; see ``augment``."""

    scale: PositiveRange = (0.5, 2.0)
    scales: tuple[Positive, ...] = ()  # one of these, instead of any in the range
    centred: bool = False  # the crop, instead of anywhere
    cat_max_ratio: Share = 0.75
    flip_p: Share = 0.5
    brightness: Amount = 32.0
    contrast: AmountRange = (0.5, 1.5)
    saturation: AmountRange = (0.5, 1.5)
    hue: Amount = 18.0
    photometric_p: Share = 0.5  # of each of the four above
    balance: Fraction = 0.0  # largest relative gain of a colour channel
    gamma: PositiveRange = (1.0, 1.0)
    exposure: Amount = 0.0  # at most so many stops darker or brighter, in linear light
    gray_p: Share = 0.0
    vignette_p: Share = 0.0
    vignette: ShareRange = (0.2, 0.7)  # share of the light that corners lose
    motion_p: Share = 0.0
    motion_length: AmountRange = (3.0, 15.0)  # px of a straight motion blur
    blur_p: Share = 0.0
    blur_sigma: PositiveRange = (0.4, 1.6)
    noise_p: Share = 0.0
    noise_sigma: AmountRange = (1.0, 12.0)
    jpeg_p: Share = 0.0
    jpeg_quality: PercentRange = (30, 90)


@dataclass(frozen=True)
class Sample:
    """One labelled frame.

    Attributes:
        arrays: ``image`` uint8 [H, W, 3] RGB; ``semantic`` uint8 [H, W], 255 no label; ``depth``
            uint16 [H, W] millimetres, 0 invalid; ``normals`` uint8 [H, W, 3], n = 2 v / 255 - 1, 0
            0 0 invalid; ``edges`` and ``saliency`` uint8 [H, W] 0 or 1, 255 no label. All but the
            image may be absent.
        fx: focal length in pixels at this size.
    """

    arrays: dict[str, NDArray[np.generic]]
    fx: float


def augment(
    sample: Sample,
    tasks: Mapping[str, Task],
    config: AugmentConfig,
    height: int,
    width: int,
    rng: np.random.Generator,
) -> Sample:
    """Scale, crop, flip and distort a frame to [height, width], as ``rng`` has it."""
    frame_height, frame_width = sample.arrays['image'].shape[:2]
    factor = rng.choice(config.scales) if config.scales else rng.uniform(*config.scale)
    scale = Letterbox.fit(frame_width, frame_height, width, height).scale * float(factor)
    scaled_height, scaled_width = round(frame_height * scale), round(frame_width * scale)
    for _ in range(10):
        left = _offset(scaled_width - width, config.centred, rng)
        top = _offset(scaled_height - height, config.centred, rng)
        if _largest_share(sample, scale, left, top, height, width) < config.cat_max_ratio:
            break
    sample = crop(sample, tasks, scale, left, top, height, width)
    if rng.random() < config.flip_p:
        sample = flip(sample, tasks)
    image = distort(np.asarray(sample.arrays['image'], np.uint8), config, rng)
    return Sample({**sample.arrays, 'image': image}, sample.fx)


def fit(sample: Sample, tasks: Mapping[str, Task], height: int, width: int) -> Sample:
    """The frame in the middle of the network's grid, not augmented, as a robot has it."""
    frame_height, frame_width = sample.arrays['image'].shape[:2]
    if (frame_height, frame_width) == (height, width):
        return sample
    box = Letterbox.fit(frame_width, frame_height, width, height)
    return crop(sample, tasks, box.scale, -box.left, -box.top, height, width)


def crop(
    sample: Sample,
    tasks: Mapping[str, Task],
    scale: float,
    left: int,
    top: int,
    height: int,
    width: int,
) -> Sample:
    """Scale a frame and cut a window from it.

    Args:
        tasks: whose labels to keep.
        left, top: corner of the window in pixels of the scaled frame; negative where it is padded.

    Returns:
        The window [height, width] with fx scaled. Labels are sampled nearest, and there
        are none outside the frame; the image is averaged (scale < 1) or bilinear, its border pixels
        repeated.
    """
    # Pixel centres: source + 1/2 = (target + offset + 1/2) / scale.
    matrix = np.array(
        [
            [1 / scale, 0, (left + 0.5) / scale - 0.5],
            [0, 1 / scale, (top + 0.5) / scale - 0.5],
        ]
    )
    size = (width, height)
    image, to_source = sample.arrays['image'], matrix
    if scale < 1:  # average first, so that nothing aliases
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        to_source = np.array([[1.0, 0, left], [0, 1.0, top]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = cv2.warpAffine(image, to_source, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    arrays: dict[str, NDArray[np.generic]] = {'image': image}
    for name, task in tasks.items():
        flags, border = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, (task.no_label,) * 4
        arrays[name] = cv2.warpAffine(
            sample.arrays[name], matrix, size, flags=flags, borderValue=border
        )
    return Sample(arrays, sample.fx * scale)


def flip(sample: Sample, tasks: Mapping[str, Task]) -> Sample:
    """Mirror a frame left to right, with the labels of some tasks."""
    labels = {name: task.mirror(sample.arrays[name]) for name, task in tasks.items()}
    return Sample({'image': cv2.flip(sample.arrays['image'], 1), **labels}, sample.fx)


def distort(
    image: NDArray[np.uint8], config: AugmentConfig, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Change how a picture [H, W, 3] uint8 RGB was exposed, coloured, focused, and stored."""
    image = cv2.LUT(image, _tone_curve(config, rng))
    image = _saturation_hue(image, config, rng)
    if rng.random() < config.gray_p:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if config.vignette_p and rng.random() < config.vignette_p:
        image = _vignette(image, rng.uniform(*config.vignette))
    if config.motion_p and rng.random() < config.motion_p:
        image = _motion(image, rng.uniform(*config.motion_length), rng.uniform(0, np.pi))
    if rng.random() < config.blur_p:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(*config.blur_sigma))
    if rng.random() < config.noise_p:
        noise = rng.standard_normal(image.shape, np.float32) * rng.uniform(*config.noise_sigma)
        image = cv2.add(image, noise, dtype=cv2.CV_8U)
    if rng.random() < config.jpeg_p:
        image = _jpeg(image, int(rng.integers(*config.jpeg_quality, endpoint=True)))
    return image


def _offset(slack: int, centred: bool, rng: np.random.Generator) -> int:
    """Where the window begins; negative where the frame lies inside the window."""
    if centred:
        return slack // 2
    return int(rng.integers(0, slack + 1) if slack >= 0 else -rng.integers(0, -slack + 1))


def _largest_share(
    sample: Sample, scale: float, left: int, top: int, height: int, width: int
) -> float:
    """Share of the most frequent class in a window, from every fourth pixel of every fourth row."""
    if 'semantic' not in sample.arrays:
        return 0.0
    rows = slice(max(0, round(top / scale)), round((top + height) / scale), 4)
    columns = slice(max(0, round(left / scale)), round((left + width) / scale), 4)
    counts = np.bincount(sample.arrays['semantic'][rows, columns].ravel(), minlength=256)[:255]
    total = counts.sum()
    return float(counts.max() / total) if total else 1.0


def _tone_curve(config: AugmentConfig, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Brightness, contrast, gamma and colour balance as one table [256, 1, 3]."""
    curve = np.arange(256, dtype=np.float64)[:, None].repeat(3, axis=1)
    if rng.random() < config.photometric_p:
        curve += rng.uniform(-config.brightness, config.brightness)
    if rng.random() < config.photometric_p:
        curve *= rng.uniform(*config.contrast)
    curve *= 1 + rng.uniform(-config.balance, config.balance, 3)
    if config.exposure:  # sRGB is about light to the power of 1 / 2.2
        stops = rng.uniform(-config.exposure, config.exposure)
        curve = np.maximum(curve, 0) * 2 ** (stops / 2.2)
    low, high = config.gamma
    curve = 255 * (np.clip(curve, 0, 255) / 255) ** np.exp(rng.uniform(np.log(low), np.log(high)))
    return np.rint(curve).astype(np.uint8)[:, None]


def _saturation_hue(
    image: NDArray[np.uint8], config: AugmentConfig, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Scale the saturation, turn the hue (cv2: 180 steps for the full circle), or both."""
    saturate, turn = rng.random(2) < config.photometric_p
    if not (saturate or turn):
        return image  # converting there and back would round
    levels = np.arange(256, dtype=np.float64)
    table = np.stack([levels, levels, levels], axis=1)  # [256, (hue, saturation, value)]
    if saturate:
        table[:, 1] = np.clip(levels * rng.uniform(*config.saturation), 0, 255)
    if turn:
        table[:, 0] = (levels + rng.uniform(-config.hue, config.hue)) % 180
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table.astype(np.uint8)[:, None])
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def _vignette(image: NDArray[np.uint8], loss: float) -> NDArray[np.uint8]:
    """Less light with the square of the distance from the middle; corners lose that share."""
    height, width = image.shape[:2]
    y = (np.arange(height)[:, None] + 0.5) / height * 2 - 1
    x = (np.arange(width) + 0.5) / width * 2 - 1
    light = 1 - loss * (x * x + y * y) / 2
    return np.rint(image * light[..., None] ** (1 / 2.2)).astype(np.uint8)


def _motion(image: NDArray[np.uint8], length: float, angle: float) -> NDArray[np.uint8]:
    """What a camera sees that turns while the shutter is open: every point becomes a line."""
    side = 2 * int(np.ceil(length / 2)) + 1
    places = np.linspace(-0.5, 0.5, 16 * side) * length
    y, x = side // 2 + np.outer([np.sin(angle), np.cos(angle)], places)
    cells = np.arange(side + 1) - 0.5
    kernel = np.histogram2d(y, x, bins=[cells, cells])[0]
    kernel /= kernel.sum()
    blurred = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blurred, np.uint8)


def _jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """What is left of a picture after JPEG."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
