"""What this machine is, as far as engines differ by it: its processor, its cores, its packages."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# Python distributions that a package may come from.
_DISTRIBUTIONS: Mapping[str, Sequence[str]] = {
    'openvino': ('openvino',),
    'onnxruntime': ('onnxruntime', 'onnxruntime-gpu', 'onnxruntime-openvino'),
}


def machine_name() -> str:
    """What decides how fast an engine is here: CPU model, cores that may be used, architecture."""
    return f'{cpu_name()}, {cores()} cores, {platform.machine()}'


def cores() -> int:
    """How many this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def cpu_name() -> str:
    """The processor's model name: /proc/cpuinfo on x86, the board's on ARM, else the platform's."""
    return _cpu_info('model name', 'Model') or platform.processor() or platform.machine()


def cpu_flags() -> str:
    """What the processor can do, as 16 hexadecimal digits.

    The model's name does not say: a virtual machine keeps its own wherever it runs.
    """
    return hashlib.sha256(_cpu_info('flags', 'Features').encode()).hexdigest()[:16]


def installed_version(package: str) -> str:
    """Distribution and version of an engine's package; empty where it is not installed.

    It is imported only if there is no other way to tell.
    """
    if package in sys.modules and sys.modules[package] is None:
        return ''
    if package not in sys.modules and importlib.util.find_spec(package) is None:
        return ''
    found = []
    for distribution in _DISTRIBUTIONS[package]:
        try:
            found.append(f'{distribution} {importlib.metadata.version(distribution)}')
        except importlib.metadata.PackageNotFoundError:
            continue
    if found:
        return ' '.join(found)
    try:  # built from source, or from a system package
        version = getattr(importlib.import_module(package), '__version__', 'unknown')
    except ImportError:
        return ''
    return f'{package} {version}'


def _cpu_info(*names: str) -> str:
    """The first entry of /proc/cpuinfo of one of these names; empty without one."""
    try:
        for line in Path('/proc/cpuinfo').read_text(errors='replace').splitlines():
            key, _, value = line.partition(':')
            if key.strip() in names and value.strip():
                return value.strip()
    except OSError:
        pass
    return ''
