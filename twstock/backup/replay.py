"""The commands that carry out the orders and changes of a backup again. Pure.

A batch holds orders of one time only, because all trades of a batch get its time.
"""

from collections.abc import Iterable, Iterator

from twstock.backup.journal import Event
from twstock.market import Batch, StockChange, Trade

EPOCH = 1
"""The epoch of all batches: the term of an order leader that never existed."""


def steps(
    events: Iterable[Event], batch_orders_max: int
) -> Iterator[StockChange | tuple[Trade, ...]]:
    """The events in sequence; consecutive orders of the same time are put together."""
    waiting: list[Trade] = []
    for event in events:
        same = isinstance(event, Trade) and waiting and waiting[0].at_ms == event.at_ms
        if waiting and (not same or len(waiting) >= batch_orders_max):
            yield tuple(waiting)
            waiting = []
        if isinstance(event, Trade):
            waiting.append(event)
        else:
            yield event
    if waiting:
        yield tuple(waiting)


def batch_of(number: int, trades: tuple[Trade, ...]) -> Batch:
    """The ``number``-th batch of the epoch, which executes these trades. Those before it are
    recorded in the order log.
    """
    before = trades[0].number - 1
    orders = tuple(trade.order for trade in trades)
    return Batch(EPOCH, number, before, before, trades[0].at_ms, orders)
