"""The format of the log: entries, batches, segment headers, and how a scan reads them.

Pure: bytes in, bytes or a verdict out. DESIGN.md has the tables and says why each rule is
safe. Everything is little-endian. A *frame* is ``length | CRC-32 | body | padding``; frames
start at multiples of 8, so a length never lies across two sectors (as in etcd's WAL).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from twstock.replication.messages import Entry, EntryKind

FORMAT = 1
"""The version of the format of segments and of ``meta``."""

HEADER_BYTES = 4096
"""A segment's header has a page of its own, so that no batch ever rewrites its sector."""

ENTRY_OVERHEAD_BYTES = 40
"""The most that an entry takes on disk beyond its payload."""

END_BYTES = 64
"""The size of the marker that ends a batch."""

CHAIN_BYTES = 16
"""The size of a chain hash, BLAKE2b (RFC 7693)."""

_ENTRY = 1
_END = 2
_KINDS = tuple(EntryKind)
_KIND_COUNT = len(_KINDS)
_PADDING = tuple(bytes(-length % 8) for length in range(8))
_ENTRY_FRAME = Struct("<IIBB6xQQ")  # length, CRC-32, type, kind, term, index; then the payload
_ENTRY_HEAD = Struct("<BB6xQQ")
_ENTRY_HEAD_BYTES = _ENTRY_HEAD.size
_PAYLOAD = _ENTRY_FRAME.size
_FRAME = Struct("<II")
_END_HEAD = Struct("<B7xQQQQ")  # type, salt, start, first index, last index; then the chain hash
_END_FRAME = Struct("<IIB7xQQQQ16s")
_END_BODY_BYTES = END_BYTES - _FRAME.size
_HEADER = Struct("<8sI4x16sQQQQQ16sQ")
_HEADER_MAGIC = b"twstklog"
_SALT = Struct("<Q")
_SALT_OFFSET = 16
_CHAIN_OFFSET = END_BYTES - CHAIN_BYTES
SPACING_BYTES = 64 * 1024
"""Two places of a segment are at most this plus one entry apart."""
_ZEROS = bytes(1 << 16)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose segments these are: a hash of cluster and group, the member, and ``origin``, a random
    number that was drawn when the directory was made. No message reveals it, so no client can
    forge a marker inside a payload.
    """

    cluster: bytes
    member_id: int
    origin: int

    def genesis(self) -> bytes:
        """The chain hash before the first batch."""
        return self._digest(b"genesis", 0)

    def salt(self, sequence: int) -> int:
        """The number that every batch marker of segment ``sequence`` carries."""
        return int(_SALT.unpack_from(self._digest(b"salt", sequence))[0])

    def _digest(self, purpose: bytes, sequence: int) -> bytes:
        words = (self.member_id, self.origin, sequence)
        content = self.cluster + b"".join(map(_SALT.pack, words))
        return blake2b(content, digest_size=CHAIN_BYTES, person=purpose).digest()


class Position(NamedTuple):
    """Where a batch ends: the segment and the byte after it, the log's last index there, and
    the hash of everything up to it.
    """

    segment: int
    offset: int
    last_index: int
    chain: bytes


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """The start of a segment: who wrote it, its number, and where the one before it ended."""

    identity: Identity
    sequence: int
    previous_end: int
    first_index: int
    chain: bytes

    @classmethod
    def first(cls, identity: Identity) -> "SegmentHeader":
        """The header of a new log's first segment."""
        return cls(identity, 1, 0, 1, identity.genesis())

    @classmethod
    def after(cls, identity: Identity, end: Position) -> "SegmentHeader":
        """The header of the segment that continues a log which ends at ``end``."""
        return cls(identity, end.segment + 1, end.offset, end.last_index + 1, end.chain)

    @property
    def position(self) -> Position:
        """Where the segment's first batch starts."""
        return Position(self.sequence, HEADER_BYTES, self.first_index - 1, self.chain)


class Place(NamedTuple):
    """The entries from index ``first`` on, of ``term``, begin at byte ``offset``."""

    first: int
    offset: int
    term: int


class Batch(NamedTuple):
    """One write, as it is in a segment from byte ``start`` to ``end``: the places of its entries
    and the index of the last. ``gap`` is the index of an entry that does not follow the one
    before it in the batch; 0: there is none.
    """

    start: int
    end: int
    chain: bytes
    places: list[Place]
    last_index: int
    gap: int


@dataclass(frozen=True, slots=True)
class Content:
    """What a segment's bytes hold: good batches up to ``end``, and what follows them.

    ``damaged``: not only zeros follow. ``later``: the last marker of a batch that was
    written after the damaged one, so this is not a torn write. ``chain_broken``: a batch
    is whole and yet not the successor of the one before it.
    """

    batches: list[Batch]
    end: int
    damaged: bool = False
    chain_broken: bool = False
    later: "BatchEnd | None" = None


