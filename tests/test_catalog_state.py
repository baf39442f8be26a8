"""The catalog's state machine: each command decides the same everywhere, once, and for good."""

import sqlite3
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from tests.states import rows_of
from twstock.catalog.changes import CatalogRows, Change, Lost, Seeded, Stale, spelled
from twstock.catalog.rules import check_conserved
from twstock.catalog.state import CatalogState
from twstock.catalog.tables import CatalogTables
from twstock.errors import BrokenInvariant, CorruptStorage
from twstock.market import (
    QUANTITY_MAX,
    Batch,
    BatchResult,
    BeginEpoch,
    CatalogCommand,
    ChangeKind,
    ChangeOutcome,
    ChangeRequest,
    ChangeStock,
    DirectTrade,
    Order,
    Outcome,
    Refusal,
    RefusalBounds,
    Seed,
    Side,
    Stock,
    StockChange,
)
from twstock.replication.messages import Applied
from twstock.rpc.calls import ExecutedTrades
from twstock.rpc.wire.commands import encode_catalog_command

SEED = Seed(
    (
        Stock("FishCo", 2550, 100, initial_quantity=100),
        Stock("GameStart", 1599, 100, initial_quantity=100),
    )
)


class Log:
    """A state machine and the entries that it was given, so that they can be replayed."""

    def __init__(self, refused_keys_max: int = 1000, refused_keys_s: float = 1e9) -> None:
        self.bounds = (refused_keys_max, refused_keys_s)
        self.state = CatalogState(*self.bounds)
        self.payloads: list[bytes] = []
        self.changes: list[object] = []

    def apply(self, command: CatalogCommand) -> object:
        """Apply a command and remember it; returns its result."""
        payload = encode_catalog_command(command)
        self.payloads.append(payload)
        applied: Applied = self.state.apply(len(self.payloads), payload)
        if applied.change is not None:
            self.changes.append(applied.change)
        return applied.result

    def replayed(self) -> CatalogState:
        """Another state machine that was given the same entries."""
        state = CatalogState(*self.bounds)
        for index, payload in enumerate(self.payloads, 1):
            state.apply(index, payload)
        return state


def open_tables(bounds: tuple[int, float]) -> tuple[sqlite3.Connection, CatalogTables]:
    """A fresh database in memory."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    tables = CatalogTables(*bounds)
    connection.executescript(tables.schema)
    return connection, tables


def started(**bounds: float) -> Log:
    """A catalog of two stocks whose first epoch has begun."""
    log = Log(**bounds)  # type: ignore[arg-type]
    assert log.apply(SEED) == Seeded(2)
    assert log.apply(BeginEpoch(1, 0)) == ExecutedTrades((), 0)
    return log


def buy(key: str, quantity: int, name: str = "GameStart") -> Order:
    """An order to buy."""
    return Order(key, name, Side.BUY, quantity)


def sell(key: str, quantity: int, name: str = "GameStart") -> Order:
    """An order to sell."""
    return Order(key, name, Side.SELL, quantity)


def batch(number: int, *orders: Order, **fields: int) -> Batch:
    """A batch of the first epoch, if ``fields`` do not say otherwise."""
    defaults = {"epoch": 1, "recorded": 0, "known": 0, "at_ms": 1000}
    return Batch(number=number, orders=orders, **{**defaults, **fields})


def outcomes(result: object) -> tuple[Outcome, ...]:
    """The outcomes of a batch that was accepted."""
    assert isinstance(result, BatchResult)
    return result.outcomes


def numbers(result: object) -> list[int | None]:
    """The transaction numbers of a batch's orders, None for those that did not execute."""
    return [o.trade.number if o.trade else None for o in outcomes(result)]


def test_a_batch_executes_in_order_with_numbers_from_one() -> None:
    """Quantity, volume and version change with each trade, and the numbers have no gap."""
    log = started()
    result = log.apply(batch(1, buy("a", 10), sell("b", 5), buy("c", 1, "FishCo")))
    assert numbers(result) == [1, 2, 3]
    assert log.state.stock("GameStart") == Stock("GameStart", 1599, 95, 15, 2, 100)
    assert log.state.stock("FishCo") == Stock("FishCo", 2550, 99, 1, 1, 100)
    assert [o.trade.version for o in outcomes(result) if o.trade] == [1, 2, 1]


