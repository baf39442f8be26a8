"""The clocks that twstock uses, and timers."""

import time
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred


class DelayedCall(Protocol):
    """What ``callLater`` returns."""

    def cancel(self) -> None:
        """Forget the call."""

    def active(self) -> bool:
        """Whether the call is still to come."""


class Clock(Protocol):
    """Monotonic time and timers: the reactor, or ``task.Clock`` in tests."""

    def seconds(self) -> float:
        """Now, in seconds of a clock that never steps."""

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any) -> DelayedCall:
        """Call a function ``delay`` seconds from now."""


def pause(clock: Clock, seconds: float) -> "Deferred[None]":
    """Fires after that many seconds; can be cancelled."""
    awake: Deferred[None] = Deferred(lambda _: timer.cancel())
    timer = clock.callLater(max(seconds, 0.0), awake.callback, None)
    return awake


def boottime() -> float:
    """CLOCK_BOOTTIME in seconds, which measures all time here: nobody sets it, and it keeps running
    while the machine sleeps, so a process that wakes up knows that its lease is over.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def use_boottime(reactor: Any) -> None:
    """Measure the reactor's time by ``boottime``, not by the wall clock.

    Must run before the first timer: timers remember the clock's reading.
    """
    assert not reactor.getDelayedCalls(), "the clock was changed after a timer was set"
    reactor.seconds = boottime


def wall_ms() -> int:
    """Wall time in milliseconds since 1970, to show and to stamp commands with. In the log it
    decides how long refused keys are remembered, and nothing else.
    """
    return time.time_ns() // 1_000_000
