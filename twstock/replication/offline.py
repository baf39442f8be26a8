"""Writes the directories of a group's members while no member runs.

For a cluster that begins with a history. The caller hands over the entries of the log; they are
stored and applied by the same code as in a running member. Only the flushes are left out, until
``flush`` makes up for all of them: nothing was promised to anybody before.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from secrets import randbits
from typing import Any

from twisted.python.failure import Failure

from twstock.config import Cluster
from twstock.durable import flush_path
from twstock.errors import StorageError
from twstock.replication.compaction import TermRun
from twstock.replication.database import Database
from twstock.replication.disk import Files
from twstock.replication.messages import Entry, EntryKind, HardState, Persist
from twstock.replication.promises import Owner
from twstock.replication.spares import Upkeep
from twstock.replication.storage import FileStorage
from twstock.replication.tier import StateMachine, Tables

APPLIED = "applied.sqlite"
TERM = 1
"""The term of all entries."""
WRITE_ENTRIES = 8
SAVE_ENTRIES = 500
"""How many go into one transaction. Each may have hundreds of orders, in memory until then."""
SAVED_APART_S = 60.0
"""The time from one save to the next, as the database is told: more than it ever waits."""
SETTLES_MAX = 10_000
CACHE_KIBIBYTES = 64 * 1024


class Unflushed(Files):
    """System calls without flushes: as nothing is promised before the end, one then is enough."""

    def fdatasync(self, fd: int) -> None:
        """Leave it to the kernel."""

    def fsync(self, fd: int) -> None:
        """Leave it to the kernel."""


class _AtOnce:
    """Replaces a thread pool: everything is done before the call returns."""

    def callInThread(self, function: Callable[..., object], *arguments: object) -> None:
        """Call the function."""
        function(*arguments)


class LogWriter:
    """Writes the log of one member, in its directory.

    ``incarnations`` are those of all members: each knows the others, as after the first start of a
    group. Without ``state`` the member has voted for the highest id, as in a cluster at rest;
    without ``path`` the directory is the configured one. ``begins_after``: the index of an entry,
    and the terms of all entries up to it, if a snapshot stands in for these.
    """

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        number: int,
        incarnations: Mapping[int, int],
        state: HardState | None = None,
        path: Path | None = None,
        begins_after: tuple[int, tuple[TermRun, ...]] | None = None,
    ) -> None:
        members = sorted(replica.id for replica in cluster.replicas(group))
        self.path = path or cluster.data_of(group, number)
        self._storage = FileStorage(
            self.path,
            Owner(group, cluster.cluster_id, number, tuple(members)),
            cluster.limits.segment_bytes,
            cluster.limits.spare_segments,
            iter((incarnations[number], randbits(63))).__next__,
            files=Unflushed(),
            begins_after=begins_after,
        )
        self._storage.open()
        self._storage.form({peer: incarnations[peer] for peer in members if peer != number})
        self._state: HardState | None = HardState(TERM, max(members)) if state is None else state
        self._sequence = 0
        self._waiting: list[Entry] = []

    def append(self, entry: Entry) -> None:
        """Add an entry; a few of them are written together, as under load."""
        self._waiting.append(entry)
        if len(self._waiting) >= WRITE_ENTRIES:
            self._write()

    def promise(self, state: HardState) -> None:
        """Set the term and the vote that the next write stores."""
        self._state = state

    def close(self) -> None:
        """Write what waits and everything that an idle member writes, then close the directory."""
        self._write()
        for _ in range(SETTLES_MAX):
            if self._storage.settle() is not Upkeep.GOES_ON:
                break
        self.abandon()

    def abandon(self) -> None:
        """Close the directory as it is."""
        self._storage.close()

    def _write(self) -> None:
        self._sequence += 1
        self._storage.write([Persist(self._sequence, self._state, tuple(self._waiting))])
        self._state, self._waiting = None, []


class AppliedState:
    """Applies entries, and saves the applied state in the tables of one member."""

    def __init__(self, path: Path, tables: Tables, cache_kibibytes: int = CACHE_KIBIBYTES) -> None:
        threads: Any = _AtOnce()
        self.path = path
        self._database = Database(path, tables, threads, lambda f, *a: f(*a), _give_up)
        self._database.open()
        run = self._database.connection.execute
        run("PRAGMA journal_mode=OFF")
        run("PRAGMA synchronous=OFF")
        run(f"PRAGMA cache_size=-{cache_kibibytes}")
        self._records = 0
        self._now = 0.0

    def apply(self, machine: StateMachine, entry: Entry) -> Any:
        """Let a state machine apply an entry, as a member does; returns what it changed."""
        change = None
        if entry.kind is EntryKind.COMMAND:
            change = machine.apply(entry.index, entry.payload).change
        self._database.record(entry.index, machine.digest, change)
        self._records += 1
        if self._records % SAVE_ENTRIES == 0:
            self.save()
        return change

    def save(self) -> None:
        """Save all that was applied since the last save. Raises StorageError if that fails."""
        self._now += SAVED_APART_S
        self._database.save(self._now)
        if self._database.backlog:
            raise StorageError(f"{self.path}: {self._database.backlog} entries are not saved")

    def copy(self, directory: Path) -> None:
        """Save, and copy the file into another member's directory."""
        self.save()
        shutil.copyfile(self.path, directory / APPLIED)

    def close(self) -> None:
        """Save the rest and close the file."""
        self.save()
        self._database.connection.execute("PRAGMA journal_mode=WAL")
        self.abandon()

    def abandon(self) -> None:
        """Close the file as it is."""
        self._database.close()


