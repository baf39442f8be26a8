"""What an order replica counts while it leads, over all terms."""

from collections import Counter
from collections.abc import Iterator

from twstock.errors import DiskFull, InvalidRequest, KeyReused, Overloaded, TwstockError
from twstock.tally import SIZES, Family, Histogram, counter, gauge, histogram

REFUSED = "refused"
_REASONS: dict[type[TwstockError], str] = {
    KeyReused: "key_reused",
    InvalidRequest: "invalid",
    Overloaded: "overloaded",
    DiskFull: "disk_full",
}
_OTHER = "unavailable"
REASONS = (REFUSED, *_REASONS.values(), _OTHER)


class OrderCounts:
    """``batch_orders``: how many orders a batch had; ``batch_s``: how long it took, in seconds,
    until its outcome was known; and how many orders were not executed, by reason.
    """

    def __init__(self) -> None:
        self.batch_orders, self.batch_s = Histogram(SIZES), Histogram()
        self._refused: Counter[str] = Counter()

    def refused(self, why: TwstockError | None = None) -> None:
        """An order was refused: by the rules of the market (an invalid type, too few shares left),
        or with the error ``why``.
        """
        self._refused[REFUSED if why is None else _REASONS.get(type(why), _OTHER)] += 1

    def families(self, orders_open: int) -> Iterator[Family]:
        """All counts, and ``orders_open``: how many orders are on the leader's desk now."""
        yield histogram("twstock_batch_orders", "Orders of one batch.", [({}, self.batch_orders)])
        yield histogram(
            "twstock_batch_seconds",
            "Time from a batch sent to the catalog to its outcome known.",
            [({}, self.batch_s)],
        )
        yield counter(
            "twstock_order_refusals_total",
            "Orders that the leader did not execute.",
            (({"reason": reason}, self._refused[reason]) for reason in REASONS),
        )
        yield gauge("twstock_orders_open", "Orders on the leader's desk.", [({}, orders_open)])
