"""An engine that is opened in the background: progress, cancelling, failures and pauses."""

from __future__ import annotations

import math
import queue
import threading

import pytest

from mtl_perception.engines.choice import ChosenEngine
from mtl_perception.engines.engine import EngineError
from mtl_perception.engines.supervisor import CancelledError, EngineSupervisor, State

TIMEOUT_S = 20.0  # for what takes no time


class Engine:
    """Nothing but something to close."""

    def __init__(self):
        self.closed = threading.Event()

    def close(self):
        assert not self.closed.is_set(), 'closed twice'
        self.closed.set()


class Workshop:
    """Opens engines as it is told: every call of ``open`` takes its orders from a queue of its own.

    Orders go to the call at hand; it ends with ``finish`` or ``fail``, and the next one follows.
    """

    def __init__(self):
        self.engines, self.errors, self.calls, self.at_hand = [], [], 0, 0
        self.begun, self.ended = threading.Semaphore(0), threading.Semaphore(0)
        self._orders = [queue.Queue() for _ in range(9)]

    def open(self, progress):
        orders = self._orders[self.calls]
        self.calls += 1
        self.begun.release()
        try:
            while (order := orders.get(timeout=TIMEOUT_S)) is not None:
                if isinstance(order, Exception):
                    raise order
                progress(*order)
            self.engines.append(Engine())
            return ChosenEngine(self.engines[-1], 'the only one')
        except Exception as error:
            self.errors.append(error)
            raise
        finally:
            self.ended.release()

    def report(self, activity, share):
        self._orders[self.at_hand].put((activity, share))

    def finish(self):
        self._orders[self.at_hand].put(None)
        self.at_hand += 1

    def fail(self, reason):
        self._orders[self.at_hand].put(EngineError(reason))
        self.at_hand += 1

    def has_begun(self):
        return self.begun.acquire(timeout=TIMEOUT_S)

    def has_ended(self):
        return self.ended.acquire(timeout=TIMEOUT_S)


@pytest.fixture
def workshop():
    return Workshop()


@pytest.fixture
def clock():
    """A clock that stands still: ``clock.now`` moves it."""

    class Clock:
        now = 100.0

        def __call__(self):
            return self.now

    return Clock()


@pytest.fixture
def supervisor(workshop, clock):
    return EngineSupervisor(workshop.open, clock=clock, retry_s=(1.0, 5.0))


def opened(supervisor, workshop):
    """The engine, after it was started and finished."""
    supervisor.start()
    workshop.finish()
    assert supervisor.wait(TIMEOUT_S)
    return supervisor.poll()


def test_nothing_is_opened_before_it_is_started(supervisor, workshop):
    assert supervisor.state == State.CLOSED
    assert supervisor.poll() is None
    assert supervisor.wait(0)
    supervisor.start()
    assert workshop.has_begun()


def test_it_opens_in_the_background_and_tells_how_far_it_is(supervisor, workshop):
    supervisor.start()
    supervisor.start()  # changes nothing
    assert supervisor.state == State.BUILDING
    assert supervisor.progress[0] == 'starting'
    assert supervisor.poll() is None
    workshop.report('building kernels', 0.25)
    workshop.report('building kernels', 0.5)
    while supervisor.progress != ('building kernels', 0.5):
        assert not supervisor.wait(0.01)
    workshop.finish()
    assert supervisor.wait(TIMEOUT_S)
    assert supervisor.state == State.READY
    assert supervisor.progress[0] == ''
    assert math.isnan(supervisor.progress[1])
    assert supervisor.poll() is supervisor.chosen
    assert supervisor.chosen.engine is workshop.engines[0]
    supervisor.start()  # it is there
    assert supervisor.state == State.READY
    supervisor.close()
    assert workshop.engines[0].closed.is_set()
    assert supervisor.state == State.CLOSED
    assert supervisor.chosen is None


def test_what_the_opener_raises_comes_once(supervisor, workshop):
    supervisor.start()
    workshop.fail('no such card')
    assert supervisor.wait(TIMEOUT_S)
    assert supervisor.state == State.WAITING
    assert supervisor.failure == 'no such card'
    with pytest.raises(EngineError, match='no such card'):
        supervisor.poll()
    assert supervisor.poll() is None
    # Whoever starts it by hand need not wait for the pause, nor hear of the old failure.
    assert opened(supervisor, workshop) is not None


def test_starting_anew_forgets_a_failure_that_nobody_asked_about(supervisor, workshop):
    supervisor.start()
    workshop.fail('no such card')
    assert supervisor.wait(TIMEOUT_S)
    assert opened(supervisor, workshop) is not None


