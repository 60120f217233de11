"""A model bundle on disk: ONNX files and ``bundle.yaml``; find it, load it, check it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from . import PerceptionError
from .sections import Section, is_number, read_section
from .share import share

SCHEMA = 1
SHIPPED_BUNDLES = ('tif_lite0_indoor', 'tif_lite0_rooms')  # the first is the default
UNLABELLED = 255

# What each kind of task may put out: tensor name -> dtype; the first one is required.
KINDS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        'semantic': {'semantic': 'uint8', 'semantic_confidence': 'uint8'},
        'depth': {'depth': 'float32', 'depth_confidence': 'uint8'},
        'normals': {'normals': 'float32'},
        'edges': {'edges': 'uint8'},
        'saliency': {'saliency': 'uint8'},
        'human_parts': {'human_parts': 'uint8'},
    }
)
# The model may come in more than one number format, one ONNX file each. The first is ``model``
# itself; ``int8`` has symmetric int8 activations and weights (TensorRT), ``int8_u8s8`` uint8
# activations (CPUs).
VARIANTS = ('fp32', 'fp16', 'int8', 'int8_u8s8')
# The input is fixed by the design: every backend feeds the same tensor.
_INPUT = {'tensor': 'image', 'color': 'rgb', 'dtype': 'uint8'}

# How a protobuf says "the weights are in another file": StringStringEntryProto.key == 'location'.
_EXTERNAL_DATA = b'\x0a\x08location'


class BundleError(PerceptionError):
    """A bundle cannot be used; the message names the file, the key and the expected value."""


@dataclass(frozen=True)
class SemanticClass:
    """One class of a label image: id 0..254, name, and an RGB colour for people."""

    id: int
    name: str
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Task:
    """One task of a bundle.

    Attributes:
        name: the key in ``bundle.yaml``.
        kind: one of ``KINDS``.
        outputs: tensor name -> dtype.
        classes: of a label image; empty for the other kinds.
        range: nearest and farthest value in canonical units; None where the kind has none.
        unit: ``'m'`` for metric depth; None where the kind has none.
    """

    name: str
    kind: str
    outputs: Mapping[str, str]
    classes: tuple[SemanticClass, ...] = ()
    range: tuple[float, float] | None = None
    unit: str | None = None


@dataclass(frozen=True)
class DataFile:
    """A file of a bundle whose hash was checked: its path, links resolved, and its sha256."""

    path: Path
    sha256: str

    def read(self) -> bytes:
        """The content, checked once more: what was checked is what is used.

        Raises:
            BundleError: the file is gone, or not the one that was loaded.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise BundleError(f'{self.path}: cannot be read: {error.strerror}') from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise BundleError(f'{self.path}: changed since the bundle was loaded, load it again')
        return content


@dataclass(frozen=True)
class Bundle:
    """A checked bundle; see design 3.1 for the meaning of every field.

    Attributes:
        folder: the folder it was loaded from.
        height, width: of the network's input and of its outputs, pixels.
        canonical_focal: focal length in pixels at that size for which ``depth`` is in metres;
            None where depth is relative.
        tasks: task name -> task, in the order of the file.
        provenance: free-form: data, commit, measured accuracy.
        models: variant -> ONNX file; ``fp32`` is always there, see ``VARIANTS``.
        probes: images with the outputs that the model gave for them when it was exported, see
            ``engines.agreement``; None where the bundle has none.
    """

    folder: Path
    name: str
    version: str
    licence: str
    height: int
    width: int
    canonical_focal: float | None
    tasks: Mapping[str, Task]
    provenance: Mapping[str, Any]
    models: Mapping[str, DataFile] = field(repr=False)
    probes: DataFile | None = field(repr=False)

    @property
    def sha256(self) -> str:
        """Hash of ``model.onnx``, the file that gives the bundle its identity."""
        return self.models['fp32'].sha256

    @property
    def metric(self) -> bool:
        """Whether depth can be given in metres (for a calibrated camera)."""
        return self.canonical_focal is not None

    @property
    def outputs(self) -> dict[str, str]:
        """Tensor name -> dtype, over all tasks."""
        return {name: dtype for task in self.tasks.values() for name, dtype in task.outputs.items()}

    @property
    def classes(self) -> tuple[SemanticClass, ...]:
        """The classes of the semantic task; empty without one."""
        task = self.task_of('semantic')
        return task.classes if task else ()

    def task_of(self, kind: str) -> Task | None:
        """The task of a kind (a bundle has at most one of each), or None."""
        return next((task for task in self.tasks.values() if task.kind == kind), None)


