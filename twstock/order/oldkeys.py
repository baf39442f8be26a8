"""The filter of the keys of all orders in the tables, and its copy there for the next start.

A replica with millions of orders would read their keys for minutes, and look every key up until
it has them all. So the tables have the filter, too, and only the keys of the last orders are read.
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
"""A part has what it needs of the orders 1 to ``through``, and perhaps of later ones."""

STORE_EVERY = 1 << 17
"""After so many orders a part is stored again. That writes 128 bytes for each order, and as many
keys have to be read after the next start, which takes a few seconds."""
PARTS_AT_ONCE = 8
"""How many parts are stored after one save: two MiB, so that the log does not wait for the disk."""


class OldKeys:
    """Which keys the orders in the tables may have. The thread of the tables changes it, after
    ``load``; any may ask ``may_have``, also about orders that are being saved.
    """

    def __init__(self) -> None:
        self._filter = KeyFilter()
        # Of the orders that the tables began with, it lacks those from one to another.
        self._unread, self._loaded = 1, 0
        # The newest order in the tables, up to which one each part is stored, and whose turn it is.
        self._newest = 0
        self._through = [0] * PARTS
        self._turn = 0

    @property
    def is_complete(self) -> bool:
        """Whether no key has to be read any more."""
        return self._unread > self._loaded

    def may_have(self, key: str) -> bool:
        """False: no order in the tables has this key."""
        return not self.is_complete or self._filter.may_have(key)

    def load(self, connection: sqlite3.Connection, last: int) -> None:
        """Begin with what the tables have, whose last order is ``last``. Raises CorruptTables."""
        self._through = [0] * PARTS
        for part, through, bits, crc in connection.execute("SELECT * FROM key_filter"):
            fits = part in range(PARTS) and len(bits) == PART_BYTES and through <= last
            if not fits or crc != _checksum(part, through, bits):
                raise CorruptTables(f"part {part} of the key filter is damaged")
            self._filter.restore(part, bits)
            self._through[part] = through
        # What a part lacks may be any key, so all from there on are read.
        whole = min(self._through)
        self._turn = self._through.index(whole)
        self._unread, self._loaded, self._newest = whole + 1, last, last

    def read(self, connection: sqlite3.Connection, limit: int) -> None:
        """Learn up to ``limit`` keys of orders that it lacks. Raises CorruptTables when a row is
        damaged or missing: without its key, a retry would pass for new.
        """
        wanted = min(limit, self._loaded + 1 - self._unread)
        query = f"SELECT {TRADE_COLUMNS} FROM orders WHERE number >= ? ORDER BY number LIMIT ?"  # noqa: S608
        rows = [checked(row) for row in connection.execute(query, (self._unread, wanted))]
        check_gapless([row[0] for row in rows], self._unread, least=wanted)
        self._filter.add(row[1] for row in rows)
        self._unread += wanted

    def add(self, trades: Sequence[Trade]) -> None:
        """These orders are being saved."""
        self._filter.add(trade.order.key for trade in trades)
        if trades:
            self._newest = trades[-1].number

    def store(self, connection: sqlite3.Connection) -> None:
        """Store the parts that are due, in the transaction that is open. If it comes to nothing, as
        on a full disk, their next turn is after as many orders again.
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
    # Words are as this machine has them: those of another kind of machine are not believed.
    return crc32(bits, crc32(f"{part} {through} {sys.byteorder}".encode()))
