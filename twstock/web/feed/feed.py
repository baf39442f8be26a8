"""``GET /events``: what happens, as server-sent events (WHATWG HTML, section 9.2).

docs/feed.md describes what a client sees. ``Feed`` keeps the subscribers, and follows the tail of
the logs as long as there are any.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request

from twstock.clocks import Clock, DelayedCall
from twstock.config import Limits
from twstock.errors import Unavailable
from twstock.tally import Family, counter, gauge
from twstock.web.answers import Answer, Header
from twstock.web.feed import subscription
from twstock.web.feed.events import COMMENT, Frame, retry
from twstock.web.feed.replay import Replay, Subscriber
from twstock.web.feed.sources import Leaders, Sources
from twstock.web.feed.stream import Stream
from twstock.web.feed.subscription import Subscription
from twstock.web.feed.tail import Tail
from twstock.web.feed.turns import Turns
from twstock.web.http.quality import accepts_gzip
from twstock.web.http.respond import Streamed
from twstock.web.http.routes import Route

EVENT_STREAM = b"text/event-stream"
RETRY_MS = (500, 1500)
"""A client waits a random time between these before it reconnects, so not all come at once."""
KEEP_ALIVE_S_MIN = 1.0
_HEADERS: tuple[Header, ...] = ((b"X-Accel-Buffering", b"no"), (b"Vary", b"Accept-Encoding"))
"""The first keeps an nginx in between from buffering events."""
_PACKED: Header = (b"Content-Encoding", b"gzip")

_OPERATION: Mapping[str, Any] = {
    "operationId": "streamEvents",
    "summary": "Trades, stocks, changes and leaders as they happen",
    "description": (
        "Server-sent events named `trades`, `stocks`, `changes`, `leader` and `reset`, at most "
        "ten writes a second. Every event has an id; a client that sends the last one it has seen "
        "is told everything after it, and then what follows: nothing is missing, nothing comes "
        "twice."
    ),
    "parameters": [
        {
            "name": "names",
            "in": "query",
            "description": "Tell of these stocks alone: names, percent-encoded, between commas.",
            "style": "form",
            "explode": False,
            "schema": {"type": "array", "items": {"type": "string", "minLength": 1}},
        },
        {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "The id of the last event that was seen.",
            "schema": {"type": "string", "examples": ["1024.3.7.1"]},
        },
        {
            "name": "last_event_id",
            "in": "query",
            "description": "The same, for clients that cannot send the header, which wins.",
            "schema": {"type": "string", "examples": ["1024.3.7.1"]},
        },
    ],
    "responses": {
        "200": {
            "description": "The events, until the client or the front-end ends.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        "400": {"description": "A parameter is malformed; the message names it."},
        "503": {"description": "There are too many subscribers."},
    },
}


@dataclass(frozen=True, slots=True)
class Counters:
    """How many subscribers there are, and what happened so far: connections that were ``opened``
    and ``refused``, subscribers who were ``dropped`` because they did not read, and ``resets``.
    """

    subscribers: int = 0
    opened: int = 0
    refused: int = 0
    dropped: int = 0
    resets: int = 0


class Feed:
    """The subscribers of one front-end."""

    _log = Logger()

    def __init__(
        self, sources: Sources, leaders: Leaders, clock: Clock, limits: Limits, random: Random
    ) -> None:
        self._sources = sources
        self._leaders = leaders
        self._clock = clock
        self._limits = limits
        self._keep_alive_s = max(limits.feed_keep_alive_s, KEEP_ALIVE_S_MIN)
        self._random = random
        self._turns = Turns(clock)
        self._subscribers: set[Subscriber] = set()
        self._following: tuple[Tail, Replay] | None = None
        self._beat: DelayedCall | None = None
        self._is_stopping = False
        self._opened = self._refused = self._dropped = self._resets = 0

    @property
    def counters(self) -> Counters:
        """What happened so far."""
        return Counters(
            len(self._subscribers), self._opened, self._refused, self._dropped, self._resets
        )

    def families(self) -> Iterator[Family]:
        """The counters as metrics."""
        now = self.counters
        yield gauge("twstock_feed_subscribers", "Subscribers of the feed.", [({}, now.subscribers)])
        for name, text, count in (
            ("opened", "Subscriptions that were begun.", now.opened),
            ("refused", "Subscriptions that there was no room for.", now.refused),
            ("dropped", "Subscribers that did not read.", now.dropped),
            ("resets", "Subscribers that came with an id of another log.", now.resets),
        ):
            yield counter(f"twstock_feed_{name}_total", text, [({}, count)])

    def routes(self) -> tuple[Route, ...]:
        """What is served where."""
        return (Route("GET", "/events", self.events, _OPERATION),)

    def events(self, request: Request) -> Answer:
        """``GET /events?names=&last_event_id=``."""
        ids = request.requestHeaders.getRawHeaders(subscription.LAST_EVENT_ID.encode()) or ()
        asked = subscription.parse(request.uri, ids, self._limits.feed_names_max)
        if self._is_stopping:
            # End the stream normally: EventSource reconnects after that, but not after an error
            # status.
            return Answer(200, self._retry(), _HEADERS, EVENT_STREAM)
        if len(self._subscribers) >= self._limits.feed_subscribers_max:
            self._refused += 1
            raise Unavailable("too many subscribers")
        is_packed = _takes_gzip(request)
        headers = (*_HEADERS, _PACKED) if is_packed else _HEADERS
        return Streamed(
            200, b"", headers, EVENT_STREAM, begin=lambda r: self._begin(r, asked, is_packed)
        )

    def stop(self) -> None:
        """End every stream at once, so that its client connects to another front-end."""
        self._is_stopping = True
        for subscriber in list(self._subscribers):
            subscriber.stream.end()

    def _begin(self, request: Request, asked: Subscription, is_packed: bool) -> "Deferred[None]":
        stream = Stream(request, self._limits.feed_unsent_bytes_max, self._drop, is_packed)
        subscriber = Subscriber(stream, asked.names, asked.after is not None)
        self._opened += 1
        self._subscribers.add(subscriber)
        _, replay = self._following or self._follow()
        replaying = Deferred.fromCoroutine(replay.run(subscriber, asked.after, self._retry()))
        replaying.addCallbacks(self._replayed, self._not_replayed, errbackArgs=(stream,))
        stream.over.addBoth(self._over, subscriber, replaying)
        return stream.over

    def _retry(self) -> bytes:
        return retry(self._random.randint(*RETRY_MS))

    def _follow(self) -> tuple[Tail, Replay]:
        """The first subscriber is there: follow the logs."""
        tail = Tail(self._sources, self._leaders, self._clock, self._limits)
        replay = Replay(self._sources, tail, self._turns, self._clock, self._limits)
        self._following = (tail, replay)
        tail.start()
        self._beat = self._clock.callLater(self._keep_alive_s, self._keep_alive)
        return self._following

    def _replayed(self, is_reset: bool) -> None:
        self._resets += is_reset

    def _not_replayed(self, failure: Failure, stream: Stream) -> None:
        """An unexpected error: end the stream, so that the client reconnects."""
        if not failure.check(CancelledError):
            self._log.failure("a replay failed", failure)
            stream.end()

    def _over(self, result: Any, subscriber: Subscriber, replaying: "Deferred[Any]") -> Any:
        """A client is gone, or its stream was ended; after the last, stop following the logs."""
        assert self._following is not None
        tail, _ = self._following
        self._subscribers.discard(subscriber)
        tail.leave(subscriber)
        replaying.cancel()
        if not self._subscribers:
            tail.stop()
            self._following = None
            if self._beat is not None:
                self._beat.cancel()
        return result

    def _drop(self) -> None:
        self._dropped += 1

    def _keep_alive(self) -> None:
        """Write something to everybody, so that connections stay open; one that is not ready still
        has bytes to send. To write to a subscriber without a place would begin its answer: what
        its client does after that could happen before the place, and would be missing.
        """
        assert self._following is not None
        tail, _ = self._following
        self._beat = self._clock.callLater(self._keep_alive_s, self._keep_alive)
        tail.beat()
        for subscriber in list(self._subscribers):
            stream = subscriber.stream
            if stream.is_ready and subscriber.has_place and not tail.has(subscriber):
                stream.write(Frame(COMMENT))


def _takes_gzip(request: Request) -> bool:
    """Whether events are compressed for a client; never for HTTP/1.0, which has no chunks."""
    fields = request.requestHeaders.getRawHeaders(b"Accept-Encoding") or ()
    return request.clientproto == b"HTTP/1.1" and accepts_gzip(fields)
