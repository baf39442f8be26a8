"""The log's byte format: a log that is damaged in every possible way is scanned, and never yields
wrong data.
"""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from threading import Lock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.disks import SECTOR
from twstock.replication.archive import Archive
from twstock.replication.disk import Files
from twstock.replication.log import Log as WindowLog
from twstock.replication.messages import Entry, EntryKind
from twstock.replication.places import Places
from twstock.replication.promises import Owner
from twstock.replication.records import (
    ENTRY_OVERHEAD_BYTES,
    HEADER_BYTES,
    Identity,
    Position,
    SegmentHeader,
    decode_header,
    decode_run,
    encode_end,
    encode_entries,
    encode_header,
    end_batch,
    read_batches,
)
from twstock.replication.recovery import Ending, Segment, Verdict, scan

OWNER = Owner("order", "test", 2, (1, 2, 3))
IDENTITY = OWNER.identity(77)
SEGMENT_BYTES = HEADER_BYTES + 4096


def entries(first: int, last: int, term: int = 1, seed: int = 0) -> list[Entry]:
    """Entries of different sizes, so that there is padding of every length."""
    random = Random(seed)
    kind = EntryKind.COMMAND
    return [Entry(i, term, kind, random.randbytes(i % 11)) for i in range(first, last + 1)]


class HeldFiles(Files):
    """Segments in memory, to read entries back from."""

    def __init__(self, segments: list[Segment]) -> None:
        self._contents = {segment.name: segment.content for segment in segments}
        self._open: list[bytes] = []

    def open(self, path: Path, flags: int) -> int:
        """Open a segment."""
        self._open.append(self._contents[path.name])
        return len(self._open) - 1

    def close(self, fd: int) -> None:
        """Do nothing."""

    def size(self, fd: int) -> int:
        """The size of a segment."""
        return len(self._open[fd])

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """Some of its bytes."""
        return self._open[fd][offset : offset + size]


class Log:
    """Builds the bytes of segments batch by batch, and remembers what the log was after each."""

    def __init__(self, identity: Identity = IDENTITY) -> None:
        self.identity = identity
        self.files: list[bytearray] = []
        self.held: list[Entry] = []
        self.stages: list[list[Entry]] = [[]]
        self.images: list[list[bytes]] = []
        self._begin(SegmentHeader.first(identity))
        self.marks = [self.end]
        self.images.append([bytes(f) for f in self.files])

    def batch(self, batch: list[Entry], *, rotate: bool = False) -> "Log":
        """Append a batch, in a new segment if told to."""
        if rotate:
            self._begin(SegmentHeader.after(self.identity, self.end))
        start, frames = self.end, encode_entries(batch)
        salt, first = self.identity.salt(start.segment), min(e.index for e in batch)
        self.end = end_batch(frames, salt, start, first, batch[-1].index)
        content = frames + encode_end(salt, start.offset, first, self.end)
        self.files[-1][start.offset : self.end.offset] = content
        for entry in batch:
            self.held[entry.index - 1 :] = [entry]
        self.stages.append(list(self.held))
        self.marks.append(self.end)
        self.images.append([bytes(f) for f in self.files])
        return self

    def _begin(self, header: SegmentHeader) -> None:
        self.files.append(bytearray(encode_header(header).ljust(SEGMENT_BYTES, b"\0")))
        self.end = header.position

    def segments(self) -> list[Segment]:
        """The segments that a directory would hold."""
        return [self.segment(i, bytes(file)) for i, file in enumerate(self.files)]

    def segment(self, index: int, content: bytes) -> Segment:
        """One segment with another content."""
        return Segment(f"log-{index + 1:08d}.seg", index + 1, content)

    def judge(self, segments: list[Segment], mark: int | None) -> Verdict:
        """Scan ``segments`` with the mark after so many batches (None: no mark). The verdict must
        be right: either what the log was at some stage, not before the mark, or damage that names
        the entries that are lost.
        """
        places = Places()
        held = WindowLog(older=Archive(Path(), HeldFiles(segments), places, Lock()))
        known = None if mark is None else self.marks[mark]
        verdict = scan(iter(segments), self.identity, known, held, places)
        if verdict.ending is not Ending.CORRUPT:
            stage = self.stages.index(_entries(verdict))
            assert verdict.position == self.marks[stage]
            assert stage >= (mark or 0)
        else:
            assert verdict.damage is not None
            assert 1 <= verdict.damage.lost_from <= verdict.damage.lost_to
            assert "log" in str(verdict.damage)
        return verdict


