"""``twistd -n stock-order``: one order replica."""

import os
from functools import partial
from typing import Any

from twisted.application.service import Service

from twstock.clocks import use_boottime, wall_ms
from twstock.config import Cluster
from twstock.doorbell import use_doorbell
from twstock.keys import key_maker
from twstock.process import ServiceOptions, Stages, collect_seldom, logged, panic, stop_with
from twstock.systemd import supervise
from twstock.threads import Pool

CALLS_MAX = 4
"""Threads for calls to the catalog: for one batch at a time, and calls of earlier terms that have
not ended. Each catalog's stream, the question whether it leads, and the questions about caches have
threads in addition."""


class Options(ServiceOptions):
    """``--config FILE`` and ``--name order-N``."""

    synopsis = "[--config FILE] [--name order-N]"
    tier = "order"


def makeService(options: Options) -> Service:
    """The order replica that the options name."""
    from twisted.internet import reactor  # noqa: PLC0415 - twistd has installed it by now

    use_boottime(reactor)
    use_doorbell(reactor)
    reactor.callWhenRunning(collect_seldom)
    return logged(build(options.cluster, options.number, reactor), options)


def build(cluster: Cluster, number: int, reactor: Any) -> Stages:
    """Wire one order replica together; nothing runs yet."""
    from twstock.order.catalogmarket import CatalogMarket  # noqa: PLC0415 - grpc, only when run
    from twstock.order.catalogwatch import CatalogWatch  # noqa: PLC0415
    from twstock.order.service import OrderService  # noqa: PLC0415
    from twstock.order.tables import OrderTables  # noqa: PLC0415
    from twstock.order.views import OrderLogView  # noqa: PLC0415
    from twstock.replication.assembly import assemble, served  # noqa: PLC0415
    from twstock.rpc.client import Client  # noqa: PLC0415
    from twstock.rpc.server import Endpoint  # noqa: PLC0415
    from twstock.rpc.wire import methods  # noqa: PLC0415

    limits = cluster.limits
    tables = OrderTables(limits.recent_orders)
    old_keys = tables.old_keys
    parts = assemble(cluster, "order", number, tables, reactor, makes_snapshots=False)
    calls_max = 2 * len(cluster.catalogs) + CALLS_MAX + limits.publication_questions_max
    trading, viewing = Pool("trading", calls_max), Pool("views")
    deliver = reactor.callFromThread
    common, to = (trading.threads, reactor, deliver, limits), parts.security.to
    catalogs = {r.id: Client(str(r.grpc), *common, to(f"catalog-{r.id}")) for r in cluster.catalogs}
    contact = parts.member.needs_contact("it does not reach the catalog's leader")
    market = CatalogMarket(catalogs, contact, reactor, limits.trade_deadline_s)
    watch = CatalogWatch(number, catalogs, contact, reactor, limits)
    orders = OrderService(
        parts.member, parts.database, old_keys, market, reactor, limits, wall_ms, key_maker(), panic
    )
    parts.member.serve(orders)
    view = OrderLogView(
        cluster.data_of("order", number) / f"order_log_{number}.csv",
        orders.last_number,
        orders.orders_after,
        reactor,
        viewing.threads,
        limits.views_every_s,
    )
    parts.observatory.add(orders.families)
    endpoints = (
        Endpoint(methods.ORDER, orders.order, timed=True),
        Endpoint(methods.PLACE_ORDERS, orders.place_orders, timed=True),
        Endpoint(methods.ORDER_DETAILS, orders.details, timed=True),
        Endpoint(methods.LIST_ORDERS, orders.page, timed=True),
        Endpoint(methods.ORDER_SYNC_UP, orders.sync_up, internal=True, timed=True),
    )
    server = served(cluster, parts, endpoints, lambda: orders.reason, reactor)
    stages = (*parts.pools, trading, viewing, market, watch, server, parts.member, view)
    service = Stages(stages, partial(stop_with, reactor))
    return supervise(service, reactor, os.environ, parts.member.has_started)
