"""The catalog's replicated state machine: stocks, executed trades, and which keys it has seen.

Every replica applies the same commands in the same sequence and must come to the same state, so
nothing here reads a clock, throws dice, or depends on anything but the commands. The bounds on
remembered refusals decide what executes, too, so they come with the first command, the Seed. The
age of a refusal is measured by the log's own time, the latest stamp of any command: if a leader's
clock is ahead, all replicas forget refusals early, and the log's time stands still until other
clocks reach it.

``remembered`` explains why no straggler executes twice, ``administration`` why a change of a stock
is made once.
"""

from bisect import bisect_right, insort
from hashlib import blake2b

from twstock.catalog.administration import Administration, changed
from twstock.catalog.changes import (
    AppliedBatch,
    CatalogRows,
    Change,
    Draft,
    Lost,
    RefusedOrder,
    Seeded,
    Stale,
    spelled,
)
from twstock.catalog.remembered import Remembered
from twstock.catalog.rules import check_conserved, evict, refusal_of, traded
from twstock.market import (
    Batch,
    BatchResult,
    BeginEpoch,
    ChangeOutcome,
    ChangeRefusal,
    ChangeRequest,
    ChangeStock,
    DirectTrade,
    Order,
    Outcome,
    Refusal,
    RefusalBounds,
    Seed,
    Stock,
    StockChange,
    Trade,
)
from twstock.replication.messages import Applied
from twstock.rpc.calls import ExecutedTrades
from twstock.rpc.wire.commands import decode_catalog_command

_DIGEST_BYTES = 16


