"""Where the package's own files are: bundles, the sample recording, configuration, launch files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from . import PerceptionError

# Folders that a checkout keeps below resource/; setup.py installs them beside the others.
_RESOURCES = ('bundles', 'sample')


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


def interface_definitions(package: str) -> Path:
    """The folder of a message package that stands in the same checkout as this one."""
    return Path(__file__).resolve().parents[1] / package / 'msg'


def _places(name: str) -> Iterator[Path]:
    modules = Path(__file__).resolve().parents[1]
    yield modules / 'resource' if Path(name).parts[0] in _RESOURCES else modules
    for folder in (modules, *modules.parents):
        yield folder / 'share' / 'mtl_perception'
