"""`mtl_perception replay`: every frame of recordings through a bundle, outputs into new bags."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from ..bundle import Bundle, BundleError, default_bundle, load_bundle
from ..engines.choice import ChosenEngine, open_engine
from ..offline.bag_replay import write_bag
from ..offline.cdr import RecordingError
from ..offline.inputs import Input, open_input
from ..offline.judging import Judge
from ..offline.layout import Layout
from ..offline.page import check_page
from ..offline.replay import Job, Result, replay
from ..offline.sources import Selection
from ..offline.writing import Tally
from ..outputs import Output, outputs_of
from ..pipeline import Options
from .arguments import add_bundle, add_engine_options, engine_options, positive, whole
from .judging import add_report, tell
from .progress import ProgressBar
from .reading import add_reading, reading

# Finished, but not everything of the recording could be used.
INCOMPLETE = 3
# What can be computed of other outputs, and large, is stored only where it is asked for.
_DERIVED = ('points', 'image', 'semantic_color', 'depth_color', 'normals_color')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.usage = '%(prog)s [options] IN [IN ...] [OUT]'
    parser.add_argument(
        'paths',
        type=Path,
        nargs='+',
        metavar='IN, OUT',
        help='bags, folders of pictures, or videos; then the new bag, or the folder for the new '
        'bags of several (default, of one: its name and _outputs, here)',
    )
    parser.add_argument(
        '--camera',
        action='append',
        default=[],
        metavar='IMAGE[:INFO]',
        help='topics of a camera; repeatable (default: the best one)',
    )
    add_reading(parser)
    add_bundle(parser, option=True)
    parser.add_argument('--backend', default='auto', help='(default: auto)')
    parser.add_argument('--precision', default='fp32', help='fp32, fp16, bf16 or int8 (fp32)')
    add_engine_options(parser)
    parser.add_argument(
        '--tasks',
        type=lambda text: text.split(','),
        default=[],
        help="comma-separated, of the bundle's (default: all)",
    )
    parser.add_argument(
        '--outputs',
        type=lambda text: text.split(','),
        help='comma-separated, or all but compressed ones (default: those but points and pictures)',
    )
    parser.add_argument('--start', type=float, default=0.0, help='seconds to leave out')
    parser.add_argument('--duration', type=positive, help='seconds to replay')
    parser.add_argument('--every', type=whole, default=1, help='each Nth image only')
    parser.add_argument(
        '--keep',
        action='append',
        default=[],
        metavar='TOPIC',
        help='a topic of the recording that the new bag has, too; repeatable',
    )
    parser.add_argument(
        '--allow-uncalibrated',
        action='store_true',
        help='images without a good CameraInfo give all but depth in metres and points',
    )
    parser.add_argument(
        '--evaluate', action='store_true', help='print figures against the ground truth of the bag'
    )
    add_report(parser)
    parser.add_argument(
        '--resume', action='store_true', help='go on where the same command was interrupted'
    )


def run(options: argparse.Namespace) -> int:
    """Replay.

    Raises:
        PerceptionError: it cannot be read or written, or the engine failed.
    """
    places = output_paths(options.paths)
    if options.report:
        check_page(options.report)
    bundle = load_bundle(options.bundle or default_bundle())
    pipeline = Options(tasks=options.tasks, allow_uncalibrated=options.allow_uncalibrated)
    pipeline.check(bundle)
    outputs = chosen_outputs(bundle, options.outputs, options.tasks)
    judged = options.evaluate or options.report is not None
    failed, incomplete = False, False
    with ExitStack() as stack:

        @cache
        def engine() -> ChosenEngine:
            wanted = engine_options(options, options.precision)
            chosen = open_engine(options.backend, bundle, wanted)
            stack.callback(chosen.engine.close)
            return chosen

        for path, output in places:
            try:
                with open_input(path, reading(options, options.camera, options.keep)) as opened:
                    print('\n'.join(opened.taken))
                    judge = Judge(opened.source, bundle) if judged else None
                    tally = _replay(opened, path, output, bundle, engine, outputs, options, judge)
                    losses = opened.losses()
                    _say(tally, output, losses)
                    if judge:
                        if options.resume:  # what was done before the interruption, too
                            judge.read(output)
                        name = output.stem if len(places) > 1 else ''
                        tell(judge, options.report, path, engine().engine.identity, name)
                    incomplete |= bool(tally.bad or losses)
            except RecordingError as error:
                if len(places) == 1:
                    raise
                failed = True
                print(f'mtl_perception: {error}', file=sys.stderr)
    return 1 if failed else INCOMPLETE if incomplete else 0


def output_paths(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Where the outputs of each input go: of one to the last path, of several into that folder.

    Raises:
        RecordingError: two outputs would be one, or an output its input.
    """
    *inputs, last = paths
    if len(paths) == 1:
        inputs, last = [last], Path(f'{paths[0].resolve().stem}_outputs')
    if len(inputs) == 1:
        places = [(inputs[0], last)]
    else:
        if last.suffix == '.mcap' or last.is_file() or (last / 'metadata.yaml').exists():
            raise RecordingError(f'{last} is not a folder for the outputs of {len(inputs)} inputs')
        names = [path.resolve().stem for path in inputs]
        count = Counter(names)
        named = [
            f'{path.resolve().parent.name}_{name}' if count[name] > 1 else name
            for path, name in zip(inputs, names, strict=True)
        ]
        twice = next((name for name, times in Counter(named).items() if times > 1), None)
        if twice:
            raise RecordingError(f'two inputs would have one output, {last / twice}; rename one')
        places = [(path, last / name) for path, name in zip(inputs, named, strict=True)]
    for path, output in places:
        if output.resolve() == path.resolve():
            raise RecordingError(f'{path} is the input and the output; not overwriting it')
    return places


