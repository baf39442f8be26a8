"""Ends a listener's connections so that no request that came whole is lost.

The next answer on a connection is its last, and says so. A connection that stays idle for a
moment is closed between two requests; the client can send its next one elsewhere.
"""

from collections.abc import Collection
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from twstock.clocks import Clock

QUIET_S = 0.25
"""How long an idle connection is kept once the front-end is to stop, so that a request on its way
is still answered, with notice that the connection ends."""
PART_S = 0.25
"""How long a client may take to close its side of a connection that has ended."""


class Channel(Protocol):
    """One connection."""

    transport: Any

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way or has begun to come."""

    @property
    def is_asked(self) -> bool:
        """Whether a request has come whole and is not answered."""

    def drain(self) -> None:
        """End with the answer that is under way."""

    def part(self) -> None:
        """Write no more, and wait a moment for the client to close, too."""


class Drain:
    """Ends ``channels``, which its owner removes as they close: those that are idle after
    ``quiet_s``, and whatever is left after ``end_s``. ``done`` fires when all are gone;
    ``given_up`` counts requests that had come whole and were not answered by then.
    """

    def __init__(
        self, channels: Collection[Channel], clock: Clock, quiet_s: float, end_s: float
    ) -> None:
        self.done: Deferred[None] = Deferred()
        self.given_up = 0
        self._channels = channels
        self._timers = (
            clock.callLater(quiet_s, self._part_idle),
            clock.callLater(end_s, self._abort_all),
        )
        for channel in list(channels):
            channel.drain()
        self.look()

    def look(self) -> None:
        """Check whether all connections are gone."""
        if self._channels or self.done.called:
            return
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self.done.callback(None)

    def _part_idle(self) -> None:
        for channel in list(self._channels):
            if channel.is_idle:
                channel.part()

    def _abort_all(self) -> None:
        for channel in list(self._channels):
            self.given_up += channel.is_asked
            channel.transport.abortConnection()
