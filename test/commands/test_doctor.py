"""The doctor tells what is wrong with a machine and what to do, and fails only where it must."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mtl_perception.commands import doctor
from mtl_perception.commands.doctor import Finding

PROFILE = """<?xml version="1.0" encoding="UTF-8"?>
<profiles xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles">
  <transport_descriptors><transport_descriptor>
    <transport_id>shm</transport_id><type>SHM</type>
    <segment_size>{size}</segment_size>
  </transport_descriptor></transport_descriptors>
</profiles>
"""


def test_ros_that_cannot_be_imported_is_a_failure_with_its_reason() -> None:
    finding = doctor.check_ros('', None, "No module named 'rclpy'")
    assert finding.level == 'fail'
    assert "No module named 'rclpy'" in finding.detail
    assert 'setup.bash' in finding.remedy


def test_another_middleware_is_a_warning() -> None:
    assert doctor.check_ros('kilted', 'rmw_fastrtps_cpp').level == 'ok'
    assert doctor.check_ros('kilted', 'rmw_cyclonedds_cpp').level == 'warn'


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
    finding = doctor.check_profile(environment, {'mine.xml': text}, 'shipped.xml')
    assert finding.level == level
    assert words in finding.detail
    assert level == 'ok' or 'shipped.xml' in finding.remedy


def test_no_profile_is_a_warning_with_the_line_to_type() -> None:
    for distro, variable in (('', 'FASTDDS'), ('lyrical', 'FASTDDS'), ('jazzy', 'FASTRTPS')):
        finding = doctor.check_profile({'ROS_DISTRO': distro}, {}, 'shipped.xml')
        assert finding.level == 'warn'
        assert finding.remedy.endswith(f'export {variable}_DEFAULT_PROFILES_FILE=shipped.xml')


def test_the_small_shared_memory_of_a_container_is_a_warning() -> None:
    gigabyte, megabyte = 1024**3, 1024**2
    assert doctor.check_shm(gigabyte, gigabyte).level == 'ok'
    assert '--shm-size' in doctor.check_shm(64 * megabyte, 64 * megabyte).remedy
    assert 'only 5 MB' in doctor.check_shm(gigabyte, 5 * megabyte).detail
    assert doctor.check_shm(None, None).level == 'warn'


def test_kernel_defaults_are_warnings_and_unreadable_ones_are_not() -> None:
    defaults = {
        'net.core.rmem_max': 212992,
        'net.ipv4.ipfrag_high_thresh': 4194304,
        'net.ipv4.ipfrag_time': 30,
    }
    findings = doctor.check_kernel(defaults)
    assert [f.level for f in findings] == ['warn'] * 3
    assert findings[0].remedy == 'sudo sysctl -w net.core.rmem_max=8388608'
    tuned = dict(zip(defaults, (2**31 - 1, 2**27, 3), strict=True))
    assert [f.level for f in doctor.check_kernel(tuned)] == ['ok'] * 3
    assert [f.level for f in doctor.check_kernel({})] == ['ok'] * 3


def test_onnxruntime_must_be_there_and_run_on_the_cpu() -> None:
    assert doctor.check_onnxruntime(None, (), 'no such module').level == 'fail'
    assert doctor.check_onnxruntime('1.20', ['DmlExecutionProvider']).level == 'fail'
    assert doctor.check_onnxruntime('1.20', ['CPUExecutionProvider']).level == 'ok'


def test_a_package_for_another_numpy_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "raise ImportError('numpy.core.multiarray failed to import')"
    (tmp_path / 'cv2.py').write_text(broken)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'cv2', raising=False)
    (finding,) = (f for f in doctor.examine() if f.subject == 'cv2')
    assert finding.level == 'fail'
    assert finding.detail == 'cannot be imported: numpy.core.multiarray failed to import'
    assert "pip install 'numpy<2'" in finding.remedy


def test_the_report_shows_remedies_and_counts() -> None:
    lines = doctor.report(
        [Finding('ok', 'a', 'fine', 'nothing'), Finding('fail', 'bcd', 'broken', 'mend it')]
    ).splitlines()
    assert lines[0].split() == ['ok', 'a', 'fine']
    assert lines[2].strip() == '-> mend it'
    assert lines[-1] == '1 fail, 0 warn, 1 ok'


def test_this_machine_is_examined_whatever_it_lacks() -> None:
    findings = doctor.examine()
    assert {'ROS 2', '/dev/shm', 'onnxruntime', 'default bundle'} <= {f.subject for f in findings}
    assert all(f.remedy for f in findings if f.level != 'ok')
