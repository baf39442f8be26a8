"""What a backup computes is what the catalog's state machine computes."""

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.histories import BEGAN, NAMES, History, histories
from twstock.backup.journal import ChangeKind, StockChange
from twstock.backup.ledger import (
    Contradiction,
    Ledger,
    beginnings,
    merge,
    traded_before_price,
)
from twstock.catalog.state import CatalogState
from twstock.config import Limits
from twstock.market import QUANTITY_MAX, Batch, BeginEpoch, Order, Seed, Side, Stock, Trade
from twstock.rpc.wire.commands import encode_catalog_command

ORDERS = st.lists(
    st.tuples(st.sampled_from(Side), st.sampled_from(NAMES), st.integers(0, 12), st.integers(0, 2)),
    max_size=60,
)


def of(events, name):
    """The events of one stock."""
    return [e for e in events if (e.order.name if isinstance(e, Trade) else e.name) == name]


@given(ORDERS)
def test_the_stocks_are_what_the_state_machine_makes_them(orders):
    """Of any orders that it executes, in batches of any size; and of no others."""
    limits = Limits()
    machine = CatalogState(limits.refused_keys_max, limits.refused_keys_s)
    ledger, executed = Ledger(BEGAN), []
    commands = [Seed(BEGAN), BeginEpoch(1, 0)]
    for number, (pause, same) in enumerate(groupby(orders, lambda order: order[3]), 1):
        batch = tuple(
            Order(f"{number} {place}", name, side, quantity)
            for place, (side, name, quantity, _) in enumerate(same)
        )
        commands.append(Batch(1, number, 0, 0, 1000 + number * pause, batch))
    for index, command in enumerate(commands, 2):
        change = machine.apply(index, encode_catalog_command(command)).change
        executed += change.executed
    for trade in executed:
        ledger.carry_out(trade)
    assert tuple(ledger.stocks()) == machine.stocks()
    assert ledger.end.orders == machine.last_number == len(executed)


@given(histories(), st.data())
def test_orders_and_changes_come_in_a_sequence_that_can_be_carried_out(history, data):
    """For any last order: each stock's come as they happened, and none is missing between."""
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
        assert [ledger.is_halted(n) for n in NAMES] == [history.ledger.is_halted(n) for n in NAMES]


@given(histories())
def test_times_never_go_back(history):
    """A change is carried out again between the orders that it was made between."""
    merged = merge(Ledger(history.began), history.trades, history.changes)
    times = [event.at_ms for event in merged]
    assert times == sorted(times)


@given(histories(), st.data())
def test_how_stocks_began_is_told_by_what_became_of_them(history, data):
    """At any moment. A price that nobody traded at is not known, and does not matter."""
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
    """A gap, a stock that is not there, too few shares, another price, time, a halted stock."""
    ledger = Ledger(BEGAN)
    for event in events[:-1]:
        ledger.carry_out(event)
    before = ledger.stocks()
    with pytest.raises(Contradiction):
        ledger.carry_out(events[-1])
    assert ledger.stocks() == before


def test_orders_that_need_a_change_that_nobody_knows_are_refused():
    """A version is missing, and no change makes it."""
    with pytest.raises(Contradiction, match="version"):
        list(merge(Ledger(BEGAN), [trade(version=2)], []))
    with pytest.raises(Contradiction, match="not there"):
        list(merge(Ledger(BEGAN), [trade(version=2)], [change(name="Z")]))


def test_a_change_that_follows_from_a_later_order_is_left_out():
    """It was made after the last order that the backup shows."""
    history = History()
    for step in [(Side.BUY, "A", 1, 1), (Side.BUY, "A", 1, 1), (ChangeKind.RESTOCK, "A", 5, 1)]:
        history.attempt(step)
    ledger = Ledger(BEGAN)
    assert list(merge(ledger, history.trades[:1], history.changes)) == history.trades[:1]
    assert ledger.stock("A") == Stock("A", 100, 19, 1, 1, 20)