class BatchEnd(NamedTuple):
    """A marker: where its batch starts (the end of the one before), and its indices."""

    start: int
    first_index: int
    last_index: int
    chain: bytes


def encode_entries(entries: Sequence[Entry]) -> bytes:
    """Return the frames of ``entries``, in order."""
    parts: list[bytes] = []
    for entry in entries:
        head = _ENTRY_HEAD.pack(_ENTRY, entry.kind, entry.term, entry.index)
        payload = entry.payload
        length = _ENTRY_HEAD_BYTES + len(payload)
        crc = crc32(payload, crc32(head, length))
        parts += (_FRAME.pack(length, crc), head, payload, _PADDING[length % 8])
    return b"".join(parts)


def places_of(entries: Sequence[Entry], offset: int, size: int) -> list[Place]:
    """Return the places of ``entries`` whose frames, of ``size`` bytes, begin at ``offset``."""
    first, last = entries[0], entries[-1]
    # No index is more than one above the one before, so this means that all follow one another.
    all_follow = last.index - first.index == len(entries) - 1
    if all_follow and first.term == last.term and size < SPACING_BYTES:
        return [Place(first.index, offset, first.term)]
    places: list[Place] = []
    expected = term = next_at = 0
    for entry in entries:
        if entry.index != expected or entry.term != term or offset >= next_at:
            term, next_at = entry.term, offset + SPACING_BYTES
            places.append(Place(entry.index, offset, term))
        expected = entry.index + 1
        offset += (_PAYLOAD + len(entry.payload) + 7) & -8
    return places


class Decoded(NamedTuple):
    """Entries read back, where the next frame starts, and the index that it has to have."""

    entries: list[Entry]
    offset: int
    next_index: int


def decode_run(content: bytes, index: int, term: int, first: int, stop: int, room: int) -> Decoded:
    """Return the entries from ``first`` on of a run whose entry ``index`` begins ``content``.

    It stops before index ``stop``, when payloads exceed ``room``, and at the first frame that is
    incomplete or not the expected entry, by index, term and checksum. Entries before ``first`` are
    skipped. So are markers, by their fixed size: a scan does not look at a marker's length either,
    only its chain hash counts.
    """
    entries: list[Entry] = []
    size, offset = len(content), 0
    unpack = _ENTRY_FRAME.unpack_from
    while offset + _PAYLOAD <= size and index < stop and room >= 0:
        length, crc, frame, kind, its_term, its_index = unpack(content, offset)
        if frame == _END:
            offset += END_BYTES
            continue
        end = offset + 8 + length
        if end > size or its_index != index or length < _ENTRY_HEAD_BYTES or frame != _ENTRY:
            break
        if index >= first:
            body = content[offset + 8 : end]
            if crc32(body, length) != crc or its_term != term or kind >= _KIND_COUNT:
                break
            payload = body[_ENTRY_HEAD_BYTES:]
            entries.append(Entry(index, term, _KINDS[kind], payload))
            room -= len(payload)
        index += 1
        offset = (end + 7) & -8
    return Decoded(entries, offset, index)


def frame_end(content: bytes) -> int:
    """Where the first frame of ``content`` ends, if its length is right; 0 if that is missing."""
    return int(_FRAME.unpack_from(content)[0]) + _FRAME.size if len(content) > _FRAME.size else 0


def end_batch(frames: bytes, salt: int, start: Position, first: int, last: int) -> Position:
    """Return where a batch of ``frames`` ends that begins at ``start``, with its chain hash."""
    head = _END_HEAD.pack(_END, salt, start.offset, first, last)
    end = start.offset + len(frames) + END_BYTES
    return Position(start.segment, end, last, _chain(start.chain, frames, head))


def encode_end(salt: int, start: int, first: int, end: Position) -> bytes:
    """Return the marker of the batch from byte ``start`` to ``end``, lowest index ``first``."""
    body = _END_HEAD.pack(_END, salt, start, first, end.last_index) + end.chain
    return _FRAME.pack(_END_BODY_BYTES, crc32(body, _END_BODY_BYTES)) + body


def encode_header(header: SegmentHeader) -> bytes:
    """Return the page that starts a segment."""
    who = header.identity
    body = _HEADER.pack(
        _HEADER_MAGIC,
        FORMAT,
        who.cluster,
        who.member_id,
        who.origin,
        header.sequence,
        header.first_index,
        header.previous_end,
        header.chain,
        who.salt(header.sequence),
    )
    return (body + _FRAME.pack(_HEADER.size, crc32(body))).ljust(HEADER_BYTES, b"\0")


