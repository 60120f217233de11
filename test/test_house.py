"""Rooms stand on each other, none in a circle, as CONTRIBUTING.md says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    'mtl_perception': ROOT / 'mtl_perception',
    'mtl_training': ROOT / 'training' / 'mtl_training',
}


def imports(path: Path) -> Iterator[tuple[str, ...]]:
    """The names that a Python file imports, split at their dots, wherever in it."""
    top = next(top for top in PACKAGES.values() if path.is_relative_to(top))
    inside = path.relative_to(top.parent).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split('.')) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            folder = inside[: len(inside) + 1 - node.level] if node.level else ()
            module = node.module.split('.') if node.module else []
            yield from ((*folder, *module, alias.name) for alias in node.names)


def files(package: str) -> Iterator[tuple[str, Path]]:
    """The files of a package, each with its room: a folder, or a file of the ground floor."""
    for path in PACKAGES[package].rglob('*.py'):
        first = path.relative_to(PACKAGES[package]).parts[0]
        yield first.removesuffix('.py'), path


@pytest.mark.parametrize('package', PACKAGES)
def test_no_room_stands_on_one_that_stands_on_it(package: str) -> None:
    rooms = {room for room, _ in files(package)}
    below: dict[str, set[str]] = {room: set() for room in rooms}
    for room, path in files(package):
        names = {name[1] for name in imports(path) if name[0] == package and len(name) > 1}
        below[room] |= (names & rooms) - {room}
    assert sum(map(len, below.values())) > len(rooms)
    try:
        TopologicalSorter(below).prepare()
    except CycleError as error:
        pytest.fail(f'rooms that import each other: {" -> ".join(reversed(error.args[1]))}')


def test_the_runtime_knows_no_torch_and_the_training_no_rclpy() -> None:
    for path in PACKAGES['mtl_perception'].rglob('*.py'):
        assert not {'torch', 'mtl_training'} & {name[0] for name in imports(path)}, path
    for path in PACKAGES['mtl_training'].rglob('*.py'):
        assert 'rclpy' not in {name[0] for name in imports(path)}, path


def test_only_what_talks_to_a_graph_imports_rclpy() -> None:
    runtime = files('mtl_perception')
    rooms = {room for room, path in runtime if 'rclpy' in {name[0] for name in imports(path)}}
    assert rooms == {'ros', 'commands'}
