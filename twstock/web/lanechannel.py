"""A connection with a fast lane: hot requests are answered before Twisted makes objects of them.

Only a request that is alone on an idle connection is shown to the lane. Everything else, and
everything that the lane is not sure about, takes the ordinary path (``channel``, then Klein) and
gets the same answer there.
"""

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from twstock.config import Limits
from twstock.web.answers import Answer
from twstock.web.http.channel import ApiChannel
from twstock.web.http.poll import write_now
from twstock.web.lane import COMING, Lane

_HELD_BYTES_MAX = 16 * 1024


class LaneChannel(ApiChannel):
    """A connection with a fast lane.

    While the lane waits for an answer, what arrives is held back; everything else is as on the
    ordinary path, time-outs included.
    """

    _HTTPChannel__first_line: int
    _lane: Lane
    _is_waiting = False
    _is_lost = False
    _held = b""
    _quick_at = float("-inf")
    _began = 0.0

    def __init__(self, limits: Limits, lane: Lane) -> None:
        super().__init__(limits)
        self._lane = lane

    def dataReceived(self, data: bytes) -> None:
        """Take bytes in, through the lane if possible."""
        if self._is_waiting:
            self._held += data
            if len(self._held) > _HELD_BYTES_MAX:
                self.transport.pauseProducing()
            return
        lane, seconds = self._lane, self.site.clock.seconds
        if not self._is_idle():
            super().dataReceived(data)
            return
        self._began = began = seconds()
        self._is_waiting = True  # for an answer that is told at once
        answer = lane.take(data, self._answered)
        if answer is COMING:
            return
        self._is_waiting = False
        if answer is None:
            super().dataReceived(data)
        else:
            write_now(self.transport, answer)
            self._quick_at = now = seconds()
            lane.counted_in.observe(now - began)

    def _is_idle(self) -> bool:
        """Whether a request that comes now is the only one, and the connection is in the state
        between two requests.
        """
        return not (
            self.requests
            or self._buffer
            or self._arriving
            or self._is_ending
            or self._waitingForTransport
            or self.site.draining
            or self.transport.disconnecting
            or not self.line_mode
            # Twisted allows one empty line before a request, and counts it here.
            or self._HTTPChannel__first_line != 1
            or not self.persistent
        )

    def _answered(self, route: str, request_id: bytes, answer: Answer) -> None:
        self._is_waiting = False
        if self._is_lost:
            return
        self._quick_at = now = self.site.clock.seconds()
        self._lane.traffic.of(route, answer.status).observe(now - self._began)
        if not self.persistent:
            self.transport.write(self._lane.whole(answer.closing(), request_id))
            self.loseConnection()
            return
        write_now(self.transport, self._lane.whole(answer, request_id))
        held, self._held = self._held, b""
        if held:
            if not self._waitingForTransport:
                self.transport.resumeProducing()
            self.dataReceived(held)
        if self._has_ended:
            self._close_if_done()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """An order that is under way goes on without its client."""
        self._is_lost = True
        super().connectionLost(reason)

    def timeoutConnection(self) -> None:
        """Requests in the lane do not reset the timer: when it fires, it may be set again."""
        idle_s, now = self._limits.idle_timeout_s, self.site.clock.seconds()
        if self._is_waiting:
            self.setTimeout(idle_s)
        elif not self._arriving and now < self._quick_at + idle_s:
            self.setTimeout(self._quick_at + idle_s - now)
        else:
            super().timeoutConnection()

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way or has begun to come."""
        return not self._is_waiting and super().is_idle

    @property
    def is_asked(self) -> bool:
        """Whether a request has come whole and is not answered."""
        return self._is_waiting or super().is_asked

    def drain(self) -> None:
        """Answer what is under way, and close."""
        if self._is_waiting:
            self.persistent = False
        else:
            super().drain()
