"""``twistd -n stock-catalog``: one catalog replica."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

from twisted.application.service import Service
from twisted.python.usage import UsageError

from twstock.catalog.seed import TooLarge, read_seed
from twstock.clocks import use_boottime, wall_ms
from twstock.config import Cluster
from twstock.doorbell import use_doorbell
from twstock.errors import ConfigError
from twstock.keys import key_maker
from twstock.market import RefusalBounds, Seed
from twstock.process import ServiceOptions, Stages, collect_seldom, logged, panic, stop_with
from twstock.replication.disk import META
from twstock.systemd import supervise
from twstock.threads import Pool


class Options(ServiceOptions):
    """``--config FILE`` and ``--name catalog-N``; ``seed()`` is what an empty catalog starts with,
    and raises ConfigError if that cannot be read.
    """

    synopsis = "[--config FILE] [--name catalog-N]"
    tier = "catalog"
    seed: Callable[[], Seed]

    def postOptions(self) -> None:
        """Read the stocks, too; raises UsageError naming the file and line at fault. For a replica
        with data, which has its stocks already, only a file that is too large is a fault.
        """
        super().postOptions()
        cluster = self.cluster
        self.seed = cache(partial(read_seed, cluster.catalog_csv, cluster.limits.message_bytes_max))
        has_data = (cluster.data_of("catalog", self.number) / META).exists()
        try:
            self.seed()
        except ConfigError as error:
            if isinstance(error, TooLarge) or not has_data:
                raise UsageError(str(error)) from None


def makeService(options: Options) -> Service:
    """The catalog replica that the options name."""
    from twisted.internet import reactor  # noqa: PLC0415 - twistd has installed it by now

    use_boottime(reactor)
    use_doorbell(reactor)
    reactor.callWhenRunning(collect_seldom)
    return logged(build(options.cluster, options.number, options.seed, reactor), options)


def build(cluster: Cluster, number: int, seed: Callable[[], Seed], reactor: Any) -> Stages:
    """Wire one catalog replica together; nothing runs yet."""
    from twisted.internet.threads import deferToThreadPool  # noqa: PLC0415 - only when run

    from twstock.catalog.invalidation import Publisher  # noqa: PLC0415
    from twstock.catalog.service import Catalog  # noqa: PLC0415
    from twstock.catalog.sessions import Sessions  # noqa: PLC0415
    from twstock.catalog.tables import CatalogTables  # noqa: PLC0415
    from twstock.catalog.views import StocksView  # noqa: PLC0415
    from twstock.replication.assembly import assemble, served  # noqa: PLC0415

    limits, timings = cluster.limits, cluster.timings
    bounds = limits.refused_keys_max, limits.refused_keys_s
    tables = CatalogTables(*bounds)
    parts = assemble(cluster, "catalog", number, tables, reactor, makes_snapshots=True)
    viewing = Pool("views")
    # No member starts with a longer lease than this, and timings change while all are stopped. A
    # leader that only seemed to be gone reads, and lets caches read, until its own lease is over.
    any_lease_s = max(timings.lease_drain_s, timings.election_s * timings.lease_fraction)
    sessions = Sessions(limits.cache_lease_s, any_lease_s)
    publisher = Publisher(sessions, http_client(reactor), reactor, limits, panic)
    catalog = Catalog(
        parts.member,
        sessions,
        publisher,
        lambda: replace(seed(), bounds=RefusalBounds.of(*bounds)),
        [front.id for front in cluster.fronts],
        reactor,
        limits,
        wall_ms,
        key_maker(),
        panic,
    )
    parts.member.serve(catalog)
    parts.observatory.add(publisher.families)
    view = StocksView(
        cluster.data_of("catalog", number) / "stocks.csv",
        lambda: parts.member.machine,
        reactor,
        limits.views_every_s,
        partial(deferToThreadPool, reactor, viewing.threads),
    )
    calls = endpoints(parts.member, catalog)
    server = served(cluster, parts, calls, lambda: catalog.reason, reactor)
    stages = (*parts.pools, viewing, server, parts.member, view)
    service = Stages(stages, partial(stop_with, reactor))
    return supervise(service, reactor, os.environ, parts.member.has_started)


def endpoints(member: Any, catalog: Any) -> tuple[Any, ...]:
    """The calls that are the catalog's own."""
    from twstock.rpc.server import Endpoint  # noqa: PLC0415 - only when run
    from twstock.rpc.wire import methods  # noqa: PLC0415

    return (
        Endpoint(methods.FETCH_ENTRIES, member.fetch, internal=True),
        Endpoint(methods.FETCH_SNAPSHOT, member.fetch_snapshot, internal=True),
        Endpoint(methods.LOOKUP, catalog.lookup),
        Endpoint(methods.LOOKUP_MANY, catalog.lookup_many),
        Endpoint(methods.LIST_STOCKS, catalog.list_stocks),
        Endpoint(methods.TRADE, catalog.trade),
        Endpoint(methods.CHANGE_STOCK, catalog.stock_changes.change_stock),
        Endpoint(methods.LIST_CHANGES, catalog.stock_changes.list_changes),
        Endpoint(methods.AWAIT_PUBLISHED, catalog.await_published, internal=True),
        Endpoint(methods.BEGIN_EPOCH, catalog.begin_epoch, internal=True),
        Endpoint(methods.REGISTER, catalog.register, internal=True),
    )


def http_client(reactor: Any) -> Any:
    """The client for requests to front-ends, with persistent connections."""
    from treq.client import HTTPClient  # noqa: PLC0415 - only when run
    from twisted.web.client import Agent, HTTPConnectionPool  # noqa: PLC0415

    return HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=True)))
