"""Start the perception node on a camera: ros2 launch mtl_perception perception.launch.py.

The arguments are listed by --show-args.
"""

from __future__ import annotations

import os

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from mtl_perception.commands.dds import profile_settings
from mtl_perception.share import share

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
    ('params_file', str(share('config/perception.yaml')), 'parameters of the node'),
    ('namespace', '', 'namespace of the node and of its relative topics'),
    ('autostart', 'true', 'configure and activate the node; false: leave it unconfigured'),
    ('use_sim_time', 'false', 'take the time from /clock'),
    ('rviz', 'false', 'show all outputs in rviz2'),
)
# Arguments that are parameters of the node, left to params_file where they are empty.
PASSED_ON = ('bundle', 'backend', 'precision', 'image_transport', 'rectified')
# What config/perception.rviz subscribes to.
SHOWN = ('points', 'semantic_color', 'depth_color', 'normals_color', 'edges')


def remaps(image: str, camera_info: str, cameras: list[str]) -> list[tuple[str, str]]:
    """Where images and CameraInfos come from: names of the node -> topics."""
    above, slash, _ = image.rpartition('/')
    topics = {'image': image, 'camera_info': camera_info or f'{above}{slash}camera_info'}
    if not cameras:
        return list(topics.items())

    def pattern(topic: str) -> str:
        """Topics without a place for the name of the camera are in a namespace of its name."""
        return topic if '{camera}' in topic else '{camera}/' + topic.lstrip('/')

    return [
        (f'{camera}/{name}', pattern(topic).replace('{camera}', camera))
        for camera in cameras
        for name, topic in topics.items()
    ]


def nodes(context: LaunchContext) -> list[SetEnvironmentVariable | Node]:
    given = {name: LaunchConfiguration(name).perform(context) for name, *_ in ARGUMENTS}
    namespace = given['namespace'].strip('/')
    use_sim_time = given['use_sim_time'].lower() == 'true'
    cameras = [name.strip() for name in given['cameras'].split(',') if name.strip()]
    # rviz2 shows the first camera.
    namespaces = [*filter(None, [namespace]), 'perception', *cameras[:1]]
    parameters = {
        'autostart': given['autostart'].lower() == 'true',
        'use_sim_time': use_sim_time,
        **({'cameras': cameras} if cameras else {}),
        **{name: given[name] for name in PASSED_ON if given[name]},
    }
    actions: list[SetEnvironmentVariable | Node] = [
        SetEnvironmentVariable(name, value) for name, value in profile_settings(os.environ).items()
    ]
    # First: where rviz2 is missing, launch gives up, and leaves behind what it has started.
    if given['rviz'].lower() == 'true':
        actions.append(
            Node(
                package='rviz2',
                executable='rviz2',
                arguments=['-d', str(share('config/perception.rviz'))],
                remappings=[
                    (f'/perception/{topic}', '/'.join(['', *namespaces, topic]))
                    for topic in SHOWN
                    if len(namespaces) > 1
                ],
                parameters=[{'use_sim_time': use_sim_time}],
            )
        )
    actions.append(
        Node(
            package='mtl_perception',
            executable='perception_node',
            name='perception',
            namespace=namespace,
            parameters=[given['params_file'], parameters],
            remappings=remaps(given['image'], given['camera_info'], cameras),
            output='screen',
        )
    )
    return actions


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in ARGUMENTS
            ),
            OpaqueFunction(function=nodes),
        ]
    )
