"""Turns for work that many ask for at once, with pauses for more urgent work."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from twisted.internet.defer import Deferred

from twstock.clocks import Clock, DelayedCall

TURN_S = 0.01
"""Turns follow one another without a pause until together they have taken this long; no single turn
should take longer."""
REST_FACTOR = 3
REST_MAX_S = 0.1
"""The pause after that: ``REST_FACTOR`` times what the turns took, at most ``REST_MAX_S``."""


class Turns:
    """One turn at a time, in the sequence in which they were asked for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: deque[Deferred[None]] = deque()
        self._is_taken = False
        self._is_giving = False
        self._spent_s = 0.0
        self._timer: DelayedCall | None = None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[float]:
        """Wait for a turn; yields the time by which it should end."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        self._give_soon(0.0)
        await waiting
        began = self._clock.seconds()
        try:
            yield began + TURN_S
        finally:
            self._is_taken = False
            self._spent_s += self._clock.seconds() - began
            self._give_soon(0.0)

    def _give_soon(self, seconds: float) -> None:
        """Begin turns later, in a stack of their own: the caller's may be deep already."""
        if not (self._is_giving or self._is_taken or self._timer) and self._waiting:
            self._timer = self._clock.callLater(seconds, self._give)

    def _give(self) -> None:
        """Give turns to those who wait, until one does not end at once or ``TURN_S`` is used up."""
        self._timer = None
        self._is_giving = True
        while self._waiting and not self._is_taken and self._spent_s < TURN_S:
            waiting = self._waiting.popleft()
            if not waiting.called:  # a client that is gone has no turn
                self._is_taken = True
                waiting.callback(None)
        self._is_giving = False
        rest_s = 0.0
        if self._spent_s >= TURN_S:
            rest_s, self._spent_s = min(self._spent_s * REST_FACTOR, REST_MAX_S), 0.0
        self._give_soon(rest_s)