def _replay(
    opened: Input,
    path: Path,
    output: Path,
    bundle: Bundle,
    open_chosen: Callable[[], ChosenEngine],
    outputs: list[Output],
    options: argparse.Namespace,
    judge: Judge | None,
) -> Tally:
    source = opened.source
    layout = Layout(bundle, outputs, [camera.name for camera in source.cameras], opened.kept)
    chosen = open_chosen()
    # On a CPU a batch is no faster than one image after the other, and engines take one.
    batch = min(options.batch, chosen.max_batch)
    start_ns = source.start_ns + round(options.start * 1e9)
    stop_ns = start_ns + round(options.duration * 1e9) if options.duration else None
    truth = judge.topics if judge else ()
    selection = Selection(start_ns, stop_ns, options.every, tuple(options.keep), truth)
    job = Job(
        selection,
        frozenset(name for output in outputs for name in output.tensors(bundle)),
        Options(tasks=options.tasks, allow_uncalibrated=options.allow_uncalibrated),
        batch=batch,
    )
    engine = chosen.engine
    identity = {key: engine.identity[key] for key in ('engine', 'version', 'provider', 'precision')}
    provenance = {
        'bundle': f'{bundle.name} {bundle.version}',
        'model_sha256': bundle.sha256,
        **identity,
    }
    wish = {
        'input': str(path.absolute()),
        'cameras': [f'{camera.image}:{camera.info or ""}' for camera in source.cameras],
        'outputs': [output.name for output in outputs],
        **{
            name: getattr(options, name)
            for name in (
                *('start', 'duration', 'every', 'keep', 'tasks', 'allow_uncalibrated'),
                *('focal', 'fov', 'rate'),
            )
        },
        'batch': batch,
    }
    images = source.count(selection)
    if judge:
        judge.expect(images)
    bar = ProgressBar(images, 'images')

    def watch(result: Result) -> None:
        bar.update(result.step.index + 1)
        if judge and not options.resume:
            judge(result)

    tally = write_bag(
        output,
        layout,
        lambda skip: replay(source, job, bundle, [engine], skip=skip),
        start_ns=start_ns,
        batch=batch,
        job={**provenance, **wish},
        provenance=provenance,
        resume=options.resume,
        watch=watch,
    )
    bar.close()
    return tally


def _say(tally: Tally, output: Path, losses: Sequence[str]) -> None:
    print(f'{tally.frames} frames in {output}')
    for kind, count in tally.bad.items():
        print(f'{count} images could not be used: {kind}')
    for reason, count in tally.uncalibrated.items():
        print(f'{count} frames without a calibration: {reason}')
    for loss in losses:
        print(loss)


def chosen_outputs(
    bundle: Bundle, names: Sequence[str] | None, tasks: Sequence[str] = ()
) -> list[Output]:
    """The outputs of some names; without names those that cannot be computed of others.

    Compressed ones are in by name only.

    Args:
        tasks: of the bundle, whose outputs alone are there; empty for all.

    Raises:
        BundleError: the bundle, or these tasks of it, have no such output.
    """
    tensors = {name for task in tasks or bundle.tasks for name in bundle.tasks[task].outputs}
    possible = {o.name: o for o in outputs_of(bundle) if tensors.issuperset(o.needs)}
    plain = [name for name, output in possible.items() if not output.of]
    if names is None:
        names = [name for name in plain if name not in _DERIVED]
    elif names == ['all']:
        names = plain
    unknown = [name for name in names if name not in possible]
    if unknown:
        of = f' of the tasks {", ".join(tasks)}' if tasks else ''
        raise BundleError(
            f'{bundle.folder}: there is no output {unknown[0]}{of}, expected of '
            f'{", ".join(possible)}'
        )
    return [output for name, output in possible.items() if name in names]
