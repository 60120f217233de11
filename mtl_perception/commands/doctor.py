"""`mtl_perception doctor`: what on this machine makes perception fail or lose frames.

Each ``check_*`` is a function of what was found, so that tests can show it any machine; ``CHECKS``
do the finding.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .. import one_line
from ..share import ShareError, share
from .dds import PROFILE, PROFILE_VARIABLES, profile_variable

Level = Literal['ok', 'warn', 'fail']

# The largest message of a VGA camera is the image itself (640 x 480 x 3 bytes) or, on the output
# grid of 320 x 240, the cloud of 32-byte points. A segment must hold several of them at once.
LARGEST_MESSAGE = 320 * 240 * 32
SEGMENT_BYTES = 8 * LARGEST_MESSAGE
# Every process that takes part in DDS has a segment: node, camera driver, rviz, recorder.
SHM_BYTES = 256 * 1024**2
# Messages between machines come as UDP fragments that the kernel must hold until they are whole.
RMEM_BYTES = 8 * 1024**2
IPFRAG_HIGH_BYTES = 32 * 1024**2
IPFRAG_TIME_S = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(_options: argparse.Namespace) -> int:
    """Print the report; 1 where something fails."""
    findings = examine()
    print(report(findings))
    return int(any(finding.level == 'fail' for finding in findings))


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: Level
    subject: str
    detail: str
    remedy: str = ''


def check_ros(distro: str, rmw: str | None, error: str = '') -> Finding:
    """Judge the ROS environment.

    Args:
        distro: ``ROS_DISTRO``; empty when no setup.bash was sourced (wheels do not set it).
        rmw: name of the middleware that rclpy uses; None when rclpy cannot be imported.
        error: why it cannot.
    """
    if rmw is None:
        return Finding(
            'fail',
            'ROS 2',
            f'rclpy cannot be imported: {error}',
            'source /opt/ros/DISTRO/setup.bash, or run through ./run exec',
        )
    where = distro or 'from Python wheels'
    if 'fastrtps' in rmw:
        return Finding('ok', 'ROS 2', f'{where}, {rmw}')
    return Finding(
        'warn',
        'ROS 2',
        f'{where}, {rmw}: this package is tested with rmw_fastrtps_cpp only',
        'if frames are lost, try RMW_IMPLEMENTATION=rmw_fastrtps_cpp',
    )


def segment_sizes(profile: str) -> list[int]:
    """Shared-memory segment sizes in bytes of a Fast DDS profile.

    Raises:
        ValueError: The text is not XML, or a size is not a number.
    """
    try:
        root = ET.fromstring(profile)
    except ET.ParseError as error:
        raise ValueError(f'is not valid XML ({error})') from None
    return [int(e.text or '') for e in root.iter() if e.tag.rpartition('}')[2] == 'segment_size']


def check_profile(
    environment: Mapping[str, str], texts: Mapping[str, str | None], shipped: str
) -> Finding:
    """Judge the Fast DDS profile; its default segment of 512 KB is smaller than an image.

    Args:
        environment: as ``os.environ``.
        texts: content of each file that the environment names; None = it cannot be read.
        shipped: path of the profile that comes with the package.
    """
    use = f'export {profile_variable(environment.get("ROS_DISTRO", ""))}={shipped}'
    path = next((environment[name] for name in PROFILE_VARIABLES if environment.get(name)), None)
    if path is None:
        return Finding(
            'warn',
            'Fast DDS profile',
            'none is set, and the default shared-memory segment of 512 KB loses images; launch '
            'files and the demo set the shipped one for their own processes only',
            f'for cameras, rviz2 and recorders: {use}',
        )
    text = texts.get(path)
    if text is None:
        return Finding('fail', 'Fast DDS profile', f'{path} cannot be read', use)
    try:
        sizes = segment_sizes(text)
    except ValueError as error:
        return Finding('fail', 'Fast DDS profile', f'{path}: {error}', use)
    if not sizes or max(sizes) < SEGMENT_BYTES:
        found = f'is {_mb(max(sizes))}' if sizes else 'is not set, so 512 KB'
        return Finding(
            'warn',
            'Fast DDS profile',
            f'{path}: segment_size {found}, expected at least {_mb(SEGMENT_BYTES)}',
            use,
        )
    return Finding('ok', 'Fast DDS profile', f'{path}, segments of {_mb(max(sizes))}')


def check_shm(total: int | None, free: int | None) -> Finding:
    """Judge /dev/shm, where the segments lie; sizes in bytes, None = there is no /dev/shm."""
    if total is None or free is None:
        return Finding(
            'warn',
            '/dev/shm',
            'does not exist: DDS falls back to UDP for large messages',
            'mount a tmpfs there',
        )
    if total < SHM_BYTES:
        return Finding(
            'warn',
            '/dev/shm',
            f'is {_mb(total)}, expected at least {_mb(SHM_BYTES)}',
            'docker run --shm-size=1g (or --ipc=host), or mount -o remount,size=1g /dev/shm',
        )
    if free < SHM_BYTES // 2:
        return Finding(
            'warn',
            '/dev/shm',
            f'only {_mb(free)} of {_mb(total)} are free',
            'remove what ended programs left there: fastdds shm clean',
        )
    return Finding('ok', '/dev/shm', f'{_mb(free)} of {_mb(total)} free')


def check_kernel(settings: Mapping[str, int | None]) -> list[Finding]:
    """Judge kernel settings for large messages between machines (not needed on one machine).

    Args:
        settings: ``net.core.rmem_max``, ``net.ipv4.ipfrag_high_thresh`` (bytes) and
            ``net.ipv4.ipfrag_time`` (seconds); None = cannot be read, as in many containers.
    """
    wanted = (
        ('net.core.rmem_max', RMEM_BYTES, True),
        ('net.ipv4.ipfrag_high_thresh', IPFRAG_HIGH_BYTES, True),
        ('net.ipv4.ipfrag_time', IPFRAG_TIME_S, False),
    )
    findings = []
    for name, limit, at_least in wanted:
        value = settings.get(name)
        if value is None:
            findings.append(Finding('ok', name, 'cannot be read here'))
        elif (value >= limit) if at_least else (value <= limit):
            findings.append(Finding('ok', name, f'{value}'))
        else:
            findings.append(
                Finding(
                    'warn',
                    name,
                    f'is {value}, expected at {"least" if at_least else "most"} {limit}; matters '
                    f'only for images and clouds between machines',
                    f'sudo sysctl -w {name}={limit}',
                )
            )
    return findings


def check_package(
    name: str,
    version: str | None,
    *,
    remedy: str,
    level: Level = 'fail',
    why: str = '',
    error: str = '',
) -> Finding:
    """Judge a Python package.

    Args:
        version: None = missing, which is as bad as ``level``.
        error: why it cannot be imported although it is installed.
    """
    if error:
        if 'numpy' in error.lower():
            remedy = (
                "if it was compiled against NumPy 1, as those of apt are: pip install 'numpy<2'"
            )
        return Finding(level, name, f'cannot be imported: {error}', remedy)
    if version is None:
        reason = f'is not installed{": " + why if why else ""}'
        return Finding(level, name, reason, remedy if level != 'ok' else '')
    return Finding('ok', name, version)


def check_onnxruntime(version: str | None, providers: Sequence[str], error: str = '') -> Finding:
    """Judge ONNX Runtime: it is the engine that every machine has."""
    if version is None:
        problem = f'cannot be imported: {error}'
        return Finding('fail', 'onnxruntime', problem, 'pip install onnxruntime')
    if 'CPUExecutionProvider' not in providers:
        return Finding(
            'fail',
            'onnxruntime',
            f'{version} without CPUExecutionProvider ({", ".join(providers)})',
            'pip install --force-reinstall onnxruntime',
        )
    return Finding('ok', 'onnxruntime', f'{version}: {", ".join(providers)}')


def report(findings: Sequence[Finding]) -> str:
    """Lines for people, and a last one that counts."""
    width = max(len(finding.subject) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f'{finding.level:<4}  {finding.subject:<{width}}  {finding.detail}')
        if finding.remedy and finding.level != 'ok':
            lines.append(f'{"":<4}  {"":<{width}}  -> {finding.remedy}')
    counts = {level: sum(f.level == level for f in findings) for level in ('fail', 'warn', 'ok')}
    lines.append(', '.join(f'{count} {level}' for level, count in counts.items()))
    return '\n'.join(lines)


# --- finding ---------------------------------------------------------------------------------

# Packages that are looked for: how to get them, how bad it is when they are missing, and why.
PACKAGES: tuple[tuple[str, str, Level, str], ...] = (
    ('numpy', 'apt install python3-numpy, or pip install numpy', 'fail', ''),
    ('cv2', 'apt install python3-opencv, or pip install opencv-python-headless', 'fail', ''),
    ('yaml', 'apt install python3-yaml, or pip install pyyaml', 'fail', ''),
    ('rosbags', 'pip install rosbags', 'warn', 'the demo cannot read or write recordings'),
    ('vision_msgs', 'apt install ros-DISTRO-vision-msgs', 'fail', 'label_info needs it'),
    (
        'mtl_perception_msgs',
        'colcon build --base-paths src src/mtl_perception/mtl_perception_msgs, then source '
        'install/setup.bash',
        'fail',
        'the node needs it',
    ),
    ('tensorrt', '', 'ok', 'not needed'),
    ('openvino', '', 'ok', 'not needed'),
)
KERNEL_SETTINGS = ('net.core.rmem_max', 'net.ipv4.ipfrag_high_thresh', 'net.ipv4.ipfrag_time')


def examine() -> list[Finding]:
    """Check this machine with everything that this process sees."""
    return [finding for check in CHECKS for finding in check()]


def _python() -> list[Finding]:
    return [Finding('ok', 'Python', f'{platform.python_version()} ({sys.executable})')]


def _ros() -> list[Finding]:
    try:
        rclpy = importlib.import_module('rclpy')
        rmw = str(rclpy.get_rmw_implementation_identifier())
    except Exception as error:  # also a broken installation must end in a line of the report
        return [check_ros('', None, one_line(error))]
    return [check_ros(os.environ.get('ROS_DISTRO', ''), rmw)]


def _profile() -> list[Finding]:
    texts: dict[str, str | None] = {}
    for name in PROFILE_VARIABLES:
        path = os.environ.get(name)
        if path:
            try:
                texts[path] = Path(path).read_text(encoding='utf-8')
            except (OSError, UnicodeDecodeError):
                texts[path] = None
    try:
        shipped = share(PROFILE)
    except ShareError as error:
        return [Finding('fail', 'Fast DDS profile', str(error), 'install the package again')]
    return [check_profile(os.environ, texts, str(shipped))]


def _shm() -> list[Finding]:
    try:
        usage = shutil.disk_usage('/dev/shm')
    except OSError:
        return [check_shm(None, None)]
    return [check_shm(usage.total, usage.free)]


def _kernel() -> list[Finding]:
    return check_kernel({name: _sysctl(name) for name in KERNEL_SETTINGS})


def _sysctl(name: str) -> int | None:
    try:
        return int(Path('/proc/sys', *name.split('.')).read_text(encoding='ascii'))
    except (OSError, ValueError):
        return None


def _onnxruntime() -> list[Finding]:
    try:
        runtime = importlib.import_module('onnxruntime')
        return [check_onnxruntime(str(runtime.__version__), runtime.get_available_providers())]
    except Exception as error:  # a build for another CPU raises more than ImportError
        return [check_onnxruntime(None, (), one_line(error))]


def _packages() -> list[Finding]:
    findings = []
    for name, remedy, level, why in PACKAGES:
        version, error = _version(name)
        findings.append(
            check_package(name, version, remedy=remedy, level=level, why=why, error=error)
        )
    return findings


def _version(name: str) -> tuple[str | None, str]:
    """Version of a package, None when missing; and why it is broken, if importing it tells."""
    try:
        spec = importlib.util.find_spec(name)
        # Without an origin it is a folder that Python takes for a package, such as the sources of
        # the messages in a clone.
        if spec is None or spec.origin is None:
            return None, ''
        if name in ('numpy', 'cv2', 'yaml'):
            return str(importlib.import_module(name).__version__), ''
    except Exception as error:  # a module for another NumPy raises more than ImportError
        return None, one_line(error)
    try:
        return importlib.metadata.version(name), ''
    except importlib.metadata.PackageNotFoundError:
        return 'installed', ''


def _bundle() -> list[Finding]:
    try:
        from ..bundle import default_bundle, load_bundle
        from ..engines.opening import open_unchecked

        bundle = load_bundle(default_bundle())
        open_unchecked('onnxruntime', bundle).close()
    except Exception as error:  # whatever is wrong with it belongs in the report
        return [
            Finding(
                'fail',
                'default bundle',
                one_line(error),
                'install the package again, or name another bundle with the parameter bundle',
            )
        ]
    detail = f'{bundle.name} {bundle.version}, hash as described'
    return [Finding('ok', 'default bundle', detail)]


CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    _python,
    _ros,
    _profile,
    _shm,
    _kernel,
    _onnxruntime,
    _packages,
    _bundle,
)


def _mb(size: int) -> str:
    return f'{size / 1024**2:.0f} MB'
