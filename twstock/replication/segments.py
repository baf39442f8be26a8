"""The log's files: the segment that is written to, and spare ones made ahead."""

import errno
import os
from collections.abc import Iterator, Sequence
from enum import Enum
from threading import Lock
from typing import NamedTuple
from zlib import crc32

from twstock.errors import CorruptStorage, DiskFull
from twstock.replication.archive import Archive
from twstock.replication.disk import (
    UNFINISHED,
    ZEROS,
    Directory,
    is_full,
    seal_name,
    segment_name,
)
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
    used_end,
)
from twstock.replication.recovery import Ending, Segment, Verdict, scan
from twstock.replication.seals import Seal, decode_seal, encode_seal

_SPARE = "spare-"
_UPKEEP = len(ZEROS)


class Upkeep(Enum):
    """What a step of the upkeep has left to do: nothing, more at once, or a spare segment for
    which there is no space now.
    """

    DONE = "done"
    GOES_ON = "goes on"
    NO_SPACE = "no space"


class Spare(NamedTuple):
    """A file full of zeros, durable, open, and not part of the log yet."""

    fd: int
    name: str
    size: int


class Spares:
    """Segments made ahead: filled with zeros, because a flush of a block that was never
    written has to change metadata (``posix_fallocate`` alone writes nothing).
    """

    def __init__(self, directory: Directory, segment_bytes: int, wanted: int) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._wanted = wanted
        self._ready: list[Spare] = []
        self._making: Spare | None = None
        self._filled = 0
        self._number = 0

    def adopt(self) -> None:
        """Take over the spares of an earlier process; remove what is unfinished or was used.

        A spare is all zeros unless a crash came when it was about to be renamed to a segment.
        Adopting needs no space, so a restart on a full disk does not lose the room there was.
        """
        self._ready, self._making, self._number = [], None, 0
        for name in self._directory.names():
            if name.endswith(UNFINISHED) or (name.startswith(_SPARE) and not self._adopt(name)):
                self._directory.unlink(name)

    def __len__(self) -> int:
        """How many spares are ready."""
        return len(self._ready)

    def room_bytes(self) -> int:
        """Return the size of the largest spare."""
        return max((spare.size for spare in self._ready), default=0)

    def take(self, size: int) -> Spare | None:
        """Return a spare of at least ``size`` bytes; it no longer counts as one."""
        for spare in self._ready:
            if spare.size >= size:
                self._ready.remove(spare)
                return spare
        return None

    def make(self, size: int) -> Spare:
        """Make a spare of at least ``size`` bytes now. Raises DiskFull."""
        size = max(size, self._segment_bytes)
        if self._making is not None and self._making.size < size:
            self._abandon()
        try:
            while (spare := self._step(size)) is None:
                pass
        except OSError as problem:
            self._give_up(problem)
            raise DiskFull(f"{self._directory.path} has no room for {size} bytes more") from None
        return spare

    def settle(self, pieces: int) -> Upkeep:
        """Do ``pieces`` steps towards the next spare; tell whether one is still wanted.

        Without space ask again after a pause: what there was may have been filled in vain,
        because not every quota shows before it is used up.
        """
        if len(self._ready) >= self._wanted:
            return Upkeep.DONE
        spare = None
        try:
            while spare is None and pieces > 0:
                spare, pieces = self._step(self._segment_bytes), pieces - 1
        except OSError as problem:
            self._give_up(problem)
            return Upkeep.NO_SPACE
        if spare is not None:
            self._ready.append(spare)
        return Upkeep.GOES_ON if len(self._ready) < self._wanted else Upkeep.DONE

    def _adopt(self, name: str) -> bool:
        number = name.removeprefix(_SPARE)
        fd = self._directory.open_file(name)
        content = self._directory.read_from_disk(fd)
        empty = len(content) == self._segment_bytes and used_end(content, 0) == 0
        if not (number.isdecimal() and empty):
            self._directory.close_file(fd)
            return False
        self._number = max(self._number, int(number))
        self._ready.append(Spare(fd, name, len(content)))
        return True

    def _step(self, size: int) -> Spare | None:
        """Fill the spare in the making a little; return it when it is finished."""
        files = self._directory.files
        fd, name, size = self._making or self._begin(size)
        block = ZEROS[: size - self._filled]
        if files.pwrite(fd, block, self._filled) < len(block):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._directory.flush(fd)
        self._filled += len(block)
        if self._filled < size:
            return None
        self._directory.flush_new(fd)
        self._directory.publish(name + UNFINISHED, name)
        self._making = None
        return Spare(fd, name, size)

    def _begin(self, size: int) -> Spare:
        if self._directory.files.free_bytes(self._directory.path) < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        name = f"{_SPARE}{self._number + 1}"
        fd = self._directory.open_file(name + UNFINISHED, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self._making = Spare(fd, name, size)
        self._filled = 0
        self._number += 1
        return self._making

    def _give_up(self, problem: OSError) -> None:
        """Give back the space that a full disk could not complete; raise any other problem."""
        if not is_full(problem):
            raise problem
        self._abandon()

    def _abandon(self) -> None:
        if self._making is not None:
            making, self._making = self._making, None
            self._directory.close_file(making.fd)
            for name in {making.name + UNFINISHED, making.name}.intersection(
                self._directory.names()
            ):
                self._directory.unlink(name)


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
        self._ended_bytes = 0

    @property
    def size_bytes(self) -> int:
        """How many bytes the whole log has."""
        return self._ended_bytes + self._position.offset

    @property
    def position(self) -> Position:
        """Where the log ends."""
        return self._position

    def create(self, identity: Identity) -> Log:
        """Start an empty log. Raises DiskFull."""
        log = self._begin(identity)
        header = SegmentHeader.first(identity)
        self._begin_segment(header, b"", header.position, self._spares.make(HEADER_BYTES))
        return log

    def recover(
        self, identity: Identity, found: list[tuple[int, str]], mark: Position | None, strict: bool
    ) -> Log:
        """Return the log of segments ``found``; cut what a crash left of the last write.

        Raises CorruptStorage when promised entries are lost; when ``strict``, also when that
        cannot be told from a torn write.
        """
        log = self._begin(identity)
        verdict = scan(self._read(found, mark), identity, mark, log, self._places)
        torn = verdict.ending is Ending.TORN
        if verdict.ending is Ending.CORRUPT or (torn and strict) or verdict.position is None:
            raise CorruptStorage(f"{self._directory.path}: {verdict.damage}; nothing was changed")
        self._position, self._checksum = verdict.position, verdict.checksum
        self._salt = identity.salt(self._position.segment)
        self._unsealed = list(verdict.seals)
        self._ended_bytes += sum(seal.end.offset for seal in verdict.seals)
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

        Tells whether the log grew into another megabyte or segment: if so, call ``seal``.
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
            self._ended_bytes += before.offset
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

    def _begin(self, identity: Identity) -> Log:
        self._identity, self._fd, self._unsealed = identity, -1, []
        self._ended_bytes = 0
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
                self._ended_bytes += seal.end.offset
                yield Segment(name, sequence, header, seal)
                continue
            content = self._directory.read_from_disk(fd)
            self._use(fd, len(content))
            yield Segment(name, sequence, content)

    def _seal_of(self, fd: int, sequence: int, follower: str, mark: Position | None) -> Seal | None:
        """The seal of the segment in ``fd``, if it is to be believed."""
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
