"""Waiting for something with a time limit; giving up looks the same whatever is waited for."""

from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twstock.clocks import Clock

T = TypeVar("T")


class TooLate(Exception):
    """What was waited for took too long."""


def within(work: "Deferred[T]", limit_s: float, clock: Clock) -> "Deferred[T]":
    """The result of ``work``, or TooLate after ``limit_s``, when ``work`` is cancelled.

    Cancelling the result gives CancelledError. Twisted's HTTP client would wrap that in connection
    errors, which must not be taken for a reason to ask again.
    """

    def give_up(reason: Exception) -> None:
        if timer.active():
            timer.cancel()
        outer.errback(reason)
        work.cancel()

    def done(result: T | Failure) -> None:
        if timer.active():
            timer.cancel()
        if not outer.called:
            outer.callback(result)

    outer: Deferred[T] = Deferred(lambda _: give_up(CancelledError()))
    timer = clock.callLater(limit_s, lambda: give_up(TooLate()))
    work.addBoth(done)
    return outer
