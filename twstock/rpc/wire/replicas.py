"""What replicas say to each other, as protobuf and back."""

from collections.abc import Iterable
from typing import Any

from twstock import errors
from twstock.pb import catalog_pb2 as catalog
from twstock.pb import replication_pb2 as replication
from twstock.replication.messages import (
    AppendEntries,
    AppendReply,
    Committed,
    Entry,
    EntryKind,
    Reach,
    Request,
    Transfer,
    VoteReply,
    VoteRequest,
)
from twstock.rpc import calls
from twstock.rpc.wire.base import OK, check_count, to_bytes

_REACHES = frozenset(Reach)


def peer(peer: calls.Peer) -> Any:
    return replication.Peer(
        group=peer.group, cluster_id=peer.cluster_id, id=peer.id, incarnation=peer.incarnation
    )


def to_peer(pb: Any) -> calls.Peer:
    return calls.Peer(pb.group, pb.cluster_id, pb.id, pb.incarnation)


def entries(entries: Iterable[Entry]) -> list[Any]:
    return [
        replication.Entry(index=e.index, term=e.term, kind=e.kind, payload=e.payload)
        for e in entries
    ]


def to_entries(pb: Any) -> tuple[Entry, ...]:
    check_count("entries", pb)
    return tuple(Entry(e.index, e.term, EntryKind(e.kind), e.payload) for e in pb)


def append(m: AppendEntries, source: calls.Peer | None) -> Any:
    return replication.AppendEntries(
        peer=peer(source) if source else None,
        target=m.target,
        term=m.term,
        prev_index=m.prev_index,
        prev_term=m.prev_term,
        commit=m.commit,
        entries=entries(m.entries),
        sequence=m.sequence,
        sent_at=m.sent_at,
        applied=m.applied,
        digest=m.digest,
        everywhere=m.everywhere,
    )


def check_follow(entries: tuple[Entry, ...], prev_index: int, prev_term: int) -> None:
    """Refuse entries that cannot follow one another in a log, before the core sees them."""
    if prev_index < 0 or prev_term < 0:
        raise errors.InvalidRequest("prev_index", "there is nothing before the first entry")
    index, term = prev_index, prev_term
    for entry in entries:
        if entry.index != index + 1 or entry.term < max(term, 1):
            raise errors.InvalidRequest("entries", f"entry {entry.index} cannot follow {index}")
        index, term = entry.index, entry.term


def to_append(pb: Any) -> AppendEntries:
    entries = to_entries(pb.entries)
    check_follow(entries, pb.prev_index, pb.prev_term)
    return AppendEntries(
        pb.peer.id,
        pb.target,
        pb.term,
        pb.prev_index,
        pb.prev_term,
        pb.commit,
        entries,
        pb.sequence,
        pb.sent_at,
        pb.applied,
        pb.digest,
        pb.everywhere,
    )


def append_reply(m: AppendReply) -> Any:
    return replication.AppendReply(
        peer=replication.Peer(id=m.source),
        target=m.target,
        term=m.term,
        ok=m.ok,
        index=m.index,
        hint=m.hint,
        sequence=m.sequence,
        sent_at=m.sent_at,
        applied=m.applied,
        takes_commands=m.takes_commands,
        reach=m.reach,
    )


def to_append_reply(pb: Any) -> AppendReply:
    return AppendReply(
        pb.peer.id,
        pb.target,
        pb.term,
        pb.ok,
        pb.index,
        pb.hint,
        pb.sequence,
        pb.sent_at,
        pb.applied,
        pb.takes_commands,
        Reach(pb.reach) if pb.reach in _REACHES else Reach.UNSURE,
    )


def vote_request(e: calls.Envelope) -> bytes:
    m = e.message
    assert isinstance(m, VoteRequest)
    vote = replication.VoteRequest(
        peer=peer(e.peer),
        target=m.target,
        term=m.term,
        last_index=m.last_index,
        last_term=m.last_term,
        pre_vote=m.pre_vote,
        transfer=m.transfer,
        sequence=m.sequence,
    )
    return to_bytes(replication.RequestVoteRequest(vote=vote))


def to_vote_request(data: bytes) -> calls.Envelope:
    v = replication.RequestVoteRequest.FromString(data).vote
    message = VoteRequest(
        v.peer.id,
        v.target,
        v.term,
        v.last_index,
        v.last_term,
        v.pre_vote,
        v.transfer,
        v.sequence,
    )
    return calls.Envelope(to_peer(v.peer), message)


def vote_reply(m: VoteReply) -> bytes:
    vote = replication.VoteReply(
        peer=replication.Peer(id=m.source),
        target=m.target,
        term=m.term,
        granted=m.granted,
        pre_vote=m.pre_vote,
        sequence=m.sequence,
    )
    return to_bytes(replication.RequestVoteResponse(vote=vote))


