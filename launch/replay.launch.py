"""Play a recording through the node: ros2 launch mtl_perception replay.launch.py bag:=FOLDER."""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    TimerAction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from mtl_perception.share import share

# name, default, description; the defaults are those of the sample recording.
ARGUMENTS = (
    ('bag', str(share('sample/rooms')), 'recording to play; default: the sample recording'),
    ('rate', '1.0', 'speed of the playback'),
    ('delay', '5.0', 'seconds that the node gets to start before the playback'),
    ('rviz', 'true', 'show all outputs in rviz2'),
)
# Handed on to perception.launch.py.
CAMERA = (
    ('image', '/camera/image_raw', 'topic of the images in the recording, without /compressed'),
    ('camera_info', '', 'topic of their CameraInfo; empty: camera_info beside the image topic'),
    ('image_transport', 'compressed', 'raw or compressed'),
    ('rectified', '', 'auto, true or false; empty: as in params_file'),
    ('bundle', '', 'folder of the model bundle; empty: as in params_file'),
    ('backend', '', 'auto, tensorrt, openvino or onnxruntime; empty: as in params_file'),
    ('precision', '', 'fp32, fp16, bf16 or int8; empty: as in params_file'),
    ('params_file', '', 'parameters of the node'),
)


def generate_launch_description() -> LaunchDescription:
    given = LaunchConfiguration
    perception = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share('launch/perception.launch.py'))),
        launch_arguments={
            'use_sim_time': 'true',
            'rviz': given('rviz'),
            **{name: given(name) for name, *_ in CAMERA},
        }.items(),
    )
    play = ExecuteProcess(
        cmd=['ros2', 'bag', 'play', given('bag'), '--clock', '10', '--rate', given('rate')],
        output='screen',
    )
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in ARGUMENTS + CAMERA
            ),
            perception,
            TimerAction(period=given('delay'), actions=[play]),
        ]
    )
