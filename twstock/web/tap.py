"""``twistd -n stock-frontend``: one front-end."""

import os
from typing import Any

from twisted.application.service import Service
from twisted.python.usage import UsageError

from twstock.config import Cluster, Front
from twstock.errors import ConfigError
from twstock.process import (
    Pool,
    ServiceOptions,
    Stages,
    load_cluster,
    member_number,
    stop_with,
    supervise,
    use_monotonic_clock,
)

Options = ServiceOptions


def makeService(options: Options) -> Service:
    """The service of the front-end that the options name."""
    from twisted.internet import reactor  # noqa: PLC0415 - twistd has installed it by now

    cluster = load_cluster(options, os.environ)
    try:
        front = cluster.front(member_number(options, "front"))
    except ConfigError as error:
        raise UsageError(str(error)) from None
    use_monotonic_clock(reactor)
    return build(cluster, front, reactor)


def build(cluster: Cluster, front: Front, reactor: Any) -> Service:
    """Wire one front-end together; nothing runs yet."""
    from twstock.web.front import FrontEnd  # noqa: PLC0415 - grpc, only when run

    pools = {name: Pool(f"front-{name}") for name in ("control", "calls")}
    service = FrontEnd(reactor, cluster, front, pools)
    stages = (*pools.values(), service)
    return supervise(Stages(stages, lambda why: stop_with(reactor, why)), reactor, os.environ)