def to_vote_reply(data: bytes) -> VoteReply:
    v = replication.RequestVoteResponse.FromString(data).vote
    return VoteReply(v.peer.id, v.target, v.term, v.granted, v.pre_vote, v.sequence)


_STATUS_FIELDS = tuple(f for f in calls.Status.__dataclass_fields__)


def probe(q: calls.Probe) -> bytes:
    return to_bytes(
        replication.Empty(
            peer=peer(q.peer) if q.peer else None,
            append=append(q.append, q.peer) if q.append else None,
            front_id=q.front_id,
            order_id=q.order_id,
        )
    )


def to_probe(data: bytes) -> calls.Probe:
    pb = replication.Empty.FromString(data)
    return calls.Probe(
        to_peer(pb.peer) if pb.HasField("peer") else None,
        to_append(pb.append) if pb.HasField("append") else None,
        pb.front_id,
        pb.order_id,
    )


def probe_answer(a: calls.ProbeAnswer) -> bytes:
    status = replication.MemberStatus(**{f: getattr(a.status, f) for f in _STATUS_FIELDS})
    append = append_reply(a.append) if a.append else None
    return to_bytes(replication.HeartbeatResponse(code=OK, status=status, append=append))


def to_probe_answer(data: bytes) -> calls.ProbeAnswer:
    pb = replication.HeartbeatResponse.FromString(data)
    fields = {f: getattr(pb.status, f) for f in _STATUS_FIELDS}
    first = max(1, pb.status.first_index)  # an older version sends none
    fields |= {"members": tuple(pb.status.members), "first_index": first}
    status = calls.Status(**fields)
    return calls.ProbeAnswer(status, to_append_reply(pb.append) if pb.HasField("append") else None)


def envelope_of_append(pb: Any) -> calls.Envelope:
    """The append of a replication call; the original's bare order has none and is refused."""
    if not pb.HasField("append") or pb.append.term < 1:
        raise errors.InvalidRequest("append", "an entry counts only with its term and place")
    return calls.Envelope(to_peer(pb.append.peer), to_append(pb.append))


def append_of(e: calls.Envelope) -> Any:
    assert isinstance(e.message, AppendEntries)
    return append(e.message, e.peer)


def notify(q: calls.Notify) -> bytes:
    transfer = None
    if q.transfer:
        m = q.transfer.message
        assert isinstance(m, Transfer)
        transfer = replication.Transfer(
            peer=peer(q.transfer.peer), target=m.target, term=m.term, sequence=m.sequence
        )
    return to_bytes(replication.NotifyReplicaRequest(leader_id=q.leader_id, transfer=transfer))


def to_notify(data: bytes) -> calls.Notify:
    pb = replication.NotifyReplicaRequest.FromString(data)
    if not pb.HasField("transfer"):
        return calls.Notify(pb.leader_id)
    t = pb.transfer
    message: Request = Transfer(t.peer.id, t.target, t.term, t.sequence)
    return calls.Notify(pb.leader_id, calls.Envelope(to_peer(t.peer), message))


def notified(a: calls.Notified) -> bytes:
    return to_bytes(replication.NotifyReplicaResponse(code=OK, leader_id=a.leader_id, term=a.term))


def to_notified(data: bytes) -> calls.Notified:
    pb = replication.NotifyReplicaResponse.FromString(data)
    return calls.Notified(pb.leader_id, pb.term)


def fetch(q: calls.Fetch) -> Any:
    return catalog.FetchEntriesRequest(peer=peer(q.peer), after_index=q.after_index)


def to_fetch(pb: Any) -> calls.Fetch:
    return calls.Fetch(to_peer(pb.peer), pb.after_index)


def fetched(a: Committed) -> Any:
    return catalog.FetchEntriesResponse(
        prev_index=a.prev_index,
        prev_term=a.prev_term,
        entries=entries(a.entries),
        commit=a.commit,
        term=a.term,
    )


def to_fetched(pb: Any) -> Committed:
    entries = to_entries(pb.entries)
    check_follow(entries, pb.prev_index, pb.prev_term)
    return Committed(0, 0, pb.term, pb.prev_index, pb.prev_term, pb.commit, entries)


def fetch_snapshot(q: calls.FetchSnapshot) -> Any:
    return catalog.FetchSnapshotRequest(peer=peer(q.peer), index=q.index, offset=q.offset)


def to_fetch_snapshot(pb: Any) -> calls.FetchSnapshot:
    if pb.index < 0 or pb.offset < 0 or (pb.offset and not pb.index):
        raise errors.InvalidRequest("offset", "no byte of a snapshot that is named")
    return calls.FetchSnapshot(to_peer(pb.peer), pb.index, pb.offset)


def snapshot_piece(a: calls.SnapshotPiece) -> Any:
    return catalog.FetchSnapshotResponse(index=a.index, size=a.size, content=a.content)


def to_snapshot_piece(pb: Any) -> calls.SnapshotPiece:
    return calls.SnapshotPiece(pb.index, pb.size, pb.content)
