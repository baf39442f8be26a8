"""The last ten minutes of a front-end: the ring of rows, and ``GET /history``, which shows them."""

import json

from twisted.internet.task import Clock

from tests.test_cache import stock
from twstock.tally import LATENCY_S, Histogram
from twstock.web.cache import Cache
from twstock.web.history import SCHEMAS, History
from twstock.web.ring import ROWS_MAX, Ring, Totals
from twstock.web.traffic import LOOKUP, OTHER, TRADE, Traffic

NOTHING = Totals(0, 0, 0, 0, 0, 0, tuple(Histogram().counts))


def totals(**known: int) -> Totals:
    """Totals that are 0 but for a few."""
    return NOTHING._replace(**known)


def test_a_row_is_what_was_counted_in_its_second() -> None:
    """Each row is the difference of two totals."""
    ring = Ring(totals(lookups=10, hits=5))
    ring.add(100, totals(lookups=12, hits=6, orders=3, refused=1, errors=2, misses=1), 0.004)
    ring.add(101, totals(lookups=12, hits=6, orders=3, refused=1, errors=2, misses=1), 0.0)
    first, second = ring.rows()
    assert first == {
        "at": 100, "lookups": 2, "orders": 3, "refused": 1, "errors": 2, "hits": 1, "misses": 1,
        "p50_ms": None, "p99_ms": None, "reactor_lag_ms": 4.0,
    }  # fmt: skip
    assert not any(second[name] for name in second if name != "at")


def test_latencies_are_those_of_the_second_alone() -> None:
    """A slow request in one second does not show in the next one's percentiles."""
    slow, both = Histogram(), Histogram()
    for histogram in (slow, both):
        histogram.observe(2.0)
    both.observe(0.0002)
    ring = Ring(NOTHING)
    ring.add(1, NOTHING._replace(latency=tuple(slow.counts)), 0.0)
    ring.add(2, NOTHING._replace(latency=tuple(both.counts)), 0.0)
    before, after = ring.rows()
    assert before["p50_ms"] > 1000
    assert 0.1 <= after["p50_ms"] <= after["p99_ms"] <= 0.25


def test_rows_older_than_ten_minutes_are_gone() -> None:
    """The ring keeps the last 600 rows, the oldest first."""
    ring = Ring(NOTHING)
    for second in range(ROWS_MAX + 5):
        ring.add(second, NOTHING, 0.0)
    assert [row["at"] for row in ring.rows()] == list(range(5, ROWS_MAX + 5))


class Watched:
    """A history with a clock, traffic and a cache that a test controls."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.traffic = Traffic()
        self.cache = Cache(10)
        self.lag_s = 0.0
        self.history = History(
            self.traffic, self.cache, lambda: self.lag_s, lambda: 5_000_900, self.clock
        )
        self.history.start()

    def rows(self) -> "list[dict[str, float]]":
        """What ``GET /history`` shows."""
        request: object = None
        data = json.loads(self.history.show(request).body)["data"]  # type: ignore[arg-type]
        assert data["step_s"] == 1
        rows: list[dict[str, float]] = data["rows"]
        return rows


def test_the_history_has_a_row_for_each_second() -> None:
    """A row tells of lookups, orders, refusals, errors, the cache and the reactor's lag."""
    watched = Watched()
    assert watched.rows() == []
    watched.cache.renew(0.0, 100.0, 1.0, True)
    watched.cache.fill(watched.cache.ticket(1.0), stock(0))
    watched.cache.hit("GOOGL", 1.0)
    watched.cache.missed()
    for route, status in ((LOOKUP, 200), (LOOKUP, 404), (TRADE, 200), (TRADE, 503), (OTHER, 503)):
        watched.traffic.of(route, status).observe(LATENCY_S[3])
    watched.traffic.batched += 1000
    watched.lag_s = 0.25
    watched.clock.advance(1)
    watched.lag_s = 0.0
    watched.clock.advance(1)
    first, second = watched.rows()
    assert first["at"] == 5000
    assert (first["lookups"], first["orders"]) == (2, 1002)
    # /readyz answers 503 until the front-end is ready: no error of the API.
    assert (first["refused"], first["errors"]) == (1, 1)
    assert (first["hits"], first["misses"], first["reactor_lag_ms"]) == (1, 1, 250.0)
    assert 0.25 < first["p99_ms"] <= 0.5
    assert (second["lookups"], second["orders"]) == (0, 0)
    assert second["p99_ms"] is None
    assert list(first) == SCHEMAS["HistoryRow"]["required"]
    watched.history.stop()
    assert not watched.clock.getDelayedCalls()
