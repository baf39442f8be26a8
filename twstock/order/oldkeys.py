"""The filter of the keys of all orders in the tables, which the tables store for the next start.

With millions of orders it takes minutes to read their keys, and until then every key would have to
be looked up. So the tables store the filter, too, and only the keys of the last orders are read.
"""

import sqlite3
import sys
from collections.abc import Sequence
from zlib import crc32

from twstock.errors import CorruptTables
from twstock.market import Trade
from twstock.order.keyfilter import PART_BYTES, PARTS, KeyFilter
from twstock.rows import TRADE_COLUMNS, check_gapless, checked

SCHEMA = """
CREATE TABLE IF NOT EXISTS key_filter (
    part INTEGER PRIMARY KEY, through INTEGER NOT NULL, bits BLOB NOT NULL, crc INTEGER NOT NULL
) STRICT;
"""
"""A part covers the orders 1 to ``through``, and perhaps some later ones."""

STORE_EVERY = 1 << 17
"""A part is stored again after this many orders. That writes 128 bytes for each order, and about as
many keys have to be read after a start, which takes a few seconds."""
PARTS_AT_ONCE = 8
"""The most parts that one save stores: 2 MiB, so that the log does not wait for the disk."""


class OldKeys:
    """Which keys the orders in the tables may have. After ``load`` only the tables' thread changes
    it; any thread may call ``may_have``, also while orders are being saved.
    """

    def __init__(self) -> None:
        self._filter = KeyFilter()
        # Of the orders in the tables at the start, the filter lacks the first number to the second.
        self._unread, self._loaded = 1, 0
        # The newest order in the tables; up to which order each part is stored; the next to store.
        self._newest = 0
        self._through = [0] * PARTS
        self._turn = 0

    @property
    def is_complete(self) -> bool:
        """Whether the filter has the keys of all orders in the tables."""
        return self._unread > self._loaded

    def may_have(self, key: str) -> bool:
        """Whether an order in the tables may have this key; False is certain."""
        return not self.is_complete or self._filter.may_have(key)

    def load(self, connection: sqlite3.Connection, last: int) -> None:
        """Load the parts from the tables, whose last order is ``last``. Raises CorruptTables."""
        self._through = [0] * PARTS
        for part, through, bits, crc in connection.execute("SELECT * FROM key_filter"):
            fits = part in range(PARTS) and len(bits) == PART_BYTES and through <= last
            if not fits or crc != _checksum(part, through, bits):
                raise CorruptTables(f"part {part} of the key filter is damaged")
            self._filter.restore(part, bits)
            self._through[part] = through
        # Any key may belong to the oldest part, so all keys after its last order are read.
        whole = min(self._through)
        self._turn = self._through.index(whole)
        self._unread, self._loaded, self._newest = whole + 1, last, last

    def read(self, connection: sqlite3.Connection, limit: int) -> None:
        """Read up to ``limit`` of the keys that the filter lacks. Raises CorruptTables when a row
        is damaged or missing: without its key, a retry would pass for new.
        """
        wanted = min(limit, self._loaded + 1 - self._unread)
        query = f"SELECT {TRADE_COLUMNS} FROM orders WHERE number >= ? ORDER BY number LIMIT ?"  # noqa: S608
        rows = [checked(row) for row in connection.execute(query, (self._unread, wanted))]
        check_gapless([row[0] for row in rows], self._unread, least=wanted)
        self._filter.add(row[1] for row in rows)
        self._unread += wanted

    def add(self, trades: Sequence[Trade]) -> None:
        """Add the keys of orders that are being saved."""
        self._filter.add(trade.order.key for trade in trades)
        if trades:
            self._newest = trades[-1].number

    def store(self, connection: sqlite3.Connection) -> None:
        """Store the parts that are due, in the open transaction. If that fails (the disk is full,
        say), they are due again after another ``STORE_EVERY`` orders.
        """
        for _ in range(PARTS_AT_ONCE if self.is_complete else 0):
            part = self._turn
            if self._newest - self._through[part] < STORE_EVERY:
                return
            bits = self._filter.part(part)
            row = part, self._newest, bits, _checksum(part, self._newest, bits)
            connection.execute("INSERT OR REPLACE INTO key_filter VALUES (?, ?, ?, ?)", row)
            self._through[part] = self._newest
            self._turn = (part + 1) % PARTS


def _checksum(part: int, through: int, bits: bytes) -> int:
    # Words are in this machine's byte order, so parts of a machine with the other do not match.
    return crc32(bits, crc32(f"{part} {through} {sys.byteorder}".encode()))
