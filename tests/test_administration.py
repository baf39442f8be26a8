"""Changes of stocks in the catalog's state machine: each is made once, and all replicas agree."""

import sqlite3
from dataclasses import replace

import pytest

from tests.states import rows_of
from tests.test_catalog_state import Log, batch, buy, numbers, open_tables, outcomes, sell, started
from twstock.catalog.administration import halted_names
from twstock.catalog.changes import (
    NOT_ADMINISTERED,
    CatalogRows,
    Change,
    KeyedChange,
    RefusedChange,
    RefusedOrder,
)
from twstock.catalog.requests import check_change
from twstock.catalog.rules import evict
from twstock.catalog.state import CatalogState
from twstock.catalog.tables import CatalogTables
from twstock.errors import CorruptStorage, InvalidRequest
from twstock.market import (
    PRICE_CENTS_MAX,
    QUANTITY_MAX,
    ChangeKind,
    ChangeOutcome,
    ChangeRefusal,
    ChangeRequest,
    ChangeStock,
    DirectTrade,
    Outcome,
    Refusal,
    Stock,
    StockChange,
)
from twstock.rpc.wire.commands import encode_catalog_command

ADD, RESTOCK, PRICE, HALT, RESUME = ChangeKind


def change(log: Log, key: str, kind: ChangeKind, name: str = "GameStart", **fields: int) -> object:
    """The result of a change at second 1."""
    at_ms = fields.pop("at_ms", 1000)
    return log.apply(ChangeStock(ChangeRequest(key, kind, name, **fields), at_ms))


def number(result: object) -> int:
    """The number of a change that was made now."""
    assert isinstance(result, ChangeOutcome)
    assert result.change is not None
    assert not result.replayed
    return result.change.number


def refusal(result: object) -> ChangeRefusal | None:
    """Why a change was refused now."""
    assert isinstance(result, ChangeOutcome)
    assert not result.replayed
    return result.refusal


# --- what each does ------------------------------------------------------------------------------


def test_changes_are_numbered_and_each_makes_the_next_version() -> None:
    """Numbers 1, 2, 3, ... over all stocks; versions of a stock count its trades and changes
    together.
    """
    log = started()
    assert number(change(log, "a", PRICE, price_cents=1)) == 1
    log.apply(batch(1, buy("x", 1)))
    assert number(change(log, "b", HALT, "FishCo")) == 2
    assert number(change(log, "c", RESTOCK, quantity=7)) == 3
    assert log.state.last_change == 3
    assert log.state.stock_changes(0, 9) == (
        StockChange(1, PRICE, "GameStart", 1, 0, 1, 1000),
        StockChange(2, HALT, "FishCo", 0, 0, 1, 1000),
        StockChange(3, RESTOCK, "GameStart", 0, 7, 3, 1000),
    )
    assert log.state.stock("GameStart") == Stock("GameStart", 1, 106, 1, 3, 107)


def test_a_stock_that_was_added_is_traded_and_listed_like_any_other() -> None:
    """Its first version is 1, made by the change that added it."""
    log = started()
    assert number(change(log, "a", ADD, "Lemon", price_cents=250, quantity=10)) == 1
    assert log.state.stock("Lemon") == Stock("Lemon", 250, 10, 0, 1, 10)
    assert [s.name for s in log.state.stocks()] == ["FishCo", "GameStart", "Lemon"]
    assert [s.name for s in log.state.page("GameStart", 5)] == ["Lemon"]
    assert len(log.state) == 3
    assert numbers(log.apply(batch(1, buy("x", 10, "Lemon"), buy("y", 1, "Lemon")))) == [1, None]
    assert log.state.stock("Lemon") == Stock("Lemon", 250, 0, 10, 2, 10)


def test_more_shares_are_neither_bought_nor_sold() -> None:
    """They count as if they had been there from the start, so that trades still add up."""
    log = started()
    log.apply(batch(1, buy("x", 100)))
    change(log, "a", RESTOCK, quantity=5)
    assert log.state.stock("GameStart") == Stock("GameStart", 1599, 5, 100, 2, 105)
    assert numbers(log.apply(batch(2, buy("y", 5), sell("z", 1)))) == [2, 3]


