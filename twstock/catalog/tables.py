"""The catalog's applied state in SQLite: written change by change, read once at start."""

import sqlite3
from collections.abc import Iterable, Sequence

from twisted.logger import Logger

from twstock.catalog.administration import halted_names
from twstock.catalog.changes import (
    NOT_ADMINISTERED,
    AppliedBatch,
    CatalogRows,
    Change,
    KeyedChange,
    RefusedChange,
    RefusedOrder,
)
from twstock.catalog.state import CatalogState
from twstock.errors import BrokenInvariant, CorruptTables
from twstock.market import (
    ChangeKind,
    ChangeRefusal,
    ChangeRequest,
    Order,
    Refusal,
    RefusalBounds,
    Side,
    Stock,
    StockChange,
)
from twstock.rows import (
    CRC_COLUMN,
    TRADE_COLUMNS,
    TRADE_MARKS,
    add_checksums,
    checked,
    summed,
    to_trade,
    trade_row,
    trades_table,
)
from twstock.rpc.wire.commands import decode_decided, encode_decided

_STOCK_COLUMNS = "name, price_cents, quantity, volume, version, initial_quantity, crc"
_STOCK = f"INSERT OR REPLACE INTO stocks ({_STOCK_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_STOCKS = f"SELECT {_STOCK_COLUMNS} FROM stocks"  # noqa: S608
_TRADE = f"INSERT INTO kept_trades ({TRADE_COLUMNS}) VALUES ({TRADE_MARKS})"  # noqa: S608
_KEPT = f"SELECT {TRADE_COLUMNS} FROM kept_trades ORDER BY number"  # noqa: S608
_REFUSED = """
INSERT INTO refused_orders (key, name, side, quantity, refusal, at_ms) VALUES (?, ?, ?, ?, ?, ?)
"""
_CHANGE = "INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_EPOCH = """
SELECT fence, batch_number, hex(batch_outcomes), recorded, last_number, last_at_ms FROM epoch
"""
_REFUSED_CHANGE = """
INSERT INTO refused_changes (key, kind, name, price_cents, quantity, refusal, at_ms)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""


class CatalogTables:
    """Implements the database's ``Tables``; the bounds are the configured ones.

    ``refused_orders`` is read in the sequence of ``position``: from the oldest to the newest.
    Which stocks are halted is not kept twice, as it follows from ``changes``: so a database made
    before there were changes only needs two new, empty tables. ``refusal_bounds`` is empty if the
    log's Seed has none.
    """

    _log = Logger()

    schema = f"""
    CREATE TABLE IF NOT EXISTS stocks (
        name TEXT PRIMARY KEY,
        price_cents INTEGER NOT NULL CHECK (price_cents >= 0),
        quantity INTEGER NOT NULL CHECK (quantity >= 0),
        volume INTEGER NOT NULL CHECK (volume >= 0),
        version INTEGER NOT NULL CHECK (version >= 0),
        initial_quantity INTEGER NOT NULL CHECK (initial_quantity >= 0),
        {CRC_COLUMN}
    ) STRICT, WITHOUT ROWID;
    {trades_table("kept_trades")}
    CREATE TABLE IF NOT EXISTS refused_orders (
        position INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        side TEXT NOT NULL CHECK (side IN ('buy', 'sell')),
        quantity INTEGER NOT NULL,
        refusal TEXT NOT NULL,
        at_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS changes (
        number INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        price_cents INTEGER NOT NULL,
        quantity INTEGER NOT NULL,
        version INTEGER NOT NULL,
        at_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS refused_changes (
        position INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        price_cents INTEGER NOT NULL,
        quantity INTEGER NOT NULL,
        refusal TEXT NOT NULL,
        at_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS epoch (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        fence INTEGER NOT NULL,
        batch_number INTEGER NOT NULL,
        batch_outcomes BLOB NOT NULL,
        recorded INTEGER NOT NULL CHECK (recorded <= last_number),
        last_number INTEGER NOT NULL,
        last_at_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS refusal_bounds (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        keys_max INTEGER NOT NULL,
        age_ms INTEGER NOT NULL
    ) STRICT;
    """

    def __init__(self, refused_keys_max: int, refused_keys_s: float) -> None:
        self._refused_keys_max = refused_keys_max
        self._refused_keys_s = refused_keys_s

    def save(self, connection: sqlite3.Connection, changes: Sequence[object]) -> None:
        """Store what some commands changed, in the sequence in which they were applied."""
        made = [change for change in changes if isinstance(change, Change)]
        if len(made) != len(changes):
            raise BrokenInvariant("a change of another group came to the catalog's tables")
        if made:
            _save_stocks(connection, made)
            _save_trades(connection, made)
            _save_refused(connection, made)
            _save_administered(connection, made)
            _save_epoch(connection, made[-1])
            _save_bounds(connection, made)

    def upkeep(self, connection: sqlite3.Connection) -> None:
        """Nothing to do."""

    def extent(self, connection: sqlite3.Connection) -> tuple[int | str, ...]:
        """The epoch, how many trades are kept, and the last change."""
        epoch = connection.execute(_EPOCH).fetchone() or ()
        (kept,) = connection.execute("SELECT count(*) FROM kept_trades").fetchone()
        (change,) = connection.execute("SELECT max(number) FROM changes").fetchone()
        return (*epoch, kept, change or 0)

    def load(self, connection: sqlite3.Connection, digest: bytes) -> CatalogState:
        """The state that the tables hold. Raises CorruptTables when rows do not fit together, or
        SQLite finds damage. All rows are checked: they are a few megabytes.
        """
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise CorruptTables(found)
        add_checksums(connection, "stocks", "kept_trades")
        changes = _changes(connection)
        halted = halted_names(keyed.change for keyed in changes)
        stocks = connection.execute(f"{_STOCKS} ORDER BY name")
        refused = connection.execute("SELECT * FROM refused_orders ORDER BY position")
        rows = CatalogRows(
            tuple(Stock._make((*checked(row), row[0] in halted)) for row in stocks),
            tuple(to_trade(row) for row in connection.execute(_KEPT)),
            tuple(_refused(row) for row in refused),
            *_epoch(connection),
            digest,
            changes,
            _refused_changes(connection),
            self._bounds(connection),
        )
        return CatalogState(self._refused_keys_max, self._refused_keys_s, rows)

    def _bounds(self, connection: sqlite3.Connection) -> RefusalBounds | None:
        """The log's own bounds, if it has any; warns if others are configured now."""
        row = connection.execute("SELECT keys_max, age_ms FROM refusal_bounds").fetchone()
        if row is None:
            return None
        bounds = RefusalBounds(*row)
        if bounds != RefusalBounds.of(self._refused_keys_max, self._refused_keys_s):
            self._log.warn(
                "refused_keys_max and refused_keys_s have no effect: "
                "the catalog began with {keys_max} and {age_s}",
                keys_max=bounds.keys_max,
                age_s=bounds.age_ms / 1000,
            )
        return bounds


