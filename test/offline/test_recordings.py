"""Recordings survive the round trip, and what is not a recording is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip('rosbags', reason='recordings need rosbags')

from mtl_perception.offline.cdr import RecordingError, Types, header_stamp_ns
from mtl_perception.offline.recordings import RecordingReader, RecordingWriter
from mtl_perception.offline.sample import SampleFrame, write_sample

K = [554.0, 0, 320, 0, 554, 240, 0, 0, 1]


def png(array: np.ndarray) -> bytes:
    """Encode an array as PNG."""
    return cv2.imencode('.png', array)[1].tobytes()


def frame(index: int) -> SampleFrame:
    """One small moment whose pictures tell the index."""
    level = np.full((6, 8), index, np.uint8)
    return {
        'stamp_ns': 5_000_000_000 + index * 100_000_000,
        'rgb': cv2.imencode('.jpg', np.dstack([level] * 3))[1].tobytes(),
        'k': K,
        'width': 8,
        'height': 6,
        'depth_mm': png(np.full((6, 8), 1000 + index, np.uint16)),
        'semantic': png(level),
        'normals': png(np.dstack([level] * 3)),
        'edges': png(level),
    }


def test_a_sample_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    folder = tmp_path / 'rooms'
    assert write_sample(folder, (frame(i) for i in range(3))) == 3
    assert sorted(path.name for path in folder.iterdir()) == ['metadata.yaml', 'rooms.mcap']
    with RecordingReader(folder) as reader:
        assert reader.topics == {
            '/camera/image_raw/compressed': 'sensor_msgs/msg/CompressedImage',
            '/camera/camera_info': 'sensor_msgs/msg/CameraInfo',
            '/ground_truth/depth': 'sensor_msgs/msg/CompressedImage',
            '/ground_truth/semantic': 'sensor_msgs/msg/CompressedImage',
            '/ground_truth/normals': 'sensor_msgs/msg/CompressedImage',
            '/ground_truth/edges': 'sensor_msgs/msg/CompressedImage',
        }
        assert reader.duration_s == pytest.approx(0.2, abs=1e-6)
        depths = list(reader.messages(['/ground_truth/depth']))
        assert [m.time_ns for m in depths] == [frame(i)['stamp_ns'] for i in range(3)]
        last = reader.unpack(depths[-1])
        assert last.header.frame_id == 'camera_optical_frame'
        assert header_stamp_ns(depths[-1].data) == frame(2)['stamp_ns']
        assert cv2.imdecode(last.data, cv2.IMREAD_UNCHANGED)[0, 0] == 1002
        info = reader.unpack(next(reader.messages(['/camera/camera_info'])))
        assert (info.width, info.height, info.k[0], info.p[2]) == (8, 6, 554.0, 320.0)


def test_the_metadata_is_the_version_that_humble_reads(tmp_path: Path) -> None:
    write_sample(tmp_path / 'rooms', [frame(0)])
    text = (tmp_path / 'rooms' / 'metadata.yaml').read_text(encoding='utf-8')
    information = yaml.safe_load(text)['rosbag2_bagfile_information']
    assert information['version'] == 8
    assert information['storage_identifier'] == 'mcap'
    for topic in information['topics_with_message_count']:
        profiles = topic['topic_metadata']['offered_qos_profiles']
        assert isinstance(profiles, str)
        assert yaml.safe_load(profiles)[0]['reliability'] == 1


def test_an_interrupted_recording_leaves_nothing(tmp_path: Path) -> None:
    def frames() -> object:
        yield frame(0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path / 'rooms', frames())  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_recording_is_replaced_but_nothing_else_is(tmp_path: Path) -> None:
    write_sample(tmp_path / 'rooms', [frame(0)])
    write_sample(tmp_path / 'rooms', [frame(0), frame(1)])
    with RecordingReader(tmp_path / 'rooms') as reader:
        assert len(list(reader.messages(['/camera/camera_info']))) == 2
    (tmp_path / 'thesis').mkdir()
    (tmp_path / 'thesis' / 'chapter.tex').write_text('work of a year')
    with pytest.raises(RecordingError, match='is not a recording; not overwriting'):
        write_sample(tmp_path / 'thesis', [frame(0)])
    assert (tmp_path / 'thesis' / 'chapter.tex').exists()


def test_what_is_not_a_recording_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r'no metadata\.yaml in it'):
        RecordingReader(tmp_path).__enter__()
    write_sample(tmp_path / 'rooms', [frame(0)])
    (tmp_path / 'rooms' / 'rooms.mcap').write_bytes(b'\x89MCAP0\r\n')
    with pytest.raises(RecordingError, match='cannot read the recording'):
        RecordingReader(tmp_path / 'rooms').__enter__()
    with pytest.raises(RecordingError, match='no frames'):
        write_sample(tmp_path / 'empty', [])


def test_types_come_from_the_workspace_and_from_the_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = tmp_path / 'share' / 'zoo_msgs' / 'msg'
    share.mkdir(parents=True)
    (share / 'Animal.msg').write_text('std_msgs/Header header\nzoo_msgs/Leg[] legs\n')
    (share / 'Leg.msg').write_text('float32 length\n')
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    with RecordingWriter(tmp_path / 'bag', compress=True) as writer:
        legs = [writer.types.make('zoo_msgs/msg/Leg', length=0.5) for _ in range(4)]
        header = writer.types.header(7, 'savanna')
        data = writer.types.pack('zoo_msgs/msg/Animal', header=header, legs=legs)
        writer.write('/animals', 'zoo_msgs/msg/Animal', 7, data, latched=True)
    monkeypatch.delenv('AMENT_PREFIX_PATH')
    with RecordingReader(tmp_path / 'bag') as reader:
        animal = reader.unpack(next(reader.messages()))
        assert [leg.length for leg in animal.legs] == [0.5] * 4
    with pytest.raises(RecordingError, match='definition of zoo_msgs/msg/Cage was not found'):
        Types().require('zoo_msgs/msg/Cage')
