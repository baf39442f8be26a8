"""The format of a seal, which says what a scan of a finished segment would find.

Pure. A seal only saves time: one that is not believed costs a scan, and nothing is ever
refused because of it. DESIGN.md has the table and the rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct

from twstock.replication.records import (
    FORMAT,
    Identity,
    Place,
    Position,
    SegmentHeader,
)

_MAGIC = b"twstksel"
_HEAD = Struct("<8sII16sQQQQQ16sQ")
_PLACE = Struct("<QQQ")
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Seal:
    """What is in a segment that is no longer written to.

    ``end`` is where its last batch ends, ``checksum`` the CRC-32 of all bytes before that,
    ``places`` are those of its entries.
    """

    identity: Identity
    end: Position
    checksum: int
    places: Sequence[Place]

    def vouches(
        self, header: SegmentHeader | None, following: SegmentHeader | None, mark: Position | None
    ) -> bool:
        """Whether this seal is to be believed for the segment with ``header``, if the checksum is
        right, too.

        ``following`` is the next segment's header, which was durable before the seal was written;
        a seal that is older than the segment's last batch gives another end. A ``mark`` inside the
        segment has to be compared with its batches, so then the seal is of no use.
        """
        if header is None or following is None:
            return False
        own = (header.identity, header.sequence) == (self.identity, self.end.segment)
        joined = following == SegmentHeader.after(self.identity, self.end)
        marked = mark is not None and mark.segment == header.sequence
        return own and joined and not (marked and mark != self.end)


def encode_seal(seal: Seal) -> bytes:
    """Return the content of a seal's file."""
    who, end = seal.identity, seal.end
    body = _HEAD.pack(
        _MAGIC,
        FORMAT,
        len(seal.places),
        who.cluster,
        who.member_id,
        who.origin,
        end.segment,
        end.offset,
        end.last_index,
        end.chain,
        seal.checksum,
    ) + b"".join(_PLACE.pack(*place) for place in seal.places)
    return body + _digest(body)


def decode_seal(content: bytes) -> Seal | None:
    """Return the seal in a file's ``content``, None if it is not intact."""
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if len(body) < _HEAD.size or _digest(body) != digest:
        return None
    magic, version, count, cluster, member_id, origin, *rest = _HEAD.unpack_from(body)
    segment, offset, last_index, chain, checksum = rest
    if (magic, version, len(body)) != (_MAGIC, FORMAT, _HEAD.size + count * _PLACE.size):
        return None
    places = [Place(*fields) for fields in _PLACE.iter_unpack(body[_HEAD.size :])]
    end = Position(segment, offset, last_index, chain)
    return Seal(Identity(cluster, member_id, origin), end, checksum, places)


def _digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=_DIGEST_BYTES, person=b"seal").digest()
