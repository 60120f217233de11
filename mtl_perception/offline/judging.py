"""Judges the results of a replay while they go by, against what the recording knows to be true."""

from __future__ import annotations

from pathlib import Path

from ..bundle import Bundle
from .layout import namespace
from .recordings import RecordingReader
from .replay import Result
from .report import RunReport
from .runs import RunFrame
from .sources import Source
from .stored import RecordedCamera, frames_of, true_of
from .truth import truth_readers


class Judge:
    """Figures and pictures of every camera of a replay; a ``Watcher`` of ``write_bag``.

    Args:
        source: that is replayed.
        bundle: that it runs through.

    Attributes:
        reports: by name of the camera.
        truth: likewise, what reads its ground truth.
    """

    def __init__(self, source: Source, bundle: Bundle) -> None:
        self._source, self._bundle = source, bundle
        self.truth = truth_readers(source)
        self.expect(0)

    def expect(self, images: int) -> None:
        """Begin anew, with about so many images to come."""
        each = images // max(1, len(self.truth))
        self.reports = {name: RunReport(self._bundle, each) for name in self.truth}

    @property
    def topics(self) -> tuple[str, ...]:
        """Those with ground truth, which the steps must bring."""
        return tuple(dict.fromkeys(topic for truth in self.truth.values() for topic in truth.tasks))

    def __call__(self, result: Result) -> None:
        """Take the next result.

        Raises:
            PerceptionError: true class ids that are not of the bundle's classes.
        """
        found = result.prediction
        if found is None:
            return
        frame = found.frame
        known = true_of(frame, result.step, self.truth[frame.camera])
        self.reports[frame.camera].add(
            RunFrame(frame.stamp, found.image, found.arrays, known, result.timings_ms)
        )

    def read(self, bag: Path) -> None:
        """Take all results from the bag that they were written to, without their timings.

        Raises:
            RecordingError: a bag cannot be read.
        """
        for name, report in self.reports.items():
            with RecordingReader(bag) as stored:
                camera = RecordedCamera(self._source, name, self.truth[name])
                for (frame,) in frames_of([stored], camera, namespace(name)):
                    report.add(frame)