def _entries(verdict: Verdict) -> list[Entry]:
    """The entries that a scan found."""
    return list(verdict.log.between(1, verdict.log.last_index))


@pytest.fixture(scope="module")
def log() -> Log:
    """Forty entries in three batches."""
    return Log().batch(entries(1, 13)).batch(entries(14, 26)).batch(entries(27, 40))


@pytest.fixture(scope="module")
def two_segments() -> Log:
    """Two batches, then one that replaces entries, in a second segment, then another."""
    log = Log().batch(entries(1, 5)).batch(entries(6, 10))
    return log.batch(entries(8, 12, term=2), rotate=True).batch(entries(13, 15, term=2))


def all_marks(log: Log) -> list[int | None]:
    """The number of each batch after which the mark may be, and None for no mark."""
    return [None, *range(len(log.marks))]


def with_byte(content: bytes, offset: int, value: int) -> bytes:
    """Return ``content`` with one byte replaced."""
    return content[:offset] + bytes([value]) + content[offset + 1 :]


def test_what_is_written_is_read_back(log: Log, two_segments: Log) -> None:
    """An undamaged log is clean, and has all its entries, wherever the mark is."""
    for it in (log, two_segments):
        for mark in all_marks(it):
            verdict = it.judge(it.segments(), mark)
            assert verdict.ending is Ending.CLEAN
            assert _entries(verdict) == it.held
            assert verdict.position == it.end


@pytest.mark.parametrize("part", range(4))
def test_every_bit_flipped(log: Log, part: int) -> None:
    """A log with one wrong bit anywhere is torn or refused; it never yields wrong data. Every bit
    is flipped with the mark at the last batch, one of each byte with it anywhere else.
    """
    content, last = bytes(log.files[0]), len(log.marks) - 1
    for offset in [*range(110), *range(HEADER_BYTES, log.end.offset + 40)][part::4]:
        for bit in range(8):
            damaged = [log.segment(0, with_byte(content, offset, content[offset] ^ 1 << bit))]
            marks = all_marks(log) if bit == 0 else [last]
            verdicts = {mark: log.judge(damaged, mark).ending for mark in marks}
            _check_flip(log, offset, verdicts)


def _check_flip(log: Log, offset: int, verdicts: dict[int | None, Ending]) -> None:
    """Only what may be a torn write is taken for one."""
    after_last, last = log.end.offset, len(log.marks) - 1
    checksum = any(mark.offset - 64 <= offset < mark.offset - 56 for mark in log.marks[1:])
    if offset < 104 or (HEADER_BYTES <= offset < log.marks[2].offset and not checksum):
        assert set(verdicts.values()) == {Ending.CORRUPT}
    elif offset < log.end.offset and not checksum and offset >= HEADER_BYTES:
        assert verdicts[last] is Ending.CORRUPT
    elif offset >= after_last:
        assert set(verdicts.values()) == {Ending.TORN}


def test_every_byte_flipped_in_two_segments(two_segments: Log) -> None:
    """With several segments, only the very last write can be taken for a torn one."""
    log = two_segments
    for number, file in enumerate(log.files):
        content = bytes(file)
        ends = [mark.offset for mark in log.marks if mark.segment == number + 1]
        for offset in range(HEADER_BYTES - 8, max(ends) + 16):
            damaged = log.segments()
            flipped = with_byte(content, offset, content[offset] ^ 1 << offset % 8)
            damaged[number] = log.segment(number, flipped)
            for mark in all_marks(log):
                verdict = log.judge(damaged, mark)
                if verdict.ending is Ending.TORN:
                    assert (number, offset >= log.marks[3].offset) == (1, True)


def test_truncated_at_every_byte(log: Log) -> None:
    """A file that ends early is read up to its last whole batch, or refused if the mark is after
    that.
    """
    content = bytes(log.files[0])
    for size in [*range(0, HEADER_BYTES, 97), *range(HEADER_BYTES, log.end.offset + 20)]:
        for mark in all_marks(log):
            verdict = log.judge([log.segment(0, content[:size])], mark)
            whole = sum(m.offset <= size for m in log.marks) - 1
            refused = size < HEADER_BYTES or whole < (mark or 0)
            assert (verdict.ending is Ending.CORRUPT) == refused


