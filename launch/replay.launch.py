"""Play a recording through the node: ros2 launch mtl_perception replay.launch.py bag:=FOLDER.

It also takes the arguments of perception.launch.py; --show-args lists all.
"""

from __future__ import annotations

import sys

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from mtl_perception.share import share
from mtl_perception.wiring import full_name, listed, recorded_remaps

# name, default, description; the defaults are those of the sample recording.
ARGUMENTS = (
    ('bag', str(share('sample/rooms')), 'recording to play; default: the sample recording'),
    ('rate', '1.0', 'speed of the playback'),
    ('start_offset', '0.0', 'seconds of the recording that are left out'),
    ('loop', 'false', 'play the recording again and again'),
    ('delay', '1.0', 'seconds from when the node is active to the playback'),
)
# Arguments of perception.launch.py that have another default here.
CHANGED = (
    ('image', '/camera/image_raw', 'topic of the images in the recording, without /compressed'),
    ('image_transport', 'compressed', 'raw or compressed'),
    ('use_sim_time', 'true', 'take the time from /clock, which the playback gives'),
    ('rviz', 'true', 'show all outputs in rviz2'),
)
CHOICES = {
    'loop': ('true', 'false'),
    'image_transport': ('raw', 'compressed'),
    'use_sim_time': ('true', 'false'),
    'rviz': ('true', 'false'),
}


def played(event: ProcessExited, context: LaunchContext) -> None:
    """End the launch as a failure where the playback has failed."""
    if event.returncode and not context.is_shutdown:
        raise RuntimeError(f'ros2 bag play ended with exit code {event.returncode}')


def playback(context: LaunchContext) -> list[ExecuteProcess]:
    def given(name: str) -> str:
        return str(LaunchConfiguration(name).perform(context))

    node = full_name(given('namespace'), given('name'))
    remaps = recorded_remaps(node, listed(given('cameras')), given('outputs'))
    # Building an engine can take minutes, in which a recording would play to nobody.
    command = [sys.executable, '-m', 'mtl_perception.commands.cli', 'wait', node]
    command += ['ros2', 'bag', 'play', given('bag'), '--clock', '10', '--rate', given('rate')]
    command += ['--delay', given('delay')]
    command += ['--start-offset', given('start_offset')]
    command += ['--loop'] if given('loop') == 'true' else []
    command += ['--remap', *(f'{topic}:={other}' for topic, other in remaps)]
    return [ExecuteProcess(cmd=command, name='playback', output='screen', on_exit=played)]


def generate_launch_description() -> LaunchDescription:
    perception = PythonLaunchDescriptionSource(str(share('launch/perception.launch.py')))
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(
                    name,
                    default_value=default,
                    description=description,
                    choices=CHOICES.get(name),
                )
                for name, default, description in ARGUMENTS + CHANGED
            ),
            IncludeLaunchDescription(perception),
            OpaqueFunction(function=playback),
        ]
    )
