"""The last ten minutes of a front-end, a row for each second."""

from collections import deque
from typing import Any, NamedTuple

from twstock.tally import LATENCY_S, quantile

STEP_S = 1
ROWS_MAX = 600


class Totals(NamedTuple):
    """Counts since the start; ``latency`` has those of lookups and orders, by bucket."""

    lookups: int
    orders: int
    refused: int
    errors: int
    hits: int
    misses: int
    latency: tuple[int, ...]


Row = dict[str, Any]


class Ring:
    """Rows made of the differences of totals; the oldest is dropped if there are too many."""

    def __init__(self, start: Totals) -> None:
        self._last = start
        self._rows: deque[Row] = deque(maxlen=ROWS_MAX)

    def add(self, at: int, totals: Totals, lag_s: float) -> None:
        """Add the second that ended at ``at`` (Unix time), in which the reactor was late by
        ``lag_s`` at most.
        """
        last, self._last = self._last, totals
        latency = [now - then for now, then in zip(totals.latency, last.latency, strict=True)]
        self._rows.append(
            {
                "at": at,
                "lookups": totals.lookups - last.lookups,
                "orders": totals.orders - last.orders,
                "refused": totals.refused - last.refused,
                "errors": totals.errors - last.errors,
                "hits": totals.hits - last.hits,
                "misses": totals.misses - last.misses,
                "p50_ms": _ms(quantile(latency, LATENCY_S, 0.5)),
                "p99_ms": _ms(quantile(latency, LATENCY_S, 0.99)),
                "reactor_lag_ms": _ms(lag_s),
            }
        )

    def rows(self) -> list[Row]:
        """From the oldest to the newest."""
        return list(self._rows)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
