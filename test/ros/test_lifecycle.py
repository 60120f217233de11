"""The node's life: up and down, drops, reports, and an end without noise."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

from diagnostic_msgs.msg import DiagnosticArray
from mtl_perception_msgs.msg import PerceptionStatus
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from mtl_perception.ros.node import PerceptionNode

GRAY = np.full((64, 96, 3), 100, np.uint8)


def test_the_lifecycle_goes_up_and_down_and_up(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(bundle=tiny_bundle)
    assert client.state() == 'unconfigured'
    edges = client.subscribe(Image, '/perception/edges')
    for _ in range(2):
        assert client.transition('configure')
        assert client.state() == 'inactive'
        for _ in range(2):
            assert client.transition('activate')
            driver.wait_for_node()
            image = driver.image(GRAY)
            driver.publish(image)
            client.wait(lambda: edges, 'edges')
            assert edges.pop().header == image.header
            assert client.transition('deactivate')
            client.wait(lambda: not driver.images.get_subscription_count(), 'end of subscription')
        assert client.transition('cleanup')
        assert client.state() == 'unconfigured'
        (mine,) = client.node.get_publishers_info_by_topic('/image')
        assert mine.node_name == 'test_client'
        client.wait(lambda: not client.node.count_publishers('/perception/edges'), 'cleanup')


def test_turns_of_the_lifecycle_leave_nothing_in_the_node(client: Any, tiny_bundle: Path) -> None:
    values = {'bundle': str(tiny_bundle), 'backend': 'onnxruntime', 'threads': 1}
    node = PerceptionNode(
        context=client.node.context,
        namespace='turns',
        parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
    )
    left = []
    for _ in range(3):
        assert node.bring_up()
        node.trigger_deactivate()
        node.trigger_cleanup()
        gc.collect()
        left.append(len(node.default_callback_group.entities))
    node.destroy_node()
    del node  # which lets it leave the graph
    gc.collect()
    assert left[0] == left[1] == left[2]


@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_a_busy_node_quietly(
    client: Any,
    driver: Any,
    start_node: Callable[..., Any],
    tiny_bundle: Path,
    how: signal.Signals,
) -> None:
    node = start_node(bundle=tiny_bundle, autostart=True)
    edges = client.subscribe(Image, '/perception/edges')
    driver.wait_for_node()
    driver.publish(driver.image(GRAY))
    client.wait(lambda: edges, 'edges')
    driver.publish(driver.image(GRAY))
    assert node.stop(how) == 0
    assert 'Traceback' not in node.text()
    assert 'ERROR' not in node.text()


def test_frames_are_processed_or_counted_as_dropped(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(bundle=tiny_bundle, autostart=True)
    pictures = client.subscribe(Image, '/perception/depth_color')
    labels = client.subscribe(Image, '/perception/semantic')
    driver.wait_for_node()
    big = np.zeros((480, 640, 3), np.uint8)
    for _ in range(20):
        driver.publish(driver.image(big))
    last = driver.stamp
    client.wait(lambda: labels and labels[-1].header.stamp.sec == last, 'the newest frame')
    status = client.status(lambda s: s.frames_processed + s.frames_dropped == s.frames_received)
    assert status.frames_received >= status.frames_processed >= 1
    stamps = [label.header.stamp.sec for label in labels]
    assert stamps == sorted(set(stamps))
    assert not pictures  # no calibration: nothing to paint


def test_reports_come_every_second_also_when_idle(
    client: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(bundle=tiny_bundle, autostart=True, use_sim_time=True)  # and nobody plays a clock
    statuses = client.subscribe(PerceptionStatus, '/perception/status')
    arrays = client.subscribe(DiagnosticArray, '/diagnostics')
    client.wait(lambda: len(statuses) >= 2 and len(arrays) >= 2, 'two reports')
    assert statuses[0].bundle == 'tiny'
    assert len(statuses[0].bundle_sha256) == 64
    assert (statuses[0].provider, statuses[0].precision) == ('CPUExecutionProvider', 'fp32')
    names = [status.name for status in arrays[0].status]
    assert names == ['perception: input', 'perception: engine', 'perception: calibration']
    assert arrays[0].status[0].message == 'idle: nobody subscribes to an output'
