"""From the arguments of the launch files to topics: where images come from, where outputs go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from . import PerceptionError
from .outputs import OTHER_TOPICS, OUTPUTS

Remaps = list[tuple[str, str]]

# Everything that a node publishes below its own name.
OWN_NAMES = (
    *(output.name for output in OUTPUTS),
    *(topic.removeprefix('~/') for topic, *_ in OTHER_TOPICS if topic.startswith('~/')),
)


class WiringError(PerceptionError):
    """An argument of a launch file that cannot be; the message names it."""


def listed(text: str) -> list[str]:
    """The entries of an argument such as ``front, left``."""
    return [entry.strip() for entry in text.split(',') if entry.strip()]


def number(name: str, text: str) -> int:
    """The whole number that an argument of some name is.

    Raises:
        WiringError: it is none.
    """
    try:
        return int(text)
    except ValueError:
        raise WiringError(f'{name} is {text!r}, expected a whole number') from None


def existing(name: str, path: str) -> str:
    """The path of a file that an argument of some name is; launch would go on without it.

    Raises:
        WiringError: there is no such file.
    """
    if not Path(path).is_file():
        raise WiringError(f'{name} is {path!r}, expected a file that is there')
    return path


def full_name(namespace: str, name: str) -> str:
    """The full name of a node, such as ``/robot/perception``."""
    return '/'.join(['', *filter(None, namespace.split('/')), name])


def input_remaps(image: str, camera_info: str, cameras: Sequence[str]) -> Remaps:
    """Where images and CameraInfos come from: names of the node -> topics.

    Args:
        image: topic of the images, without the transport; with a place for ``{camera}``.
        camera_info: of their CameraInfos; empty: beside the images.
        cameras: their names; without any, there is one camera without a name.
    """
    above, slash, _ = image.rpartition('/')
    topics = {'image': image, 'camera_info': camera_info or f'{above}{slash}camera_info'}
    if not cameras:
        return list(topics.items())

    def pattern(topic: str) -> str:
        """Topics without a place for the name of the camera are in a namespace of its name."""
        return topic if '{camera}' in topic else '{camera}/' + topic.lstrip('/')

    return [
        (f'{camera}/{name}', pattern(topic).replace('{camera}', camera))
        for camera in cameras
        for name, topic in topics.items()
    ]


def output_remaps(outputs: str, cameras: Sequence[str]) -> Remaps:
    """Where outputs go: names of the node -> topics.

    Args:
        outputs: such as ``semantic:=/mask, points:=/{camera}/points``.
        cameras: their names; without any, there is one camera without a name.

    Raises:
        WiringError: that is not an output, or several cameras would share a topic.
    """
    remaps = []
    for entry in listed(outputs):
        name, arrow, topic = entry.partition(':=')
        name = name.removeprefix('~/')
        if not arrow or not topic or name not in OWN_NAMES:
            raise WiringError(
                f'outputs has {entry!r}, expected NAME:=TOPIC with one of {", ".join(OWN_NAMES)}'
            )
        if len(cameras) > 1 and '{camera}' not in topic:
            raise WiringError(
                f'outputs has {entry!r}, expected {{camera}} in the topic: cameras share none'
            )
        remaps += [
            (f'~/{camera}/{name}' if camera else f'~/{name}', topic.replace('{camera}', camera))
            for camera in cameras or ['']
        ]
    return remaps


def input_topics(
    node: str, image: str, camera_info: str, cameras: Sequence[str]
) -> tuple[list[str], list[str]]:
    """The full names of the topics of images, and of their CameraInfos.

    Args:
        node: its full name, such as ``/robot/perception``.
        image: as for ``input_remaps``, and so are the others.
        camera_info: see there.
        cameras: see there.
    """
    namespace = node.rpartition('/')[0]
    topics = [topic for _, topic in input_remaps(image, camera_info, cameras)]
    full = [topic if topic.startswith('/') else f'{namespace}/{topic}' for topic in topics]
    return full[::2], full[1::2]


def output_topics(node: str, cameras: Sequence[str], outputs: str) -> list[str]:
    """The full names of the topics of all outputs.

    Args:
        node: its full name, such as ``/robot/perception``.
        cameras: as for ``output_remaps``, and so are the ``outputs``.
        outputs: see there.
    """
    return _topics(OWN_NAMES, node, cameras or [''], dict(output_remaps(outputs, cameras)))


def shown_remaps(names: Sequence[str], node: str, cameras: Sequence[str], outputs: str) -> Remaps:
    """Where rviz2 finds what its configuration calls ``/perception/NAME``; of the first camera.

    Args:
        names: of outputs.
        node: its full name, such as ``/robot/perception``.
        cameras: as for ``output_remaps``, and so are the ``outputs``.
    """
    topics = _topics(names, node, cameras[:1] or [''], dict(output_remaps(outputs, cameras)))
    remaps = zip((f'/perception/{name}' for name in names), topics, strict=True)
    return [(shown, topic) for shown, topic in remaps if shown != topic]


def recorded_remaps(node: str, cameras: Sequence[str], outputs: str) -> Remaps:
    """What a node published into a recording is played below ``/recorded``, not on its topics.

    Args:
        node: its full name, such as ``/robot/perception``.
        cameras: as for ``output_remaps``, and so are the ``outputs``.
    """
    topics = output_topics(node, cameras, '') + output_topics(node, cameras, outputs)
    topics += [f'{node}/transition_event', '/diagnostics']
    return [(topic, f'/recorded{topic}') for topic in dict.fromkeys(topics)]


def _topics(
    names: Sequence[str], node: str, cameras: Sequence[str], moved: Mapping[str, str]
) -> list[str]:
    """The full names of outputs of cameras, after remaps."""
    namespace = node.rpartition('/')[0]
    topics = []
    for camera in cameras:
        for name in names:
            own = f'{camera}/{name}'.lstrip('/')
            image, _, form = own.rpartition('/')
            beside = f'{moved.get(f"~/{image}", f"{node}/{image}")}/{form}'  # of what is compressed
            topic = moved.get(f'~/{own}', beside if image else f'{node}/{own}')
            topics.append(topic if topic.startswith('/') else f'{namespace}/{topic}')
    return topics
