"""A furniture library made here: cubes for everything."""

from __future__ import annotations

from pathlib import Path

import pytest
from mtl_training.rooms.catalogue import Library, build_catalogue

CUBE = """mtllib cube.mtl
v 0 0 0
v 2 0 0
v 2 2 0
v 0 2 0
v 0 0 2
v 2 0 2
v 2 2 2
v 0 2 2
usemtl red
f 1 2 3 4
f 5 6 7 8
f 1 5 8 4
usemtl glass
f 2 6 7 3
f 1 2 6 5
f 4 3 7 8
"""
MTL = 'newmtl red\nKd 1 0 0\nnewmtl glass\nKd 0.5 0.5 0.5\nd 0.4\n'
KINDS = (
    ('Bed 90x190', 'Bedroom', 90, 190, 60), ('Chair', 'Living room', 50, 50, 90),
    ('Table', 'Living room', 120, 80, 75), ('Sofa', 'Living room', 180, 80, 80),
    ('Male', 'Characters', 50, 40, 180), ('Cupboard', 'Kitchen', 80, 50, 160),
    ('Door', 'Doors and windows', 90, 10, 205), ('Window', 'Doors and windows', 100, 12, 120),
    ('Vase', 'Miscellaneous', 20, 20, 30),
)  # fmt: skip


@pytest.fixture(scope='module')
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An assets folder as `mtl_training rooms assets` leaves it, with cubes for furniture."""
    folder = tmp_path_factory.mktemp('assets')
    for library in ('Scopia', 'KatorLegaz', 'Reallusion', 'BlendSwap-CC-BY', 'BlendSwap-CC-0'):
        root = folder / 'sh3d' / library
        root.mkdir(parents=True)
        (root / 'PluginFurnitureCatalog.properties').write_text('id=empty\n')
    core = folder / 'sh3d' / 'core'
    properties = core / 'com/eteks/sweethome3d/io/DefaultFurnitureCatalog.properties'
    properties.parent.mkdir(parents=True)
    (core / 'cube.obj').write_text(CUBE)
    (core / 'cube.mtl').write_text(MTL)
    lines = []
    for number, (name, category, width, depth, height) in enumerate(KINDS * 4, start=1):
        lines += [
            f'name#{number}={name}', f'category#{number}={category}', f'model#{number}=/cube.obj',
            f'width#{number}={width}', f'depth#{number}={depth}', f'height#{number}={height}',
            f'creator#{number}=A. Sculptor',
        ]  # fmt: skip
    properties.write_text('\n'.join(lines))
    build_catalogue(folder)
    return folder


@pytest.fixture(scope='module')
def library(assets: Path) -> Library:
    """The pieces of the train split."""
    return Library.of_split(assets, 'train')
