"""One front-end process: where its parts meet."""

import os
import secrets
import time
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

from klein import Klein
from treq.client import HTTPClient
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.python.threadpool import ThreadPool
from twisted.web.client import Agent

from twstock.config import Address, Cluster, Front
from twstock.errors import Unavailable
from twstock.process import SystemdNotifier, stop_with, watch
from twstock.rpc.calls import Register
from twstock.rpc.client import Client
from twstock.web.api import Api
from twstock.web.cache import Cache
from twstock.web.internal import BODY_BYTES_MAX, Internal
from twstock.web.leader import LeaderWatch
from twstock.web.lease import LeaseSession
from twstock.web.roster import Roster
from twstock.web.site import ApiSite
from twstock.web.tiers import CatalogTier, OrderTier, Tier

T = TypeVar("T", bound=Tier)
ROW_DEADLINE_S = 0.3
"""How long another front-end may take to tell how it is."""


def boottime() -> float:
    """CLOCK_BOOTTIME, which leases are measured by: it goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class FrontEnd(Service):
    """Front-end ``front`` of ``cluster``. Channels, threads and ports are made in
    ``startService``: before it, twistd may still fork.
    """

    name = "front-end"

    def __init__(self, reactor: Any, cluster: Cluster, front: Front) -> None:
        self._reactor = reactor
        self._cluster = cluster
        self._front = front
        self._limits = cluster.limits
        self._random = Random()
        self._pools: list[ThreadPool] = []
        self._clients: list[Client] = []
        self._ports: list[IListeningPort] = []
        self._sites: list[ApiSite] = []
        self._stops: list[Callable[[], None]] = []

    def startService(self) -> None:
        """Know the other tiers, take the lease, listen."""
        super().startService()
        cache = Cache(self._limits.cache_size)
        catalog, orders = self._tier("catalog", CatalogTier), self._tier("order", OrderTier)
        registration = Register(
            self._front.id, f"http://{self._front.internal}", secrets.token_hex(16)
        )
        lease = LeaseSession(
            cache, catalog, catalog.watch, self._reactor, boottime, registration, self._limits
        )
        roster = self._roster(catalog, orders)
        api = Api(
            cache,
            catalog,
            orders,
            roster,
            (registration.front_id, registration.session),
            boottime,
            lambda: secrets.token_hex(16),
            self._limits,
        )
        self._stops = [orders.queue.stop, lease.stop, catalog.watch.stop, orders.watch.stop]
        # The catalog may call back as soon as the lease is taken: listen for that first.
        internal = Internal(cache, roster.own_row).app()
        if self._listen(internal, self._front.internal, BODY_BYTES_MAX) and self._listen(
            api.app(), self._front.http, self._limits.body_bytes_max
        ):
            for part in (catalog.watch, orders.watch, lease):
                part.start()
            watch(self._reactor, SystemdNotifier(os.environ), lambda: not roster.reasons())

    def stopService(self) -> "Deferred[None]":
        """Take no new requests, answer those under way, then let go of everything."""
        super().stopService()
        SystemdNotifier(os.environ).tell("STOPPING=1")
        closed = [port.stopListening() for port in self._ports]
        drained = [site.drain() for site in self._sites]
        waits = [d for d in (*closed, *drained) if isinstance(d, Deferred)]
        ended: Deferred[None] = DeferredList(waits, consumeErrors=True).addCallback(self._end)
        return ended

    def _end(self, _: object) -> None:
        for stop in self._stops:
            stop()
        for client in self._clients:
            client.close()
        for pool in self._pools:
            pool.stop()

    def _tier(self, group: str, kind: type[T]) -> T:
        """A tier with two connections to each member: bulk does not delay control calls."""
        members = self._cluster.replicas(group)
        control = self._pool(f"front-{group}-control", 2 * len(members))
        calls = self._pool(f"front-{group}-calls", self._limits.rpc_client_calls_max)
        watching = {r.id: self._client(r.grpc, control) for r in members}
        asking = {r.id: self._client(r.grpc, calls) for r in members}
        leader = LeaderWatch(group, watching, self._reactor, self._limits, self._random)
        return kind(leader, asking, self._reactor, self._limits, self._random)

    def _pool(self, name: str, threads_max: int) -> ThreadPool:
        pool = ThreadPool(1, threads_max, name)
        pool.start()
        self._pools.append(pool)
        return pool

    def _client(self, address: Address, threads: ThreadPool) -> Client:
        client = Client(str(address), threads, self._reactor.callFromThread, self._limits)
        self._clients.append(client)
        return client

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

    def _listen(self, app: Klein, address: Address, body_bytes_max: int) -> bool:
        """Serve an app; a port that is taken ends the process with a word about it."""
        site = ApiSite(app.resource(), self._reactor, self._limits, body_bytes_max)
        try:
            port = self._reactor.listenTCP(address.port, site, backlog=1024, interface=address.host)
        except CannotListenError as error:
            stop_with(self._reactor, f"front-{self._front.id} cannot listen: {error}")
            return False
        self._ports.append(port)
        self._sites.append(site)
        return True