@pytest.mark.parametrize(
    ("order", "refusal"),
    [
        (buy("k", 1, "Nothing"), Refusal.UNKNOWN_STOCK),
        (buy("k", 101), Refusal.NOT_ENOUGH),
        (sell("k", QUANTITY_MAX), Refusal.TOO_MANY),
        (buy("k", 0), Refusal.NOT_POSITIVE),
        (sell("k", -5), Refusal.NOT_POSITIVE),
    ],
)
def test_a_refusal_changes_no_stock_and_takes_no_number(order: Order, refusal: Refusal) -> None:
    """Whatever is wrong with an order, the next one gets the next number."""
    log = started()
    result = log.apply(batch(1, order, buy("next", 1)))
    assert outcomes(result)[0] == Outcome(refusal=refusal)
    assert numbers(result) == [None, 1]


def test_all_that_is_left_can_be_bought() -> None:
    """The bounds are inclusive: a quantity may become 0, and the largest there is."""
    log = started()
    top = QUANTITY_MAX - 100
    result = log.apply(batch(1, buy("a", 100), buy("b", 1), sell("c", top), sell("d", 1)))
    assert numbers(result) == [1, None, 2, None]
    assert [o.refusal for o in outcomes(result)][1::2] == [Refusal.NOT_ENOUGH, Refusal.TOO_MANY]
    assert log.state.stock("GameStart") == Stock("GameStart", 1599, top, QUANTITY_MAX, 2, 100)


def test_a_refused_order_never_takes_effect_later() -> None:
    """A late copy of an order that was refused stays refused when it could execute."""
    log = started()
    log.apply(batch(1, buy("late", 150)))
    log.apply(batch(2, sell("more", 100)))
    result = log.apply(batch(3, buy("late", 150)))
    assert outcomes(result) == (Outcome(refusal=Refusal.NOT_ENOUGH, replayed=True),)


def test_a_known_key_repeats_its_outcome_and_another_body_is_refused() -> None:
    """The same key trades once, also within one batch; with another body it does nothing."""
    log = started()
    result = log.apply(batch(1, buy("k", 1), buy("k", 1), buy("k", 2), sell("k", 1)))
    first, second, *reused = outcomes(result)
    assert first.trade is not None
    assert second == first._replace(replayed=True)
    assert reused == [Outcome(key_reused=True)] * 2
    assert numbers(log.apply(batch(2, buy("k", 1)))) == [1]
    assert log.state.last_transaction == 1


def test_the_last_batch_repeats_its_outcomes_and_changes_nothing() -> None:
    """A batch that is sent again has the outcome that it had, whatever happened since."""
    log = started()
    sent = batch(1, buy("a", 1), buy("b", 1000))
    first = log.apply(sent)
    log.apply(DirectTrade(buy("direct", 1), 2000))
    before = rows_of(log.state)
    again = log.apply(sent)
    assert outcomes(again) == outcomes(first)
    assert isinstance(again, BatchResult)
    assert [t.number for t in again.others] == [2]
    assert rows_of(log.state) == before


@pytest.mark.parametrize(
    "wrong",
    [
        batch(1, buy("x", 1)),  # a lower number: a late copy
        batch(2, buy("y", 1)),  # the last number with another order
        batch(2),
        batch(4, buy("x", 1)),  # a gap
        batch(3, buy("x", 1), epoch=0),
        batch(3, buy("x", 1), epoch=2),
    ],
)
def test_a_batch_out_of_turn_does_not_execute(wrong: Batch) -> None:
    """Only the next batch of the fence's epoch executes; all others change nothing."""
    log = started()
    log.apply(batch(1, buy("a", 1)))
    log.apply(batch(2, buy("b", 1)))
    before = rows_of(log.state)
    assert isinstance(log.apply(wrong), Stale)
    assert rows_of(log.state) == before


