"""`mtl_perception policy`: print the SROS2 policy of a node."""

from __future__ import annotations

import argparse

from ..security import policy
from ..wiring import listed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command: what the launch file takes."""
    for name, default, text in (
        ('name', 'perception', 'of the node'),
        ('namespace', '', 'of the node'),
        ('cameras', '', 'names of many cameras, such as front,left'),
        ('image', 'image', 'topic of the images, without /compressed'),
        ('camera-info', '', 'topic of their CameraInfo (default: camera_info beside the images)'),
        ('outputs', '', 'topics of outputs, such as semantic:=/mask'),
    ):
        parser.add_argument(f'--{name}', default=default, help=text)


def run(options: argparse.Namespace) -> int:
    """Print it."""
    text = policy(
        namespace=options.namespace,
        name=options.name,
        cameras=listed(options.cameras),
        image=options.image,
        camera_info=options.camera_info,
        outputs=options.outputs,
    )
    print(text, end='')
    return 0
