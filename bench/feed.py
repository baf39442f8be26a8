"""What the feed costs those who trade: trades with and without many subscribers, in turn."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import wrk
from bench.cluster import Cluster
from bench.load import measure
from bench.processes import Process, running, wait_for
from bench.systems import Measured, trades

SUBSCRIBERS = 1_000
CONNECTIONS = 64
TARGET = 0.9
PAUSE_S = 0.5
"""After the subscribers came or went, before anything is measured."""


@dataclass(frozen=True, slots=True)
class Fed:
    """Trades in a second in each round, without subscribers and with them. ``kept`` subscribers
    were there in the end, and each got ``mb_per_s`` of events; ``writes_per_s``: how often.
    """

    subscribers: int
    without_per_s: tuple[float, ...]
    with_per_s: tuple[float, ...]
    without_p99_ms: float
    with_p99_ms: float
    kept: int
    kb_per_s: float
    reads_per_s: float
    errors: int

    @property
    def ratios(self) -> tuple[float, ...]:
        """What is left of the trades, in each round."""
        pairs = zip(self.with_per_s, self.without_per_s, strict=True)
        return tuple(fed / alone for fed, alone in pairs)

    @property
    def ratio(self) -> float:
        """The median over the rounds."""
        return median(self.ratios)

    @property
    def verdict(self) -> str:
        """Whether enough is left, and everybody was served."""
        met = self.ratio >= TARGET and self.kept == self.subscribers and not self.errors
        return "met" if met else "short"


@dataclass(frozen=True, slots=True)
class _Round:
    alone: Measured
    fed: Measured
    seconds: float
    came: dict[str, int]


def feed(cluster: Cluster, scratch: Path, seconds: float, rounds: int) -> Fed:
    """Measure in turn, the first of the two being another one in each round."""
    found = [_round(cluster, scratch, seconds, bool(k % 2)) for k in range(rounds)]
    seconds_of_all = sum(one.seconds for one in found)
    return Fed(
        SUBSCRIBERS,
        tuple(one.alone.requests_per_s for one in found),
        tuple(one.fed.requests_per_s for one in found),
        median(one.alone.p99_ms for one in found),
        median(one.fed.p99_ms for one in found),
        min(one.came["open"] for one in found),
        sum(one.came["bytes"] for one in found) / SUBSCRIBERS / seconds_of_all / 1000,
        sum(one.came["reads"] for one in found) / SUBSCRIBERS / seconds_of_all,
        sum(one.alone.errors + one.fed.errors for one in found),
    )


def _round(cluster: Cluster, scratch: Path, seconds: float, fed_first: bool) -> _Round:
    if not fed_first:
        alone = _trade(cluster, seconds)
    log = scratch / f"subscribers-{time.monotonic_ns()}.log"
    began = time.monotonic()
    with _subscribed(cluster, log):
        fed = _trade(cluster, seconds)
    took = time.monotonic() - began
    time.sleep(PAUSE_S)
    if fed_first:
        alone = _trade(cluster, seconds)
    return _Round(alone, fed, took, json.loads(log.read_text().splitlines()[-1]))


def _trade(cluster: Cluster, seconds: float) -> Measured:
    generate = wrk.measure if wrk.installed() else measure
    return generate(cluster.address, trades(), CONNECTIONS, seconds)


@contextmanager
def _subscribed(cluster: Cluster, log: Path) -> Iterator[Process]:
    """Subscribers who read as long as the body runs."""
    host, port = cluster.address
    command = [sys.executable, "-m", "bench.subscribers", host, str(port), str(SUBSCRIBERS)]
    with running(command, log) as process:
        wait_for(lambda: "listening" in log.read_text(), "the subscribers", [process])
        time.sleep(PAUSE_S)
        yield process
