"""Start the perception node on a camera: ros2 launch mtl_perception perception.launch.py.

The arguments are listed by --show-args.
"""

from __future__ import annotations

import os
from functools import partial

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.events.process import ProcessExited
from launch.substitutions import FindExecutable, LaunchConfiguration
from launch_ros.actions import Node

from mtl_perception.commands.dds import profile_settings
from mtl_perception.ros.parameters import PARAMETERS
from mtl_perception.share import share
from mtl_perception.wiring import (
    existing,
    full_name,
    input_remaps,
    listed,
    number,
    output_remaps,
    shown_remaps,
)

# name, default, description
ARGUMENTS = (
    ('cameras', '', 'names of many cameras, such as front,left; empty: as in params_file'),
    (
        'image',
        'image',
        'topic of the images, without /compressed; with many cameras that of each, such as '
        '/{camera}/image_raw',
    ),
    ('camera_info', '', 'topic of their CameraInfo; empty: camera_info beside the image topic'),
    ('image_transport', '', 'raw or compressed; empty: as in params_file'),
    ('rectified', '', 'auto, true or false; empty: as in params_file'),
    ('bundle', '', 'folder of the model bundle; empty: as in params_file'),
    ('backend', '', 'auto, tensorrt, openvino or onnxruntime; empty: as in params_file'),
    ('precision', '', 'fp32, fp16, bf16 or int8; empty: as in params_file'),
    ('threads', '', 'CPU threads of the engine; empty: as in params_file'),
    ('min_depth_confidence', '', '0 to 255, below it depth is NaN; empty: as in params_file'),
    (
        'mask_classes',
        '',
        'classes that ~/mask shows, such as person,chair; empty: as in params_file',
    ),
    (
        'outputs',
        '',
        'topics of outputs, such as semantic:=/mask,points:=/cloud; with many cameras '
        'points:=/{camera}/cloud; empty: NAME/semantic, ...',
    ),
    ('params_file', '', 'parameters of the node, such as a copy of config/perception.yaml'),
    ('name', 'perception', 'of the node'),
    ('namespace', '', 'namespace of the node and of its relative topics'),
    ('autostart', 'true', 'configure and activate the node; false: leave it unconfigured'),
    ('respawn', 'false', 'start a node that died again; false: its end is that of the launch'),
    ('log_level', 'info', 'of the node'),
    ('use_sim_time', '', 'take the time from /clock; empty: as in params_file'),
    ('rviz', 'false', 'show all outputs in rviz2'),
    ('fixed_frame', '', 'of rviz2; empty: that of the images, for which rviz2 waits'),
)
# Arguments that are parameters of the node, left to params_file where they are empty.
PASSED_ON = (
    'bundle',
    'backend',
    'precision',
    'image_transport',
    'rectified',
    'threads',
    'min_depth_confidence',
    'mask_classes',
    'use_sim_time',
)
# Of what type they are, where not of text.
TYPES = {
    'threads': partial(number, 'threads'),
    'min_depth_confidence': partial(number, 'min_depth_confidence'),
    'mask_classes': listed,
    'use_sim_time': 'true'.__eq__,
}
RESPAWN_S = 2.0
# What an argument may be, where that is not any text.
CHOICES = {
    **{p.name: ('', *p.choices) for p in PARAMETERS if p.choices and p.name in PASSED_ON},
    'autostart': ('true', 'false'),
    'rviz': ('true', 'false'),
    'respawn': ('true', 'false'),
    'use_sim_time': ('', 'true', 'false'),
    'log_level': ('debug', 'info', 'warn', 'error', 'fatal'),
}
# What config/perception.rviz subscribes to.
SHOWN = ('points', 'semantic_color', 'depth_color', 'normals_color', 'edges')


def ended(event: ProcessExited, context: LaunchContext) -> Shutdown | None:
    """End the launch with the node; as a failure, exit code 1, where the node has failed."""
    if context.is_shutdown:
        return None
    if event.returncode:
        raise RuntimeError(f'perception_node ended with exit code {event.returncode}')
    return Shutdown(reason='perception_node ended')


def rviz(frame: str, remappings: list[tuple[str, str]], parameters: dict[str, bool]) -> Node:
    """rviz2 with a fixed frame; without one, with that of the first picture."""
    config = ['-d', str(share('config/perception.rviz'))]
    program = {
        'package': 'mtl_perception',
        'executable': 'mtl_perception',
        'arguments': ['view', FindExecutable(name='rviz2'), *config],
    }
    if frame:
        program = {
            'package': 'rviz2',
            'executable': 'rviz2',
            'arguments': [*config, '-f', frame],
        }
    return Node(**program, remappings=remappings, parameters=[parameters], output='screen')


def nodes(context: LaunchContext) -> list[SetEnvironmentVariable | Node]:
    given = {name: LaunchConfiguration(name).perform(context) for name, *_ in ARGUMENTS}
    respawn = given['respawn'] == 'true'
    node, cameras = full_name(given['namespace'], given['name']), listed(given['cameras'])
    passed_on = {name: TYPES.get(name, str)(given[name]) for name in PASSED_ON if given[name]}
    files = [existing('params_file', path) for path in (given['params_file'],) if path]
    actions: list[SetEnvironmentVariable | Node] = [
        SetEnvironmentVariable(name, value) for name, value in profile_settings(os.environ).items()
    ]
    # First: where rviz2 is missing, launch gives up, and leaves behind what it has started.
    if given['rviz'] == 'true':
        actions.append(
            rviz(
                given['fixed_frame'],
                shown_remaps(SHOWN, node, cameras, given['outputs']),
                {name: passed_on[name] for name in ('use_sim_time',) if name in passed_on},
            )
        )
    actions.append(
        Node(
            package='mtl_perception',
            executable='perception_node',
            name=given['name'],
            namespace=given['namespace'].strip('/'),
            # Without a file the node has its defaults, which a launch-wide SetParameter changes.
            parameters=[
                *files,
                {
                    'autostart': given['autostart'] == 'true',
                    **({'cameras': cameras} if cameras else {}),
                    **passed_on,
                },
            ],
            ros_arguments=['--log-level', given['log_level']],
            respawn=respawn,
            respawn_delay=RESPAWN_S,
            on_exit=None if respawn else ended,
            remappings=[
                *input_remaps(given['image'], given['camera_info'], cameras),
                *output_remaps(given['outputs'], cameras),
            ],
            output='screen',
        )
    )
    return actions


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(
                    name,
                    default_value=default,
                    description=description,
                    choices=CHOICES.get(name),
                )
                for name, default, description in ARGUMENTS
            ),
            OpaqueFunction(function=nodes),
        ]
    )