class Group:
    """Writes the directories of all members of a group, with the same entries and the same state.

    ``random_incarnation`` returns 63 random bits.
    """

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        machine: StateMachine,
        tables: Tables,
        random_incarnation: Callable[[], int],
    ) -> None:
        numbers = [replica.id for replica in cluster.replicas(group)]
        incarnations = {number: random_incarnation() for number in numbers}
        self._machine = machine
        self._logs: list[LogWriter] = []
        self._applied: AppliedState | None = None
        try:
            for number in numbers:
                self._logs.append(LogWriter(cluster, group, number, incarnations))
            self._applied = AppliedState(self._logs[0].path / APPLIED, tables)
        except BaseException:
            self.abandon()
            raise
        self._index = 0
        self._append(Entry(1, TERM, EntryKind.NOOP))

    @property
    def last_index(self) -> int:
        """The index of the last entry."""
        return self._index

    def append(self, payload: bytes) -> Any:
        """Add a command to all logs, and apply it; returns what it changed."""
        return self._append(Entry(self._index + 1, TERM, EntryKind.COMMAND, payload))

    def close(self) -> None:
        """Write the rest and close all directories."""
        assert self._applied is not None
        for log in self._logs:
            log.close()
        self._applied.close()
        for log in self._logs[1:]:
            shutil.copyfile(self._applied.path, log.path / APPLIED)

    def abandon(self) -> None:
        """Close all directories as they are."""
        for log in self._logs:
            log.abandon()
        if self._applied is not None:
            self._applied.abandon()

    def _append(self, entry: Entry) -> Any:
        assert self._applied is not None
        self._index = entry.index
        for log in self._logs:
            log.append(entry)
        return self._applied.apply(self._machine, entry)


def _give_up(failure: Failure) -> None:
    failure.raiseException()


def entries(payloads: Iterable[bytes]) -> Iterator[Entry]:
    """A log of one term: its no-op, then one command for each payload."""
    yield Entry(1, TERM, EntryKind.NOOP)
    for index, payload in enumerate(payloads, 2):
        yield Entry(index, TERM, EntryKind.COMMAND, payload)


def flush(directory: Path) -> None:
    """Make everything under a directory durable, files as well as their names."""
    for path in (*directory.rglob("*"), directory):
        if path.is_file() or path.is_dir():
            flush_path(path)