def test_trades_after_a_change_of_price_have_the_new_one() -> None:
    """Earlier trades keep theirs."""
    log = started()
    [before] = outcomes(log.apply(batch(1, buy("x", 1))))
    change(log, "a", PRICE, price_cents=2000)
    [after] = outcomes(log.apply(batch(2, buy("y", 1))))
    assert [o.trade.price_cents for o in (before, after) if o.trade] == [1599, 2000]


def test_a_halted_stock_refuses_orders_both_ways_and_in_words_of_its_own() -> None:
    """In a batch and in a direct trade, whatever the quantity. Other stocks are traded."""
    log = started()
    change(log, "h", HALT)
    assert log.state.stock("GameStart") == Stock("GameStart", 1599, 100, 0, 1, 100, halted=True)
    result = log.apply(batch(1, buy("a", 1), sell("b", 1), buy("c", 999), buy("d", 1, "FishCo")))
    assert [o.refusal for o in outcomes(result)] == [Refusal.HALTED] * 3 + [None]
    for order in (buy("e", 1), sell("f", 1)):
        assert log.apply(DirectTrade(order, 1)) == Outcome(refusal=Refusal.HALTED)
    assert str(Refusal.HALTED) == "trading in this stock is halted"


def test_an_order_that_a_halt_refused_stays_refused() -> None:
    """A late copy is not executed when trading goes on; a new order is."""
    log = started()
    change(log, "h", HALT)
    log.apply(batch(1, buy("late", 1)))
    change(log, "r", RESUME)
    result = log.apply(batch(2, buy("late", 1), buy("new", 1)))
    assert outcomes(result)[0] == Outcome(refusal=Refusal.HALTED, replayed=True)
    assert numbers(result) == [None, 1]


def test_a_halted_stock_can_be_changed() -> None:
    """A halt is for traders: price and shares can be put right meanwhile, and the stock stays
    halted.
    """
    log = started()
    change(log, "h", HALT)
    change(log, "p", PRICE, price_cents=1)
    change(log, "q", RESTOCK, quantity=1)
    assert log.state.stock("GameStart") == Stock("GameStart", 1, 101, 0, 3, 101, halted=True)


# --- refusals and keys ----------------------------------------------------------------------------


def test_what_makes_no_sense_is_refused_and_changes_no_stock() -> None:
    """Each refusal is a value with a message of its own, and takes no number."""
    log = started()
    before = log.state.stocks()
    top = QUANTITY_MAX - 100
    for kind, name, fields, why in (
        (ADD, "GameStart", {"quantity": 1}, ChangeRefusal.EXISTS),
        (RESTOCK, "None", {"quantity": 1}, ChangeRefusal.UNKNOWN_STOCK),
        (PRICE, "None", {"price_cents": 1}, ChangeRefusal.UNKNOWN_STOCK),
        (HALT, "None", {}, ChangeRefusal.UNKNOWN_STOCK),
        (RESUME, "None", {}, ChangeRefusal.UNKNOWN_STOCK),
        (RESUME, "GameStart", {}, ChangeRefusal.NOT_HALTED),
        (RESTOCK, "GameStart", {"quantity": top + 1}, ChangeRefusal.TOO_MANY),
    ):
        assert refusal(change(log, f"{kind}{name}", kind, name, **fields)) is why
    assert log.state.stocks() == before
    assert number(change(log, "h", HALT)) == 1
    assert refusal(change(log, "again", HALT)) is ChangeRefusal.HALTED
    assert number(change(log, "all", RESTOCK, "FishCo", quantity=top)) == 2


def test_shares_that_were_ever_added_are_bounded_like_those_that_are_left() -> None:
    """Otherwise the initial quantity could grow beyond what JSON keeps exact."""
    log = started()
    log.apply(batch(1, buy("x", 100)))
    most = QUANTITY_MAX - 100
    assert refusal(change(log, "a", RESTOCK, quantity=most + 1)) is ChangeRefusal.TOO_MANY
    assert number(change(log, "b", RESTOCK, quantity=most)) == 1


def test_the_same_key_and_change_are_done_once_and_answered_alike() -> None:
    """Also much later, when keys of refused orders and recorded trades are forgotten."""
    log = started(refused_keys_max=0, refused_keys_s=0.0)
    first = change(log, "k", RESTOCK, quantity=5)
    change(log, "h", HALT)
    log.apply(batch(1, at_ms=10**9))
    digest = log.state.digest
    again = change(log, "k", RESTOCK, quantity=5, at_ms=10**10)
    assert isinstance(first, ChangeOutcome)
    assert again == first._replace(replayed=True)
    assert log.state.digest == digest
    assert log.state.last_change == 2


