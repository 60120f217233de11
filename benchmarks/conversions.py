"""Image and cloud payloads against plain NumPy copies of the same bytes, ratios in one run.

    ./run exec python benchmarks/conversions.py [--size 640x480] [--rounds 200]

Prints the median microseconds of CPU of each conversion and of a plain copy of as many bytes, into
a new array and into one that exists, taken in turns in one thread; and their ratios. Where
cv_bridge and sensor_msgs_py can be imported, whole messages are compared with theirs as well, byte
by byte and in time: images to messages and back, and clouds.
"""

from __future__ import annotations

import argparse
import statistics
from array import array
from collections.abc import Callable
from time import thread_time
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mtl_perception.camera import CameraModel, Letterbox
from mtl_perception.clouds import CloudBuilder
from mtl_perception.colors import depth_color, normals_color, semantic_color
from mtl_perception.images import decode, payload, read_image
from mtl_perception.pipeline import Frame, Prediction

Pair = tuple[Callable[[], object], Callable[[], object]]  # ours and theirs


def prediction_of(width: int, height: int) -> Prediction:
    """What a network may say about an image of noise."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (height, width, 3), np.uint8)
    mono = rng.integers(0, 17, (height, width), np.uint8)
    depth = rng.uniform(1, 5, (height, width)).astype(np.float32)
    normals = rng.normal(size=(height, width, 3)).astype(np.float32)
    camera = CameraModel(width, height, width, width, width / 2, height / 2)
    return Prediction(
        frame=Frame(rgb, camera),
        grid=Letterbox.fit(width, height, width, height),
        arrays={'depth': depth, 'semantic': mono, 'normals': normals},
        image=rgb,
        calibration=camera,
        metric=True,
        timings_ms={},
    )


def cases(width: int, height: int) -> dict[str, tuple[int, Callable[[], object]]]:
    """Name -> bytes produced, conversion."""
    prediction = prediction_of(width, height)
    rgb, arrays = prediction.image, prediction.arrays
    mono, depth, normals = arrays['semantic'], arrays['depth'], arrays['normals']
    builder = CloudBuilder()
    box = Letterbox.fit(width, height, 320, 256)
    grid = np.empty((256, 320, 3), np.uint8)
    data = array('B', rgb.tobytes())
    pixels = width * height

    def read(encoding: str) -> Callable[[], object]:
        channels = 3 if encoding.endswith(('b8', 'r8')) else 1
        return lambda: decode(encoding, height, width, channels * width, data, 0)

    return {
        'payload mono8': (mono.nbytes, lambda: payload(mono)),
        'payload 32FC1': (depth.nbytes, lambda: payload(depth)),
        'payload 32FC3': (normals.nbytes, lambda: payload(normals)),
        'payload rgb8': (rgb.nbytes, lambda: payload(rgb)),
        'payload rgb8, crop': (rgb[:, 8:-8].nbytes, lambda: payload(rgb[:, 8:-8])),
        'cloud, 32-byte points': (32 * pixels, lambda: builder.fill(prediction)),
        'decode rgb8': (rgb.nbytes, read('rgb8')),
        'decode bgr8': (rgb.nbytes, read('bgr8')),
        'decode mono8': (rgb.nbytes, read('mono8')),
        'letterbox to 320x256': (rgb.nbytes, lambda: box.forward(rgb, grid)),
        'semantic_color': (rgb.nbytes, lambda: semantic_color(mono, ())),
        'depth_color': (rgb.nbytes, lambda: depth_color(depth)),
        'normals_color': (rgb.nbytes, lambda: normals_color(normals)),
    }


def to_image(pixels: NDArray[Any], encoding: str) -> Pair:
    """Pixels to an Image, by us into the memory of the last one."""
    from cv_bridge import CvBridge

    from mtl_perception.ros.messages import image

    bridge, last = CvBridge(), image(pixels, encoding)
    return lambda: image(pixels, encoding, last), lambda: bridge.cv2_to_imgmsg(pixels, encoding)


def from_image(pixels: NDArray[Any], encoding: str) -> Pair:
    """An Image of a camera to RGB pixels."""
    from cv_bridge import CvBridge

    bridge = CvBridge()
    message = bridge.cv2_to_imgmsg(pixels, encoding)
    return lambda: read_image(message), lambda: bridge.imgmsg_to_cv2(message, 'rgb8')


def to_cloud(prediction: Prediction) -> Pair:
    """A prediction to a PointCloud2, by them as their documentation shows it for NumPy."""
    from sensor_msgs_py import point_cloud2
    from std_msgs.msg import Header

    from mtl_perception.ros.messages import point_cloud

    builder, camera = CloudBuilder(), prediction.calibration
    assert camera is not None
    last = point_cloud(builder.fill(prediction))
    arrays, rays = prediction.arrays, np.moveaxis(camera.rays(), -1, 0).copy()
    dtype = point_cloud2.dtype_from_fields(last.fields, last.point_step)
    header = Header()

    def theirs() -> object:
        points = np.empty(arrays['depth'].shape, dtype)
        z = np.where(np.isfinite(arrays['depth']), arrays['depth'], np.float32(np.nan))
        points['x'], points['y'], points['z'] = rays[0] * z, rays[1] * z, z
        r, g, b = np.moveaxis(prediction.image.astype(np.uint32), -1, 0)
        points['rgb'] = (r << 16 | g << 8 | b).view(np.float32)
        points['label'] = arrays['semantic']
        for axis, values in zip('xyz', np.moveaxis(arrays['normals'], -1, 0), strict=True):
            points[f'normal_{axis}'] = values
        return point_cloud2.create_cloud(header, last.fields, points, last.point_step)

    return lambda: point_cloud(builder.fill(prediction), last), theirs


def pairs(width: int, height: int) -> dict[str, Callable[[], Pair]]:
    """Name -> what makes our conversion and the one of ROS; it fails without their package."""
    prediction = prediction_of(width, height)
    rgb, arrays = prediction.image, prediction.arrays
    return {
        'mono8 to Image': lambda: to_image(arrays['semantic'], 'mono8'),
        'rgb8 to Image': lambda: to_image(rgb, 'rgb8'),
        '32FC1 to Image': lambda: to_image(arrays['depth'], '32FC1'),
        '32FC3 to Image': lambda: to_image(arrays['normals'], '32FC3'),
        'Image rgb8 to RGB': lambda: from_image(rgb, 'rgb8'),
        'Image bgr8 to RGB': lambda: from_image(rgb, 'bgr8'),
        'Image mono8 to RGB': lambda: from_image(arrays['semantic'], 'mono8'),
        'prediction to PointCloud2': lambda: to_cloud(prediction),
    }


def content(result: Any) -> bytes:
    """The bytes of a message or an array."""
    return bytes(result.data) if hasattr(result, 'header') else np.asarray(result).tobytes()


def compare(width: int, height: int, rounds: int) -> None:
    """Print our conversions beside those of ROS."""
    print(f'\n{"":<26}{"ours":>9}{"theirs":>9}{"ratio":>8}')
    for name, make in pairs(width, height).items():
        try:
            functions = make()
        except ImportError as error:
            print(f'{name:<26} not compared: {error}')
            continue
        first, second = (content(function()) for function in functions)
        if first != second:
            raise SystemExit(f'{name}: the bytes differ')
        ours, theirs = medians([*functions], rounds)
        print(f'{name:<26}{ours:9.0f}{theirs:9.0f}{theirs / ours:8.1f}')


def medians(functions: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median microseconds of CPU of each function, called in turns."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, series in zip(functions, times, strict=True):
            start = thread_time()
            function()
            series.append(1e6 * (thread_time() - start))
    return [statistics.median(series) for series in times]


def copying(size: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Two plain copies of so many bytes: into a new array, and into one that exists."""
    source: NDArray[np.uint8] = np.ones(size, np.uint8)
    target = np.empty_like(source)
    return source.copy, lambda: np.copyto(target, source)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('--size', default='640x480', help='WIDTHxHEIGHT (default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=200, help='(default: %(default)s)')
    options = parser.parse_args()
    width, height = (int(value) for value in options.size.split('x'))
    cv2.setNumThreads(1)
    print(f'{width}x{height}, median of {options.rounds}, microseconds of CPU')
    print(f'{"":<24}{"ours":>9}{"new copy":>10}{"in place":>10}{"x new":>8}{"x place":>9}')
    for name, (size, convert) in cases(width, height).items():
        ours, new, place = medians([convert, *copying(size)], options.rounds)
        print(f'{name:<24}{ours:9.0f}{new:10.0f}{place:10.0f}{ours / new:8.2f}{ours / place:9.2f}')
    compare(width, height, options.rounds)


if __name__ == '__main__':
    main()
