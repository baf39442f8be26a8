"""How many requests a front-end answered, by route and outcome, and how long each took."""

from collections.abc import Iterator, Sequence

from twstock.tally import Family, Histogram, histogram

LOOKUP, TRADE, BATCH, ORDER, PAGE, OTHER = ROUTES = (
    "lookup", "trade", "batch", "order", "page", "other",
)  # fmt: skip
"""A stock; an order that is placed, and many of them; one that is asked for; a page of stocks or
orders; all else."""
STREAM = ""
"""A stream has no latency: it is answered as long as the client listens. Not counted here."""
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
"""A status below 400, one below 500 (the request, or what it asked for, is at fault), any other."""
_OUTCOME_OF = (OK, OK, OK, OK, REFUSED, ERROR)


def route_of(method: str, path: str) -> str:
    """What the requests of a route (its path in Klein's form) count as."""
    return _ROUTE_OF.get((method, path), OTHER)


class Traffic:
    """Counts answers that were written. A latency is the time from the moment at which the
    front-end had read the request to that at which it wrote the answer, in seconds. ``batched``
    counts the orders of batches, each of which is one request.
    """

    def __init__(self) -> None:
        self.batched = 0
        self._latency = {(route, what): Histogram() for route in ROUTES for what in OUTCOMES}

    def of(self, route: str, status: int) -> Histogram:
        """What an answer with this status counts in."""
        return self._latency[route, _OUTCOME_OF[status // 100]]

    def answered(self, outcome: str, *routes: str) -> int:
        """How many requests to these routes ended so."""
        return sum(self._latency[route, outcome].count for route in routes)

    def counts(self, *routes: str) -> Sequence[int]:
        """How many answers of these routes took how long, by the bounds of ``LATENCY_S``."""
        chosen = [self._latency[route, what].counts for route in routes for what in OUTCOMES]
        return tuple(map(sum, zip(*chosen, strict=True)))

    def families(self) -> Iterator[Family]:
        """All of it."""
        yield histogram(
            "twstock_request_seconds",
            "Time from a request read to its answer written.",
            (
                ({"route": route, "outcome": outcome}, latency)
                for (route, outcome), latency in self._latency.items()
            ),
        )
