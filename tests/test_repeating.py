"""Repeated work goes on although it fails once."""

from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from twstock.repeating import repeating


def raised() -> None:
    """Work that fails at once."""
    raise ValueError("once")


@pytest.mark.logs_failures
@pytest.mark.parametrize("once", [raised, lambda: fail(ValueError("once"))])
def test_work_that_fails_is_told_of_and_goes_on(once) -> None:
    """Whether the work raises or its Deferred fails, the failure is logged and the work is called
    again at its next time.
    """
    clock, times = Clock(), []

    def work() -> Any:
        times.append(clock.seconds())
        return once() if len(times) == 2 else None

    looping = repeating(work, clock, "the work")
    with capturedLogs() as logged:
        looping.start(1.0)
        clock.pump([1.0, 1.0])
    assert times == [0.0, 1.0, 2.0]
    assert looping.running
    (event,) = logged
    assert event["name"] == "the work"
    assert event["log_failure"].type is ValueError


def test_the_next_time_waits_for_the_one_before() -> None:
    """Work that is not done yet is not begun again."""
    clock, begun = Clock(), []

    def work() -> Any:
        begun.append(Deferred())
        return begun[-1]

    repeating(work, clock, "the work").start(1.0)
    clock.advance(5.0)
    assert len(begun) == 1
    begun[0].callback(None)
    clock.advance(1.0)
    assert len(begun) == 2
