"""A running cluster as a backup reads it: what it began with, and what happened, up to an order.

Everything is read from running members, with blocking calls, while trades go on. It still shows one
moment, because of the sequence of the calls: first the number of the last order, then the stocks,
then the changes. So all changes are there that came before an order up to that number, or made a
stock what it was; what came later is left out.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from twstock.backup.ledger import beginnings, traded_before_price
from twstock.market import Stock, StockChange, Trade
from twstock.rest import Unreachable
from twstock.verify import PATIENCE_S, PAUSE_S, Remote, leader_stocks, of_leader

Sleep = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Picture:
    """A cluster at the moment of its order ``last``; ``trades`` reads the orders up to it."""

    cluster_id: str
    last: int
    began: Sequence[Stock]
    changes: Sequence[StockChange]
    orders: "OrderLog"

    def trades(self) -> Iterator[Trade]:
        """Every order up to the last one, by number. Raises Unreachable."""
        return islice(self.orders.read(), self.last)


class OrderLog:
    """The committed orders, from whichever replica answers.

    ``replicas`` are asked in this order. Their logs are the same as far as they go, so another
    replica can go on where one has failed.
    """

    def __init__(self, replicas: Sequence[Remote], sleep: Sleep = time.sleep) -> None:
        self._replicas = replicas
        self._sleep = sleep

    def read(self) -> Iterator[Trade]:
        """The orders by number; at the end of the log it waits for more.

        Raises Unreachable when none came for a while.
        """
        after, deadline = 0, time.monotonic() + PATIENCE_S
        for replica in cycle(self._replicas):
            problem = f"{replica.name} has no order after {after}"
            try:
                for trade in replica.trades(after):
                    yield trade
                    after, deadline = trade.number, time.monotonic() + PATIENCE_S
            except Unreachable as error:
                problem = str(error)
            if time.monotonic() > deadline:
                raise Unreachable(problem)
            self._sleep(PAUSE_S)


def look(
    replicas: Mapping[int, Remote], catalogs: Sequence[Remote], sleep: Sleep = time.sleep
) -> Picture:
    """The cluster as it is now. Raises Unreachable when no order replica, or no catalog, leads."""
    leader, last, cluster_id = _leader(replicas, sleep)
    followers = [replica for replica in replicas.values() if replica is not leader]
    log = OrderLog([*followers, leader], sleep)
    stocks = leader_stocks(catalogs)
    changes = list_changes(catalogs, sleep)
    prices = _first_prices(traded_before_price(stocks, changes), log)
    return Picture(cluster_id, last, beginnings(stocks, changes, prices), changes, log)


def list_changes(catalogs: Sequence[Remote], sleep: Sleep = time.sleep) -> list[StockChange]:
    """Every change of a stock that is no trade, by number, from the catalog's leader.

    A stock may be shown as a change made it before that change is listed, because an earlier change
    of another stock is not published yet. So this waits until all changes made are listed. Raises
    Unreachable.
    """
    deadline, made = time.monotonic() + PATIENCE_S, of_leader(catalogs, lambda c: c.changes_made())
    while len(changes := of_leader(catalogs, lambda c: list(c.changes()))) < made:
        if time.monotonic() > deadline:
            raise Unreachable(f"the catalog shows {len(changes)} of {made} changes")
        sleep(PAUSE_S)
    return changes


def _leader(replicas: Mapping[int, Remote], sleep: Sleep) -> tuple[Remote, int, str]:
    """The order replica that leads, its last transaction, and the cluster's id.

    That includes all orders answered before: a leader that is ready has all of them.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        problems, leaders = [], {}
        for replica in replicas.values():
            try:
                status = replica.status()
            except Unreachable as error:
                problems.append(str(error))
                continue
            if status.role == "leader" and status.ready:
                leaders[status.term] = replica, status.last_transaction, status.cluster_id
        if leaders:
            return leaders[max(leaders)]
        if time.monotonic() > deadline:
            raise Unreachable("; ".join(["no order replica leads", *problems]))
        sleep(PAUSE_S)


def _first_prices(names: set[str], log: OrderLog) -> dict[str, int]:
    """The price of each of these stocks in its first order. There are such orders; any that is not
    recorded yet will be in a moment.
    """
    found: dict[str, int] = {}
    if names:
        for trade in log.read():
            if trade.order.name in names:
                found.setdefault(trade.order.name, trade.price_cents)
            if len(found) == len(names):
                break
    return found
