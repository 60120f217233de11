"""Parameters that a node does not have are told, with the name that was meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

from mtl_perception.ros.spelling import Arguments

NODE = '/robot/perception'


def read(*arguments: str) -> Arguments:
    return Arguments.read(['perception_node', *arguments], NODE)


def names(arguments: Arguments) -> list[str]:
    return [given.name for given in arguments.given]


@pytest.mark.parametrize(
    'section',
    ['/robot/perception', '/**', '/**/perception', '/*/perception', '/robot/*', 'robot/perception'],
)
def test_sections_of_a_file_are_matched_as_ros_does(tmp_path: Path, section: str) -> None:
    file = tmp_path / 'mine.yaml'
    file.write_text(f'{section}:\n  ros__parameters: {{a: 1, b: {{c: 2}}}}\n')
    found = read('--ros-args', '--params-file', str(file))
    assert names(found) == ['a', 'b.c']
    assert found.given[0].source == str(file)
    assert not found.strays


@pytest.mark.parametrize('section', ['/perception', '/**/perceptio', '/*', '/robot', '/*/*/*'])
def test_a_file_for_other_nodes_is_told(tmp_path: Path, section: str) -> None:
    file = tmp_path / 'mine.yaml'
    file.write_text(f'{section}:\n  ros__parameters: {{a: 1}}\n')
    found = read('--ros-args', '--params-file', str(file))
    assert not found.given
    assert found.strays == (f'{file} has parameters of {section} and none of {NODE}',)


def test_a_file_for_many_nodes_is_not(tmp_path: Path) -> None:
    file = tmp_path / 'all.yaml'
    file.write_text(
        'other:\n  ros__parameters: {a: 1}\nrobot:\n  perception:\n    ros__parameters: {b: 2}\n'
    )
    found = read('--ros-args', '--params-file', str(file))
    assert (names(found), found.strays) == (['b'], ())


def test_a_file_is_read_as_ros_does_with_tags_and_many_documents(tmp_path: Path) -> None:
    file = tmp_path / 'launch_params_x'
    tagged = '/**:\n  ros__parameters:\n    cameras: !!python/tuple\n    - front\n    - rear\n'
    file.write_text(f'{tagged}---\n/**:\n  ros__parameters: {{threads: 1}}\n')
    found = read('--ros-args', '--params-file', str(file))
    assert (names(found), found.strays) == (['cameras', 'threads'], ())
    assert found.given[0].source == 'a launch file'


def test_the_command_line_is_read_between_its_marks() -> None:
    found = read(
        *('-p', 'before:=1', '--ros-args', '-p', 'a:=1', '--param', 'perception:b:=x:=y'),
        *('-r', '__node:=perception', '-p', 'other:c:=3', '--', '-p', 'after:=1'),
    )
    assert names(found) == ['a', 'b']


def test_the_name_that_was_meant_is_suggested_and_no_other() -> None:
    found = read('--ros-args', '-p', 'rectify:=true', '-p', 'precision:=fp16', '-p', 'xyz:=1')
    known = ['rectified', 'precision', 'provider']
    first, second = found.unknown(known.__contains__, known)
    assert first == (
        'The node has no parameter rectify (the command line), which does nothing; '
        'did you mean rectified?'
    )
    assert second.endswith('xyz (the command line), which does nothing')


def test_the_node_warns_of_what_it_does_not_know_and_of_nothing_else(
    client: Any, start_node: Callable[..., Any], tiny_bundle: Path, tmp_path: Path
) -> None:
    file = tmp_path / 'mine.yaml'
    file.write_text(
        '/**/perception:\n'
        '  ros__parameters:\n'
        '    min_depth_confidance: 100\n'
        '    threads: 1\n'
        '    use_sim_time: false\n'
        '    qos_overrides:\n'
        '      /camera/image_raw: {subscription: {reliability: reliable, relaibility: reliable}}\n'
        '      /perception/edges: {publisher: {depth: 2}}\n'
        '      /image: {subscription: {reliability: reliable}}\n'
        '/percepton:\n'
        '  ros__parameters: {threads: 1}\n'
    )
    wrong = tmp_path / 'wrong.yaml'
    wrong.write_text('/percepton:\n  ros__parameters: {threads: 1}\n')
    node = start_node(
        remaps={'image': '/camera/image_raw', 'camera_info': '/camera/camera_info'},
        reliable=False,
        bundle=tiny_bundle,
        params_file=file,
        program=['-m', 'mtl_perception.ros', '--ros-args', '--params-file', str(wrong), '--'],
        autostart=True,
    )
    assert client.state() == 'active'
    warnings = [
        line.rpartition(']: ')[2] for line in node.text().splitlines() if 'parameter' in line
    ]
    qos = 'qos_overrides./camera/image_raw.subscription'
    assert warnings == [
        f'{wrong} has parameters of /percepton and none of /perception',
        f'The node has no parameter min_depth_confidance ({file}), which does nothing; '
        'did you mean min_depth_confidence?',
        f'The node has no parameter {qos}.relaibility ({file}), which does nothing; '
        f'did you mean {qos}.reliability?',
        f'The node has no parameter qos_overrides./image.subscription.reliability ({file}), '
        f'which does nothing; did you mean {qos}.reliability?',
    ]
