"""How many requests a front-end answered, by route and outcome, and how long each took."""

from collections.abc import Iterator, Sequence

from twstock.tally import Family, Histogram, histogram

LOOKUP, TRADE, BATCH, ORDER, PAGE, OTHER = ROUTES = (
    "lookup", "trade", "batch", "order", "page", "other",
)  # fmt: skip
"""In this sequence: a lookup of a stock, an order that is placed, a batch of them, a query for an
order, a page of stocks or orders, all else."""
STREAM = ""
"""Not counted here: a stream has no latency, it lasts as long as the client reads."""
_ROUTE_OF = {
    ("GET", "/stocks/<rest:name>"): LOOKUP,
    ("POST", "/orders"): TRADE,
    ("POST", "/orders/"): TRADE,
    ("POST", "/orders/batch"): BATCH,
    ("GET", '/orders/<rest("batch"):number>'): ORDER,
    ("GET", "/stocks"): PAGE,
    ("GET", "/orders"): PAGE,
    ("GET", "/orders/"): PAGE,
    ("GET", "/events"): STREAM,
}
OK, REFUSED, ERROR = OUTCOMES = ("ok", "refused", "error")
"""A status below 400; below 500 (the request, or what it asked for, is at fault); any other."""
_OUTCOME_OF = (OK, OK, OK, OK, REFUSED, ERROR)


def route_of(method: str, path: str) -> str:
    """Which of ``ROUTES`` a request counts as; ``path`` is in Klein's form. Empty: not counted."""
    return _ROUTE_OF.get((method, path), OTHER)


class Traffic:
    """Counts answers that were written. A latency is the time in seconds from when the front-end
    had read the request until it wrote the answer. ``batched`` counts the orders in batches; a
    batch is one request.
    """

    def __init__(self) -> None:
        self.batched = 0
        self._latency = {(route, what): Histogram() for route in ROUTES for what in OUTCOMES}

    def of(self, route: str, status: int) -> Histogram:
        """The histogram of answers of a route with such a status."""
        return self._latency[route, _OUTCOME_OF[status // 100]]

    def answered(self, outcome: str, *routes: str) -> int:
        """How many requests to these routes had this outcome."""
        return sum(self._latency[route, outcome].count for route in routes)

    def counts(self, *routes: str) -> Sequence[int]:
        """How many answers of these routes fell into each bucket of ``LATENCY_S``."""
        chosen = [self._latency[route, what].counts for route in routes for what in OUTCOMES]
        return tuple(map(sum, zip(*chosen, strict=True)))

    def families(self) -> Iterator[Family]:
        """The counts as metrics."""
        yield histogram(
            "twstock_request_seconds",
            "Time from a request read to its answer written.",
            (
                ({"route": route, "outcome": outcome}, latency)
                for (route, outcome), latency in self._latency.items()
            ),
        )