def load_bundle(folder: str | Path) -> Bundle:
    """Load and check a bundle.

    Checks everything that needs no engine: the schema, every key, the hashes of all files and
    that the models' weights are inside. A backend checks the tensors of the ONNX file when it
    opens it.

    Args:
        folder: with ``bundle.yaml`` in it, or the name of a bundle that is shipped.

    Raises:
        BundleError: with one sentence that names the file, the key and the expected value.
    """
    folder = _shipped(Path(folder))
    path = folder / 'bundle.yaml'
    if not folder.is_dir():
        raise BundleError(
            f'{folder}: no such folder; a bundle holds bundle.yaml and model.onnx (shipped, and '
            f'known by name: {", ".join(SHIPPED_BUNDLES)})'
        )
    top = read_section(path, BundleError)

    schema = top.integer('schema', minimum=1)
    if schema > SCHEMA:
        raise BundleError(
            f'{path}: schema is {schema}, expected at most {SCHEMA}: '
            'the bundle is newer than this package, update mtl_perception'
        )
    name, version, licence = (top.text(key) for key in ('name', 'version', 'licence'))

    grid = top.section('input')
    for key, expected in _INPUT.items():
        if grid.text(key) != expected:
            raise grid.error(key, f'is {grid.text(key)!r}, expected {expected!r}')
    height, width = (_grid_size(grid, key) for key in ('height', 'width'))

    metric = top.get('metric')
    if not isinstance(metric, bool):
        raise top.error('metric', f'is {metric!r}, expected true or false')
    if not metric and 'canonical_focal' in top.values:
        raise top.error('canonical_focal', 'is given, expected none where metric is false')
    focal = top.number('canonical_focal') if metric else None
    if focal is not None and focal <= 0:
        raise top.error('canonical_focal', f'is {focal:g}, expected a positive number of pixels')

    provenance = top.section('provenance').values if 'provenance' in top.values else {}
    tasks = _read_tasks(top.section('tasks'), metric=metric)

    models = {'fp32': _model_file(folder, top.section('model'))}
    if 'variants' in top.values:
        variants = top.section('variants')
        for variant in variants.values:
            if variant not in VARIANTS[1:]:
                raise variants.error(variant, f'is unknown, expected {", ".join(VARIANTS[1:])}')
            models[variant] = _model_file(folder, variants.section(variant))
    probes = _data_file(folder, top.section('probes'))[0] if 'probes' in top.values else None
    return Bundle(
        folder=folder,
        name=name,
        version=version,
        licence=licence,
        height=height,
        width=width,
        canonical_focal=focal,
        tasks=MappingProxyType(tasks),
        provenance=MappingProxyType(dict(provenance)),
        models=MappingProxyType(models),
        probes=probes,
    )


def default_bundle() -> Path:
    """The folder of the bundle that is shipped with the package.

    Raises:
        share.ShareError: where it is not installed.
    """
    return share(f'bundles/{SHIPPED_BUNDLES[0]}/bundle.yaml').parent


def _shipped(folder: Path) -> Path:
    """The folder of a shipped bundle that is meant by its name; any other folder as it is."""
    if str(folder) in SHIPPED_BUNDLES and not folder.is_dir():
        return share(f'bundles/{folder}/bundle.yaml').parent
    return folder


def _grid_size(grid: Section, key: str) -> int:
    size = grid.integer(key, minimum=32)
    if size % 32:
        raise grid.error(key, f'is {size}, expected a multiple of 32')
    return size


def _read_tasks(section: Section, *, metric: bool) -> dict[str, Task]:
    if not section.values:
        raise BundleError(f'{section.path}: {section.name} is empty, expected at least one task')
    tasks: dict[str, Task] = {}
    owner: dict[str, str] = {}
    for name in section.values:
        task = _read_task(section.section(name), str(name), metric=metric)
        for tensor in task.outputs:
            if tensor in owner:
                raise section.error(name, f'puts out {tensor!r}, which {owner[tensor]!r} has too')
            owner[tensor] = task.name
        tasks[task.name] = task
    return tasks


