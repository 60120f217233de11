"""The thread that works: it owns the engine, runs the network and publishes what that says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Thread
from typing import Any

from .. import one_line
from ..bundle import Bundle
from ..engines.engine import EngineError
from ..engines.supervisor import EngineSupervisor
from ..outputs import Output
from ..pipeline import Frame, Options, Pipeline, Prediction
from .cameras import Arrival, Camera
from .mailbox import Mailbox


class Worker:
    """Runs a bundle on the newest images of all cameras.

    As many of them go into one run as the engine takes; where those are fewer than the cameras,
    these take turns (``Mailbox``). What is wrong with the images of one camera is counted there and
    is nothing to the others.

    Args:
        bundle: what is run.
        supervisor: of its engine.
        logger: of the node.
        alive: whether the node's context is; after its end nothing can be published.

    Attributes:
        bundle, supervisor: as given.
        mailbox: where the cameras leave their images while the thread runs.
    """

    def __init__(
        self,
        bundle: Bundle,
        supervisor: EngineSupervisor,
        logger: Any,
        alive: Callable[[], bool],
    ) -> None:
        self.bundle = bundle
        self.supervisor = supervisor
        self.mailbox: Mailbox[Camera, Arrival] = Mailbox()
        self._logger = logger
        self._alive = alive
        self._options = Options()
        self._cameras: Sequence[Camera] = ()
        self._pipeline: Pipeline | None = None
        self._thread: Thread | None = None

    @property
    def options(self) -> Options:
        """Those of the pipeline, from the next image on.

        Raises:
            BundleError: they are not for this bundle.
        """
        return self._options

    @options.setter
    def options(self, options: Options) -> None:
        options.check(self.bundle)
        self._options = options

    @property
    def running(self) -> bool:
        """Whether the thread is."""
        return self._thread is not None

    def start(self, cameras: Sequence[Camera]) -> None:
        """Start the thread."""
        self.mailbox, self._cameras = Mailbox(), cameras
        self._thread = Thread(target=self._run, name='engine', daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the images at hand; a build goes on without it."""
        self.mailbox.close()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def pipeline(self) -> Pipeline | None:
        """The pipeline on the engine; None until that is ready.

        Raises:
            Exception: the engine could not be opened.
        """
        chosen = self.supervisor.poll()
        if chosen is None:
            return None
        if self._pipeline is None or self._pipeline.engine is not chosen.engine:
            self._pipeline = Pipeline(self.bundle, chosen.engine)
            for problem in chosen.refused:
                self._logger.warning(problem)
            bundle, engine = self.bundle, chosen.engine.identity
            self._logger.info(
                f'{bundle.name} {bundle.version} ({bundle.width}x{bundle.height}) on '
                f'{engine["engine"]} {engine["version"]} ({engine["provider"]}, '
                f'{engine["precision"]}): {chosen.reason}'
            )
        self._pipeline.options = self._options
        return self._pipeline

    @property
    def _batch(self) -> int:
        """How many images go into a run. While this waits, the engine can only become ready."""
        chosen = self.supervisor.chosen
        return chosen.max_batch if chosen is not None else 1

    def _run(self) -> None:
        """Take images, run the network; the thread of the engine."""
        while arrivals := self.mailbox.take(self._batch):
            try:
                pipeline = self.pipeline()
            except Exception as error:  # it could not be opened again
                self._tell_failure(one_line(error))
                pipeline = None
            if pipeline is None:
                for camera in arrivals:
                    camera.statistics.count('frames_dropped')
                continue
            try:
                self._process(pipeline, arrivals)
            except Exception as error:  # a fault of ours must not end the thread unseen
                if not self._alive():  # interrupted in the middle of it
                    break
                self.supervisor.failed(_reason(error))
                self._tell_failure(self.supervisor.failure)

    def _process(self, pipeline: Pipeline, arrivals: Mapping[Camera, Arrival]) -> None:
        """Run the network once on what has come, as far as somebody listens."""
        cameras = {camera.name: camera for camera in arrivals}
        listened = {camera: camera.listened() for camera in arrivals}
        frames: list[Frame] = []
        wanted: set[str] = set()
        for camera, arrival in arrivals.items():
            outputs = listened[camera]
            frame = self._frame(camera, arrival) if outputs else None
            if frame is not None:
                frames.append(frame)
                wanted |= {name for output in outputs for name in output.tensors(self.bundle)}
        if not frames:
            return
        try:
            predictions = pipeline(frames, wanted)
        except Exception:
            if len(self._cameras) == 1:
                raise
            # Is it the engine, or the images of one camera? It must not be taken from the others.
            pipeline.warm_up()
            predictions = []
            for frame in frames:
                try:
                    predictions += pipeline([frame], wanted)
                except Exception as error:
                    cameras[frame.camera].reject('engine', _reason(error))
        self.supervisor.succeeded()
        for prediction in predictions:
            camera = cameras[prediction.frame.camera]
            self._publish(camera, prediction, arrivals[camera], listened[camera])

    def _frame(self, camera: Camera, arrival: Arrival) -> Frame | None:
        try:
            return camera.frame(arrival)
        except Exception as error:  # a fault of ours, with this image
            if self._alive():
                camera.reject('reading', _reason(error))
            return None

    def _publish(
        self, camera: Camera, prediction: Prediction, arrival: Arrival, outputs: Sequence[Output]
    ) -> None:
        """Publish what the network said.

        In a thread of its own, while the network runs on the next images, this took both longer on
        two cores: latency grew by a third, and fewer images were processed.
        """
        try:
            camera.publish(prediction, arrival, outputs)
        except Exception as error:  # a fault of ours, with this image
            if self._alive():  # else interrupted in the middle of it
                camera.reject('publishing', _reason(error))

    def _tell_failure(self, reason: str) -> None:
        for camera in self._cameras:
            camera.statistics.count('engine_failures')
        pause = f'{self.supervisor.pause_s:g}'
        self._logger.error(f'The engine failed, retrying in {pause} s: {reason}')


def _reason(error: Exception) -> str:
    """What went wrong, in one line; faults of ours with their kind."""
    ours = '' if isinstance(error, EngineError) else f'{type(error).__name__}: '
    return f'{ours}{one_line(error)}'
