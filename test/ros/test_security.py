"""The SROS2 policy names what a running node has on the graph, and nothing else."""

from __future__ import annotations

import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

import numpy as np
import yaml
from sensor_msgs.msg import Image

from mtl_perception.bundle import default_bundle
from mtl_perception.outputs import OUTPUTS
from mtl_perception.security import policy

ROOT = Path(__file__).resolve().parents[2]
# The node, with a line for each path that Python writes, makes or removes.
WATCHED = """
import os, sys

def watch(event, arguments):
    if event == 'open' and isinstance(arguments[2], int):
        if not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
    elif event not in ('os.mkdir', 'os.rename', 'os.remove', 'os.symlink', 'os.link'):
        return
    paths = [os.fsdecode(p) for p in arguments[:2] if isinstance(p, str | bytes)]
    for path in paths if event != 'open' else paths[:1]:
        os.write(2, f'WRITES {os.path.abspath(path)}\\n'.encode())

sys.addaudithook(watch)
from mtl_perception.ros.__main__ import main
main()
"""
# Of tasks that the shipped bundle does not have.
ABSENT = {f'/perception/{o.name}' for o in OUTPUTS if {'saliency', 'human_parts'} & {*o.needs}}


def rules(text: str) -> dict[str, set[str]]:
    """Verb -> names."""
    (profile,) = ET.fromstring(text).iterfind('.//profile')
    return {verb: {n.text or '' for n in rule} for rule in profile for verb in rule.attrib}


def test_the_file_is_what_the_command_prints() -> None:
    file = ROOT / 'config' / 'sros2' / 'perception.policy.xml'
    assert file.read_text() == policy(), 'renew it: mtl_perception policy'


def test_a_running_node_has_exactly_that(client: Any, start_node: Callable[..., Any]) -> None:
    allowed = rules(policy())
    start_node(bundle=default_bundle(), autostart=True, use_sim_time=True, reliable=False)
    client.subscribe(Image, '/perception/edges')  # so that it subscribes to images
    node = client.node

    def names(kind: str) -> set[str]:
        found = getattr(node, f'get_{kind}_names_and_types_by_node')('perception', '/')
        return {name for name, _ in found}

    assert client.state() == 'active'
    client.wait(lambda: ('perception', '/') in node.get_node_names_and_namespaces(), 'the node')
    missing = {'/image/compressed'}  # instead of /image, with image_transport: compressed
    client.wait(lambda: names('subscriber') >= allowed['subscribe'] - missing, 'subscriptions')
    client.wait(lambda: names('publisher') >= allowed['publish'] - ABSENT, 'outputs')
    client.wait(lambda: len(names('service')) >= len(allowed['reply']) - 1, 'services')
    assert names('subscriber') == allowed['subscribe'] - missing
    assert names('publisher') == allowed['publish'] - ABSENT
    assert names('service') | {'/perception/get_type_description'} == allowed['reply']
    assert not names('client')


def test_names_cameras_and_remaps_are_followed() -> None:
    text = policy(
        namespace='robot',
        name='eyes',
        cameras=['front', 'rear'],
        image='/{camera}/image_raw',
        outputs='points:=/{camera}/cloud',
    )
    found = rules(text)
    assert {'/front/image_raw/compressed', '/rear/camera_info', '/clock'} <= found['subscribe']
    assert {'/front/cloud', '/robot/eyes/rear/semantic', '/rosout'} <= found['publish']
    assert '/robot/eyes/front/points' not in found['publish']
    assert '/robot/eyes/enable' in found['reply']
    assert '<enclave path="/robot/eyes">' in text
    assert '<profile ns="/robot" node="eyes">' in text


def test_nothing_that_comes_in_is_written_outside_the_cache(
    client: Any,
    start_node: Callable[..., Any],
    make_driver: Callable[..., Any],
    probed_bundle: Path,
    tmp_path: Path,
) -> None:
    evil = '../../../../evil'
    # Deep enough for a way up to end in the folder that is looked at.
    cache = tmp_path / 'a' / 'b' / 'c' / 'd' / 'e' / 'cache'
    bundle = tmp_path / 'a' / 'bundle'
    shutil.copytree(probed_bundle, bundle)
    description = yaml.safe_load((bundle / 'bundle.yaml').read_text())
    description.update(name=evil, version=evil, licence='/tmp/evil')
    for item in description['tasks']['semantic']['classes']:
        item['name'] = f'{evil}/{item["name"]}'
    (bundle / 'bundle.yaml').write_text(yaml.safe_dump(description, sort_keys=False))
    before = {path for path in tmp_path.rglob('*') if path.is_file()}
    folders = {'HOME': 'home', 'ROS_LOG_DIR': 'log', 'TMPDIR': 'tmp', 'XDG_CACHE_HOME': 'xdg'}
    for name in folders.values():
        (tmp_path / name).mkdir()
    node = start_node(
        program=['-B', '-c', WATCHED],
        environment={
            **{variable: str(tmp_path / name) for variable, name in folders.items()},
            'MTL_PERCEPTION_CACHE': str(cache),
        },
        remaps={'image': '/a/evil/image', 'camera_info': '/a/evil/camera_info'},
        bundle=bundle,
        backend='auto',
        autostart=True,
    )
    driver = make_driver('/a/evil/image', '/a/evil/camera_info')
    edges = client.subscribe(Image, '/perception/edges')
    driver.wait_for_node()
    for frame in (evil, '/etc/evil', 'a\nb', '~/evil'):
        image = driver.image(np.zeros((64, 96, 3), np.uint8))
        image.header.frame_id = frame
        driver.publish(image)
        client.wait(lambda frame=frame: edges and edges[-1].header.frame_id == frame, 'its edges')
    assert client.set_parameter('mask_classes', [evil]).reason
    assert client.set_parameter('bundle', evil).reason
    node.stop()
    written = [line[7:] for line in node.text().splitlines() if line.startswith('WRITES ')]
    assert any(path.startswith(str(cache)) for path in written)
    own = [str(cache), str(tmp_path / 'tmp'), str(tmp_path / 'log'), os.devnull]
    above = {str(folder) for folder in cache.parents}
    assert not [p for p in written if not p.startswith(tuple(own)) and p not in above]
    after = {path for path in tmp_path.rglob('*') if path.is_file()} - before
    left = {path for path in after if cache not in path.parents}
    assert {path.relative_to(tmp_path).parts[0] for path in left} <= {'log', 'node_0.log'}, (
        left
    )  # no telemetry


def test_a_node_that_security_refuses_is_one_line(
    start_node: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / 'enclaves' / 'perception').mkdir(parents=True)
    environment = {
        'ROS_SECURITY_ENABLE': 'true',
        'ROS_SECURITY_STRATEGY': 'Enforce',
        'ROS_SECURITY_KEYSTORE': str(tmp_path),
    }
    node = start_node(
        program=['-m', 'mtl_perception.ros', '--ros-args', '--enclave', '/perception', '--'],
        environment=environment,
        code=1,
    )
    node.process.wait(60)
    (line,) = (line for line in node.text().splitlines() if line.startswith('perception_node: '))
    assert 'error creating node' in line
