"""The feed of events as an async iterator, which continues where it was, through any front-end."""

from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Self, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from twstock.client.eventstream import EventStream, Message
from twstock.client.fronts import Fronts, NoAnswer, Request
from twstock.client.values import BadAnswer, Event, event
from twstock.client.waiting import TooLate, within
from twstock.clocks import pause
from twstock.forms import read_json

T = TypeVar("T")
MESSAGES_WAITING_MAX = 256
"""How many events wait for the reader before nothing more is read from the connection."""

SILENCE_S = 45.0
"""How long a connection may be silent, without even a comment, before it is given up."""


class Feed:
    """A subscription; made by ``Client.events``. Leave it with ``aclose``, or use ``async with``.

    A lost connection is replaced by one to the next front-end, after a growing pause, for as long
    as the caller asks for the next event: no trade and no change is missed or comes twice.
    ``cursor`` is where the feed goes on after the last event that was returned; it can be stored
    and given to another feed as ``after``. When ``messages_max`` events wait for a slow reader, no
    more are read; a reader that is too slow for the server is cut off, and reconnects.

    Iterating raises InvalidRequest for a malformed cursor, BadAnswer for what is not a feed.
    """

    def __init__(
        self,
        fronts: Fronts,
        path: str,
        after: str | None,
        silence_s: float,
        messages_max: int,
        ended: Callable[["Feed"], None],
    ) -> None:
        self.cursor = after
        self._fronts = fronts
        self._path = path
        self._last_id = after or ""
        self._silence_s = silence_s
        self._messages_max = messages_max
        self._ended = ended
        self._attempts = fronts.attempts()
        self._inflow: _Inflow | None = None
        self._pending: Deferred[Any] | None = None
        self._asked = False
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def __anext__(self) -> Event:
        """The next event, as soon as there is one."""
        if self._asked:
            raise RuntimeError("somebody waits for the next event already")
        self._asked = True
        try:
            return await self._next()
        except CancelledError:
            if self._closed:
                raise StopAsyncIteration from None
            raise
        finally:
            self._asked = False

    async def aclose(self) -> None:
        """End the subscription; iteration ends, also for a caller that awaits the next event."""
        self.close()

    def close(self) -> None:
        """Like ``aclose``, without ``await``."""
        if self._closed:
            return
        self._closed = True
        if self._pending is not None:
            self._pending.cancel()
        if self._inflow is not None:
            self._inflow.close()
        self._ended(self)

    async def _next(self) -> Event:
        while not self._closed:
            inflow = self._inflow
            if inflow is None:
                await self._connect()
            elif inflow.messages:
                found = self._event(inflow.take())
                if found is not None:
                    return found
            elif inflow.fault is not None:
                self.close()
                raise inflow.fault
            elif inflow.over:
                self._lost(inflow)
            else:
                await self._more(inflow)
        raise StopAsyncIteration

    def _event(self, message: Message) -> Event | None:
        try:
            found = event(message.kind, read_json(message.data, Decimal), message.last_id)
        except (ValueError, BadAnswer) as error:
            self.close()
            raise BadAnswer(f"event {message.kind}: {error}") from None
        self.cursor = message.last_id or None
        return found

    async def _connect(self) -> None:
        """One attempt to subscribe at the next front-end."""
        attempt = self._attempts.next(self._fronts.clock.seconds())
        assert attempt is not None, "there is no deadline"
        if attempt.wait_s:
            await self._wait_for(pause(self._fronts.clock, attempt.wait_s))
        headers = {"Accept": "text/event-stream"}
        if self._last_id:
            headers["Last-Event-ID"] = self._last_id
        request = Request("GET", self._path, headers)
        try:
            opened = Deferred.fromCoroutine(self._fronts.open(attempt.front, request))
            response = await self._wait_for(opened)
        except NoAnswer as error:
            self._attempts.failed(self._fronts.clock.seconds(), error.pause_s)
            return
        self._inflow = _Inflow(EventStream(self._last_id), self._messages_max)
        response.deliverBody(self._inflow)
        if not any(kind.startswith("text/event-stream") for kind in _media_types(response)):
            self.close()
            raise BadAnswer(f"expected an event stream, got {_media_types(response)}")

    async def _more(self, inflow: "_Inflow") -> None:
        """Wait until something arrives; too long a silence counts as a lost connection."""
        try:
            await self._wait_for(within(inflow.arrival(), self._silence_s, self._fronts.clock))
        except TooLate:
            self._lost(inflow)

    def _lost(self, inflow: "_Inflow") -> None:
        """Go on elsewhere, after the last event that was received completely."""
        inflow.close()
        stream, self._inflow = inflow.stream, None
        if inflow.heard:
            self._attempts.served(None if stream.retry_ms is None else stream.retry_ms / 1000)
        self._last_id = stream.last_id
        self._attempts.failed(self._fronts.clock.seconds())

    async def _wait_for(self, work: "Deferred[T]") -> T:
        """The result of ``work``, which ``close`` cancels."""
        self._pending = work
        try:
            return await work
        finally:
            self._pending = None


def _media_types(response: Any) -> list[str]:
    found: list[str] = response.headers.getRawHeaders("Content-Type", [])
    return found


class _Inflow(Protocol):
    """What arrives over one connection: ``messages`` that were not taken yet; ``over`` once it has
    ended, with a ``fault`` if it was not a feed; ``heard`` once an event has come.
    """

    def __init__(self, stream: EventStream, messages_max: int) -> None:
        self.stream = stream
        self.messages: deque[Message] = deque()
        self.over = self.heard = False
        self.fault: BadAnswer | None = None
        self._messages_max = messages_max
        self._paused = False
        self._arrival: Deferred[None] | None = None

    def arrival(self) -> "Deferred[None]":
        """Fires when something has arrived, or the connection is over."""
        self._arrival = Deferred()
        return self._arrival

    def take(self) -> Message:
        """The next message; reading resumes when few are left."""
        message = self.messages.popleft()
        if self._paused and len(self.messages) <= self._messages_max // 2:
            self._paused = False
            self._transport().resumeProducing()
        return message

    def close(self) -> None:
        """End the connection, if it is not over."""
        if not self.over:
            self.over = True
            self._transport().loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Read events; pause the connection if too many messages wait."""
        if self.over:
            return
        try:
            self.messages.extend(self.stream.feed(data))
        except BadAnswer as error:
            self.fault = error
            self.close()
        self.heard = self.heard or bool(self.messages)
        if not self._paused and not self.over and len(self.messages) >= self._messages_max:
            self._paused = True
            self._transport().pauseProducing()
        self._tell()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002
        """Whatever the reason, the feed goes on elsewhere."""
        self.over = True
        self._tell()

    def _tell(self) -> None:
        arrival, self._arrival = self._arrival, None
        if arrival is not None and not arrival.called:
            arrival.callback(None)

    def _transport(self) -> Any:
        """An IPushProducer, and loseConnection."""
        return self.transport
