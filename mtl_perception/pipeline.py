"""Frames in, predictions out: letterbox, engine, honest depth. NumPy only, no ROS."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import UNLABELLED, Bundle, BundleError
from .camera import CameraModel, Letterbox
from .engines.engine import Engine


@dataclass(frozen=True)
class Frame:
    """One image of one camera.

    Attributes:
        image: [H, W, 3] RGB, any size.
        calibration: of the camera at this size; None where there is none.
        camera: its name; empty where there is only one.
        frame_id: coordinate frame of the image, the camera's optical frame.
        stamp: when the image was taken, nanoseconds.
    """

    image: NDArray[np.uint8]
    calibration: CameraModel | None = None
    camera: str = ''
    frame_id: str = ''
    stamp: int = 0


@dataclass(frozen=True)
class Options:
    """What a user may change while the pipeline runs.

    Attributes:
        tasks: of the bundle; only these are computed. Empty: all of them.
        min_depth_confidence: 0..255; depth of less confidence becomes NaN.
        min_semantic_confidence: 0..255; labels of less confidence become 255, unlabelled.
        max_range: metres; depth beyond becomes +Inf. 0: as far as the bundle goes.
        allow_uncalibrated: give depth that is not metric (no calibration, or a bundle of relative
            depth) instead of leaving it out.
        cloud_stride: clouds have every so many-th point of every so many-th row.
        mask_classes: names of the classes that masks show.
    """

    tasks: Sequence[str] = ()
    min_depth_confidence: int = 0
    min_semantic_confidence: int = 0
    max_range: float = 0.0
    allow_uncalibrated: bool = False
    cloud_stride: int = 1
    mask_classes: Sequence[str] = ()

    def check(self, bundle: Bundle) -> None:
        """Raise BundleError where they are not for this bundle."""
        for kind, least in (
            ('depth', self.min_depth_confidence),
            ('semantic', self.min_semantic_confidence),
        ):
            unsure = kind in bundle.outputs and f'{kind}_confidence' not in bundle.outputs
            if unsure and least > 0:
                raise BundleError(
                    f'{bundle.folder}: the bundle has no {kind}_confidence, '
                    f'expected min_{kind}_confidence to be 0'
                )
        classes = [item.name for item in bundle.classes]
        for key, names, known in (
            ('tasks', self.tasks, list(bundle.tasks)),
            ('mask_classes', self.mask_classes, classes),
        ):
            if unknown := [name for name in names if name not in known]:
                raise BundleError(
                    f'{bundle.folder}: {key} has {unknown[0]!r}, '
                    f'expected of {", ".join(known) or "none"}'
                )


@dataclass(frozen=True)
class Prediction:
    """What the network says about one frame, on the output grid (``Letterbox``).

    Attributes:
        frame: what it is about.
        grid: how the frame's image lies on the network's input; its content is the output grid.
        arrays: tensor name -> [h, w] or [h, w, 3]; only what was wanted. ``depth`` is in metres
            along Z if ``metric``: NaN where unsure, +Inf beyond the range, never clipped.
        image: [h, w, 3] RGB, the frame's image on the output grid.
        calibration: the frame's, for the output grid; None where the frame has none.
        metric: whether ``depth`` is in metres of this camera.
        timings_ms: milliseconds of ``resize``, ``engine`` and ``post``, each for the whole batch.
        options: it was made with.
    """

    frame: Frame
    grid: Letterbox
    arrays: dict[str, NDArray[Any]]
    image: NDArray[np.uint8]
    calibration: CameraModel | None
    metric: bool
    timings_ms: Mapping[str, float]
    options: Options = Options()


class Pipeline:
    """Runs a bundle on frames.

    Depth is scaled by ``fx_at_network_size / canonical_focal``. Pixels are taken as square: where
    fx and fy differ, fx counts.

    Attributes:
        options: may be replaced between calls.

    Raises:
        BundleError: ``min_depth_confidence`` is set but the bundle has no ``depth_confidence``.
    """

    def __init__(self, bundle: Bundle, engine: Engine, options: Options = Options()) -> None:
        self.bundle = bundle
        self.engine = engine
        depth = bundle.task_of('depth')
        self._far = depth.range[1] if depth and depth.range else np.inf
        self.options = options

    @property
    def options(self) -> Options:
        return self._options

    @options.setter
    def options(self, options: Options) -> None:
        options.check(self.bundle)
        self._options = options

    def warm_up(self) -> None:
        """Run once on a black image, so that the first frame does not pay for it."""
        shape = (1, self.bundle.height, self.bundle.width, 3)
        self.engine.run(np.zeros(shape, np.uint8), list(self.bundle.outputs))

    def __call__(self, frames: Sequence[Frame], wanted: Collection[str]) -> list[Prediction]:
        """Run the network once on a batch of frames, which may differ in size.

        Args:
            frames: one per camera.
            wanted: tensor names of the bundle; nothing else is computed, nor what belongs to tasks
                that ``options.tasks`` leaves out.

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
        clock, options = _Stopwatch(), self._options
        height, width = self.bundle.height, self.bundle.width
        grids = [Letterbox.fit(f.image.shape[1], f.image.shape[0], width, height) for f in frames]
        calibrations = [
            grid.camera(frame.calibration) if frame.calibration else None
            for grid, frame in zip(grids, frames, strict=True)
        ]
        images = np.empty((len(frames), height, width, 3), np.uint8)
        for grid, frame, image in zip(grids, frames, images, strict=True):
            grid.forward(frame.image, image)
        clock.lap('resize')
        outputs = self.engine.run(images, self._needed(wanted, calibrations))
        clock.lap('engine')
        arrays = [
            self._arrays({name: grid.crop(array[i]) for name, array in outputs.items()}, wanted, c)
            for i, (grid, c) in enumerate(zip(grids, calibrations, strict=True))
        ]
        clock.lap('post')
        return [
            Prediction(
                frame=frame,
                grid=grid,
                arrays=own,
                image=grid.crop(image),
                calibration=calibration,
                metric=self._metric(calibration),
                timings_ms=clock.laps_ms,
                options=options,
            )
            for frame, grid, own, image, calibration in zip(
                frames, grids, arrays, images, calibrations, strict=True
            )
        ]

    def _metric(self, calibration: CameraModel | None) -> bool:
        return calibration is not None and self.bundle.metric

    def _needed(
        self, wanted: Collection[str], calibrations: Sequence[CameraModel | None]
    ) -> list[str]:
        """The tensors to compute, in the bundle's order."""
        needed = set(wanted)
        if self._options.tasks:
            tasks = [self.bundle.tasks[name] for name in self._options.tasks]
            needed &= {name for task in tasks for name in task.outputs}
        if not self._options.allow_uncalibrated and not any(map(self._metric, calibrations)):
            needed.discard('depth')
        if 'depth' in needed and self._options.min_depth_confidence > 0:
            needed.add('depth_confidence')
        if 'semantic' in needed and self._options.min_semantic_confidence > 0:
            needed.add('semantic_confidence')
        return [name for name in self.bundle.outputs if name in needed]

    def _arrays(
        self,
        outputs: Mapping[str, NDArray[Any]],
        wanted: Collection[str],
        calibration: CameraModel | None,
    ) -> dict[str, NDArray[Any]]:
        """What was wanted of one frame's outputs, with honest depth."""
        arrays = {name: array for name, array in outputs.items() if name in wanted}
        if 'depth' in arrays and not (
            self._metric(calibration) or self._options.allow_uncalibrated
        ):
            del arrays['depth']
        least = self._options.min_semantic_confidence
        if 'semantic' in arrays and least > 0:
            sure = outputs['semantic_confidence'] >= least
            arrays['semantic'] = np.where(sure, arrays['semantic'], np.uint8(UNLABELLED))
        if 'depth' in arrays:
            scale = 1.0
            if calibration is not None and self.bundle.canonical_focal is not None:
                scale = calibration.fx / self.bundle.canonical_focal
            arrays['depth'] = self._honest(arrays['depth'], outputs.get('depth_confidence'), scale)
        return arrays

    def _honest(
        self, canonical: NDArray[np.float32], confidence: NDArray[np.uint8] | None, scale: float
    ) -> NDArray[np.float32]:
        """Canonical depth to depth of this camera: +Inf beyond the range, NaN where unsure."""
        depth: NDArray[np.float32] = canonical * np.float32(scale)
        depth[canonical > self._far] = np.inf
        if self._options.max_range > 0:
            depth[depth > self._options.max_range] = np.inf
        if confidence is not None and self._options.min_depth_confidence > 0:
            depth[confidence < self._options.min_depth_confidence] = np.nan
        return depth


class _Stopwatch:
    """Milliseconds of one stage after the other."""

    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, name: str) -> None:
        now = perf_counter()
        self.laps_ms[name] = 1e3 * (now - self._last)
        self._last = now
