"""An engine that takes long to build is built in the background, and activating waits for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from mtl_perception_msgs.msg import PerceptionStatus
from sensor_msgs.msg import Image

# A node whose engines are built until a file `go` is there, and cannot be built if `fail` is.
# Runs of an engine fail if `break` is there.
PROGRAM = """
import pathlib
import sys
import time

from mtl_perception.engines.choice import open_engine
from mtl_perception.engines.engine import EngineError
from mtl_perception.ros.__main__ import main

folder = pathlib.Path(sys.argv.pop(1))


def opener(*args, progress, **options):
    try:
        while not (folder / 'go').exists():
            progress('building for a test', 0.25)
            time.sleep(0.02)
    except BaseException:
        (folder / 'ended').touch()
        raise
    if (folder / 'fail').exists():
        (folder / 'fail').unlink()
        raise EngineError('the test engine cannot be built')
    chosen = open_engine(*args, progress=progress, **options)
    run = chosen.engine.run

    def breakable(images, outputs):
        if (folder / 'break').exists():
            raise EngineError('the test engine is broken')
        return run(images, outputs)

    chosen.engine.run = breakable
    return chosen


main(opener=opener, patience_s=0.1)
"""


# Others go on believing in a node for as long as this, unless it says good-bye.
LONG_LEASE = """
<dds xmlns="http://www.eprosima.com"><profiles>
  <participant profile_name="test" is_default_profile="true"><rtps><builtin><discovery_config>
    <leaseDuration><sec>600</sec></leaseDuration>
  </discovery_config></builtin></rtps></participant>
</profiles></dds>
"""


@pytest.fixture
def node(start_node: Callable[..., Any], tiny_bundle: Path, tmp_path: Path) -> Any:
    program, profile = tmp_path / 'slow_node.py', tmp_path / 'lease.xml'
    program.write_text(PROGRAM)
    profile.write_text(LONG_LEASE)
    return start_node(
        program=[str(program), str(tmp_path)],
        bundle=tiny_bundle,
        environment={'FASTDDS_DEFAULT_PROFILES_FILE': str(profile)},
    )


def ask_to_activate(client: Any) -> Any:
    """The future answer to an activation that the node has begun to wait in."""
    service = client.node.create_client(ChangeState, '/perception/change_state')
    client.wait(service.service_is_ready, 'the service')
    activation = service.call_async(
        ChangeState.Request(transition=Transition(id=Transition.TRANSITION_ACTIVATE))
    )
    client.spin(0.5)
    assert not activation.done()
    return activation


def test_the_build_is_reported_and_activation_waits(client: Any, node: Any, tmp_path: Path) -> None:
    assert client.transition('configure')
    assert client.state() == 'inactive'
    building = client.diagnostic('engine', lambda d: d.level == DiagnosticStatus.WARN)
    assert building.message == 'building for a test (25%)'

    activation = ask_to_activate(client)
    statuses = client.subscribe(PerceptionStatus, '/perception/status')
    client.wait(lambda: len(statuses) >= 2, 'reports while activating')
    assert (statuses[-1].activity, statuses[-1].activity_share) == ('building for a test', 0.25)
    assert statuses[-1].bundle == 'tiny'
    assert statuses[-1].engine == ''
    assert not activation.done()

    (tmp_path / 'go').touch()
    client.wait(activation.done, 'the end of the activation')
    assert activation.result().success
    status = client.status(lambda s: s.activity == '')
    assert status.engine == 'onnxruntime'
    assert status.engine_choice


def test_a_build_that_fails_ends_the_activation_and_is_tried_again(
    client: Any, node: Any, tmp_path: Path
) -> None:
    assert client.transition('configure')
    (tmp_path / 'fail').touch()
    activation = ask_to_activate(client)
    (tmp_path / 'go').touch()
    client.wait(activation.done, 'the end of the activation')
    assert not activation.result().success
    assert client.state() == 'inactive'
    assert 'Cannot activate: the test engine cannot be built' in node.text()
    assert client.transition('activate')
    assert client.state() == 'active'


def test_cleaning_up_ends_the_build(client: Any, node: Any, tmp_path: Path) -> None:
    assert client.transition('configure')
    assert client.transition('cleanup')
    assert client.state() == 'unconfigured'
    client.wait((tmp_path / 'ended').exists, 'end of the build')
    assert client.transition('configure')
    (tmp_path / 'go').touch()
    assert client.transition('activate')


def test_a_node_that_builds_its_broken_engine_anew_can_be_deactivated_and_cleaned_up(
    client: Any, driver: Any, node: Any, tmp_path: Path
) -> None:
    (tmp_path / 'go').touch()
    assert client.transition('configure')
    assert client.transition('activate')
    edges = client.subscribe(Image, '/perception/edges')
    driver.wait_for_node()
    picture = np.zeros((64, 96, 3), np.uint8)
    driver.publish(driver.image(picture))
    client.wait(lambda: edges, 'edges')

    (tmp_path / 'go').unlink()  # from now on building lasts for ever
    (tmp_path / 'break').touch()

    def building() -> bool:
        driver.publish(driver.image(picture))
        client.spin(0.2)
        return bool(statuses) and statuses[-1].activity == 'building for a test'

    statuses = client.subscribe(PerceptionStatus, '/perception/status')
    client.wait(building, 'a new try after the pause')
    assert statuses[-1].engine_failures == 1
    assert statuses[-1].frames_dropped > 0
    diagnostic = client.diagnostic('engine', lambda d: d.level == DiagnosticStatus.ERROR)
    assert diagnostic.message == 'the test engine is broken'

    assert client.transition('deactivate')
    assert client.transition('cleanup')
    client.wait((tmp_path / 'ended').exists, 'end of the build')
    assert client.state() == 'unconfigured'


def test_an_engine_that_cannot_be_built_anew_is_tried_again(
    client: Any, driver: Any, node: Any, tmp_path: Path
) -> None:
    (tmp_path / 'go').touch()
    assert client.transition('configure')
    assert client.transition('activate')
    edges = client.subscribe(Image, '/perception/edges')
    driver.wait_for_node()
    picture = np.zeros((64, 96, 3), np.uint8)
    (tmp_path / 'break').touch()
    (tmp_path / 'fail').touch()

    def told(words: str) -> bool:
        driver.publish(driver.image(picture))
        client.spin(0.2)
        return words in node.text()

    client.wait(lambda: told('retrying in 1 s: the test engine is broken'), 'the failure')
    client.wait(lambda: told('retrying in 2 s: the test engine cannot be built'), 'the next one')
    (tmp_path / 'break').unlink()
    assert not edges
    client.wait(lambda: told('') and edges, 'edges')
    client.diagnostic('engine', lambda d: d.level == DiagnosticStatus.OK)


def test_an_interrupt_ends_a_node_that_is_building(client: Any, node: Any) -> None:
    assert client.transition('configure')
    client.diagnostic('engine', lambda d: d.level == DiagnosticStatus.WARN)
    assert node.stop() == 0
    assert 'Traceback' not in node.text()
    names = client.node.get_node_names
    client.wait(lambda: 'perception' not in names(), 'good-bye of the node')
