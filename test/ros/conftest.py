"""A perception node in a process of its own, and a client that talks to it over real DDS."""

from __future__ import annotations

import copy
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PROFILE = Path(__file__).resolve().parents[2] / 'config' / 'fastdds.xml'

if importlib.util.find_spec('rclpy') is None:
    collect_ignore_glob = ['test_*.py']
else:
    # A graph of this run's own, on this machine only; nodes started below inherit it.
    os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    # Without it Fast DDS loses most images, see the file.
    os.environ['FASTDDS_DEFAULT_PROFILES_FILE'] = str(PROFILE)

FRAME = 'camera_optical_frame'
NODE = '/perception'
TIMEOUT_S = 60.0  # for things that take well under a second on an idle machine


class NodeProcess:
    """A running perception node."""

    def __init__(
        self, program: list[str], arguments: list[str], log: Path, environment: dict[str, str]
    ) -> None:
        self.log = log
        with log.open('wb') as output:
            self.process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, 'OMP_NUM_THREADS': '1', **environment},
            )

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Interrupt the node and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def text(self) -> str:
        """What the node printed so far."""
        return self.log.read_text(errors='replace')


def camera_topics(remaps: dict[str, str]) -> list[str]:
    """The topics that a node with these remaps may subscribe to."""
    namespace = remaps.get('__ns', '')
    image = remaps.get('image', f'{namespace}/image')
    return [image, f'{image}/compressed', remaps.get('camera_info', f'{namespace}/camera_info')]


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    """A function that starts a node with parameters and remaps; all are stopped at the end."""
    started: list[tuple[NodeProcess, int]] = []

    def start(
        *,
        remaps: dict[str, str] | None = None,
        environment: dict[str, str] | None = None,
        params_file: Path | None = None,
        program: list[str] | None = None,
        reliable: bool = True,
        code: int = 0,
        **parameters: object,
    ) -> NodeProcess:
        parameters.setdefault('backend', 'onnxruntime')  # not the one that is faster by chance
        remaps = remaps or {}
        # A best-effort reader loses what comes before it knows its writer: here, the only image.
        for topic in camera_topics(remaps) if reliable else ():
            parameters[f'qos_overrides.{topic}.subscription.reliability'] = 'reliable'
        arguments = ['--ros-args']
        if params_file is not None:
            arguments += ['--params-file', str(params_file)]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            arguments += ['-p', f'{name}:={text}']
        for name, target in remaps.items():
            arguments += ['-r', f'{name}:={target}']
        log = tmp_path / f'node_{len(started)}.log'
        command = program or ['-m', 'mtl_perception.ros']
        node = NodeProcess(command, arguments, log, environment or {})
        started.append((node, code))
        return node

    yield start
    for node, code in started:
        found = node.stop()
        assert found == code, f'the node ended with {found}:\n{node.text()}'
        assert 'Traceback' not in node.text(), node.text()


