"""The applied state on disk: SQLite, one connection, in one thread.

SQLite is never the only copy of a promise: the log is, and this file can be rebuilt from it.
So it runs with ``synchronous=NORMAL``; the applied index is in the same transaction as the
rows that it speaks of. One connection per file, always (SQLite's WAL-reset defect, fixed in
3.51.3, needs two).
"""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twstock.errors import StorageError
from twstock.process import Threads, in_thread

T = TypeVar("T")
FULL_PAUSE_S = 1.0
"""How long to wait between two tries to save on a full disk: each takes all that waits."""
SAVE_EVERY_S = 0.1
"""How much time is saved in one transaction. Nobody waits for it: after a crash the log has what
is missing, and each transaction costs as much as saving ten orders."""
_APPLIED = """
CREATE TABLE IF NOT EXISTS applied (
    one INTEGER PRIMARY KEY CHECK (one = 1), position INTEGER NOT NULL, digest BLOB NOT NULL
) STRICT
"""


class Tables(Protocol):
    """What a tier keeps in its database."""

    schema: str
    """Statements that make the tables where they are missing."""

    def save(self, connection: sqlite3.Connection, changes: Sequence[object]) -> None:
        """Store changes, in order, inside the transaction that is open."""


class Database:
    """Saves what was applied since it last saved, in one transaction."""

    def __init__(
        self,
        path: Path,
        tables: Tables,
        threads: Threads,
        deliver: Callable[..., None],
        panic: Callable[[Failure], None],
    ) -> None:
        self._path = path
        self._tables = tables
        self._threads = threads
        self._deliver = deliver
        self._panic = panic
        self._waiting: list[object] = []
        self._latest: tuple[int, bytes] = (0, b"")
        self._saving = False
        self._retry_at = 0.0
        self._save_at = 0.0
        self.full = False
        self.saved_index = 0
        self.on_saved: Callable[[int], None] = lambda _index: None

    @property
    def backlog(self) -> int:
        """How many changes are not saved yet."""
        return self._latest[0] - self.saved_index

    def open(self) -> tuple[int, bytes]:
        """Open or make the file (blocks); returns the applied index and the state's digest."""
        self._connection = sqlite3.connect(
            self._path, check_same_thread=False, isolation_level=None
        )
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(_APPLIED)
            self._connection.executescript(self._tables.schema)
            row = self._connection.execute("SELECT position, digest FROM applied").fetchone()
        except sqlite3.DatabaseError as error:
            raise StorageError(
                f"{self._path}: {error}; it can be deleted, the log rebuilds it"
            ) from None
        self._latest = (row[0], bytes(row[1])) if row else (0, b"")
        self.saved_index = self._latest[0]
        return self._latest

    @property
    def connection(self) -> sqlite3.Connection:
        """The one connection, for loading at start; later only inside ``read``."""
        return self._connection

    def record(self, index: int, digest: bytes, change: object) -> None:
        """Remember that an entry was applied, and what it changed (None: nothing)."""
        self._latest = (index, digest)
        if change is not None:
            self._waiting.append(change)

    def read(self, query: Callable[[sqlite3.Connection], T]) -> "Deferred[T]":
        """Run a query in the database's thread, after everything saved so far."""
        return in_thread(self._threads, self._deliver, lambda: query(self._connection))

    def close(self) -> None:
        """Close the file (blocks); what is not saved is applied again from the log."""
        self._connection.close()

    def save(self, now: float) -> None:
        """Save what waits; called at every tick. Not when it is recorded: nobody waits for it,
        and its thread would compete with the answer to the command. What a full disk refused
        is tried again after a pause.
        """
        if self.full and now >= self._retry_at:
            self._retry_at = now + FULL_PAUSE_S
            self.full = False
            self._saving = False
        if self._latest[0] > self.saved_index and not self._saving and now >= self._save_at:
            self._save_at = now + SAVE_EVERY_S
            self._start()

    def _start(self) -> None:
        self._saving = True
        changes, self._waiting = self._waiting, []
        self._threads.callInThread(self._save, self._latest, changes)

    def _save(self, latest: tuple[int, bytes], changes: list[object]) -> None:
        """In the thread: one transaction."""
        connection = self._connection
        try:
            connection.execute("BEGIN")
            self._tables.save(connection, changes)
            connection.execute("INSERT OR REPLACE INTO applied VALUES (1, ?, ?)", latest)
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                self._deliver(self._panic, Failure())
                return
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._deliver(self._postpone, changes)
        except Exception:
            self._deliver(self._panic, Failure())
        else:
            self._deliver(self._saved, latest[0])

    def _postpone(self, changes: list[object]) -> None:
        """The disk is full: the changes stay in memory until ``save`` tries again; the log has
        them.
        """
        self._waiting = changes + self._waiting
        self.full = True

    def _saved(self, index: int) -> None:
        self._saving = False
        self.saved_index = index
        self.on_saved(index)
