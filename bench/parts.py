"""The parts of a run beside the rows, and the order in which everything is measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import cluster, evaluation, failover, hitrate, openloop, rounds, wrk
from bench.load import measure
from bench.processes import subdirectory
from bench.report import Report
from bench.rounds import Effort, Tell
from bench.rows import CURVE, Cell
from bench.systems import trades

CURVES = "curves: throughput and latency against connections"
START_S = 8.0
TRIAL_S = 6.0
OPEN_LOOP_FACTOR = 2
QUICK_HITRATE = 10_000


@dataclass
class Job:
    """A run: how much of it, where, and what was found so far."""

    scratch: Path
    effort: Effort
    trials: int
    quick: bool
    tell: Tell
    cells: Sequence[Cell] = ()
    report: Report = field(default_factory=lambda: Report({}))

    def directory(self) -> Path:
        """A new directory for one part's servers."""
        return subdirectory(self.scratch, "part")

    def estimate_s(self, wanted: Sequence["Part"]) -> float:
        """About how long all of it takes."""
        return rounds.estimate_s(self.cells, self.effort) + sum(p.takes_s(self) for p in wanted)


@dataclass(frozen=True, slots=True)
class Part:
    """One part, its name as ``--only`` knows it; ``run`` adds to the job's report."""

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
            generate = wrk.measure if wrk.installed() else measure
            closed = generate(running.address, trades(), CURVE[2], seconds).requests_per_s
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


def _hit_rates(job: Job) -> None:
    requests = QUICK_HITRATE if job.quick else hitrate.REQUESTS
    job.report.hit_rates = hitrate.hit_rates(requests)
    job.tell("hit rates of the cache")


PARTS = (
    Part(CURVES, lambda _: 0.0, lambda _: None),
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
    Part("hit rate of the cache", lambda job: 10.0 if job.quick else 30.0, _hit_rates),
)


def steps(wanted: Sequence[Part]) -> list[Callable[[Job], None]]:
    """What to do, in order; the rows come first, the open loop needs one of them."""
    return [_measure_rows, *(part.run for part in wanted)]
