"""``twistd -n stock-frontend``."""

import os

from twisted.application.service import IService
from twisted.python.usage import UsageError

from twstock.errors import ConfigError
from twstock.process import ServiceOptions, load_cluster, member_number, use_monotonic_clock


class Options(ServiceOptions):
    """``--config FILE`` and ``--name front-N``."""

    synopsis = "[--config FILE] [--name front-N]"


def makeService(options: Options) -> IService:
    """The front-end that the options name; raises UsageError when there is none."""
    from twisted.internet import reactor  # noqa: PLC0415

    from twstock.web.front import FrontEnd  # noqa: PLC0415

    number = member_number(options, "front")
    cluster = load_cluster(options, os.environ)
    try:
        front = cluster.front(number)
    except ConfigError as error:
        raise UsageError(str(error)) from None
    use_monotonic_clock(reactor)
    return FrontEnd(reactor, cluster, front)
