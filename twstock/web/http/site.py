"""HTTP/1.1 at the edge: the connections of a listener, what they share, and their end."""

import time
from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.web import http, server
from twisted.web.resource import IResource

from twstock.clocks import Clock
from twstock.config import Limits
from twstock.web.http.channel import ApiChannel
from twstock.web.http.drain import PART_S, QUIET_S, Drain
from twstock.web.http.request import ApiRequest
from twstock.web.http.requestids import RequestIds
from twstock.web.traffic import Traffic


class ApiSite(server.Site):
    """The connections of one listener, without an access log. ``larger_bodies`` has the limit, in
    bytes, of each path where a body may exceed ``body_bytes_max``; ``traffic`` counts answers;
    ``ids`` makes an id for each request that came without one.

    ``make_channel`` may be replaced before the first connection, if channels need the site itself.
    """

    noisy = False

    def __init__(
        self,
        resource: IResource,
        clock: Clock,
        limits: Limits,
        body_bytes_max: int,
        *,
        larger_bodies: Mapping[bytes, int] | None = None,
        traffic: Traffic | None = None,
        ids: RequestIds | None = None,
    ) -> None:
        super().__init__(
            resource,
            requestFactory=ApiRequest,
            parsePOSTFormSubmission=False,
            timeout=limits.idle_timeout_s,
            reactor=clock,
        )
        self.body_bytes_max = body_bytes_max
        self.draining = False
        self.larger_bodies = larger_bodies or {}
        self.traffic = traffic or Traffic()
        self.ids = ids or RequestIds()
        self.large_bodies: set[ApiChannel] = set()
        self.channels: set[ApiChannel] = set()
        self._limits = limits
        self.clock = clock
        self.make_channel: Callable[[], ApiChannel] = lambda: ApiChannel(limits)
        self._drain: Drain | None = None
        self._second = 0
        self._date = b""

    def buildProtocol(  # type: ignore[override]
        self, _addr: IAddress | None
    ) -> ApiChannel | None:
        """A channel; None, which closes the connection, when draining or if there are too many."""
        if self.draining or len(self.channels) >= self._limits.connections_max:
            return None
        channel = self.make_channel()
        channel.site = channel.factory = self
        channel.requestFactory = self.requestFactory
        channel.timeOut = self._limits.idle_timeout_s  # type: ignore[assignment]
        return channel

    def date(self) -> bytes:
        """The Date header's value, made once a second."""
        now = int(time.time())
        if now != self._second:
            self._second, self._date = now, http.datetimeToString(now)
        return self._date

    def drain(self, quiet_s: float = QUIET_S) -> "Deferred[None]":
        """End all connections; fires when they are gone. Requests that came whole are answered
        first, each within its budget.
        """
        self.draining = True
        answered_s = max(self._limits.drain_s, self._limits.request_budget_s)
        self._drain = Drain(self.channels, self.clock, quiet_s, quiet_s + answered_s + PART_S)
        return self._drain.done

    @property
    def given_up(self) -> int:
        """How many requests that came whole had no answer at the end of the draining."""
        return self._drain.given_up if self._drain is not None else 0

    def forget(self, channel: ApiChannel) -> None:
        """A connection is gone."""
        self.channels.discard(channel)
        self.large_bodies.discard(channel)
        if self._drain is not None:
            self._drain.look()

    def startFactory(self) -> None:
        """Nothing to prepare: Twisted's own starts a clock for the access log."""

    def stopFactory(self) -> None:
        """Nothing to end."""

    def log(self, request: http.Request) -> None:
        """Count an answered request. Logging it would cost more than answering it."""
        if isinstance(request, ApiRequest):
            request.count(self.traffic)
