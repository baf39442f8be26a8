"""The format of ``meta``: whose directory it is, what was promised, and the mark.

Pure. Four slots of one page each: two for promises, written in turn and flushed each time,
and two for marks, written in turn without a flush of their own. A mark shares no page with
a promise, so a torn mark damages no promise. DESIGN.md has the tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from struct import Struct, error
from types import MappingProxyType
from zlib import crc32

from twstock.errors import StorageError
from twstock.replication.messages import HardState
from twstock.replication.records import CHAIN_BYTES, FORMAT, Identity, Position

SLOT_BYTES = 4096
PROMISE_SLOTS = 2
META_BYTES = 4 * SLOT_BYTES

_PROMISE_MAGIC = b"twstkprm"
_MARK_MAGIC = b"twstkmrk"
_SLOT = Struct("<8sII")  # magic, CRC-32 of length and body, length of the body
_PROMISE = Struct("<II6Q4H")
_MARK = Struct("<QQQQQQ16s")
_ID = Struct("<Q")
_PEER = Struct("<QQ")
_FORMED = 1


@dataclass(frozen=True, slots=True)
class Owner:
    """Who a directory belongs to, checked against what is on disk."""

    group: str
    cluster_id: str
    member_id: int
    members: tuple[int, ...]

    def __str__(self) -> str:
        members = ", ".join(map(str, self.members))
        return (
            f"member {self.member_id} of {members} of the {self.group} group "
            f"of cluster {self.cluster_id}"
        )

    def identity(self, origin: int) -> Identity:
        """The identity in the headers of segments in this owner's directory with ``origin``."""
        content = "\0".join((self.group, self.cluster_id)).encode()
        cluster = blake2b(content, digest_size=CHAIN_BYTES).digest()
        return Identity(cluster, self.member_id, origin)


@dataclass(frozen=True, slots=True)
class Promise:
    """Everything that a member must never forget, except its log.

    ``incarnation`` is the number by which the others know this member; ``origin`` is another, which
    no message reveals. ``sequence`` counts promises.
    """

    owner: Owner
    incarnation: int
    origin: int
    hard_state: HardState = field(default_factory=HardState)
    formed: bool = False
    peers: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    sequence: int = 1


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the log was durable once, and the promises, up to the sequence ``promise``."""

    sequence: int
    origin: int
    promise: int
    position: Position


@dataclass(frozen=True, slots=True)
class Meta:
    """What ``meta`` holds.

    ``slot`` is where the newest promise is; ``in_both``: the other slot has it as well.
    ``mark_damaged``: no mark can be read although one was written.
    """

    promise: Promise | None
    slot: int
    in_both: bool
    mark: Mark | None
    mark_damaged: bool


def encode_promise(promise: Promise) -> bytes:
    """Return a slot's page. Raises StorageError when the promise does not fit into it."""
    owner, state = promise.owner, promise.hard_state
    group, cluster = owner.group.encode(), owner.cluster_id.encode()
    flags = _FORMED * promise.formed
    head = _PROMISE.pack(
        FORMAT,
        flags,
        promise.sequence,
        promise.incarnation,
        promise.origin,
        state.term,
        state.vote,
        owner.member_id,
        len(group),
        len(cluster),
        len(owner.members),
        len(promise.peers),
    )
    members = b"".join(map(_ID.pack, owner.members))
    peers = b"".join(_PEER.pack(*peer) for peer in sorted(promise.peers.items()))
    page = _encode_slot(_PROMISE_MAGIC, head + group + cluster + members + peers)
    if len(page) > SLOT_BYTES:
        raise StorageError(f"{owner} does not fit into a page")
    return page.ljust(SLOT_BYTES, b"\0")


def encode_mark(sequence: int, origin: int, promise: int, position: Position) -> bytes:
    """Return what a mark's slot starts with: less than a sector, so that it is never torn.

    The arguments are a Mark's; making one first would take longer than all the rest.
    """
    return _encode_slot(_MARK_MAGIC, _MARK.pack(sequence, origin, promise, *position))


def promise_offset(slot: int) -> int:
    """Where promise slot ``slot`` starts."""
    return slot * SLOT_BYTES


def mark_offset(sequence: int) -> int:
    """Where the mark number ``sequence`` is written."""
    return (PROMISE_SLOTS + sequence % 2) * SLOT_BYTES


def read_meta(content: bytes) -> Meta:
    """Return what can be read. Raises StorageError for another format version."""
    slots = [content[i * SLOT_BYTES : (i + 1) * SLOT_BYTES] for i in range(4)]
    promises = [_decode_promise(page) for page in slots[:PROMISE_SLOTS]]
    sequences = [promise.sequence if promise else 0 for promise in promises]
    slot = sequences.index(max(sequences))
    marks = [_decode_mark(page) for page in slots[PROMISE_SLOTS:]]
    mark = max((m for m in marks if m is not None), key=lambda m: m.sequence, default=None)
    written = any(any(page) for page in slots[PROMISE_SLOTS:])
    in_both = promises[0] == promises[1]
    return Meta(promises[slot], slot, in_both, mark, mark is None and written)


def _encode_slot(magic: bytes, body: bytes) -> bytes:
    length = len(body)
    return _SLOT.pack(magic, crc32(body, length), length) + body


def _decode_slot(page: bytes, magic: bytes) -> bytes | None:
    if len(page) < _SLOT.size:
        return None
    found, crc, length = _SLOT.unpack_from(page)
    body = page[_SLOT.size : _SLOT.size + length]
    intact = found == magic and len(body) == length and crc32(body, length) == crc
    return body if intact else None


def _decode_mark(page: bytes) -> Mark | None:
    body = _decode_slot(page, _MARK_MAGIC)
    if body is None or len(body) != _MARK.size:
        return None
    sequence, origin, promise, *position = _MARK.unpack(body)
    return Mark(sequence, origin, promise, Position(*position))


def _decode_promise(page: bytes) -> Promise | None:
    body = _decode_slot(page, _PROMISE_MAGIC)
    if body is None:
        return None
    version = int.from_bytes(body[:4], "little")
    if version != FORMAT:
        raise StorageError(f"meta has format {version}; this program reads format {FORMAT}")
    try:
        return _parse_promise(body)
    except (error, UnicodeDecodeError):
        return None


def _parse_promise(body: bytes) -> Promise:
    _, flags, sequence, incarnation, origin, term, vote, member_id, *counts = _PROMISE.unpack_from(
        body
    )
    groups, clusters, members, peers = counts
    start = _PROMISE.size
    group = body[start : start + groups].decode()
    start += groups
    cluster = body[start : start + clusters].decode()
    start += clusters
    ids = tuple(_ID.unpack_from(body, start + i * _ID.size)[0] for i in range(members))
    start += members * _ID.size
    pairs = [_PEER.unpack_from(body, start + i * _PEER.size) for i in range(peers)]
    return Promise(
        owner=Owner(group, cluster, member_id, ids),
        incarnation=incarnation,
        origin=origin,
        hard_state=HardState(term, vote),
        formed=bool(flags & _FORMED),
        peers=MappingProxyType({int(id_): int(known) for id_, known in pairs}),
        sequence=sequence,
    )