@pytest.mark.parametrize(
    "other",
    [
        ChangeRequest("k", RESTOCK, "GameStart", quantity=6),
        ChangeRequest("k", RESTOCK, "FishCo", quantity=5),
        ChangeRequest("k", PRICE, "GameStart", price_cents=5),
        ChangeRequest("k", HALT, "GameStart"),
    ],
)
def test_a_key_that_comes_with_another_change_does_nothing(other: ChangeRequest) -> None:
    """The state stays the same, whether the first change under the key was made or refused."""
    for quantity in (5, QUANTITY_MAX):
        log = started()
        change(log, "k", RESTOCK, quantity=quantity)
        before = rows_of(log.state)
        assert log.apply(ChangeStock(other, 1)) == ChangeOutcome(key_reused=True)
        assert rows_of(log.state) == before


def test_keys_of_orders_and_of_changes_have_nothing_to_do_with_each_other() -> None:
    """Administrators do not use up the keys of traders, nor the other way round."""
    log = started()
    assert number(change(log, "k", RESTOCK, quantity=5)) == 1
    assert numbers(log.apply(batch(1, buy("k", 1)))) == [1]


def test_a_change_that_was_refused_never_takes_effect_later() -> None:
    """A late copy stays refused even if it could be made now."""
    log = started()
    change(log, "late", RESUME)
    change(log, "h", HALT)
    again = change(log, "late", RESUME)
    assert again == ChangeOutcome(refusal=ChangeRefusal.NOT_HALTED, replayed=True)
    stock = log.state.stock("GameStart")
    assert stock is not None
    assert stock.halted


def test_refused_changes_are_bounded_as_refused_orders_are() -> None:
    """By number, and by age in the log's own time. One that is forgotten at once leaves no trace in
    the state.
    """
    log = started(refused_keys_max=2, refused_keys_s=10.0)
    for key in ("a", "b", "c"):
        change(log, key, RESUME)
    assert [r.request.key for r in rows_of(log.state).refused_changes] == ["b", "c"]
    log.apply(batch(1, at_ms=12_000))
    assert rows_of(log.state).refused_changes == ()
    none = started(refused_keys_max=0)
    change(none, "a", RESUME)
    made = none.changes[-1]
    assert isinstance(made, Change)
    assert made.administered is NOT_ADMINISTERED


def test_time_never_goes_back() -> None:
    """Changes are stamped with the log's time, like trades."""
    log = started()
    log.apply(batch(1, buy("a", 1), at_ms=5000))
    change(log, "h", HALT, at_ms=10)
    assert log.state.stock_changes(0, 1)[0].at_ms == 5000


# --- replicas and restarts -----------------------------------------------------------------------


def busy() -> Log:
    """A catalog in which every kind of change was made, refused, and traded around."""
    log = started(refused_keys_max=3)
    change(log, "1", ADD, "Lemon", price_cents=250, quantity=10)
    log.apply(batch(1, buy("a", 1, "Lemon"), buy("b", 1000)))
    change(log, "2", HALT, "Lemon")
    for key in "3456":
        change(log, key, HALT, "Lemon")
    log.apply(batch(2, buy("c", 1, "Lemon"), sell("d", 1), recorded=1, known=1))
    change(log, "7", PRICE, price_cents=5)
    change(log, "8", HALT)
    change(log, "9", RESUME)
    change(log, "10", RESTOCK, quantity=9)
    return log


def test_replicas_come_to_the_same_state() -> None:
    """Everything, the digest included, depends on the entries alone."""
    log = busy()
    assert rows_of(log.replayed()) == rows_of(log.state)
    assert rows_of(log.state).changes[-1].key == "10"


@pytest.mark.parametrize("gathered", [1, 3, 100])
def test_the_tables_bring_everything_back(gathered: int) -> None:
    """Halted stocks, keys and refusals, however many changes are saved at once."""
    log = busy()
    connection, tables = open_tables(log.bounds)
    for start in range(0, len(log.changes), gathered):
        tables.save(connection, log.changes[start : start + gathered])
    loaded = tables.load(connection, log.state.digest)
    assert rows_of(loaded) == rows_of(log.state)
    lemon = loaded.stock("Lemon")
    assert lemon is not None
    assert lemon.halted
    assert loaded.known_change(ChangeRequest("2", HALT, "Lemon")) is not None
    connection.close()


