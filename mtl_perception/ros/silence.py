"""Why no image comes, in words: what is on the graph instead of what was expected.

No ROS here: the graph is given as names and types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

from ..topics import base_topic

RAW, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
_SHOWN = 3  # topics that are named at most


def why_silent(
    topic: str, kind: str, topics: Mapping[str, Sequence[str]], publishers: Sequence[str]
) -> str:
    """What there is instead of images on a topic; empty if nothing tells.

    Args:
        topic: where images are expected.
        kind: the type of their messages.
        topics: those on which other nodes publish images, with their types.
        publishers: the types of those who publish on the topic.
    """
    if kind in publishers:
        return f'{len(publishers)} publish there and nothing comes: its QoS may not match'
    if publishers:
        return f'only {publishers[0]} is published there'
    base = base_topic(topic)
    if base.endswith('/compressed') and base in topics:
        return f'/compressed is doubled: images are on {base}, and the topic is {base_topic(base)}'
    if kind == RAW and COMPRESSED in topics.get(f'{topic}/compressed', ()):
        return f'CompressedImage is on {topic}/compressed: set image_transport to compressed'
    if kind == COMPRESSED and RAW in topics.get(base, ()):
        return f'Image is on {base}: set image_transport to raw'
    others = [name for name, kinds in topics.items() if {RAW, COMPRESSED} & set(kinds)]
    others.sort(key=lambda name: -SequenceMatcher(None, topic, name).ratio())
    if others:
        more = ', ...' if len(others) > _SHOWN else ''
        return f'images are on {", ".join(others[:_SHOWN])}{more}: remap image'
    return 'nobody publishes images'
