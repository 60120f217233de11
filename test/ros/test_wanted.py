"""Only what somebody subscribes to is computed, and nothing is lost when that changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

from sensor_msgs.msg import Image

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
