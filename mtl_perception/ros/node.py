"""The ROS 2 node: parameters, topics, lifecycle, and the thread that runs the pipeline.

The executor's thread receives messages and leaves the newest image of each camera in a mailbox; one
worker thread owns the engine, takes images out, and publishes what came of them. The engine itself
is built by a thread of its own, since that can take minutes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from threading import Thread
from time import monotonic, perf_counter
from typing import Any

import numpy as np
import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from mtl_perception_msgs.msg import PerceptionStatus
from mtl_perception_msgs.srv import DescribeModel
from numpy.typing import NDArray
from rcl_interfaces.msg import IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from .. import one_line
from ..bundle import Bundle, BundleError, default_bundle, load_bundle
from ..camera import CameraError, CameraModel
from ..engines.choice import ChosenEngine, open_engine
from ..engines.engine import EngineError, EngineOptions, Progress
from ..engines.supervisor import Background
from ..images import ImageError, read_image
from ..outputs import Make, Output, outputs_of
from ..pipeline import Frame, Options, Pipeline, Prediction
from .calibration import CameraInfos, camera_model
from .diagnostics import (
    CALIBRATIONS,
    EngineHealth,
    Statistics,
    calibration_diagnostic,
    engine_diagnostic,
    input_diagnostic,
    status_message,
)
from .mailbox import Mailbox
from .messages import header_of, message_class, stamp_ns, to_message
from .parameters import PARAMETERS, Parameter

try:
    from vision_msgs.msg import LabelInfo, VisionClass
except ImportError:  # the one output that needs it stays unpublished
    LabelInfo = VisionClass = None

# Images are used while they are fresh or not at all; outputs reach every kind of subscriber.
# Every topic gets a copy: rclpy writes the overrides of a topic into the profile it is given.
INPUT_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
)
# CameraInfos are small, and several may come between two looks at them.
INFO_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=8, reliability=ReliabilityPolicy.BEST_EFFORT
)
OUTPUT_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE
)
LATCHED_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)

# How long an idle node may sleep: a signal wakes the executor just before it ends the context, and
# an executor that is faster sleeps on, for ever if nothing else happens.
SIGNAL_S = 1.0
LOOK_HZ = 5.0  # how often a node without listeners looks for some
REPORT_HZ = 1.0  # REP 107
CAMERA_INFO_WAIT_S = 0.05
# How long configuring waits for the engine, which is there at once unless it has to be built.
BUILD_PATIENCE_S = 5.0
RETRY_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # pauses after 1, 2, ... engine failures in a row


@dataclass(frozen=True)
class Arrival:
    """An image message with the time at which it came."""

    message: Any  # sensor_msgs Image or CompressedImage
    time: float  # perf_counter


class Camera:
    """The topics and counts of one camera."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.prefix = f'{name}/' if name else ''
        self.publishers: dict[Output, Any] = {}
        self.makers: dict[Output, Make] = {}
        self.subscriptions: list[Any] = []
        self.infos = CameraInfos()
        self.statistics = Statistics()
        self.calibration = PerceptionStatus.CALIBRATION_UNKNOWN
        self.calibration_detail = ''
        self.frame_id = ''
        self.failure = ''  # why it cannot be subscribed to

    def listened(self) -> list[Output]:
        """The outputs that somebody subscribes to."""
        return [output for output, p in self.publishers.items() if p.get_subscription_count() > 0]


