"""The format of the file ``dropped``: what is known of the segments that were dropped.

Pure. A log drops entries that every member has and that snapshots of the state stand in for. It
keeps only their terms, and where the last dropped segment ended, so that a start can tell dropped
segments from lost ones: DESIGN.md has the table and the rules.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

from twstock.replication.records import FORMAT, Identity, Position

DROPPED = "dropped"
"""The name of the file."""

_MAGIC = b"twstkcmp"
_HEAD = Struct("<8sII16sQQQQQ16s")
_RUN = Struct("<QQ")
RUN_BYTES = _RUN.size
_DIGEST_BYTES = 16


class TermRun(NamedTuple):
    """The entries from index ``first`` on are of ``term``, up to the next run."""

    first: int
    term: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """Stands in for the segments that were dropped: ``end`` is where the last of them ended,
    ``runs`` are the terms of all entries up to there.
    """

    identity: Identity
    end: Position
    runs: tuple[TermRun, ...]

    @classmethod
    def before(cls, identity: Identity, last_index: int, runs: Iterable[TermRun]) -> "Dropped":
        """For the log of a new directory that begins after entry ``last_index``."""
        return cls(identity, Position(0, 0, last_index, identity.genesis()), tuple(runs))


def up_to(runs: Iterable[TermRun], last_index: int) -> tuple[TermRun, ...]:
    """The runs of the entries up to ``last_index``, one for each term."""
    kept: list[TermRun] = []
    for run in runs:
        if run.first <= last_index and (not kept or run.term != kept[-1].term):
            kept.append(run)
    return tuple(kept)


def encode_dropped(dropped: Dropped) -> bytes:
    """Return the content of the file."""
    who, end = dropped.identity, dropped.end
    head = (_MAGIC, FORMAT, len(dropped.runs), who.cluster, who.member_id, who.origin, *end)
    body = _HEAD.pack(*head) + encode_runs(dropped.runs)
    return body + _digest(body)


def decode_dropped(content: bytes) -> Dropped | None:
    """Decode the content of the file; None if it is not intact."""
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if len(body) < _HEAD.size or _digest(body) != digest:
        return None
    magic, version, count, cluster, member_id, origin, *end = _HEAD.unpack_from(body)
    if (magic, version, len(body)) != (_MAGIC, FORMAT, _HEAD.size + count * _RUN.size):
        return None
    identity = Identity(cluster, member_id, origin)
    return Dropped(identity, Position(*end), decode_runs(body[_HEAD.size :]))


def encode_runs(runs: Iterable[TermRun]) -> bytes:
    """Return 16 bytes for each run."""
    return b"".join(_RUN.pack(*run) for run in runs)


def decode_runs(content: bytes) -> tuple[TermRun, ...]:
    """Return the runs that ``encode_runs`` encoded."""
    return tuple(TermRun(*run) for run in _RUN.iter_unpack(content))


def _digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=_DIGEST_BYTES, person=b"dropped").digest()
