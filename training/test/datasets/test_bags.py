"""Bags as data sets: colour images with the depth that is registered to them, as recorded."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('rosbags', reason='reads and writes bags')

from mtl_training.datasets import open_data
from mtl_training.datasets.dataset import DataError
from mtl_training.datasets.derive import Intrinsics, normals_of
from mtl_training.labels import ROBOT_GROUPS

from mtl_perception.offline.recordings import RecordingWriter

HEIGHT, WIDTH = 48, 64
IMAGE = 'sensor_msgs/msg/Image'


@pytest.fixture
def write_bag(tmp_path: Path) -> Callable[..., Path]:
    """Writes frames of a floor 1.2 m to 1.7 m away; each is a little brighter than the last."""

    def write(
        name: str,
        *,
        frames: int = 3,
        frame_id: str = 'color',
        depth_size: tuple[int, int] = (HEIGHT, WIDTH),
        distortion: float = 0.0,
    ) -> Path:
        with RecordingWriter(tmp_path / name) as writer:
            types = writer.types

            def image(stamp: int, frame: str, array: np.ndarray, encoding: str) -> bytes:
                return types.pack(
                    IMAGE,
                    header=types.header(stamp, frame),
                    height=array.shape[0],
                    width=array.shape[1],
                    encoding=encoding,
                    is_bigendian=0,
                    step=array.strides[0],
                    data=np.frombuffer(array.tobytes(), np.uint8),
                )

            region = types.make(
                'sensor_msgs/msg/RegionOfInterest',
                **dict.fromkeys(('x_offset', 'y_offset', 'height', 'width'), 0),
                do_rectify=False,
            )
            for index in range(frames):
                stamp = 10**18 + index * 10**8
                k = np.array([60, 0, 31.5, 0, 61, 23.5, 0, 0, 1], float)
                info = types.pack(
                    'sensor_msgs/msg/CameraInfo',
                    header=types.header(stamp, 'color'),
                    height=HEIGHT,
                    width=WIDTH,
                    distortion_model='plumb_bob',
                    d=np.array([distortion, 0, 0, 0, 0]),
                    k=k,
                    r=np.eye(3).ravel(),
                    p=np.insert(k, [3, 6, 9], 0),
                    binning_x=0,
                    binning_y=0,
                    roi=region,
                )
                writer.write('/camera/camera_info', 'sensor_msgs/msg/CameraInfo', stamp, info)
                color = np.full((HEIGHT, WIDTH, 3), (100 + index, 60, 20), np.uint8)
                packed = image(stamp, 'color', color, 'rgb8')
                writer.write('/camera/image_raw', IMAGE, stamp, packed)
                inverse = np.linspace(1 / 1700, 1 / 1200, depth_size[0])[:, None]
                depth = np.rint(1 / inverse.repeat(depth_size[1], axis=1)).astype(np.uint16)
                depth[:, : depth_size[1] // 16] = 0
                late = stamp + (15_000_000 if index != 1 else 30_000_000)
                packed = image(late, frame_id, depth, '16UC1')
                writer.write('/camera/depth/image', IMAGE, late, packed)
        return tmp_path / name

    return write


def test_frames_of_a_bag_have_the_depth_of_their_pixels(write_bag: Callable[..., Path]) -> None:
    data = open_data(write_bag('monday'), 'val', ROBOT_GROUPS)
    assert data.tasks == ('depth', 'normals')
    # The depth of the second one is too late.
    assert list(data.frames) == [f'monday/{10**18}', f'monday/{10**18 + 2 * 10**8}']
    sample = data.read(1, ['depth', 'normals'])
    assert sample.fx == 60
    assert sample.arrays['image'][0, 0].tolist() == [102, 60, 20]
    depth = np.asarray(sample.arrays['depth'], np.uint16)
    assert depth[47, :5].tolist() == [0, 0, 0, 0, 1200]
    expected = normals_of(depth, Intrinsics(60, 61, 31.5, 23.5))
    np.testing.assert_array_equal(sample.arrays['normals'], expected)
    assert sample.arrays['normals'][20, 30, 1] < 100  # upwards
    assert sorted(data.read(0, []).arrays) == ['image']


def test_sizes_that_differ_meet_at_the_smaller_one(write_bag: Callable[..., Path]) -> None:
    small = write_bag('small', depth_size=(HEIGHT // 2, WIDTH // 2))
    sample = open_data(small, 'train', ROBOT_GROUPS).read(0, ['depth', 'normals'])
    assert sample.fx == 30
    assert sample.arrays['image'].shape == (24, 32, 3)
    expected = normals_of(
        np.asarray(sample.arrays['depth'], np.uint16), Intrinsics(30, 30.5, 15.5, 11.5)
    )
    np.testing.assert_array_equal(sample.arrays['normals'], expected)
    large = write_bag('large', depth_size=(HEIGHT * 2, WIDTH * 2))
    sample = open_data(large, 'train', ROBOT_GROUPS).read(0, ['depth'])
    assert sample.arrays['image'].shape[:2] == sample.arrays['depth'].shape == (HEIGHT, WIDTH)
    assert sample.fx == 60


def test_a_folder_of_bags_is_one_data_set_whoever_reads_it(
    write_bag: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ('monday', 'tuesday'):
        write_bag(name, frames=30)
    data = open_data(tmp_path, 'train', ROBOT_GROUPS)
    assert {name.split('/')[0] for name in data.frames} == {'monday', 'tuesday'}
    with ThreadPoolExecutor(4) as threads:
        samples = list(threads.map(lambda index: data.read(index, ['depth']), range(len(data))))
    for name, sample in zip(data.frames, samples, strict=True):
        index = (int(name.split('/')[1]) - 10**18) // 10**8
        assert sample.arrays['image'][0, 0, 0] == 100 + index


def test_distorted_images_have_no_normals(write_bag: Callable[..., Path]) -> None:
    data = open_data(write_bag('bent', distortion=-0.2), 'train', ROBOT_GROUPS)
    assert data.tasks == ('depth',)
    assert sorted(data.read(0, ['depth', 'normals']).arrays) == ['depth', 'image']


def test_depth_of_other_pixels_is_refused_with_the_reason(
    write_bag: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match='depth of frame left is not registered'):
        open_data(write_bag('stereo', frame_id='left'), 'train', ROBOT_GROUPS)
    (tmp_path / 'broken.mcap').write_bytes(b'no bag')
    with pytest.raises(DataError, match=r'broken\.mcap'):
        open_data(tmp_path, 'train', ROBOT_GROUPS)


def test_a_bag_that_is_gone_is_named(write_bag: Callable[..., Path]) -> None:
    bag = write_bag('monday')
    data = open_data(bag, 'train', ROBOT_GROUPS)
    for file in bag.iterdir():
        file.unlink()
    with pytest.raises(DataError, match='monday'):
        data.read(0, ['depth'])


def test_pictures_of_a_bag_are_those_of_opencv(tmp_path: Path) -> None:
    """Compressed images, and the sample's own topics of ground truth."""
    from mtl_perception.offline.sample import write_sample

    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    frame = {
        'stamp_ns': 10**9,
        'rgb': bytes(cv2.imencode('.jpg', picture)[1]),
        'k': [60, 0, 31.5, 0, 61, 23.5, 0, 0, 1],
        'width': WIDTH,
        'height': HEIGHT,
        'depth_mm': bytes(cv2.imencode('.png', np.full((HEIGHT, WIDTH), 2500, np.uint16))[1]),
        'semantic': bytes(cv2.imencode('.png', np.zeros((HEIGHT, WIDTH), np.uint8))[1]),
    }
    write_sample(tmp_path / 'sample', [frame])  # type: ignore[list-item]
    sample = open_data(tmp_path / 'sample', 'train', ROBOT_GROUPS).read(0, ['depth'])
    assert sample.arrays['depth'][0, 0] == 2500
    decoded = cv2.imdecode(np.frombuffer(frame['rgb'], np.uint8), cv2.IMREAD_COLOR)  # type: ignore[arg-type]
    assert abs(sample.arrays['image'].astype(int) - decoded[..., ::-1]).max() <= 3
