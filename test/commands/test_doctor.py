"""The doctor tells what is wrong with a machine and what to do, and fails only where it must."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mtl_perception.commands import cli, machine, transport
from mtl_perception.commands.findings import Finding, report
from mtl_perception.commands.hearing import (
    Endpoint,
    Heard,
    check_calibration,
    check_flow,
    check_image,
    check_publishers,
)
from mtl_perception.commands.processes import process_of
from mtl_perception.share import share

PROFILE = """<?xml version="1.0" encoding="UTF-8"?>
<profiles xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles">
  <transport_descriptors><transport_descriptor>
    <transport_id>shm</transport_id><type>SHM</type>
    <segment_size>{size}</segment_size>
  </transport_descriptor></transport_descriptors>
</profiles>
"""


def test_ros_that_cannot_be_imported_is_a_failure_with_its_reason() -> None:
    finding = machine.check_ros('', None, "No module named 'rclpy'")
    assert finding.level == 'fail'
    assert "No module named 'rclpy'" in finding.detail
    assert 'setup.bash' in finding.remedy


def test_another_middleware_is_a_warning() -> None:
    assert machine.check_ros('kilted', 'rmw_fastrtps_cpp').level == 'ok'
    assert machine.check_ros('kilted', 'rmw_cyclonedds_cpp').level == 'warn'


@pytest.mark.parametrize(
    ('text', 'level', 'words'),
    [
        (PROFILE.format(size=64 * 1024**2), 'ok', 'segments of 64 MB'),
        (PROFILE.format(size=512 * 1024), 'warn', 'segment_size is 0 MB, expected at least'),
        ('<profiles/>', 'warn', 'segment_size is not set'),
        (PROFILE.format(size='large'), 'fail', 'invalid literal'),
        ('<profiles>', 'fail', 'is not valid XML'),
        (None, 'fail', 'cannot be read'),
    ],
)
def test_the_profile_of_the_user_is_judged(text: str | None, level: str, words: str) -> None:
    environment = {'FASTDDS_DEFAULT_PROFILES_FILE': 'mine.xml'}
    finding = transport.check_profile(environment, {'mine.xml': text}, 'shipped.xml')
    assert finding.level == level
    assert words in finding.detail
    assert level == 'ok' or 'shipped.xml' in finding.remedy


def test_the_profile_must_have_room_for_images_of_4k() -> None:
    wanted = 4 * 3840 * 2160 * 3
    text = PROFILE.format(size=wanted)
    environment = {'FASTDDS_DEFAULT_PROFILES_FILE': 'mine.xml'}

    def judged(text: str) -> Finding:
        return transport.check_profile(environment, {'mine.xml': text}, 'shipped', wanted=wanted)

    short = judged(PROFILE.format(size=64 * 1024**2))
    assert (short.level, short.remedy) == ('warn', f'a copy of shipped with segment_size {wanted}')
    queue = judged(text)
    assert queue.level == 'warn'
    assert 'port_queue_capacity 512 has room for 32 MB, expected 95 MB' in queue.detail
    shipped = share('config/fastdds.xml').read_text()
    assert judged(shipped.replace(str(64 * 1024**2), str(wanted))).level == 'ok'


def test_no_profile_is_a_warning_with_the_line_to_type() -> None:
    for distro, variable in (('', 'FASTDDS'), ('lyrical', 'FASTDDS'), ('jazzy', 'FASTRTPS')):
        finding = transport.check_profile({'ROS_DISTRO': distro}, {}, 'shipped.xml')
        assert finding.level == 'warn'
        assert finding.remedy.endswith(f'export {variable}_DEFAULT_PROFILES_FILE=shipped.xml')


def test_the_small_shared_memory_of_a_container_is_a_warning() -> None:
    gigabyte, megabyte = 1024**3, 1024**2
    assert transport.check_shm(gigabyte, gigabyte).level == 'ok'
    assert '--shm-size' in transport.check_shm(64 * megabyte, 64 * megabyte).remedy
    assert 'only 5 MB' in transport.check_shm(gigabyte, 5 * megabyte).detail
    assert transport.check_shm(None, None).level == 'warn'


def test_kernel_defaults_are_warnings_and_unreadable_ones_are_not() -> None:
    defaults = {
        'net.core.rmem_max': 212992,
        'net.ipv4.ipfrag_high_thresh': 4194304,
        'net.ipv4.ipfrag_time': 30,
    }
    findings = transport.check_kernel(defaults)
    assert [f.level for f in findings] == ['warn'] * 3
    assert findings[0].remedy == 'sudo sysctl -w net.core.rmem_max=8388608'
    tuned = dict(zip(defaults, (2**31 - 1, 2**27, 3), strict=True))
    assert [f.level for f in transport.check_kernel(tuned)] == ['ok'] * 3
    assert [f.level for f in transport.check_kernel({})] == ['ok'] * 3


def test_onnxruntime_must_be_there_and_run_on_the_cpu() -> None:
    assert machine.check_onnxruntime(None, (), 'no such module').level == 'fail'
    assert machine.check_onnxruntime('1.20', ['DmlExecutionProvider']).level == 'fail'
    assert machine.check_onnxruntime('1.20', ['CPUExecutionProvider']).level == 'ok'


def test_a_package_for_another_numpy_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "raise ImportError('numpy.core.multiarray failed to import')"
    (tmp_path / 'cv2.py').write_text(broken)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'cv2', raising=False)
    (finding,) = (f for f in machine.examine_machine() if f.subject == 'cv2')
    assert finding.level == 'fail'
    assert finding.detail == 'cannot be imported: numpy.core.multiarray failed to import'
    assert "pip install 'numpy<2'" in finding.remedy


def test_the_report_shows_remedies_and_counts() -> None:
    lines = report(
        [Finding('ok', 'a', 'fine', 'nothing'), Finding('fail', 'bcd', 'broken', 'mend it')]
    ).splitlines()
    assert lines[0].split() == ['ok', 'a', 'fine']
    assert lines[2].strip() == '-> mend it'
    assert lines[-1] == '1 fail, 0 warn, 1 ok'


def test_this_machine_is_examined_whatever_it_lacks() -> None:
    findings = machine.examine_machine()
    assert {'ROS 2', '/dev/shm', 'onnxruntime', 'default bundle'} <= {f.subject for f in findings}
    assert all(f.remedy for f in findings if f.level != 'ok')


def test_a_package_without_a_file_of_its_own_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'rosbags').mkdir()
    (tmp_path / 'rosbags-9.8.dist-info').mkdir()
    metadata = 'Metadata-Version: 2.1\nName: rosbags\nVersion: 9.8\n'
    (tmp_path / 'rosbags-9.8.dist-info' / 'METADATA').write_text(metadata)
    monkeypatch.syspath_prepend(tmp_path)
    (finding,) = (f for f in machine.examine_machine() if f.subject == 'rosbags')
    assert (finding.level, finding.detail) == ('ok', '9.8')


def test_a_gpu_that_no_engine_uses_is_a_warning() -> None:
    assert [f.level for f in machine.check_gpu([], [])] == ['ok']
    assert [f.level for f in machine.check_gpu(['H200'], ['tensorrt'])] == ['ok']
    assert [f.level for f in machine.check_gpu(['H200'], [])] == ['ok', 'warn']


def test_a_cache_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('MTL_PERCEPTION_CACHE', str(tmp_path / 'file'))
    (finding,) = (f for f in machine.examine_machine() if f.subject == 'engine cache')
    assert finding.level == 'warn'
    assert 'engines are built at every start' in finding.detail
    assert 'MTL_PERCEPTION_CACHE' in finding.remedy


def test_the_exit_status_and_the_json_tell_what_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Finding('warn', 'a', 'odd', 'mend it')]
    monkeypatch.setattr('mtl_perception.commands.doctor.examine_machine', lambda: found)
    assert cli.main(['doctor', '--machine', '--json']) == 0
    found.append(Finding('fail', 'b', 'broken', 'mend it'))
    capsys.readouterr()
    assert cli.main(['doctor', '--machine', '--json']) == 1
    content = json.loads(capsys.readouterr().out)
    assert content['exit_code'] == 1
    assert content['counts'] == {'fail': 1, 'warn': 1, 'ok': 0}
    assert content['findings'][1] == {
        'level': 'fail', 'subject': 'b', 'detail': 'broken', 'remedy': 'mend it',
    }  # fmt: skip


IMAGE = 'sensor_msgs/msg/Image'


@pytest.mark.parametrize(
    ('publishers', 'levels', 'words'),
    [
        ([], ['fail'], 'nobody publishes'),
        ([Endpoint('/a', IMAGE, ())], ['ok'], 'of /a, QoS matches'),
        ([Endpoint('/a', 'x/msg/Y', ())], ['fail'], f'/a publishes x/msg/Y, expected {IMAGE}'),
        ([Endpoint('/a', IMAGE, (), 'best effort')], ['fail'], 'does not match: best effort'),
        ([Endpoint('/a', IMAGE, ()), Endpoint('/b', IMAGE, ())], ['warn'], '/a, /b publish on it'),
    ],
)
def test_publishers_are_judged(publishers: list[Endpoint], levels: list[str], words: str) -> None:
    findings = check_publishers('/image', IMAGE, publishers)
    assert [f.level for f in findings] == levels
    assert words in findings[0].detail


def heard(arrive_s: float, sent_s: float, *, age_s: float = 0.05, start: int = 10**18) -> Heard:
    """Ten messages."""
    return Heard(
        '/image',
        [arrive_s * i for i in range(10)],
        [age_s] * 10,
        [start + round(1e9 * sent_s * i) for i in range(10)],
    )


@pytest.mark.parametrize(
    ('found', 'level', 'words'),
    [
        (heard(0.1, 0.1), 'ok', '10.0 Hz, 50 ms old'),
        (heard(0.1, 0.05), 'warn', '10.0 Hz arrive of 20.0 Hz by the stamps'),
        (heard(0.1, 0.0, start=0), 'warn', '10.0 Hz, without stamps'),
        (heard(0.1, -0.1), 'warn', 'stamps jump back'),
        (heard(0.1, 0.1, age_s=90.0), 'warn', 'stamps 90 s old'),
        (heard(0.1, 0.1, age_s=-90.0), 'warn', 'stamps 90 s in the future'),
        (Heard('/image'), 'fail', 'nothing came in 3 s'),
    ],
)
def test_what_comes_is_judged(found: Heard, level: str, words: str) -> None:
    (finding,) = check_flow(found, 3.0)
    assert (finding.level, words in finding.detail) == (level, True), finding


def message(frame: str = 'cam', **fields: Any) -> Any:
    stamp = SimpleNamespace(sec=1, nanosec=0)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp, frame_id=frame), **fields)


def picture(frame: str = 'cam', encoding: str = 'mono8') -> Any:
    size = {'width': 64, 'height': 48, 'step': 64, 'is_bigendian': 0}
    return message(frame, encoding=encoding, data=bytes(64 * 48), **size)


def camera_info(frame: str = 'cam', *, fx: float = 50.0, cx: float = 31.5, **other: Any) -> Any:
    nothing = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    fields = {
        'width': 64, 'height': 48, 'distortion_model': 'plumb_bob', 'd': [0.0] * 5,
        'k': [fx, 0.0, cx, 0.0, fx, 23.5, 0.0, 0.0, 1.0], 'r': [1.0, 0, 0, 0, 1, 0, 0, 0, 1],
        'p': [fx, 0.0, cx, 0.0, 0.0, fx, 23.5, 0.0, 0.0, 0.0, 1.0, 0.0],
        'binning_x': 0, 'binning_y': 0, 'roi': nothing, **other,
    }  # fmt: skip
    return message(frame, **fields)


def test_images_are_judged() -> None:
    finding, size = check_image('/image', picture())
    assert (finding.level, size) == ('ok', (64, 48))
    assert finding.detail == "64x48 mono8, frame 'cam'"
    assert check_image('/image', picture(''))[0].level == 'warn'
    finding, size = check_image('/image', picture(encoding='cmyk'))
    assert (finding.level, size) == ('fail', (0, 0))


@pytest.mark.parametrize(
    ('info', 'level', 'words'),
    [
        (camera_info(), 'ok', 'fx 50.0, fy 50.0: credible'),
        (camera_info('other'), 'warn', "is of frame 'other', and images of 'cam'"),
        (camera_info(fx=0.0), 'warn', 'uncalibrated'),
        (camera_info(width=1280), 'warn', '1280'),
        (camera_info(cx=2.0), 'warn', 'not credible'),
    ],
)
def test_calibrations_are_judged_as_by_the_node(info: Any, level: str, words: str) -> None:
    finding = check_calibration(
        '/camera_info', info, picture(), images='/image', size=(64, 48), setting='auto'
    )
    assert (finding.level, words in finding.detail) == (level, True), finding


def test_a_process_of_another_host_is_not_looked_for() -> None:
    own = [1, 15, 9, 9, *(os.getpid() & 0xFFFF).to_bytes(2, 'little'), *[0] * 10]
    other = [1, 15, 8, 8, *own[4:]]
    assert process_of(other, own) is None
