"""The open orders of an order leader during one term: pure, without a clock or a network.

Orders wait, go to the catalog in batches, one batch under way at a time, and leave the desk when
they are answered. That is when they are refused, or a majority has recorded their trade, and no
front-end's cache hides the version that the answer rests on. The desk is the order leader's part of
"exactly once": an order whose key is on the desk joins the one that is there instead of being sent
again, a batch keeps its number until its outcome is known, and trades are recorded without a gap.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from twstock.errors import BrokenInvariant, CorruptStorage
from twstock.market import Batch, BatchResult, Order, Outcome, Trade

Settled = tuple[Order, Outcome]
"""An order whose outcome is final, and that outcome."""


class Admission(Enum):
    """What became of an order that was put on the desk. BEHIND: another order there has its key;
    which of them owns the key shows when that one is answered. CROWDED: so many callers have joined
    orders, or wait behind them, that this one cannot wait for the outcome.
    """

    QUEUED = auto()
    JOINED = auto()
    BEHIND = auto()
    FULL = auto()
    CROWDED = auto()


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a batch's result means: trades to record, in sequence, and the orders that need no
    record, with their outcomes.
    """

    trades: tuple[Trade, ...]
    settled: tuple[Settled, ...]


class Desk:
    """The open orders of one epoch, which is the order leader's term.

    ``known`` is the highest transaction number whose trade this leader has learnt.
    """

    def __init__(self, epoch: int, known: int, batch_max: int, waiting_max: int) -> None:
        self.epoch = epoch
        self.known = known
        self._batch_max = batch_max
        self._waiting_max = waiting_max
        self._open: dict[str, Order] = {}
        self._queue: list[Order] = []
        self._joined: dict[str, int] = {}
        self._joins = 0
        self._sent: set[str] = set()
        self._under_way: Batch | None = None
        self._batches = 0

    def __len__(self) -> int:
        """How many orders are open."""
        return len(self._open)

    def place(self, order: Order) -> Admission:
        """Put an order on the desk; if its key is there already, it joins the order that has it, or
        waits behind it. ``waiting_max`` bounds the orders, and separately those that join or wait.
        """
        known = self._open.get(order.key)
        if known is not None:
            same = known.same_body(order)
            return self._join(order.key, Admission.JOINED if same else Admission.BEHIND)
        if len(self._open) >= self._waiting_max:
            return Admission.FULL
        self._open[order.key] = order
        self._queue.append(order)
        return Admission.QUEUED

    def _join(self, key: str, admission: Admission) -> Admission:
        if self._joins >= self._waiting_max:
            return Admission.CROWDED
        self._joins += 1
        self._joined[key] = self._joined.get(key, 0) + 1
        return admission

    def leave(self, key: str) -> None:
        """Whoever came last to wait behind the order with this key does not wait after all."""
        self._joins -= 1
        self._joined[key] -= 1

    def take(self) -> tuple[Order, ...]:
        """Take up to a batch of waiting orders off the queue: look up their keys, then ``send``
        those that are new. Orders that were answered meanwhile are dropped.
        """
        taken, self._queue = self._queue[: self._batch_max], self._queue[self._batch_max :]
        return tuple(order for order in taken if self.holds(order))

    def send(self, orders: Sequence[Order], recorded: int, at_ms: int) -> Batch:
        """Make the next batch; it is under way until ``learn``."""
        if self._under_way is not None:
            raise BrokenInvariant(f"batch {self._under_way.number} is still under way")
        self._batches += 1
        self._sent.update(order.key for order in orders)
        self._under_way = Batch(
            self.epoch, self._batches, recorded, self.known, at_ms, tuple(orders)
        )
        return self._under_way

    def learn(self, result: BatchResult) -> Learnt:
        """Take the outcome of the batch under way.

        Executed trades are answered when they are recorded, everything else is settled; both
        leave the desk with their answers (``close``). Raises BrokenInvariant for an outcome that
        leaves a gap in the numbers.
        """
        batch, self._under_way = self._under_way, None
        if batch is None or len(batch.orders) != len(result.outcomes):
            raise BrokenInvariant("the catalog answered a batch that was not asked")
        trades = {trade.number: trade for trade in result.others}
        settled = []
        for order, outcome in zip(batch.orders, result.outcomes, strict=True):
            if outcome.trade is None:
                settled.append((order, outcome))
            else:
                trades[outcome.trade.number] = outcome.trade
        return Learnt(self.learn_trades(trades.values()), tuple(settled))

    def withdraw(self) -> tuple[str, ...]:
        """Take back the batch under way, of which no copy has reached or can reach the
        catalog's log: its number is free again. Returns the keys of those of its orders that have
        no answer yet, and stay on the desk until they have one (``close``).
        """
        batch, self._under_way = self._under_way, None
        if batch is None:
            raise BrokenInvariant("no batch is under way")
        self._batches -= 1
        self._sent.difference_update([order.key for order in batch.orders])
        return tuple(order.key for order in batch.orders if self.holds(order))

    def check_listed(self, trades: Sequence[Trade], last_number: int) -> None:
        """Raise CorruptStorage when the catalog's list of the trades after ``known`` leaves some
        out, as recorded: this leader's log has lost them. To the catalog the request may look like
        a late copy of an earlier one, so it may not have noticed.
        """
        first = trades[0].number if trades else last_number + 1
        if first > self.known + 1:
            lost = f"orders {self.known + 1} to {first - 1}"
            raise CorruptStorage(f"the order replicas have lost {lost}, which were recorded")

    def learn_trades(self, trades: Iterable[Trade]) -> tuple[Trade, ...]:
        """The trades that are new, in the sequence of their numbers, to be recorded."""
        news = tuple(sorted((t for t in trades if t.number > self.known), key=_number))
        for trade in news:
            if trade.number != self.known + 1:
                raise BrokenInvariant(f"trade {trade.number} cannot follow trade {self.known}")
            self.known = trade.number
        return news

    def holds(self, order: Order) -> bool:
        """Whether this very order is open, not another one under its key."""
        return self._open.get(order.key) is order

    def traded(self, trade: Trade) -> Order | None:
        """The open order that a recorded trade answers. It may still wait in the queue: an earlier
        leader's trade may be recorded while its client retries. An order with the same key but
        another body has not traded; its own lookup or batch will show that.
        """
        waiting = self._open.get(trade.order.key)
        return waiting if waiting is not None and waiting.same_body(trade.order) else None

    def outcome_of(self, trade: Trade) -> Outcome:
        """The outcome for those that wait for a recorded trade."""
        return Outcome(trade=trade, replayed=trade.order.key not in self._sent)

    def close(self, keys: Iterable[str]) -> None:
        """Take these orders off the desk: they have their answers."""
        for key in keys:
            self._open.pop(key, None)
            self._joins -= self._joined.pop(key, 0)
            self._sent.discard(key)

    def may_have_traded(self, key: str) -> bool:
        """Whether the open order with this key was ever sent to the catalog."""
        return key in self._sent

    @property
    def has_waiting(self) -> bool:
        """Whether orders wait to be taken."""
        return bool(self._queue)


def _number(trade: Trade) -> int:
    return trade.number
