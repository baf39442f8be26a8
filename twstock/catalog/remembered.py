"""What the catalog remembers of orders: the trades that no order records yet, and refusals. Pure.

A part of the catalog's state machine, as ``administration`` is for changes of stocks.
**Why no straggler executes twice**, although the key of an executed trade is forgotten once
its order is recorded: a batch executes only with the fence's epoch and the very next number,
so each copy of a batch executes at most once, and none of an epoch that has been replaced.
That leaves a key that comes again in a *new* batch of the present epoch. Keys are forgotten
only up to ``recorded``, which an order leader takes from committed orders; the leader of the
present epoch has them all (checked when its epoch begins), and looks for a key among its
orders before it puts it into a batch. A direct trade's key is made by the catalog for that
one command and never comes again, so its refusal is not remembered either.
"""

from collections.abc import Iterable, Sequence

from twstock.catalog.changes import Lost, RefusedOrder
from twstock.catalog.rules import again
from twstock.errors import CorruptStorage
from twstock.market import Order, Outcome, Trade
from twstock.rpc.calls import ExecutedTrades


class Remembered:
    """Executed trades from ``recorded`` to ``last_number``, and refused orders from the oldest to
    the newest.

    The state machine itself adds to ``kept`` (by number), ``executed`` and ``refused`` (by key):
    a call for each order would cost more than what it does.
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
        """What became of the order's key before; None if it is new."""
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
        """These trades for an order leader. One that knows more trades than there are has seen
        this catalog lose some.
        """
        if after > self.last_number:
            return Lost(
                f"the catalog has lost trades {self.last_number + 1} to {after}: "
                "the order replicas know them"
            )
        return ExecutedTrades(self.trades(after), self.last_number)

    def forget(self, recorded: int) -> None:
        """Drop trades that the order log has; their keys are known there from now on."""
        for number in range(self.recorded + 1, recorded + 1):
            del self.executed[self.kept.pop(number).order.key]
        self.recorded = max(self.recorded, recorded)
