"""Publishes trades: invalidates stocks at front-ends that may cache them, and awaits answers."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from twstock import origin
from twstock.catalog.sessions import Call, Sessions
from twstock.clocks import Clock, DelayedCall
from twstock.config import Limits
from twstock.errors import OutcomeUnknown
from twstock.market import Stock
from twstock.origin import Ids, OriginLogger
from twstock.tally import Family, Histogram, counter, gauge, histogram

_OK = 200


class Response(Protocol):
    """What a front-end answered."""

    code: int

    def content(self) -> "Deferred[bytes]":
        """The body, which has to be read before the connection can be used again."""


class HttpClient(Protocol):
    """What is used of ``treq.client.HTTPClient``."""

    def request(self, method: str, url: str, **kwargs: Any) -> "Deferred[Response]":
        """Send one request; cancelling the Deferred gives it up."""


class Waiting(NamedTuple):
    """A call that waits until versions are published. ``began`` is when it began to wait, if it
    made these versions, and None if it only asks about them.
    """

    versions: Mapping[str, int]
    began: float | None
    origin: Ids
    published: "Deferred[None]"


@implementer(IBodyProducer)
class Body:
    """A request's body that is written in the same turn of the reactor as the headers, so that both
    are one packet. Bodies that treq makes are written later, by the global cooperator.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.length = len(content)

    def startProducing(self, consumer: Any) -> "Deferred[None]":
        """Write everything."""
        consumer.write(self._content)
        return succeed(None)

    def pauseProducing(self) -> None:
        """Everything is written already."""

    def resumeProducing(self) -> None:
        """Everything is written already."""

    def stopProducing(self) -> None:
        """Everything is written already."""