@pytest.mark.parametrize('last', ['report', 'finish', 'fail'])
def test_closing_cancels_at_once_whatever_the_opener_does_then(supervisor, workshop, last):
    supervisor.start()
    assert workshop.has_begun()
    supervisor.close()
    assert supervisor.state == State.CLOSED
    assert supervisor.wait(0)
    if last == 'report':
        workshop.report('more', 0.5)
    elif last == 'finish':
        workshop.finish()
    else:
        workshop.fail('late')
    assert workshop.has_ended()
    if last == 'report':
        assert isinstance(workshop.errors[0], CancelledError)
    for engine in workshop.engines:
        assert engine.closed.wait(TIMEOUT_S)
    assert supervisor.state == State.CLOSED
    assert supervisor.failure == ''
    assert supervisor.poll() is None


def test_a_cancelled_attempt_does_not_disturb_the_next_one(supervisor, workshop):
    supervisor.start()
    assert workshop.has_begun()
    supervisor.close()
    supervisor.start()
    assert workshop.has_begun()
    workshop.finish()  # the old one
    assert workshop.has_ended()
    assert workshop.engines[0].closed.wait(TIMEOUT_S)
    assert supervisor.state == State.BUILDING
    workshop.finish()
    assert supervisor.wait(TIMEOUT_S)
    assert supervisor.chosen.engine is workshop.engines[1]
    assert not workshop.engines[1].closed.is_set()


def test_an_engine_that_failed_is_closed_and_opened_anew_after_a_pause(supervisor, workshop, clock):
    first = opened(supervisor, workshop)
    assert workshop.has_begun()
    supervisor.failed('out of memory')
    assert supervisor.state == State.WAITING
    assert supervisor.failure == 'out of memory'
    assert supervisor.chosen is None
    assert supervisor.pause_s == 1.0
    clock.now += 0.99
    assert supervisor.poll() is None
    assert supervisor.state == State.WAITING
    clock.now += 0.01
    assert supervisor.poll() is None
    assert supervisor.state == State.BUILDING
    assert workshop.has_begun()
    assert first.engine.closed.is_set(), 'before the next one is opened'
    workshop.finish()
    assert supervisor.wait(TIMEOUT_S)
    assert supervisor.poll() is not None
    assert supervisor.poll() is not first
    assert supervisor.failure == 'out of memory', 'until it is seen to work'
    supervisor.succeeded()
    assert supervisor.failure == ''


def test_pauses_grow_until_a_run_succeeds(supervisor, workshop, clock):
    opened(supervisor, workshop)
    for pause in (1.0, 5.0, 5.0):
        supervisor.failed('again')
        assert supervisor.pause_s == pause
        clock.now += pause
        assert supervisor.poll() is None
        workshop.finish()
        assert supervisor.wait(TIMEOUT_S)
    supervisor.succeeded()
    supervisor.failed('again')
    assert supervisor.pause_s == 1.0


def test_an_opener_that_fails_is_tried_again_after_a_pause(supervisor, workshop, clock):
    opened(supervisor, workshop)
    supervisor.failed('unplugged')
    clock.now += 1.0
    assert supervisor.poll() is None
    workshop.fail('still unplugged')
    assert supervisor.wait(TIMEOUT_S)
    with pytest.raises(EngineError, match='still unplugged'):
        supervisor.poll()
    assert (supervisor.failure, supervisor.pause_s) == ('still unplugged', 5.0)
    clock.now += 4.9
    assert supervisor.poll() is None
    assert supervisor.state == State.WAITING
    clock.now += 0.1
    assert supervisor.poll() is None
    workshop.finish()
    assert supervisor.wait(TIMEOUT_S)
    assert supervisor.poll() is not None


def test_closing_while_waiting_closes_the_broken_engine(supervisor, workshop, clock):
    first = opened(supervisor, workshop)
    supervisor.failed('out of memory')
    supervisor.close()
    assert first.engine.closed.is_set()
    clock.now += 100
    assert supervisor.poll() is None
    assert supervisor.state == State.CLOSED


def test_a_broken_engine_that_cannot_be_closed_is_a_failure_and_no_end(supervisor, workshop, clock):
    first = opened(supervisor, workshop)
    first.engine.closed.set()  # so that closing raises
    supervisor.failed('lost the device')
    clock.now += 1.0
    supervisor.poll()
    assert supervisor.wait(TIMEOUT_S)
    with pytest.raises(AssertionError, match='closed twice'):
        supervisor.poll()
    clock.now += 5.0
    supervisor.poll()
    workshop.finish()
    assert supervisor.wait(TIMEOUT_S)
    assert supervisor.poll() is not None
