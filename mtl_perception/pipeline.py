"""Frames in, predictions out: letterbox, engine, honest depth. NumPy only, no ROS."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle, BundleError
from .camera import CameraModel, Letterbox
from .engines.engine import Engine


@dataclass(frozen=True)
class Frame:
    """One camera image.

    Attributes:
        image: [H, W, 3] RGB, any size.
        camera: its calibration; None where there is none.
    """

    image: NDArray[np.uint8]
    camera: CameraModel | None = None


@dataclass(frozen=True)
class Prediction:
    """What the network says about one frame, on the output grid (``Letterbox``).

    Attributes:
        arrays: tensor name -> [h, w] or [h, w, 3]; only what was wanted. ``depth`` is in metres
            along Z if ``metric``: NaN where unsure, +Inf beyond the range, never clipped.
        camera: the camera scaled to the grid; None where the frame had none.
        image: [h, w, 3] RGB, the frame on the grid.
        metric: whether ``depth`` is in metres of this camera.
    """

    arrays: dict[str, NDArray[Any]]
    camera: CameraModel | None
    image: NDArray[np.uint8]
    metric: bool


@dataclass(frozen=True)
class Options:
    """What a user may change while the pipeline runs.

    Attributes:
        min_depth_confidence: 0..255; depth of less confidence becomes NaN.
        allow_uncalibrated: give depth that is not metric (no calibration, or a bundle of relative
            depth) instead of leaving it out.
    """

    min_depth_confidence: int = 0
    allow_uncalibrated: bool = False


class Pipeline:
    """Runs a bundle on frames.

    Depth is scaled by ``fx_at_network_size / canonical_focal``. Pixels are taken as square: where
    fx and fy differ, fx counts.

    Attributes:
        options: may be replaced between calls.
        stage_ms: milliseconds of the last call's stages: ``resize``, ``engine``, ``post``.

    Raises:
        BundleError: ``min_depth_confidence`` is set but the bundle has no ``depth_confidence``.
    """

    def __init__(self, bundle: Bundle, backend: Engine, options: Options = Options()) -> None:
        self.bundle = bundle
        self.backend = backend
        self.stage_ms: dict[str, float] = {'resize': 0.0, 'engine': 0.0, 'post': 0.0}
        depth = bundle.task_of('depth')
        self._far = depth.range[1] if depth and depth.range else np.inf
        self.options = options

    @property
    def options(self) -> Options:
        return self._options

    @options.setter
    def options(self, options: Options) -> None:
        outputs = self.bundle.outputs
        unsure = 'depth' in outputs and 'depth_confidence' not in outputs
        if unsure and options.min_depth_confidence > 0:
            raise BundleError(
                f'{self.bundle.folder}: the bundle has no depth_confidence, '
                'expected min_depth_confidence to be 0'
            )
        self._options = options

    def warm_up(self) -> None:
        """Run once on a black image, so that the first frame does not pay for it."""
        shape = (1, self.bundle.height, self.bundle.width, 3)
        self.backend.run(np.zeros(shape, np.uint8), list(self.bundle.outputs))

    def __call__(self, frames: Sequence[Frame], wanted: Collection[str]) -> list[Prediction]:
        """Run the network once on a batch of frames, which may differ in size.

        Args:
            frames: one per camera.
            wanted: tensor names of the bundle; nothing else is computed.

        Returns:
            One prediction per frame. ``depth`` is missing where it would not be metric, unless
            ``options.allow_uncalibrated``.

        Raises:
            CameraError: an image without pixels, or a calibration for another shape.
            EngineError: the engine failed.
            ValueError: an unknown name in ``wanted``.
        """
        unknown = set(wanted) - self.bundle.outputs.keys()
        if unknown:
            raise ValueError(
                f'the bundle has no output {", ".join(sorted(unknown))}, '
                f'expected of {", ".join(self.bundle.outputs)}'
            )
        if not frames:
            return []
        start = perf_counter()
        height, width = self.bundle.height, self.bundle.width
        boxes = [Letterbox.fit(f.image.shape[1], f.image.shape[0], width, height) for f in frames]
        cameras = [
            box.camera(frame.camera) if frame.camera else None
            for box, frame in zip(boxes, frames, strict=True)
        ]
        images = np.empty((len(frames), height, width, 3), np.uint8)
        for box, frame, image in zip(boxes, frames, images, strict=True):
            box.forward(frame.image, image)
        resized = perf_counter()
        outputs = self.backend.run(images, self._needed(wanted, cameras))
        ran = perf_counter()
        predictions = [
            self._predict(
                {name: box.crop(array[index]) for name, array in outputs.items()},
                wanted,
                camera,
                box.crop(image),
            )
            for index, (box, camera, image) in enumerate(zip(boxes, cameras, images, strict=True))
        ]
        done = perf_counter()
        self.stage_ms = {
            'resize': 1e3 * (resized - start),
            'engine': 1e3 * (ran - resized),
            'post': 1e3 * (done - ran),
        }
        return predictions

    def _metric(self, camera: CameraModel | None) -> bool:
        return camera is not None and self.bundle.metric

    def _needed(self, wanted: Collection[str], cameras: Sequence[CameraModel | None]) -> list[str]:
        """The tensors to compute, in the bundle's order."""
        needed = set(wanted)
        if not self._options.allow_uncalibrated and not any(map(self._metric, cameras)):
            needed.discard('depth')
        if 'depth' in needed and self._options.min_depth_confidence > 0:
            needed.add('depth_confidence')
        return [name for name in self.bundle.outputs if name in needed]

    def _predict(
        self,
        outputs: Mapping[str, NDArray[Any]],
        wanted: Collection[str],
        camera: CameraModel | None,
        image: NDArray[np.uint8],
    ) -> Prediction:
        metric = self._metric(camera)
        arrays = {name: array for name, array in outputs.items() if name in wanted}
        if 'depth' in arrays and not (metric or self._options.allow_uncalibrated):
            del arrays['depth']
        if 'depth' in arrays:
            scale = 1.0
            if camera is not None and self.bundle.canonical_focal is not None:
                scale = camera.fx / self.bundle.canonical_focal
            arrays['depth'] = self._honest(arrays['depth'], outputs.get('depth_confidence'), scale)
        return Prediction(arrays, camera, image, metric)

    def _honest(
        self, canonical: NDArray[np.float32], confidence: NDArray[np.uint8] | None, scale: float
    ) -> NDArray[np.float32]:
        """Canonical depth to depth of this camera: +Inf beyond the range, NaN where unsure."""
        depth: NDArray[np.float32] = canonical * np.float32(scale)
        depth[canonical > self._far] = np.inf
        if confidence is not None and self._options.min_depth_confidence > 0:
            depth[confidence < self._options.min_depth_confidence] = np.nan
        return depth