def test_no_batch_executes_before_an_epoch_begins() -> None:
    """Epochs count from 1: an epoch of 0 is nobody's."""
    log = Log()
    log.apply(SEED)
    assert isinstance(log.apply(batch(1, buy("a", 1), epoch=0)), Stale)


def test_a_new_epoch_fences_off_the_old_one_and_lists_what_it_left() -> None:
    """After the fence is raised no batch of an older epoch executes; the list is complete."""
    log = started()
    log.apply(batch(1, buy("a", 1), buy("b", 1)))
    listed = log.apply(BeginEpoch(2, 1))
    assert isinstance(listed, ExecutedTrades)
    assert [t.order.key for t in listed.trades] == ["b"]
    assert listed.last_number == 2
    assert isinstance(log.apply(batch(2, buy("c", 1))), Stale)
    assert isinstance(log.apply(BeginEpoch(1, 0)), Stale)
    assert numbers(log.apply(batch(1, buy("c", 1), epoch=2))) == [3]


def test_the_fence_s_own_epoch_only_lists() -> None:
    """A repeated BeginEpoch does not reset the batch number: the last batch stays the last."""
    log = started()
    log.apply(batch(1, buy("a", 1)))
    before = rows_of(log.state)
    listed = log.apply(BeginEpoch(1, 0))
    assert isinstance(listed, ExecutedTrades)
    assert [t.number for t in listed.trades] == [1]
    assert rows_of(log.state) == before


def test_losses_are_noticed() -> None:
    """Whoever knows more trades than there are, or fewer than were recorded, is told so."""
    log = started()
    log.apply(batch(1, buy("a", 1)))
    log.apply(batch(2, recorded=1, known=1))
    before = rows_of(log.state)
    for command in (
        BeginEpoch(2, 2),
        BeginEpoch(2, 0),
        batch(3, recorded=2, known=2),
        batch(3, recorded=1, known=2),
    ):
        assert isinstance(log.apply(command), Lost), command
    assert rows_of(log.state) == before


def test_recorded_trades_are_forgotten_and_the_others_kept() -> None:
    """What the order log has is dropped with the batch that says so, and nothing else."""
    log = started()
    log.apply(batch(1, buy("a", 1), buy("b", 1)))
    log.apply(batch(2, buy("c", 1), recorded=1, known=2))
    assert [t.order.key for t in rows_of(log.state).kept] == ["b", "c"]
    assert log.state.recorded == 1


def test_others_lists_the_trades_that_the_leader_has_not_learnt() -> None:
    """Direct trades after ``known`` come with the next batch, in the sequence of numbers."""
    log = started()
    log.apply(batch(1, buy("a", 1)))
    log.apply(DirectTrade(sell("direct", 3), 1))
    result = log.apply(batch(2, buy("b", 1), known=1))
    assert isinstance(result, BatchResult)
    assert numbers(result) == [3]
    assert [(t.number, t.order.key) for t in result.others] == [(2, "direct")]


def test_a_refused_direct_trade_leaves_no_trace() -> None:
    """Its key was made for it alone, so nobody can fill the table of refused keys with it."""
    log = started()
    before = rows_of(log.state)
    assert log.apply(DirectTrade(buy("d", 500), 1)) == Outcome(refusal=Refusal.NOT_ENOUGH)
    assert log.apply(DirectTrade(buy("e", 1, "X"), 1)) == Outcome(refusal=Refusal.UNKNOWN_STOCK)
    assert rows_of(log.state) == before


def test_time_never_goes_back() -> None:
    """Trades are stamped with the log's time, which does not follow a clock that is set back."""
    log = started()
    log.apply(batch(1, buy("a", 1), at_ms=5000))
    (outcome,) = outcomes(log.apply(batch(2, buy("b", 1), at_ms=10)))
    assert outcome.trade is not None
    assert outcome.trade.at_ms == 5000


