"""The applied state on disk: SQLite, one connection, in one thread.

SQLite never has the only copy of a promise: the file can be rebuilt from the log, and from a
snapshot for the entries that the log has dropped. So ``synchronous=NORMAL`` is enough. The applied
index is in the same transaction as the rows that it covers. There is never more than one connection
per file (SQLite's WAL-reset defect, fixed in 3.51.3, needs two).
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twstock.errors import CorruptTables, StorageUnavailable, TwstockError, Unavailable
from twstock.replication.compaction import TermRun
from twstock.replication.disk import has_no_room, is_full
from twstock.replication.snapshots import Snapshot, Snapshots
from twstock.replication.tier import StateMachine, Tables
from twstock.rows import add_checksums, check_rows, checksum
from twstock.threads import Threads, in_thread

T = TypeVar("T")
FULL_PAUSE_S = 1.0
"""How long to wait before saving is tried again on a full disk: each try writes all that waits."""
SAVE_EVERY_S = 0.1
"""The shortest time between two saves. Nobody waits for them: after a crash the log has what is
missing, and each transaction costs as much as saving ten orders."""
REST_S = 0.004
"""How long a check of all rows pauses after each piece, so that other threads can run."""
_MAY_BE_FULL = frozenset(
    {
        sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP,
        sqlite3.SQLITE_CANTOPEN,
    }
)  # fmt: skip
"""How SQLite reports a used-up quota, a full disk when its shared memory has to grow, and a disk
that takes no more files. A failed flush is not among them: nothing is tried again after one."""
_PRIMARY_CODE = 0xFF
"""The bits of an extended result code that hold the primary one."""
_MAY_PASS = frozenset(
    {
        sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_INTERRUPT,
    }
)  # fmt: skip
"""Errors that may pass, and say nothing about what the file holds."""
_APPLIED = """
CREATE TABLE IF NOT EXISTS applied (
    one INTEGER PRIMARY KEY CHECK (one = 1), position INTEGER NOT NULL, digest BLOB NOT NULL
) STRICT
"""


class Database:
    """Saves applied changes, all that wait in one transaction. ``has_no_room`` (blocks) returns
    whether writing into a directory fails for lack of space.

    ``on_saved`` is called with the index up to which everything is saved; ``Member.serve`` sets it.
    ``snapshots`` are those from which the file can be rebuilt; None: the log has all entries.
    ``unread_snapshot``: why a snapshot could not be read that may be intact, and may not be needed.
    """

    _log = Logger()

    def __init__(
        self,
        path: Path,
        tables: Tables,
        threads: Threads,
        deliver: Callable[..., None],
        panic: Callable[[Failure], None],
        has_no_room: Callable[[Path], bool] = has_no_room,
        snapshots: Snapshots | None = None,
    ) -> None:
        self.snapshots = snapshots
        self.unread_snapshot: OSError | None = None
        self._path = path
        self._tables = tables
        self._threads = threads
        self._deliver = deliver
        self._panic = panic
        self._has_no_room = has_no_room
        self._connection: sqlite3.Connection | None = None
        self._waiting: list[object] = []
        self._latest: tuple[int, bytes] = (0, b"")
        self._saving = self._stopping = False
        self._retry_at = 0.0
        self._save_at = 0.0
        self.full = False
        self.saved_index = 0
        self.on_saved: Callable[[int], None] = lambda _index: None

    @property
    def backlog(self) -> int:
        """How many log entries are applied and not saved yet, whatever they changed."""
        return self._latest[0] - self.saved_index

    def open(self) -> tuple[int, bytes]:
        """Open or create the file (blocks); returns the applied index and the state's digest.

        Raises CorruptTables if it is damaged, StorageUnavailable if it cannot be opened now.
        """
        self._connect()
        if self.snapshots is not None:
            with _translating_errors(self._path):
                is_behind = max(self.snapshots.indices(), default=0) > self.saved_index
                snapshot = self._newest(self.snapshots) if is_behind else None
            if snapshot is not None and snapshot.index > self.saved_index:
                self._begin_with(snapshot)
        return self._latest

    def _newest(self, snapshots: Snapshots) -> Snapshot | None:
        try:
            return snapshots.newest()
        except OSError as error:
            self.unread_snapshot = error
            return None

    def _connect(self) -> None:
        with _translating_errors(self._path):
            connection = self._connection = sqlite3.connect(
                self._path, check_same_thread=False, isolation_level=None
            )
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(_APPLIED)
            connection.executescript(self._tables.schema)
            add_checksums(connection, "applied")
            self._latest = self._read_applied(connection)
        self.saved_index = self._latest[0]

    def _begin_with(self, snapshot: Snapshot) -> None:
        """Replace the file by a snapshot: it is new, or a power cut took its last transactions, and
        the log may no longer have the entries that it lacks.
        """
        self.close()
        with _translating_errors(self._path):
            snapshot.extract(self._path)
        self._connect()

    def _read_applied(self, connection: sqlite3.Connection) -> tuple[int, bytes]:
        """The applied index, and the state's digest there. Raises CorruptTables if the record is
        damaged: with a wrong index, entries would be applied twice, or never.
        """
        row = connection.execute("SELECT position, digest, crc FROM applied").fetchone()
        extent = self._tables.extent(connection)
        if row is None and not any(extent):
            return 0, b""
        position, digest, crc = row or (None, None, None)
        if not (isinstance(position, int) and position >= 0 and isinstance(digest, bytes)):
            raise CorruptTables("the record of what is applied is damaged")
        if crc not in (None, checksum((position, digest.hex(), *extent))):
            raise CorruptTables("the record of what is applied is damaged, or what it speaks of")
        return position, digest

    def load(self) -> "Deferred[tuple[int, StateMachine]]":
        """Open the file and read the state, in the database's thread, because a large state would
        block the reactor for long. Fires with the applied index and the state machine; fails like
        ``open``, and with CorruptTables when rows do not fit together.
        """

        def run() -> tuple[int, StateMachine]:
            position, digest = self.open()
            with _translating_errors(self._path):
                return position, self._tables.load(self.connection, digest)

        return in_thread(self._threads, self._deliver, run)

    @property
    def connection(self) -> sqlite3.Connection:
        """The one connection, for loading at start; later only inside ``read``. Raises
        Unavailable when it is closed.
        """
        if self._connection is None:
            raise Unavailable(f"{self._path.name} is closed")
        return self._connection

    def record(self, index: int, digest: bytes, change: object) -> None:
        """Remember that an entry was applied, and what it changed (None: nothing)."""
        self._latest = (index, digest)
        if change is not None:
            self._waiting.append(change)

    def read(self, query: Callable[[sqlite3.Connection], T]) -> "Deferred[T]":
        """Run a query in the database's thread, after everything saved so far; fails with
        Unavailable when the file is closed. Damage that the query meets ends the process.
        """
        return in_thread(self._threads, self._deliver, lambda: self._asked(query))

    def _asked(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """In the thread. A damaged file answers no query: the process ends."""
        try:
            return query(self.connection)
        except (sqlite3.Error, CorruptTables) as error:
            if not _is_damage(error):
                raise
            damaged = _damaged(self._path, error)
            self._deliver(self._panic, Failure(damaged))
            raise damaged from error

    def snapshot(self, index: int, runs: Sequence[TermRun]) -> "Deferred[int]":
        """Make a snapshot of what is saved, in the database's thread, unless there is one that
        includes the entry at ``index``; ``runs`` are the terms of all saved entries, or more.
        Fires with the index up to which the log may drop its entries.

        On a full disk no snapshot is made. Any other failure ends the process, and so does damage
        to the tables: they can still be rebuilt, from an older snapshot and the log. Fails with
        Unavailable when the file is closed.
        """
        return in_thread(self._threads, self._deliver, lambda: self._take_snapshot(index, runs))

    def _take_snapshot(self, index: int, runs: Sequence[TermRun]) -> int:
        connection, snapshots = self.connection, self.snapshots
        assert snapshots is not None, "only a database that is given some makes more"
        try:
            if max(snapshots.indices(), default=0) < index:
                position, _ = self._read_applied(connection)
                check_rows(connection, self._rest)  # or both snapshots would soon have the damage
                snapshots.make(connection, position, runs)
        except Exception as error:
            if not (isinstance(error, OSError) and is_full(error)):
                self._has_undone(connection, error)
            snapshots.clear()  # not before: a quota would no longer look used up
        return snapshots.safe_index()

    def _rest(self) -> None:
        """In the thread: let other threads run, unless the member is stopping."""
        if not self._stopping:
            time.sleep(REST_S)

    def close(self) -> None:
        """Close the file (blocks); what is not saved is applied again from the log."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def stop(self) -> None:
        """Save once more and close the file, in its thread. An error is only logged: the log has
        everything, and the stop has to go on.
        """
        self._stopping = True
        for step in (self._settled, self._save_the_rest, self.close):
            try:
                await in_thread(self._threads, self._deliver, step)
            except Exception:
                self._log.failure("cannot close {path} in order", path=str(self._path))

    def _settled(self) -> None:
        """In the thread, after all that was under way; the reactor has its results by then."""

    def _save_the_rest(self) -> None:
        """In the thread, with nothing under way. A disk that was full is not tried again."""
        if self._connection is not None and self.backlog and not self.full:
            self._store(self._latest, self._waiting)

    def save(self, now: float) -> None:
        """Begin to save what waits, if that is due; called at every tick. A change is not saved
        when it is recorded: nobody waits for that, and the thread would compete with the answer to
        the command. After a full disk, saving is tried again after a pause.
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

    def _store(self, latest: tuple[int, bytes], changes: list[object]) -> None:
        """In the thread: one transaction."""
        connection = self.connection
        connection.execute("BEGIN")
        self._tables.save(connection, changes)
        position, digest = latest
        crc = checksum((position, digest.hex(), *self._tables.extent(connection)))
        connection.execute(
            "INSERT OR REPLACE INTO applied (one, position, digest, crc) VALUES (1, ?, ?, ?)",
            (position, digest, crc),
        )
        connection.execute("COMMIT")

    def _save(self, latest: tuple[int, bytes], changes: list[object]) -> None:
        """In the thread: store the changes and report the result to the reactor. Then, when nobody
        waits any more, do the tables' upkeep, which a full disk may prevent.
        """
        connection = self.connection
        try:
            self._store(latest, changes)
        except Exception as error:
            if self._has_undone(connection, error):
                self._deliver(self._postpone, changes)
            return
        self._deliver(self._saved, latest[0])
        try:
            self._look_after(connection)
        except Exception as error:
            self._has_undone(connection, error)

    def _look_after(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")
        self._tables.upkeep(connection)
        connection.execute("COMMIT")

    def _has_undone(self, connection: sqlite3.Connection, error: Exception) -> bool:
        """In the thread, after a failure: if the disk is full, roll back and return True. Anything
        else ends the process.
        """
        try:
            if not (isinstance(error, sqlite3.Error) and self._is_full(error)):
                raise _damaged(self._path, error) if _is_damage(error) else error
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except Exception:
            self._deliver(self._panic, Failure())
            return False
        return True

    def _is_full(self, error: sqlite3.Error) -> bool:
        """In the thread: whether the disk is full, which may pass."""
        code = getattr(error, "sqlite_errorcode", None)
        if code in _MAY_BE_FULL:
            return self._has_no_room(self._path.parent)
        return code == sqlite3.SQLITE_FULL

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


@contextmanager
def _translating_errors(path: Path) -> Iterator[None]:
    """Name the file in every error, and advise to delete it only if it is damaged: errors of a full
    or failing disk say nothing about what the file holds. All others mean damage, because SQLite
    reports a wrong bit in the schema as an error in a statement.
    """
    try:
        yield
    except sqlite3.Error as error:
        if _code(error) not in _MAY_PASS:
            raise _damaged(path, error) from error
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        raise StorageUnavailable(f"{path}: {error} ({name})") from error
    except OSError as error:
        raise StorageUnavailable(f"{path}: {error}") from error
    except (TwstockError, ValueError, TypeError) as error:  # rows that do not fit together
        raise _damaged(path, error) from error


def _is_damage(error: Exception) -> bool:
    """Whether ``error`` means that the file is damaged. SQLite finds some damage, the checksums of
    rows find some, and Python finds invalid UTF-8: an OperationalError without SQLite's code.
    """
    if isinstance(error, CorruptTables):
        return True
    code = _code(error)
    if code is None:
        return isinstance(error, sqlite3.OperationalError)
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _code(error: Exception) -> int | None:
    """SQLite's primary result code; None: it gave none."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & _PRIMARY_CODE


def _damaged(path: Path, error: Exception) -> CorruptTables:
    return CorruptTables(f"{path}: {error}; it can be deleted, the log rebuilds it")
