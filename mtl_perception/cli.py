"""The command line: ``mtl_perception demo | inspect | bench | doctor | parameters``.

Modules are imported when their command runs, so that ``doctor`` works where others cannot.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

# What the rooms raise on purpose, with a message made for the user.
_ERRORS = (
    ('bundle', 'BundleError'),
    ('backends', 'BackendError'),
    ('camera', 'CameraError'),
    ('images', 'ImageError'),
    ('recording', 'RecordingError'),
    ('demo', 'DemoError'),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; None = ``sys.argv``.

    Returns:
        Exit status: 0, 1 after an error that was said in one line on stderr, 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    try:
        status: int = options.command(options)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if not _expected(error):
            raise
        print(f'mtl_perception: {_sentence(error)}', file=sys.stderr)
        return 1
    return status


def _expected(error: Exception) -> bool:
    if isinstance(error, (OSError, ModuleNotFoundError)):
        return True
    for module, name in _ERRORS:
        loaded = sys.modules.get(f'mtl_perception.{module}')
        if loaded is not None and isinstance(error, getattr(loaded, name)):
            return True
    return False


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f'{error.filename}: {error.strerror}' if error.filename else error.strerror
    if isinstance(error, ModuleNotFoundError):
        return f'the Python package {error.name} is missing; mtl_perception doctor tells more'
    return ' '.join(str(error).split())


def _size(text: str) -> tuple[int, int]:
    """Parse ``640x480`` to (width, height)."""
    parts = text.lower().split('x')
    if len(parts) != 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise argparse.ArgumentTypeError(f'expected WIDTHxHEIGHT such as 640x480, not {text!r}')
    return int(parts[0]), int(parts[1])


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'expected a number above 0, not {text!r}')
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='mtl_perception', description='Multi-task perception for ROS 2.'
    )
    commands = parser.add_subparsers(required=True, metavar='COMMAND')

    demo = commands.add_parser('demo', help='play a recording through the node and judge it')
    demo.add_argument(
        '--output',
        type=Path,
        default=Path('demo_output'),
        help='folder for the bag of outputs, montage.png and node.log (default: %(default)s)',
    )
    demo.add_argument('--bundle', type=Path, help='bundle folder (default: the shipped one)')
    demo.add_argument('--recording', type=Path, help='rosbag2 folder (default: the shipped one)')
    demo.add_argument(
        '--rate', type=_positive, default=1.0, help='2 plays twice as fast (default: 1)'
    )
    demo.set_defaults(command=_demo)

    inspect = commands.add_parser('inspect', help='describe a bundle and the engine that runs it')
    inspect.add_argument(
        'bundle', type=Path, nargs='?', help='bundle folder (default: the shipped one)'
    )
    inspect.add_argument('--backend', default='auto', help='engine to open (default: auto)')
    inspect.set_defaults(command=_inspect)

    bench = commands.add_parser('bench', help='measure what the node adds to the bare engine')
    bench.add_argument('--bundle', type=Path, help='bundle folder (default: the shipped one)')
    bench.add_argument('--backend', default='auto', help='engine (default: auto)')
    bench.add_argument(
        '--size', type=_size, default=(640, 480), metavar='WxH', help='image (default: 640x480)'
    )
    bench.add_argument('--rate', type=_positive, default=30.0, help='images per second (30)')
    bench.add_argument('--seconds', type=_positive, default=15.0, help='how long to measure (15)')
    bench.set_defaults(command=_bench)

    doctor = commands.add_parser('doctor', help='check this machine and say what to do')
    doctor.set_defaults(command=_doctor)

    parameters = commands.add_parser('parameters', help="list the node's parameters")
    parameters.add_argument('--markdown', action='store_true', help='as the table of the docs')
    parameters.set_defaults(command=_parameters)
    return parser


def _demo(options: argparse.Namespace) -> int:
    from .demo import run_demo

    run_demo(options.output, bundle=options.bundle, recording=options.recording, rate=options.rate)
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from .backends import open_backend
    from .bundle import default_bundle, load_bundle

    bundle = load_bundle(options.bundle or default_bundle())
    focal = bundle.canonical_focal
    print(f'{bundle.name} {bundle.version} ({bundle.licence})')
    print(f'folder:    {bundle.folder}')
    print(f'sha256:    {bundle.sha256}')
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
    _print_mapping(bundle.provenance, 'provenance')
    backend = open_backend(options.backend, bundle)
    try:
        print('engine:    ' + ', '.join(f'{k} {v}' for k, v in backend.identity.items()))
    finally:
        backend.close()
    return 0


def _print_mapping(values: object, name: str, indent: int = 0) -> None:
    """Print nested mappings as indented lines."""
    if not isinstance(values, dict) and not hasattr(values, 'items'):
        print(f'{" " * indent}{name}: {values}')
        return
    print(f'{" " * indent}{name}:')
    for key, value in values.items():
        _print_mapping(value, str(key), indent + 2)


def _bench(options: argparse.Namespace) -> int:
    from .bench import run_bench

    run_bench(
        bundle=options.bundle,
        backend=options.backend,
        size=options.size,
        rate=options.rate,
        seconds=options.seconds,
    )
    return 0


def _doctor(_options: argparse.Namespace) -> int:
    from .doctor import examine, report

    findings = examine()
    print(report(findings))
    return int(any(finding.level == 'fail' for finding in findings))


def _parameters(options: argparse.Namespace) -> int:
    from .parameters import PARAMETERS, parameters_markdown

    if options.markdown:
        print(parameters_markdown(), end='')
        return 0
    for parameter in PARAMETERS:
        limits = f' ({parameter.allowed})' if parameter.allowed else ''
        print(f'{parameter.name}: {parameter.type}{limits}, default {parameter.default!r}')
        print(textwrap.indent(textwrap.fill(parameter.description, 96), '    '))
    return 0


if __name__ == '__main__':
    sys.exit(main())
