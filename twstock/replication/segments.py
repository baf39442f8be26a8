"""The log's files: the segment that is written to, and those before it."""

from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from threading import Lock
from zlib import crc32

from twstock.errors import CorruptStorage
from twstock.replication.archive import Archive
from twstock.replication.compaction import DROPPED, Dropped, encode_dropped, up_to
from twstock.replication.disk import ZEROS, Directory, seal_name, segment_name
from twstock.replication.log import WINDOW_BYTES, Log
from twstock.replication.messages import Entry
from twstock.replication.places import Places
from twstock.replication.records import (
    END_BYTES,
    HEADER_BYTES,
    Identity,
    Position,
    SegmentHeader,
    decode_header,
    encode_end,
    encode_header,
    end_batch,
    places_of,
)
from twstock.replication.recovery import Ending, Segment, Verdict, scan
from twstock.replication.seals import Seal, decode_seal, encode_seal
from twstock.replication.spares import Spare, Spares

_UPKEEP = len(ZEROS)
DROPPED_MAX = 4
"""How many segments one step of upkeep drops at most: a write may have to wait for the step, and
after a member was down for days there are hundreds of them."""


class LogFile:
    """The log on disk: batches appended to the last segment, one flush each.

    A new segment appears with its header and its first batch in it, both durable before it
    gets its name; so a segment without an intact header never comes from a crash. The one
    before is then sealed, but nothing depends on that.
    """

    def __init__(
        self, directory: Directory, spares: Spares, window_bytes: int = WINDOW_BYTES
    ) -> None:
        self._directory = directory
        self._spares = spares
        self._window_bytes = window_bytes
        self._identity: Identity
        self._fd = -1
        self._size = 0
        self._salt = 0
        self._position: Position
        self._checksum = 0
        self._places = Places()
        self._lock = Lock()
        self._unsealed: list[Seal] = []
        self._ends: list[Position] = []
        self._dropped: Dropped | None = None

    @property
    def size_bytes(self) -> int:
        """How many bytes the segments of the log hold."""
        return sum([end.offset for end in self._ends]) + self._position.offset

    @property
    def segments(self) -> int:
        """How many segments there are."""
        return len(self._ends) + 1

    @property
    def ended_index(self) -> int:
        """The last index of the segment before the present one; 0: there is none, or it was
        dropped.
        """
        return self._ends[-1].last_index if self._ends else 0

    @property
    def position(self) -> Position:
        """Where the log ends."""
        return self._position

    def create(self, identity: Identity, dropped: Dropped | None = None) -> Log:
        """Start an empty log, or one that begins after ``dropped`` entries, which it never has.
        Raises DiskFull.
        """
        log = self._begin(identity)
        header = SegmentHeader.first(identity)
        if dropped is not None:
            self._directory.make_file(DROPPED, encode_dropped(dropped))
            self._dropped, header = dropped, SegmentHeader.after(identity, dropped.end)
            log.begin_after(dropped.runs, dropped.end.last_index)
        self._begin_segment(header, b"", header.position, self._spares.make(HEADER_BYTES))
        return log

    def recover(
        self,
        identity: Identity,
        found: list[tuple[int, str]],
        mark: Position | None,
        strict: bool,
        dropped: Dropped | None = None,
    ) -> Log:
        """Return the log of the segments ``found``, which follow what was ``dropped``; cut off what
        a crash left of the last write.

        Raises CorruptStorage when promised entries are lost; if ``strict``, also for a torn write,
        because without a mark it cannot be told from lost entries.
        """
        log = self._begin(identity)
        self._dropped = dropped
        verdict = scan(self._read(found, mark), identity, mark, log, self._places, dropped)
        torn = verdict.ending is Ending.TORN
        if verdict.ending is Ending.CORRUPT or (torn and strict) or verdict.position is None:
            raise CorruptStorage(f"{self._directory.path}: {verdict.damage}; nothing was changed")
        self._position, self._checksum = verdict.position, verdict.checksum
        self._salt = identity.salt(self._position.segment)
        self._unsealed, self._ends = list(verdict.seals), list(verdict.ends)
        if torn:
            self._cut(verdict)
        return log

    def room_bytes(self) -> int:
        """Return how many bytes of entries fit into the present segment or a spare."""
        left = self._size - self._position.offset
        return max(0, left - END_BYTES, self._spares.room_bytes() - HEADER_BYTES - END_BYTES)

    def reserve(self, size: int) -> Spare | None:
        """Return a spare for ``size`` bytes of entries, None if the present segment will do.

        Raises DiskFull when there is room nowhere.
        """
        size += END_BYTES
        if self._position.offset + size <= self._size:
            return None
        size += HEADER_BYTES
        return self._spares.take(size) or self._spares.make(size)

    def append(self, entries: Sequence[Entry], frames: bytes, spare: Spare | None) -> bool:
        """Write a batch, ``entries`` as ``frames``; durable on return.

        Returns whether the log grew into another megabyte or segment: if so, call ``seal``.
        """
        before = self._position
        first, last = min([entry.index for entry in entries]), entries[-1].index
        if spare is None:
            start = before
            self._write_batch(frames, first, last)
        else:
            places = self._places.of(before.segment)
            self._unsealed.append(Seal(self._identity, before, self._checksum, places))
            header = SegmentHeader.after(self._identity, before)
            salt, start = self._identity.salt(header.sequence), header.position
            end = end_batch(frames, salt, start, first, last)
            content = frames + encode_end(salt, start.offset, first, end)
            self._begin_segment(header, content, end, spare)
            self._ends.append(before)
        end = self._position
        added = places_of(entries, start.offset, len(frames))
        with self._lock:  # the reactor may be looking for an older entry
            self._places.add(end.segment, added, end.offset, last)
        return (before.segment, before.offset // _UPKEEP) != (end.segment, end.offset // _UPKEEP)

    def seal(self) -> None:
        """Seal the segments that have a successor and no good seal. Without space they stay
        unsealed: the next start scans them, and tries again.
        """
        unsealed, self._unsealed = self._unsealed, []
        for seal in unsealed:
            self._directory.make_optional(seal_name(seal.end.segment), encode_seal(seal))

    def drop(self, index: int) -> bool:
        """Remove the oldest segments that end at entry ``index`` or before; return whether there
        may be more. The file ``dropped`` is durable first; without space for it they stay.
        """
        old = takewhile(lambda end: end.last_index <= index, self._ends)
        ends = list(islice(old, DROPPED_MAX))
        if not ends:
            return False
        end = ends[-1]
        with self._lock:
            runs = [*(self._dropped.runs if self._dropped else ()), *self._places.runs(end.segment)]
        dropped = Dropped(self._identity, end, up_to(runs, end.last_index))
        if not self._directory.make_optional(DROPPED, encode_dropped(dropped)):
            return False
        self._dropped = dropped
        del self._ends[: len(ends)]
        with self._lock:
            self._places.drop(end.segment)
        self._directory.unlink_segments(end.segment)
        return len(ends) == DROPPED_MAX

    def _begin(self, identity: Identity) -> Log:
        self._identity, self._fd, self._unsealed = identity, -1, []
        self._ends, self._dropped = [], None
        self._places = Places()
        archive = Archive(self._directory.path, self._directory.files, self._places, self._lock)
        return Log(older=archive, window_bytes=self._window_bytes)

    def _write_batch(self, frames: bytes, first: int, last: int) -> None:
        start = self._position
        end = end_batch(frames, self._salt, start, first, last)
        content = frames + encode_end(self._salt, start.offset, first, end)
        self._directory.pwrite(self._fd, content, start.offset)
        self._directory.flush(self._fd)
        self._position, self._checksum = end, crc32(content, self._checksum)

    def _begin_segment(
        self, header: SegmentHeader, content: bytes, end: Position, spare: Spare
    ) -> None:
        content = encode_header(header) + content
        self._directory.pwrite(spare.fd, content, 0)
        self._directory.flush(spare.fd)
        self._directory.publish(spare.name, segment_name(header.sequence))
        self._use(spare.fd, spare.size)
        self._salt = self._identity.salt(header.sequence)
        self._position, self._checksum = end, crc32(content)

    def _read(self, found: list[tuple[int, str]], mark: Position | None) -> Iterator[Segment]:
        followers = [name for _, name in found[1:]]
        for (sequence, name), follower in zip(found, [*followers, ""], strict=True):
            fd = self._directory.open_file(name)
            seal = self._seal_of(fd, sequence, follower, mark) if follower else None
            if seal is not None:
                header = self._directory.files.pread(fd, HEADER_BYTES, 0)
                self._directory.close_file(fd)
                yield Segment(name, sequence, header, seal)
                continue
            content = self._directory.read_from_disk(fd)
            self._use(fd, len(content))
            yield Segment(name, sequence, content)

    def _seal_of(self, fd: int, sequence: int, follower: str, mark: Position | None) -> Seal | None:
        """The seal of the segment in ``fd``; None if there is none that is to be believed."""
        content = self._directory.read_optional(seal_name(sequence))
        seal = decode_seal(content)
        if seal is None:
            return None
        self._directory.renew(fd)
        header = decode_header(self._directory.files.pread(fd, HEADER_BYTES, 0))
        following = decode_header(self._directory.read_optional(follower, HEADER_BYTES))
        if not seal.vouches(header, following, mark):
            return None
        checksum = self._directory.checksum(fd, seal.end.offset)
        return seal if checksum == seal.checksum else None

    def _use(self, fd: int, size: int) -> None:
        if self._fd >= 0:
            self._directory.close_file(self._fd)
        self._fd, self._size = fd, size

    def _cut(self, verdict: Verdict) -> None:
        """Zero what a torn write left, before anything is written after it."""
        assert verdict.damage is not None
        for offset in range(self._position.offset, verdict.damage.end, len(ZEROS)):
            block = ZEROS[: verdict.damage.end - offset]
            self._directory.pwrite(self._fd, block, offset)
        self._directory.flush(self._fd)