def decode_header(content: bytes) -> SegmentHeader | None:
    """Return the header at the start of ``content``, None if it is not intact."""
    if len(content) < HEADER_BYTES:
        return None
    body = content[: _HEADER.size]
    if _FRAME.unpack_from(content, _HEADER.size) != (_HEADER.size, crc32(body)):
        return None
    magic, version, cluster, member_id, origin, sequence, first, end, chain, salt = _HEADER.unpack(
        body
    )
    identity = Identity(cluster, member_id, origin)
    if (magic, version, salt) != (_HEADER_MAGIC, FORMAT, identity.salt(sequence)):
        return None
    return SegmentHeader(identity, sequence, end, first, chain)


def read_batches(content: bytes, header: SegmentHeader) -> Content:
    """Return the batches of a segment, up to the first that is not as it was written."""
    chain = header.chain
    batches: list[Batch] = []
    start = HEADER_BYTES
    while (found := _read_batch(content, start, chain)) is not None:
        batches.append(found)
        start, chain = found.end, found.chain
    if used_end(content, start) == start:
        return Content(batches, start)
    salt = header.identity.salt(header.sequence)
    broken = _is_whole(content, start, salt)
    later = _later_batch(content, start, salt)
    return Content(batches, start, damaged=True, chain_broken=broken, later=later)


def used_end(content: bytes, start: int) -> int:
    """Return the end of the last byte after ``start`` that is not zero; ``start`` if all are."""
    end = start
    for offset in range(start, len(content), len(_ZEROS)):
        block = content[offset : offset + len(_ZEROS)]
        if block != _ZEROS[: len(block)]:
            end = offset + len(block.rstrip(b"\0"))
    return end


def _read_batch(content: bytes, start: int, chain: bytes) -> Batch | None:
    """Return the batch at ``start`` if it is intact and follows ``chain``.

    The chain hash covers all that matters, so the checksums are not verified here. Nor are entries
    made, because most of them stay on disk. Both shorten the scan of a long log.
    """
    places: list[Place] = []
    offset, limit = start, len(content) - END_BYTES
    expected = present = next_at = gap = 0
    unpack = _ENTRY_FRAME.unpack_from
    while offset <= limit:
        length, _, frame, kind, term, index = unpack(content, offset)
        if frame != _ENTRY or kind >= _KIND_COUNT:
            break
        if index != expected or term != present or offset >= next_at:
            if index > expected and places:
                gap = gap or index
            places.append(Place(index, offset, term))
            present, next_at = term, offset + SPACING_BYTES
        expected = index + 1
        offset = (offset + length + 15) & -8
    middle, end = offset + _CHAIN_OFFSET, offset + END_BYTES
    stated = content[middle:end]
    computed = _chain(chain, content[start:offset], content[offset + 8 : middle])
    intact = places and stated == computed
    return Batch(start, end, stated, places, expected - 1, gap) if intact else None


def _is_whole(content: bytes, start: int, salt: int) -> bool:
    """Return whether a batch at ``start`` is whole by its checksums, whatever its chain hash."""
    offset, limit = start, len(content) - END_BYTES
    while offset <= limit:
        length, crc, frame, *_ = _ENTRY_FRAME.unpack_from(content, offset)
        stop = offset + 8 + length
        if frame != _ENTRY:
            break
        if stop > limit or crc32(content[offset + 8 : stop], length) != crc:
            return False
        offset = (stop + 7) & -8
    end = _read_end(content, offset, salt)
    return end is not None and end.start == start


def _read_end(content: bytes, offset: int, salt: int) -> BatchEnd | None:
    """Return the marker at ``offset``, None if no marker of this segment is there."""
    if offset + END_BYTES > len(content):
        return None
    length, crc, frame, found, *rest = _END_FRAME.unpack_from(content, offset)
    if (length, frame, found) != (_END_BODY_BYTES, _END, salt):
        return None
    if crc32(content[offset + 8 : offset + END_BYTES], length) != crc:
        return None
    return BatchEnd(*rest)


def _later_batch(content: bytes, damaged: int, salt: int) -> BatchEnd | None:
    """Return the last marker of a batch that starts after byte ``damaged``.

    The damaged batch's own marker proves nothing, because the sectors of a write may reach
    the disk in any order. A later batch is written only after this one is durable.
    """
    needle, found = _SALT.pack(salt), len(content)
    while (found := content.rfind(needle, damaged, found)) >= 0:
        offset = found - _SALT_OFFSET
        end = _read_end(content, offset, salt) if offset % 8 == 0 else None
        if end is not None and damaged < end.start < offset:
            return end
    return None


def _chain(previous: bytes, frames: bytes, end_head: bytes) -> bytes:
    return blake2b(previous + frames + end_head, digest_size=CHAIN_BYTES).digest()
