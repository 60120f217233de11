"""A job in the background: its progress, its result, its errors, and its end when cancelled."""

from __future__ import annotations

import threading

import pytest

from mtl_perception.engines.supervisor import Background, CancelledError


def ignore(result):
    pass


def test_result_and_progress():
    go = threading.Event()

    def job(progress):
        progress('cooking', 0.5)
        assert go.wait(60)
        return 'soup'

    background = Background(job, ignore)
    assert not background.wait(0.05)
    assert background.running
    assert (background.activity, background.share) == ('cooking', 0.5)
    go.set()
    assert background.wait(60)
    assert background.result() == 'soup'


def test_what_the_job_raises_comes_with_the_result():
    def job(progress):
        raise ValueError('burnt')

    with pytest.raises(ValueError, match='burnt'):
        Background(job, ignore).result()


def test_a_cancelled_job_ends_at_its_next_report():
    cancelled = threading.Event()

    def job(progress):
        assert cancelled.wait(60)
        progress('never seen', 1.0)
        return 'never returned'

    released = []
    background = Background(job, released.append)
    background.cancel()
    cancelled.set()
    with pytest.raises(CancelledError):
        background.result()
    assert background.activity != 'never seen'
    assert released == []


@pytest.mark.parametrize('finished', [False, True])
def test_the_result_of_a_cancelled_job_is_released(finished):
    go = threading.Event()

    def job(progress):
        assert go.wait(60)
        return 'soup'

    released = []
    background = Background(job, released.append)
    if finished:
        go.set()
        assert background.wait(60)
    background.cancel()
    go.set()
    assert background.wait(60)
    assert released == ['soup']
