"""`mtl_perception inspect`: describe a bundle and the engine that runs it."""

from __future__ import annotations

import argparse
import collections
from collections.abc import Mapping

from ..bundle import Bundle, default_bundle, load_bundle
from ..engines.choice import open_engine
from ..engines.engine import EngineOptions
from .arguments import add_bundle
from .build import print_engine, progress_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_bundle(parser, option=False)
    parser.add_argument('--backend', default='auto', help='engine to open (default: auto)')
    parser.add_argument('--precision', default='fp32', help='fp32, fp16, bf16 or int8 (fp32)')
    parser.add_argument('--layers', action='store_true', help='list the operators of the model')


def run(options: argparse.Namespace) -> int:
    """Describe the bundle, then open its engine and describe that."""
    bundle = load_bundle(options.bundle or default_bundle())
    _print_bundle(bundle)
    if options.layers:
        _print_layers(bundle)
    chosen = open_engine(
        options.backend,
        bundle,
        EngineOptions(precision=options.precision),
        progress=progress_lines(),
    )
    chosen.engine.close()
    print_engine(chosen)
    return 0


def _print_bundle(bundle: Bundle) -> None:
    focal = bundle.canonical_focal
    print(f'{bundle.name} {bundle.version} ({bundle.licence})')
    print(f'folder:    {bundle.folder}')
    for variant, file in bundle.models.items():
        size = file.path.stat().st_size / 1e6
        print(f'model:     {variant} {file.path.name}, {size:.1f} MB, sha256 {file.sha256}')
    print(f'probes:    {"yes" if bundle.probes else "none, engines are not checked"}')
    print(f'input:     {bundle.width}x{bundle.height} RGB')
    print(
        f'depth:     metric at a focal length of {focal:g} px, scaled for other cameras'
        if focal is not None
        else 'depth:     not metric'
    )
    for task in bundle.tasks.values():
        tensors = ', '.join(f'{name} {kind}' for name, kind in task.outputs.items())
        limits = f', {task.range[0]:g} to {task.range[1]:g} {task.unit}' if task.range else ''
        print(f'task:      {task.name} ({tensors}{limits})')
        if task.classes:
            print('classes:   ' + ', '.join(f'{c.id} {c.name}' for c in task.classes))
    _print_nested('provenance', bundle.provenance)


def _print_nested(name: str, value: object, indent: int = 0) -> None:
    """Print nested mappings as indented lines."""
    if not isinstance(value, Mapping):
        print(f'{" " * indent}{name}: {value}')
        return
    print(f'{" " * indent}{name}:')
    for key, inner in value.items():
        _print_nested(str(key), inner, indent + 2)


def _print_layers(bundle: Bundle) -> None:
    """Print the operators of every model with their counts."""
    import onnx

    for variant, file in bundle.models.items():
        graph = onnx.load_from_string(file.read()).graph
        counts = collections.Counter(node.op_type for node in graph.node)
        listed = ', '.join(f'{count} {name}' for name, count in counts.most_common())
        print(f'layers:    {variant}: {len(graph.node)} ({listed})')
