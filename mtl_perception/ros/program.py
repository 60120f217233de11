"""The program: ROS is started, the node is run until it is asked to end, and all is put away."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from .. import one_line
from .ending import Ending
from .logs import log_problem
from .node import PerceptionNode

USAGE = 2  # exit code


def run(ending: Ending, arguments: Sequence[str], **wiring: Any) -> int:
    """Run the node until a signal comes; returns the exit code.

    Args:
        ending: takes the signals.
        arguments: of the process, its name first.
        wiring: the arguments of ``PerceptionNode``.
    """
    arguments = list(arguments)
    try:
        # The first is the name of the program. Nothing but ROS arguments is read.
        strangers = remove_ros_args(arguments)[1:]
        if strangers:
            return _fail(
                f'unexpected argument {strangers[0]!r}; parameters and remaps follow --ros-args, '
                'for example --ros-args -p autostart:=true -r image:=/camera/image_raw',
                USAGE,
            )
        problem = log_problem()
        if problem:
            _say(f'{problem}; the log is on the terminal only')
            arguments += ['--ros-args', '--disable-external-lib-logs']
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rcl's, for arguments and parameter files that it cannot read
        return _fail(one_line(error))
    try:
        return _run_node(ending, arguments, wiring)
    finally:
        rclpy.shutdown()


def _run_node(ending: Ending, arguments: list[str], wiring: dict[str, Any]) -> int:
    try:
        node = PerceptionNode(arguments=arguments, **wiring)
    except (InvalidParameterTypeException, InvalidParameterValueException, RCLError) as error:
        return _fail(one_line(error))
    executor = SingleThreadedExecutor()
    try:
        executor.add_node(node)

        # The executor's own one wakes it and leaves it waiting for something to do.
        wake = node.create_guard_condition(lambda: None)

        def stop() -> None:
            node.interrupt()
            wake.trigger()

        ending.call(stop)
        autostart = node.get_parameter('autostart').value
        if autostart and not node.bring_up():
            return 0 if ending.asked else 1  # the node has said why
        if not autostart:
            name = node.get_fully_qualified_name()
            node.get_logger().info(
                'Unconfigured, waiting for a lifecycle manager, or for ros2 lifecycle set '
                f'{name} configure and ... activate; autostart:=true does without'
            )
        while not ending.asked:
            executor.spin_once()
    finally:
        executor.shutdown()  # else it does so when it is collected, with handles that are gone
        node.destroy_node()
    return 0


def _fail(reason: str, code: int = 1) -> int:
    _say(reason)
    return code


def _say(what: str) -> None:
    with suppress(OSError):  # nobody reads it any more
        print(f'perception_node: {what}', file=sys.stderr)
