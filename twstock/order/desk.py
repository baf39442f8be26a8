"""What an order leader has on its desk during one term: pure, without a clock or a network.

Orders wait, go to the catalog in batches, one batch under way at a time, and leave the desk when
they are answered: when they are refused, or a majority has recorded their trade, and no front-end's
cache hides what that rests on. The desk is what makes "exactly once" hold on this side: a key that
is on the desk joins instead of going out again, a batch keeps its number until its outcome is
known, and trades are recorded without a gap.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from twstock.errors import BrokenInvariant, CorruptStorage
from twstock.market import Batch, BatchResult, Order, Outcome, Trade

Settled = tuple[Order, Outcome]
"""An order about which all is decided, and what was."""


class Admission(Enum):
    """What became of an order that was put on the desk. BEHIND: another order there has its key,
    and whose key it is will show when that one is answered. CROWDED: so many have joined orders, or
    wait behind them, that those who ask now are not told what becomes of it.
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
        waits behind it. The bound on orders is also one on how many do.
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

    def take(self) -> tuple[Order, ...]:
        """Up to a batch of waiting orders, off the queue; look their keys up, then ``send``
        those that are new. Those that were answered meanwhile are dropped.
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
        catalog's log: its number is free again. Returns the keys, which leave the desk.
        """
        batch, self._under_way = self._under_way, None
        if batch is None:
            raise BrokenInvariant("no batch is under way")
        self._batches -= 1
        keys = tuple(order.key for order in batch.orders)
        self.close(keys)
        return keys

    def check_listed(self, trades: Sequence[Trade], last_number: int) -> None:
        """Raise CorruptStorage when the catalog, asked for the trades after the last one known,
        leaves some out because they are recorded: this leader's log is older than that. The catalog
        cannot tell such a question from a late copy of one, so it may not have noticed.
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
        """The open order that a recorded trade answers. It may still wait in the queue: an older
        leader's trade may be recorded while somebody asks for it again. An order with another body
        has not traded; that shows in its own lookup or batch.
        """
        waiting = self._open.get(trade.order.key)
        return waiting if waiting is not None and waiting.same_body(trade.order) else None

    def outcome_of(self, trade: Trade) -> Outcome:
        """What a recorded trade means to whoever waits for it."""
        return Outcome(trade=trade, replayed=trade.order.key not in self._sent)

    def close(self, keys: Iterable[str]) -> None:
        """Take these orders off the desk: they have their answers."""
        for key in keys:
            self._open.pop(key, None)
            self._joins -= self._joined.pop(key, 0)
            self._sent.discard(key)

    def may_have_traded(self, key: str) -> bool:
        """Whether an open order was ever sent to the catalog."""
        return key in self._sent

    @property
    def has_waiting(self) -> bool:
        """Whether orders wait to be taken."""
        return bool(self._queue)


def _number(trade: Trade) -> int:
    return trade.number
