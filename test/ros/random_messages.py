"""Random camera messages, good and bad, the same for the same seed."""

from __future__ import annotations

import math
import random
import struct
import zlib
from array import array
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

# Encoding -> bytes of a pixel, and rows of bytes for a row of pixels.
GOOD = {
    'rgb8': (3, 1), 'bgr8': (3, 1), 'rgba8': (4, 1), 'bgra8': (4, 1), 'mono8': (1, 1),
    'mono16': (2, 1), 'rgb16': (6, 1), '8UC1': (1, 1), '8UC3': (3, 1), 'bayer_rggb8': (1, 1),
    'bayer_gbrg16': (2, 1), 'yuv422': (2, 1), 'yuv422_yuy2': (2, 1), 'nv12': (1, 1.5),
    'nv24': (1, 3),
}  # fmt: skip
BAD = ['', 'rgb9', 'RGB8', '32FC1', '16UC1', '64FC4', 'bayer_xxxx8', '\n', 'é' * 300, 'rgb8\0x']
FORMATS = [
    'jpeg', 'png', 'rgb8; jpeg compressed bgr8', 'bayer_rggb8; png compressed', '', 'tiff; ;; ;',
    '32FC1; compressedDepth png', 'mono16; png compressed', 'é' * 300,
]  # fmt: skip
NUMBERS = [0.0, -0.0, 1.0, -1.0, 0.5, 100.0, 1e-300, 1e308, math.nan, math.inf, -math.inf]
MODELS = ['plumb_bob', 'rational_polynomial', 'equidistant', 'fisheye', 'thin_prism', '', 'é']
FRAMES = ['eye', '', '/eye', '../../eye', 'é' * 500, 'a b\nc']
EXTREMES = [0, 1, 2**31 - 1, 2**31, 2**32 - 1]
LARGEST = 200_000  # bytes of a message


class Messages:
    """Random messages.

    Args:
        seed: of the generator.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        small = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
        self._stored = [
            bytes(cv2.imencode(kind, pixels)[1])
            for kind in ('.jpg', '.png')
            for pixels in (small, small[..., 0])
        ]

    def header(self, message: Any) -> Any:
        """Give a message a random header."""
        pick = self._random
        stamp = message.header.stamp
        stamp.sec = pick.choice([0, 1, -1, 2**31 - 1, -(2**31), pick.randrange(2**31)])
        stamp.nanosec = pick.choice([0, 999_999_999, 2**32 - 1, pick.randrange(2**32)])
        message.header.frame_id = pick.choice(FRAMES)
        return message

    def image(self) -> Any:
        """An Image that is good, or bad in one way or in several."""
        pick = self._random
        good = pick.random() < 0.4
        encoding = pick.choice([*GOOD]) if good or pick.random() < 0.5 else pick.choice(BAD)
        size, rows = GOOD.get(encoding, (pick.randrange(1, 9), 1))
        width, height = 2 * pick.randrange(1, 40), 2 * pick.randrange(1, 40)
        if not good and pick.random() < 0.2:
            width = pick.choice([*EXTREMES, width])
            height = pick.choice([*EXTREMES, height])
        step = width * size + (pick.randrange(9) if pick.random() < 0.3 else 0)
        if not good and pick.random() < 0.3:
            step = pick.choice([*EXTREMES, max(step - 1, 0)])
        length = min(int(step * height * rows), LARGEST)
        if not good and pick.random() < 0.4:
            length = pick.choice([0, 1, max(length - 1, 0), length + 7])
        message = Image(encoding=encoding, is_bigendian=pick.randrange(2 if good else 256))
        message.width, message.height = width, height
        message.step = min(step, 2**32 - 1)
        message.data = array('B', pick.randbytes(length))
        return self.header(message)

    def compressed(self) -> Any:
        """A CompressedImage that is good, damaged, a bomb, or anything else."""
        pick = self._random
        content = bytearray(pick.choice(self._stored))
        how = pick.randrange(6)
        if how == 1:
            for _ in range(pick.randrange(1, 9)):
                content[pick.randrange(len(content))] = pick.randrange(256)
        elif how == 2:
            del content[pick.randrange(len(content)) :]
        elif how == 3:
            content = bytearray(pick.randbytes(pick.randrange(200)))
        elif how == 4:
            content = bytearray(bomb(pick.choice([0, 1, 40_000, 2**31 - 1])))
        message = CompressedImage(format=pick.choice(FORMATS[:2] if how == 0 else FORMATS))
        message.data = array('B', bytes(content))
        return self.header(message)

    def info(self, image: Any) -> Any:
        """A CameraInfo, of an image more or less."""
        pick = self._random

        def numbers(count: int) -> list[float]:
            if pick.random() < 0.5:
                return [0.0] * count
            return [pick.choice([*NUMBERS, pick.uniform(-500, 500)]) for _ in range(count)]

        width, height = getattr(image, 'width', 32), getattr(image, 'height', 24)
        message = CameraInfo(distortion_model=pick.choice(MODELS))
        message.width = pick.choice([width, width, width, 0, 640, 2**32 - 1])
        message.height = pick.choice([height, height, height, 0, 480, 2**32 - 1])
        message.d = numbers(pick.choice([0, 0, 4, 5, 8, 14, 20]))
        message.k, message.r, message.p = numbers(9), numbers(9), numbers(12)
        if pick.random() < 0.5:
            message.k = [50.0, 0.0, 16.0, 0.0, 50.0, 12.0, 0.0, 0.0, 1.0]
        message.binning_x = pick.choice([0, 1, 2, 2**32 - 1])
        message.binning_y = pick.choice([0, 1, 2, 2**32 - 1])
        message.roi.width = pick.choice([0, 0, width, 2**32 - 1])
        message.roi.x_offset = pick.choice([0, 0, 1, 2**32 - 1])
        if pick.random() < 0.5:
            message.header = image.header
            return message
        return self.header(message)


def bomb(side: int) -> bytes:
    """A PNG that says it has side x side pixels, and holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', check)

    head = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    content = chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(bytes(1000)))
    return b'\x89PNG\r\n\x1a\n' + content + chunk(b'IEND', b'')
