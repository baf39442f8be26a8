"""The messages between replicas, what they keep, and what a replica wants its member to do.

All values are immutable. The words are Raft's (Ongaro and Ousterhout, 2014; "thesis" is
Ongaro's dissertation, the same year). Indices and terms count from 1; 0 means "before the
first". Times are seconds of the sender's clock.
"""

from dataclasses import dataclass, field
from enum import IntEnum


class EntryKind(IntEnum):
    """What an entry's payload is."""

    NOOP = 0
    COMMAND = 1


class Reach(IntEnum):
    """Whether a replica is in contact with the processes outside of its group that a leader needs.
    ``UNHEARD``: nothing is lost, but no front-end has called since the start; there may be none.
    """

    UNSURE = 0
    GOOD = 1
    LOST = 2
    UNHEARD = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log; only the state machine knows what the payload means."""

    index: int
    term: int
    kind: EntryKind
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class HardState:
    """What a replica has promised in elections: on disk before any other replica hears of it.

    ``vote`` is the id voted for in ``term``, 0 for nobody.
    """

    term: int = 0
    vote: int = 0


@dataclass(frozen=True, slots=True)
class AppendEntries:
    """Replicates entries after (``prev_index``, ``prev_term``); without entries, a heartbeat.

    ``sent_at`` comes back in the reply, so that the leader knows how fresh an answer is;
    ``applied`` and ``digest`` let a follower compare its state with the leader's. All members
    have the entries up to ``everywhere`` on disk, and these are committed.
    """

    source: int
    target: int
    term: int
    prev_index: int
    prev_term: int
    commit: int
    entries: tuple[Entry, ...] = ()
    sequence: int = 0
    sent_at: float = 0.0
    applied: int = 0
    digest: bytes = b""
    everywhere: int = 0


@dataclass(frozen=True, slots=True)
class AppendReply:
    """``ok``: the sender durably holds the leader's log up to ``index``.

    Not ok: nothing matched at ``index`` (the request's ``prev_index``), and the next try
    should go no further than ``hint``.

    ``applied``, ``takes_commands`` and ``reach`` say whether the sender could serve if it led: up
    to where it has applied the log, whether its log has room for commands and its disk does not
    hang, and whether it is in contact with the outside of the group.
    """

    source: int
    target: int
    term: int
    ok: bool
    index: int
    hint: int = 0
    sequence: int = 0
    sent_at: float = 0.0
    applied: int = 0
    takes_commands: bool = False
    reach: Reach = Reach.UNSURE


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """Asks for a vote in ``term``. ``pre_vote`` only asks whether one would be given, and
    changes nothing (thesis 9.6); ``transfer``: the leader itself asked for this campaign, so
    voters need not stay loyal to it (thesis 3.10).
    """

    source: int
    target: int
    term: int
    last_index: int
    last_term: int
    pre_vote: bool = False
    transfer: bool = False
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class VoteReply:
    """The answer to a VoteRequest; ``term`` is the voter's own when it refuses."""

    source: int
    target: int
    term: int
    granted: bool
    pre_vote: bool = False
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Transfer:
    """TimeoutNow (thesis 3.10): the leader of ``term`` asks the target to campaign at once."""

    source: int
    target: int
    term: int
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Committed:
    """Committed entries pulled from any replica (the SyncUp call): they can never change,
    so they may replace whatever the receiver has from ``prev_index + 1`` on.
    """

    source: int
    target: int
    term: int
    prev_index: int
    prev_term: int
    commit: int
    entries: tuple[Entry, ...] = ()


Request = AppendEntries | VoteRequest | Transfer
Reply = AppendReply | VoteReply
Message = Request | Reply | Committed


@dataclass(frozen=True, slots=True)
class Persist:
    """What must be on disk, in the order of ``sequence``, before its Ready's ``send_after`` leaves.

    ``entries`` may start at or before the log's last index: what was there is replaced.
    """

    sequence: int
    hard_state: HardState | None = None
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Ready:
    """What a replica wants done, in four parts.

    ``send_now`` may leave while the disk works. ``persist`` must reach the disk. ``send_after``
    may leave only when that write *and every earlier one* is durable; without a write of its
    own, when every earlier one is. ``apply`` holds committed entries, in order, each exactly
    once, all of them durable here.
    """

    send_now: tuple[Message, ...] = ()
    persist: Persist | None = None
    send_after: tuple[Message, ...] = ()
    apply: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Applied:
    """The outcome of one command: ``result`` is for the proposer, ``change`` for the tables that
    keep the applied state.
    """

    result: object
    change: object = None


@dataclass(frozen=True, slots=True)
class Timings:
    """The durations of one group, in seconds, and its bounds; defaults are in ``config``.

    ``election_s`` is the E of the documentation: voters stay with a leader that they heard
    less than E ago, and a leader's lease is a little shorter than that.
    """

    heartbeat_s: float
    election_s: float
    election_grace_s: float
    stagger_s: float
    jitter_s: float
    append_timeout_s: float
    stable_s: float
    lease_fraction: float
    lease_drain_s: float
    flap_window_s: float
    append_entries_max: int
    append_bytes_max: int
    append_window: int

    @property
    def window_entries(self) -> int:
        """How many entries may be on their way to one follower."""
        return self.append_window * self.append_entries_max

    @property
    def unapplied_max(self) -> int:
        """How many unapplied entries a replica may have and still be able to serve as leader.

        A replica that keeps up under the heaviest load has two windows of them: only the next
        append will tell it that the last entries are committed, and it has only just learnt that of
        those before. So many are applied within a few ticks.
        """
        return 2 * self.window_entries


@dataclass(frozen=True, slots=True)
class Membership:
    """Who is in the group: this replica's id and all ids, its own among them.

    ``peers`` are the others, lowest id first; ``majority`` is how many members decide. Both are
    needed with every message, so they are computed once.
    """

    id: int
    members: tuple[int, ...] = ()
    peers: tuple[int, ...] = field(init=False, repr=False, compare=False)
    majority: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        peers = tuple(sorted(member for member in self.members if member != self.id))
        object.__setattr__(self, "peers", peers)
        object.__setattr__(self, "majority", len(self.members) // 2 + 1)
