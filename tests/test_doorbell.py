"""Calls from threads to the reactor: all are made, once, in sequence, and none keeps the reactor
from other work.
"""

import select
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import globalLogPublisher

from twstock.doorbell import Doorbell, use_doorbell


def is_ringing(bell: Doorbell) -> bool:
    """Whether a reactor would read from it."""
    return bool(select.select([bell], [], [], 0)[0])


def test_calls_are_made_in_sequence_when_the_reactor_reads() -> None:
    """They are not made before, and get all their arguments."""
    bell, made = Doorbell(), list[Any]()
    assert not is_ringing(bell)
    bell.call(made.append, 1)
    bell.call(lambda *args, **kwargs: made.append((args, kwargs)), 2, x=3)
    assert made == []
    assert is_ringing(bell)
    bell.doRead()
    assert made == [1, ((2,), {"x": 3})]
    assert not is_ringing(bell)


def test_a_call_that_hands_over_another_waits_for_the_next_turn() -> None:
    """Otherwise a call that always does so would keep the reactor from everything else."""
    bell, made = Doorbell(), list[int]()

    def again(number: int) -> None:
        made.append(number)
        if number < 100:
            bell.call(again, number + 1)

    bell.call(again, 1)
    for turn in (1, 2, 3):
        assert is_ringing(bell)
        bell.doRead()
        assert len(made) == turn


def test_a_reactor_that_is_asked_to_stop_twice_stops_once() -> None:
    """Each signal hands over a call that stops it; that the second one fails is not logged as an
    error.
    """
    bell, made = Doorbell(), list[int]()

    def stop() -> None:
        raise ReactorNotRunning

    bell.call(stop)
    bell.call(made.append, 1)
    bell.doRead()
    assert made == [1]


@pytest.mark.logs_failures
def test_an_error_is_logged_and_the_others_are_made() -> None:
    """Whatever the error is: if it reached the reactor, that would never read from the doorbell
    again.
    """
    bell, made, logged = Doorbell(), list[int](), list[Any]()

    def fail(error: BaseException) -> None:
        raise error

    globalLogPublisher.addObserver(logged.append)
    try:
        for error in (ValueError("x"), SystemExit(3)):
            bell.call(fail, error)
        bell.call(made.append, 1)
        bell.doRead()
    finally:
        globalLogPublisher.removeObserver(logged.append)
    assert made == [1]
    assert [event["log_failure"].type for event in logged] == [ValueError, SystemExit]


@pytest.fixture
def ring() -> Iterator[Any]:
    """``callFromThread`` of the real reactor, through a doorbell."""
    real: Any = reactor
    usual, added = real.callFromThread, list[Any]()
    add = real.addReader
    real.addReader = lambda reader: (added.append(reader), add(reader))
    use_doorbell(real)
    real.addReader = add
    yield real.callFromThread
    real.callFromThread = usual
    for bell in added:
        real.removeReader(bell)


@pytest_twisted.ensureDeferred
async def test_many_threads_lose_nothing(ring: Any) -> None:
    """The calls of each thread are made once, in its own sequence."""
    threads, calls = 4, 2000
    made: list[list[int]] = [[] for _ in range(threads)]
    done: Deferred[None] = Deferred()

    def take(thread: int, number: int) -> None:
        made[thread].append(number)
        if sum(map(len, made)) == threads * calls:
            done.callback(None)

    def work(thread: int) -> None:
        for number in range(calls):
            ring(take, thread, number)

    running = [Thread(target=work, args=(thread,)) for thread in range(threads)]
    for thread in running:
        thread.start()
    await done
    for thread in running:
        thread.join()
    assert made == [list(range(calls))] * threads
