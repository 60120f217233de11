"""Fetch furniture and textures from Debian's and Python's package archives; commit nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from mtl_training.rooms.catalogue import CatalogueError, build_catalogue, credits

PACKAGES = ('sweethome3d', 'sweethome3d-furniture')
TEXTURES = 'robosuite==1.5.2'  # MIT; only its texture images are used


def fetch(assets: Path) -> None:
    """Download, unpack and index everything below ``assets``; finished steps are not repeated.

    Needs apt-get and dpkg-deb (Debian or Ubuntu), no root.

    Raises:
        CatalogueError: a tool is missing or a download failed.
    """
    downloads = assets / 'deb'
    downloads.mkdir(parents=True, exist_ok=True)
    for tool in ('apt-get', 'dpkg-deb'):
        if shutil.which(tool) is None:
            raise CatalogueError(f'{tool} is needed to fetch the furniture (Debian or Ubuntu)')
    if not (assets / 'sh3d' / 'core').exists():
        if not list(downloads.glob('sweethome3d_*.deb')):
            _run(['apt-get', 'download', *PACKAGES], downloads, 'run `apt-get update` first')
        unpacked = downloads / 'unpacked'
        for package in sorted(downloads.glob('*.deb')):
            _run(['dpkg-deb', '-x', str(package.resolve()), str(unpacked.resolve())], downloads, '')
        share = unpacked / 'usr/share/sweethome3d'
        for library in sorted((share / 'furniture').glob('*.sh3f')):
            _unzip(library, assets / 'sh3d' / library.stem)
        _unzip(share / 'sweethome3d.jar', assets / 'sh3d' / 'core')
        shutil.rmtree(unpacked)
    if not (assets / 'tex').exists():
        command = [sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', '-d', '.', TEXTURES]
        _run(command, downloads, 'is the package index reachable?')
        partial = assets / 'tex.partial'
        partial.mkdir(exist_ok=True)
        with zipfile.ZipFile(next(downloads.glob('robosuite-*.whl'))) as wheel:
            for name in wheel.namelist():
                if name.startswith('robosuite/models/assets/textures/') and not name.endswith('/'):
                    (partial / Path(name).name).write_bytes(wheel.read(name))
        partial.rename(assets / 'tex')
    pieces = build_catalogue(assets)
    (assets / 'CREDITS.md').write_text(credits(pieces), encoding='utf-8')
    print(f'{len(pieces)} pieces of furniture in {assets}; credits in {assets / "CREDITS.md"}')


def _unzip(archive: Path, target: Path) -> None:
    """Unpack beside the target, then rename."""
    partial = target.with_name(target.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    with zipfile.ZipFile(archive) as source:
        source.extractall(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def _run(command: list[str], folder: Path, advice: str) -> None:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ['no message'])[-1]
        raise CatalogueError(
            f'{" ".join(command[:2])} failed: {reason}. {advice}'.rstrip('. ') + '.'
        )
