"""``GET /history``: what this front-end did in the last ten minutes, for a plot."""

from collections.abc import Callable
from typing import Any

from twisted.web.server import Request

from twstock.clocks import Clock
from twstock.repeating import repeating
from twstock.web import answers, ring
from twstock.web.answers import Answer
from twstock.web.cache import Cache
from twstock.web.http.routes import Route
from twstock.web.operations import COUNT
from twstock.web.ring import Ring, Totals
from twstock.web.traffic import ERROR, LOOKUP, OTHER, OUTCOMES, REFUSED, ROUTES, TRADE, Traffic

_OF_THE_API = tuple(route for route in ROUTES if route != OTHER)
"""OTHER is left out because not every 503 is an error: ``/readyz`` answers so until the front-end
is ready."""
_TIME_MS = {"type": ["number", "null"], "minimum": 0}
SCHEMAS: dict[str, Any] = {
    "HistoryRow": {
        "type": "object",
        "description": "What a front-end did in one second.",
        "properties": {
            "at": {"type": "integer", "description": "The end of the second, in Unix time."},
            "lookups": {**COUNT, "description": "Requests for a stock."},
            "orders": {**COUNT, "description": "Orders to be placed, alone or in batches."},
            "refused": {**COUNT, "description": "Of these and pages: answered with 400 to 499."},
            "errors": {**COUNT, "description": "Of these and pages: answered with 500 or more."},
            "hits": {**COUNT, "description": "Lookups answered from the cache."},
            "misses": {**COUNT, "description": "Lookups that the catalog was asked for."},
            "p50_ms": {
                **_TIME_MS,
                "description": "The median latency of lookups and orders; null without any.",
            },
            "p99_ms": {**_TIME_MS, "description": "Their 99th percentile."},
            "reactor_lag_ms": {
                **_TIME_MS,
                "description": "By how much the front-end's timers were late at most.",
            },
        },
        "required": [
            "at", "lookups", "orders", "refused", "errors", "hits", "misses",
            "p50_ms", "p99_ms", "reactor_lag_ms",
        ],
    },
}  # fmt: skip
"""The schemas that the operation refers to."""
OPERATION: dict[str, Any] = {
    "operationId": "history",
    "summary": "What this front-end did in the last ten minutes, a row for each second",
    "responses": {
        "200": {
            "description": "Up to 600 rows, the oldest first.",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "data": {
                                "type": "object",
                                "properties": {
                                    "step_s": {"type": "integer"},
                                    "rows": {
                                        "type": "array",
                                        "maxItems": 600,
                                        "items": {"$ref": "#/components/schemas/HistoryRow"},
                                    },
                                },
                                "required": ["step_s", "rows"],
                            }
                        },
                        "required": ["data"],
                    }
                }
            },
        }
    },
}


class History:
    """Reads ``traffic`` and ``cache`` once a second. ``take_worst_lag_s`` returns the reactor's
    worst lag since the last call; ``wall_ms`` reads the wall clock.
    """

    def __init__(
        self,
        traffic: Traffic,
        cache: Cache,
        take_worst_lag_s: Callable[[], float],
        wall_ms: Callable[[], int],
        clock: Clock,
    ) -> None:
        self._traffic = traffic
        self._cache = cache
        self._take_worst_lag_s = take_worst_lag_s
        self._wall_ms = wall_ms
        self._ring = Ring(self._totals())
        self._loop = repeating(self._look, clock, "the history")

    def start(self) -> None:
        """Begin with the first second."""
        self._loop.start(ring.STEP_S, now=False)

    def stop(self) -> None:
        """Stop looking."""
        if self._loop.running:
            self._loop.stop()

    def routes(self) -> tuple[Route, ...]:
        """What is served where."""
        return (Route("GET", "/history", self.show, OPERATION),)

    def show(self, _request: Request) -> Answer:
        """``GET /history``."""
        return answers.data({"step_s": ring.STEP_S, "rows": self._ring.rows()})

    def _look(self) -> None:
        self._ring.add(self._wall_ms() // 1000, self._totals(), self._take_worst_lag_s())

    def _totals(self) -> Totals:
        traffic, counters = self._traffic, self._cache.counters
        return Totals(
            lookups=sum(traffic.answered(outcome, LOOKUP) for outcome in OUTCOMES),
            orders=sum(traffic.answered(outcome, TRADE) for outcome in OUTCOMES) + traffic.batched,
            refused=traffic.answered(REFUSED, *_OF_THE_API),
            errors=traffic.answered(ERROR, *_OF_THE_API),
            hits=counters.hits,
            misses=counters.misses,
            latency=tuple(traffic.counts(LOOKUP, TRADE)),
        )