def test_the_digest_tells_what_was_decided() -> None:
    """States that give other numbers or other refusals have different digests, even if their stocks
    are the same.
    """
    log = started()
    start = rows_of(log.state)
    made = KeyedChange("k", StockChange(1, PRICE, "FishCo", 2550, 0, 0, 0))
    request = ChangeRequest("h", HALT, "GameStart")
    refused = RefusedChange(request, ChangeRefusal.HALTED, 0)
    payload = encode_catalog_command(ChangeStock(request, 0))
    digests = set()
    for snapshot in (
        start,
        replace(start, changes=(made,)),
        replace(start, refused_changes=(refused,)),
    ):
        state = CatalogState(*log.bounds, snapshot)
        state.apply(3, payload)
        digests.add(state.digest)
    assert len(digests) == 3


def test_a_change_that_is_missing_is_noticed() -> None:
    """The numbers of the changes that are loaded must have no gap."""
    gap = KeyedChange("k", StockChange(2, HALT, "S", 0, 0, 1, 0))
    with pytest.raises(CorruptStorage, match="gaps"):
        CatalogState(10, 10.0, CatalogRows(changes=(gap,)))


def test_which_stocks_are_halted_follows_from_the_changes() -> None:
    """The last halt or resume of a stock counts; other changes do not matter."""
    rows = [(HALT, "A"), (HALT, "B"), (PRICE, "A"), (RESUME, "B"), (RESTOCK, "B"), (HALT, "C")]
    made = [StockChange(n, kind, name, 0, 0, n, 0) for n, (kind, name) in enumerate(rows, 1)]
    assert halted_names(made) == {"A", "C"}


# --- data of before there were changes -----------------------------------------------------------

OLD_DIGEST = bytes.fromhex("bf882114c158cd2d47d2f84ea4d93ba0")
OLD_LOG = (
    b"\n!\n\r\n\x06FishCo\x10\xf6\x13\x18d\n\x10\n\tGameStart\x10\xbf\x0c\x18d",
    b"\x1a\x02\x08\x01",
    b"\x12E\x08\x01\x10\x01(\xe8\x07:<\n\x01a\n\x01b\n\x01c\x12\tGameStart\x12\tGameStart"
    b'\x12\x06FishCo\x1a\x03buy\x1a\x03buy\x1a\x03buy"\x04\n\xe8\x07\x01',
    b'"\x18\n\x13\n\x01d\x12\x06FishCo\x1a\x04sell \x02\x10\xd0\x0f',
    b'\x12#\x08\x01\x10\x02\x18\x02 \x02(\xb8\x17:\x16\n\x01e\x12\tGameStart\x1a\x03buy"\x01\x01',
)
OLD_OUTCOMES = (
    "0A160A0165120947616D6553746172741A0362757922010112160A0104120102"
    "1A02BF0C2202B8172A003201003A0100"
)
OLD_TABLES = f"""
CREATE TABLE epoch (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    fence INTEGER NOT NULL,
    batch_number INTEGER NOT NULL,
    batch_outcomes BLOB NOT NULL,
    recorded INTEGER NOT NULL CHECK (recorded <= last_number),
    last_number INTEGER NOT NULL,
    last_at_ms INTEGER NOT NULL
) STRICT;
INSERT INTO epoch VALUES(1,1,2,X'{OLD_OUTCOMES}',2,4,3000);
CREATE TABLE kept_trades (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    side TEXT NOT NULL CHECK (side IN ('buy', 'sell')),
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    version INTEGER NOT NULL,
    price_cents INTEGER NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;
INSERT INTO kept_trades VALUES(3,'d','FishCo','sell',2,2,2550,2000);
INSERT INTO kept_trades VALUES(4,'e','GameStart','buy',1,2,1599,3000);
CREATE TABLE refused_orders (
    position INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    side TEXT NOT NULL CHECK (side IN ('buy', 'sell')),
    quantity INTEGER NOT NULL,
    refusal TEXT NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT;
INSERT INTO refused_orders
VALUES(1,'b','GameStart','buy',1000,'not enough stocks left to buy',1000);
CREATE TABLE stocks (
    name TEXT PRIMARY KEY,
    price_cents INTEGER NOT NULL CHECK (price_cents >= 0),
    quantity INTEGER NOT NULL CHECK (quantity >= 0),
    volume INTEGER NOT NULL CHECK (volume >= 0),
    version INTEGER NOT NULL CHECK (version >= 0),
    initial_quantity INTEGER NOT NULL CHECK (initial_quantity >= 0)
) STRICT, WITHOUT ROWID;
INSERT INTO stocks VALUES('FishCo',2550,101,3,2,100);
INSERT INTO stocks VALUES('GameStart',1599,89,11,2,100);
"""
"""What a catalog of before there were changes wrote, its bound on refused keys being 1."""


