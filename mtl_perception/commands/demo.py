"""`mtl_perception demo`: play a recording into a perception node, watch and judge its outputs.

The node runs as its own process, as on a robot; this process is the camera and the consumer.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from .. import PerceptionError
from ..bundle import Bundle, default_bundle, load_bundle
from ..offline.cameras import CameraTopics, find_camera, look
from ..offline.cdr import RecordingError
from ..offline.evaluation import Evaluation
from ..offline.figures import sentences
from ..offline.recordings import RecordingReader, RecordingWriter
from ..offline.sources import BagSource
from ..offline.stored import RecordedCamera, frames_of
from ..offline.truth import truth_readers
from ..share import share
from .arguments import add_bundle, positive
from .dds import profile_settings
from .demo_picture import demo_montage, montage_stamps, write_picture
from .display import Display
from .graph import (
    Listener,
    Player,
    Topic,
    expected_topics,
    play,
    require_ros,
    ros_node,
    wait_until_ready,
)
from .node_process import NODE, perception_node, terminated_like_interrupted

MONTAGE_MOMENTS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        '--output',
        type=Path,
        default=Path('demo_output'),
        help='folder for the bag of outputs, montage.png and node.log (default: %(default)s)',
    )
    add_bundle(parser, option=True)
    parser.add_argument('--recording', type=Path, help='rosbag2 folder (default: the shipped one)')
    parser.add_argument(
        '--image', default='', metavar='TOPIC', help='the camera to play, of a recording of several'
    )
    parser.add_argument(
        '--rate', type=positive, default=1.0, help='2 plays twice as fast (default: 1)'
    )


def run(options: argparse.Namespace) -> int:
    """Play, then judge what came; leave a bag of all outputs and a picture.

    Raises:
        PerceptionError: The node ended, nothing came out of it, or a folder cannot be used.
        ImportError: ROS 2 or the messages are missing.
    """
    require_ros()
    bundle = load_bundle(options.bundle or default_bundle())
    recording = options.recording or share('sample/rooms')
    os.environ.update(profile_settings(os.environ))
    options.output.mkdir(parents=True, exist_ok=True)
    with terminated_like_interrupted(), RecordingReader(recording) as reader:
        camera = find_camera(recording, reader.topics, look(reader), options.image)
        print(
            f'Playing {recording} ({reader.duration_s:.1f} s) through {bundle.name} '
            f'{bundle.version}, {bundle.width}x{bundle.height}.'
        )
        if camera.others:
            print(f'Its camera {camera.image} with {camera.info}; --image takes another:')
            print('\n'.join(f'  {topic}' for topic in camera.others))
        topics = _play(reader, camera, bundle, options.output, options.rate)
    _judge(recording, camera, bundle, options.output, topics)
    return 0


def _play(
    reader: RecordingReader, camera: CameraTopics, bundle: Bundle, output: Path, rate: float
) -> dict[str, Topic]:
    """Play a camera through a node and store what it answers in ``bag``; what came, by topic."""
    parameters = {'bundle': str(bundle.folder.absolute()), 'image_transport': camera.transport}
    with (
        RecordingWriter(output / 'bag', compress=True) as writer,
        ros_node('mtl_perception_demo') as (node, executor),
        perception_node(parameters, camera.remaps, output / 'node.log') as child,
    ):
        store = _Store(writer)
        try:
            listener = Listener(node, store)
            player = Player(node, camera)
            print('Starting the node ...', flush=True)
            wait_until_ready(executor, child, player, listener, expected_topics(bundle))
            display = Display(listener, f'Outputs of {NODE}', reader.duration_s / rate)
            messages = reader.messages([camera.image, camera.info])
            first = next(messages, None)
            if first is None:
                raise RecordingError(f'{reader.path} has no message on {camera.image}')
            store.start(first.time_ns, rate)
            published = play(
                chain([first], messages),
                executor,
                child,
                player,
                listener,
                rate=rate,
                tick=display.tick,
            )
        finally:
            store.finish()
        display.finish()
        if not listener.results:
            raise PerceptionError(
                f'none of {published} images was answered: {child.last_words()} (log: {child.log})'
            )
        answered = max(topic.count for topic in listener.results)
        why = '' if answered == published else '; the others came while the engine was busy'
        print(f'{answered} of {published} images were answered{why}.')
        print('Ending the node and closing the recording ...', flush=True)
    return listener.topics


def _judge(
    recording: Path,
    camera: CameraTopics,
    bundle: Bundle,
    output: Path,
    topics: Mapping[str, Topic],
) -> None:
    """Compare the bag with the recording's ground truth, and make the picture."""
    bag, picture = output / 'bag', output / 'montage.png'
    evaluation = Evaluation([item.name for item in bundle.classes])
    with RecordingReader(recording) as known, RecordingReader(bag) as seen:
        source = BagSource(known, [camera])
        ((name, truth),) = truth_readers(source).items()
        for (frame,) in frames_of([seen], RecordedCamera(source, name, truth), NODE):
            evaluation.add(frame.arrays, frame.truth)
    stamps = montage_stamps(topics, bundle, MONTAGE_MOMENTS)
    if stamps:
        write_picture(picture, demo_montage(bag, recording, camera, bundle, stamps))
    if evaluation.frames:
        print('Accuracy where the recording has ground truth:')
        print('\n'.join(sentences(evaluation)))
    else:
        print('The recording has no ground truth, so accuracy is unknown.')
    print(f'All outputs:  {bag}')
    if stamps:
        print(f'Picture:      {picture}')


class _Store:
    """Writes outputs to a recording in a thread, so that compressing does not delay receiving.

    Messages are filed at the time of the played recording at which they came, so that recording
    and outputs can be played together.
    """

    def __init__(self, writer: RecordingWriter) -> None:
        self.writer = writer
        self.pool = ThreadPoolExecutor(1)
        self.pending: deque[Future[None]] = deque()
        self.origin: tuple[float, int] | None = None
        self.rate = 1.0
        self.early: list[tuple[Topic, bytes]] = []

    def start(self, origin_ns: int, rate: float) -> None:
        """Set the recording's time that is now; what came before is filed at it."""
        self.origin, self.rate = (time.monotonic(), origin_ns), rate
        for topic, data in self.early:
            self(topic, data)

    def __call__(self, topic: Topic, data: bytes) -> None:
        if self.origin is None:
            self.early.append((topic, data))
            return
        began, origin_ns = self.origin
        now_ns = origin_ns + int((time.monotonic() - began) * self.rate * 1e9)
        self.pending.append(self.pool.submit(self._write, topic, now_ns, bytes(data)))
        while self.pending and self.pending[0].done():
            self.pending.popleft().result()

    def _write(self, topic: Topic, time_ns: int, data: bytes) -> None:
        self.writer.write(topic.name, topic.type, time_ns, data, latched=topic.latched)

    def finish(self) -> None:
        """Wait for everything to be written; the first failure is raised."""
        self.pool.shutdown()
        for future in self.pending:
            future.result()
