"""What a replica keeps on disk: its promises and its log."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

from twstock.errors import (
    BrokenInvariant,
    CorruptStorage,
    TwstockError,
)
from twstock.replication.compaction import DROPPED, Dropped, TermRun, decode_dropped
from twstock.replication.disk import META, Directory, Files, unusable
from twstock.replication.log import WINDOW_BYTES, Log
from twstock.replication.messages import Entry, HardState, Persist
from twstock.replication.meta import MetaFile
from twstock.replication.promises import Owner
from twstock.replication.records import encode_entries
from twstock.replication.segments import LogFile
from twstock.replication.spares import Spares, Upkeep


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a directory holds when it is opened.

    ``incarnation`` is random, 63 bits, made and durable when the directory was made;
    ``formed``: the member has joined its group for good; ``peers`` maps every other member
    to its incarnation, as learnt then. ``log`` has no entry in memory and reads those that
    it is asked for from the storage.
    """

    hard_state: HardState
    log: Log
    incarnation: int
    formed: bool = False
    peers: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))


class Space(NamedTuple):
    """What a log takes on disk: ``segments``, which hold ``log_bytes``, and ``spares``, the
    segments that are made ahead. ``ended_index`` is the last index before the present segment; 0
    if that is the only one.
    """

    segments: int = 0
    log_bytes: int = 0
    spares: int = 0
    ended_index: int = 0


class Storage(Protocol):
    """What a member needs of a disk. Every method blocks; one thread at a time may call.

    An ``OSError`` of any method ends the process: a disk that failed is never tried again.
    """

    @property
    def flushes(self) -> int:
        """How many flushes the disk has done. Any thread may ask, also while another writes."""

    def release(self, index: int) -> None:
        """Entries up to ``index`` are on every member's disk, snapshots stand in for them, and
        nobody reads them any more: steps of upkeep may drop them. Any thread may call this.
        """

    def open(self) -> Loaded:
        """Return what is on disk. Raises StorageError when that must not be used as it is, and
        StorageUnavailable when it cannot be used now.
        """

    def form(self, peers: Mapping[int, int]) -> None:
        """Note that the member has joined its group; durable on return."""

    def write(self, writes: Sequence[Persist]) -> None:
        """Make ``writes`` durable, in order. Raises DiskFull before touching anything."""

    def settle(self, *, grow: bool = True) -> Upkeep:
        """Do one step of upkeep, which can wait for an idle moment, and so short that a write can
        wait for it. Without ``grow`` make no spare segment.
        """

    def room_bytes(self) -> int:
        """How many bytes of entries can certainly still be appended."""

    def space(self) -> Space:
        """What the log takes on disk, for metrics and pruning."""

    def close(self) -> None:
        """Close the directory; another ``open`` may follow."""


IDLE_PIECES = 1
"""How many megabytes of a spare segment one idle step fills with zeros: a write may have to wait
for it, and a leader whose disk takes longer than ``disk_hung_s`` to flush it steps down."""

BUSY_PIECES = 2
"""How many a write fills once in a megabyte, so that a spare is ready before it is needed."""


def gather(
    hard_state: HardState, last_index: int, writes: Sequence[Persist]
) -> tuple[HardState, list[Entry]]:
    """Return the hard state after ``writes`` and all their entries, in order.

    Raises BrokenInvariant for what no replica may ask for: a term or a vote taken back, or
    an entry that does not follow the log.
    """
    entries: list[Entry] = []
    for write in writes:
        entries += write.entries
        if write.hard_state is not None:
            _check_progress(hard_state, write.hard_state)
            hard_state = write.hard_state
    for entry in entries:
        if not 1 <= entry.index <= last_index + 1:
            raise BrokenInvariant(f"entry {entry.index} written after entry {last_index}")
        last_index = entry.index
    return hard_state, entries


def _check_progress(old: HardState, new: HardState) -> None:
    revoted = new.term == old.term and old.vote not in (0, new.vote)
    if new.term < old.term or revoted:
        raise BrokenInvariant(f"{old} is promised, so {new} cannot be")


