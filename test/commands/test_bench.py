"""The benchmark measures a real node, and its ratios are what they are called."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mtl_perception.bundle import load_bundle
from mtl_perception.commands import bench_node as bench
from mtl_perception.commands.cli import main
from mtl_perception.commands.node_process import perception_node
from mtl_perception.engines.engine import EngineOptions
from mtl_perception.offline.cameras import CameraTopics
from mtl_perception.offline.cdr import header_stamp_ns

needs_ros = pytest.mark.skipif(
    importlib.util.find_spec('rclpy') is None, reason='ROS 2 for Python is not installed'
)


def result(**stages: float) -> bench.Result:
    """A result with these stages and an engine that takes 20 ms when alone."""
    return bench.Result(
        hardware='an abacus, 2 cores, load 0.1',
        what='640x480',
        bare_ms=20.0,
        bare_cpu_ms=36.0,
        node_cpu_ms=45.0,
        stage_ms=stages,
        latency_ms=(30.0, 35.0),
        received_ms=(40.0, 55.0),
        published_hz=30.0,
        processed_hz=25.0,
        topics=3,
        peak_rss_mb=200.0,
        idle_cpu=0.01,
    )


def test_the_ratios() -> None:
    measured = result(decode=0.5, resize=0.5, engine=25.0, post=1.0, publish=0.5)
    assert measured.all_ms == pytest.approx(27.5)
    assert measured.added == pytest.approx(0.10)
    assert measured.beyond_bare == pytest.approx(0.375)
    text = measured.text()
    assert text.startswith('an abacus, 2 cores')
    assert '37.5%' in text
    assert '30.0, 35.0 ms' in text
    assert '40.0, 55.0 ms (3 topics)' in text
    assert measured.beyond_bare_cpu == pytest.approx(0.25)
    assert '25.0% (45.0 against 36.0 ms an image)' in text


@needs_ros
def test_the_stream_is_steady_and_stamped() -> None:
    camera = CameraTopics('/image', 'sensor_msgs/msg/Image', '/info')
    image, info = bench.camera_messages(64, 48)
    messages = list(bench.stream(camera, image, info, rate=10.0, seconds=0.5))
    assert [m.topic for m in messages] == ['/info', '/image'] * 5
    assert [m.time_ns for m in messages[1::2]] == [i * 100_000_000 for i in range(1, 6)]
    assert all(header_stamp_ns(m.data) == m.time_ns for m in messages)

    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import Image

    last = deserialize_message(messages[-1].data, Image)
    assert (last.width, last.height, last.encoding, last.step) == (64, 48, 'rgb8', 192)
    assert bytes(last.data) == bench.picture(64, 48).tobytes()


@needs_ros
def test_a_real_node_is_measured(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    given: list[Mapping[str, str]] = []

    def watched(parameters: Mapping[str, str], *rest: Any) -> Any:
        given.append(parameters)
        return perception_node(parameters, *rest)

    monkeypatch.setattr(bench, 'perception_node', watched)
    measured = bench.measure(
        load_bundle(tiny_bundle),
        backend='onnxruntime',
        options=EngineOptions(threads=1),
        size=(192, 128),
        rate=10.0,
        seconds=4.0,
    )
    assert (given[0]['backend'], given[0]['threads']) == ('onnxruntime', '1')
    assert measured.published_hz == 10
    # 7 tensors, depth_mm, image, 3 pictures, mask, points, camera_info
    assert measured.topics == 15
    assert all(value > 0 for value in measured.stage_ms.values())
    assert measured.bare_ms > 0
    assert measured.bare_cpu_ms > 0
    assert measured.node_cpu_ms > measured.bare_cpu_ms
    for median, p95 in (measured.latency_ms, measured.received_ms):
        assert 0 < median <= p95
    assert measured.latency_ms[0] < measured.received_ms[1]
    assert 20 < measured.peak_rss_mb < 2000
    assert measured.idle_cpu < 0.5
    assert 'CPUExecutionProvider' in measured.what


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['--batch', '2'], '--batch would do nothing without --engines'),
        (
            ['--engines', '--backend', 'openvino', '--size', '64x64'],
            '--backend, --size would do nothing',
        ),
        (['--engines', '--precision', 'int8'], '--precision would do nothing with'),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['bench', *arguments]) == 1
    assert said in capsys.readouterr().err
