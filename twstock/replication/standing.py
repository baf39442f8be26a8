"""A replica's state (Raft figure 2), and what others may read of it."""

from enum import Enum
from itertools import count
from math import inf
from random import Random

from twstock.errors import BrokenInvariant
from twstock.replication.election import Ballot, ElectionTimer, FlapGuard
from twstock.replication.leadership import Leadership, Watermarks
from twstock.replication.log import Log
from twstock.replication.messages import HardState, Membership, Message, Reach, Timings
from twstock.replication.writes import Writes


class Role(Enum):
    """What a replica is in its term; one that only asks for pre-votes is a candidate."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


class Standing:
    """The state of figure 2, and what others may read of it.

    ``log`` and ``hard_state`` are what the disk has; entries up to ``commit`` have been applied
    already, and are not handed out again.
    """

    def __init__(
        self,
        membership: Membership,
        timings: Timings,
        log: Log,
        hard_state: HardState,
        now: float,
        random: Random,
        commit: int = 0,
    ) -> None:
        if commit > log.last_index:
            raise BrokenInvariant(f"{commit} are applied, the log ends at {log.last_index}")
        self._membership = membership
        self._timings = timings
        self._log = log
        self._term, self._vote = hard_state.term, hard_state.vote
        self._watermarks = Watermarks(commit, applied=commit)
        self._handed_out = commit
        self._takes_commands = True
        self._reach, self._unheard = Reach.UNSURE, True
        self._leader_id = 0
        # By whether it is a pre-vote. A pre-vote leaves the real ballot of this term open, because
        # voters' disks may still be storing their votes.
        self._ballots: dict[bool, Ballot] = {}
        self._lead: Leadership | None = None
        self._timer = ElectionTimer(membership, timings, random, now)
        self._flap_guard = FlapGuard(timings)
        self._sequences = count(random.getrandbits(32))
        self._writes = Writes(log.last_index)
        self._outbox: list[Message] = []
        if log.last_term > self._term:  # the write was torn between them, so nothing was promised
            self._enter_term(log.last_term)

    @property
    def role(self) -> Role:
        """Follower, candidate or leader."""
        if self._lead is not None:
            return Role.LEADER
        return Role.CANDIDATE if self._ballots else Role.FOLLOWER

    @property
    def term(self) -> int:
        """The newest term that this replica knows."""
        return self._term

    @property
    def leader_id(self) -> int:
        """The leader of ``term``, perhaps this replica itself; 0 if not known."""
        return self._leader_id

    @property
    def commit(self) -> int:
        """The highest index known to be committed."""
        return self._watermarks.commit

    @property
    def everywhere(self) -> int:
        """The committed index up to which every member is known to have the log on disk."""
        return self._watermarks.everywhere

    @property
    def last_index(self) -> int:
        """The index of the log's last entry."""
        return self._log.last_index

    @property
    def log(self) -> Log:
        """The log, only to be read: answers to pulls take committed entries from it."""
        return self._log

    @property
    def is_ready(self) -> bool:
        """Whether it leads and has handed out the no-op of its term: from then on it has
        applied whatever any earlier leader acknowledged (etcd 7331).
        """
        return self._lead is not None and self._handed_out >= self._lead.first_index

    @property
    def is_mute(self) -> bool:
        """Whether none of its messages may leave now: its newest term or vote is not on disk."""
        return not self._writes.state_is_durable

    @property
    def lease_until(self) -> float:
        """Until when this replica may rely on being the only leader; ``-inf`` if it may not:
        not the leader, no entry of its term committed, or giving way (etcd 12704). A single
        replica leads for ever.
        """
        lead = self._lead
        if lead is None or lead.hand_over is not None or self.commit < lead.first_index:
            return -inf
        return lead.lease_until

    @property
    def handing_over_to(self) -> int:
        """The member that this leader is giving way to; 0 for none."""
        hand_over = self._lead.hand_over if self._lead is not None else None
        return hand_over.target if hand_over is not None else 0

    def heir(self, now: float) -> int:
        """The highest other id that could take over: it answers, is caught up within one window,
        and could serve; 0 for none.
        """
        return self._lead.heir(now) if self._lead is not None else 0

    def has_room_elsewhere(self, now: float) -> bool:
        """Whether enough others have room for a majority to commit a command, if this one leads."""
        return self._lead is None or self._lead.has_room_elsewhere(now)

    def matched(self, peer: int) -> int:
        """Up to where ``peer`` is known to have the log on disk; 0 if this is not the leader."""
        progress = self._lead.followers.get(peer) if self._lead is not None else None
        return progress.match if progress is not None else 0

    def silent_s(self, peer: int, now: float) -> float:
        """For how long ``peer`` has not answered this leader; inf: it never has, or this replica
        does not lead.
        """
        progress = self._lead.followers.get(peer) if self._lead is not None else None
        return progress.silent_s(now) if progress is not None else inf

    def must_rejoin(self, peer: int) -> bool:
        """Whether ``peer`` has lost what it promised: it refuses appends after an entry that it has
        confirmed to this leader, or needs entries that were dropped because every member had them.
        """
        progress = self._lead.followers.get(peer) if self._lead is not None else None
        return progress is not None and (progress.has_lost or progress.next < self._log.first_index)

    @property
    def _could_serve(self) -> bool:
        """Whether it would soon serve if it led. Without a leader it may not know how much of its
        log is committed, so all entries count that are not applied.
        """
        unapplied = self._log.last_index - self._watermarks.applied
        return self._takes_commands and unapplied <= self._timings.unapplied_max

    def _enter_term(self, term: int, vote: int = 0) -> None:
        self._term, self._vote, self._leader_id = term, vote, 0
        self._writes.state_changed()
