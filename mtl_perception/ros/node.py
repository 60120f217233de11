"""The ROS 2 node: its parameters, its lifecycle, its timers and its reports.

The executor's thread receives messages and leaves the newest image of each camera in a mailbox
(``cameras``); one worker thread owns the engine, takes images out, and publishes what came of them
(``worker``). The engine itself is opened by a thread of its own (``engines.supervisor``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from threading import Event
from time import monotonic
from typing import Any, Protocol

from diagnostic_msgs.msg import DiagnosticArray
from mtl_perception_msgs.srv import DescribeModel, SetTasks
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.parameter import Parameter as RosParameter
from rclpy.qos import QoSProfile
from std_srvs.srv import SetBool

from .. import one_line
from ..bundle import Bundle, BundleError, default_bundle, load_bundle
from ..engines.choice import ChosenEngine, open_engine
from ..engines.engine import EngineOptions, Progress
from ..engines.supervisor import EngineSupervisor, Opener
from ..pipeline import Options, Pipeline
from .cameras import Camera
from .diagnostics import EngineHealth, engine_diagnostic
from .messages import LabelInfo, describe_model
from .parameters import ENGINE_PARAMETERS, PARAMETERS, Parameter, options_of, refusal
from .qos import OVERRIDABLE, OVERRIDES, input_overrides
from .spelling import Arguments
from .worker import Worker

LOOK_HZ = 5.0  # how often a node without listeners looks for some
REPORT_HZ = 1.0  # REP 107
INTERRUPT_S = 0.1  # how long an interrupt may have to wait
# How long configuring waits for the engine, which is there at once unless it has to be built.
PATIENCE_S = 5.0
TABLE = {parameter.name: parameter for parameter in PARAMETERS}


class OpenEngine(Protocol):
    """``choice.open_engine``, or what takes its place in a test."""

    def __call__(
        self, name: str, bundle: Bundle, options: EngineOptions, *, progress: Progress
    ) -> ChosenEngine:
        """Open an engine."""


class PerceptionNode(LifecycleNode):  # type: ignore[misc]
    """Runs a bundle on the images of cameras; see docs/topics.md and docs/parameters.md.

    Args:
        opener: opens engines.
        patience_s: how long configuring waits for the engine.
        arguments: of the process, to tell which parameters in it are misspelt.
        kwargs: of rclpy's node.
    """

    def __init__(
        self,
        *,
        opener: OpenEngine = open_engine,
        patience_s: float = PATIENCE_S,
        arguments: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__('perception', **kwargs)
        self._open_engine = opener
        self._patience_s = patience_s
        self._worker: Worker | None = None  # while configured
        self._cameras: list[Camera] = []
        self._diagnostics: Any = None  # publisher while configured
        self._reports: Any = None  # timer while configured
        self._look: Any = None  # timer while active
        self._enabled = True
        self._interrupted = Event()
        # Last: a value of the wrong type ends it here, and the node must be fit to be destroyed.
        for parameter in PARAMETERS:
            self.declare_parameter(parameter.name, parameter.default, _descriptor(parameter))
        self.add_on_set_parameters_callback(self._check_parameters)
        self.create_service(DescribeModel, '~/describe_model', self._describe_model)
        self.create_service(SetTasks, '~/set_tasks', self._set_tasks)
        self.create_service(SetBool, '~/enable', self._enable)
        self._arguments = Arguments.read(arguments, self.get_fully_qualified_name())
        for sentence in self._arguments.strays:
            self.get_logger().warning(sentence)
        self._warn_of_unknown_parameters(overrides=False)

    @property
    def default_callback_group(self) -> Any:
        """rclpy's, without what is gone: it keeps a reference to everything it ever had."""
        group = super().default_callback_group
        group.entities = {entity for entity in group.entities if entity() is not None}
        return group

    # Lifecycle

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Load the bundle, begin to open the engine, and create the publishers.

        An engine that is there before patience ends is reported here, good or bad. One that takes
        longer is built in the background, and activating waits for it.
        """
        try:
            self._configure()
        except Exception as error:  # also rclpy's, for a QoS override that cannot be
            self.get_logger().error(f'Cannot configure: {one_line(error)}')
            self._close()
            return TransitionCallbackReturn.FAILURE
        return super().on_configure(state)

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        """Wait for the engine, start its thread; subscribe to images once somebody listens."""
        try:
            self._wait_for_engine()
        except Exception as error:
            self.get_logger().error(f'Cannot activate: {one_line(error)}')
            return TransitionCallbackReturn.FAILURE
        if self._interrupted.is_set():
            return TransitionCallbackReturn.FAILURE
        result = super().on_activate(state)
        assert self._worker is not None
        self._worker.start(self._cameras)
        for camera in self._cameras:
            camera.activate()
        self._look = self._timer(LOOK_HZ, self._look_for_listeners)
        self._look_for_listeners()
        return result

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        """Stop the thread after the frame at hand, and all subscriptions."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        """Free the engine, or cancel what is being built, and the publishers."""
        result = super().on_cleanup(state)
        self._close()
        return result

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        """Stop and free everything, from any state."""
        self._stop()
        result = super().on_shutdown(state)
        self._close()
        return result

    def bring_up(self) -> bool:
        """Configure and activate; returns whether the node is active."""
        for transition in (self.trigger_configure, self.trigger_activate):
            if transition() != TransitionCallbackReturn.SUCCESS:
                return False
        return True

    def interrupt(self) -> None:
        """Let nothing wait for the engine any more: the process is to end. From any thread."""
        self._interrupted.set()

    def destroy_node(self) -> None:
        """Stop all threads before the node goes."""
        self._stop()
        if self._worker is not None:
            self._worker.supervisor.close()
        super().destroy_node()

    def _configure(self) -> None:
        problem = refusal(self._values(*(p.name for p in PARAMETERS)), configured=False)
        if problem:
            raise BundleError(f'parameter {problem}')
        bundle = load_bundle(self._value('bundle') or default_bundle())
        supervisor = EngineSupervisor(self._opener(bundle))
        worker = Worker(bundle, supervisor, self.get_logger(), self.context.ok)
        worker.options = Options(**options_of(self._values(*TABLE)))
        self._worker = worker
        supervisor.start()
        built = self._wait_for_build(self._patience_s)
        if built:
            worker.pipeline()
        self._cameras = [
            Camera(
                self,
                name,
                bundle,
                transport=self._value('image_transport'),
                rectified=self._value('rectified'),
                max_age_s=self._value('max_age'),
            )
            for name in self._value('cameras')
        ]
        for camera in self._cameras:
            camera.advertise()
        if bundle.classes and LabelInfo is None:
            self.get_logger().warning(
                'label_info is not published: the package vision_msgs is not installed '
                '(apt install ros-$ROS_DISTRO-vision-msgs)'
            )
        self._diagnostics = self.create_publisher(
            DiagnosticArray,
            '/diagnostics',
            QoSProfile(depth=10),
            qos_overriding_options=OVERRIDABLE,
        )
        self._warn_of_unknown_parameters(overrides=True)
        self._reports = self._timer(REPORT_HZ, self._report)
        if not built:
            activity, _ = supervisor.progress
            self.get_logger().info(f'Building the engine in the background: {activity}')

    def _stop(self) -> None:
        if self._look is not None:
            self.destroy_timer(self._look)
            self._look = None
        for camera in self._cameras:
            camera.unsubscribe()
        if self._worker is not None:
            self._worker.stop()

    def _close(self) -> None:
        if self._reports is not None:
            self.destroy_timer(self._reports)
            self._reports = None
        if self._worker is not None:
            self._worker.supervisor.close()
        for camera in self._cameras:
            camera.destroy()
        if self._diagnostics is not None:
            self.destroy_publisher(self._diagnostics)
        self._cameras, self._diagnostics, self._worker = [], None, None

    def _timer(self, rate_hz: float, call: Any) -> Any:
        """A timer that goes on while simulated time stands still."""
        return self.create_timer(1.0 / rate_hz, call, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _look_for_listeners(self) -> None:
        assert self._worker is not None
        for camera in self._cameras:
            camera.look(self._worker.mailbox, enabled=self._enabled)

    # Parameters and services

    def _value(self, name: str) -> Any:
        parameter = TABLE[name]
        # An empty list has no type in ROS 2, and gives the parameter no value.
        empty = isinstance(parameter.default, tuple) and self.get_parameter_or(name).value is None
        return () if empty else parameter.read(self.get_parameter(name).value)

    def _values(self, *names: str) -> dict[str, Any]:
        return {name: self._value(name) for name in names}

    def _warn_of_unknown_parameters(self, *, overrides: bool) -> None:
        """Of those that override QoS, which are known once there are topics, or of all others."""
        own = [*self.get_parameters_by_prefix(OVERRIDES)]
        names = [f'{OVERRIDES}.{name}' for name in own] if overrides else [*TABLE, 'use_sim_time']
        for topic in (topic for camera in self._cameras for topic in camera.inputs):
            names += input_overrides(topic)

        def is_known(name: str) -> bool:
            others = name.startswith(f'{OVERRIDES}.') != overrides
            return others or name in names or self.has_parameter(name)

        for sentence in self._arguments.unknown(is_known, names):
            self.get_logger().warning(sentence)

    def _check_parameters(self, changed: Sequence[Any]) -> SetParametersResult:
        """Refuse values that cannot be; hand on those that take effect at once."""
        given = {parameter.name: parameter.value for parameter in changed}
        reason = refusal(given, configured=self._worker is not None)
        if not reason and self._worker is not None:
            try:
                self._worker.options = replace(self._worker.options, **options_of(given))
            except BundleError as error:
                reason = str(error)
        if not reason:
            for camera in self._cameras:
                camera.max_age_s = given.get('max_age', camera.max_age_s)
        return SetParametersResult(successful=not reason, reason=reason)

    def _describe_model(self, _: Any, response: Any) -> Any:
        if self._worker is None:
            response.message = 'the node is not configured'
            return response
        health = EngineHealth.of(self._worker.bundle, self._worker.supervisor)
        return describe_model(self._worker.bundle, health.model, response)

    def _set_tasks(self, request: Any, response: Any) -> Any:
        """Set the parameter of that name, by all its rules."""
        tasks = RosParameter('tasks', RosParameter.Type.STRING_ARRAY, list(request.tasks) or [''])
        (result,) = self.set_parameters([tasks])
        response.success = result.successful
        when = '' if self._worker is not None else ', once the node is configured with them'
        what = f'computing {", ".join(request.tasks) or "all tasks"}{when}'
        response.message = result.reason or what
        return response

    def _enable(self, request: Any, response: Any) -> Any:
        """Pause, or go on: without subscriptions to images, as when nobody listens."""
        self._enabled = request.data
        if self._look is not None:
            self._look_for_listeners()
        response.success = True
        response.message = 'enabled' if self._enabled else 'paused'
        return response

    # The engine

    def _opener(self, bundle: Bundle) -> Opener:
        """What opens the engine.

        It does not hold the node: a thread that is still building when the process ends would keep
        it, and with it the node's name on the graph.
        """
        given = self._values(*ENGINE_PARAMETERS)
        options = EngineOptions(max_batch=len(self._value('cameras')), cut=True, **given)
        backend, open_one = self._value('backend'), self._open_engine

        def open_warm(progress: Progress) -> ChosenEngine:
            chosen = open_one(backend, bundle, options, progress=progress)
            try:
                Pipeline(bundle, chosen.engine).warm_up()
            except Exception:
                chosen.engine.close()
                raise
            return chosen

        return open_warm

    def _wait_for_engine(self) -> None:
        """Wait until the engine is ready, reporting once a second, or until an interrupt.

        Raises:
            Exception: it could not be opened; the next call tries again.
        """
        assert self._worker is not None
        self._worker.supervisor.start()
        while not self._wait_for_build(1.0 / REPORT_HZ):
            if self._interrupted.is_set():
                return
            self._report()
        self._worker.pipeline()

    def _wait_for_build(self, seconds: float) -> bool:
        """Wait for the end of what the supervisor does; returns whether it came."""
        assert self._worker is not None
        end = monotonic() + seconds
        while not (built := self._worker.supervisor.wait(INTERRUPT_S)):
            if self._interrupted.is_set() or monotonic() > end:
                break
        return built

    # Reports

    def _report(self) -> None:
        assert self._worker is not None
        health = EngineHealth.of(self._worker.bundle, self._worker.supervisor)
        reports = {camera: camera.report(health) for camera in self._cameras}
        active = self._worker.running
        statuses = [
            *(camera.input_diagnostic(r, active=active) for camera, r in reports.items()),
            engine_diagnostic(list(reports.values()), health),
            *(camera.calibration_diagnostic(r) for camera, r in reports.items()),
        ]
        node = self.get_fully_qualified_name().lstrip('/')
        for status in statuses:
            status.name = f'{node}: {status.name}'
            status.hardware_id = health.model.get('device', '')
        message = DiagnosticArray(status=statuses)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def _descriptor(parameter: Parameter) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=parameter.description,
        read_only=parameter.change == 'start',
        dynamic_typing=parameter.dynamic,
        additional_constraints=', '.join(parameter.choices),
    )
    if parameter.range is not None:
        low, high = parameter.range
        if parameter.type == 'double':
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        else:
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    return descriptor
