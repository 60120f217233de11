"""Who turns the steps of a replay into chunks of a bag: this process, or others.

This one reads and writes in any case. Others get the steps in pieces, each with the bytes of its
images, so that nobody else needs the recording, and give the chunks back. A chunk depends on its
step only, so the bag is the same whoever made it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from itertools import groupby, islice
from pathlib import Path
from typing import Protocol, TypeVar

from ..bundle import Bundle, default_bundle, load_bundle
from ..engines.choice import ChosenEngine, open_engine
from ..engines.engine import EngineError, EngineOptions
from ..outputs import outputs_of
from .bag_replay import Done, Watcher, encoded
from .layout import Layout
from .mcap import Channel
from .replay import Job, in_order, pool, replay
from .sources import Source, Step

# Large enough that a worker seldom waits for the first image of a piece, or for the last chunk.
_PIECE = 16

T = TypeVar('T')
R = TypeVar('R')


@dataclass(frozen=True)
class EngineWish:
    """The engine that is to run a bundle.

    Attributes:
        bundle: its folder; None: the shipped one, wherever that is.
        backend, options: see ``open_engine``.
    """

    bundle: Path | None
    backend: str
    options: EngineOptions

    def load(self) -> Bundle:
        """The bundle."""
        return load_bundle(self.bundle or default_bundle())


def needs_gpu(wish: EngineWish) -> bool | None:
    """Whether an engine needs a GPU; None where it takes what there is."""
    if wish.backend == 'auto':
        return None
    return wish.backend == 'tensorrt' or wish.options.provider != 'cpu'


@dataclass(frozen=True)
class EngineFacts:
    """The engine that runs a bundle.

    Attributes:
        name: to open it by.
        identity: what the numbers depend on.
        max_batch: largest number of images in one run.
    """

    name: str
    identity: Mapping[str, str]
    max_batch: int

    @classmethod
    def of(cls, bundle: Bundle, chosen: ChosenEngine) -> EngineFacts:
        """Those of an opened engine."""
        keys = ('engine', 'version', 'provider', 'precision')
        identity = {key: chosen.engine.identity[key] for key in keys}
        return cls(
            chosen.engine.name, {'model_sha256': bundle.sha256, **identity}, chosen.max_batch
        )


@dataclass(frozen=True)
class Recipe:
    """How the steps of an input become chunks.

    Attributes:
        job: how they are replayed.
        outputs: names of what is stored of each image.
        cameras: their names.
        kept: channels of what is taken along.
    """

    job: Job
    outputs: tuple[str, ...]
    cameras: tuple[str, ...]
    kept: tuple[Channel, ...] = ()

    def layout(self, bundle: Bundle) -> Layout:
        """Of the bag."""
        outputs = [output for output in outputs_of(bundle) if output.name in self.outputs]
        return Layout(bundle, outputs, self.cameras, self.kept)


class Runner(Protocol):
    """Turns the steps of inputs into chunks.

    Attributes:
        facts: about its engine.
    """

    facts: EngineFacts

    def __call__(
        self, source: Source, recipe: Recipe, skip: int, watch: Watcher | None
    ) -> Iterator[Done]:
        """What is done of all steps after so many, in order; ``watch`` only of a ``Here``."""


class Here:
    """Runs steps in this process; its engine is the caller's."""

    def __init__(self, bundle: Bundle, chosen: ChosenEngine) -> None:
        self.facts = EngineFacts.of(bundle, chosen)
        self._bundle = bundle
        self._engine = chosen.engine

    def __call__(
        self, source: Source, recipe: Recipe, skip: int, watch: Watcher | None
    ) -> Iterator[Done]:
        steps = islice(source.steps(recipe.job.selection), skip, None)
        results = replay(steps, recipe.job, self._bundle, self._engine)
        layout, batch = recipe.layout(self._bundle), recipe.job.batch
        return encoded(results, layout, batch=batch, watch=watch or (lambda _: None))


class Call(Protocol):
    """Calls a function of this package elsewhere, in one of several places; from any thread."""

    def __call__(self, function: Callable[[T], R], argument: T) -> R:
        """The result; what the function raises is raised."""


class Apart:
    """Runs steps elsewhere, where there is an engine in every place.

    Args:
        call: does so.
        at_once: how many calls are made at a time.
        wish: the engine; the place that opens the first one decides for all what ``auto`` is.

    Raises:
        PerceptionError: the engine does not open.
    """

    def __init__(self, call: Call, at_once: int, wish: EngineWish) -> None:
        self._call = call
        self._at_once = at_once
        self.facts = call(open_here, wish)
        self._wish = replace(wish, backend=self.facts.name)

    def __call__(
        self, source: Source, recipe: Recipe, skip: int, watch: Watcher | None
    ) -> Iterator[Done]:
        batch = recipe.job.batch
        size = max(1, _PIECE // batch) * batch
        packed = pickle.dumps(recipe)
        steps = islice(source.steps(recipe.job.selection), skip, None)
        pieces = (
            Piece(self._wish, self.facts, packed, tuple(group))
            for _, group in groupby(steps, lambda step: step.index // size)
        )
        with pool(self._at_once, 'pieces') as callers:
            # As many as are in work may wait for their turn to be written.
            ahead = 2 * self._at_once
            for done in in_order(callers, partial(self._call, run_piece), pieces, ahead=ahead):
                yield from done


@dataclass(frozen=True)
class Piece:
    """Steps for a worker, and all that it needs for them.

    Attributes:
        wish: the engine.
        facts: what it is for all workers.
        recipe: pickled, so that it is unpacked once for many pieces.
        steps: consecutive ones.
    """

    wish: EngineWish
    facts: EngineFacts
    recipe: bytes
    steps: Sequence[Step]


def open_here(wish: EngineWish) -> EngineFacts:
    """Open an engine in this process, which keeps it."""
    return EngineFacts.of(*_opened(wish))


def run_piece(piece: Piece) -> list[Done]:
    """Do a piece in this process.

    Raises:
        EngineError: its engine is another one than the other workers', or failed.
    """
    bundle, chosen = _opened(piece.wish)
    found = EngineFacts.of(bundle, chosen)
    if found != piece.facts:
        raise EngineError(
            f'the engines of the workers differ: {_described(piece.facts)}, {_described(found)}; '
            'install the same on all machines'
        )
    recipe, layout = _unpacked(piece.recipe, piece.wish)
    results = replay(piece.steps, recipe.job, bundle, chosen.engine)
    return list(encoded(results, layout, batch=recipe.job.batch))


@cache
def _opened(wish: EngineWish) -> tuple[Bundle, ChosenEngine]:
    bundle = wish.load()
    return bundle, open_engine(wish.backend, bundle, wish.options)


@lru_cache(maxsize=2)
def _unpacked(recipe: bytes, wish: EngineWish) -> tuple[Recipe, Layout]:
    unpacked: Recipe = pickle.loads(recipe)
    return unpacked, unpacked.layout(_opened(wish)[0])


def _described(facts: EngineFacts) -> str:
    return ' '.join([*facts.identity.values(), f'batch {facts.max_batch}'])
