"""`mtl_perception view`: start rviz2 in the frame of the camera, which only its images tell."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence

from .. import PerceptionError
from ..offline.cdr import header_frame
from .graph import ros_node

# Images as config/perception.rviz calls them; uncalibrated depth is missing, the others are not.
PICTURES = ('semantic_color', 'depth_color', 'normals_color', 'edges')
HINT_S = 5.0
INTERRUPT_S = 0.5  # how long Ctrl-C may have to wait: rclpy does not see it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        'program',
        nargs=argparse.REMAINDER,
        metavar='PROGRAM ...',
        help='rviz2 and its arguments; remaps after --ros-args say where the pictures are',
    )


def run(options: argparse.Namespace) -> int:
    """Become the program, with -f FRAME once the frame is known."""
    if not options.program or shutil.which(options.program[0]) is None:
        raise PerceptionError(
            f'{" ".join(options.program[:1]) or "no program"} is not there: apt install '
            f'ros-{os.environ.get("ROS_DISTRO", "DISTRO")}-rviz2'
        )
    program, *arguments = options.program
    frame = camera_frame(arguments)
    os.execvp(program, [program, '-f', frame, *arguments])


def camera_frame(arguments: Sequence[str]) -> str:
    """Wait for the frame of the first picture.

    Args:
        arguments: of the process, with its remaps.
    """
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    frames: list[str] = []
    with ros_node('view', arguments) as (node, executor):
        for name in PICTURES:
            node.create_subscription(
                Image,
                f'/perception/{name}',
                lambda data: frames.append(header_frame(data)),
                qos_profile_sensor_data,
                raw=True,
            )
        end = time.monotonic() + HINT_S
        while not frames and time.monotonic() < end:
            executor.spin_once(timeout_sec=INTERRUPT_S)
        if not frames:
            topic = node.resolve_topic_name(f'/perception/{PICTURES[0]}')
            print(f'rviz2 waits for the first message on {topic}', file=sys.stderr)
        while not frames:
            executor.spin_once(timeout_sec=INTERRUPT_S)
    return frames[0]
