"""The table of parameters is what the docs say and what the node declares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

from rcl_interfaces.srv import DescribeParameters
from rclpy.parameter import Parameter as RosParameter
from sensor_msgs.msg import Image

from mtl_perception.ros.parameters import PARAMETERS, parameters_markdown

DOCS = Path(__file__).resolve().parents[2] / 'docs'


def test_the_docs_are_generated_from_the_table() -> None:
    written = (DOCS / 'parameters.md').read_text()
    assert written == parameters_markdown(), (
        'renew it: ./run exec mtl_perception parameters --markdown > docs/parameters.md'
    )


def test_the_node_declares_the_table(
    client: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    start_node(bundle=tiny_bundle)
    names = [parameter.name for parameter in PARAMETERS]
    found = client.call(DescribeParameters, '/perception/describe_parameters', names=names)
    for parameter, descriptor in zip(PARAMETERS, found.descriptors):
        assert (
            descriptor.type
            == getattr(RosParameter.Type, parameter.type.upper().replace(' ', '_')).value
        )
        assert descriptor.description == parameter.description
        assert descriptor.read_only == (parameter.change == 'start')
        if parameter.range:
            low, high = parameter.range
            (span,) = [*descriptor.integer_range, *descriptor.floating_point_range]
            assert (span.from_value, span.to_value) == (low, high)


def test_an_empty_list_is_one(
    client: Any, driver: Any, start_node: Callable[..., Any], tiny_bundle: Path
) -> None:
    """ROS 2 gives it no type, and the parameter no value."""
    lists = {'mask_classes': '[]', 'tasks': '[]'}
    start_node(bundle=tiny_bundle, autostart=True, **lists)
    masks = client.subscribe(Image, '/perception/mask')
    driver.wait_for_node()
    driver.publish(driver.image(np.full((64, 96, 3), 100, np.uint8)))
    client.wait(lambda: masks, 'mask')
    assert not any(masks[0].data)
    assert client.set_parameter('mask_classes', ['red thing']).successful
    empty = start_node(bundle=tiny_bundle, cameras='[]', autostart=True, code=1)
    assert empty.process.wait(60) == 1
    assert "parameter cameras is empty, expected names, or ['']" in empty.text()
