"""The parts of a run other than the rows, and the order in which everything is measured."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import cluster, evaluation, failover, growth, hitrate, openloop, replica, rounds, wrk
from bench.feed import SUBSCRIBERS, feed
from bench.growth import Size
from bench.history import History, long
from bench.idle import CONNECTIONS, idle, many_files
from bench.made import BYTES_PER_ORDER, make
from bench.processes import subdirectory
from bench.report import Report
from bench.rounds import Effort, Tell
from bench.rows import Cell
from bench.systems import BUSY_CONNECTIONS, trades

CURVES_PART = "curves: throughput and latency against connections"
START_S = 8.0
TRIAL_S = 6.0
OPEN_LOOP_FACTOR = 2
QUICK_HITRATE = 10_000
ORDERS_MADE_PER_S = 12_000
LONG_LOGS = (1_000, 1_000_000)
LONG_LOG_S = 120.0
IDLE_S = 20.0
FEED_SETTLE_S = 3.0


@dataclass
class Job:
    """A run: how much to measure, where, and the results so far."""

    scratch: Path
    effort: Effort
    trials: int
    quick: bool
    tell: Tell
    cells: Sequence[Cell] = ()
    report: Report = field(default_factory=lambda: Report({}))
    made: dict[History, Path] = field(default_factory=dict)

    def directory(self) -> Path:
        """A new directory for one part's servers."""
        return subdirectory(self.scratch, "part")

    def history(self, of: History) -> Path:
        """The data of a cluster with this history, made when it is first needed."""
        if of not in self.made:
            directory, began = subdirectory(self.scratch, "made"), time.monotonic()
            make(directory, of)
            took = time.monotonic() - began
            self.tell(f"made {of.orders:,} orders of {of.stocks:,} stocks in {took:.0f} s")
            self.made[of] = directory
        return self.made[of]

    def forget(self, of: History) -> None:
        """Delete the data of a history, to free the disk."""
        directory = self.made.pop(of, None)
        if directory is not None:
            shutil.rmtree(directory)

    def estimate_s(self, wanted: Sequence["Part"]) -> float:
        """About how long everything takes."""
        return rounds.estimate_s(self.cells, self.effort) + sum(p.takes_s(self) for p in wanted)


@dataclass(frozen=True, slots=True)
class Part:
    """One part; ``--only`` selects it by its name, and ``run`` adds to the job's report."""

    name: str
    takes_s: Callable[[Job], float]
    run: Callable[[Job], None]


def _measure_rows(job: Job) -> None:
    rounds.measure_all(job.cells, job.effort, job.scratch, job.report.found, job.tell)


def _open_loop(job: Job) -> None:
    closed = rounds.closed_loop_rate(job.report.found)
    seconds = job.effort.seconds * OPEN_LOOP_FACTOR
    with cluster.running_cluster(job.directory()) as running:
        if closed is None:
            measure = wrk.generator()
            measured = measure(running.address, trades(), BUSY_CONNECTIONS, seconds)
            closed = measured.requests_per_s
        for share in openloop.SHARES:
            rate = max(1.0, closed * share)
            found = openloop.offer(running.address, trades(), rate, share, seconds)
            job.report.open_loop.append(found)
            job.tell(f"constant rate of {rate:,.0f} trades/s: p99 {found.p99_ms:.1f} ms")


def _evaluation(job: Job) -> None:
    for cache, flags in ((True, ()), (False, ("--cache-size", "0"))):
        with cluster.running_cluster(job.directory(), *flags) as running:
            means = evaluation.evaluate(running.address, cache, job.effort.seconds)
            job.report.evaluation += means
            job.tell(f"evaluation of the original design, cache {'on' if cache else 'off'}")


def _failover(job: Job) -> None:
    with cluster.running_cluster(job.directory()) as running:
        failover.trials(running, job.trials, job.report.failover, job.tell)


def _long_logs(job: Job) -> None:
    few, many = map(long, LONG_LOGS)
    job.report.long_logs.append(replica.start_alone(job.history(few), few, job.tell))
    job.report.long_logs.append(replica.measure(job.history(many), many, job.tell))


