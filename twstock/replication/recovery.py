"""Judges the segments that a start finds: all is well, a write is torn, or data is lost.

Pure. The verdicts are those of DESIGN.md's table; the idea of telling a torn write from
corruption by what *follows* it is from "Protocol-Aware Recovery" (FAST 2018).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple
from zlib import crc32

from twstock.errors import BrokenInvariant
from twstock.replication.compaction import DROPPED, Dropped
from twstock.replication.log import Log
from twstock.replication.places import Places
from twstock.replication.records import (
    HEADER_BYTES,
    Batch,
    Content,
    Identity,
    Position,
    SegmentHeader,
    decode_header,
    read_batches,
    used_end,
)
from twstock.replication.seals import Seal


class Segment(NamedTuple):
    """A segment's file: its name, the number in the name, and all of its bytes, or only the
    header if its ``seal`` is believed.
    """

    name: str
    sequence: int
    content: bytes
    seal: Seal | None = None


class Ending(Enum):
    """How a log ends."""

    CLEAN = "clean"
    TORN = "torn"
    CORRUPT = "corrupt"


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong, where: bytes ``first`` up to, not including, ``end`` of ``name``.

    ``lost_from`` to ``lost_to`` are the indices that are lost; ``lost_to`` is the highest known
    one, there may have been more.
    """

    reason: str
    name: str
    first: int
    end: int
    lost_from: int
    lost_to: int

    def __str__(self) -> str:
        lost = (
            f"entry {self.lost_from}"
            if self.lost_to == self.lost_from
            else (f"entries {self.lost_from} to {self.lost_to}")
        )
        return (
            f"{self.name}, bytes {self.first} to {self.end}: {self.reason}; "
            f"{lost} and all later ones are lost, those before are intact"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """The ``log`` of all entries that are intact, the ``position`` where it ends, and how it ends.

    TORN: what follows ``position`` was never acknowledged and may be cut. CORRUPT: entries
    that were promised are lost; ``damage`` says which. ``checksum`` is the CRC-32 of the last
    segment up to ``position``; ``seals`` are new ones, for segments that came without; ``ends``
    are where all segments but the last end.
    """

    ending: Ending
    log: Log
    position: Position | None
    damage: Damage | None = None
    checksum: int = 0
    seals: tuple[Seal, ...] = ()
    ends: tuple[Position, ...] = ()


def scan(
    segments: Iterable[Segment],
    identity: Identity,
    mark: Position | None,
    log: Log | None = None,
    places: Places | None = None,
    dropped: Dropped | None = None,
) -> Verdict:
    """Judge ``segments``, in the order of their numbers, and fill ``log`` and ``places``.

    ``mark`` is the last position that is known to have been durable, None if none is known;
    ``dropped`` stands in for the segments before the first. If ``segments`` is a generator, only
    one of them is in memory at a time.
    """
    found = _Found(identity, mark, log or Log(), places or Places())
    if dropped is not None:
        found.begin(dropped)
    for segment in segments:
        if found.fault is None:
            found.read(segment)
    return found.verdict()


@dataclass(slots=True)
class _Found:
    identity: Identity
    mark: Position | None
    log: Log
    places: Places
    checksum: int = 0
    seals: list[Seal] = field(default_factory=list)
    ends: list[Position] = field(default_factory=list)
    sealed: bool = True
    position: Position | None = None
    name: str = ""
    fault: Damage | None = None
    tail: Damage | None = None
    mark_found: bool = False

    def begin(self, dropped: Dropped) -> None:
        """The segments follow those that were dropped. These were durable, so their end replaces a
        mark before it.
        """
        self.log.begin_after(dropped.runs, dropped.end.last_index)
        if self.mark is None or self.mark[:2] < dropped.end[:2]:
            self.mark = dropped.end
        self.name = DROPPED
        self._reach(dropped.end)

    def read(self, segment: Segment) -> None:
        """Judge the next segment."""
        header = decode_header(segment.content)
        self.fault = self._misplaced(segment, header)
        if self.fault is not None or header is None:
            return
        self._end_last()
        self.name, self.tail, self.sealed = segment.name, None, segment.seal is not None
        self._reach(header.position)
        if segment.seal is None:
            self._scan(segment, header)
        else:
            self._skip(segment.seal)

    def verdict(self) -> Verdict:
        """The verdict on all segments that were read."""
        fault = self.fault or self._below_mark()
        if fault is not None:
            return Verdict(Ending.CORRUPT, self.log, self.position, fault)
        ending = Ending.CLEAN if self.tail is None else Ending.TORN
        seals, ends = tuple(self.seals), tuple(self.ends)
        return Verdict(ending, self.log, self.position, self.tail, self.checksum, seals, ends)

    def _end_last(self) -> None:
        """The segment read last has a successor: say where it ends, and what its seal would."""
        if self.position is None or self.name == DROPPED:
            return
        self.ends.append(self.position)
        if not self.sealed:
            places = self.places.of(self.position.segment)
            self.seals.append(Seal(self.identity, self.position, self.checksum, places))

    def _skip(self, seal: Seal) -> None:
        """Take a segment's content from its seal, which agrees with its checksum and successor."""
        segment, end, last_index, _ = seal.end
        runs = [(place.first, place.term) for place in seal.places]
        if self.log.found(runs, last_index) is not None:
            raise BrokenInvariant(f"the seal of segment {segment} does not follow")
        self.places.add(segment, seal.places, end, last_index)
        self._reach(seal.end)

    def _scan(self, segment: Segment, header: SegmentHeader) -> None:
        """Check every batch of a segment."""
        content = read_batches(segment.content, header)
        for batch in content.batches:
            self._take(segment, batch)
            if self.fault is None and self.mark is not None and batch.end == self.mark.offset:
                self._reach(self._end(header, batch))
            if self.fault is not None:
                return
        if content.batches:
            self.position = self._end(header, content.batches[-1])
        elif header.sequence > 1:
            reason = "its first write is gone, although it was durable"
            self.fault = self._lost(reason, segment.name, HEADER_BYTES, len(segment.content), 0)
        if content.damaged and self.fault is None:
            self._judge(segment, content)
        self.checksum = crc32(memoryview(segment.content)[: content.end])

    def _misplaced(self, segment: Segment, header: SegmentHeader | None) -> Damage | None:
        expected = self.position.segment + 1 if self.position else 1
        if segment.sequence > expected:
            return self._damage(f"segment {expected} is missing before it", segment, header)
        if segment.sequence < expected:
            return self._damage("its number is there twice", segment, header)
        if header is None:
            return self._damage("the header is damaged", segment, header)
        if header.identity != self.identity:
            reason = "it belongs to another cluster, group, member or incarnation"
            return self._damage(reason, segment, header)
        if header.sequence != segment.sequence:
            reason = f"it is segment {header.sequence} under another name"
            return self._damage(reason, segment, header)
        if self.position is None:
            joined = header == SegmentHeader.first(self.identity)
        else:
            joined = header == SegmentHeader.after(self.identity, self.position)
        return None if joined else self._unjoined(header)

    def _unjoined(self, header: SegmentHeader) -> Damage:
        """The segment of ``header`` is good, but does not continue what is before it."""
        if self.tail is not None:
            reason, first = self.tail.reason, self.tail.first
        else:
            reason = f"its end is not where segment {header.sequence} says it was"
            first = self.position.offset if self.position else 0
        end = max(header.previous_end, first)
        return self._lost(reason, self.name, first, end, header.first_index - 1)

    def _reach(self, position: Position) -> None:
        """Move on to ``position`` and compare it with the mark."""
        self.position = position
        mark = self.mark
        if mark is None or mark[:2] != position[:2]:
            return
        self.mark_found = position == mark
        if not self.mark_found:
            reason = "this is not what was known to be durable here"
            self.fault = self._lost(reason, self.name, 0, position.offset, mark.last_index)

    def _take(self, segment: Segment, batch: Batch) -> None:
        runs = [(place.first, place.term) for place in batch.places]
        misfit = batch.gap if batch.gap else self.log.found(runs, batch.last_index)
        if misfit is not None:
            reason = "an entry does not follow the one before it"
            self.fault = self._lost(reason, self.name, batch.start, batch.end, misfit)
        else:
            self.places.add(segment.sequence, batch.places, batch.end, batch.last_index)

    def _end(self, header: SegmentHeader, batch: Batch) -> Position:
        return Position(header.sequence, batch.end, self.log.last_index, batch.chain)

    def _judge(self, segment: Segment, content: Content) -> None:
        """Decide what the bytes after the last good batch are: lost data, or a torn write."""
        end = used_end(segment.content, content.end)
        later = content.later
        if later is not None:
            reason = "damaged, although a later write is intact"
            self.fault = self._lost(reason, segment.name, content.end, end, later.last_index)
        elif content.chain_broken:
            reason = "the chain of hashes is broken"
            self.fault = self._lost(reason, segment.name, content.end, end, 0)
        else:
            self.tail = self._lost("not as it was written", segment.name, content.end, end, 0)

    def _below_mark(self) -> Damage | None:
        mark, position = self.mark, self.position
        if mark is None or self.mark_found:
            return None
        if position is None:
            return self._lost("no segment is left", "log", 0, mark.offset, mark.last_index)
        if position[:2] > mark[:2]:
            reason = "no write ends where one was known to be durable"
            return self._lost(reason, self.name, HEADER_BYTES, mark.offset, mark.last_index)
        if position.segment < mark.segment:
            reason = f"segments up to {mark.segment} are missing after it"
            return self._lost(reason, self.name, position.offset, position.offset, mark.last_index)
        reason = "not as it was written, although it was durable"
        return self._lost(reason, self.name, position.offset, mark.offset, mark.last_index)

    def _damage(self, reason: str, segment: Segment, header: SegmentHeader | None) -> Damage:
        lost_to = header.first_index - 1 if header is not None else 0
        return self._lost(reason, segment.name, 0, len(segment.content), lost_to)

    def _lost(self, reason: str, name: str, first: int, end: int, lost_to: int) -> Damage:
        """Name what is lost: the entries after the last good one, or from an earlier one on if the
        lost batch is known to end there, because it replaced what was there.
        """
        if self.mark is not None and not self.mark_found:
            lost_to = max(lost_to, self.mark.last_index)
        lost_from = self.log.last_index + 1
        if lost_to > 0:
            lost_from = min(lost_from, lost_to)
        return Damage(reason, name, first, end, lost_from, max(lost_to, lost_from))