class Client:
    """A node of the test's process: a camera, a consumer, and a lifecycle manager."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('test_client', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._entities: list[tuple[Callable[[Any], object], Any]] = []
        self._diagnostics: list[Any] | None = None  # the messages, once somebody wants them

    def close(self) -> None:
        self.reset()
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()

    def reset(self) -> None:
        """Destroy what the test created."""
        for destroy, entity in self._entities:
            destroy(entity)
        self._entities.clear()
        self._diagnostics = None

    def wait(self, condition: Callable[[], Any], what: str = '') -> Any:
        """Handle messages until the condition holds; returns its value."""
        end = time.monotonic() + TIMEOUT_S
        while not (value := condition()):
            assert time.monotonic() < end, f'in {TIMEOUT_S} s there was no {what or condition}'
            self.executor.spin_once(timeout_sec=0.1)
        return value

    def spin(self, seconds: float) -> None:
        """Handle messages for a while: to see that something does not come."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=min(left, 0.1))

    def subscribe(self, kind: Any, topic: str, *, latched: bool = False) -> list[Any]:
        """The list that messages of the topic are appended to."""
        from rclpy.qos import DurabilityPolicy, QoSProfile

        messages: list[Any] = []
        qos = QoSProfile(depth=10)
        if latched:
            qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        subscription = self.node.create_subscription(kind, topic, messages.append, qos)
        self._entities.append((self.node.destroy_subscription, subscription))
        return messages

    def publisher(self, kind: Any, topic: str) -> Any:
        """A publisher with the QoS of a camera driver."""
        publisher = self.node.create_publisher(kind, topic, 10)
        self._entities.append((self.node.destroy_publisher, publisher))
        return publisher

    def call(self, kind: Any, name: str, *, again: bool = True, **request: Any) -> Any:
        """Call a service and return its response.

        Args:
            again: ask again after a while. A server that has just started may answer before it has
                found the reader of its answers, which are lost then.
        """
        client = self.node.create_client(kind, name)
        try:
            self.wait(client.service_is_ready, f'service {name}')
            futures = [client.call_async(kind.Request(**request))]
            asked = time.monotonic()

            def answered() -> Any:
                nonlocal asked
                if again and time.monotonic() - asked > 5:
                    futures.append(client.call_async(kind.Request(**request)))
                    asked = time.monotonic()
                return next((future for future in futures if future.done()), None)

            return self.wait(answered, f'answer of {name}').result()
        finally:
            self.node.destroy_client(client)

    def transition(self, label: str) -> bool:
        """Ask the node for a lifecycle transition; returns whether it succeeded."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        ids = {
            'configure': Transition.TRANSITION_CONFIGURE,
            'activate': Transition.TRANSITION_ACTIVATE,
            'deactivate': Transition.TRANSITION_DEACTIVATE,
            'cleanup': Transition.TRANSITION_CLEANUP,
        }
        # Once this is answered the node knows this process. Before, it may lose its answer to a
        # transition, which cannot be asked for again.
        self.state()
        transition = Transition(id=ids[label])
        return bool(
            self.call(
                ChangeState, f'{NODE}/change_state', again=False, transition=transition
            ).success
        )

    def state(self) -> str:
        """The lifecycle state of the node."""
        from lifecycle_msgs.srv import GetState

        return str(self.call(GetState, f'{NODE}/get_state').current_state.label)

    def set_parameter(self, name: str, value: object) -> Any:
        """Set a parameter of the node; returns the SetParametersResult."""
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        message = Parameter(name, value=value).to_parameter_msg()
        return self.call(SetParameters, f'{NODE}/set_parameters', parameters=[message]).results[0]

    def status(self, condition: Callable[[Any], object]) -> Any:
        """The first status of the node for which the condition holds."""
        from mtl_perception_msgs.msg import PerceptionStatus

        statuses = self.subscribe(PerceptionStatus, f'{NODE}/status')
        return self.wait(lambda: next((s for s in statuses if condition(s)), None), 'such a status')

    def diagnostic(self, part: str, condition: Callable[[Any], object]) -> Any:
        """The first diagnostic of a part of the node, from now on, for which the condition holds.

        What is said in one interval only may come before a subscription is known: have one before.
        """
        from diagnostic_msgs.msg import DiagnosticArray

        if self._diagnostics is None:
            self._diagnostics = self.subscribe(DiagnosticArray, '/diagnostics')
        arrays = self._diagnostics
        before = len(arrays)

        def found() -> Any:
            statuses = [s for array in arrays[before:] for s in array.status]
            wanted = [s for s in statuses if s.name == f'{NODE.strip("/")}: {part}']
            return next((s for s in wanted if condition(s)), None)

        return self.wait(found, f'such a diagnostic of {part}')


@pytest.fixture(scope='session')
def session_client() -> Iterator[Client]:
    client = Client()
    yield client
    client.close()


@pytest.fixture
def client(session_client: Client) -> Iterator[Client]:
    yield session_client
    session_client.reset()
    # The next test must not take the endpoints of this test's nodes for those of its own.
    names = session_client.node.get_node_names
    session_client.wait(lambda: 'perception' not in names(), 'end of the nodes')


class CameraDriver:
    """A camera that publishes when it is told to."""

    def __init__(self, client: Client, topic: str = '/image', info_topic: str = '/camera_info'):
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image

        kind = CompressedImage if topic.endswith('/compressed') else Image
        self.client = client
        self.images = client.publisher(kind, topic)
        self.infos = client.publisher(CameraInfo, info_topic)
        self.stamp = 1000

    def wait_for_node(self) -> None:
        """Wait until the node listens."""
        self.client.wait(self.images.get_subscription_count, 'subscription of the node to images')
        self.client.wait(self.infos.get_subscription_count, 'subscription to camera infos')

    def header(self, *, advance: bool = True) -> Any:
        from std_msgs.msg import Header

        self.stamp += advance
        header = Header(frame_id=FRAME)
        header.stamp.sec, header.stamp.nanosec = self.stamp, 123456789
        return header

    def image(self, rgb: np.ndarray, *, encoding: str = 'rgb8') -> Any:
        """An Image of an [H, W, 3] array, with the next stamp."""
        from sensor_msgs.msg import Image

        height, width = rgb.shape[:2]
        image = Image(header=self.header(), height=height, width=width, encoding=encoding)
        image.step = 3 * width
        image.data = rgb.tobytes()
        return image

    def info(self, header: Any, width: int, height: int, *, fx: float = 200.0) -> Any:
        from sensor_msgs.msg import CameraInfo

        header = copy.deepcopy(header)
        info = CameraInfo(header=header, width=width, height=height, distortion_model='plumb_bob')
        cx, cy = (width - 1) / 2, (height - 1) / 2
        info.d = [0.0] * 5
        info.k = [fx, 0.0, cx, 0.0, fx, cy, 0.0, 0.0, 1.0]
        info.p = [fx, 0.0, cx, 0.0, 0.0, fx, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
        return info

    def publish(self, image: Any, *infos: Any) -> None:
        """Publish an image, its camera infos first."""
        for info in infos:
            self.infos.publish(info)
        self.images.publish(image)


@pytest.fixture
def driver(client: Client) -> CameraDriver:
    return CameraDriver(client)


@pytest.fixture
def make_driver(client: Client) -> Callable[..., CameraDriver]:
    """A driver on other topics."""
    return lambda *topics: CameraDriver(client, *topics)


@pytest.fixture
def breakable_bundle(make_bundle: Callable[..., Path], tiny_bundle: Path) -> Path:
    """The folder of a tiny bundle whose model fails for images with blue above 127."""
    onnx = pytest.importorskip('onnx')
    # Edges become a look-up in a table that is too short.
    model = onnx.load(tiny_bundle / 'model.onnx')
    table = onnx.numpy_helper.from_array(np.arange(128, dtype=np.uint8), 'table')
    model.graph.initializer.append(table)
    producer = next(node for node in model.graph.node if 'edges' in node.output)
    producer.output[:] = ['blue']
    for node in model.graph.node:
        node.input[:] = ['blue' if name == 'edges' else name for name in node.input]
    model.graph.node.extend(
        [
            onnx.helper.make_node('Cast', ['blue'], ['index'], to=onnx.TensorProto.INT64),
            onnx.helper.make_node('Gather', ['table', 'index'], ['edges']),
        ]
    )
    return make_bundle(model=model.SerializeToString(), name='breakable')
