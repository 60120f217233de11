"""Only what somebody subscribes to is computed, and nothing is lost when that changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

from rcl_interfaces.srv import GetParameters
from sensor_msgs.msg import Image, PointCloud2
from std_srvs.srv import SetBool

from mtl_perception.engines.parts import RUNS_BEFORE

GRAY = np.full((64, 96, 3), 100, np.uint8)
BLUE = np.full_like(GRAY, 255)  # of the fragile bundle, edges fail with it


def test_heads_without_subscribers_are_not_executed_and_switching_loses_no_frame(
    client: Any, driver: Any, start_node: Callable[..., Any], fragile_bundle: Path
) -> None:
    node = start_node(bundle=fragile_bundle, autostart=True)
    labels = client.subscribe(Image, '/perception/semantic')
    driver.wait_for_node()
    sent = 0

    def answered(pixels: np.ndarray, *topics: list[Any]) -> None:
        nonlocal sent
        image = driver.image(pixels)
        driver.publish(image)
        sent += 1
        client.wait(
            lambda: all(t and t[-1].header == image.header for t in topics), 'answers to each image'
        )

    for _ in range(2 * RUNS_BEFORE):
        answered(GRAY, labels)
    client.spin(1.0)  # a part of the tiny model is there long before that
    answered(BLUE, labels)
    edges = client.subscribe(Image, '/perception/edges')
    client.spin(0.5)
    for _ in range(2 * RUNS_BEFORE):
        answered(GRAY, labels, edges)
    client.reset()
    labels = client.subscribe(Image, '/perception/semantic')
    driver = type(driver)(client)
    driver.stamp = 5000
    driver.wait_for_node()
    for pixels in (GRAY, GRAY, BLUE):
        answered(pixels, labels)
    status = client.status(lambda s: s.frames_processed == sent)
    assert (status.frames_dropped, status.engine_failures) == (0, 0)
    assert 'ERROR' not in node.text()


def test_what_may_change_while_the_node_runs_changes_with_the_next_image(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(bundle=tiny_bundle, autostart=True, mask_classes='[red thing]')
    masks, labels, depths = (
        client.subscribe(Image, f'/perception/{topic}') for topic in ('mask', 'semantic', 'depth')
    )
    clouds = client.subscribe(PointCloud2, '/perception/points')
    driver.wait_for_node()
    half = np.full((64, 96, 3), (100, 200, 0), np.uint8)  # green; 5 m at focal length 100
    half[:, :48, 1] = 50  # red

    def answer(*topics: list[Any]) -> list[Any]:
        for topic in topics:
            topic.clear()
        image = driver.image(half)
        driver.publish(image, driver.info(image.header, 96, 64, fx=100.0))
        client.wait(lambda: all(topics), 'answers')
        return [topic[0] for topic in topics]

    def halves(image: Any, dtype: Any = np.uint8) -> list[float]:
        row = np.frombuffer(image.data, dtype).reshape(image.height, image.width)[7]
        return [float(row[3]), float(row[-3])]

    everything = (masks, labels, depths, clouds)
    mask, label, depth, cloud = answer(*everything)
    assert halves(mask) == [255, 0]
    assert halves(label) == [0, 1]
    assert halves(depth, np.float32) == [5.0, 5.0]
    assert (cloud.width, cloud.height) == (96, 64)
    for name, value in (
        ('mask_classes', ['green thing']),
        ('min_semantic_confidence', 150),
        ('max_range', 4.0),
        ('cloud_stride', 4),
    ):
        assert client.set_parameter(name, value).successful
    mask, label, depth, cloud = answer(*everything)
    assert halves(mask) == [0, 255]
    assert halves(label) == [255, 1]
    assert halves(depth, np.float32) == [np.inf, np.inf]
    assert (cloud.width, cloud.height, cloud.row_step) == (24, 16, 24 * 32)

    refused = client.set_parameter('mask_classes', ['purple thing'])
    assert "mask_classes has 'purple thing', expected of red thing" in refused.reason
    assert client.set_parameter('tasks', ['semantic']).successful
    answer(masks, labels)
    assert len(clouds) == len(depths) == 1, 'silent from then on'
    assert client.set_parameter('tasks', ['']).successful
    assert client.set_parameter('mask_classes', ['']).successful
    mask, *_ = answer(*everything)
    assert halves(mask) == [0, 0]


def test_the_service_for_tasks_is_the_parameter(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    from mtl_perception_msgs.srv import SetTasks

    start_node(bundle=tiny_bundle, autostart=True)
    labels, edges = (client.subscribe(Image, f'/perception/{t}') for t in ('semantic', 'edges'))
    driver.wait_for_node()

    def answers(*topics: list[Any]) -> None:
        image = driver.image(GRAY)
        driver.publish(image)
        client.wait(lambda: all(t and t[-1].header == image.header for t in topics), 'answers')

    def ask(*tasks: str) -> Any:
        return client.call(SetTasks, '/perception/set_tasks', tasks=list(tasks))

    def parameter() -> list[str]:
        request = {'names': ['tasks']}
        (value,) = client.call(GetParameters, '/perception/get_parameters', **request).values
        return list(value.string_array_value)

    chosen = ask('semantic')
    assert (chosen.success, chosen.message) == (True, 'computing semantic')
    assert parameter() == ['semantic']
    answers(labels)
    answers(labels)  # by then, edges of the first image would be here
    assert not edges
    for wrong in ('lidar', 'human_parts'):
        refused = ask('edges', wrong)
        assert not refused.success
        assert f'tasks has {wrong!r}, expected of semantic, depth, normals' in refused.message
        assert parameter() == ['semantic'], 'nothing has changed'
    assert ask().message == 'computing all tasks'
    assert parameter() == ['']
    answers(labels, edges)


def test_tasks_that_are_set_before_configuring_are_judged_then(
    client: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    from mtl_perception_msgs.srv import SetTasks

    node = start_node(bundle=tiny_bundle)
    early = client.call(SetTasks, '/perception/set_tasks', tasks=['lidar'])
    assert early.message == 'computing lidar, once the node is configured with them'
    assert not client.transition('configure')
    assert "tasks has 'lidar', expected of semantic" in node.text()


def test_work_can_be_paused(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(bundle=tiny_bundle, autostart=True)
    edges = client.subscribe(Image, '/perception/edges')
    driver.wait_for_node()
    answer = client.call(SetBool, '/perception/enable', data=False)
    assert (answer.success, answer.message) == (True, 'paused')
    client.wait(lambda: not driver.images.get_subscription_count(), 'end of the subscription')
    client.diagnostic('input', lambda s: s.message == 'paused by ~/enable')
    driver.publish(driver.image(GRAY))
    assert client.call(SetBool, '/perception/enable', data=True).message == 'enabled'
    driver.wait_for_node()
    image = driver.image(GRAY)
    driver.publish(image)
    client.wait(lambda: edges, 'edges')
    assert edges[0].header == image.header