def of_old_log() -> Log:
    """The state that the old log makes."""
    log = Log(refused_keys_max=1)
    for index, payload in enumerate(OLD_LOG, 1):
        log.payloads.append(payload)
        log.changes.append(log.state.apply(index, payload).change)
    return log


def test_a_log_of_before_comes_to_the_digest_that_it_had() -> None:
    """Otherwise a replica with saved state and one that replays its log would take each other for
    damaged.
    """
    assert of_old_log().state.digest == OLD_DIGEST


def test_a_database_of_before_is_opened_and_goes_on() -> None:
    """It gets the tables that it lacks, and keeps everything that it has."""
    log = of_old_log()
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(OLD_TABLES)
    tables = CatalogTables(*log.bounds)
    connection.executescript(tables.schema)
    state = tables.load(connection, OLD_DIGEST)
    assert rows_of(state) == rows_of(log.state)
    saved = len(log.changes)
    change(log, "h", HALT)
    change(log, "h2", HALT)
    change(log, "l", ADD, "Lemon", quantity=1)
    tables.save(connection, log.changes[saved:])
    assert rows_of(tables.load(connection, log.state.digest)) == rows_of(log.state)
    connection.close()


# --- what must not reach the log ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ChangeRequest("k" * 256, HALT, "A"), "idempotency_key"),
        (ChangeRequest("k", ADD, ""), "name"),
        (ChangeRequest("k", ADD, "a\tb"), "name"),
        (ChangeRequest("k", ADD, " a"), "name"),
        (ChangeRequest("k", ADD, "a" * 256), "name"),
        (ChangeRequest("k", ADD, "."), "name"),
        (ChangeRequest("k", ADD, ".."), "name"),
        (ChangeRequest("k", HALT, "a" * 256), "name"),
        (ChangeRequest("k", ADD, "a", price_cents=-1), "price_cents"),
        (ChangeRequest("k", PRICE, "a", price_cents=PRICE_CENTS_MAX + 1), "price_cents"),
        (ChangeRequest("k", HALT, "a", price_cents=1), "price_cents"),
        (ChangeRequest("k", PRICE, "a", quantity=1), "quantity"),
        (ChangeRequest("k", ADD, "a", quantity=-1), "quantity"),
        (ChangeRequest("k", ADD, "a", quantity=QUANTITY_MAX + 1), "quantity"),
        (ChangeRequest("k", RESTOCK, "a", quantity=0), "quantity"),
    ],
)
def test_what_must_not_reach_the_log_is_named(request_: ChangeRequest, field: str) -> None:
    """The error names the field, as for orders."""
    with pytest.raises(InvalidRequest) as caught:
        check_change(request_)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "request_",
    [
        ChangeRequest("", ADD, "a", 0, 0),
        ChangeRequest("k", ADD, "A & B, Inc.", PRICE_CENTS_MAX, QUANTITY_MAX),
        ChangeRequest("k", RESTOCK, "a", quantity=1),
        ChangeRequest("k", HALT, "\t"),
    ],
)
def test_what_may_reach_the_log_is_accepted(request_: ChangeRequest) -> None:
    """The bounds are inclusive. A name that no stock can have is accepted, and will not be
    found.
    """
    check_change(request_)


def test_eviction_takes_the_oldest_and_no_other() -> None:
    """Those beyond the number or older than the time, whichever are more."""
    dated = {k: RefusedOrder(buy(k, 1), Refusal.NOT_ENOUGH, at) for at, k in enumerate("abcde")}
    for keys_max, oldest, gone in ((9, 0, ""), (3, 0, "ab"), (9, 3, "abc"), (1, 2, "abcd")):
        table = dict(dated)
        assert evict(table, keys_max, oldest) == list(gone)
        assert "".join(table) == "abcde"[len(gone) :]
    empty: dict[str, RefusedOrder] = {}
    assert evict(empty, 0, 0) == []
