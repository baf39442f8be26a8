"""What a front-end remembers of the catalog, and when it may show it.

Four rules keep a cached stock from ever hiding an acknowledged trade
(``tests/test_cache_protocol.py`` explores them exhaustively):

- *Hit*: only while the lease holds, judged at a time read after the request arrived.
- *Fill*: only with a version not below the stock's minimum and not below what is cached, and
  only if nothing was emptied since the lookup started (``ticket``).
- *Invalidate*: raises the stock's minimum version for good; a version-less one forbids all
  fills under way instead.
- *Renew*: a lease that ran out, or a session that the catalog did not know, starts empty.

Minimum versions outlive everything, also a new session: a trade may be known here before it is
published. They are bounded by forgetting the oldest into ``floor``, a minimum for all stocks
that have none of their own, which can only keep something out of the cache.

All times are readings of CLOCK_BOOTTIME in seconds, given by the caller.
"""

from dataclasses import dataclass

from pylru import lrucache

from twstock.market import Stock

LEASE_FRACTION = 0.9
"""The part of a granted lease that is used: clock rates differ by less than one percent."""
NEVER = float("-inf")
MINIMUMS_MAX = 65_536


@dataclass(frozen=True, slots=True)
class Counters:
    """What happened so far."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    invalidations: int = 0


class Cache:
    """Up to ``size`` stocks; size 0 remembers nothing.

    Reactor thread only. ``minimums_max`` bounds how many stocks have a minimum of their own.
    """

    def __init__(self, size: int, minimums_max: int = MINIMUMS_MAX) -> None:
        self.size = size
        self._minimums_max = minimums_max
        # pylru refuses a size of 0; nothing is ever stored then.
        self._stocks = lrucache(max(size, 1), self._evicted)
        self._minimums: dict[str, int] = {}
        self._floor = 0
        self._generation = 0
        self._lease_until = NEVER
        self._hits = self._misses = self._evictions = self._invalidations = 0

    def __len__(self) -> int:
        """How many stocks are remembered."""
        return len(self._stocks)

    @property
    def enabled(self) -> bool:
        """Whether anything is ever remembered."""
        return self.size > 0

    @property
    def counters(self) -> Counters:
        """What happened so far."""
        return Counters(self._hits, self._misses, self._evictions, self._invalidations)

    def holds_lease(self, now: float) -> bool:
        """Whether the catalog still waits for this cache before it acknowledges a trade."""
        return now < self._lease_until

    def hit(self, name: str, now: float) -> Stock | None:
        """The stock, if it is remembered and may be shown at ``now``, which must have been
        read after the request arrived.
        """
        stock: Stock | None = self._stocks.get(name) if now < self._lease_until else None
        if stock is not None:
            self._hits += 1
        return stock

    def missed(self) -> None:
        """Count a lookup that was no ``hit`` and is asked of the catalog."""
        self._misses += 1

    def ticket(self, now: float) -> int | None:
        """Taken before a lookup is sent, handed back with its answer; None: do not store it."""
        return self._generation if self.enabled and self.holds_lease(now) else None

    def fill(self, ticket: int | None, stock: Stock) -> bool:
        """Remember an answer, if no rule forbids it; tells whether it did."""
        if ticket is None or ticket != self._generation:
            return False
        if stock.version < self.minimum(stock.name):
            return False
        if stock.name in self._stocks and stock.version < self._stocks.peek(stock.name).version:
            return False
        self._stocks[stock.name] = stock
        return True

    def minimum(self, name: str) -> int:
        """The lowest version of a stock that may be stored."""
        return self._minimums.get(name, self._floor)

    def invalidate(self, name: str, version: int | None = None) -> None:
        """The catalog says that a trade made ``version``; None: some version, not known which."""
        self._invalidations += 1
        if version is None:
            self._generation += 1
            self._stocks.pop(name, None)
        else:
            self.raise_minimum(name, version)

    def raise_minimum(self, name: str, version: int) -> None:
        """Never again store or show a version of the stock below this one: whoever traded it
        here, or changed it, reads that here, whatever a lookup under way brings.
        """
        if version > self.minimum(name):
            # Last in the table's order: what is raised is forgotten last.
            self._minimums.pop(name, None)
            self._minimums[name] = version
            if len(self._minimums) > self._minimums_max:
                self._forget_oldest()
        if name in self._stocks and self._stocks.peek(name).version < version:
            del self._stocks[name]

    def renew(self, sent_at: float, seconds: float, now: float, fresh: bool) -> None:
        """The catalog grants a lease that counts from ``sent_at``, before it was asked.

        ``fresh``: it did not know the session, so it may have acknowledged trades without
        telling this cache. The same holds when the last lease ran out before ``now``.
        """
        if fresh or not self.holds_lease(now):
            self.end_lease()
        self._lease_until = max(self._lease_until, sent_at + seconds * LEASE_FRACTION)

    def end_lease(self) -> None:
        """Show nothing until the next lease, which starts empty."""
        self._lease_until = NEVER
        self.clear()

    def clear(self) -> None:
        """Forget all stocks, and store no answer to a lookup that is under way."""
        self._stocks.clear()
        self._generation += 1

    def _evicted(self, _name: str, _stock: Stock) -> None:
        self._evictions += 1

    def _forget_oldest(self) -> None:
        """Keep a forgotten minimum as part of the floor: too high a minimum is safe."""
        oldest = next(iter(self._minimums))
        self._floor = max(self._floor, self._minimums.pop(oldest))
