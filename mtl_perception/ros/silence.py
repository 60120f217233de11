"""Why no image or CameraInfo comes, in words: what is on the graph instead of what was expected.

No ROS here: the graph is given as names and types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

from ..topics import base_topic

RAW, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
INFO = 'sensor_msgs/msg/CameraInfo'
# What a publisher offers, and a subscription wants, where they do not match.
POLICIES = {
    'reliability': ('best_effort', 'reliable'),
    'durability': ('volatile', 'transient_local'),
}
_SHOWN = 3  # topics that are named at most


def why_silent(
    topic: str,
    kind: str,
    topics: Mapping[str, Sequence[str]],
    publishers: Sequence[str],
    mismatch: str = '',
) -> str:
    """What there is instead of images on a topic; empty if nothing tells.

    Args:
        topic: where images are expected.
        kind: the type of their messages.
        topics: those on which other nodes publish images, with their types.
        publishers: the types of those who publish on the topic.
        mismatch: why the QoS of one of them does not match; empty if that is not known.
    """
    if kind in publishers:
        return mismatch or _idle(publishers)
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
    if others:
        return f'images are on {_nearest(topic, others)}: remap image'
    return 'nobody publishes images'


def why_no_info(
    topic: str, topics: Sequence[str], publishers: Sequence[str], mismatch: str = ''
) -> str:
    """What there is instead of CameraInfos on a topic, where none has come.

    Args:
        topic: where they are expected.
        topics: all topics of CameraInfos.
        publishers, mismatch: see ``why_silent``.
    """
    if INFO in publishers:
        return mismatch or _idle(publishers)
    if publishers:
        return f'only {publishers[0]} is published there'
    if topics:
        return f'CameraInfos are on {_nearest(topic, topics)}: remap camera_info'
    return 'nobody publishes CameraInfos'


def mismatch_of(topic: str, policy: str) -> str:
    """Why nothing comes from a publisher whose QoS does not match.

    Args:
        topic: after remaps.
        policy: that does not match, as in the names of the parameters that override it.
    """
    offered, wanted = POLICIES.get(policy, ('', ''))
    what = f'{policy} {offered} where {wanted} is wanted' if wanted else f'another {policy}'
    return f'a publisher offers {what} (qos_overrides.{topic}.subscription.{policy})'


def _idle(publishers: Sequence[str]) -> str:
    one = len(publishers) == 1
    return (
        'its publisher sends nothing' if one else f'its {len(publishers)} publishers send nothing'
    )


def _nearest(topic: str, others: Sequence[str]) -> str:
    """Those whose names are the most like a topic's, as far as they are shown."""
    ranked = sorted(others, key=lambda name: -SequenceMatcher(None, topic, name).ratio())
    return ', '.join(ranked[:_SHOWN]) + (', ...' if len(ranked) > _SHOWN else '')