def damaged_sectors(log: Log, number: int) -> Iterator[bytes]:
    """The file, with each sector zeroed, or as it was earlier, or as a copy of another one."""
    content = bytes(log.files[number])
    used = (log.marks[-1].offset if number == len(log.files) - 1 else len(content)) + SECTOR
    for offset in range(0, min(used, len(content)), SECTOR):
        olds = [image[number] for image in log.images if len(image) > number]
        others = range(HEADER_BYTES, min(used, len(content)), SECTOR)
        sectors = [bytes(SECTOR)]
        sectors += [old[offset : offset + SECTOR] for old in olds]
        sectors += [content[other : other + SECTOR] for other in others]
        for sector in sectors:
            yield content[:offset] + sector + content[offset + SECTOR :]


def test_sectors_zeroed_stale_or_misplaced(log: Log, two_segments: Log) -> None:
    """A sector that is zero, older or another one's copy never yields wrong data."""
    for it in (log, two_segments):
        for number in range(len(it.files)):
            for content in damaged_sectors(it, number):
                damaged = it.segments()
                damaged[number] = it.segment(number, content)
                for mark in all_marks(it):
                    it.judge(damaged, mark)


def test_any_bytes_of_a_torn_last_batch(log: Log) -> None:
    """Whichever sectors of the last write are on disk, the log opens: without that batch, unless
    all of it is there.
    """
    whole, before = bytes(log.files[0]), log.images[2][0]
    sectors = range(log.marks[2].offset // SECTOR, log.end.offset // SECTOR + 1)
    for choice in range(1 << len(sectors)):
        content = bytearray(before)
        for bit, sector in enumerate(sectors):
            if choice >> bit & 1:
                place = slice(sector * SECTOR, (sector + 1) * SECTOR)
                content[place] = whole[place]
        verdict = log.judge([log.segment(0, bytes(content))], 2)
        assert verdict.ending is not Ending.CORRUPT
        assert (_entries(verdict) == log.held) == (content == whole)


def test_the_lost_range_is_named(log: Log) -> None:
    """The damage names the file, its bytes, and the entries that are gone."""
    content = bytes(log.files[0])
    start = log.marks[1].offset
    verdict = log.judge([log.segment(0, with_byte(content, start + 40, 255))], None)
    damage = verdict.damage
    assert damage is not None
    assert (damage.name, damage.first, damage.end) == ("log-00000001.seg", start, log.end.offset)
    assert (damage.lost_from, damage.lost_to) == (14, 40)
    assert f"bytes {start} to {log.end.offset}" in str(damage)
    assert "entries 14 to 40" in str(damage)


def test_a_lost_batch_that_replaced_entries(log: Log) -> None:
    """Entries that a lost batch had replaced are named as lost, too."""
    log = Log().batch(entries(1, 9)).batch(entries(4, 6, term=2))
    content = bytes(log.images[1][0])
    damage = log.judge([log.segment(0, content)], 2).damage
    assert damage is not None
    assert damage.lost_from <= 6


def test_whole_batch_of_another_chain_is_refused(log: Log) -> None:
    """A batch whose checksums are right, but which belongs to another log, is refused as
    corrupt.
    """
    other = Log().batch(entries(1, 13, seed=5)).batch(entries(14, 26)).batch(entries(27, 40))
    content = bytes(log.files[0])
    start, end = log.marks[2].offset, log.end.offset
    other_end = bytes(other.files[0])[other.marks[2].offset : other.end.offset]
    assert len(other_end) == end - start
    mixed = content[:start] + other_end + content[end:]
    verdict = log.judge([log.segment(0, mixed)], 1)
    assert verdict.ending is Ending.CORRUPT
    assert "chain" in str(verdict.damage)


def test_a_payload_cannot_forge_a_later_batch() -> None:
    """Somebody who knows everything but the origin cannot write a payload that makes a torn write
    look like corruption. With the origin it would be possible.
    """
    for origin, ending in ((0, Ending.TORN), (IDENTITY.origin, Ending.CORRUPT)):
        log = Log().batch(entries(1, 3))
        start = log.end.offset
        salt = Identity(IDENTITY.cluster, IDENTITY.member_id, origin).salt(1)
        forged = encode_end(salt, start + 8, 9, Position(1, start + 256, 9, b"c" * 16))
        log.batch([Entry(4, 1, EntryKind.COMMAND, bytes(8) + forged)])
        content = bytes(log.files[0])
        torn = with_byte(content, start + 4, content[start + 4] ^ 1)
        assert log.judge([log.segment(0, torn)], 1).ending is ending


@pytest.mark.parametrize("change", ["missing", "twice", "swapped", "foreign", "no header", "empty"])
def test_segments_that_do_not_belong(two_segments: Log, change: str) -> None:
    """Segments that are missing, doubled, swapped, foreign, headless or empty are refused, with any
    mark.
    """
    log = two_segments
    first, second = log.segments()
    foreign = Log(OWNER.identity(78)).batch(entries(1, 10))
    damaged = {
        "missing": [second],
        "twice": [first, first, second],
        "swapped": [Segment(first.name, 1, second.content), Segment(second.name, 2, first.content)],
        "foreign": [Segment(first.name, 1, bytes(foreign.files[0])), second],
        "no header": [first, Segment(second.name, 2, bytes(SEGMENT_BYTES))],
        "empty": [first, Segment(second.name, 2, b"")],
    }[change]
    for mark in all_marks(log):
        assert log.judge(damaged, mark).ending is Ending.CORRUPT


def test_last_segment_missing_is_seen_by_the_mark(two_segments: Log) -> None:
    """A log without its last segment is refused if the mark is in that segment, and clean if the
    mark is before it.
    """
    first = two_segments.segments()[:1]
    assert two_segments.judge(first, 4).ending is Ending.CORRUPT
    assert two_segments.judge(first, 2).ending is Ending.CLEAN
    assert two_segments.judge([], 2).ending is Ending.CORRUPT


def test_first_batch_of_a_later_segment_is_never_torn(two_segments: Log) -> None:
    """A later segment without a batch is refused: a segment gets its name only when its first batch
    is durable.
    """
    first, second = two_segments.segments()
    emptied = second.content[:HEADER_BYTES].ljust(SEGMENT_BYTES, b"\0")
    assert two_segments.judge([first, Segment(second.name, 2, emptied)], None).ending is (
        Ending.CORRUPT
    )


def test_header_round_trip_and_rubbish() -> None:
    """A header is read back as it was written; rubbish is not taken for a header."""
    end = Position(4, 9999, 123, b"c" * 16)
    header = SegmentHeader.after(IDENTITY, end)
    assert decode_header(encode_header(header)) == header
    assert header.position == Position(5, HEADER_BYTES, 123, end.chain)
    for rubbish in (b"", bytes(HEADER_BYTES), b"x" * HEADER_BYTES, encode_header(header)[:-1]):
        assert decode_header(rubbish) is None


@given(st.lists(st.tuples(st.integers(0, 2**63), st.binary(max_size=300)), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None, database=None)
def test_entries_round_trip(items: list[tuple[int, bytes]]) -> None:
    """Entries with any terms and payloads are read back, and take no more space than reckoned."""
    batch = [Entry(i, term, EntryKind(i % 2), b) for i, (term, b) in enumerate(items, 1)]
    frames = encode_entries(batch)
    assert len(frames) <= sum(len(b) + ENTRY_OVERHEAD_BYTES for _, b in items)
    assert len(frames) % 8 == 0
    log = Log().batch(batch)
    content = bytes(log.files[0])
    found, offset = list[Entry](), HEADER_BYTES
    for index, (term, _) in enumerate(items, 1):
        one = decode_run(content[offset:], index, term, index, index + 1, 0)
        found += one.entries
        offset += one.offset
    assert found == batch
    assert len(read_batches(content, SegmentHeader.first(IDENTITY)).batches) == 1
    assert decode_run(content[offset:], 1, 1, 1, 9, 999).entries == []


@given(st.binary(max_size=600), st.integers(0, 3))
@settings(max_examples=100, deadline=None, database=None)
def test_rubbish_after_a_good_batch_is_no_error(rubbish: bytes, gap: int) -> None:
    """Arbitrary bytes after the last batch take none of its entries away, and raise no
    exception.
    """
    log = Log().batch(entries(1, 4))
    start = log.end.offset + gap
    content = bytes(log.files[0])
    content = content[:start] + rubbish + content[start + len(rubbish) :]
    assert _entries(log.judge([log.segment(0, content)], 1)) == log.held
