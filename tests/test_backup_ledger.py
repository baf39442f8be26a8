"""The ledger of a backup computes the same as the catalog's state machine."""

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.histories import BEGAN, NAMES, History, histories
from twstock.backup.ledger import (
    Contradiction,
    Ledger,
    beginnings,
    merge,
    traded_before_price,
)
from twstock.catalog.state import CatalogState
from twstock.config import Limits
from twstock.market import (
    QUANTITY_MAX,
    Batch,
    BeginEpoch,
    ChangeKind,
    ChangeRequest,
    ChangeStock,
    Order,
    Seed,
    Side,
    Stock,
    StockChange,
    Trade,
)
from twstock.rpc.wire.commands import encode_catalog_command

STEPS = st.lists(
    st.tuples(
        st.sampled_from((*Side, *ChangeKind)),
        st.sampled_from(NAMES),
        st.integers(0, 12),
        st.integers(0, 2),
    ),
    max_size=60,
)


def commands(steps):
    """The commands of the catalog's log for some steps, orders in batches of any size."""
    yield Seed(BEGAN)
    yield BeginEpoch(1, 0)
    batches = 0
    for place, ((is_order, pause), same) in enumerate(
        groupby(steps, lambda step: (step[0] in tuple(Side), step[3])), 1
    ):
        at_ms = 1000 + place * pause
        if is_order:
            batches += 1
            orders = [Order(f"{place} {k}", n, side, q) for k, (side, n, q, _) in enumerate(same)]
            yield Batch(1, batches, 0, 0, at_ms, tuple(orders))
            continue
        for k, (kind, name, number, _) in enumerate(same):
            price = number if kind in (ChangeKind.ADD, ChangeKind.PRICE) else 0
            quantity = number if kind in (ChangeKind.ADD, ChangeKind.RESTOCK) else 0
            yield ChangeStock(ChangeRequest(f"{place} {k}", kind, name, price, quantity), at_ms)


def of(events, name):
    """The events of one stock."""
    return [e for e in events if (e.order.name if isinstance(e, Trade) else e.name) == name]


@given(STEPS)
def test_the_stocks_are_what_the_state_machine_makes_them(steps):
    """For any orders that the state machine executes and any changes that it makes; those that it
    refuses are left out.
    """
    limits = Limits()
    machine = CatalogState(limits.refused_keys_max, limits.refused_keys_s)
    happened = []
    for index, command in enumerate(commands(steps), 2):
        change = machine.apply(index, encode_catalog_command(command)).change
        if change is not None:
            happened += [*change.executed, *(keyed.change for keyed in change.administered.made)]
    in_sequence, merged = Ledger(BEGAN), Ledger(BEGAN)
    for event in happened:
        in_sequence.carry_out(event)
    trades = [event for event in happened if isinstance(event, Trade)]
    list(merge(merged, trades, machine.stock_changes(0, 100)))
    assert tuple(in_sequence.stocks()) == tuple(merged.stocks()) == machine.stocks()
    assert merged.end == in_sequence.end
    assert (merged.end.orders, merged.end.changes) == (
        machine.last_transaction,
        machine.last_change,
    )


@given(histories(), st.data())
def test_orders_and_changes_come_in_a_sequence_that_can_be_carried_out(history, data):
    """Up to any order: the events of each stock come as they happened, and none is missing in
    between.
    """
    last = data.draw(st.integers(0, len(history.trades)))
    ledger = Ledger(history.began)
    merged = list(merge(ledger, history.trades[:last], history.changes))
    trades = [event for event in merged if isinstance(event, Trade)]
    changes = [event for event in merged if isinstance(event, StockChange)]
    assert trades == history.trades[:last]
    assert changes == history.changes[: len(changes)]
    for name in NAMES:
        happened = of(history.events, name)
        assert of(merged, name) == happened[: len(of(merged, name))]
    if last:
        before = history.events[: history.events.index(history.trades[last - 1])]
        assert len(changes) >= sum(isinstance(event, StockChange) for event in before)
    if last == len(history.trades):
        assert ledger.stocks() == history.ledger.stocks()
        assert ledger.end == history.ledger.end


@given(histories())
def test_times_never_go_back(history):
    """A change comes between the same orders as when it was made."""
    merged = merge(Ledger(history.began), history.trades, history.changes)
    times = [event.at_ms for event in merged]
    assert times == sorted(times)


@given(histories(), st.data())
def test_how_stocks_began_is_told_by_what_became_of_them(history, data):
    """From the state at any moment. A price at which nothing was traded is not known, and does not
    matter.
    """
    count = data.draw(st.integers(0, len(history.events)))
    ledger = Ledger(history.began)
    for event in history.events[:count]:
        ledger.carry_out(event)
    stocks = ledger.stocks()
    asked = traded_before_price(stocks, history.changes)
    prices = {name: of(history.trades, name)[0].price_cents for name in asked}
    began = beginnings(stocks, history.changes, prices)
    assert [stock._replace(price_cents=100) for stock in began] == sorted(history.began)
    again = Ledger(began)
    list(merge(again, history.trades, history.changes))
    assert again.stocks() == history.ledger.stocks()


def trade(number=1, name="A", side=Side.BUY, quantity=1, version=1, price_cents=100, at_ms=10):
    """An order."""
    return Trade(number, Order("k", name, side, quantity), version, price_cents, at_ms)


def change(number=1, kind=ChangeKind.RESTOCK, name="A", quantity=1, version=1):
    """A change."""
    return StockChange(number, kind, name, 0, quantity, version, 10)


@pytest.mark.parametrize(
    "events",
    [
        [trade(number=2)],
        [trade(name="Z")],
        [trade(quantity=21)],
        [trade(quantity=0)],
        [trade(version=2)],
        [trade(price_cents=101)],
        [trade(), trade(number=2, version=2, at_ms=9)],
        [change(kind=ChangeKind.HALT), trade(version=2)],
        [change(number=2)],
        [change(name="Z")],
        [change(version=2)],
        [change(quantity=QUANTITY_MAX)],
        [change(kind=ChangeKind.ADD)],
    ],
)
def test_what_does_not_follow_is_refused(events):
    """A gap, an unknown stock, too few shares, another price, an earlier time, a halted stock. The
    ledger stays as it was.
    """
    ledger = Ledger(BEGAN)
    for event in events[:-1]:
        ledger.carry_out(event)
    before = ledger.stocks()
    with pytest.raises(Contradiction):
        ledger.carry_out(events[-1])
    assert ledger.stocks() == before


def test_orders_that_need_a_change_that_nobody_knows_are_refused():
    """A version is missing, and no change of that stock makes it."""
    with pytest.raises(Contradiction, match="version"):
        list(merge(Ledger(BEGAN), [trade(version=2)], []))
    with pytest.raises(Contradiction, match="stock not found"):
        list(merge(Ledger(BEGAN), [trade(version=2)], [change(name="Z")]))


def test_a_change_that_follows_from_a_later_order_is_left_out():
    """It was made after the last order that the backup has."""
    history = History()
    for step in [(Side.BUY, "A", 1, 1), (Side.BUY, "A", 1, 1), (ChangeKind.RESTOCK, "A", 5, 1)]:
        history.attempt(step)
    ledger = Ledger(BEGAN)
    assert list(merge(ledger, history.trades[:1], history.changes)) == history.trades[:1]
    assert ledger.stock("A") == Stock("A", 100, 19, 1, 1, 20)
