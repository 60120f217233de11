"""What on this machine makes perception fail: ROS, packages, GPU, engines, the bundle.

Each ``check_*`` is a function of what was found, so that tests can show it any machine; ``CHECKS``
do the finding.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import PerceptionError, __version__, one_line
from ..engines import telemetry
from .findings import Finding, Level
from .transport import examine_transport


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


def check_gpu(lines: Sequence[str], engines: Sequence[str]) -> list[Finding]:
    """Judge the GPUs.

    Args:
        lines: one for each GPU: name, driver, memory.
        engines: what is installed that could use one, such as ``tensorrt``.
    """
    if not lines:
        return [Finding('ok', 'GPU', 'none is seen: the model runs on the CPU')]
    findings = [Finding('ok', 'GPU', line) for line in lines]
    if not engines:
        findings.append(
            Finding(
                'warn',
                'GPU',
                'no engine that is installed uses it',
                'pip install tensorrt cuda-bindings, or onnxruntime-gpu and provider: cuda '
                '(docs/deploy.md)',
            )
        )
    return findings


def check_cache(folder: str, count: int | None, error: str = '') -> Finding:
    """Judge the cache of built engines.

    Args:
        folder: where it is.
        count: of the engines in it; None = it cannot be written.
        error: why.
    """
    if count is None:
        return Finding(
            'warn',
            'engine cache',
            f'{folder} cannot be written ({error}): engines are built at every start',
            'export MTL_PERCEPTION_CACHE=FOLDER',
        )
    return Finding('ok', 'engine cache', f'{folder}, {count} in it')


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


def examine_machine() -> list[Finding]:
    """Check this machine with everything that this process sees."""
    telemetry.switch_off()
    return [finding for check in CHECKS for finding in check()]


def _python() -> list[Finding]:
    return [
        Finding('ok', 'mtl_perception', __version__),
        Finding('ok', 'Python', f'{platform.python_version()} ({sys.executable})'),
    ]


def _ros() -> list[Finding]:
    try:
        rclpy = importlib.import_module('rclpy')
        rmw = str(rclpy.get_rmw_implementation_identifier())
    except Exception as error:  # also a broken installation must end in a line of the report
        return [check_ros('', None, one_line(error))]
    return [check_ros(os.environ.get('ROS_DISTRO', ''), rmw)]


def _gpu() -> list[Finding]:
    engines = ['tensorrt'] if importlib.util.find_spec('tensorrt') else []
    with contextlib.suppress(Exception):  # a broken onnxruntime has a line of its own
        providers = importlib.import_module('onnxruntime').get_available_providers()
        engines += [name for name in providers if name.startswith(('CUDA', 'Tensorrt'))]
    return check_gpu(_gpus(), engines)


def _gpus() -> list[str]:
    """Name, driver and memory of every GPU that this process sees."""
    jetson = Path('/etc/nv_tegra_release')
    if jetson.is_file():
        return [jetson.read_text(encoding='utf-8', errors='replace').partition('\n')[0]]
    query = '--query-gpu=name,driver_version,memory.total,memory.used'
    try:
        command = ['nvidia-smi', query, '--format=csv,noheader']
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [
        '{}, driver {}, {}, {} used'.format(*(f'{line},,,'.split(',')[:4]))
        for line in done.stdout.splitlines()
    ]


def _cache() -> list[Finding]:
    from ..engines.cache import EngineCache

    cache = EngineCache()
    try:
        cache.folder.mkdir(parents=True, exist_ok=True)
        if not os.access(cache.folder, os.W_OK):
            raise PermissionError('Permission denied')
        return [check_cache(str(cache.folder), len(cache.entries()))]
    except (OSError, PerceptionError) as error:
        return [check_cache(str(cache.folder), None, one_line(error))]


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
        if spec is None:
            return None, ''
        if name in ('numpy', 'cv2', 'yaml'):
            return str(importlib.import_module(name).__version__), ''
    except Exception as error:  # a module for another NumPy raises more than ImportError
        return None, one_line(error)
    try:
        return importlib.metadata.version(name), ''
    except importlib.metadata.PackageNotFoundError:
        # Without an origin it may be a folder that Python takes for a package, such as the sources
        # of the messages in a clone.
        return ('installed' if spec.origin else None), ''


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
    examine_transport,
    _gpu,
    _onnxruntime,
    _packages,
    _cache,
    _bundle,
)
