"""A front-end's cache of stocks, and when it may be used.

Four rules keep a cached stock from ever hiding an acknowledged trade
(``tests/test_cache_protocol.py`` explores them exhaustively):

- *Hit*: only while the lease holds, judged by a time that was read after the request arrived.
- *Fill*: only with a version not below the stock's minimum and not below the cached one, and
  only if the cache was not emptied since the lookup began (``ticket``).
- *Invalidate*: raises the stock's minimum version for good. Without a version, it drops the
  stock and forbids all fills under way instead.
- *Renew*: after a lease that ran out, or for a session that the catalog did not know, the cache
  starts empty.

Minimum versions outlive even the session, because a trade may be known here before it is
published. Their number is bounded: the oldest is merged into ``_floor``, the minimum of all
stocks that have none of their own. Too high a floor only keeps stocks out of the cache.

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
    """Counts since the start."""

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
        """Counts since the start."""
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
        """Count a lookup that goes to the catalog, because it was not a ``hit``."""
        self._misses += 1

    def ticket(self, now: float) -> int | None:
        """Taken before a lookup is sent, for ``fill`` to check; None: store no answer."""
        return self._generation if self.enabled and self.holds_lease(now) else None

    def fill(self, ticket: int | None, stock: Stock) -> bool:
        """Store the answer of a lookup, unless a rule forbids it; returns whether it was stored."""
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
        """The catalog says that the stock has reached ``version``; None: it does not say which."""
        self._invalidations += 1
        if version is None:
            self._generation += 1
            self._stocks.pop(name, None)
        else:
            self.raise_minimum(name, version)

    def raise_minimum(self, name: str, version: int) -> None:
        """Never again store or show a version of the stock below this one: a client that traded
        or changed it here then sees that here, whatever a lookup under way brings.
        """
        if version > self.minimum(name):
            # Moved to the end of the dict: what was raised last is forgotten last.
            self._minimums.pop(name, None)
            self._minimums[name] = version
            if len(self._minimums) > self._minimums_max:
                self._forget_oldest()
        if name in self._stocks and self._stocks.peek(name).version < version:
            del self._stocks[name]

    def renew(self, sent_at: float, seconds: float, now: float, fresh: bool) -> None:
        """The catalog has granted a lease that counts from ``sent_at``, before it was asked for.

        ``fresh``: it did not know the session, so it may have acknowledged trades without
        invalidating anything here. The same holds if the last lease ran out before ``now``.
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
        """Merge the oldest minimum into the floor: too high a minimum is safe."""
        oldest = next(iter(self._minimums))
        self._floor = max(self._floor, self._minimums.pop(oldest))
