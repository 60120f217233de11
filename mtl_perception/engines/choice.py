"""The engine that a machine should use: chosen by name or by measuring, checked against the model.

``auto`` takes TensorRT where it works. Else the CPU engines that are installed take turns for a
second, the fastest wins (ONNX Runtime, if it is nearly as fast), and the decision is kept in the
cache for the next start.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Protocol

from .. import __version__
from ..bundle import Bundle, BundleError
from .agreement import Agreement, SelfCheckError, self_check
from .cache import CacheError, EngineCache
from .engine import BACKENDS, Engine, EngineError, EngineOptions, Progress, quiet
from .entries import Key
from .machine import installed_version, machine_name
from .opening import open_unchecked
from .timing import Rounds, noise, time_engines

_DEFAULTS = EngineOptions()
CPU_ENGINES = ('openvino', 'onnxruntime')
# The median of few turns is enough to tell engines apart whose difference anybody would notice.
ROUNDS = Rounds(warm_up=1, least=3, most=25, seconds=1.0)
# Engines so near to each other are equal. ONNX Runtime is taken then: with a camera and a recorder
# on the same two cores an image took 26 to 28 % longer in it, in OpenVINO 18 to 48 %, and more CPU.
NEAR = 1.1

# Why an engine does not open. All else (a build that was cancelled) is not about the engine.
_NOT_OPENED = (EngineError, BundleError)


@dataclass(frozen=True)
class ChosenEngine:
    """An engine and how it was chosen.

    Attributes:
        engine: opened; the caller closes it.
        reason: why this one, one line for a log.
        max_batch: largest number of images in one run of it.
        refused: engines that the self-check refused, one line each.
        skipped: engines that were tried before it and could not be used, with the reason.
        agreements: what the self-check found; empty where the bundle has no probes.
        cached: whether the engine, or the choice, was taken from the cache.
        cache_problem: why something could not be kept in the cache; empty if all is well.
    """

    engine: Engine
    reason: str
    max_batch: int = 1
    refused: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    cached: bool = False
    cache_problem: str = ''


class Opener(Protocol):
    """Opens one engine by name, as ``open_unchecked`` does."""

    def __call__(
        self,
        name: str,
        bundle: Bundle,
        options: EngineOptions,
        *,
        cache: EngineCache,
        progress: Progress,
    ) -> Engine: ...


@dataclass(frozen=True)
class Machine:
    """What a choice asks of the machine that it runs on.

    Attributes:
        name: what decides how fast an engine is here.
        version: of an engine's package; empty where that is not installed.
        open: opens an engine.
        clock: seconds.
    """

    name: Callable[[], str] = machine_name
    version: Callable[[str], str] = installed_version
    open: Opener = open_unchecked
    clock: Callable[[], float] = time.perf_counter


_THIS_MACHINE = Machine()


def open_engine(
    name: str,
    bundle: Bundle,
    options: EngineOptions = _DEFAULTS,
    *,
    cache: EngineCache | None = None,
    progress: Progress = quiet,
    machine: Machine = _THIS_MACHINE,
) -> ChosenEngine:
    """Open the engine of a name, or the best one, and check that it computes the model's numbers.

    An engine that the self-check refuses is not used; the next one of ``BACKENDS`` takes its
    place and ``ChosenEngine.refused`` says so. Nothing else replaces an engine that was asked for
    by name. A refused engine stays in the cache: building it again would take minutes at every
    start and give the same.

    On a CPU every engine is opened for one image at a time. An image in a batch of four took 1.12
    times as long in ONNX Runtime and 1.42 times in OpenVINO, with twice the memory.

    Args:
        name: ``auto`` or one of ``BACKENDS``.
        bundle: from ``load_bundle``.
        options: for every engine that is tried, but for ``max_batch`` on a CPU; an engine that
            cannot be that is skipped.
        cache: left out, the user's.
        progress: see ``Progress``.
        machine: another one, for tests.

    Raises:
        EngineError: unknown name; the named engine does not open; or none works, with every
            reason.
        bundle.BundleError: the bundle is not what it says, or has no model of the precision.
    """
    if name not in ('auto', *BACKENDS):
        raise EngineError(f'unknown backend {name!r}, expected auto or {", ".join(BACKENDS)}')
    choice = _Choice(bundle, options, cache or EngineCache(), progress, machine)
    return choice.best() if name == 'auto' else choice.named(name)


@dataclass(frozen=True)
class _Opened:
    """An engine that passed the self-check."""

    name: str
    engine: Engine
    max_batch: int
    agreements: tuple[Agreement, ...]


@dataclass(frozen=True)
class _Decision:
    """What timing found, as it is kept in the cache.

    Attributes:
        winner: the one that was chosen.
        milliseconds: engine -> median time of a run; two engines or more.
        date: of the measurement.
    """

    winner: str
    milliseconds: Mapping[str, float]
    date: str

    @classmethod
    def parse(cls, content: bytes) -> _Decision | None:
        """The opposite of ``dump``; None where the content is not a decision."""
        try:
            fields = json.loads(content)
            decision = cls(**fields)
            known = decision.winner in CPU_ENGINES and decision.winner in decision.milliseconds
        except (ValueError, TypeError):
            return None
        return decision if known and isinstance(decision.date, str) else None

    def dump(self) -> bytes:
        return json.dumps(asdict(self)).encode()


class _Choice:
    """One call of ``open_engine``: what was tried so far, and why it was not taken."""

    def __init__(
        self,
        bundle: Bundle,
        options: EngineOptions,
        cache: EngineCache,
        progress: Progress,
        machine: Machine,
    ) -> None:
        self._bundle = bundle
        self._options = options
        self._cache = cache
        self._progress = progress
        self._machine = machine
        self._refused: list[str] = []
        self._skipped: list[str] = []
        self._cache_problem = ''

    def named(self, name: str) -> ChosenEngine:
        """The engine of that name; the next ones only if the self-check refuses it."""
        try:
            opened = self._open(name)
        except SelfCheckError as error:
            self._refuse(name, error)
        else:
            return self._engine(opened, f'{name} {self._precision}: asked for by name')
        for other in BACKENDS[BACKENDS.index(name) + 1 :]:
            opened_other = self._try(other)
            if opened_other is not None:
                return self._engine(opened_other, f'{other} {self._precision} instead')
        raise self._nothing()

    def best(self) -> ChosenEngine:
        """TensorRT, else the fastest on the CPU."""
        opened = self._try('tensorrt')
        if opened is not None:
            return self._engine(opened, f'tensorrt {self._precision}: it works here')
        installed = [name for name in CPU_ENGINES if self._machine.version(name)]
        for name in CPU_ENGINES:
            if name not in installed:
                self._skipped.append(f'{name}: the Python package {name} is not installed')
        if len(installed) > 1:
            return self._decided(installed) or self._measured(installed)
        opened = self._try(installed[0]) if installed else None
        if opened is None:
            raise self._nothing()
        return self._engine(
            opened, f'{opened.name} {self._precision}: the only engine that is installed'
        )

    def _decided(self, names: Sequence[str]) -> ChosenEngine | None:
        """The engine that was the fastest when it was measured before; None where it was not."""
        try:
            content = self._cache.load(self._key(names))
        except (CacheError, OSError):
            return None
        decision = _Decision.parse(content) if content is not None else None
        if decision is None:
            return None
        before = len(self._refused), len(self._skipped)
        opened = self._try(decision.winner)
        if opened is None:  # it is tried again among the others, and gives its reason then
            del self._refused[before[0] :], self._skipped[before[1] :]
            return None
        reason = (
            f'{opened.name} {self._precision}: chosen among {len(decision.milliseconds)} engines '
            f'(measured {decision.date})'
        )
        return self._engine(opened, reason, cached=True)

    def _measured(self, names: Sequence[str]) -> ChosenEngine:
        """The engine that is the fastest now."""
        opened: dict[str, _Opened] = {}
        try:
            for name in names:
                engine = self._try(name)
                if engine is not None:
                    opened[name] = engine
            milliseconds = self._measure(opened)
            if not milliseconds:
                raise self._nothing()
            winner = min(milliseconds, key=milliseconds.__getitem__)
            if milliseconds.get('onnxruntime', math.inf) <= NEAR * milliseconds[winner]:
                winner = 'onnxruntime'
            reason = self._comparison(winner, milliseconds)
            # An engine that does not work now is tried again at the next start.
            if len(milliseconds) > 1:
                today = datetime.now(timezone.utc).date().isoformat()
                self._keep(names, _Decision(winner, milliseconds, today))
            return self._engine(opened.pop(winner), reason)
        finally:
            for other in opened.values():
                other.engine.close()

    def _measure(self, opened: Mapping[str, _Opened]) -> dict[str, float]:
        """Median milliseconds of a run of each engine; one that fails is left out.

        A single engine has nothing to be compared with: it is not timed, and has NaN.
        """
        if len(opened) < 2:
            return dict.fromkeys(opened, math.nan)
        timings = time_engines(
            {name: other.engine for name, other in opened.items()},
            noise(self._bundle, 1),
            list(self._bundle.outputs),
            ROUNDS,
            turn=lambda name: self._progress(f'measuring {name}', math.nan),
            clock=self._machine.clock,
        )
        self._skipped += [f'{name}: {t.failure}' for name, t in timings.items() if t.failure]
        return {name: t.median_ms for name, t in timings.items() if not t.failure}

    def _comparison(self, winner: str, milliseconds: Mapping[str, float]) -> str:
        """Why it was taken."""
        threads = f'threads: {self._options.threads or "automatic"}'
        others = [name for name in milliseconds if name != winner]
        if not others:
            return f'{winner} {self._precision}: the only engine that works'
        against = ', '.join(f'{milliseconds[name]:.3g} ms of {name}' for name in others)
        near = ', nearly equal' if milliseconds[winner] > min(milliseconds.values()) else ''
        return (
            f'{winner} {self._precision}: {milliseconds[winner]:.3g} ms against {against}{near} '
            f'(measured now, {threads})'
        )

    def _keep(self, names: Sequence[str], decision: _Decision) -> None:
        """Put a decision into the cache, if it can be written."""
        try:
            self._cache.store(self._key(names), decision.dump(), {'winner': decision.winner})
        except (CacheError, OSError) as error:
            self._cache_problem = str(error)

    def _key(self, names: Sequence[str]) -> Key:
        """All that the timing depends on."""
        versions = [self._machine.version(name) for name in names]
        models = {f'model_{variant}': file.sha256 for variant, file in self._bundle.models.items()}
        return Key(
            kind='choice',
            model_sha256=self._bundle.sha256,
            backend=','.join(names),
            version=', '.join([*versions, f'mtl_perception {__version__}']),
            device=self._machine.name(),
            precision=self._precision,
            max_batch=self._options.max_batch,
            options={
                'threads': str(self._options.threads),
                'provider': self._options.provider,
                'device': str(self._options.device),
                **models,
            },
        )

    def _open(self, name: str) -> _Opened:
        """Open an engine and check it."""
        self._progress(f'opening {name}', math.nan)
        options = self._options
        if name == 'openvino' or (name == 'onnxruntime' and options.provider == 'cpu'):
            options = replace(options, max_batch=1)
        engine = self._machine.open(
            name, self._bundle, options, cache=self._cache, progress=self._progress
        )
        try:
            self._progress(f'checking {name}', math.nan)
            found = self_check(engine, self._bundle, options.precision, max_batch=options.max_batch)
        except BaseException:
            engine.close()
            raise
        return _Opened(name, engine, options.max_batch, tuple(found))

    def _try(self, name: str) -> _Opened | None:
        """Open an engine and check it; None, with the reason kept, where that fails."""
        try:
            return self._open(name)
        except SelfCheckError as error:
            self._refuse(name, error)
        except _NOT_OPENED as error:
            self._skipped.append(f'{name}: {error}')
        return None

    def _refuse(self, name: str, error: SelfCheckError) -> None:
        self._refused.append(f'{name} was refused by the self-check ({error})')

    def _nothing(self) -> EngineError:
        reasons = '; '.join([*self._refused, *self._skipped])
        return EngineError(f'no engine works for {self._bundle.folder}: {reasons}')

    def _engine(self, opened: _Opened, reason: str, *, cached: bool = False) -> ChosenEngine:
        return ChosenEngine(
            engine=opened.engine,
            max_batch=opened.max_batch,
            reason='; '.join([*self._refused, reason]),
            refused=tuple(self._refused),
            skipped=tuple(self._skipped),
            agreements=opened.agreements,
            cached=cached or opened.engine.cached,
            cache_problem=self._cache_problem or opened.engine.cache_problem,
        )

    @property
    def _precision(self) -> str:
        return self._options.precision