def _growth(job: Job, of: str) -> None:
    sizes = _sizes(job, of)
    for size in sizes[:]:
        if not growth.fits(size, job.scratch):
            needs = 2 * size.history.orders * BYTES_PER_ORDER / 1e9
            job.report.skipped.append(
                f"{size.count:,} {of}: needs {needs:.0f} GB free (TMPDIR chooses the disk)"
            )
            sizes.remove(size)
    growth.measure(job.history, sizes, _growth_effort(job), job.tell, job.report.grown)
    for size in sizes:
        job.forget(size.history)


def _sizes(job: Job, of: str) -> list[Size]:
    if of == "stocks":
        return [Size(of, count) for count in growth.STOCKS]
    most = growth.QUICK_ORDERS_MAX if job.quick else max(growth.ORDERS)
    return [Size(of, count) for count in growth.ORDERS if count <= most]


def _growth_effort(job: Job) -> Effort:
    return replace(job.effort, rounds=min(job.effort.rounds, growth.ROUNDS_MAX))


def _growth_s(job: Job, of: str) -> float:
    sizes = _sizes(job, of)
    making = sum(size.history.orders for size in sizes) / ORDERS_MADE_PER_S
    return making + growth.estimate_s(sizes, _growth_effort(job))


def _idle(job: Job) -> None:
    with many_files(), cluster.running_cluster(job.directory()) as running:
        job.report.idle.append(found := idle(running))
    job.tell(
        f"{CONNECTIONS:,} idle connections: {found.growth_mb:.1f} MB more, "
        f"{found.answered:,} answered"
    )


def _feed(job: Job) -> None:
    directory = job.directory()
    with many_files(), cluster.running_cluster(directory) as running:
        found = feed(running, directory, job.effort.seconds, job.effort.rounds)
    job.report.fed.append(found)
    job.tell(f"{SUBSCRIBERS:,} subscribers of the feed: {found.ratio:.2f}x the trades")


def _hit_rates(job: Job) -> None:
    requests = QUICK_HITRATE if job.quick else hitrate.REQUESTS
    job.report.hit_rates = hitrate.hit_rates(requests)
    job.tell("hit rates of the cache")


PARTS = (
    Part(CURVES_PART, lambda _: 0.0, lambda _: None),
    Part(
        "open loop: trades at a constant rate",
        lambda job: START_S + len(openloop.SHARES) * job.effort.seconds * OPEN_LOOP_FACTOR * 1.3,
        _open_loop,
    ),
    Part(
        "evaluation of the original design",
        lambda job: 2 * START_S + 2 * len(evaluation.PROBABILITIES) * job.effort.seconds * 1.5,
        _evaluation,
    ),
    Part(
        "fail-over",
        lambda job: START_S + len(failover.FAULTS) * job.trials * TRIAL_S,
        _failover,
    ),
    Part(
        "long log: start, memory and SyncUp of a replica with a million orders",
        lambda _: LONG_LOG_S + max(LONG_LOGS) / ORDERS_MADE_PER_S,
        _long_logs,
    ),
    Part(
        "growth in stocks",
        lambda job: _growth_s(job, "stocks"),
        lambda job: _growth(job, "stocks"),
    ),
    Part(
        "growth in orders",
        lambda job: _growth_s(job, "orders"),
        lambda job: _growth(job, "orders"),
    ),
    Part("idle connections", lambda _: IDLE_S, _idle),
    Part(
        "feed: trades with a thousand subscribers",
        lambda job: START_S + job.effort.rounds * 2 * (job.effort.seconds + FEED_SETTLE_S),
        _feed,
    ),
    Part("hit rate of the cache", lambda job: 10.0 if job.quick else 30.0, _hit_rates),
)


def steps(wanted: Sequence[Part]) -> list[Callable[[Job], None]]:
    """What to do, in order. The rows come first, because the open loop needs one of them."""
    return [_measure_rows, *(part.run for part in wanted)]
