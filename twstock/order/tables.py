"""The orders in SQLite: by number, and by key for retries that come years later."""

import sqlite3
from collections.abc import Iterable, Sequence

from twstock.market import Trade
from twstock.order import oldkeys
from twstock.order.oldkeys import OldKeys
from twstock.order.state import OrderState
from twstock.rows import (
    TRADE_COLUMNS,
    TRADE_MARKS,
    add_checksums,
    check_gapless,
    to_trade,
    trade_row,
    trades_table,
)

_SELECT = f"SELECT {TRADE_COLUMNS} FROM orders"  # noqa: S608
_KEYS_PER_QUERY = 500


class OrderTables:
    """Implements the database's ``Tables``. ``old_keys`` filters the keys of the orders in them."""

    schema = trades_table("orders") + oldkeys.SCHEMA

    def __init__(self, recent_max: int) -> None:
        self._recent_max = recent_max
        self.old_keys = OldKeys()

    def save(self, connection: sqlite3.Connection, changes: Sequence[object]) -> None:
        """Insert the orders of some entries; each number and key is inserted once ever."""
        trades = [trade for some in changes for trade in some]  # type: ignore[attr-defined]
        connection.executemany(
            f"INSERT INTO orders ({TRADE_COLUMNS}) VALUES ({TRADE_MARKS})",  # noqa: S608
            map(trade_row, trades),
        )
        self.old_keys.add(trades)

    def upkeep(self, connection: sqlite3.Connection) -> None:
        """Store the filter of keys for the next start."""
        self.old_keys.store(connection)

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
        last = to_trade(row).number if row else 0
        self.old_keys.load(connection, last)
        return OrderState(last, digest, self._recent_max, self.old_keys.may_have)


def by_number(connection: sqlite3.Connection, number: int) -> Trade:
    """The order of a number, which must be there. Raises CorruptTables when it is not."""
    (found,) = page(connection, number - 1, 1, least=1)
    return found


def page(connection: sqlite3.Connection, after: int, limit: int, least: int = 0) -> list[Trade]:
    """Up to ``limit`` orders with numbers above ``after``, in sequence; the first ``least`` of them
    have to be there. Raises CorruptTables when one is damaged or missing.
    """
    query = f"{_SELECT} WHERE number > ? ORDER BY number LIMIT ?"
    rows = connection.execute(query, (after, limit))
    found = [to_trade(row) for row in rows]
    check_gapless([trade.number for trade in found], after + 1, least)
    return found


def by_keys(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, Trade]:
    """The orders that have one of these keys. Raises CorruptTables."""
    wanted, found = list(keys), {}
    for start in range(0, len(wanted), _KEYS_PER_QUERY):
        some = wanted[start : start + _KEYS_PER_QUERY]
        marks = ", ".join("?" * len(some))
        for row in connection.execute(f"{_SELECT} WHERE key IN ({marks})", some):
            found[row[1]] = to_trade(row)
    return found