def _save_stocks(connection: sqlite3.Connection, changes: Iterable[Change]) -> None:
    latest = {stock.name: stock for change in changes for stock in change.stocks}
    connection.executemany(_STOCK, (summed(stock[:-1]) for stock in latest.values()))


def _save_trades(connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
    """Add what was executed and is still to be recorded, drop what is recorded now."""
    recorded = changes[-1].recorded
    connection.execute("DELETE FROM kept_trades WHERE number <= ?", (recorded,))
    executed = (trade for change in changes for trade in change.executed)
    connection.executemany(
        _TRADE,
        (trade_row(trade) for trade in executed if trade.number > recorded),
    )


def _save_refused(connection: sqlite3.Connection, changes: Iterable[Change]) -> None:
    """Add and drop in sequence: a key may be evicted, and come again, within one transaction."""
    for change in changes:
        connection.executemany(
            "DELETE FROM refused_orders WHERE key = ?", ((key,) for key in change.evicted)
        )
        connection.executemany(
            _REFUSED,
            ((*_order(r.order), r.refusal.value, r.at_ms) for r in change.refused),
        )


def _save_administered(connection: sqlite3.Connection, changes: Iterable[Change]) -> None:
    """Add and drop in sequence, as for orders."""
    for administered in (change.administered for change in changes):
        if administered is NOT_ADMINISTERED:
            continue
        connection.executemany(
            "DELETE FROM refused_changes WHERE key = ?", ((key,) for key in administered.evicted)
        )
        connection.executemany(
            _REFUSED_CHANGE,
            ((*_request(r.request), r.refusal.value, r.at_ms) for r in administered.refused),
        )
        connection.executemany(
            _CHANGE,
            ((c.number, key, c.kind.value, *c[2:]) for key, c in administered.made),
        )


def _save_epoch(connection: sqlite3.Connection, change: Change) -> None:
    outcomes = encode_decided(change.batch.orders, change.batch.outcomes)
    connection.execute(
        "INSERT OR REPLACE INTO epoch VALUES (1, ?, ?, ?, ?, ?, ?)",
        (
            change.fence,
            change.batch.number,
            outcomes,
            change.recorded,
            change.last_number,
            change.last_at_ms,
        ),
    )


def _save_bounds(connection: sqlite3.Connection, changes: Iterable[Change]) -> None:
    for bounds in (change.bounds for change in changes if change.bounds is not None):
        connection.execute("INSERT OR REPLACE INTO refusal_bounds VALUES (1, ?, ?)", bounds)


def _epoch(connection: sqlite3.Connection) -> tuple[int, AppliedBatch, int, int, int]:
    row = connection.execute("SELECT * FROM epoch").fetchone()
    if row is None:
        return 0, AppliedBatch(), 0, 0, 0
    _, fence, number, outcomes, recorded, last_number, last_at_ms = row
    return fence, AppliedBatch(number, *decode_decided(outcomes)), recorded, last_number, last_at_ms


def _order(order: Order) -> tuple[str, str, str, int]:
    return order.key, order.name, order.side.value, order.quantity


def _refused(row: tuple[int, str, str, str, int, str, int]) -> RefusedOrder:
    _, key, name, side, quantity, refusal, at_ms = row
    return RefusedOrder(Order(key, name, Side(side), quantity), Refusal(refusal), at_ms)


def _request(request: ChangeRequest) -> tuple[str, str, str, int, int]:
    key, kind, name, price_cents, quantity = request
    return key, kind.value, name, price_cents, quantity


def _changes(connection: sqlite3.Connection) -> tuple[KeyedChange, ...]:
    rows = connection.execute("SELECT * FROM changes ORDER BY number")
    return tuple(
        KeyedChange(key, StockChange(number, ChangeKind(kind), *fields))
        for number, key, kind, *fields in rows
    )


def _refused_changes(connection: sqlite3.Connection) -> tuple[RefusedChange, ...]:
    rows = connection.execute("SELECT * FROM refused_changes ORDER BY position")
    return tuple(
        RefusedChange(
            ChangeRequest(key, ChangeKind(kind), name, price_cents, quantity),
            ChangeRefusal(refusal),
            at_ms,
        )
        for _, key, kind, name, price_cents, quantity, refusal, at_ms in rows
    )
