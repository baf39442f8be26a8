"""``twistd -n stock-frontend``: one front-end."""

import os
from functools import partial
from typing import Any

from twisted.application.service import Service

from twstock.clocks import use_boottime
from twstock.config import Cluster, Front
from twstock.doorbell import use_doorbell
from twstock.process import ServiceOptions, Stages, collect_seldom, logged, stop_with
from twstock.systemd import supervise
from twstock.threads import Pool

CONTROL_CALLS_MAX = 4
"""How many probes of one member may be under way."""
ORDER_CALLS_MAX = 24
"""How many calls with orders may be under way, including those that were given up."""


class Options(ServiceOptions):
    """``--config FILE`` and ``--name front-N``."""

    synopsis = "[--config FILE] [--name front-N]"
    tier = "front"


def makeService(options: Options) -> Service:
    """The front-end that the options name."""
    from twisted.internet import reactor  # noqa: PLC0415 - twistd has installed it by now

    use_boottime(reactor)
    use_doorbell(reactor)
    reactor.callWhenRunning(collect_seldom)
    return logged(build(options.cluster, options.cluster.front(options.number), reactor), options)


def pool_sizes(cluster: Cluster) -> dict[str, int]:
    """How many threads each pool has at most. With streams it needs one for each member; without,
    one for each call from beginning to end.
    """
    members = len(cluster.catalogs) + len(cluster.orders)
    return {
        "control": CONTROL_CALLS_MAX * members,
        # Reads of two tiers, twice: what was given up keeps its thread until its deadline.
        "calls": 2 * 2 * cluster.limits.calls_under_way_max + ORDER_CALLS_MAX,
    }


def build(cluster: Cluster, front: Front, reactor: Any) -> Stages:
    """Wire one front-end together; nothing runs yet."""
    from twisted.internet.endpoints import serverFromString  # noqa: PLC0415 - only when run

    from twstock.web.front import FrontEnd  # noqa: PLC0415 - grpc, only when run

    pools = {name: Pool(f"front-{name}", size) for name, size in pool_sizes(cluster).items()}
    service = FrontEnd(reactor, cluster, front, pools, partial(serverFromString, reactor))
    stages = (*pools.values(), service)
    return supervise(Stages(stages, partial(stop_with, reactor)), reactor, os.environ)