def test_refused_keys_are_bounded_by_number() -> None:
    """The newest are remembered, also when one batch brings more than fit."""
    log = started(refused_keys_max=2)
    log.apply(batch(1, *(buy(f"k{n}", 1000) for n in range(3))))
    log.apply(batch(2, buy("k3", 1000)))
    assert [r.order.key for r in rows_of(log.state).refused] == ["k2", "k3"]


def test_refused_keys_are_bounded_by_age() -> None:
    """By the log's own time: those that are older than the bound go."""
    log = started(refused_keys_s=10.0)
    log.apply(batch(1, buy("old", 1000), at_ms=0))
    log.apply(batch(2, buy("new", 1000), at_ms=10_000))
    assert [r.order.key for r in rows_of(log.state).refused] == ["old", "new"]
    log.apply(batch(3, at_ms=10_001))
    assert [r.order.key for r in rows_of(log.state).refused] == ["new"]


def test_the_time_of_a_clock_that_jumped_ahead_is_kept() -> None:
    """The log's time does not go back: it dates later orders, and decides which refused keys are
    forgotten. Keys of executed orders are remembered all the same.
    """
    log = started(refused_keys_s=10.0)
    log.apply(batch(1, buy("refused", 1000), buy("made", 1), at_ms=0))
    log.apply(batch(2, at_ms=10_001))
    again = outcomes(log.apply(batch(3, buy("refused", 2), buy("made", 1), at_ms=1)))
    assert again[0].trade is not None
    assert (again[0].trade.at_ms, again[0].replayed) == (10_001, False)
    assert again[1].replayed
    assert rows_of(log.replayed()) == rows_of(log.state)


BOUNDED = Seed(SEED.stocks, RefusalBounds(2, 10_000))


def bounded(log: Log) -> Log:
    """A log that begins with bounds of its own, and has forgotten keys by both of them."""
    log.apply(BOUNDED)
    log.apply(BeginEpoch(1, 0))
    log.apply(batch(1, *(buy(f"k{n}", 1000) for n in range(4)), at_ms=0))
    log.apply(batch(2, buy("k0", 1), buy("new", 1000), at_ms=10_001))
    return log


@pytest.mark.parametrize("other", [(0, 1.0), (1, 1e9), (1000, 0.0), (1000, 1e9)])
def test_the_bounds_of_refused_keys_are_the_logs(other: tuple[int, float]) -> None:
    """Whatever is configured where a log is replayed, the same keys are forgotten, so the same
    orders execute, in memory and from the tables.
    """
    log = bounded(Log())
    assert log.state.last_transaction == 1  # k0 had been forgotten
    assert [r.order.key for r in rows_of(log.state).refused] == ["new"]
    again = bounded(Log(*other))
    assert (rows_of(again.state), again.state.digest) == (rows_of(log.state), log.state.digest)
    connection, tables = open_tables(other)
    tables.save(connection, log.changes)
    loaded = tables.load(connection, log.state.digest)
    assert rows_of(loaded) == rows_of(log.state)
    payload = encode_catalog_command(batch(3, *(buy(f"l{n}", 1000) for n in range(5))))
    for state in (loaded, log.state):
        state.apply(len(log.payloads) + 1, payload)
    assert rows_of(loaded) == rows_of(log.state)
    connection.close()


def test_a_configuration_that_the_log_does_not_follow_is_warned_of() -> None:
    """One warning for each start with other bounds than those of the log, none for the same
    bounds.
    """
    log = bounded(Log())
    warnings: list[str] = []

    def observe(event: Any) -> None:
        if event["log_level"] is LogLevel.warn:
            warnings.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        for bounds in ((2, 10.0), (2, 11.0)):
            connection, tables = open_tables(bounds)
            tables.save(connection, log.changes)
            tables.load(connection, b"")
            connection.close()
    finally:
        globalLogPublisher.removeObserver(observe)
    (warning,) = warnings
    assert "refused_keys_s have no effect: the catalog began with 2 and 10.0" in warning


