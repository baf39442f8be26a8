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
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.web.client import Agent

from twstock.config import Address, Cluster, Front
from twstock.errors import ConfigError, Unavailable
from twstock.process import Pool, key_maker
from twstock.rpc.calls import Register
from twstock.rpc.client import Client
from twstock.web.admin import Administration, known_token
from twstock.web.api import Api
from twstock.web.cache import Cache
from twstock.web.internal import BODY_BYTES_MAX, Internal
from twstock.web.lane import Lane, LaneChannel
from twstock.web.leader import LeaderWatch
from twstock.web.lease import LeaseSession
from twstock.web.roster import Roster
from twstock.web.routes import mount
from twstock.web.site import ApiSite
from twstock.web.tiers import CatalogTier, OrderTier, Tier

T = TypeVar("T", bound=Tier)
ROW_DEADLINE_S = 0.3
"""How long another front-end may take to tell how it is."""


def boottime() -> float:
    """CLOCK_BOOTTIME, which leases are measured by: it goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class FrontEnd(Service):
    """Front-end ``front`` of ``cluster``; ``pools`` run the calls to other members. Channels
    and ports are made in ``startService``: before it, twistd may still fork.
    """

    def __init__(
        self, reactor: Any, cluster: Cluster, front: Front, pools: Mapping[str, Pool]
    ) -> None:
        self._reactor = reactor
        self._cluster = cluster
        self._front = front
        self._pools = pools
        self._limits = cluster.limits
        self._random = Random()
        self._clients: list[Client] = []
        self._ports: list[Any] = []
        self._sites: list[ApiSite] = []
        self._stops: list[Callable[[], None]] = []

    def startService(self) -> None:
        """Know the other tiers, listen, take the lease; ConfigError when a port is taken, or
        the administrator's token cannot be read.
        """
        super().startService()
        token = known_token(self._cluster.admin)
        cache = Cache(self._limits.cache_size)
        catalog, orders = self._tier("catalog", CatalogTier), self._tier("order", OrderTier)
        me = Register(self._front.id, f"http://{self._front.internal}", secrets.token_hex(16))
        lease = LeaseSession(
            cache, catalog, catalog.watch, self._reactor, boottime, me, self._limits
        )
        roster = self._roster(catalog, orders)
        session, new_key = (me.front_id, me.session), key_maker()
        api = Api(cache, catalog, orders, roster, session, boottime, new_key, self._limits)
        admin = Administration(catalog, token, new_key, cache.raise_minimum, self._limits)
        self._stops = [orders.queue.stop, lease.stop, catalog.watch.stop, orders.watch.stop]
        # The catalog may call back as soon as the lease is taken: listen for that first.
        self._listen(Internal(cache, roster.own_row).app(), self._front.internal, BODY_BYTES_MAX)
        routes = api.routes() + admin.routes()
        public = self._listen(mount(routes), self._front.http, self._limits.body_bytes_max)
        lane = Lane(api, public.date, self._limits)
        public.make_channel = lambda: LaneChannel(self._limits, lane)
        for part in (catalog.watch, orders.watch, lease):
            part.start()

    def stopService(self) -> "Deferred[None]":
        """Take no new requests, answer those under way, then let go of everything."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        await DeferredList([site.drain() for site in self._sites])
        for stop in self._stops:
            stop()
        for client in self._clients:
            client.close()

    def _tier(self, group: str, kind: type[T]) -> T:
        """A tier with two connections to each member: bulk does not delay control calls."""
        watching, asking = self._callers(group, "control"), self._callers(group, "calls")
        leader = LeaderWatch(group, watching, self._reactor, self._limits, self._random)
        return kind(leader, asking, self._reactor, self._limits, self._random)

    def _callers(self, group: str, pool: str) -> dict[int, Client]:
        threads, deliver = self._pools[pool].threads, self._reactor.callFromThread
        callers = {
            replica.id: Client(str(replica.grpc), threads, self._reactor, deliver, self._limits)
            for replica in self._cluster.replicas(group)
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
        )

    def _fetch(self, url: str) -> "Deferred[bytes]":
        """The body of another front-end's answer, within ``ROW_DEADLINE_S``."""
        http = HTTPClient(Agent(self._reactor, connectTimeout=ROW_DEADLINE_S))

        async def get() -> bytes:
            response = await http.get(url)
            if response.code != 200:
                raise Unavailable(f"{url} answered {response.code}")
            content: bytes = await response.content()
            return content

        return Deferred.fromCoroutine(get()).addTimeout(ROW_DEADLINE_S, self._reactor)

    def _listen(self, app: Klein, address: Address, body_bytes_max: int) -> ApiSite:
        """Serve an app; raises ConfigError when the address cannot be had."""
        site = ApiSite(app.resource(), self._reactor, self._limits, body_bytes_max)
        try:
            port = self._reactor.listenTCP(address.port, site, backlog=1024, interface=address.host)
        except CannotListenError as error:
            raise ConfigError(f"front-{self._front.id} cannot listen: {error}") from None
        self._ports.append(port)
        self._sites.append(site)
        return site
