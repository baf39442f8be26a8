"""A made-up history of orders: which orders there were, and in which batches they traded. Pure.

Everything follows from the numbers of a ``History``, so the process that writes the catalog's log
and the one that writes the order replicas' logs need not exchange anything.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from bench.systems import STOCKS
from twstock.market import Batch, BeginEpoch, Order, Seed, Side, Stock, Trade

TERM = 1
"""The term of all entries, and the epoch of all batches."""
PRICE_CENTS = 1599
QUANTITY = 1_000_000
BEGAN_MS = 1_767_225_600_000
BATCH_MS = 10
LOTS = 9


@dataclass(frozen=True, slots=True)
class History:
    """So many orders over so many stocks, ``batch`` of them in one log entry.

    The first order replica ``lacks`` that many of the last orders, as if it had been down.
    """

    orders: int
    stocks: int = len(STOCKS)
    batch: int = 20
    lacks: int = 0

    @property
    def batches(self) -> int:
        """How many batches the orders came in."""
        return -(-self.orders // self.batch)


def long(orders: int) -> History:
    """A history whose first order replica was down for the last tenth."""
    return History(orders, lacks=orders // 10)


def names(count: int) -> list[str]:
    """The names of so many stocks; the first ones are those that every cluster starts with."""
    return [
        *STOCKS[:count],
        *(f"Stock{number:06d}" for number in range(len(STOCKS) + 1, count + 1)),
    ]


def seed(history: History) -> Seed:
    """What the catalog began with: enough of every stock that no order is ever refused."""
    return Seed(
        tuple(
            Stock(name, PRICE_CENTS, QUANTITY, initial_quantity=QUANTITY)
            for name in names(history.stocks)
        )
    )


def epoch() -> BeginEpoch:
    """The command with which the only order leader began."""
    return BeginEpoch(TERM, 0)


def batches(history: History) -> Iterator[Batch]:
    """The batches that the order leader sent: each stock in turn, sold and then bought again.

    The keys are like those that a front-end makes: the time, and 80 random bits.
    """
    random, stocks = Random(1), names(history.stocks)
    for number in range(1, history.batches + 1):
        before = (number - 1) * history.batch
        count = min(history.batch, history.orders - before)
        at_ms = BEGAN_MS + number * BATCH_MS
        keys = (f"{at_ms:012x}{random.getrandbits(80):020x}" for _ in range(count))
        orders = tuple(_order(place, stocks, key) for place, key in enumerate(keys, before))
        yield Batch(TERM, number, before, before, at_ms, orders)


def _order(place: int, stocks: list[str], key: str) -> Order:
    turn, stock = divmod(place, len(stocks))
    side = Side.BUY if turn % 2 else Side.SELL
    return Order(key, stocks[stock], side, 1 + turn // 2 % LOTS)


def trades(batch: Batch, stocks: int) -> tuple[Trade, ...]:
    """What the catalog made of a batch of such a history: every order executed."""
    return tuple(
        Trade(place + 1, order, place // stocks + 1, PRICE_CENTS, batch.at_ms)
        for place, order in enumerate(batch.orders, batch.known)
    )