def test_a_log_without_bounds_follows_the_configuration() -> None:
    """Such a log, and tables without a place for bounds, were written before the bounds belonged to
    the log.
    """
    log = started(refused_keys_max=2)
    log.apply(batch(1, *(buy(f"k{n}", 1000) for n in range(4))))
    connection, tables = open_tables((1, 1e9))
    connection.execute("DROP TABLE refusal_bounds")
    connection.executescript(tables.schema)
    tables.save(connection, log.changes)
    loaded = tables.load(connection, log.state.digest)
    assert [r.order.key for r in rows_of(loaded).refused] == ["k2", "k3"]
    loaded.apply(9, encode_catalog_command(batch(2, buy("k4", 1000))))
    assert [r.order.key for r in rows_of(loaded).refused] == ["k4"]
    connection.close()


def test_only_an_empty_catalog_is_seeded() -> None:
    """A second Seed changes nothing: two leaders in turn may have found the catalog empty."""
    log = started()
    assert log.apply(Seed((Stock("Other", 1, 1, initial_quantity=1),))) == Seeded(0)
    assert log.state.stock("Other") is None


def test_pages_go_by_name() -> None:
    """A page starts after a name that need not exist."""
    log = started()
    assert [s.name for s in log.state.page("", 1)] == ["FishCo"]
    assert [s.name for s in log.state.page("FishCo", 5)] == ["GameStart"]
    assert [s.name for s in log.state.page("A", 5)] == ["FishCo", "GameStart"]


@pytest.mark.parametrize(
    "stock",
    [
        Stock("S", 1, -1, 101, 1, 100),
        Stock("S", 1, 99, 0, 1, 100),
        Stock("S", 1, 99, 2, 1, 100),
    ],
)
def test_a_stock_that_lost_or_won_shares_stops_the_process(stock: Stock) -> None:
    """That shares are conserved is checked in production, too."""
    with pytest.raises(BrokenInvariant):
        check_conserved(stock)


def test_a_snapshot_with_a_gap_is_refused() -> None:
    """Every executed trade that is not recorded has to be among the rows that a state starts
    from.
    """
    with pytest.raises(CorruptStorage):
        CatalogState(10, 10.0, CatalogRows(last_number=1))


def test_tables_refuse_a_negative_quantity_and_foreign_changes() -> None:
    """The database checks once more what the state machine has checked."""
    connection, tables = open_tables((10, 10.0))
    log = started()
    change = log.changes[0]
    assert isinstance(change, Change)
    broken = replace(change, stocks=(Stock("S", 1, -1),))
    with pytest.raises(sqlite3.IntegrityError):
        tables.save(connection, [broken])
    with pytest.raises(BrokenInvariant):
        tables.save(connection, [(1, 2)])
    connection.close()


def test_a_key_evicted_and_refused_again_in_one_transaction_is_saved() -> None:
    """Changes are saved in sequence, however many are gathered."""
    log = started(refused_keys_max=1)
    log.apply(batch(1, buy("a", 1000)))
    log.apply(batch(2, buy("b", 1000)))
    log.apply(batch(3, buy("a", 1000)))
    connection, tables = open_tables(log.bounds)
    tables.save(connection, log.changes)
    assert rows_of(tables.load(connection, log.state.digest)) == rows_of(log.state)
    connection.close()


def test_trades_executed_and_recorded_in_one_transaction_are_saved() -> None:
    """What was kept only between two changes that are saved together leaves no trace."""
    log = started()
    log.apply(batch(1, buy("a", 1), buy("b", 1)))
    log.apply(batch(2, buy("c", 1), recorded=2, known=2))
    connection, tables = open_tables(log.bounds)
    tables.save(connection, log.changes)
    assert rows_of(tables.load(connection, log.state.digest)) == rows_of(log.state)
    connection.close()


# --- any sequence of commands ------------------------------------------------------------------


