"""The files users start with: launch files, parameter file, rviz configuration, DDS profile."""

from __future__ import annotations

import ast
import importlib.util
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip('rclpy', reason='ROS 2 for Python is not installed')

from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python

from mtl_perception.outputs import OUTPUTS
from mtl_perception.ros.parameters import PARAMETERS
from mtl_perception.wiring import WiringError

ROOT = Path(__file__).resolve().parents[2]


def arguments(path: Path) -> set[str]:
    """The names in the tables of arguments of a launch file, without running it."""
    tables = [
        node.value
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        and getattr(node.targets[0], 'id', '') in ('ARGUMENTS', 'CHANGED')
    ]
    return {row.elts[0].value for table in tables for row in table.elts}


def test_the_launch_files_take_the_documented_arguments() -> None:
    documented = {
        'cameras', 'image', 'camera_info', 'image_transport', 'rectified', 'bundle', 'backend',
        'precision', 'params_file', 'namespace', 'rviz', 'use_sim_time', 'autostart',
        'respawn', 'log_level', 'threads', 'min_depth_confidence', 'mask_classes', 'outputs',
        'name', 'fixed_frame',
    }  # fmt: skip
    assert arguments(ROOT / 'launch' / 'perception.launch.py') == documented
    own = {'bag', 'rate', 'start_offset', 'loop', 'delay'}
    assert arguments(ROOT / 'launch' / 'replay.launch.py') - documented == own


