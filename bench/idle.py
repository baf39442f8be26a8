"""What idle keep-alive connections cost a front-end."""

import asyncio
import contextlib
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.cluster import Cluster
from bench.load import Connection, connect, exchange, measure, run
from bench.processes import rss_mb
from bench.systems import Request, lookups

CONNECTIONS = 1_000
QUIET_S = 1.0
WARM_CONNECTIONS = 1
WARM_S = 1.0
"""With one connection: many would leave behind free memory, which the idle ones would then use."""
FILES = 8_192
"""Open files that a front-end may have; its systemd unit grants even more."""
TARGET_MB = 20.0


@dataclass(frozen=True, slots=True)
class Idle:
    """The front-end's resident memory, in millions of bytes, before and with idle connections.

    ``answered``: how many of them got an answer to the one request that each of them sent.
    """

    connections: int
    answered: int
    before_mb: float
    with_mb: float

    @property
    def growth_mb(self) -> float:
        """What the connections cost."""
        return self.with_mb - self.before_mb

    @property
    def verdict(self) -> str:
        """Whether that is within the target, and all were answered."""
        met = self.growth_mb < TARGET_MB and self.answered == self.connections
        return "met" if met else "short"


@contextlib.contextmanager
def many_files() -> Iterator[None]:
    """Let this process and those that it starts have many open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def idle(cluster: Cluster) -> Idle:
    """Open the connections to a front-end that was in use, one request each, and compare."""
    pid = cluster.pid_of("front", 1)
    measure(cluster.address, lookups(), WARM_CONNECTIONS, WARM_S)
    time.sleep(QUIET_S)
    before = rss_mb(pid)
    answered, after = run(_hold(cluster, lookups()[0], pid))
    return Idle(CONNECTIONS, answered, before, after)


async def _hold(cluster: Cluster, request: Request, pid: int) -> tuple[int, float]:
    """How many were answered, and the memory while all are open and idle."""
    held: list[Connection] = []
    answered = 0
    try:
        for _ in range(CONNECTIONS):
            held.append(await connect(cluster.address))
            status, _body = await exchange(held[-1], request)
            answered += status == 200
        await asyncio.sleep(QUIET_S)
        return answered, rss_mb(pid)
    finally:
        for connection in held:
            connection.close()
