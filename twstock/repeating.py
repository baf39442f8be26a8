"""Work that is done again and again, whatever becomes of it once.

A ``LoopingCall`` whose function raises stops for ever, and tells only whoever looks at its
Deferred. What a service cannot do without must not end that way.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from twstock.process import Clock

_log = Logger()


def repeating(work: Callable[[], Any], clock: Clock, name: str) -> LoopingCall:
    """A LoopingCall that goes on when ``work`` fails: the log tells of it, by its ``name``.

    A Deferred that ``work`` returns is waited for before the next time.
    """

    def once() -> Any:
        try:
            done = work()
        except Exception:
            _log.failure("{name} has failed, and goes on", name=name)
            return None
        if isinstance(done, Deferred):
            done.addErrback(
                lambda failure: _log.failure("{name} has failed, and goes on", failure, name=name)
            )
        return done

    looping = LoopingCall(once)
    looping.clock = clock  # type: ignore[assignment]
    return looping
