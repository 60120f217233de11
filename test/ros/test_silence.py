"""Where no image comes, the node says what there is instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

from sensor_msgs.msg import CompressedImage, Image

from mtl_perception.ros.silence import COMPRESSED, RAW, why_silent


@pytest.mark.parametrize(
    ('topic', 'kind', 'topics', 'publishers', 'words'),
    [
        ('/image', RAW, {}, [], 'nobody publishes images'),
        ('/image', RAW, {'/image': [RAW]}, [RAW], 'its QoS may not match'),
        ('/image', RAW, {'/image': [COMPRESSED]}, [COMPRESSED], f'only {COMPRESSED}'),
        ('/a', RAW, {'/a/compressed': [COMPRESSED]}, [], 'set image_transport to compressed'),
        ('/a/compressed', COMPRESSED, {'/a': [RAW]}, [], 'set image_transport to raw'),
        (
            '/a/compressed/compressed',
            COMPRESSED,
            {'/a/compressed': [COMPRESSED]},
            [],
            'doubled: images are on /a/compressed, and the topic is /a',
        ),
        ('/image', RAW, {'/x': ['a/msg/B'], '/cam/image': [RAW]}, [], 'are on /cam/image: remap'),
    ],
)
def test_what_there_is_instead(
    topic: str, kind: str, topics: dict[str, list[str]], publishers: list[str], words: str
) -> None:
    assert words in why_silent(topic, kind, topics, publishers)


def test_the_node_says_it_in_diagnostics_and_once_in_its_log(
    client: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    client.publisher(CompressedImage, '/image/compressed')
    node = start_node(bundle=tiny_bundle, autostart=True)
    client.subscribe(Image, '/perception/edges')
    words = 'CompressedImage is on /image/compressed: set image_transport to compressed'
    client.diagnostic('input', lambda s: s.message == f'no image on /image: {words}')
    client.wait(lambda: words in node.text(), 'the line')
    client.spin(2.5)
    assert node.text().count(words) == 1


def test_topics_without_a_publisher_and_own_outputs_are_not_offered(
    client: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    remaps = {'~/edges': '/edges', 'image': '/camera/image'}
    start_node(remaps=remaps, bundle=tiny_bundle, autostart=True)
    client.subscribe(Image, '/edges')
    client.subscribe(Image, '/other/image')
    silence = 'no image on /camera/image: nobody publishes images'
    client.diagnostic('input', lambda s: s.message == silence)
