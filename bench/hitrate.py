"""The hit rate of the front-end's cache, by its size. Pure computation, no server."""

import itertools
import math
from dataclasses import dataclass
from random import Random

from twstock.market import Stock
from twstock.web.cache import Cache

STOCKS = 10_000
REQUESTS = 100_000
SIZES = (10, 30, 100, 300, 1000, 2000, 3000, 5000, 7000, 10_000)
ZIPF = 1.0
"""The exponent: the k-th most popular stock is looked up 1/k times as often as the first."""
DEMANDS = ("uniform", "Zipf")
_FOREVER_S = 1e9


@dataclass(frozen=True, slots=True)
class HitRate:
    """Share of lookups that a cache of some size answered.

    ``best`` is the share of a cache that always holds the most popular stocks.
    """

    demand: str
    size: int
    rate: float
    best: float


def weights(demand: str, stocks: int = STOCKS) -> list[float]:
    """How often each stock is looked up, as shares of 1."""
    raw = [1.0 if demand == "uniform" else 1 / rank**ZIPF for rank in range(1, stocks + 1)]
    total = sum(raw)
    return [weight / total for weight in raw]


def hit_rate(demand: str, size: int, requests: int = REQUESTS, stocks: int = STOCKS) -> HitRate:
    """Run lookups through a cache that has been in use for a while."""
    random = Random(1)
    wanted = weights(demand, stocks)
    cumulative = list(itertools.accumulate(wanted))
    names = [f"S{number}" for number in range(stocks)]
    cache = Cache(size)
    cache.renew(0.0, _FOREVER_S, 0.0, fresh=True)
    # As if in use for a while: stocks in about the order in which they were last looked up.
    for name in sorted(names, key=lambda n: math.log(1 - random.random()) / wanted[int(n[1:])]):
        _look(cache, name)
    warm = random.choices(names, cum_weights=cumulative, k=requests // 2)
    measured = random.choices(names, cum_weights=cumulative, k=requests)
    for name in warm:
        _look(cache, name)
    hits = sum(_look(cache, name) for name in measured)
    return HitRate(demand, size, hits / requests, sum(sorted(wanted, reverse=True)[:size]))


def _look(cache: Cache, name: str) -> bool:
    """A lookup as the front-end does it; returns whether it was a hit."""
    if cache.hit(name, 1.0) is not None:
        return True
    cache.fill(cache.ticket(1.0), Stock(name, 1599, 100, 0, 0))
    return False


def hit_rates(requests: int) -> list[HitRate]:
    """Both kinds of demand, for all sizes."""
    return [hit_rate(demand, size, requests) for demand in DEMANDS for size in SIZES]