class CatalogState:
    """Stocks and trades after some prefix of the catalog's log."""

    def __init__(
        self, refused_keys_max: int, refused_keys_s: float, rows: CatalogRows | None = None
    ) -> None:
        """Start from what the tables hold, or from nothing. Raises CorruptStorage if it has gaps.

        The configured bounds are for logs whose Seed has none.
        """
        start = rows or CatalogRows()
        self._configured_bounds = RefusalBounds.of(refused_keys_max, refused_keys_s)
        self._bounds = start.bounds
        self._stocks = {stock.name: stock for stock in start.stocks}
        self._names = sorted(self._stocks)
        self._remembered = Remembered(start.kept, start.refused, start.recorded, start.last_number)
        self._fence = start.fence
        self._batch = start.batch
        self._last_at_ms = start.last_at_ms
        self._digest = start.digest
        self._administration = Administration(start.changes, start.refused_changes)

    @property
    def digest(self) -> bytes:
        """A chain hash over everything decided so far: equal on all replicas."""
        return self._digest

    @property
    def fence(self) -> int:
        """The only epoch whose batches execute; 0 before the first."""
        return self._fence

    @property
    def recorded(self) -> int:
        """The highest transaction number that is known to be in the order log."""
        return self._remembered.recorded

    @property
    def last_transaction(self) -> int:
        """How many trades have executed: the number of the last one."""
        return self._remembered.last_number

    @property
    def last_change(self) -> int:
        """How many changes of stocks were made: the number of the last one."""
        return self._administration.last_number

    @property
    def is_empty(self) -> bool:
        """Whether there are no stocks yet."""
        return not self._stocks

    def stock(self, name: str) -> Stock | None:
        """A stock as the last command left it."""
        return self._stocks.get(name)

    def stocks(self) -> tuple[Stock, ...]:
        """All stocks, by name."""
        return tuple(self._stocks[name] for name in self._names)

    def snapshot(self) -> tuple[list[str], dict[str, Stock]]:
        """A copy of the sorted names, and of all stocks by name, as they are now: made in an
        instant, however many there are.
        """
        return self._names.copy(), self._stocks.copy()

    def page(self, after: str, limit: int) -> tuple[Stock, ...]:
        """Up to ``limit`` stocks whose names sort after one, by name (code points)."""
        first = bisect_right(self._names, after)
        return tuple(self._stocks[name] for name in self._names[first : first + limit])

    def stock_changes(self, after: int, limit: int) -> tuple[StockChange, ...]:
        """Up to ``limit`` changes of stocks after a number, by number."""
        return self._administration.page(after, limit)

    def known_change(self, request: ChangeRequest) -> ChangeOutcome | None:
        """The earlier outcome of the key of a change; None if the key is new."""
        return self._administration.known(request)

    def __len__(self) -> int:
        """How many stocks there are."""
        return len(self._stocks)

    def list_trades(self, after: int) -> ExecutedTrades | Lost:
        """The executed trades after a number that no order is known to record."""
        return self._remembered.listed(after)

    def apply(self, index: int, payload: bytes) -> Applied:
        """Carry out the command of one committed entry, whoever proposed it.

        The Applied holds its result, and a ``Change``, or None when nothing changed.
        """
        command = decode_catalog_command(payload)
        entry = index.to_bytes(8, "big") + payload
        match command:
            case Seed():
                return self._seed(entry, command)
            case BeginEpoch():
                return self._begin_epoch(entry, command)
            case DirectTrade(order, at_ms):
                return self._trade_directly(entry, order, at_ms)
            case ChangeStock(request, at_ms):
                return self._change(entry, request, at_ms)
            case Batch():
                return self._trade(entry, command)

    def _seed(self, entry: bytes, seed: Seed) -> Applied:
        """Fill an empty catalog. Two leaders may both have found it empty: the first one wins."""
        if self._stocks:
            return Applied(Seeded(0))
        draft = Draft(stocks={stock.name: stock for stock in seed.stocks}, bounds=seed.bounds)
        self._bounds = seed.bounds
        self._stocks = dict(draft.stocks)
        self._names = sorted(self._stocks)
        return Applied(Seeded(len(self._stocks)), self._seal(entry, draft))

    def _begin_epoch(self, entry: bytes, begin: BeginEpoch) -> Applied:
        """Raise the fence and list the unrecorded trades; the fence's own epoch only lists them."""
        if begin.epoch < self._fence:
            return Applied(Stale(f"epoch {begin.epoch} is over: the fence is {self._fence}"))
        recorded, listed = self._remembered.recorded, self._remembered.listed(begin.after)
        if begin.epoch == self._fence or isinstance(listed, Lost):
            return Applied(listed)
        if begin.after < recorded:
            # A new leader has every committed order, unless a majority of its group lost some.
            # For the fence's own epoch this cannot be checked: a late copy of its first request
            # looks the same once batches of the epoch have been recorded, and nothing is lost then.
            # If a group that lost orders elects a leader in a term that the fence has seen already,
            # that leader misses them in the answer to its own request (``Desk.check_listed``).
            return Applied(
                Lost(
                    f"the order replicas have lost orders {begin.after + 1} to {recorded}: "
                    "the catalog was told that they are recorded"
                )
            )
        self._fence = begin.epoch
        self._batch = AppliedBatch()
        return Applied(listed, self._seal(entry, Draft()))

    def _trade_directly(self, entry: bytes, order: Order, at_ms: int) -> Applied:
        """Execute a direct trade. Its refusal need not be remembered: the key was made for this
        command alone.
        """
        outcome = self._remembered.known(order)
        stock = self._stocks.get(order.name)
        refusal = refusal_of(order, stock)
        if outcome is None and stock is not None and refusal is None:
            draft = Draft()
            self._last_at_ms = max(self._last_at_ms, at_ms)
            outcome = Outcome(trade=self._execute(order, stock, draft))
            return Applied(outcome, self._seal(entry, draft))
        return Applied(outcome or Outcome(refusal=refusal))

    def _change(self, entry: bytes, request: ChangeRequest, at_ms: int) -> Applied:
        """Change a stock, or refuse to; a key that is known repeats its outcome."""
        administration, draft = self._administration, Draft()
        before = administration.known(request)
        if before is not None:
            return Applied(before)
        self._last_at_ms = max(self._last_at_ms, at_ms)
        after = changed(request, self._stocks.get(request.name))
        if isinstance(after, ChangeRefusal):
            refused = administration.refuse(request, after, self._last_at_ms)
            draft.refused_changes[request.key] = refused
            return Applied(ChangeOutcome(refusal=after), self._seal(entry, draft))
        check_conserved(after)
        made = administration.make(request, after.version, self._last_at_ms)
        draft.made.append(made)
        if after.name not in self._stocks:
            insort(self._names, after.name)
        self._stocks[after.name] = draft.stocks[after.name] = after
        return Applied(ChangeOutcome(change=made.change), self._seal(entry, draft))

    def _trade(self, entry: bytes, batch: Batch) -> Applied:
        """Execute a batch whose turn it is, or repeat the outcomes of the last one."""
        if not batch.epoch or batch.epoch != self._fence:
            return Applied(Stale(f"epoch {batch.epoch} is over: the fence is {self._fence}"))
        known = max(batch.recorded, batch.known)
        if known > self._remembered.last_number:
            return Applied(self._remembered.listed(known))
        if self._is_last(batch):
            return Applied(self._result(batch, self._batch.outcomes))
        if batch.number != self._batch.number + 1:
            return Applied(self._out_of_turn(batch))
        draft = Draft()
        self._last_at_ms = max(self._last_at_ms, batch.at_ms)
        outcomes = tuple(self._decide(order, draft) for order in batch.orders)
        result = self._result(batch, outcomes)
        self._batch = AppliedBatch(batch.number, batch.orders, outcomes)
        # Not before: one of its keys may have been recorded since the leader looked it up.
        self._remembered.forget(batch.recorded)
        return Applied(result, self._seal(entry, draft))

    def _is_last(self, batch: Batch) -> bool:
        """Whether this is another copy of the last batch (a copy has the same orders)."""
        return batch.number == self._batch.number and batch.orders == self._batch.orders

    def _out_of_turn(self, batch: Batch) -> Stale:
        """Refuse a batch that is not the next one.

        A lower number is a late copy: its leader learnt the outcome before it made the next batch,
        and waits for no other answer. A gap, or a known number with other orders, comes from a
        leader that has lost track of what it sent. Neither may execute. A leader that gets this
        answer steps down, and the list at the start of the next epoch sets things right.
        """
        return Stale(
            f"batch {batch.number} of epoch {batch.epoch} is out of turn after batch "
            f"{self._batch.number}"
        )

    def _result(self, batch: Batch, outcomes: tuple[Outcome, ...]) -> BatchResult:
        mine = {outcome.trade.number for outcome in outcomes if outcome.trade}
        kept = self._remembered.trades(batch.known)
        others = (trade for trade in kept if trade.number not in mine)
        return BatchResult(outcomes, tuple(others))

    def _decide(self, order: Order, draft: Draft) -> Outcome:
        """The outcome of one order: the earlier one of its key, else executed or refused."""
        before = self._remembered.known(order)
        if before is not None:
            return before
        stock = self._stocks.get(order.name)
        refusal = refusal_of(order, stock)
        if stock is not None and refusal is None:
            return Outcome(trade=self._execute(order, stock, draft))
        refused = RefusedOrder(order, refusal or Refusal.UNKNOWN_STOCK, self._last_at_ms)
        self._remembered.refused[order.key] = draft.refused[order.key] = refused
        return Outcome(refusal=refused.refusal)

    def _execute(self, order: Order, stock: Stock, draft: Draft) -> Trade:
        after = traded(stock, order)
        check_conserved(after)
        remembered = self._remembered
        number = remembered.last_number = remembered.last_number + 1
        trade = Trade(number, order, after.version, stock.price_cents, self._last_at_ms)
        self._stocks[stock.name] = draft.stocks[stock.name] = after
        remembered.kept[number] = remembered.executed[order.key] = trade
        draft.executed.append(trade)
        return trade

    def _evict(self, draft: Draft) -> None:
        """Drop the oldest refused keys beyond the bounds, by the log's own time. A key that is
        added and dropped by the same command leaves no trace.
        """
        keys_max, age_ms = self._bounds or self._configured_bounds
        oldest_ms = self._last_at_ms - age_ms
        for key in evict(self._remembered.refused, keys_max, oldest_ms):
            if draft.refused.pop(key, None) is None:
                draft.evicted.append(key)
        for key in evict(self._administration.refused, keys_max, oldest_ms):
            if draft.refused_changes.pop(key, None) is None:
                draft.evicted_changes.append(key)

    def _seal(self, entry: bytes, draft: Draft) -> Change:
        """The change that a command made, hashed into the digest."""
        self._evict(draft)
        change = Change(
            tuple(draft.stocks.values()),
            tuple(draft.executed),
            tuple(draft.refused.values()),
            tuple(draft.evicted),
            self._fence,
            self._batch,
            self._remembered.recorded,
            self._remembered.last_number,
            self._last_at_ms,
            draft.administered(),
            draft.bounds,
        )
        decided = spelled(change.decided())
        self._digest = blake2b(self._digest + entry + decided, digest_size=_DIGEST_BYTES).digest()
        return change
