"""The table of parameters is what the docs say and what the node declares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

from rcl_interfaces.srv import DescribeParameters
from rclpy.parameter import Parameter as RosParameter

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