def _read_task(section: Section, name: str, *, metric: bool) -> Task:
    kind = section.text('kind')
    if kind not in KINDS:
        raise section.error('kind', f'is {kind!r}, expected one of {", ".join(KINDS)}')
    outputs = section.section('outputs')
    allowed = KINDS[kind]
    for tensor, dtype in outputs.values.items():
        if tensor not in allowed:
            raise outputs.error(
                tensor, f'is not an output of {kind!r}, expected {", ".join(allowed)}'
            )
        if dtype != allowed[tensor]:
            raise outputs.error(tensor, f'is {dtype!r}, expected {allowed[tensor]!r}')
    if next(iter(allowed)) not in outputs.values:
        raise outputs.error(next(iter(allowed)), 'is missing')

    classes: tuple[SemanticClass, ...] = ()
    if kind == 'semantic' or (kind == 'human_parts' and 'classes' in section.values):
        classes = _read_classes(section)
    if kind == 'normals' and section.values.get('frame', 'optical') != 'optical':
        raise section.error('frame', f"is {section.values['frame']!r}, expected 'optical'")
    unit, value_range = _read_unit(section, metric=metric) if kind == 'depth' else (None, None)
    return Task(name, kind, MappingProxyType(dict(outputs.values)), classes, value_range, unit)


def _read_unit(section: Section, *, metric: bool) -> tuple[str, tuple[float, float]]:
    unit = section.text('unit')
    if metric and unit != 'm':
        raise section.error('unit', f"is {unit!r}, expected 'm' where metric is true")
    ends = section.get('range')
    if (
        not isinstance(ends, list)
        or len(ends) != 2
        or not all(is_number(end) for end in ends)
        or not 0 <= ends[0] < ends[1]
    ):
        raise section.error('range', f'is {ends!r}, expected [nearest, farthest], 0 <= nearest')
    return unit, (float(ends[0]), float(ends[1]))


def _read_classes(section: Section) -> tuple[SemanticClass, ...]:
    entries = section.get('classes')
    if not isinstance(entries, list) or not entries:
        raise section.error('classes', f'is {entries!r}, expected a list of {{id, name, color}}')
    classes: dict[int, SemanticClass] = {}
    for index, entry in enumerate(entries):
        where = f'classes[{index}]'
        if not isinstance(entry, dict):
            raise section.error(where, f'is {entry!r}, expected {{id, name, color}}')
        item = section.inner(where, entry)
        identity = item.integer('id', minimum=0)
        if identity >= UNLABELLED:
            raise item.error('id', f'is {identity}, expected 0 to 254 (255 means unlabelled)')
        if identity in classes:
            raise item.error('id', f'is {identity}, which {classes[identity].name!r} has already')
        color = item.get('color')
        if (
            not isinstance(color, list)
            or len(color) != 3
            or not all(type(value) is int and 0 <= value <= 255 for value in color)
        ):
            raise item.error('color', f'is {color!r}, expected [red, green, blue] of 0 to 255')
        classes[identity] = SemanticClass(identity, item.text('name'), tuple(color))
    return tuple(classes.values())


def _model_file(folder: Path, section: Section) -> DataFile:
    """Find and check an ONNX file, which must hold its weights itself."""
    file, content = _data_file(folder, section)
    if _EXTERNAL_DATA in content:
        raise BundleError(f'{file.path}: has weights in other files, expected all inside it')
    return file


def _data_file(folder: Path, section: Section) -> tuple[DataFile, bytes]:
    """Find and check a file that a section names by ``file`` and ``sha256``; its content too."""
    path = _inside(folder, section)
    expected = section.text('sha256')
    if not re.fullmatch('[0-9a-f]{64}', expected):
        raise section.error('sha256', f'is {expected!r}, expected 64 lower-case hexadecimal digits')
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BundleError(
            f'{path}: no such file, expected by {section.name}.file of {section.path}'
        ) from None
    except OSError as error:
        raise BundleError(f'{path}: cannot be read: {error.strerror}') from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise BundleError(
            f'{path}: sha256 is {hashlib.sha256(content).hexdigest()}, expected {expected} '
            f'({section.name}.sha256 of {section.path}): the file is damaged or not the one '
            'described'
        )
    return DataFile(path, expected), content


def _inside(folder: Path, section: Section) -> Path:
    """The path of a section's file, which must lie in the folder of the bundle."""
    name = section.text('file')
    # Where the files of the bundle are links (colcon build --symlink-install), its real folder is
    # the one that the description lies in.
    homes = {folder.resolve(), (folder / 'bundle.yaml').resolve().parent}
    path = (folder / name).resolve()
    outside = not any(home in path.parents for home in homes)
    if os.path.isabs(name) or '..' in Path(name).parts or outside:
        raise section.error('file', f'is {name!r}, expected a file inside the folder of the bundle')
    return path
