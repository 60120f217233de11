"""`mtl_perception replay`: every frame of a recording through a bundle, outputs into a new bag."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..bundle import Bundle, BundleError, default_bundle, load_bundle
from ..engines.choice import open_engine
from ..engines.engine import Engine
from ..offline.bag_replay import write_bag
from ..offline.cameras import CameraTopics, find_cameras, look
from ..offline.cdr import RecordingError
from ..offline.layout import Layout, kept_channels
from ..offline.recordings import RecordingReader
from ..offline.replay import Job, Result, replay
from ..offline.sources import BagSource, Selection
from ..offline.writing import Tally
from ..outputs import Output, outputs_of
from ..pipeline import Options
from .arguments import add_bundle, add_engine_options, engine_options, positive, whole
from .progress import ProgressBar

# Finished, but not everything of the recording could be used.
INCOMPLETE = 3
# What can be computed of other outputs, and large, is stored only where it is asked for.
_DERIVED = ('points', 'semantic_color', 'depth_color', 'normals_color')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument('input', type=Path, metavar='IN', help='a bag')
    parser.add_argument('output', type=Path, metavar='OUT', help='the new bag')
    parser.add_argument(
        '--camera',
        action='append',
        default=[],
        metavar='IMAGE[:INFO]',
        help='topics of a camera; repeatable (default: the best one)',
    )
    add_bundle(parser, option=True)
    parser.add_argument('--backend', default='auto', help='(default: auto)')
    parser.add_argument('--precision', default='fp32', help='fp32, fp16, bf16 or int8 (fp32)')
    add_engine_options(parser)
    parser.add_argument(
        '--outputs',
        type=lambda text: text.split(','),
        help='comma-separated, or all (default: all but points and pictures for people)',
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
        '--resume', action='store_true', help='go on where the same command was interrupted'
    )


def run(options: argparse.Namespace) -> int:
    """Replay.

    Raises:
        PerceptionError: it cannot be read or written, or the engine failed.
    """
    if options.output.resolve() == options.input.resolve():
        raise RecordingError(f'{options.input} is the input and the output; not overwriting it')
    bundle = load_bundle(options.bundle or default_bundle())
    with RecordingReader(options.input) as reader:
        cameras = find_cameras(options.input, reader.topics, look(reader), options.camera)
        for camera in cameras:
            print(f'{camera.image} ({camera.content}) with {camera.info or "no CameraInfo"}')
        outputs = chosen_outputs(bundle, options.outputs)
        chosen = open_engine(options.backend, bundle, engine_options(options, options.precision))
        try:
            # On a CPU a batch is no faster than one image after the other, and engines take one.
            options.batch = min(options.batch, chosen.max_batch)
            tally = _replay(reader, cameras, bundle, chosen.engine, outputs, options)
        finally:
            chosen.engine.close()
    print(f'{tally.frames} frames in {options.output}')
    for kind, count in tally.bad.items():
        print(f'{count} images could not be used: {kind}')
    for reason, count in tally.uncalibrated.items():
        print(f'{count} frames without a calibration: {reason}')
    return INCOMPLETE if tally.bad else 0


def _replay(
    reader: RecordingReader,
    cameras: list[CameraTopics],
    bundle: Bundle,
    engine: Engine,
    outputs: list[Output],
    options: argparse.Namespace,
) -> Tally:
    start_ns = reader.start_ns + round(options.start * 1e9)
    stop_ns = start_ns + round(options.duration * 1e9) if options.duration else None
    source = BagSource(reader)
    selection = Selection(
        tuple(cameras), start_ns, stop_ns, every=options.every, keep=tuple(options.keep)
    )
    job = Job(
        selection,
        frozenset(name for output in outputs for name in output.tensors(bundle)),
        Options(allow_uncalibrated=options.allow_uncalibrated),
        batch=options.batch,
    )
    layout = Layout(
        bundle,
        outputs,
        [camera.name for camera in cameras],
        kept_channels(reader, options.keep),
    )
    identity = {key: engine.identity[key] for key in ('engine', 'version', 'provider', 'precision')}
    provenance = {
        'bundle': f'{bundle.name} {bundle.version}',
        'model_sha256': bundle.sha256,
        **identity,
    }
    wish = {
        'input': str(options.input.absolute()),
        'cameras': [f'{camera.image}:{camera.info or ""}' for camera in cameras],
        'outputs': [output.name for output in outputs],
        **{
            name: getattr(options, name)
            for name in ('start', 'duration', 'every', 'keep', 'allow_uncalibrated', 'batch')
        },
    }
    bar = ProgressBar(source.count(selection), 'images')

    def watch(result: Result) -> None:
        bar.update(result.step.index + 1)

    tally = write_bag(
        options.output,
        layout,
        lambda skip: replay(source, job, bundle, [engine], skip=skip),
        start_ns=start_ns,
        batch=options.batch,
        job={**provenance, **wish},
        provenance=provenance,
        resume=options.resume,
        watch=watch,
    )
    bar.close()
    return tally


def chosen_outputs(bundle: Bundle, names: list[str] | None) -> list[Output]:
    """The outputs of some names; without names those that cannot be computed of others.

    Raises:
        BundleError: the bundle has no such output.
    """
    possible = {output.name: output for output in outputs_of(bundle)}
    if names is None:
        return [output for name, output in possible.items() if name not in _DERIVED]
    if names == ['all']:
        return list(possible.values())
    unknown = [name for name in names if name not in possible]
    if unknown:
        raise BundleError(
            f'{bundle.folder}: there is no output {unknown[0]}, expected of {", ".join(possible)}'
        )
    return [output for name, output in possible.items() if name in names]
