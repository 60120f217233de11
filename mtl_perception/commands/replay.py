"""`mtl_perception replay`: every frame of recordings through a bundle, outputs into new bags."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

from ..bundle import Bundle, BundleError, default_bundle, load_bundle
from ..engines.choice import open_engine
from ..offline.bag_replay import write_bag
from ..offline.cdr import RecordingError
from ..offline.inputs import Input, fingerprint, name_of, open_input
from ..offline.judging import Judge
from ..offline.page import check_page
from ..offline.processes import Processes
from ..offline.ray_cluster import RayCluster
from ..offline.replay import Job
from ..offline.runners import Apart, EngineWish, Here, Recipe, Runner, needs_gpu
from ..offline.sources import Selection
from ..offline.writing import Tally, partial_of
from ..outputs import Output, outputs_of
from ..pipeline import Options
from .arguments import add_bundle, add_engine_options, engine_options, number, positive, whole
from .judging import add_report, tell
from .labelling import add_pseudo_labels, pseudo_labels
from .progress import ProgressBar
from .reading import add_reading, reading

# Finished, but not everything of the recording could be used.
INCOMPLETE = 3
# Options that make another bag.
_OF_THE_JOB = (
    *('start', 'duration', 'every', 'keep', 'tasks', 'allow_uncalibrated'),
    *('focal', 'fov', 'rate', 'mask_classes'),
)
# What can be computed of other outputs is stored only where it is asked for.
_DERIVED = ('points', 'image', 'depth_mm', 'semantic_color', 'depth_color', 'normals_color')


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
        '--mask-classes',
        type=lambda text: text.split(','),
        default=[],
        help='comma-separated, what the output mask shows (default: no such output)',
    )
    parser.add_argument(
        '--outputs',
        type=lambda text: text.split(','),
        help='comma-separated, or all but compressed ones (default: those but points and pictures)',
    )
    parser.add_argument('--start', type=number(0), default=0.0, help='seconds to leave out')
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
    add_pseudo_labels(parser)
    elsewhere = parser.add_mutually_exclusive_group()
    elsewhere.add_argument(
        '--workers', type=whole, default=1, metavar='N', help='processes, each with an engine (1)'
    )
    elsewhere.add_argument(
        '--ray', metavar='ADDRESS', help='or the workers of a Ray cluster: auto, or HOST:PORT'
    )
    parser.add_argument(
        '--resume',
        action='store_true',
        help='go on where the same command was interrupted',
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
    pipeline = Options(
        tasks=options.tasks,
        allow_uncalibrated=options.allow_uncalibrated,
        mask_classes=options.mask_classes,
    )
    pipeline.check(bundle)
    outputs = chosen_outputs(
        bundle, options.outputs, options.tasks, masked=bool(options.mask_classes)
    )
    judged = options.evaluate or options.report is not None
    labels = pseudo_labels(options, bundle)
    failed, incomplete = False, False
    with ExitStack() as stack:

        @cache
        def runner() -> Runner:
            return stack.enter_context(open_runner(bundle, options))

        for path, output in places:
            try:
                with open_input(path, reading(options, options.camera, options.keep)) as opened:
                    print('\n'.join(opened.taken))
                    judge = Judge(opened.source, bundle) if judged else None
                    tally = _replay(
                        *(opened, output, bundle, runner, outputs, pipeline, options, judge),
                        several=len(places) > 1,
                    )
                    losses = opened.losses()
                    _say(tally, output, losses)
                    if judge:
                        if not _live(options):
                            judge.read(output)
                        name = output.name if len(places) > 1 else ''
                        engine = runner().facts.identity
                        tell(judge, options.report, path, engine, losses, name)
                    if labels:
                        labels.read(output, opened.source, name_of(path))
                        print(labels.summary())
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
        inputs, last = [last], Path(f'{name_of(paths[0])}_outputs')
    if len(inputs) == 1:
        places = [(inputs[0], last)]
    else:
        if last.suffix == '.mcap' or last.is_file() or (last / 'metadata.yaml').exists():
            raise RecordingError(f'{last} is not a folder for the outputs of {len(inputs)} inputs')
        names = [name_of(path) for path in inputs]
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
    output: Path,
    bundle: Bundle,
    open_one: Callable[[], Runner],
    outputs: list[Output],
    pipeline: Options,
    options: argparse.Namespace,
    judge: Judge | None,
    *,
    several: bool,
) -> Tally:
    source = opened.source
    start_ns = source.start_ns + round(options.start * 1e9)
    stop_ns = start_ns + round(options.duration * 1e9) if options.duration else None
    live = judge if _live(options) else None
    truth = live.topics if live else ()
    job = Job(
        Selection(start_ns, stop_ns, options.every, tuple(options.keep), truth),
        frozenset(name for output in outputs for name in output.tensors(bundle)),
        pipeline,
    )
    names = tuple(output.name for output in outputs)
    cameras = tuple(camera.name for camera in source.cameras)
    recipe = Recipe(job, names, cameras, tuple(opened.kept))
    layout = recipe.layout(bundle)  # which may refuse, before an engine is built
    runner = open_one()
    # On a CPU a batch is no faster than one image after the other, and engines take one.
    batch = min(options.batch, runner.facts.max_batch)
    recipe = replace(recipe, job=replace(job, batch=batch))
    provenance = {'bundle': f'{bundle.name} {bundle.version}', **runner.facts.identity}
    wish = {
        'input': fingerprint(opened.files),
        'cameras': [f'{c.image}:{c.info}' for c in source.cameras if c.image_type],
        'outputs': list(names),
        **{name: getattr(options, name) for name in _OF_THE_JOB},
        'batch': batch,
    }
    images = source.count(job.selection)
    if judge:
        judge.expect(images)
    # Among several inputs some are finished, one is begun, and the others wait.
    begun = not several or partial_of(output).exists() or output.exists()
    bar = ProgressBar(images, 'images')
    try:
        return write_bag(
            output,
            layout,
            lambda skip: runner(source, recipe, skip, live),
            start_ns=start_ns,
            batch=batch,
            job={**provenance, **wish},
            provenance=provenance,
            resume=options.resume and begun,
            progress=bar.update,
        )
    finally:
        bar.close()


def _live(options: argparse.Namespace) -> bool:
    """Whether results are judged while they are made; else they are read from the bag.

    Of what was done before an interruption, and elsewhere, this process sees the bag only.
    """
    return not (options.resume or options.ray or options.workers > 1)


@contextmanager
def open_runner(bundle: Bundle, options: argparse.Namespace) -> Iterator[Runner]:
    """Open an engine here, in other processes, or in a cluster.

    Raises:
        EngineError: it does not open.
    """
    if options.ray:
        # Ray has a worker for every core, unless it is told otherwise.
        options.threads = options.threads or 1
    elif options.workers > 1:
        # Together they have the cores that one would have.
        options.threads = options.threads or max(1, (os.cpu_count() or 1) // options.workers)
    wanted = engine_options(options, options.precision)
    folder = options.bundle.absolute() if options.bundle else None
    wish = EngineWish(folder, options.backend, wanted)
    if options.ray:
        with RayCluster(options.ray, cpus=options.threads, gpu=needs_gpu(wish)) as cluster:
            print(f'{cluster.workers} workers of the Ray cluster at {options.ray}')
            # While one writes, another is on its way.
            yield Apart(cluster, 2 * cluster.workers, wish)
    elif options.workers > 1:
        with Processes(options.workers) as call:
            yield Apart(call, options.workers, wish)
    else:
        chosen = open_engine(options.backend, bundle, wanted)
        try:
            yield Here(bundle, chosen)
        finally:
            chosen.engine.close()


def _say(tally: Tally, output: Path, losses: Sequence[str]) -> None:
    print(f'{tally.frames} frames in {output}')
    for kind, count in tally.bad.items():
        first = f' (the first: {tally.first[kind]})' if kind in tally.first else ''
        print(f'{count} images could not be used: {kind}{first}')
    for reason, count in tally.uncalibrated.items():
        print(f'{count} frames without a calibration: {reason}')
    for loss in losses:
        print(loss)


def chosen_outputs(
    bundle: Bundle, names: Sequence[str] | None, tasks: Sequence[str] = (), *, masked: bool = False
) -> list[Output]:
    """The outputs of some names; without names those that cannot be computed of others.

    Compressed ones are in by name only.

    Args:
        tasks: of the bundle, whose outputs alone are there; empty for all.
        masked: whether masks show some classes; else there are none.

    Raises:
        BundleError: the bundle, or these tasks of it, have no such output.
    """
    tensors = {name for task in tasks or bundle.tasks for name in bundle.tasks[task].outputs}
    possible = {
        o.name: o
        for o in outputs_of(bundle)
        if tensors.issuperset(o.needs) and (masked or 'mask' not in (o.name, o.of))
    }
    plain = [name for name, output in possible.items() if not output.of]
    if names is None:
        names = [name for name in plain if name not in _DERIVED]
    elif names == ['all']:
        names = plain
    unknown = [name for name in names if name not in possible]
    if unknown:
        of = f' of the tasks {", ".join(tasks)}' if tasks else ''
        of += ' without --mask-classes' if unknown[0].startswith('mask') and not masked else ''
        raise BundleError(
            f'{bundle.folder}: there is no output {unknown[0]}{of}, expected of '
            f'{", ".join(possible)}'
        )
    return [output for name, output in possible.items() if name in names]
