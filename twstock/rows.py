"""Rows in SQLite that answers rest on, each with a checksum of its own.

SQLite does not notice a flipped bit in its data file. So the checksum of such a row, a CRC-32,
which detects every change of one bit, is compared whenever the row is read, before it is used. The
tables of trades, which both groups keep, are defined here completely.
"""

import sqlite3
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any
from zlib import crc32

from twstock.errors import CorruptTables
from twstock.market import SIDES, Order, Trade

TRADE_COLUMNS = "number, key, name, side, quantity, version, price_cents, at_ms, crc"
TRADE_MARKS = "?, ?, ?, ?, ?, ?, ?, ?, ?"
CRC_COLUMN = "crc INTEGER"
"""NULL in rows that were written before there were checksums: they are not checked."""
PIECE_ROWS = 500
"""How many rows are checked without a rest: about two milliseconds."""
_WITH_CHECKSUMS = """
SELECT t.name FROM sqlite_master AS t JOIN pragma_table_info(t.name) AS c
WHERE t.type = 'table' AND c.name = 'crc' AND t.name <> 'applied'
"""
"""All tables of rows whose last column is the checksum of the others."""

Row = tuple[int | str, ...]


def trades_table(name: str) -> str:
    """The statement that creates a table of trades unless it exists."""
    return f"""
    CREATE TABLE IF NOT EXISTS {name} (
        number INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        side TEXT NOT NULL CHECK (side IN ('buy', 'sell')),
        quantity INTEGER NOT NULL CHECK (quantity > 0),
        version INTEGER NOT NULL,
        price_cents INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        {CRC_COLUMN}
    ) STRICT;
    """


def add_checksums(connection: sqlite3.Connection, *tables: str) -> None:
    """Add the column of checksums to tables that were made without it."""
    for table in tables:
        columns = connection.execute(f"SELECT name FROM pragma_table_info('{table}')")  # noqa: S608
        if ("crc",) not in columns.fetchall():
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {CRC_COLUMN}")


def checksum(values: Row) -> int:
    """The CRC-32 of a row's values as Python's ``ascii`` writes them, because what counts as
    printable beyond ASCII differs between Python versions. Both functions are written in C: this
    runs for every order that is saved.
    """
    return crc32(ascii(values).encode())


def summed(values: Row) -> Row:
    """A row as it is stored: its values, then their checksum."""
    return (*values, checksum(values))


def checked(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values of a row that was read. Raises CorruptTables if they are not what was stored."""
    values, crc = row[:-1], row[-1]
    if crc is not None and crc != checksum(values):
        raise CorruptTables(f"the row of {row[0]!r} is damaged")
    return values


def check_rows(connection: sqlite3.Connection, rest: Callable[[], None]) -> None:
    """Check every row that has a checksum, and have SQLite check its own structures, which finds
    lost rows. Raises CorruptTables: a copy of such a database would look intact. ``rest`` is called
    now and then, to let other threads have the interpreter.
    """
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise CorruptTables(found)
    for (table,) in connection.execute(_WITH_CHECKSUMS).fetchall():
        rows = connection.execute(f"SELECT * FROM {table}")  # noqa: S608
        while piece := rows.fetchmany(PIECE_ROWS):
            for row in piece:
                checked(row)
            rest()


def check_gapless(numbers: Sequence[int], first: int, least: int = 0) -> None:
    """Raise CorruptTables unless these are the numbers from ``first`` on without a gap, and there
    are at least ``least`` of them.
    """
    wanted = range(first, first + max(len(numbers), least))
    for number, found in zip_longest(wanted, numbers):
        if found != number:
            raise CorruptTables(f"the row of {number} is missing")


def trade_row(trade: Trade) -> Row:
    """A trade as it is stored, in the order of ``TRADE_COLUMNS``."""
    number, (key, name, side, quantity), version, price_cents, at_ms = trade
    return summed((number, key, name, str(side), quantity, version, price_cents, at_ms))


def to_trade(row: tuple[Any, ...]) -> Trade:
    """The trade of a row. Raises CorruptTables."""
    number, key, name, word, quantity, version, price_cents, at_ms = checked(row)
    side = SIDES.get(word)
    if side is None:
        raise CorruptTables(f"the row of {number!r} has no side")
    return Trade(number, Order(key, name, side, quantity), version, price_cents, at_ms)
