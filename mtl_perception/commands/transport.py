"""What carries images between processes: the Fast DDS profile, /dev/shm, and the kernel.

Each ``check_*`` is a function of what was found, so that tests can show it any machine.
"""

from __future__ import annotations

import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from ..share import ShareError, share
from .dds import PROFILE, PROFILE_VARIABLES, profile_variable
from .findings import Finding

# The largest message of a VGA camera is the image itself (640 x 480 x 3 bytes) or, on the output
# grid of 320 x 240, the cloud of 32-byte points. A segment must hold several of them at once.
LARGEST_MESSAGE = 320 * 240 * 32
SEGMENT_BYTES = 8 * LARGEST_MESSAGE
SHIPPED_SEGMENT = 64 * 1024**2  # in config/fastdds.xml
# The queue of a receiver, in parts of messages, when a profile says nothing.
QUEUE, PART_BYTES = 512, 64 * 1024
# Every process that takes part in DDS has a segment: node, camera driver, rviz, recorder.
SHM_BYTES = 256 * 1024**2
# Messages between machines come as UDP fragments that the kernel must hold until they are whole.
RMEM_BYTES = 8 * 1024**2
IPFRAG_HIGH_BYTES = 32 * 1024**2
IPFRAG_TIME_S = 3


KERNEL_SETTINGS = ('net.core.rmem_max', 'net.ipv4.ipfrag_high_thresh', 'net.ipv4.ipfrag_time')


def numbers_of(profile: str, name: str) -> list[int]:
    """What a Fast DDS profile says for its transports, such as segment_size.

    Raises:
        ValueError: The text is not XML, or it says no number.
    """
    try:
        root = ET.fromstring(profile)
    except ET.ParseError as error:
        raise ValueError(f'is not valid XML ({error})') from None
    return [int(e.text or '') for e in root.iter() if e.tag.rpartition('}')[2] == name]


def check_profile(
    environment: Mapping[str, str],
    texts: Mapping[str, str | None],
    shipped: str,
    *,
    subject: str = 'Fast DDS profile',
    wanted: int = SEGMENT_BYTES,
) -> Finding:
    """Judge the Fast DDS profile; its default segment of 512 KB is smaller than an image.

    Args:
        environment: as ``os.environ``.
        texts: content of each file that the environment names; None = it cannot be read.
        shipped: path of the profile that comes with the package.
        subject: whose profile it is.
        wanted: bytes that a segment, and the queue of a receiver, must have room for.
    """
    use = f'export {profile_variable(environment.get("ROS_DISTRO", ""))}={shipped}'
    path = next((environment[name] for name in PROFILE_VARIABLES if environment.get(name)), None)
    if path is None:
        return Finding(
            'warn',
            subject,
            'none is set, and the default shared-memory segment of 512 KB loses images; launch '
            'files and the demo set the shipped one for their own processes only',
            f'for cameras, rviz2 and recorders: {use}',
        )
    text = texts.get(path)
    if text is None:
        return Finding('fail', subject, f'{path} cannot be read', use)
    try:
        sizes = numbers_of(text, 'segment_size')
        parts = max([QUEUE, *numbers_of(text, 'port_queue_capacity')])
    except ValueError as error:
        return Finding('fail', subject, f'{path}: {error}', use)
    if not sizes or max(sizes) < wanted:
        found = f'is {_mb(max(sizes))}' if sizes else 'is not set, so 512 KB'
        return Finding(
            'warn',
            subject,
            f'{path}: segment_size {found}, expected at least {_mb(wanted)}',
            use if wanted <= SHIPPED_SEGMENT else f'a copy of {shipped} with segment_size {wanted}',
        )
    if parts * PART_BYTES < wanted:
        return Finding(
            'warn',
            subject,
            f'{path}: port_queue_capacity {parts} has room for {_mb(parts * PART_BYTES)}, expected '
            f'{_mb(wanted)}: images are lost while a receiver is late',
            f'port_queue_capacity {ceil(wanted / PART_BYTES)} there, as in {shipped}',
        )
    return Finding('ok', subject, f'{path}, segments of {_mb(max(sizes))}')


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


# --- finding ---------------------------------------------------------------------------------


def examine_transport() -> list[Finding]:
    """Check what this process sees."""
    return [examine_profile(os.environ), _shm(), *_kernel()]


def examine_profile(
    environment: Mapping[str, str], folder: Path = Path(), **judged: Any
) -> Finding:
    """Read and judge the Fast DDS profile of an environment.

    Args:
        environment: of a process.
        folder: in which it was started.
        judged: see ``check_profile``.
    """
    texts: dict[str, str | None] = {}
    for name in PROFILE_VARIABLES:
        path = environment.get(name)
        if path:
            try:
                texts[path] = (folder / path).read_text(encoding='utf-8')
            except (OSError, UnicodeDecodeError):
                texts[path] = None
    try:
        shipped = share(PROFILE)
    except ShareError as error:
        return Finding('fail', 'Fast DDS profile', str(error), 'install the package again')
    return check_profile(environment, texts, str(shipped), **judged)


def _shm() -> Finding:
    try:
        usage = shutil.disk_usage('/dev/shm')
    except OSError:
        return check_shm(None, None)
    return check_shm(usage.total, usage.free)


def _kernel() -> list[Finding]:
    return check_kernel({name: _sysctl(name) for name in KERNEL_SETTINGS})


def _sysctl(name: str) -> int | None:
    try:
        return int(Path('/proc/sys', *name.split('.')).read_text(encoding='ascii'))
    except (OSError, ValueError):
        return None


def _mb(size: int) -> str:
    return f'{size / 1024**2:.0f} MB'
