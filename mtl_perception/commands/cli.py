"""The command line: ``mtl_perception demo | build | inspect | bench | engines | doctor | ...``.

Modules are imported when their command runs, so that ``doctor`` works where others cannot.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import PerceptionError, one_line
from ..ros.packages import missing

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..engines.choice import ChosenEngine
    from ..engines.engine import EngineOptions


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
        if not isinstance(error, (PerceptionError, OSError, ModuleNotFoundError)):
            raise
        print(f'mtl_perception: {_sentence(error)}', file=sys.stderr)
        return 1
    return status


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f'{error.filename}: {error.strerror}' if error.filename else error.strerror
    if isinstance(error, ModuleNotFoundError):
        return f'{missing(error)}; mtl_perception doctor tells more'
    return one_line(error)


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


def _add_bundle(parser: argparse.ArgumentParser) -> None:
    text = 'bundle folder (default: the shipped one)'
    parser.add_argument('bundle', type=Path, nargs='?', help=text)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    """Options of an engine, see ``engines.engine.EngineOptions``."""
    parser.add_argument('--batch', type=int, default=1, help='largest batch (default: 1)')
    parser.add_argument('--threads', type=int, default=0, help='CPU threads; 0: automatic')
    parser.add_argument('--device', type=int, default=0, help='number of the GPU (default: 0)')
    parser.add_argument('--provider', default='cpu', help='of onnxruntime: cpu, cuda or tensorrt')
    parser.add_argument('--dla-core', type=int, default=-1, help='of a Jetson (default: the GPU)')
    parser.add_argument('--workspace-mb', type=int, default=0, help='TensorRT, to build; 0: all')


def _engine_options(options: argparse.Namespace, precision: str) -> EngineOptions:
    from ..engines.engine import EngineOptions

    return EngineOptions(
        precision=precision,
        max_batch=options.batch,
        threads=options.threads,
        device=options.device,
        provider=options.provider,
        dla_core=options.dla_core,
        workspace_mb=options.workspace_mb,
    )


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

    build = commands.add_parser(
        'build', help='build the engine of a bundle ahead, check it, and keep it in the cache'
    )
    _add_bundle(build)
    _add_engine(build)
    build.add_argument('--backend', default='auto', help='(default: auto)')
    build.add_argument('--precision', default='fp32', help='fp32, fp16, bf16 or int8 (fp32)')
    build.set_defaults(command=_build)

    inspect = commands.add_parser('inspect', help='describe a bundle and the engine that runs it')
    _add_bundle(inspect)
    inspect.add_argument('--backend', default='auto', help='engine to open (default: auto)')
    inspect.add_argument('--precision', default='fp32', help='fp32, fp16, bf16 or int8 (fp32)')
    inspect.add_argument('--layers', action='store_true', help='list the operators of the model')
    inspect.set_defaults(command=_inspect)

    bench = commands.add_parser(
        'bench', help='measure what the node adds to the bare engine, or compare engines'
    )
    bench.add_argument('--bundle', type=Path, help='bundle folder (default: the shipped one)')
    bench.add_argument('--backend', default='auto', help='engine (default: auto)')
    bench.add_argument(
        '--size', type=_size, default=(640, 480), metavar='WxH', help='image (default: 640x480)'
    )
    bench.add_argument('--rate', type=_positive, default=30.0, help='images per second (30)')
    bench.add_argument(
        '--seconds', type=_positive, default=15.0, help='how long to measure, each engine (15)'
    )
    bench.add_argument(
        '--engines',
        nargs='*',
        metavar='BACKEND:PRECISION',
        help='compare engines side by side instead, such as onnxruntime:int8; without names all '
        'that this machine has',
    )
    _add_engine(bench)
    bench.set_defaults(command=_bench)

    engines = commands.add_parser('engines', help='list the engines in the cache, or remove them')
    engines.add_argument(
        '--prune', action='store_true', help='remove what is damaged, and what --days says'
    )
    engines.add_argument('--days', type=_positive, help='with --prune: older than so many days')
    engines.add_argument('--all', action='store_true', help='with --prune: all of them')
    engines.set_defaults(command=_engines)

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


def _build(options: argparse.Namespace) -> int:
    from ..bundle import default_bundle, load_bundle
    from ..engines.choice import open_engine

    bundle = load_bundle(options.bundle or default_bundle())
    engine_options = _engine_options(options, options.precision)
    chosen = open_engine(options.backend, bundle, engine_options, progress=_teller())
    chosen.engine.close()
    _print_engine(chosen)
    return 0


def _teller() -> Callable[[str, float], None]:
    """Progress of a build on stderr, one line for each activity."""
    told: set[str] = set()

    def tell(activity: str, share: float) -> None:
        if activity not in told:
            told.add(activity)
            print(f'mtl_perception: {activity} ...', file=sys.stderr, flush=True)

    return tell


def _inspect(options: argparse.Namespace) -> int:
    from ..bundle import default_bundle, load_bundle
    from ..engines.choice import open_engine
    from ..engines.engine import EngineOptions

    bundle = load_bundle(options.bundle or default_bundle())
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
    _print_mapping(bundle.provenance, 'provenance')
    if options.layers:
        _print_layers(bundle)
    chosen = open_engine(
        options.backend, bundle, EngineOptions(precision=options.precision), progress=_teller()
    )
    chosen.engine.close()
    _print_engine(chosen)
    return 0


def _print_layers(bundle: Bundle) -> None:
    """Operators of every model of a bundle with their counts."""
    import collections

    import onnx

    for variant, file in bundle.models.items():
        graph = onnx.load_from_string(file.read()).graph
        counts = collections.Counter(node.op_type for node in graph.node)
        listed = ', '.join(f'{count} {name}' for name, count in counts.most_common())
        print(f'layers:    {variant}: {len(graph.node)} ({listed})')


def _print_engine(chosen: ChosenEngine) -> None:
    print('engine:    ' + ', '.join(f'{k} {v}' for k, v in chosen.engine.identity.items()))
    print(f'chosen:    {chosen.reason}')
    for reason in chosen.skipped:
        print(f'skipped:   {reason}')
    for reason in chosen.refused:
        print(f'refused:   {reason}')
    checks = ', '.join(str(a) for a in chosen.agreements) or 'not checked: the bundle has no probes'
    print(f'agreement: {checks}')


def _print_mapping(values: object, name: str, indent: int = 0) -> None:
    """Print nested mappings as indented lines."""
    if not isinstance(values, dict) and not hasattr(values, 'items'):
        print(f'{" " * indent}{name}: {values}')
        return
    print(f'{" " * indent}{name}:')
    for key, value in values.items():
        _print_mapping(value, str(key), indent + 2)


def _bench(options: argparse.Namespace) -> int:
    if options.engines is not None:
        return _bench_engines(options)
    from .bench import run_bench

    run_bench(
        bundle=options.bundle,
        backend=options.backend,
        size=options.size,
        rate=options.rate,
        seconds=options.seconds,
    )
    return 0


def _bench_engines(options: argparse.Namespace) -> int:
    from ..bundle import default_bundle, load_bundle
    from ..engines.engine import EngineError
    from .bench_engines import CANDIDATES, run_compare

    named = [tuple(name.split(':')) for name in options.engines] or CANDIDATES
    if any(len(name) != 2 for name in named):
        raise EngineError(
            f'--engines is {" ".join(options.engines)}, expected BACKEND:PRECISION such as '
            'onnxruntime:fp32'
        )
    run_compare(
        load_bundle(options.bundle or default_bundle()),
        [(name[0], name[1]) for name in named],
        _engine_options(options, 'fp32'),
        seconds=options.seconds,
    )
    return 0


def _engines(options: argparse.Namespace) -> int:
    from ..engines.cache import EngineCache

    cache = EngineCache()
    if options.prune:
        entries = cache.prune(older_than_days=options.days, everything=options.all)
        print(f'removed {len(entries)} from {cache.folder}')
    else:
        entries = cache.entries()
        print(f'{len(entries)} in {cache.folder}')
    for entry in entries:
        what = ' '.join(str(entry.key.get(k, '')) for k in ('backend', 'version', 'precision'))
        model = str(entry.key.get('model_sha256', ''))[:12]
        state = f'damaged: {entry.damaged}' if entry.damaged else f'{entry.size / 1e6:.1f} MB'
        print(f'{entry.created}  {entry.key.get("kind", "?"):<6}  {what}, model {model}  {state}')
    return 0


def _doctor(_options: argparse.Namespace) -> int:
    from .doctor import examine, report

    findings = examine()
    print(report(findings))
    return int(any(finding.level == 'fail' for finding in findings))


def _parameters(options: argparse.Namespace) -> int:
    from ..ros.parameters import PARAMETERS, parameters_markdown

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
