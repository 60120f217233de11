"""The topics of a replay's bag, and what goes into them of each step."""

from __future__ import annotations

from collections.abc import Sequence
from queue import SimpleQueue

from ..bundle import Bundle
from ..outputs import Output
from .cdr import RecordingError, Types
from .mcap import Channel, Message, chunk, zstd_codec
from .messages import LABEL_INFO, Encoder, label_info
from .recordings import RecordingReader
from .replay import Result
from .storage import QOS, QOS_LATCHED

# The node's name, so that what works with the topics of the node works with these.
NODE = '/perception'
# zstd would take a tenth off these, and need a third of the time of all but the engine for it.
_NOISE = ('32FC1', '32FC3')


def output_channels(
    bundle: Bundle, outputs: Sequence[Output], cameras: Sequence[str]
) -> list[Channel]:
    """The channels of all outputs of all cameras, by name; latched ones at the end."""
    types = Types()
    channels = [
        _channel(types, output_topic(camera, output.name), output.type, QOS)
        for camera in cameras
        for output in outputs
    ]
    if bundle.classes:
        channels += [
            _channel(types, output_topic(camera, 'label_info'), LABEL_INFO, QOS_LATCHED)
            for camera in cameras
        ]
    return channels


def kept_channels(reader: RecordingReader, topics: Sequence[str]) -> list[Channel]:
    """The channels of topics that are taken along as they are.

    Raises:
        RecordingError: the recording has no such topic, or nobody knows the definition of its type.
    """
    channels = []
    for topic in topics:
        if topic not in reader.topics:
            raise RecordingError(f'{reader.path} has no topic {topic} to keep')
        kind = reader.topics[topic]
        definition = reader.definition(kind)
        if definition:
            encoding = 'ros2idl' if definition.startswith('=' * 80 + '\nIDL: ') else 'ros2msg'
            channel = Channel(
                topic,
                kind,
                definition,
                encoding,
                {'offered_qos_profiles': reader.qos(topic)},
                reader.hash(topic),
            )
        else:
            channel = _channel(reader.types, topic, kind, reader.qos(topic))
        channels.append(channel)
    return channels


def output_topic(camera: str, name: str) -> str:
    """The topic of an output of a camera, as the node names it."""
    return f'{namespace(camera)}/{name}'


def namespace(camera: str) -> str:
    """Of the outputs of a camera, as the node names it."""
    return f'{NODE}/{camera}' if camera else NODE


def _channel(types: Types, topic: str, kind: str, qos: str) -> Channel:
    definition, _ = types.store.generate_msgdef(types.require(kind), ros_version=2)
    metadata = {'offered_qos_profiles': qos}
    return Channel(topic, kind, definition, 'ros2msg', metadata, types.store.hash_rihs01(kind))


class Layout:
    """Turns results into chunks of a bag, in any number of threads.

    Args:
        bundle: whose results they are.
        outputs: what is stored of each image.
        cameras: their names.
        kept: channels of what is taken along.

    Attributes:
        channels: of the bag.

    Raises:
        RecordingError: two channels would have one topic.
    """

    def __init__(
        self,
        bundle: Bundle,
        outputs: Sequence[Output],
        cameras: Sequence[str],
        kept: Sequence[Channel] = (),
    ) -> None:
        self._bundle = bundle
        self._outputs = outputs
        self._cameras = cameras
        self._noise = {output.name for output in outputs if output.encoding in _NOISE}
        self.channels = [*output_channels(bundle, outputs, cameras), *kept]
        self._numbers = {channel.topic: n for n, channel in enumerate(self.channels, 1)}
        if len(self._numbers) < len(self.channels):
            topics = [channel.topic for channel in self.channels]
            twice = next(topic for topic in topics if topics.count(topic) > 1)
            raise RecordingError(f'{twice} is kept and is a topic of the outputs, too')
        self._encoders: SimpleQueue[Encoder] = SimpleQueue()
        self._compress, _ = zstd_codec()

    def first_chunk(self, time_ns: int) -> bytes:
        """What stands before all steps: the names of the classes."""
        if not self._bundle.classes:
            return b''
        data = label_info(Types(), self._bundle.classes, time_ns)
        topics = [output_topic(camera, 'label_info') for camera in self._cameras]
        messages = [Message(self._numbers[t], time_ns, [data]) for t in topics]
        return b''.join(chunk(messages, self._compress))

    def chunk(self, result: Result) -> bytes:
        """The chunks of a step: what is taken along, then the outputs; empty if there is nothing.

        Numbers are noise to zstd and stay as they are, in a chunk of their own.
        """
        noise: list[Message] = []
        messages = [
            Message(self._numbers[kept.topic], kept.time_ns, [kept.data])
            for kept in result.step.kept
        ]
        if result.prediction is not None and result.step.shot is not None:
            encoder = self._encoder()
            shot = result.step.shot
            for name, data in encoder(result.prediction).items():
                number = self._numbers[output_topic(shot.camera, name)]
                chosen = noise if name in self._noise else messages
                chosen.append(Message(number, shot.time_ns, data))
            self._encoders.put(encoder)
        # Joined once, for these are many bytes.
        return b''.join([*chunk(messages, self._compress), *chunk(noise, None)])

    def _encoder(self) -> Encoder:
        """One that nobody uses now; there are never more than threads."""
        if self._encoders.empty():
            return Encoder(self._bundle, self._outputs)
        return self._encoders.get()
