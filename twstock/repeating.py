"""Work that is done again and again, even after it has failed.

A ``LoopingCall`` whose function raises stops for ever, and only its Deferred reports that. What a
service cannot do without must not end that way.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twstock.clocks import Clock

_log = Logger()


def repeating(work: Callable[[], Any], clock: Clock, name: str) -> LoopingCall:
    """A LoopingCall that goes on when ``work`` fails, and logs the failure under its ``name``.

    If ``work`` returns a Deferred or a coroutine, the next call waits until that is done.
    """

    def once() -> "Deferred[Any]":
        return maybeDeferred(work).addErrback(
            lambda failure: _log.failure("{name} has failed, and goes on", failure, name=name)
        )

    looping = LoopingCall(once)
    looping.clock = clock  # type: ignore[assignment]
    return looping
