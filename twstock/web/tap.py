"""``twistd -n stock-frontend``: one front-end."""

import os
from functools import partial
from typing import Any

from twisted.application.service import Service

from twstock.config import Cluster, Front
from twstock.process import (
    Pool,
    ServiceOptions,
    Stages,
    stop_with,
    supervise,
    use_monotonic_clock,
)


class Options(ServiceOptions):
    """``--config FILE`` and ``--name front-N``."""

    synopsis = "[--config FILE] [--name front-N]"
    tier = "front"


def makeService(options: Options) -> Service:
    """The front-end that the options name."""
    from twisted.internet import reactor  # noqa: PLC0415 - twistd has installed it by now

    use_monotonic_clock(reactor)
    return build(options.cluster, options.cluster.front(options.number), reactor)


def build(cluster: Cluster, front: Front, reactor: Any) -> Service:
    """Wire one front-end together; nothing runs yet."""
    from twstock.web.front import FrontEnd  # noqa: PLC0415 - grpc, only when run

    pools = {name: Pool(f"front-{name}") for name in ("control", "calls")}
    service = FrontEnd(reactor, cluster, front, pools)
    stages = (*pools.values(), service)
    return supervise(Stages(stages, partial(stop_with, reactor)), reactor, os.environ)
