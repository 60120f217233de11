"""What the node counts and times, and the status and diagnostics messages made of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from threading import Lock
from time import monotonic
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from mtl_perception_msgs.msg import PerceptionStatus

from ..bundle import Bundle
from ..camera import CameraModel
from ..engines.supervisor import EngineSupervisor

STAGES = ('decode', 'resize', 'engine', 'post', 'publish', 'latency')
COUNTERS = (
    'frames_received',
    'frames_processed',
    'frames_dropped',
    'frames_rejected',
    'frames_lost',
    'engine_failures',
    'messages_published',
    'camera_info_fallbacks',
    'uncalibrated_frames',
)


@dataclass(frozen=True)
class Calibration:
    """What the calibration of the newest image can be.

    Attributes:
        level: of its diagnostic.
        meaning: in words.
        published: whether depth and points are.
    """

    level: bytes
    meaning: str
    published: bool = False


_OK, _WARN = DiagnosticStatus.OK, DiagnosticStatus.WARN
CALIBRATIONS = {
    PerceptionStatus.CALIBRATION_UNKNOWN: Calibration(_OK, 'no image yet'),
    PerceptionStatus.CALIBRATION_METRIC: Calibration(_OK, 'depth is in metres', published=True),
    PerceptionStatus.CALIBRATION_MISSING: Calibration(_WARN, 'the camera is not calibrated'),
    PerceptionStatus.CALIBRATION_WRONG_SIZE: Calibration(
        _WARN, 'the CameraInfo is for another image size'
    ),
    PerceptionStatus.CALIBRATION_NOT_METRIC: Calibration(_WARN, "the bundle's depth is not metric"),
    PerceptionStatus.CALIBRATION_NOT_CREDIBLE: Calibration(
        _WARN, 'the calibration is not credible', published=True
    ),
    PerceptionStatus.CALIBRATION_NOT_PINHOLE: Calibration(
        _WARN, 'depth is in metres but not the image of a pinhole camera', published=True
    ),
}


@dataclass(frozen=True)
class Verdict:
    """What the calibration of an image is worth.

    Attributes:
        state: PerceptionStatus.CALIBRATION_*.
        detail: what more there is to say.
        model: the camera; None where it makes none.
    """

    state: int = PerceptionStatus.CALIBRATION_UNKNOWN
    detail: str = ''
    model: CameraModel | None = None

    @property
    def text(self) -> str:
        """The line that warns of it; empty where there is nothing to warn of."""
        known = CALIBRATIONS[self.state]
        if known.level == _OK:
            return ''
        words = f'{known.meaning[0].upper()}{known.meaning[1:]}'
        consequence = (
            ''
            if known.published
            else '; depth (unless allow_uncalibrated is set) and points are not published'
        )
        return f'{words}{": " if self.detail else ""}{self.detail}{consequence}'


@dataclass(frozen=True)
class Report:
    """What happened in one interval, and since the node was configured.

    Attributes:
        seconds: length of the interval.
        totals: ``COUNTERS`` since the start.
        counts: ``COUNTERS`` in the interval.
        rejected: bad images in the interval, by kind.
        last_rejection: the reason of the newest bad image; empty if there was none.
        times_ms: durations of each of ``STAGES`` in the interval.
    """

    seconds: float
    totals: Mapping[str, int]
    counts: Mapping[str, int]
    rejected: Mapping[str, int]
    last_rejection: str
    times_ms: Mapping[str, list[float]]

    def rate(self, counter: str) -> float:
        """Events per second in the interval, Hz."""
        return self.counts.get(counter, 0) / self.seconds if self.seconds > 0 else 0.0

    def median_ms(self, stage: str) -> float:
        """Median of a stage, milliseconds; NaN if it did not run."""
        return _median(self.times_ms.get(stage, ()))

    def p95_ms(self, stage: str) -> float:
        """95th percentile of a stage (nearest rank), milliseconds; NaN if it did not run."""
        times = sorted(self.times_ms.get(stage, ()))
        return times[math.ceil(0.95 * len(times)) - 1] if times else math.nan


@dataclass
class Statistics:
    """Counters and times of one camera, filled by both threads of the node."""

    _totals: Counter[str] = field(default_factory=Counter)
    _counts: Counter[str] = field(default_factory=Counter)
    _rejected: Counter[str] = field(default_factory=Counter)
    _times_ms: dict[str, list[float]] = field(default_factory=dict)
    _last_rejection: str = ''
    _logged: dict[str, float] = field(default_factory=dict)
    _since: float = field(default_factory=monotonic)
    _lock: Lock = field(default_factory=Lock)

    def count(self, counter: str, by: int = 1) -> None:
        """Add to one of ``COUNTERS``."""
        with self._lock:
            self._totals[counter] += by
            self._counts[counter] += by

    def reject(self, kind: str, reason: str) -> bool:
        """Count a bad image; returns whether it is time to log this kind, once a second."""
        self.count('frames_rejected')
        now = monotonic()
        with self._lock:
            self._rejected[kind] += 1
            self._last_rejection = reason
            due = now - self._logged.get(kind, -math.inf) >= 1.0
            if due:
                self._logged[kind] = now
            return due

    def time(self, stage: str, milliseconds: float) -> None:
        """Add a duration to one of ``STAGES``."""
        with self._lock:
            self._times_ms.setdefault(stage, []).append(milliseconds)

    def report(self) -> Report:
        """What happened since the last report; starts a new interval."""
        with self._lock:
            now = monotonic()
            report = Report(
                now - self._since,
                dict(self._totals),
                dict(self._counts),
                dict(self._rejected),
                self._last_rejection,
                dict(self._times_ms),
            )
            self._counts, self._rejected, self._times_ms = Counter(), Counter(), {}
            self._last_rejection = ''
            self._since = now
            return report


@dataclass(frozen=True)
class EngineHealth:
    """What is known about the engine.

    Attributes:
        model: bundle, bundle_version, bundle_sha256 and, once it is built, engine, engine_version,
            provider, device, precision.
        choice: why it is this engine; empty while it is built.
        refused: engines that were to be used and could not, with the reasons.
        activity: what is being built; empty while nothing is.
        share: how much of that is done, 0..1; NaN if unknown.
        failure: why it does not work at present; empty while it does.
    """

    model: Mapping[str, str]
    choice: str
    refused: Sequence[str]
    activity: str
    share: float
    failure: str

    @classmethod
    def of(cls, bundle: Bundle, supervisor: EngineSupervisor) -> EngineHealth:
        """What a supervisor tells about the engine of a bundle."""
        model = {
            'bundle': bundle.name,
            'bundle_version': bundle.version,
            'bundle_sha256': bundle.sha256,
        }
        chosen = supervisor.chosen
        if chosen is not None:
            identity = dict(chosen.engine.identity)
            model |= {'engine_version': identity.pop('version'), **identity}
        activity, share = supervisor.progress
        return cls(
            model=model,
            choice=chosen.reason if chosen is not None else '',
            refused=chosen.refused if chosen is not None else (),
            activity=activity,
            share=share,
            failure=supervisor.failure,
        )


def status_message(report: Report, calibration: int, engine: EngineHealth) -> Any:
    """Build a PerceptionStatus, without header.

    Args:
        report: of the interval.
        calibration: one of PerceptionStatus.CALIBRATION_*.
    """
    status = PerceptionStatus(calibration=calibration, **engine.model)
    status.engine_choice, status.engines_refused = engine.choice, list(engine.refused)
    status.activity, status.activity_share = engine.activity, engine.share
    for counter in COUNTERS:
        setattr(status, counter, report.totals.get(counter, 0))
    status.input_rate = report.rate('frames_received')
    status.output_rate = report.rate('frames_processed')
    for stage in STAGES:
        setattr(status, f'{stage}_ms', report.median_ms(stage))
    status.latency_p95_ms = report.p95_ms('latency')
    return status


def input_diagnostic(
    report: Report,
    topic: str,
    *,
    active: bool,
    failure: str = '',
    silence: str = '',
    advice: str = '',
    untold: str = '',
    crowd: str = '',
) -> Any:
    """DiagnosticStatus of the images of a camera.

    Args:
        report: of the interval.
        topic: where images come from; empty while nobody listens.
        active: whether the node is.
        failure: why it cannot subscribe to images; empty if it can.
        silence: what there is instead, where no image comes.
        advice: what to do about images that the middleware loses.
        untold: why it is not known whether it does; empty if it is.
        crowd: what is wrong where several publish images; empty if one does.
    """
    lost = report.counts.get('frames_lost')
    if not active:
        level, message = DiagnosticStatus.OK, 'the node is not active'
    elif failure:
        level, message = DiagnosticStatus.ERROR, failure
    elif not topic:
        level, message = DiagnosticStatus.OK, 'idle: nobody subscribes to an output'
    elif report.last_rejection:
        level = DiagnosticStatus.WARN
        kinds = ', '.join(f'{count} {kind}' for kind, count in sorted(report.rejected.items()))
        message = f'bad images ({kinds}): {report.last_rejection}'
    elif lost:
        level = DiagnosticStatus.WARN
        came = f'{report.counts.get("frames_received", 0)} images came on {topic}'
        message = f'{came}, {lost} were lost before they arrived: {advice}'
    elif not report.counts.get('frames_received'):
        level, message = DiagnosticStatus.WARN, f'no image on {topic}: {silence}'
    else:
        level = DiagnosticStatus.WARN if crowd else DiagnosticStatus.OK
        message = f'{report.rate("frames_received"):.1f} Hz{crowd and ", and "}{crowd}'
    keys = (
        'frames_received',
        'frames_processed',
        'frames_dropped',
        'frames_rejected',
        'frames_lost',
    )
    values = {key: str(report.totals.get(key, 0)) for key in keys}
    values['frames_lost'] = untold or values['frames_lost']
    return _diagnostic('input', level, message, {'topic': topic, **values})


def engine_diagnostic(reports: Sequence[Report], engine: EngineHealth) -> Any:
    """DiagnosticStatus of the engine, which serves all cameras.

    Args:
        reports: of each camera.
    """
    values = dict(engine.model)
    values['engine_choice'] = engine.choice
    values['engine_failures'] = str(max(r.totals.get('engine_failures', 0) for r in reports))
    for stage in STAGES:
        times = [time for report in reports for time in report.times_ms.get(stage, ())]
        values[f'{stage}_ms'] = f'{_median(times):.2f}'
    if engine.failure:
        return _diagnostic('engine', DiagnosticStatus.ERROR, engine.failure, values)
    if engine.activity:
        share = '' if math.isnan(engine.share) else f' ({engine.share:.0%})'
        message = f'{engine.activity}{share}'
        return _diagnostic('engine', DiagnosticStatus.WARN, message, values)
    if engine.refused:
        message = '; '.join(engine.refused)
        return _diagnostic('engine', DiagnosticStatus.WARN, message, values)
    message = f'{engine.model["bundle"]} on {engine.model.get("engine", "no engine")}'
    return _diagnostic('engine', DiagnosticStatus.OK, message, values)


def calibration_diagnostic(report: Report, verdict: Verdict, silence: str = '') -> Any:
    """DiagnosticStatus of a camera's calibration.

    Args:
        report: of the interval.
        verdict: on the newest image.
        silence: what there is instead, where no CameraInfo comes.
    """
    known = CALIBRATIONS[verdict.state]
    message = ': '.join(filter(None, [known.meaning, verdict.detail, silence]))
    keys = ('uncalibrated_frames', 'camera_info_fallbacks')
    values = {key: str(report.totals.get(key, 0)) for key in keys}
    return _diagnostic('calibration', known.level, message, values)


def _diagnostic(name: str, level: bytes, message: str, values: Mapping[str, str]) -> Any:
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(name=name, level=level, message=message, values=pairs)


def _median(times: Sequence[float]) -> float:
    return median(times) if times else math.nan
