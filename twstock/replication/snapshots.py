"""Snapshots: copies of the applied state that stand in for entries which the log has no more.

A snapshot is a file of its own: the state as SQLite keeps it, the index of the last entry that is
applied in it, the terms of all entries up to there, and a hash of everything (DESIGN.md has the
table). Any member of the group can go on from it (Raft section 7).
"""

import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from struct import Struct

from twisted.logger import Logger

from twstock.durable import flush_path
from twstock.errors import told
from twstock.replication.compaction import RUN_BYTES, TermRun, decode_runs, encode_runs, up_to
from twstock.replication.disk import UNFINISHED
from twstock.replication.records import FORMAT

KEPT = 2
"""How many snapshots a member keeps: should one rot, its log still goes on from the other."""

_MAGIC = b"twstksnp"
_TAIL = Struct("<8sII16sQQ")  # magic, format, runs, cluster, index, bytes of the state; a hash
_DIGEST_BYTES = 32
_NAME = re.compile(r"snapshot-([0-9]{16})")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot's file, and what its end says: everything up to entry ``index`` is applied in it,
    ``runs`` are the terms of these, ``state_bytes`` is how much of the file is the state.
    """

    path: Path
    index: int
    runs: tuple[TermRun, ...]
    state_bytes: int

    def is_intact(self) -> bool:
        """Whether every bit is as it was written."""
        hashed, digest = self.path.stat().st_size - _DIGEST_BYTES, _digest()
        for chunk in _chunks(self.path, 0, hashed):
            digest.update(chunk)
        return b"".join(_chunks(self.path, hashed, _DIGEST_BYTES)) == digest.digest()

    def content(self, offset: int = 0, size: int | None = None) -> Iterator[bytes]:
        """``size`` bytes from ``offset`` on, or all that follow, in pieces."""
        return _chunks(self.path, offset, self.path.stat().st_size if size is None else size)

    def extract(self, target: Path) -> None:
        """Make the state a database of its own, durable, in place of one that is closed.

        SQLite would add to it what it left beside the old one, if it could not clear that away or
        a power cut brought it back. What a crash leaves unfinished goes at the next start.
        """
        unfinished = target.with_name(target.name + UNFINISHED)
        unfinished.touch(0o600)
        with unfinished.open("wb") as copy:
            copy.writelines(_chunks(self.path, 0, self.state_bytes))
            copy.flush()
            os.fsync(copy.fileno())
        for old in (target.name, target.name + "-wal", target.name + "-shm"):
            target.with_name(old).unlink(missing_ok=True)
        flush_path(target.parent)
        unfinished.rename(target)
        flush_path(target.parent)


class Snapshots:
    """The snapshots of one member, in its directory; ``cluster`` is the hash of its cluster and
    group. Every method blocks.
    """

    _log = Logger()

    def __init__(self, directory: Path, cluster: bytes) -> None:
        self._directory = directory
        self._state = directory / ("snapshot" + UNFINISHED)
        self._unfinished = directory / ("snapshot-N" + UNFINISHED)
        self._cluster = cluster

    def indices(self) -> list[int]:
        """For which places in the log there are snapshots, lowest first."""
        names = map(_NAME.fullmatch, os.listdir(self._directory))
        return sorted(int(match[1]) for match in names if match)

    def safe_index(self) -> int:
        """Up to where the log can do without its entries: more than one snapshot has what they
        did, and every bit of them is as it was written; 0: there is no second one.
        """
        indices = self.indices()[-KEPT:]
        return indices[0] if len(indices) == KEPT and all(map(self._is_intact, indices)) else 0

    def _is_intact(self, index: int) -> bool:
        path = self._directory / name(index)
        try:
            snapshot = self.at(index)
            is_intact = snapshot is not None and snapshot.is_intact()
        except OSError as error:
            self._log.error("{path} cannot be read: {error}", path=str(path), error=error)
            return False
        if not is_intact:
            self._log.error("{path} is damaged: the log keeps its entries", path=str(path))
        return is_intact

    def newest(self) -> Snapshot | None:
        """The newest that is intact; None if none is. Raises OSError, which names the file, where
        that is not known: none is, and one cannot be read.
        """
        unread: OSError | None = None
        for index in reversed(self.indices()):
            path = self._directory / name(index)
            try:
                snapshot = self.at(index)
                if snapshot is not None and snapshot.is_intact():
                    return snapshot
            except OSError as error:  # of the disk: the older one may be somewhere else on it
                named = OSError(error.errno, error.strerror or str(error), str(path))
                self._log.warn("{problem}: cannot be read", problem=told(named))
                unread = unread or named
            else:
                self._log.warn("{path} is damaged, and not used", path=str(path))
        if unread is not None:
            raise unread
        return None

    def at(self, index: int) -> Snapshot | None:
        """The one of everything up to ``index``, intact or not; None if there is none."""
        path = self._directory / name(index)
        snapshot = read(path, self._cluster) if path.exists() else None
        return snapshot if snapshot is not None and snapshot.index == index else None

    def make(self, connection: sqlite3.Connection, index: int, runs: Sequence[TermRun]) -> Snapshot:
        """Make one of the state that a database has after entry ``index``, and remove all but
        the newest. Raises what SQLite and the disk do; then ``clear`` away what there is of it.
        """
        self.clear()
        connection.execute("PRAGMA synchronous=OFF")  # or SQLite flushes all of it at once
        try:
            connection.execute("VACUUM INTO ?", (str(self._state),))
        finally:
            connection.execute("PRAGMA synchronous=NORMAL")
        snapshot = self._finish(index, up_to(runs, index))
        for old in self.indices()[:-KEPT]:
            (self._directory / name(old)).unlink()
        return snapshot

    def clear(self) -> None:
        """Remove what there is of one that is not finished."""
        for path in (self._state, self._unfinished):
            path.unlink(missing_ok=True)

    def _finish(self, index: int, runs: tuple[TermRun, ...]) -> Snapshot:
        """Add to the state what it is, and give the file its name when all is on disk. It goes
        there piece by piece: a write of the log that comes meanwhile waits for one of them, not
        for all, or the disk would seem to hang. What SQLite wrote is removed before it goes.
        """
        size, digest = self._state.stat().st_size, _digest()
        end = encode_runs(runs) + _TAIL.pack(_MAGIC, FORMAT, len(runs), self._cluster, index, size)
        self._unfinished.touch(0o600)
        with self._unfinished.open("wb") as file:
            for chunk in chain(_chunks(self._state, 0, size), [end]):
                digest.update(chunk)
                file.write(chunk)
                file.flush()
                os.fdatasync(file.fileno())
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        self._state.unlink()
        path = self._unfinished.rename(self._directory / name(index))
        flush_path(self._directory)
        return Snapshot(path, index, runs, size)


def name(index: int) -> str:
    """The name of the snapshot of everything up to entry ``index``."""
    return f"snapshot-{index:016d}"


def read(path: Path, cluster: bytes) -> Snapshot | None:
    """What a snapshot's end says, None if it says nothing or is of another ``cluster``. Whether the
    rest is intact is another question.
    """
    size = path.stat().st_size
    at = size - _DIGEST_BYTES - _TAIL.size
    if at < 0:
        return None
    magic, version, count, whose, index, state_bytes = _TAIL.unpack(
        b"".join(_chunks(path, at, _TAIL.size))
    )
    runs_bytes = count * RUN_BYTES
    if (magic, version, whose, state_bytes + runs_bytes) != (_MAGIC, FORMAT, cluster, at):
        return None
    runs = decode_runs(b"".join(_chunks(path, state_bytes, runs_bytes)))
    return Snapshot(path, index, runs, state_bytes)


def _digest() -> blake2b:
    return blake2b(digest_size=_DIGEST_BYTES, person=b"snapshot")


def _chunks(path: Path, offset: int, size: int) -> Iterator[bytes]:
    """``size`` bytes of a file, from ``offset`` on; fewer if it ends before."""
    with path.open("rb") as file:
        file.seek(offset)
        while size > 0 and (chunk := file.read(min(size, _CHUNK_BYTES))):
            yield chunk
            size -= len(chunk)
