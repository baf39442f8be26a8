"""The orders in SQLite: by number, and by key for retries that come years later."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from twstock.errors import CorruptTables
from twstock.market import Trade
from twstock.order.state import OrderState
from twstock.rows import (
    TRADE_COLUMNS,
    TRADE_MARKS,
    add_checksums,
    checked,
    to_trade,
    trade_row,
    trades_table,
)

_SELECT = f"SELECT {TRADE_COLUMNS} FROM orders"  # noqa: S608
_KEYS_PER_QUERY = 500


class OrderTables:
    """Implements the database's ``Tables``."""

    schema = trades_table("orders")

    def __init__(self, recent_max: int) -> None:
        self._recent_max = recent_max

    def save(self, connection: sqlite3.Connection, changes: Sequence[object]) -> None:
        """Insert the orders of some entries; each number and key is inserted once ever."""
        connection.executemany(
            f"INSERT INTO orders ({TRADE_COLUMNS}) VALUES ({TRADE_MARKS})",  # noqa: S608
            (trade_row(trade) for trades in changes for trade in trades),  # type: ignore[attr-defined]
        )

    def extent(self, connection: sqlite3.Connection) -> tuple[int, ...]:
        """The number of the last order."""
        (last,) = connection.execute("SELECT max(number) FROM orders").fetchone()
        return (last or 0,)

    def load(self, connection: sqlite3.Connection, digest: bytes) -> OrderState:
        """The state that the tables hold. Raises CorruptTables when the last order is damaged; the
        others are checked when they are read.
        """
        add_checksums(connection, "orders")
        row = connection.execute(f"{_SELECT} ORDER BY number DESC LIMIT 1").fetchone()
        return OrderState(to_trade(row).number if row else 0, digest, self._recent_max)


def by_number(connection: sqlite3.Connection, number: int) -> Trade:
    """The order of a number, which is there. Raises CorruptTables when it is not."""
    found = page(connection, number - 1, 1)
    if not found:
        raise CorruptTables(f"the row of {number} is missing")
    return found[0]


def page(connection: sqlite3.Connection, after: int, limit: int) -> list[Trade]:
    """Up to ``limit`` orders with numbers above ``after``, in sequence. Raises CorruptTables when
    one is damaged or missing.
    """
    return [to_trade(row) for row in _rows(connection, after, limit)]


def keys_after(connection: sqlite3.Connection, after: int, limit: int) -> list[str]:
    """The keys of up to ``limit`` orders with numbers above ``after``, in sequence. Raises
    CorruptTables when one is damaged or missing: without its key, a retry would pass for new.
    """
    return [str(checked(row)[1]) for row in _rows(connection, after, limit)]


def by_keys(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, Trade]:
    """The orders that have one of these keys. Raises CorruptTables."""
    wanted, found = list(keys), {}
    for start in range(0, len(wanted), _KEYS_PER_QUERY):
        some = wanted[start : start + _KEYS_PER_QUERY]
        marks = ", ".join("?" * len(some))
        for row in connection.execute(f"{_SELECT} WHERE key IN ({marks})", some):
            found[row[1]] = to_trade(row)
    return found


def _rows(connection: sqlite3.Connection, after: int, limit: int) -> Iterator[tuple[Any, ...]]:
    """Rows in sequence, which has no gap: one that is not there is damage, too."""
    query = f"{_SELECT} WHERE number > ? ORDER BY number LIMIT ?"
    for number, row in enumerate(connection.execute(query, (after, limit)), after + 1):
        if row[0] != number:
            raise CorruptTables(f"the row of {number} is missing")
        yield row