class FileStorage:
    """``Storage`` in a directory of its own (DESIGN.md).

    ``segment_bytes`` is the size of a segment, ``spares`` how many are made ahead.
    ``random_number`` returns 63 random bits; a new directory takes first its incarnation, then its
    origin from it. ``files`` are the system calls, ``window_bytes`` is how much memory entries may
    take that could also be read from the disk. ``begins_after``, for a new directory: the index of
    an entry, and the terms of all entries up to it, if a snapshot stands in for these.
    """

    def __init__(
        self,
        directory: Path,
        owner: Owner,
        segment_bytes: int,
        spares: int,
        random_number: Callable[[], int],
        *,
        files: Files | None = None,
        window_bytes: int = WINDOW_BYTES,
        begins_after: tuple[int, tuple[TermRun, ...]] | None = None,
    ) -> None:
        self._begins_after = begins_after
        self._released = 0
        self._owner = replace(owner, members=tuple(sorted(owner.members)))
        self._random_number = random_number
        self._directory = Directory(directory, files or Files())
        self._spares = Spares(self._directory, segment_bytes, spares)
        self._meta = MetaFile(self._directory)
        self._log = LogFile(self._directory, self._spares, window_bytes)
        self._usable = False

    @property
    def flushes(self) -> int:
        """How many flushes the disk has done."""
        return self._directory.flushes

    def open(self) -> Loaded:
        """Lock the directory, make it if it is new, and return what it holds.

        Raises StorageError when it belongs to another member or the file system forbids its use,
        CorruptStorage when something that was promised is damaged or gone, and StorageUnavailable
        when another process uses it or there is no space for a new one.
        """
        directory = self._directory
        try:
            directory.open()
            log = self._open_files()
        except BaseException as problem:
            self.close()
            refusal = unusable(directory.path, problem)
            if refusal is None:
                raise
            raise refusal from problem
        self._usable = True
        promise = self._meta.promise
        return Loaded(promise.hard_state, log, promise.incarnation, promise.formed, promise.peers)

    def form(self, peers: Mapping[int, int]) -> None:
        """Note that the member has joined its group; durable on return."""
        self._begin()
        joined = MappingProxyType(dict(peers))
        self._meta.keep(replace(self._meta.promise, formed=True, peers=joined))
        self._meta.note(self._log.position)
        self._usable = True

    def write(self, writes: Sequence[Persist]) -> None:
        """Make ``writes`` durable, in order. Raises DiskFull before touching anything.

        The hard state goes first: an entry of a term must never be there without the term.
        Once in a megabyte a write also flushes the mark and works on a spare segment, so that
        constant load, without an idle moment, never runs out of them.
        """
        self._begin()
        promise = self._meta.promise
        try:
            hard_state, entries = gather(promise.hard_state, self._log.position.last_index, writes)
            frames = encode_entries(entries)
            spare = self._log.reserve(len(frames)) if entries else None
        except TwstockError:
            self._usable = True
            raise
        if hard_state != promise.hard_state:
            self._meta.keep(replace(promise, hard_state=hard_state))
        upkeep = False
        if entries:
            upkeep = self._log.append(entries, frames, spare)
        self._meta.note(self._log.position)
        if upkeep:
            self._meta.flush()
            self._log.seal()
            self._spares.settle(BUSY_PIECES)
            self._log.drop(self._released)
        self._usable = True

    def settle(self, *, grow: bool = True) -> Upkeep:
        """Flush the mark, drop some of what was released, and if ``grow`` do one short step towards
        a spare segment.

        If that finds no space, ask for it again only after a pause.
        """
        self._begin()
        if not self._meta.is_settled:
            self._meta.settle()
        has_more = self._log.drop(self._released)
        left = self._spares.settle(IDLE_PIECES) if grow else Upkeep.DONE
        self._usable = True
        return Upkeep.GOES_ON if has_more else left

    def room_bytes(self) -> int:
        """Return how many bytes one write of entries can certainly have.

        An entry takes at most ENTRY_OVERHEAD_BYTES more than its payload.
        """
        return self._log.room_bytes()

    def space(self) -> Space:
        """Return what the log and the spare segments are."""
        log = self._log
        return Space(log.segments, log.size_bytes, len(self._spares), log.ended_index)

    def release(self, index: int) -> None:
        """Segments that have only entries up to ``index`` may be dropped."""
        self._released = index

    def close(self) -> None:
        """Close the files and release the lock. Nothing is written."""
        self._usable = False
        self._directory.close()

    def _begin(self) -> None:
        """Refuse to go on after a failure: a disk that failed is never tried again."""
        if not self._usable:
            raise BrokenInvariant("the storage is closed, or an earlier write failed")
        self._usable = False

    def _open_files(self) -> Log:
        path, segments = self._directory.path, self._directory.segments()
        if META in self._directory.names():
            self._meta.open(self._owner)
        elif segments:
            raise CorruptStorage(
                f"{path / META} is gone although there are segments of the log: the term and "
                "the vote that this member promised are lost"
            )
        else:
            self._meta.create(self._owner, self._random_number(), self._random_number())
        self._spares.adopt()
        log = self._recover(segments)
        if self._meta.mark != self._log.position:
            self._meta.note(self._log.position)
            self._meta.flush()
        self._log.seal()
        return log

    def _recover(self, segments: list[tuple[int, str]]) -> Log:
        meta, dropped = self._meta, self._read_dropped()
        if dropped is not None:
            self._directory.unlink_segments(dropped.end.segment)
            segments = self._directory.segments()
        if segments:
            return self._log.recover(meta.identity, segments, meta.mark, meta.mark_damaged, dropped)
        if not meta.is_new or dropped is not None:
            first = dropped.end.last_index + 1 if dropped is not None else 1
            lost = f"entries {first} to {meta.mark.last_index}" if meta.mark else "all entries"
            raise CorruptStorage(
                f"{self._directory.path}: every log-*.seg is gone; {lost} are lost"
            )
        begins = self._begins_after
        return self._log.create(meta.identity, begins and Dropped.before(meta.identity, *begins))

    def _read_dropped(self) -> Dropped | None:
        """What stands in for dropped segments, None if none were. Raises CorruptStorage if it is
        damaged, or of another log.
        """
        if DROPPED not in self._directory.names():
            return None
        fd = self._directory.open_file(DROPPED)
        dropped = decode_dropped(self._directory.read_from_disk(fd))
        self._directory.close_file(fd)
        if dropped is None or dropped.identity != self._meta.identity:
            what = "cannot be read" if dropped is None else "is of another log"
            raise CorruptStorage(
                f"{self._directory.path / DROPPED} {what}: where the log begins is lost"
            )
        return dropped