class Publisher:
    """Publishes new versions of stocks, as soon as ``Sessions`` allows it.

    One request to each front-end is under way at a time; invalidations that come meanwhile go out
    together in the next one. A request that fails is repeated as long as the session's lease lasts.
    Any other failure here is a broken invariant: ``panic`` ends the process.
    """

    _log = OriginLogger()

    def __init__(
        self,
        sessions: Sessions,
        client: HttpClient,
        clock: Clock,
        limits: Limits,
        panic: Callable[[Failure], None],
    ) -> None:
        self._sessions = sessions
        self._client = client
        self._clock = clock
        self._limits = limits
        self._panic = panic
        self._under_way: dict[int, Deferred[None]] = {}
        self._pausing: dict[int, DelayedCall] = {}
        self._waiting: list[Waiting] = []
        self._timer: DelayedCall | None = None
        self._publish_s, self._call_s = Histogram(), Histogram()
        self._stocks_told = self._calls_failed = 0
        self._silent: set[int] = set()

    def families(self) -> Iterator[Family]:
        """How many invalidations there were, and how long they took."""
        yield histogram(
            "twstock_publish_seconds",
            "Time from a committed trade until no cache hides it.",
            [({}, self._publish_s)],
        )
        yield histogram(
            "twstock_invalidation_seconds",
            "Time that a front-end took to confirm an invalidation.",
            [({}, self._call_s)],
        )
        yield counter(
            "twstock_invalidated_stocks_total",
            "Invalidations of stocks, sent to front-ends.",
            [({}, self._stocks_told)],
        )
        yield counter(
            "twstock_invalidations_failed_total",
            "Invalidations that a front-end did not confirm.",
            [({}, self._calls_failed)],
        )
        yield gauge(
            "twstock_publications_waiting",
            "Batches whose trades a cache may still hide.",
            [({}, sum(waiting.began is not None for waiting in self._waiting))],
        )

    # --- leading -----------------------------------------------------------------------------

    def start(self, stocks: Callable[[], Iterable[Stock]]) -> None:
        """Leadership begins: once all leases of earlier leaders are over, publish ``stocks()``."""
        self.stop()
        self._sessions.started(self._clock.seconds())
        delay = self._sessions.opens_at - self._clock.seconds()
        self._timer = self._clock.callLater(delay, self._open, stocks)

    def stop(self) -> None:
        """Leadership is over. Trades that are not published have executed nevertheless."""
        self._sessions.ended()
        for timer in (self._timer, *self._pausing.values()):
            if timer is not None and timer.active():
                timer.cancel()
        self._timer = None
        self._pausing.clear()
        self._silent.clear()
        for call in list(self._under_way.values()):
            call.cancel()
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.published.errback(OutcomeUnknown("leadership was lost before all caches were told"))

    # --- publishing --------------------------------------------------------------------------

    def publish(self, stocks: Iterable[Stock]) -> "Deferred[None]":
        """Invalidate these stocks, which were committed in this turn of the reactor, in all caches,
        and wait like ``published``.
        """
        new = list(stocks)
        versions = {stock.name: stock.version for stock in new}
        now = self._clock.seconds()
        if self._sessions.opens_at == inf or self._sessions.is_published(versions):
            return self.published(versions)
        published = self._wait(versions, now)
        self._sessions.traded(new, now)
        self.proceed()
        return published

    def published(self, versions: Mapping[str, int]) -> "Deferred[None]":
        """Fires when lookups at any front-end show these versions, or later ones. Any later leader
        can tell, too: it shows nothing until all leases of earlier leaders are over, and then
        everything that is committed.

        Fails with OutcomeUnknown when leadership ends before that.
        """
        if self._sessions.opens_at == inf:
            return fail(OutcomeUnknown("leadership was lost before the caches were told"))
        if self._sessions.is_published(versions):
            return succeed(None)
        return self._wait(versions, None)

    def everything(self) -> "Deferred[None]":
        """Like ``published``, for all that is committed now: each version was given to ``publish``
        in the turn in which it was committed, or was there when leadership began.
        """
        return self.published(self._sessions.pending())

    def unpublished(self, stocks: Iterable[Stock]) -> dict[str, int]:
        """The versions of these stocks that a cache may hide, by name."""
        return self._sessions.unpublished({stock.name: stock.version for stock in stocks})

    def _wait(self, versions: Mapping[str, int], began: float | None) -> "Deferred[None]":
        published: Deferred[None] = Deferred()
        self._waiting.append(Waiting(versions, began, origin.current(), published))
        return published

    def proceed(self) -> None:
        """Do what has become possible: answer calls that wait, send invalidations that are due."""
        now = self._clock.seconds()
        self._tell_lapsed()
        waiting, self._waiting, done = self._waiting, [], []
        for one in waiting:
            if self._sessions.is_published(one.versions):
                if one.began is not None:
                    self._publish_s.observe(now - one.began)
                done.append(one.published)
            else:
                self._waiting.append(one)
        for call in self._sessions.calls(now):
            if call.front_id not in self._under_way and call.front_id not in self._pausing:
                self._call(call)
        self._sleep(now)
        for published in done:
            published.callback(None)

    def _open(self, stocks: Callable[[], Iterable[Stock]]) -> None:
        self._timer = None
        self._sessions.opened(stocks())
        self.proceed()

    def _sleep(self, now: float) -> None:
        """Set the timer to the end of the next lease that keeps something from being published."""
        if not self._sessions.is_open:
            return
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        wake_at = self._sessions.wake_at()
        if wake_at != inf:
            self._timer = self._clock.callLater(max(0.0, wake_at - now), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._sessions.expired(self._clock.seconds())
        self.proceed()

    # --- telling -----------------------------------------------------------------------------

    def _call(self, call: Call) -> None:
        url, versions, body = request_of(call, self._limits.body_bytes_max)
        calling = Deferred.fromCoroutine(self._ask(url, body))
        calling.addTimeout(self._limits.invalidate_deadline_s, self._clock)  # type: ignore[arg-type]
        self._under_way[call.front_id] = calling
        calling.addCallbacks(
            self._answered,
            self._failed,
            callbackArgs=(call, versions, self._clock.seconds()),
            errbackArgs=(call,),
        )
        calling.addErrback(self._panic)

    async def _ask(self, url: str, body: bytes) -> None:
        sent = {"data": Body(body), "headers": {"content-type": "application/json"}} if body else {}
        response = await self._client.request("DELETE", url, **sent)
        await response.content()
        if response.code != _OK:
            raise _Refused(f"status {response.code}")

    def _answered(self, _: None, call: Call, versions: Mapping[str, int], began: float) -> None:
        self._under_way.pop(call.front_id, None)
        if call.front_id in self._silent:
            self._silent.discard(call.front_id)
            self._log.info("front-{front} answers invalidations again", front=call.front_id)
        now = self._clock.seconds()
        self._call_s.observe(now - began)
        self._stocks_told += len(versions)
        self._sessions.answered(call.front_id, call.session, versions, now)
        self.proceed()

    def _failed(self, failure: Failure, call: Call) -> None:
        """The front-end did not confirm: try again a moment later, until its lease ends."""
        self._under_way.pop(call.front_id, None)
        self._calls_failed += 1
        if not self._sessions.is_open:
            return
        if call.front_id not in self._silent:
            self._silent.add(call.front_id)
            waits = (w.origin for w in self._waiting if w.versions.keys() & call.versions.keys())
            with origin.on_behalf_of(origin.together(waits)):
                self._log.warn(
                    "front-{front} does not answer invalidations: {reason}",
                    front=call.front_id,
                    reason=failure.getErrorMessage() or repr(failure.value),
                )
        self._pausing[call.front_id] = self._clock.callLater(
            self._limits.retry_s, self._resume, call.front_id
        )

    def _tell_lapsed(self) -> None:
        while self._sessions.lapsed:
            front_id = self._sessions.lapsed.pop()
            self._silent.discard(front_id)
            self._log.warn("front-{front} has lost its cache lease", front=front_id)

    def _resume(self, front_id: int) -> None:
        del self._pausing[front_id]
        self._sessions.expired(self._clock.seconds())
        self.proceed()


class _Refused(Exception):
    """A front-end answered with a status other than 200."""


def request_of(call: Call, body_bytes_max: int) -> tuple[str, dict[str, int], bytes]:
    """The URL, the versions and the body of the next DELETE for a session: one stock in the
    path, several in a body. What does not fit goes with the next one.
    """
    base = call.url.rstrip("/")
    if len(call.versions) == 1:
        ((name, version),) = call.versions.items()
        return f"{base}/delete/{quote(name, safe='')}?version={version}", {name: version}, b""
    room = body_bytes_max - len('{"stocks": {}}')
    versions: dict[str, int] = {}
    for name, version in call.versions.items():
        room -= len(json.dumps(name)) + len(f": {version}, ")
        if room < 0 and versions:
            break
        versions[name] = version
    return f"{base}/delete/", versions, json.dumps({"stocks": versions}).encode()
