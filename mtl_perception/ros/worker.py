"""The thread of the engine: takes images out of the mailbox, runs the network, has it published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Thread
from typing import Any

from .. import one_line
from ..bundle import Bundle
from ..engines.engine import EngineError
from ..engines.supervisor import EngineSupervisor
from ..pipeline import Frame, Options, Pipeline
from .cameras import Arrival, Camera
from .mailbox import Mailbox


class Worker:
    """Runs a bundle on the newest images of all cameras together.

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
        self.mailbox = Mailbox()
        self._thread = Thread(target=self._work, args=(cameras,), name='engine', daemon=True)
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

    def _work(self, cameras: Sequence[Camera]) -> None:
        while arrivals := self.mailbox.take():
            try:
                pipeline = self.pipeline()
            except Exception as error:  # it could not be opened again
                self._tell_failure(cameras, one_line(error))
                pipeline = None
            if pipeline is None:
                for camera in arrivals:
                    camera.statistics.count('frames_dropped')
                continue
            try:
                self._process(pipeline, arrivals)
            except Exception as error:  # a fault of ours must not end the thread unseen
                if not self._alive():  # interrupted in the middle of publishing
                    return
                ours = '' if isinstance(error, EngineError) else f'{type(error).__name__}: '
                self.supervisor.failed(f'{ours}{one_line(error)}')
                self._tell_failure(cameras, self.supervisor.failure)

    def _process(self, pipeline: Pipeline, arrivals: Mapping[Camera, Arrival]) -> None:
        """Run the network once on what has come, and publish what is wanted."""
        frames: list[Frame] = []
        wanted: set[str] = set()
        for camera, arrival in arrivals.items():
            outputs = camera.listened()
            frame = camera.frame(arrival) if outputs else None
            if frame is not None:
                frames.append(frame)
                wanted |= {name for output in outputs for name in output.tensors(self.bundle)}
        if not frames:
            return
        predictions = pipeline(frames, wanted)
        self.supervisor.succeeded()
        cameras = {camera.name: camera for camera in arrivals}
        for prediction in predictions:
            camera = cameras[prediction.frame.camera]
            camera.publish(prediction, arrivals[camera])

    def _tell_failure(self, cameras: Sequence[Camera], reason: str) -> None:
        for camera in cameras:
            camera.statistics.count('engine_failures')
        pause = f'{self.supervisor.pause_s:g}'
        self._logger.error(f'The engine failed, retrying in {pause} s: {reason}')