@dataclass
class Model:
    """What must be true, computed another way: a ledger of everything that was answered."""

    log: Log = field(default_factory=Log)
    executed: dict[str, Order] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    changes: dict[str, StockChange] = field(default_factory=dict)
    refused_changes: set[str] = field(default_factory=set)
    halted: set[str] = field(default_factory=set)
    learnt: int = 0
    fresh: int = 0

    def run(self, command: CatalogCommand) -> None:
        """Apply a command and compare."""
        before = len(self.executed)
        result = self.log.apply(command)
        match command, result:
            case Batch(orders=orders), BatchResult():
                for order, outcome in zip(orders, result.outcomes, strict=True):
                    self.note(order, outcome)
            case DirectTrade(order), Outcome():
                self.note(order, result)
            case ChangeStock(request), ChangeOutcome():
                self.note_change(request, result)
        for order in list(self.executed.values())[before:]:
            assert order.name not in self.halted
        self.check()

    def note(self, order: Order, outcome: Outcome) -> None:
        """Remember an answer, which must not contradict an earlier one."""
        if outcome.refusal:
            assert order.key not in self.executed
            self.refused.add(order.key)
        elif outcome.trade:
            assert order.key not in self.refused
            before = self.executed.setdefault(order.key, outcome.trade.order)
            assert before.same_body(order)
        else:
            assert outcome.key_reused

    def note_change(self, request: ChangeRequest, outcome: ChangeOutcome) -> None:
        """Remember what became of a change, which must not contradict an earlier answer."""
        change = outcome.change
        if outcome.refusal:
            assert request.key not in self.changes
            self.refused_changes.add(request.key)
        elif change is not None:
            assert request.key not in self.refused_changes
            assert change.is_of(request)
            assert outcome.replayed == (request.key in self.changes)
            assert self.changes.setdefault(request.key, change) == change
            if not outcome.replayed and change.kind is ChangeKind.HALT:
                self.halted.add(change.name)
            elif not outcome.replayed and change.kind is ChangeKind.RESUME:
                self.halted.remove(change.name)
        else:
            assert outcome.key_reused

    def check(self) -> None:
        """Compare the stocks with the ledger."""
        state = self.log.state
        assert len(self.executed) == state.last_transaction
        kept = [trade.number for trade in rows_of(state).kept]
        assert kept == list(range(state.recorded + 1, state.last_transaction + 1))
        made = sorted(self.changes.values())
        assert [change.number for change in made] == list(range(1, len(made) + 1))
        assert state.stock_changes(0, 1000) == tuple(made)
        for stock in state.stocks():
            mine = [o for o in self.executed.values() if o.name == stock.name]
            net = sum(o.quantity if o.side is Side.SELL else -o.quantity for o in mine)
            assert 0 <= stock.quantity == stock.initial_quantity + net
            assert stock.volume == sum(o.quantity for o in mine)
            changes = [change for change in made if change.name == stock.name]
            assert stock.version == len(mine) + len(changes)
            assert stock.halted == (stock.name in self.halted)
            added = sum(c.quantity for c in changes)
            assert stock.initial_quantity == added + SHARES.get(stock.name, 0)
            prices = [c.price_cents for c in changes if c.kind in PRICED]
            assert stock.price_cents == [PRICES.get(stock.name), *prices][-1]


ORDERS = st.builds(
    Order,
    st.sampled_from([f"k{n}" for n in range(12)]),
    st.sampled_from(["FishCo", "GameStart", "Lemon", "Nothing"]),
    st.sampled_from(list(Side)),
    st.sampled_from([0, 1, 40, 100, 101, QUANTITY_MAX]),
)
CHANGES = st.builds(
    ChangeRequest,
    st.sampled_from([f"c{n}" for n in range(12)]),
    st.sampled_from(ChangeKind),
    st.sampled_from(["FishCo", "GameStart", "Lemon"]),
    st.sampled_from([0, 5, 1599]),
    st.sampled_from([1, 40, QUANTITY_MAX - 150]),
).map(
    lambda c: c._replace(
        price_cents=c.price_cents if c.kind in PRICED else 0,
        quantity=c.quantity if c.kind in (ChangeKind.ADD, ChangeKind.RESTOCK) else 0,
    )
)
PRICED = (ChangeKind.ADD, ChangeKind.PRICE)
SHARES = {stock.name: stock.quantity for stock in SEED.stocks}
PRICES = {stock.name: stock.price_cents for stock in SEED.stocks}
COMMANDS = st.one_of(
    st.tuples(
        st.just("batch"),
        st.lists(ORDERS, max_size=4),
        st.sampled_from([0, 1, 1, 1, 2]),
        st.sampled_from([0, 0, 0, -1, 1]),
        st.integers(0, 3),
    ),
    st.tuples(st.just("begin"), st.sampled_from([-1, 0, 1]), st.integers(-1, 3)),
    st.tuples(st.just("direct"), ORDERS),
    st.tuples(st.just("change"), CHANGES),
    st.tuples(st.just("seed")),
)


