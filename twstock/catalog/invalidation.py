"""Makes trades visible: tells the front-ends that may hold a stock, and waits for them."""

import json
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any, Protocol
from urllib.parse import quote

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from twstock import origin
from twstock.catalog.sessions import Call, Sessions
from twstock.config import Limits
from twstock.errors import OutcomeUnknown
from twstock.market import Stock
from twstock.origin import Ids, OriginLogger
from twstock.process import Clock, DelayedCall

_OK = 200


class Response(Protocol):
    """What a front-end answered."""

    code: int

    def content(self) -> "Deferred[bytes]":
        """The body, which has to be read before the connection can be used again."""


class HttpClient(Protocol):
    """What sends a request: ``treq.client.HTTPClient``."""

    def request(self, method: str, url: str, **kwargs: Any) -> "Deferred[Response]":
        """Send one request; cancelling the Deferred gives it up."""


@implementer(IBodyProducer)
class Body:
    """A request's body, written in the turn of its headers, so that both are one packet; the
    bodies that treq makes are written later, by the global cooperator.
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

    One call to each front-end is under way at a time; what comes meanwhile goes out together
    in the next one. A call that fails is repeated as long as the session's lease lasts.
    """

    _log = OriginLogger()

    def __init__(
        self, sessions: Sessions, client: HttpClient, clock: Clock, limits: Limits
    ) -> None:
        self._sessions = sessions
        self._client = client
        self._clock = clock
        self._limits = limits
        self._under_way: dict[int, Deferred[None]] = {}
        self._pausing: dict[int, DelayedCall] = {}
        self._waiting: list[tuple[Mapping[str, int], Ids, Deferred[None]]] = []
        self._timer: DelayedCall | None = None

    # --- leading -----------------------------------------------------------------------------

    def start(self, stocks: Callable[[], Iterable[Stock]]) -> None:
        """Leadership begins: once all leases of the time before are over, publish ``stocks()``."""
        self.stop()
        self._sessions.started(self._clock.seconds())
        delay = self._sessions.opens_at - self._clock.seconds()
        self._timer = self._clock.callLater(delay, self._open, stocks)

    def stop(self) -> None:
        """Leadership is over. Trades that are not published have executed all the same."""
        self._sessions.ended()
        for timer in (self._timer, *self._pausing.values()):
            if timer is not None and timer.active():
                timer.cancel()
        self._timer = None
        self._pausing.clear()
        for call in list(self._under_way.values()):
            call.cancel()
        waiting, self._waiting = self._waiting, []
        for _, _, published in waiting:
            published.errback(OutcomeUnknown("leadership was lost before all caches were told"))

    # --- publishing --------------------------------------------------------------------------

    def publish(self, stocks: Iterable[Stock]) -> "Deferred[None]":
        """Fires when lookups show these versions, or later ones, wherever they are asked.

        Fails with OutcomeUnknown when leadership ends before that.
        """
        if self._sessions.opens_at == inf:
            return fail(OutcomeUnknown("leadership was lost before the caches were told"))
        new = list(stocks)
        versions = {stock.name: stock.version for stock in new}
        if self._sessions.is_published(versions):
            return succeed(None)
        published: Deferred[None] = Deferred()
        self._waiting.append((versions, origin.current(), published))
        self._sessions.traded(new, self._clock.seconds())
        self.proceed()
        return published

    def proceed(self) -> None:
        """Do what has become possible: answer who waits, call who has to be told."""
        now = self._clock.seconds()
        waiting, self._waiting, done = self._waiting, [], []
        for versions, ids, published in waiting:
            if self._sessions.is_published(versions):
                done.append(published)
            else:
                self._waiting.append((versions, ids, published))
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
        """Set the timer to the end of the next lease that somebody waits for."""
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
            self._answered, self._failed, callbackArgs=(call, versions), errbackArgs=(call,)
        )
        calling.addErrback(lambda failure: self._log.failure("invalidation is broken", failure))

    async def _ask(self, url: str, body: bytes) -> None:
        sent = {"data": Body(body), "headers": {"content-type": "application/json"}} if body else {}
        response = await self._client.request("DELETE", url, **sent)
        await response.content()
        if response.code != _OK:
            raise _Refused(f"status {response.code}")

    def _answered(self, _: None, call: Call, versions: Mapping[str, int]) -> None:
        self._under_way.pop(call.front_id, None)
        now = self._clock.seconds()
        self._sessions.answered(call.front_id, call.session, versions, now)
        self.proceed()

    def _failed(self, failure: Failure, call: Call) -> None:
        """Not told: try again a moment later; the end of its lease bounds the trying."""
        self._under_way.pop(call.front_id, None)
        if not self._sessions.is_open:
            return
        waiting = (ids for names, ids, _ in self._waiting if names.keys() & call.versions.keys())
        with origin.on_behalf_of(origin.together(waiting)):
            self._log.warn(
                "front-end {front} did not answer an invalidation: {reason}",
                front=call.front_id,
                reason=failure.getErrorMessage() or repr(failure.value),
            )
        self._pausing[call.front_id] = self._clock.callLater(
            self._limits.retry_s, self._resume, call.front_id
        )

    def _resume(self, front_id: int) -> None:
        del self._pausing[front_id]
        self._sessions.expired(self._clock.seconds())
        self.proceed()


class _Refused(Exception):
    """An answer that is none."""


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
