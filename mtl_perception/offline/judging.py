"""Judge a replay while it runs: frame after frame against what its recording knows, per camera."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..bundle import Bundle
from ..pipeline import Prediction
from .page import write_page
from .recordings import Recorded
from .report import RunReport
from .runs import Run, RunFrame
from .truth import read_truth


class Judge:
    """Takes the predictions of a replay in their order.

    Args:
        bundle: that makes them.
        tasks: topic -> task, of the ground truth, see ``truth_topics``.
        unpack: deserializes a message of the recording.
        pages: whether pages are to be written; figures alone cost less.
    """

    def __init__(
        self,
        bundle: Bundle,
        tasks: Mapping[str, str],
        unpack: Callable[[Recorded], Any],
        *,
        pages: bool,
    ) -> None:
        self._bundle = bundle
        self._tasks = tasks
        self._unpack = unpack
        self._pages = pages
        self._reports: dict[str, RunReport] = {}
        self.runs: dict[str, Run] = {}  # by name of the camera
        self.other_frames: set[str] = set()  # frame_ids of depth that is not of the image's pixels

    def add(
        self,
        prediction: Prediction,
        truth: Mapping[str, Recorded],
        timings_ms: Mapping[str, float],
    ) -> None:
        """Take a prediction.

        Args:
            truth: topic -> the message near the image's stamp.

        Raises:
            PerceptionError: truth that cannot be decoded, or of other classes than the bundle's.
        """
        frame = prediction.frame
        known = {}
        for topic, recorded in truth.items():
            message = self._unpack(recorded)
            array = read_truth(self._tasks[topic], message, frame.frame_id)
            if array is None:
                self.other_frames.add(str(message.header.frame_id))
            else:
                known[self._tasks[topic]] = array
        judged = RunFrame(frame.stamp, prediction.image, prediction.arrays, known, timings_ms)
        if frame.camera not in self.runs:
            report = self._reports[frame.camera] = RunReport(self._bundle)
            self.runs[frame.camera] = report.run
        if self._pages:
            self._reports[frame.camera].add(judged)
        else:
            self.runs[frame.camera].add(judged)

    def scores(self) -> dict[str, tuple[dict[str, dict[str, float]], dict[str, int]]]:
        """By camera: figures by task, and of how many frames."""
        return {
            camera: (run.evaluation.compute(), run.evaluation.frames)
            for camera, run in self.runs.items()
        }

    def problem(self) -> str:
        """Why truth was not used, in a sentence; empty if all was."""
        if not self.other_frames:
            return ''
        return (
            f'depth of frame {", ".join(sorted(self.other_frames))} is not registered to the '
            'images, so it is not used; record the aligned depth topic of the driver'
        )

    def write(self, path: Path, title: str, facts: Mapping[str, str]) -> list[Path]:
        """Write the page, or one for each of several cameras with its name added.

        Raises:
            PageError: plotly is not installed.
            OSError: it cannot be written.
        """
        written = []
        for camera, report in self._reports.items():
            several = len(self._reports) > 1
            place = path.with_stem(f'{path.stem}_{camera}') if several else path
            named = {'camera': camera, **facts} if camera else facts
            write_page(place, report.page(f'{title}, {camera}' if several else title, named))
            written.append(place)
        return written