def concrete(model: Model, symbol: tuple[object, ...]) -> CatalogCommand:
    """A command near the state: mostly in turn, sometimes late, early, or of another epoch."""
    state = model.log.state
    dump = rows_of(state)
    match symbol:
        case ("batch", list() as orders, int(step), int(epoch), int(behind)):
            # The order leader itself answers a key that is recorded, and sends all others.
            kept = {trade.order.key for trade in dump.kept}
            new = [o for o in orders if o.key in kept or o.key not in model.executed]
            recorded = max(state.recorded, state.last_transaction - behind)
            return Batch(
                max(dump.fence + epoch, 0),
                max(dump.batch.number + step, 0),
                recorded,
                max(recorded, state.last_transaction - 1),
                behind * 100,
                tuple(new),
            )
        case ("begin", int(step), int(behind)):
            return BeginEpoch(max(dump.fence + step, 0), max(state.last_transaction - behind, 0))
        case ("direct", Order() as order):
            model.fresh += 1
            return DirectTrade(order._replace(key=f"direct{model.fresh}"), 7)
        case ("change", ChangeRequest() as request):
            return ChangeStock(request, 9)
    return SEED


@settings(max_examples=150, deadline=None, database=None)
@given(st.lists(COMMANDS, max_size=25), st.integers(0, 25), st.integers(1, 3))
def test_any_sequence_of_commands(
    symbols: list[tuple[object, ...]], saved_at: int, gathered: int
) -> None:
    """Quantities never become negative, shares are conserved, numbers are 1..N, a key executes at
    most once, what was refused stays refused, and nothing is traded while it is halted. A replay,
    and a state that was saved and loaded on the way, come to the same rows and digest.
    """
    model = Model()
    for command in (SEED, BeginEpoch(1, 0)):
        model.run(command)
    connection, tables = open_tables(model.log.bounds)
    for position, symbol in enumerate(symbols):
        if position == saved_at:
            _save(tables, connection, model.log.changes, gathered)
            loaded = tables.load(connection, model.log.state.digest)
            assert rows_of(loaded) == rows_of(model.log.state)
            model.log.state = loaded
        model.run(concrete(model, symbol))
    assert rows_of(model.log.replayed()) == rows_of(model.log.state)
    connection.close()


def _save(
    tables: CatalogTables, connection: sqlite3.Connection, changes: list[object], gathered: int
) -> None:
    for start in range(0, len(changes), gathered):
        tables.save(connection, changes[start : start + gathered])


@pytest.mark.parametrize("char", ["a", "'", "\\", "\n", "\x7f", "é", "ж", "一", "\U0001f41f"])
def test_decisions_are_spelled_as_repr_does(char: str) -> None:
    """For characters that all versions of Python treat alike. The digest is made from this, and
    that of an existing log must not change.
    """
    decided = ([(f"{char}\\x41{char}", 1), ["'"]], f'"{char}')
    assert spelled(decided) == repr(decided).encode()


def test_every_version_of_python_comes_to_the_same_digest() -> None:
    """Which characters are printable, and so what ``repr`` escapes, depends on the version: a face
    that is new in Unicode 15 is printable for Python 3.12, but not for 3.11.
    """
    log = started()
    log.apply(batch(1, buy("\U0001fae8", 1)))
    assert log.state.digest.hex() == "932b0f1244e6260cddc9b788d8befbba"
    assert spelled(("\x9f", "\xa0", "\u0378", "\U000e0001")) == (
        "('\x9f', '\xa0', '\u0378', '\U000e0001')".encode()
    )
