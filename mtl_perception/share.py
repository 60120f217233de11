"""Where the package's own files are: bundles, the sample recording, configuration, launch files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from . import PerceptionError

# Folders that a checkout keeps below resource/; setup.py installs them beside the others.
_RESOURCES = ('bundles', 'report', 'sample')


class ShareError(PerceptionError):
    """A file that comes with the package is not there; the message says where it was looked for."""


def share(name: str) -> Path:
    """The path of a file or folder that comes with the package.

    In a checkout that is the file itself. Where the package is installed, by colcon, by pip, for
    the user or into a folder of its own, it is in the nearest ``share/mtl_perception`` above the
    modules.

    Args:
        name: as below ``share/mtl_perception``, such as ``config/fastdds.xml``.

    Raises:
        ShareError: there is no such file, naming the places that were searched.
    """
    places = [place / name for place in _places(name)]
    for path in places:
        if path.exists():
            return path
    raise ShareError(
        f'{name} of mtl_perception is missing, expected it at one of '
        + ', '.join(str(path) for path in places)
        + '; install the package again'
    )


def message_definition(kind: str) -> Path | None:
    """The .msg file of an interface: of the sourced ROS prefixes, else of this package.

    Args:
        kind: such as ``vision_msgs/msg/LabelInfo``.

    Returns:
        None where it is not installed.
    """
    package, _, name = kind.split('/')
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        path = Path(prefix, 'share', package, 'msg', f'{name}.msg')
        if prefix and path.is_file():
            return path
    try:
        return share(f'{package}/msg/{name}.msg')
    except ShareError:
        return None


def _places(name: str) -> Iterator[Path]:
    modules = Path(__file__).resolve().parents[1]
    yield modules / 'resource' if Path(name).parts[0] in _RESOURCES else modules
    for folder in (modules, *modules.parents):
        yield folder / 'share' / 'mtl_perception'
