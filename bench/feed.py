"""What the feed costs traders: trades with and without many subscribers, in turn."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import wrk
from bench.cluster import Cluster
from bench.processes import running, wait_for
from bench.systems import BUSY_CONNECTIONS, Measured, trades
from bench.tables import number, table

SUBSCRIBERS = 1_000
TARGET = 0.9
SETTLE_S = 1.0
"""After the subscribers came or went, before anything is measured."""
WARM_S = 1.0


@dataclass(frozen=True, slots=True)
class Came:
    """What the subscribers of a round got in ``seconds``: ``kept`` of them were still connected at
    its end, and ``least_bytes`` is what the one with the least got.
    """

    seconds: float
    kept: int
    received_bytes: int
    least_bytes: int
    most_bytes: int
    reads: int


@dataclass(frozen=True, slots=True)
class Fed:
    """Each round's trades without subscribers and with them, and what the subscribers got."""

    subscribers: int
    alone: Sequence[Measured]
    fed: Sequence[Measured]
    came: Sequence[Came]

    @property
    def ratio(self) -> float:
        """What is left of the trades: the median over the rounds."""
        pairs = zip(self.fed, self.alone, strict=True)
        return median(fed.requests_per_s / alone.requests_per_s for fed, alone in pairs)

    @property
    def verdict(self) -> str:
        """Whether enough is left, and no subscriber was dropped or refused."""
        errors = sum(one.errors for one in (*self.fed, *self.alone))
        kept = min(one.kept for one in self.came)
        met = self.ratio >= TARGET and kept == self.subscribers and not errors
        return "met" if met else "short"

    @property
    def kb_per_s(self) -> float:
        """Thousands of bytes a second that one subscriber got."""
        return self._each([one.received_bytes / one.seconds for one in self.came]) / 1000

    @property
    def reads_per_s(self) -> float:
        """How many times a second one subscriber received something."""
        return self._each([one.reads / one.seconds for one in self.came])

    def _each(self, of_all: Sequence[float]) -> float:
        return median(of_all) / self.subscribers


def feed(cluster: Cluster, scratch: Path, seconds: float, rounds: int) -> Fed:
    """Measure in turn; which of the two is first alternates."""
    alone, fed, came = [], [], []
    _trade(cluster, WARM_S)
    for turn in range(rounds):
        for with_subscribers in (turn % 2 == 1, turn % 2 == 0):
            if not with_subscribers:
                alone.append(_trade(cluster, seconds))
                continue
            log = scratch / f"subscribers-{turn}.log"
            with _subscribed(cluster, log):
                fed.append(_trade(cluster, seconds))
            told = json.loads(log.read_text().splitlines()[-1])
            came.append(Came(**told))
            time.sleep(SETTLE_S)
    return Fed(SUBSCRIBERS, alone, fed, came)


def _trade(cluster: Cluster, seconds: float) -> Measured:
    return wrk.generator()(cluster.address, trades(), BUSY_CONNECTIONS, seconds)


@contextmanager
def _subscribed(cluster: Cluster, log: Path) -> Iterator[None]:
    """Subscribers that read as long as the body runs."""
    host, port = cluster.address
    command = [sys.executable, "-m", "bench.subscribers", host, str(port), str(SUBSCRIBERS)]
    with running(command, log) as process:
        wait_for(lambda: "listening" in log.read_text(), "the subscribers", [process])
        time.sleep(SETTLE_S)
        yield


def fed_table(found: Sequence[Fed]) -> str:
    """Trades with subscribers next to trades without."""
    columns = ["subscribers", "trades/s without", "with them", "ratio", "p99 without, ms"]
    columns += ["p99 with them, ms", "kB/s to each", "writes/s to each", "target", ""]
    lines = [
        [
            f"{one.subscribers:,}",
            number(median(m.requests_per_s for m in one.alone)),
            number(median(m.requests_per_s for m in one.fed)),
            f"**{one.ratio:.2f}x**",
            number(median(m.p99_ms for m in one.alone)),
            number(median(m.p99_ms for m in one.fed)),
            number(one.kb_per_s),
            number(one.reads_per_s),
            f">= {TARGET:g}x",
            one.verdict,
        ]
        for one in found
    ]
    return (
        f"## Subscribers of the feed\n\nTrades over {BUSY_CONNECTIONS} connections through the "
        "same front-end; every subscriber is told every trade.\n\n" + table(columns, lines)
    )
