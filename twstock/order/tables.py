"""The orders in SQLite: by number, and by key for retries that come years later."""

import sqlite3
from collections.abc import Iterable, Sequence

from twstock.market import Order, Side, Trade
from twstock.order.state import OrderState

_COLUMNS = "number, key, name, side, quantity, version, price_cents, at_ms"
_KEYS_PER_QUERY = 500


class OrderTables:
    """Implements the database's ``Tables``."""

    schema = """
    CREATE TABLE IF NOT EXISTS orders (
        number INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        side TEXT NOT NULL CHECK (side IN ('buy', 'sell')),
        quantity INTEGER NOT NULL CHECK (quantity > 0),
        version INTEGER NOT NULL,
        price_cents INTEGER NOT NULL,
        at_ms INTEGER NOT NULL
    ) STRICT;
    """

    def __init__(self, recent_max: int) -> None:
        self._recent_max = recent_max

    def save(self, connection: sqlite3.Connection, changes: Sequence[object]) -> None:
        """Insert the orders of some entries; each number and key is inserted once ever."""
        connection.executemany(
            f"INSERT INTO orders ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            (_row(trade) for trades in changes for trade in trades),  # type: ignore[attr-defined]
        )

    def load(self, connection: sqlite3.Connection, digest: bytes) -> OrderState:
        """The state that the tables hold."""
        row = connection.execute("SELECT coalesce(max(number), 0) FROM orders").fetchone()
        return OrderState(row[0], digest, self._recent_max)


def by_number(connection: sqlite3.Connection, number: int) -> Trade | None:
    """The order of a number."""
    found = page(connection, number - 1, 1)
    return found[0] if found and found[0].number == number else None


def page(connection: sqlite3.Connection, after: int, limit: int) -> list[Trade]:
    """Up to ``limit`` orders with numbers above ``after``, in sequence."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM orders WHERE number > ? ORDER BY number LIMIT ?",  # noqa: S608
        (after, limit),
    )
    return [_trade(row) for row in rows]


def keys_after(connection: sqlite3.Connection, after: int, limit: int) -> list[str]:
    """The keys of up to ``limit`` orders with numbers above ``after``, in sequence."""
    query = "SELECT key FROM orders WHERE number > ? ORDER BY number LIMIT ?"
    return [key for (key,) in connection.execute(query, (after, limit))]


def by_keys(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, Trade]:
    """The orders that have one of these keys."""
    wanted, found = list(keys), {}
    for start in range(0, len(wanted), _KEYS_PER_QUERY):
        some = wanted[start : start + _KEYS_PER_QUERY]
        marks = ", ".join("?" * len(some))
        query = f"SELECT {_COLUMNS} FROM orders WHERE key IN ({marks})"  # noqa: S608
        for row in connection.execute(query, some):
            found[row[1]] = _trade(row)
    return found


def _row(trade: Trade) -> tuple[object, ...]:
    number, (key, name, side, quantity), version, price_cents, at_ms = trade
    return number, key, name, str(side), quantity, version, price_cents, at_ms


def _trade(row: tuple[int, str, str, str, int, int, int, int]) -> Trade:
    number, key, name, side, quantity, version, price_cents, at_ms = row
    return Trade(number, Order(key, name, Side(side), quantity), version, price_cents, at_ms)
