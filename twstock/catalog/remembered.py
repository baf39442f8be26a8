"""What the catalog remembers of orders: the trades that no order records yet, and refusals. Pure.

A part of the catalog's state machine, as ``administration`` is for changes of stocks.
**Why no straggler executes twice**, although the key of an executed trade is forgotten once
its order is recorded: a batch executes only if it has the fence's epoch and exactly the next
number, so of all copies of a batch at most one executes, and none once its epoch has been
replaced. That leaves a key that comes again in a *new* batch of the current epoch. Keys are
forgotten only up to ``recorded``, which an order leader takes from committed orders; the leader
of the current epoch has all of these (checked when its epoch begins), and looks a key up among
them before it puts it into a batch. The catalog makes the key of a direct trade for that one
command, and it never comes again, so its refusal is not remembered either.
"""

from collections.abc import Iterable, Sequence

from twstock.catalog.changes import Lost, RefusedOrder
from twstock.catalog.rules import again
from twstock.errors import CorruptStorage
from twstock.market import Order, Outcome, Trade
from twstock.rpc.calls import ExecutedTrades


class Remembered:
    """Executed trades after ``recorded`` up to ``last_number``, and refused orders from the oldest
    to the newest.

    ``CatalogState`` itself adds to ``kept`` (by number), ``executed`` and ``refused`` (by key): a
    method call for each order would cost more than what it does.
    """

    def __init__(
        self,
        kept: Sequence[Trade],
        refused: Iterable[RefusedOrder],
        recorded: int,
        last_number: int,
    ) -> None:
        """Raises CorruptStorage when a trade is missing."""
        self.kept = {trade.number: trade for trade in kept}
        self.executed = {trade.order.key: trade for trade in kept}
        self.refused = {refused.order.key: refused for refused in refused}
        self.recorded = recorded
        self.last_number = last_number
        if list(self.kept) != list(range(recorded + 1, last_number + 1)):
            raise CorruptStorage(f"trades {recorded + 1} to {last_number} have gaps")

    def known(self, order: Order) -> Outcome | None:
        """The earlier outcome of the order's key; None if the key is new."""
        trade = self.executed.get(order.key)
        if trade is not None:
            return again(order, trade.order, Outcome(trade=trade, replayed=True))
        known = self.refused.get(order.key)
        if known is not None:
            return again(order, known.order, Outcome(refusal=known.refusal, replayed=True))
        return None

    def trades(self, after: int) -> tuple[Trade, ...]:
        """The executed trades after a number that no order is known to record, by number."""
        first = max(after, self.recorded) + 1
        return tuple(self.kept[number] for number in range(first, self.last_number + 1))

    def listed(self, after: int) -> ExecutedTrades | Lost:
        """These trades, for an order leader; Lost if it knows of more trades than there are, which
        shows that the catalog has lost some.
        """
        if after > self.last_number:
            return Lost(
                f"the catalog has lost trades {self.last_number + 1} to {after}: "
                "the order replicas know them",
                of_catalog=True,
            )
        return ExecutedTrades(self.trades(after), self.last_number)

    def forget(self, recorded: int) -> None:
        """Drop trades that the order log has; their keys are known there from now on."""
        for number in range(self.recorded + 1, recorded + 1):
            del self.executed[self.kept.pop(number).order.key]
        self.recorded = max(self.recorded, recorded)