class PerceptionNode(LifecycleNode):  # type: ignore[misc]
    """Runs a bundle on the images of a camera; see docs/topics.md and docs/parameters.md."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('perception', **kwargs)
        self._cameras: list[Camera] = []
        self._labels: dict[str, Any] = {}
        # Reports are made from configuring on, by publishers without a lifecycle.
        self._status: dict[Camera, Any] = {}
        self._diagnostics: Any = None
        self._look: Any = None  # timer while active
        self._reports: Any = None  # timer while configured
        self._pipeline: Pipeline | None = None
        self._bundle: Bundle | None = None
        self._model: dict[str, str] = {}
        self._mailbox: Mailbox[Camera, Arrival] = Mailbox()
        self._worker: Thread | None = None
        self._rectified = False
        self._building: Background[tuple[ChosenEngine, Pipeline]] | None = None
        self._choice = ''  # why this engine
        self._refused: tuple[str, ...] = ()
        self._failure = ''
        self._failures = 0
        self._retry_at = 0.0
        # Last: a value of the wrong type ends it here, and the node must be fit to be destroyed.
        for parameter in PARAMETERS:
            self.declare_parameter(parameter.name, parameter.default, _descriptor(parameter))
        self.add_on_set_parameters_callback(self._check_parameters)
        self.create_service(DescribeModel, '~/describe_model', self._describe_model)

    # Lifecycle

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        """Load the bundle, create the publishers and start to build the engine.

        An engine that is there within ``BUILD_PATIENCE_S`` is reported here, good or bad. One that
        takes longer is built in the background, and activating waits for it.
        """
        try:
            for parameter in PARAMETERS:
                problem = parameter.problem(self._value(parameter.name))
                if problem:
                    raise BundleError(f'parameter {problem}')
            self._bundle = load_bundle(self._value('bundle') or default_bundle())
            self._model = {
                'bundle': self._bundle.name,
                'bundle_version': self._bundle.version,
                'bundle_sha256': self._bundle.sha256,
            }
            self._build()
            if self._building is not None and self._building.wait(BUILD_PATIENCE_S):
                self._take_engine()
            self._rectified = self._value('rectified')
            self._cameras = [Camera('')]
            self._create_publishers(self._bundle)
        except Exception as error:  # also rclpy's, for a QoS override that cannot be
            self.get_logger().error(f'Cannot configure: {one_line(error)}')
            self._close()
            return TransitionCallbackReturn.FAILURE
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # also while simulated time stands still
        self._reports = self.create_timer(1.0 / REPORT_HZ, self._report, clock=steady)
        if self._building is not None:
            self.get_logger().info(f'Building the engine in the background: {self._activity()[0]}')
        return super().on_configure(state)

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        """Wait for the engine, start its thread; subscribe to images once somebody listens."""
        try:
            self._wait_for_engine()
        except (BundleError, EngineError) as error:
            self.get_logger().error(f'Cannot activate: {error}')
            return TransitionCallbackReturn.FAILURE
        result = super().on_activate(state)
        self._mailbox = Mailbox()
        self._worker = Thread(target=self._work, name='engine', daemon=True)
        self._worker.start()
        for camera in self._cameras:
            camera.statistics.report()  # a new interval
            self._publish_labels(camera)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._look = self.create_timer(1.0 / LOOK_HZ, self._look_for_listeners, clock=steady)
        self._look_for_listeners()
        return result

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        """Stop the thread after the frame at hand, and all subscriptions."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        """Free the engine and the publishers."""
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

    def destroy_node(self) -> None:
        """Stop the thread before the node goes."""
        self._stop()
        super().destroy_node()

    def _stop(self) -> None:
        if self._look is not None:
            self.destroy_timer(self._look)
            self._look = None
        for camera in self._cameras:
            self._unsubscribe(camera)
        self._mailbox.close()
        if self._worker is not None:
            self._worker.join()
            self._worker = None

    def _close(self) -> None:
        if self._reports is not None:
            self.destroy_timer(self._reports)
            self._reports = None
        if self._building is not None:
            self._building.cancel()
            self._building = None
        outputs = [p for camera in self._cameras for p in camera.publishers.values()]
        for publisher in [*outputs, *self._labels.values()]:
            self.destroy_lifecycle_publisher(publisher)
        for publisher in self._status.values():
            self.destroy_publisher(publisher)
        if self._diagnostics is not None:
            self.destroy_publisher(self._diagnostics)
        self._cameras, self._labels, self._status, self._diagnostics = [], {}, {}, None
        self._model = {}
        self._choice, self._refused = '', ()
        if self._pipeline is not None:
            self._pipeline.engine.close()
        self._pipeline = self._bundle = None
        self._failure, self._failures, self._retry_at = '', 0, 0.0

    # Parameters and services

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _check_parameters(self, changed: Sequence[Any]) -> SetParametersResult:
        """Refuse values that cannot be; hand on those that take effect at once."""
        table = {parameter.name: parameter for parameter in PARAMETERS}
        for parameter in changed:
            entry = table.get(parameter.name)
            if entry is None:
                continue
            reason = entry.problem(parameter.value)
            if not reason and entry.change == 'unconfigured' and self._bundle is not None:
                reason = f'{parameter.name} can change while unconfigured only: clean up first'
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        if self._pipeline is not None:
            try:
                self._pipeline.options = self._options({p.name: p.value for p in changed})
            except BundleError as error:
                return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _options(self, changed: Mapping[str, Any]) -> Options:
        names = ('min_depth_confidence', 'allow_uncalibrated')
        return Options(**{name: changed.get(name, self._value(name)) for name in names})

    def _describe_model(self, _: Any, response: Any) -> Any:
        bundle = self._bundle
        response.success = bundle is not None
        if bundle is None:
            response.message = 'the node is not configured'
            return response
        response.name, response.version, response.licence = (
            bundle.name,
            bundle.version,
            bundle.licence,
        )
        response.sha256 = bundle.sha256
        response.height, response.width = bundle.height, bundle.width
        response.canonical_focal = bundle.canonical_focal or 0.0
        response.tasks, response.outputs = list(bundle.tasks), list(bundle.outputs)
        response.class_ids = [c.id for c in bundle.classes]
        response.class_names = [c.name for c in bundle.classes]
        for key in ('engine', 'engine_version', 'provider', 'device', 'precision'):
            setattr(response, key, self._model.get(key, ''))  # empty while it is built
        response.provenance = yaml.safe_dump(dict(bundle.provenance), sort_keys=False)
        return response

    # Topics

    def _create_publishers(self, bundle: Bundle) -> None:
        for camera in self._cameras:
            for output in outputs_of(bundle):
                camera.makers[output] = output.maker(bundle)
                camera.publishers[output] = self._create_publisher(
                    message_class(output), f'{camera.prefix}{output.name}'
                )
            if bundle.classes and LabelInfo is not None:
                self._labels['label_info'] = self._create_publisher(
                    LabelInfo, f'{camera.prefix}label_info', LATCHED_QOS
                )
            elif bundle.classes:
                self.get_logger().warning(
                    'label_info is not published: the package vision_msgs is not installed '
                    '(apt install ros-$ROS_DISTRO-vision-msgs)'
                )
            self._status[camera] = self.create_publisher(
                PerceptionStatus,
                f'~/{camera.prefix}status',
                copy(OUTPUT_QOS),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
        self._diagnostics = self.create_publisher(
            DiagnosticArray,
            '/diagnostics',
            QoSProfile(depth=10),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _create_publisher(self, kind: Any, topic: str, qos: QoSProfile = OUTPUT_QOS) -> Any:
        return self.create_lifecycle_publisher(
            kind,
            f'~/{topic}',
            copy(qos),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _publish_labels(self, camera: Camera) -> None:
        publisher = self._labels.get('label_info')
        if publisher is None or self._bundle is None:
            return
        message = LabelInfo()
        message.header.stamp = self.get_clock().now().to_msg()
        message.class_map = [
            VisionClass(class_id=c.id, class_name=c.name) for c in self._bundle.classes
        ]
        publisher.publish(message)

    def _look_for_listeners(self) -> None:
        """Subscribe to the images of the cameras that somebody listens to, and to no others."""
        for camera in self._cameras:
            listened = bool(camera.listened())
            if listened and not camera.subscriptions and not camera.failure:
                try:
                    self._subscribe(camera)
                except Exception as error:  # rclpy's, for a QoS override that cannot be
                    self._unsubscribe(camera)
                    camera.failure = f'cannot subscribe to images: {one_line(error)}'
                    self.get_logger().error(f'C{camera.failure[1:]}; start the node without it')
            elif not listened and camera.subscriptions:
                self._unsubscribe(camera)

    def _subscribe(self, camera: Camera) -> None:
        compressed = self._value('image_transport') == 'compressed'
        image = self._image_topic(camera)
        override = QoSOverridingOptions.with_default_policies()
        topics = (
            (CameraInfo, f'{camera.prefix}camera_info', camera.infos.add, INFO_QOS),
            (
                CompressedImage if compressed else Image,
                image,
                partial(self._receive, camera),
                INPUT_QOS,
            ),
        )
        for kind, topic, call, qos in topics:
            subscription = self.create_subscription(
                kind, topic, call, copy(qos), qos_overriding_options=override
            )
            camera.subscriptions.append(subscription)

    def _image_topic(self, camera: Camera) -> str:
        """Where images come from: a remap of ``image`` also moves ``image/compressed``."""
        base = self.resolve_topic_name(f'{camera.prefix}image')
        if self._value('image_transport') == 'raw':
            return str(base)
        own = self.resolve_topic_name(f'{camera.prefix}image/compressed')
        plain = self.resolve_topic_name(f'{camera.prefix}image/compressed', only_expand=True)
        return str(own) if own != plain else f'{base}/compressed'

    def _unsubscribe(self, camera: Camera) -> None:
        for subscription in camera.subscriptions:
            self.destroy_subscription(subscription)
        camera.subscriptions = []
        self._mailbox.clear(camera)

    def _receive(self, camera: Camera, message: Any) -> None:
        camera.statistics.count('frames_received')
        if self._mailbox.put(camera, Arrival(message, perf_counter())):
            camera.statistics.count('frames_dropped')

    # The engine and its thread

    def _build(self) -> None:
        """Start a thread that opens the engine: from the cache, or building it first."""
        bundle = self._bundle
        assert bundle is not None
        names = ('precision', 'threads', 'provider', 'device', 'dla_core', 'workspace_mb')
        options = EngineOptions(**{name: self._value(name) for name in names})
        backend = self._value('backend')
        # Not the node itself: a thread that is still building when the process ends would keep it,
        # and with it the node's name on the graph.
        first = self._options({})

        def job(progress: Progress) -> tuple[ChosenEngine, Pipeline]:
            chosen = open_engine(backend, bundle, options, progress=progress)
            try:
                pipeline = Pipeline(bundle, chosen.engine, first)
                pipeline.warm_up()
            except Exception:
                chosen.engine.close()
                raise
            return chosen, pipeline

        self._building = Background(job, release=lambda built: built[0].engine.close())

    def _take_engine(self) -> None:
        """The engine that was built becomes the node's.

        Raises:
            BundleError, EngineError: it could not be built.
        """
        assert self._bundle is not None
        assert self._building is not None
        building, self._building = self._building, None
        chosen, self._pipeline = building.result()
        self._pipeline.options = self._options({})
        identity = {('engine_version' if k == 'version' else k): v
                    for k, v in chosen.engine.identity.items()}  # fmt: skip
        self._model.update(identity)
        self._choice, self._refused = chosen.reason, chosen.refused
        for problem in chosen.refused:
            self.get_logger().warning(problem)
        m = self._model
        self.get_logger().info(
            f'{m["bundle"]} {m["bundle_version"]} ({self._bundle.width}x{self._bundle.height}) on '
            f'{m["engine"]} {m["engine_version"]} ({m["provider"]}, {m["precision"]}): '
            f'{chosen.reason}'
        )

    def _wait_for_engine(self) -> None:
        """Wait until the engine is built, reporting once a second.

        Raises:
            BundleError, EngineError: it could not be built; the next call tries again.
        """
        if self._pipeline is None and self._building is None:
            self._build()
        if self._building is None:
            return
        while not self._building.wait(1.0 / REPORT_HZ):
            if not self.context.ok():
                raise EngineError('interrupted while the engine was built')
            self._report()
        self._take_engine()

    def _activity(self) -> tuple[str, float]:
        """What is being built and how much of it is done; empty while nothing is."""
        building = self._building
        if building is None:
            return '', float('nan')
        return building.activity, building.share

    def _work(self) -> None:
        while arrivals := self._mailbox.take():
            if not self._engine_ready():
                for camera in arrivals:
                    camera.statistics.count('frames_dropped')
                continue
            try:
                self._process(arrivals)
            except EngineError as error:
                self._engine_failed(str(error))
            except Exception as error:  # a fault of ours must not end the thread unseen
                if not self.context.ok():  # interrupted in the middle of publishing
                    return
                self._engine_failed(f'{type(error).__name__}: {error}')

    def _engine_ready(self) -> bool:
        """After a failure, wait out the pause and open the engine anew."""
        if not self._failure:
            return True
        if monotonic() < self._retry_at or self._bundle is None:
            return False
        try:
            if self._pipeline is not None:
                self._pipeline.engine.close()
            self._build()
            self._take_engine()
        except (BundleError, EngineError) as error:
            self._engine_failed(str(error))
            return False
        return True

    def _engine_failed(self, reason: str) -> None:
        pause = RETRY_S[min(self._failures, len(RETRY_S) - 1)]
        self._failures += 1
        self._retry_at = monotonic() + pause
        self._failure = reason
        for camera in self._cameras:
            camera.statistics.count('engine_failures')
        self.get_logger().error(f'The engine failed, retrying in {pause:g} s: {reason}')

    def _process(self, arrivals: Mapping[Camera, Arrival]) -> None:
        """Run the newest image of each camera through the network and publish what is wanted."""
        assert self._bundle is not None
        assert self._pipeline is not None
        frames: list[Frame] = []
        wanted: set[str] = set()
        for camera, arrival in arrivals.items():
            outputs = camera.listened()
            frame = self._frame(camera, arrival, outputs) if outputs else None
            if frame is not None:
                frames.append(frame)
                wanted |= {name for output in outputs for name in output.tensors(self._bundle)}
        if not frames:
            return
        predictions = self._pipeline(frames, wanted)
        self._failure, self._failures = '', 0
        cameras = {camera.name: camera for camera in arrivals}
        for prediction in predictions:
            camera = cameras[prediction.frame.camera]
            start = perf_counter()
            count = self._publish(camera, prediction)
            end = perf_counter()
            statistics = camera.statistics
            statistics.count('frames_processed')
            statistics.count('messages_published', count)
            for stage, milliseconds in prediction.timings_ms.items():
                statistics.time(stage, milliseconds)
            statistics.time('publish', 1e3 * (end - start))
            statistics.time('latency', 1e3 * (end - arrivals[camera].time))

    def _frame(self, camera: Camera, arrival: Arrival, outputs: Sequence[Output]) -> Frame | None:
        """The frame of a message; None where the image is bad."""
        header = arrival.message.header
        start = perf_counter()
        try:
            image = read_image(arrival.message)
        except ImageError as error:
            if camera.statistics.reject(error.kind, str(error)):
                self.get_logger().warning(f'Bad image ({error.kind}): {error}')
            return None
        camera.statistics.time('decode', 1e3 * (perf_counter() - start))
        wait = any(output.calibrated for output in outputs)
        return Frame(
            image,
            self._calibrate(camera, header, image, wait=wait),
            camera=camera.name,
            frame_id=header.frame_id,
            stamp=stamp_ns(header),
        )

    def _calibrate(
        self, camera: Camera, header: Any, image: NDArray[np.uint8], *, wait: bool
    ) -> CameraModel | None:
        """The calibration of an image; None where there is none that can be used."""
        camera.frame_id = header.frame_id
        info, own = camera.infos.match(header, CAMERA_INFO_WAIT_S if wait else 0.0)
        model = None
        state, detail = PerceptionStatus.CALIBRATION_MISSING, ''
        if info is None:
            topic = self.resolve_topic_name(f'{camera.prefix}camera_info')
            detail = f"no CameraInfo of frame '{header.frame_id}' on {topic}"
        else:
            if not own:
                camera.statistics.count('camera_info_fallbacks')
            try:
                model = camera_model(info, rectified=self._rectified)
            except CameraError as error:
                detail = str(error)
        if model is not None:
            try:
                model = model.for_image(image.shape[1], image.shape[0])
                state = PerceptionStatus.CALIBRATION_METRIC
            except CameraError as error:
                state, detail, model = PerceptionStatus.CALIBRATION_WRONG_SIZE, str(error), None
        if model is not None and self._bundle is not None and not self._bundle.metric:
            state = PerceptionStatus.CALIBRATION_NOT_METRIC
        if model is None:
            camera.statistics.count('uncalibrated_frames')
        self._set_calibration(camera, state, detail)
        return model

    def _set_calibration(self, camera: Camera, state: int, detail: str) -> None:
        if state != camera.calibration and state not in (
            PerceptionStatus.CALIBRATION_UNKNOWN,
            PerceptionStatus.CALIBRATION_METRIC,
        ):
            unpublished = '' if self._value('allow_uncalibrated') else 'depth and '
            meaning = CALIBRATIONS[state][1]
            self.get_logger().warning(
                f'{meaning[0].upper()}{meaning[1:]}{": " if detail else ""}{detail}; '
                f'{unpublished}points are not published'
            )
        camera.calibration, camera.calibration_detail = state, detail

    def _publish(self, camera: Camera, prediction: Prediction) -> int:
        """Publish the outputs that somebody listens to; returns how many there were."""
        header = header_of(prediction.frame)
        count = 0
        for output in camera.listened():
            content = camera.makers[output](prediction)
            if content is not None:
                message = to_message(output, content)
                message.header = header
                camera.publishers[output].publish(message)
                count += 1
        return count

    # Reports

    def _report(self) -> None:
        activity, share = self._activity()
        health = EngineHealth(self._model, self._choice, self._refused, activity, share,
                              self._failure)  # fmt: skip
        statuses = []
        for camera in self._cameras:
            report = camera.statistics.report()
            status = status_message(report, camera.calibration, health)
            status.header.stamp = self.get_clock().now().to_msg()
            status.header.frame_id = camera.frame_id
            status.camera = camera.name
            self._status[camera].publish(status)
            topic = self._image_topic(camera) if camera.subscriptions else ''
            statuses += [
                input_diagnostic(
                    report, topic, active=self._worker is not None, failure=camera.failure
                ),
                engine_diagnostic(report, health),
                calibration_diagnostic(report, camera.calibration, camera.calibration_detail),
            ]
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        node = self.get_fully_qualified_name().lstrip('/')
        for status in statuses:
            status.name = f'{node}: {status.name}'
            status.hardware_id = self._model.get('device', '')
        message.status = statuses
        self._diagnostics.publish(message)


def _descriptor(parameter: Parameter) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=parameter.description,
        read_only=parameter.change == 'start',
        additional_constraints=', '.join(parameter.choices),
    )
    if parameter.range is not None:
        low, high = parameter.range
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    return descriptor


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted; returns the exit code."""
    rclpy.init(args=args)
    node = None
    try:
        node = PerceptionNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        if node.get_parameter('autostart').value:
            node.bring_up()
        while rclpy.ok():
            executor.spin_once(timeout_sec=SIGNAL_S)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        print(f'perception_node: {error}', file=sys.stderr)
        return 1
    except Exception:
        if rclpy.ok():
            raise
        # A signal that comes while the executor makes its wait set ends in an error of rclpy.
    finally:
        if node is not None:
            node.destroy_node()
        if rclpy.ok():
            rclpy.shutdown()
    return 0