def load(name: str) -> Any:
    """A launch file as a module."""
    pytest.importorskip('launch_ros', reason='launch_ros is not installed')
    path = ROOT / 'launch' / f'{name}.launch.py'
    spec = importlib.util.spec_from_file_location(f'{name}_launch', path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('name', ['perception', 'replay'])
def test_the_launch_files_load(name: str) -> None:
    assert load(name).generate_launch_description().entities


def configured(module: Any, **changes: str) -> Any:
    """A context of launch with the defaults of a launch file."""
    import launch

    context = launch.LaunchContext()
    defaults = {name: default for name, default, _ in module.ARGUMENTS}
    context.launch_configurations.update(defaults, **changes)
    return context


def command_of(context: Any, action: Any) -> list[str]:
    """The command line of a process, after launch has filled it in."""
    from launch.utilities import perform_substitutions

    return [perform_substitutions(context, [*words]) for words in action.cmd]


def test_rviz_is_started_first_in_the_frame_of_the_camera(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = load('perception')
    (tmp_path / 'rviz2').write_text('#!/bin/sh\n')
    (tmp_path / 'rviz2').chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=':')

    def programs(**changes: str) -> list[Any]:
        context = configured(module, rviz='true', namespace='robot', **changes)
        return [a for a in module.nodes(context) if hasattr(a, 'node_executable')]

    # Without rviz2 launch gives up at once, and a node that it has started would go on alone.
    view, node = programs()
    assert (view.node_executable, node.node_executable) == ('mtl_perception', 'perception_node')
    words = view._Node__arguments
    assert words[0] == 'view'
    assert words[1].perform(configured(module)) == str(tmp_path / 'rviz2')
    assert words[2:] == ['-d', str(ROOT / 'config' / 'perception.rviz')]
    view, node = programs(fixed_frame='map')
    assert (view.node_package, view.node_executable) == ('rviz2', 'rviz2')
    assert view._Node__arguments[-2:] == ['-f', 'map']


def test_outputs_and_the_name_of_the_node_are_chosen() -> None:
    module = load('perception')
    context = configured(
        module, name='eyes', outputs='semantic:=/{camera}_mask', cameras='front,rear'
    )
    (node,) = [a for a in module.nodes(context) if hasattr(a, 'node_executable')]
    assert node._Node__node_name == 'eyes'
    remaps = [(s[0].text, t[0].text) for s, t in node._Node__remappings]
    assert remaps[-2:] == [('~/front/semantic', '/front_mask'), ('~/rear/semantic', '/rear_mask')]


def test_the_playback_leaves_the_topics_of_the_node_alone() -> None:
    module = load('replay')
    context = configured(load('perception'), namespace='robot')
    context.launch_configurations.update(
        {name: default for name, default, _ in module.ARGUMENTS}, loop='true', start_offset='2.5'
    )
    (play,) = module.playback(context)
    command = ' '.join(command_of(context, play))
    assert ' wait /robot/perception ros2 bag play ' in command
    assert f' {ROOT}/resource/sample/rooms --clock 10 --rate 1.0 --delay 1.0 ' in command
    assert ' --start-offset 2.5 --loop --remap /robot/perception/semantic:=/recorded/' in command
    context.launch_configurations['loop'] = 'false'
    (play,) = module.playback(context)
    assert '--loop' not in command_of(context, play)


def test_a_failed_playback_fails_the_launch() -> None:
    module = load('replay')
    import launch

    event = launch.events.process.ProcessExited
    facts = {'name': 'ros2', 'cmd': [], 'cwd': None, 'env': None, 'pid': 1, 'action': None}
    module.played(event(returncode=0, **facts), launch.LaunchContext())
    with pytest.raises(RuntimeError, match='bag play ended with exit code 2'):
        module.played(event(returncode=2, **facts), launch.LaunchContext())


def test_launch_sets_the_dds_profile_unless_the_user_has_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = load('perception')
    import launch

    def settings() -> list[str]:
        context = launch.LaunchContext()
        context.launch_configurations.update({name: text for name, text, _ in module.ARGUMENTS})
        actions = module.nodes(context)
        chosen = [a for a in actions if isinstance(a, launch.actions.SetEnvironmentVariable)]
        return [context.perform_substitution(action.value[0]) for action in chosen]

    for variable in ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'):
        monkeypatch.delenv(variable, raising=False)
    assert settings() == [str(ROOT / 'config' / 'fastdds.xml')]
    monkeypatch.setenv('FASTRTPS_DEFAULT_PROFILES_FILE', 'own.xml')
    assert settings() == []


def test_the_parameter_file_holds_the_defaults() -> None:
    content = yaml.safe_load((ROOT / 'config' / 'perception.yaml').read_text())
    given = content['/**/perception']['ros__parameters']
    defaults = {p.name: p.default for p in PARAMETERS if p.name != 'autostart'}
    assert given == {n: [*d] if isinstance(d, tuple) else d for n, d in defaults.items()}


def test_the_node_reads_the_parameter_file(
    client: Any, start_node: Callable[..., Any], tmp_path: Path
) -> None:
    text = (ROOT / 'config' / 'perception.yaml').read_text()
    changed = text.replace('threads: 0', 'threads: 3')
    assert changed != text
    (tmp_path / 'mine.yaml').write_text(changed)
    start_node(params_file=tmp_path / 'mine.yaml')
    found = client.call(GetParameters, '/perception/get_parameters', names=['threads'])
    assert parameter_value_to_python(found.values[0]) == 3


def test_rviz_shows_the_cloud_and_the_pictures() -> None:
    content = yaml.safe_load((ROOT / 'config' / 'perception.rviz').read_text())
    displays = content['Visualization Manager']['Displays']
    shown = {d['Topic']['Value'] for d in displays if 'Topic' in d}
    pictures = [output.name for output in OUTPUTS if output.name.endswith('_color')]
    assert shown == {f'/perception/{topic}' for topic in (*pictures, 'edges', 'points')}
    assert all(d['Topic']['Reliability Policy'] == 'Reliable' for d in displays if 'Topic' in d)


def test_the_dds_profile_has_room_for_images() -> None:
    namespace = {'dds': 'http://www.eprosima.com'}
    root = ET.parse(ROOT / 'config' / 'fastdds.xml').getroot()
    (size,) = root.findall('.//dds:segment_size', namespace)
    assert size.text == str(64 * 2**20)
    (parts,) = root.findall('.//dds:port_queue_capacity', namespace)
    assert int(parts.text) * 2**16 >= 4 * 3840 * 2160 * 3, 'parts of 64 KB, of images of 4K'


def test_a_node_that_fails_fails_the_launch_and_one_that_ends_ends_it() -> None:
    module = load('perception')
    import launch

    context = launch.LaunchContext()
    event = launch.events.process.ProcessExited
    facts = {'name': 'perception', 'cmd': [], 'cwd': None, 'env': None, 'pid': 1, 'action': None}
    with pytest.raises(RuntimeError, match='ended with exit code 3'):
        module.ended(event(returncode=3, **facts), context)
    assert isinstance(module.ended(event(returncode=0, **facts), context), launch.actions.Shutdown)
    context._set_is_shutdown(True)
    assert module.ended(event(returncode=3, **facts), context) is None


@pytest.mark.parametrize('respawn', ['true', 'false'])
def test_respawning_and_the_level_of_the_log_reach_the_node(respawn: str) -> None:
    module = load('perception')
    context = configured(module, respawn=respawn, log_level='debug')
    (node,) = [a for a in module.nodes(context) if hasattr(a, 'node_executable')]
    assert node._ExecuteLocal__respawn == (respawn == 'true')
    # What is started again must not end the launch when it ends.
    assert node._ExecuteLocal__on_exit is (None if respawn == 'true' else module.ended)
    words = [getattr(word, 'text', '') for words in node.cmd for word in words]
    assert words[words.index('--log-level') + 1] == 'debug'


def test_a_parameter_file_that_is_missing_is_named(tmp_path: Path) -> None:
    module = load('perception')
    missing = str(tmp_path / 'mine.yaml')
    with pytest.raises(WiringError, match=r"params_file is '.*mine.yaml', expected a file"):
        module.nodes(configured(module, params_file=missing))
    Path(missing).write_text('')
    assert module.nodes(configured(module, params_file=missing))


def test_a_number_that_is_none_is_named() -> None:
    module = load('perception')
    with pytest.raises(WiringError, match="threads is 'two', expected a whole number"):
        module.nodes(configured(module, threads='two'))


def test_arguments_that_are_left_out_override_nothing() -> None:
    module = load('perception')
    import launch
    from launch_ros.utilities import evaluate_parameters

    context = launch.LaunchContext()
    defaults = {name: default for name, default, _ in module.ARGUMENTS}
    assert all(not defaults[name] for name in (*module.PASSED_ON, 'params_file'))
    for name, choices in module.CHOICES.items():
        assert defaults[name] in choices
    typed = {
        'threads': '2',
        'min_depth_confidence': '9',
        'use_sim_time': 'false',
        'mask_classes': 'chair, table',
    }
    for changes, expected in (
        ({}, {'autostart': True}),
        (
            typed,
            {
                'autostart': True,
                'threads': 2,
                'min_depth_confidence': 9,
                'use_sim_time': False,
                'mask_classes': ('chair', 'table'),
            },
        ),
    ):
        context.launch_configurations.update(defaults, **changes)
        (node,) = [a for a in module.nodes(context) if hasattr(a, 'node_executable')]
        (given,) = evaluate_parameters(context, node._Node__parameters)
        assert given == expected
