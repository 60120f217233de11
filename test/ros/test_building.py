"""An engine that takes long to build is built in the background, and activating waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from mtl_perception_msgs.msg import PerceptionStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

import mtl_perception.node
from mtl_perception.backends import BackendError
from mtl_perception.engines import open_engine


class Builder:
    """Stands in for ``open_engine``: builds until it is let go, or for ever."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.ended_by: list[BaseException] = []
        self.fails = 0

    def __call__(self, *args: Any, progress: Callable[[str, float], None], **options: Any) -> Any:
        try:
            while not self.go.wait(0.02):
                progress('building for a test', 0.25)
        except BaseException as error:
            self.ended_by.append(error)
            raise
        if self.fails:
            self.fails -= 1
            raise BackendError('the test engine cannot be built')
        return open_engine(*args, progress=progress, **options)


@pytest.fixture
def builder(client: Any, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> Iterator[Builder]:
    """A node of this process whose engines are built by the returned builder."""
    builder = Builder()
    names = client.node.get_node_names
    client.wait(lambda: 'perception' not in names(), 'end of the node of the test before')
    monkeypatch.setattr(mtl_perception.node, 'open_engine', builder)
    monkeypatch.setattr(mtl_perception.node, 'BUILD_PATIENCE_S', 0.1)
    context = rclpy.Context()
    rclpy.init(context=context)
    overrides = [
        Parameter('bundle', value=str(tiny_bundle)),
        Parameter('backend', value='onnxruntime'),
    ]
    node = mtl_perception.node.PerceptionNode(context=context, parameter_overrides=overrides)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin)
    thread.start()
    client.wait(lambda: 'perception' in names(), 'the node')
    yield builder
    builder.go.set()
    executor.shutdown()
    thread.join()
    node.destroy_node()
    context.try_shutdown()


def test_the_build_is_reported_and_activation_waits(client: Any, builder: Builder) -> None:
    assert client.transition('configure')
    assert client.state() == 'inactive'
    building = client.diagnostic('engine', lambda d: d.level == DiagnosticStatus.WARN)
    assert building.message == 'building for a test (25%)'

    service = client.node.create_client(ChangeState, '/perception/change_state')
    client.wait(service.service_is_ready, 'the service')
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVATE))
    activation = service.call_async(request)
    client.spin(0.5)  # the node has begun to wait: what it reports from now on, it reports waiting
    statuses = client.subscribe(PerceptionStatus, '/perception/status')
    client.wait(lambda: len(statuses) >= 2, 'reports while activating')
    assert (statuses[-1].activity, statuses[-1].activity_share) == ('building for a test', 0.25)
    assert statuses[-1].bundle == 'tiny'
    assert statuses[-1].engine == ''
    assert not activation.done()

    builder.go.set()
    client.wait(activation.done, 'the end of the activation')
    assert activation.result().success
    client.node.destroy_client(service)
    status = client.status(lambda s: s.activity == '')
    assert status.engine == 'onnxruntime'
    assert status.engine_choice


def test_a_build_that_fails_ends_the_activation_and_is_tried_again(
    client: Any, builder: Builder, capfd: pytest.CaptureFixture[str]
) -> None:
    builder.fails = 1
    assert client.transition('configure')
    builder.go.set()
    assert not client.transition('activate')
    assert client.state() == 'inactive'
    assert 'Cannot activate: the test engine cannot be built' in capfd.readouterr().err
    assert client.transition('activate')
    assert client.state() == 'active'


def test_cleaning_up_ends_the_build(client: Any, builder: Builder) -> None:
    assert client.transition('configure')
    assert client.transition('cleanup')
    assert client.state() == 'unconfigured'
    client.wait(lambda: builder.ended_by, 'end of the build')
    assert client.transition('configure')
    builder.go.set()
    assert client.transition('activate')
