"""One front-end process: where its parts meet."""

import os
import secrets
import time
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, TypeVar

from klein import Klein
from treq.client import HTTPClient
from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred
from twisted.internet.error import (
    CannotListenError,
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    DNSLookupError,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import (
    Agent,
    RequestTransmissionFailed,
    ResponseFailed,
)

from twstock.clocks import boottime, wall_ms
from twstock.config import Address, Cluster, Front
from twstock.descriptors import make_room
from twstock.errors import ConfigError, Unavailable
from twstock.keys import key_maker
from twstock.observatory import Observatory
from twstock.rpc.calls import Register
from twstock.rpc.client import Client
from twstock.rpc.security import Plain, Security, security_of
from twstock.threads import Pool
from twstock.web.admin import Administration, known_token
from twstock.web.api import Api
from twstock.web.batch import Batches
from twstock.web.cache import Cache
from twstock.web.console import Console, load
from twstock.web.description import described
from twstock.web.feed.feed import Feed
from twstock.web.feed.sources import Leaders, Sources
from twstock.web.gauges import front_families
from twstock.web.history import History
from twstock.web.http.drain import QUIET_S
from twstock.web.http.poll import Poll
from twstock.web.http.requestids import RequestIds
from twstock.web.http.routes import larger_bodies, mount
from twstock.web.http.site import ApiSite
from twstock.web.http.sockets import Find, passed_listener
from twstock.web.internal import BODY_BYTES_MAX, Internal
from twstock.web.lane import Lane
from twstock.web.lanechannel import LaneChannel
from twstock.web.metrics import Metrics
from twstock.web.tiers import CatalogTier, OrderTier
from twstock.web.traffic import Traffic
from twstock.web.upstream.leader import LeaderWatch
from twstock.web.upstream.lease import Clocks, LeaseSession
from twstock.web.upstream.roster import Roster
from twstock.web.upstream.tier import Tier

T = TypeVar("T", bound=Tier)
ROW_DEADLINE_S = 0.3
"""How long another front-end may take to answer with its row of ``/cluster``."""
_NO_ANSWER = (
    TimeoutError, ConnectingCancelledError, ConnectError, DNSLookupError, ConnectionClosed,
    RequestTransmissionFailed, ResponseFailed,
)  # fmt: skip


class FrontEnd(Service):
    """Front-end ``front`` of ``cluster``; ``pools`` run the calls to other members. ``find``
    makes an endpoint of its description, also for a passed socket. Channels and ports are made
    in ``startService``, because twistd may still fork before it.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        cluster: Cluster,
        front: Front,
        pools: Mapping[str, Pool],
        find: Find | None = None,
    ) -> None:
        self._reactor = reactor
        self._cluster = cluster
        self._front = front
        self._pools = pools
        self._limits = cluster.limits
        self._random = Random()
        self._clients: list[Client] = []
        self._find = find
        self._security: Security = Plain()
        self._public: tuple[Any, ApiSite] | None = None
        self._internal: tuple[Any, ApiSite] | None = None
        self._first_stops: list[Callable[[], None]] = []
        self._stops: list[Callable[[], None]] = []
        self._members: dict[str, Client] = {}
        self.observatory = Observatory(f"front-{front.id}", reactor)
        """The sources of this process's metrics; parts may ``add`` theirs."""

    def startService(self) -> None:
        """Set up the calls to the other tiers, listen, and take the lease. Raises ConfigError if a
        port is taken, or the administrator's token or a certificate cannot be read.
        """
        super().startService()
        make_room(self._limits.connections_max)
        token = known_token(self._cluster.admin)
        self._security = security_of(self._cluster, f"front-{self._front.id}")
        cache = Cache(self._limits.cache_size)
        catalog, orders = self._tier("catalog", CatalogTier), self._tier("order", OrderTier)
        me = Register(self._front.id, f"http://{self._front.internal}", secrets.token_hex(16))
        clocks = Clocks(self._reactor, boottime, time.time)
        lease = LeaseSession(cache, catalog, catalog.watch, clocks, me, self._limits)
        roster = self._roster(catalog, orders)
        session, new_key = (me.front_id, me.session), key_maker()
        api = Api(cache, catalog, orders, roster, session, boottime, new_key, self._limits)
        traffic, watched = Traffic(), self.observatory
        metrics = Metrics(watched, self._members, self._reactor)
        history = History(traffic, cache, watched.lag.take_worst_s, wall_ms, self._reactor)
        feed = self._make_feed(catalog, orders)
        admin = Administration(cache, catalog, token, new_key, self._limits)
        batches = Batches(cache, orders, new_key, self._limits, traffic)
        # Stopped before the drain: trades must not wait for this cache, nor the drain for streams.
        self._first_stops = [lease.stop, feed.stop]
        self._stops = [orders.queue.stop, catalog.watch.stop, orders.watch.stop]
        self._stops += [history.stop, watched.lag.stop]
        # The catalog may call back as soon as the lease is taken: listen for that first.
        internal = self._site(Internal(cache, roster.own_row).app(), BODY_BYTES_MAX)
        self._internal = self._listen(internal, self._front.internal), internal
        routes = described((api, batches, feed, admin, history, metrics, Console(load())))
        public = self._site(
            mount(routes), self._limits.body_bytes_max, larger_bodies(routes), traffic
        )
        self._public = self._open(public), public
        Poll(self._reactor).serve(self._public[0])
        lane = Lane(api, public.date, public.ids, self._limits, traffic)
        public.make_channel = lambda: LaneChannel(self._limits, lane)
        counted = (cache, catalog, orders, public, roster)
        watched.add(lambda: front_families(*counted, boottime()))
        watched.add(feed.families)
        watched.add(self._security.families)
        for part in (catalog.watch, orders.watch, lease, history, watched.lag):
            part.start()

    def stopService(self) -> "Deferred[None]":
        """Take no new requests, answer those under way, then let go of everything."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        """The internal listener closes only after the last request is answered: to answer a trade
        that is under way here, the catalog may have to invalidate a stock here.
        """
        if self._public is not None:
            for stop in self._first_stops:
                stop()
            _, site = self._public
            began = self._reactor.seconds()
            self._log.info("drains {connections} connections", connections=len(site.channels))
            await self._close(*self._public, QUIET_S)
            self._log.info(
                "has drained, {left} unanswered", left=site.given_up,
                seconds=self._reactor.seconds() - began,
            )  # fmt: skip
        if self._internal is not None:
            await self._close(*self._internal, 0.0)
        for stop in self._stops:
            stop()
        for client in self._clients:
            client.close()

    def _make_feed(self, catalog: CatalogTier, orders: OrderTier) -> Feed:
        sources = Sources(orders, catalog, catalog, self._limits)
        leaders = Leaders((orders.watch, catalog.watch))
        return Feed(sources, leaders, self._reactor, self._limits, self._random)

    async def _close(self, port: Any, site: ApiSite, quiet_s: float) -> None:
        await maybeDeferred(port.stopListening)
        await site.drain(quiet_s)

    def _tier(self, group: str, kind: type[T]) -> T:
        """A tier with two connections to each member, so that bulk cannot delay control calls."""
        watching, asking = self._callers(group, "control"), self._callers(group, "calls")
        self._members |= {f"{group}-{number}": client for number, client in asking.items()}
        common = self._reactor, self._limits, self._random
        return kind(LeaderWatch(group, watching, *common, self._front.id), asking, *common)

    def _callers(self, group: str, pool: str) -> dict[int, Client]:
        threads, deliver = self._pools[pool].threads, self._reactor.callFromThread
        parts = threads, self._reactor, deliver, self._limits
        callers = {
            r.id: Client(str(r.grpc), *parts, self._security.to(f"{group}-{r.id}"))
            for r in self._cluster.replicas(group)
        }
        self._clients += callers.values()
        return callers

    def _roster(self, catalog: Tier, orders: Tier) -> Roster:
        began = self._reactor.seconds()
        return Roster(
            self._cluster,
            (catalog.watch, orders.watch),
            self._front,
            os.getpid(),
            lambda: self._reactor.seconds() - began,
            self._fetch,
            self._reactor,
        )

    def _fetch(self, url: str) -> "Deferred[bytes]":
        """The body of another front-end's answer; fails with Unavailable if there is none within
        ``ROW_DEADLINE_S``.
        """
        http = HTTPClient(Agent(self._reactor, connectTimeout=ROW_DEADLINE_S))

        async def get() -> bytes:
            response = await http.get(url)
            if response.code != 200:
                raise Unavailable(f"{url} answered {response.code}")
            content: bytes = await response.content()
            return content

        asked = Deferred.fromCoroutine(get()).addTimeout(ROW_DEADLINE_S, self._reactor)
        return asked.addErrback(_unavailable, url)

    def _site(
        self,
        app: Klein,
        body_bytes_max: int,
        larger: Mapping[bytes, int] | None = None,
        traffic: Traffic | None = None,
    ) -> ApiSite:
        return ApiSite(
            app.resource(),
            self._reactor,
            self._limits,
            body_bytes_max,
            larger_bodies=larger,
            traffic=traffic,
            ids=RequestIds(f"{self._front.id}-{secrets.token_hex(4)}-"),
        )

    def _open(self, site: ApiSite) -> Any:
        """Serve clients on the socket that was passed, or else on the configured address."""
        passed = None if self._find is None else passed_listener(self._find)
        if passed is None:
            return self._listen(site, self._front.http)
        with passed:  # the reactor makes a copy
            address = Address(*passed.getsockname()[:2])
            port = self._reactor.adoptStreamPort(passed.fileno(), passed.family, site)
        self._log.info("listens on {address}, a socket that was passed", address=address)
        if address.port != self._front.http.port:
            http = self._front.http
            self._log.warn("cluster.toml says {http} instead", http=http)
        return port

    def _listen(self, site: ApiSite, address: Address) -> Any:
        """Serve on an address; raises ConfigError if it cannot be bound."""
        try:
            port = self._reactor.listenTCP(address.port, site, backlog=1024, interface=address.host)
        except CannotListenError as error:
            raise ConfigError(f"front-{self._front.id} cannot listen: {error}") from None
        self._log.info("listens on {address}", address=address)
        return port


def _unavailable(failure: Failure, url: str) -> Failure:
    """Raise Unavailable if the other side or the network failed; all else is an error here."""
    if failure.check(*_NO_ANSWER):
        raise Unavailable(f"{url}: {failure.getErrorMessage()}") from None
    return failure
