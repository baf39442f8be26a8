"""Waiting for something on a clock, so that giving up looks the same however it is done."""

from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twstock.clocks import Clock

T = TypeVar("T")


class TooLate(Exception):
    """What was waited for took too long."""


def within(work: "Deferred[T]", limit_s: float, clock: Clock) -> "Deferred[T]":
    """What ``work`` comes to, or TooLate; work that is not waited for any more is cancelled.

    Whoever cancels the result gets CancelledError. Twisted's HTTP client has it wrapped in
    errors of a connection, which must not be taken for a reason to ask again.
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
