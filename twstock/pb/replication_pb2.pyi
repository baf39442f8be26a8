from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Peer(_message.Message):
    __slots__ = ("group", "cluster_id", "id", "incarnation")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    group: str
    cluster_id: str
    id: int
    incarnation: int
    def __init__(self, group: _Optional[str] = ..., cluster_id: _Optional[str] = ..., id: _Optional[int] = ..., incarnation: _Optional[int] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("index", "term", "kind", "payload")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    index: int
    term: int
    kind: int
    payload: bytes
    def __init__(self, index: _Optional[int] = ..., term: _Optional[int] = ..., kind: _Optional[int] = ..., payload: _Optional[bytes] = ...) -> None: ...

class AppendEntries(_message.Message):
    __slots__ = ("peer", "target", "term", "prev_index", "prev_term", "commit", "entries", "sequence", "sent_at", "applied", "digest", "everywhere")
    PEER_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    PREV_INDEX_FIELD_NUMBER: _ClassVar[int]
    PREV_TERM_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SENT_AT_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    EVERYWHERE_FIELD_NUMBER: _ClassVar[int]
    peer: Peer
    target: int
    term: int
    prev_index: int
    prev_term: int
    commit: int
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    sequence: int
    sent_at: float
    applied: int
    digest: bytes
    everywhere: int
    def __init__(self, peer: _Optional[_Union[Peer, _Mapping]] = ..., target: _Optional[int] = ..., term: _Optional[int] = ..., prev_index: _Optional[int] = ..., prev_term: _Optional[int] = ..., commit: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., sequence: _Optional[int] = ..., sent_at: _Optional[float] = ..., applied: _Optional[int] = ..., digest: _Optional[bytes] = ..., everywhere: _Optional[int] = ...) -> None: ...

class AppendReply(_message.Message):
    __slots__ = ("peer", "target", "term", "ok", "index", "hint", "sequence", "sent_at", "applied", "takes_commands", "reach")
    PEER_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SENT_AT_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    TAKES_COMMANDS_FIELD_NUMBER: _ClassVar[int]
    REACH_FIELD_NUMBER: _ClassVar[int]
    peer: Peer
    target: int
    term: int
    ok: bool
    index: int
    hint: int
    sequence: int
    sent_at: float
    applied: int
    takes_commands: bool
    reach: int
    def __init__(self, peer: _Optional[_Union[Peer, _Mapping]] = ..., target: _Optional[int] = ..., term: _Optional[int] = ..., ok: bool = ..., index: _Optional[int] = ..., hint: _Optional[int] = ..., sequence: _Optional[int] = ..., sent_at: _Optional[float] = ..., applied: _Optional[int] = ..., takes_commands: bool = ..., reach: _Optional[int] = ...) -> None: ...

class VoteRequest(_message.Message):
    __slots__ = ("peer", "target", "term", "last_index", "last_term", "pre_vote", "transfer", "sequence")
    PEER_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    LAST_TERM_FIELD_NUMBER: _ClassVar[int]
    PRE_VOTE_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    peer: Peer
    target: int
    term: int
    last_index: int
    last_term: int
    pre_vote: bool
    transfer: bool
    sequence: int
    def __init__(self, peer: _Optional[_Union[Peer, _Mapping]] = ..., target: _Optional[int] = ..., term: _Optional[int] = ..., last_index: _Optional[int] = ..., last_term: _Optional[int] = ..., pre_vote: bool = ..., transfer: bool = ..., sequence: _Optional[int] = ...) -> None: ...

class VoteReply(_message.Message):
    __slots__ = ("peer", "target", "term", "granted", "pre_vote", "sequence")
    PEER_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    PRE_VOTE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    peer: Peer
    target: int
    term: int
    granted: bool
    pre_vote: bool
    sequence: int
    def __init__(self, peer: _Optional[_Union[Peer, _Mapping]] = ..., target: _Optional[int] = ..., term: _Optional[int] = ..., granted: bool = ..., pre_vote: bool = ..., sequence: _Optional[int] = ...) -> None: ...

class Transfer(_message.Message):
    __slots__ = ("peer", "target", "term", "sequence")
    PEER_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    peer: Peer
    target: int
    term: int
    sequence: int
    def __init__(self, peer: _Optional[_Union[Peer, _Mapping]] = ..., target: _Optional[int] = ..., term: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class MemberStatus(_message.Message):
    __slots__ = ("group", "id", "incarnation", "role", "term", "leader_id", "last_index", "commit", "applied", "digest", "last_transaction", "pid", "uptime_s", "ready", "reason", "formed", "knows_asker_as", "cluster_id", "members", "first_index")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_INDEX_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    LAST_TRANSACTION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FORMED_FIELD_NUMBER: _ClassVar[int]
    KNOWS_ASKER_AS_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    group: str
    id: int
    incarnation: int
    role: str
    term: int
    leader_id: int
    last_index: int
    commit: int
    applied: int
    digest: bytes
    last_transaction: int
    pid: int
    uptime_s: float
    ready: bool
    reason: str
    formed: bool
    knows_asker_as: int
    cluster_id: str
    members: _containers.RepeatedScalarFieldContainer[int]
    first_index: int
    def __init__(self, group: _Optional[str] = ..., id: _Optional[int] = ..., incarnation: _Optional[int] = ..., role: _Optional[str] = ..., term: _Optional[int] = ..., leader_id: _Optional[int] = ..., last_index: _Optional[int] = ..., commit: _Optional[int] = ..., applied: _Optional[int] = ..., digest: _Optional[bytes] = ..., last_transaction: _Optional[int] = ..., pid: _Optional[int] = ..., uptime_s: _Optional[float] = ..., ready: bool = ..., reason: _Optional[str] = ..., formed: bool = ..., knows_asker_as: _Optional[int] = ..., cluster_id: _Optional[str] = ..., members: _Optional[_Iterable[int]] = ..., first_index: _Optional[int] = ...) -> None: ...

class Empty(_message.Message):
    __slots__ = ("peer", "append", "front_id", "order_id")
    PEER_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    FRONT_ID_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    peer: Peer
    append: AppendEntries
    front_id: int
    order_id: int
    def __init__(self, peer: _Optional[_Union[Peer, _Mapping]] = ..., append: _Optional[_Union[AppendEntries, _Mapping]] = ..., front_id: _Optional[int] = ..., order_id: _Optional[int] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("code", "status", "append")
    CODE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    code: int
    status: MemberStatus
    append: AppendReply
    def __init__(self, code: _Optional[int] = ..., status: _Optional[_Union[MemberStatus, _Mapping]] = ..., append: _Optional[_Union[AppendReply, _Mapping]] = ...) -> None: ...

class NotifyReplicaRequest(_message.Message):
    __slots__ = ("leader_id", "transfer")
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    leader_id: int
    transfer: Transfer
    def __init__(self, leader_id: _Optional[int] = ..., transfer: _Optional[_Union[Transfer, _Mapping]] = ...) -> None: ...

class NotifyReplicaResponse(_message.Message):
    __slots__ = ("code", "leader_id", "term")
    CODE_FIELD_NUMBER: _ClassVar[int]
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    code: int
    leader_id: int
    term: int
    def __init__(self, code: _Optional[int] = ..., leader_id: _Optional[int] = ..., term: _Optional[int] = ...) -> None: ...

class RequestVoteRequest(_message.Message):
    __slots__ = ("vote",)
    VOTE_FIELD_NUMBER: _ClassVar[int]
    vote: VoteRequest
    def __init__(self, vote: _Optional[_Union[VoteRequest, _Mapping]] = ...) -> None: ...

class RequestVoteResponse(_message.Message):
    __slots__ = ("vote",)
    VOTE_FIELD_NUMBER: _ClassVar[int]
    vote: VoteReply
    def __init__(self, vote: _Optional[_Union[VoteReply, _Mapping]] = ...) -> None: ...
