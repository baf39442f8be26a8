"""What growth costs: the same work with few and many stocks, and after few and many orders.

Every size is measured in every round, so that the machine's drift cancels out of the ratios.
"""

import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import cluster, load, wrk
from bench.history import History, long, names
from bench.made import BYTES_PER_ORDER, settle
from bench.processes import wait_for
from bench.replica import VIEW_S, has_view
from bench.rounds import WARM_CONNECTIONS, WARM_S, Effort, Tell
from bench.systems import BUSY_CONNECTIONS, Measured, Request, Work, lookups, order, plural
from twstock.config import Limits

STOCKS = (10, 1_000, 100_000)
ORDERS = (1_000, 1_000_000, 5_000_000)
QUICK_ORDERS_MAX = 1_000_000
FEW_ORDERS = 1_000
"""The log while the number of stocks grows."""
NAMES_MAX = 1_000
"""The most stocks that are looked up and traded, spread evenly over all of them."""
RATE_TARGET = 0.8
P99_TARGET = 1.2
START_S = 8.0
CALM_S = 3.0
"""The pause after a start: the replica that was down is still saving what it missed."""
ORDERS_PER_START_S = 100_000.0
ROUNDS_MAX = 5


@dataclass(frozen=True, slots=True)
class Size:
    """One size: so many ``stocks`` or ``orders``, as ``of`` says."""

    of: str
    count: int

    @property
    def history(self) -> History:
        """What such a cluster has behind it."""
        if self.of == "stocks":
            return History(FEW_ORDERS, stocks=self.count)
        return long(self.count)


@dataclass(frozen=True, slots=True)
class Grown:
    """One work at one size, round by round."""

    size: Size
    work: Work
    rounds: list[Measured]


@dataclass(frozen=True, slots=True)
class Compared:
    """A work at a size, compared with the smallest size: medians, and medians of the rounds' ratios
    to it.
    """

    grown: Grown
    requests_per_s: float
    p99_ms: float
    rate_ratio: float
    p99_ratio: float
    errors: int
    verdict: str


Works = Mapping[Work, Sequence[Request]]


def stocks_asked(count: int) -> list[str]:
    """The names of the stocks that are looked up and traded, spread over all."""
    step = max(1, count // NAMES_MAX)
    return names(count)[::step][:NAMES_MAX]


def cached_works(count: int) -> Works:
    """The requests to a front-end that caches."""
    sides = ("sell", "buy")
    trades = [order(name, side) for name in stocks_asked(count) for side in sides]
    return {Work.LOOKUP: lookups(), Work.TRADE: trades}


def uncached_works(count: int) -> Works:
    """The requests to a front-end that caches nothing."""
    return {Work.MISS: [Request("GET", f"/stocks/{name}") for name in stocks_asked(count)]}


def estimate_s(sizes: Sequence[Size], effort: Effort) -> float:
    """About how long one kind of growth takes, without making the data."""
    measuring = len(Work) * (effort.seconds + WARM_S)
    each = [2 * (START_S + CALM_S + size.history.orders / ORDERS_PER_START_S) for size in sizes]
    return effort.rounds * (len(sizes) * measuring + sum(each))


def fits(size: Size, directory: Path) -> bool:
    """Whether the disk has room for the data of a size."""
    return shutil.disk_usage(directory).free > 2 * size.history.orders * BYTES_PER_ORDER


def measure(
    made: Callable[[History], Path],
    sizes: Sequence[Size],
    effort: Effort,
    tell: Tell,
    found: list[Grown],
) -> None:
    """Every size in every round, up and down in turn; results are added to ``found`` at once."""
    by_place: dict[tuple[Size, Work], Grown] = {}
    for size in sizes:
        made(size.history)
    for number in range(1, effort.rounds + 1):
        for size in sizes if number % 2 else reversed(sizes):
            for work, measured in _visit(made(size.history), size, effort.seconds):
                if (size, work) not in by_place:
                    by_place[size, work] = Grown(size, work, [])
                    found.append(by_place[size, work])
                by_place[size, work].rounds.append(measured)
                errors = f", {plural(measured.errors, 'error')}" if measured.errors else ""
                tell(
                    f"round {number}/{effort.rounds}  {size.count:,} {size.of}, {work}: "
                    f"{measured.requests_per_s:,.0f}/s, p99 {measured.p99_ms:.2f} ms{errors}"
                )


def _visit(data: Path, size: Size, seconds: float) -> Iterator[tuple[Work, Measured]]:
    """Start a cluster twice on its data, with and without a cache, and measure each work."""
    stocks = size.history.stocks
    for cache_size, works in (
        (Limits().cache_size, cached_works(stocks)),
        (0, uncached_works(stocks)),
    ):
        with cluster.resumed(data, "--cache-size", str(cache_size)) as running:
            time.sleep(CALM_S)
            await_views(data, size.history.orders, running)
            for work, requests in works.items():
                load.measure(running.address, requests, WARM_CONNECTIONS, WARM_S)
                generate = wrk.generator()
                yield work, generate(running.address, requests, BUSY_CONNECTIONS, seconds)


def await_views(data: Path, orders: int, running: cluster.Cluster) -> None:
    """Wait until every replica has all orders in its table."""
    made = settle(data)

    def written() -> bool:
        return all(has_view(made, replica.id, orders) for replica in made.orders)

    wait_for(written, "the tables of orders", [running.process], VIEW_S)


def compare(found: Sequence[Grown]) -> list[Compared]:
    """Every work at every size, compared with the same work at the smallest size of its kind."""
    smallest: dict[tuple[str, Work], Grown] = {}
    for one in found:
        least = smallest.setdefault((one.size.of, one.work), one)
        if one.size.count < least.size.count:
            smallest[one.size.of, one.work] = one
    return [_beside(one, smallest[one.size.of, one.work]) for one in found]


def _beside(one: Grown, least: Grown) -> Compared:
    # A run that was stopped may have one round more of the smaller size.
    pairs = list(zip(one.rounds, least.rounds, strict=False))
    rate = statistics.median(_over(a.requests_per_s, b.requests_per_s) for a, b in pairs)
    p99 = statistics.median(_over(a.p99_ms, b.p99_ms) for a, b in pairs)
    errors = sum(measured.errors for measured in one.rounds)
    met = rate >= RATE_TARGET and p99 <= P99_TARGET and not errors
    return Compared(
        one,
        statistics.median(measured.requests_per_s for measured in one.rounds),
        statistics.median(measured.p99_ms for measured in one.rounds),
        rate,
        p99,
        errors,
        "-" if one is least and not errors else "met" if met else "short",
    )


def _over(a: float, b: float) -> float:
    return a / b if b else float("nan")
