"""Snapshots: copies of the applied state that stand in for entries that the log has dropped.

A snapshot is a file of its own: the state as SQLite keeps it, the index of the last entry that is
applied in it, the terms of all entries up to there, and a hash of everything (DESIGN.md has the
table). Any member of the group can continue from it (Raft section 7).
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
"""How many snapshots a member keeps: if one rots, its log still continues from the other."""

_MAGIC = b"twstksnp"
_TAIL = Struct("<8sII16sQQ")  # magic, format, runs, cluster, index, bytes of the state; a hash
_DIGEST_BYTES = 32
_NAME = re.compile(r"snapshot-([0-9]{16})")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot's file, and what its last bytes say: entries up to ``index`` are applied in it,
    ``runs`` are their terms, and the first ``state_bytes`` of the file are the state.
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
        """Make a database file of the state, durably, in place of one that is closed.

        The old file's WAL goes first: SQLite may have been unable to remove it, or a power cut may
        bring it back, and SQLite would add it to the new file. What a crash leaves unfinished is
        removed at the next start.
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
        """The indices after which there are snapshots, lowest first."""
        names = map(_NAME.fullmatch, os.listdir(self._directory))
        return sorted(int(match[1]) for match in names if match)

    def safe_index(self) -> int:
        """Up to where the log may drop its entries: two snapshots stand in for them, and both are
        intact; 0: there are no two such.
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
        """The newest that is intact; None if none is. Raises OSError, which names the file, if none
        is known to be intact and one cannot be read.
        """
        unread: OSError | None = None
        for index in reversed(self.indices()):
            path = self._directory / name(index)
            try:
                snapshot = self.at(index)
                if snapshot is not None and snapshot.is_intact():
                    return snapshot
            except OSError as error:  # a bad sector, say: the older one may be readable
                named = OSError(error.errno, error.strerror or str(error), str(path))
                self._log.warn("{problem}: cannot be read", problem=told(named))
                unread = unread or named
            else:
                self._log.warn("{path} is damaged, and not used", path=str(path))
        if unread is not None:
            raise unread
        return None

    def at(self, index: int) -> Snapshot | None:
        """The snapshot after entry ``index``, intact or not; None if there is none."""
        path = self._directory / name(index)
        snapshot = read(path, self._cluster) if path.exists() else None
        return snapshot if snapshot is not None and snapshot.index == index else None

    def make(self, connection: sqlite3.Connection, index: int, runs: Sequence[TermRun]) -> Snapshot:
        """Make a snapshot of the state that a database has after entry ``index``, and remove all
        but the newest ``KEPT``. Raises errors of SQLite and the disk; then ``clear`` is needed.
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
        """Remove what there is of an unfinished snapshot."""
        for path in (self._state, self._unfinished):
            path.unlink(missing_ok=True)

    def _finish(self, index: int, runs: tuple[TermRun, ...]) -> Snapshot:
        """Write the state and its description into a file, and give that its name when all is on
        disk. It is flushed piece by piece, so that a write of the log waits for one piece only;
        otherwise the disk would seem to hang. The file that SQLite wrote is never flushed.
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
    """Read what a snapshot's last bytes say; None if they are wrong or of another ``cluster``. The
    rest of the file is not verified.
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
