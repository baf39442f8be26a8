"""When a replica campaigns, how long it stays loyal to a leader, and when a leader gives way."""

from collections import deque
from dataclasses import dataclass, field
from math import inf
from random import Random

from twstock.replication.messages import Membership, Timings

SLOW_MAX = 10
"""By how many election time-outs a slow disk extends the wait for votes, at most."""


@dataclass(slots=True)
class Ballot:
    """One attempt to be elected in ``term``; a pre-vote asks only whether it would succeed
    (thesis section 9.6) and leaves no trace, so a replica that cannot win disturbs nobody.
    """

    term: int
    pre_vote: bool
    votes: set[int] = field(default_factory=set)

    def won(self, membership: Membership) -> bool:
        """Whether a majority has voted for it."""
        return len(self.votes) >= membership.majority


class ElectionTimer:
    """How long a replica stays loyal to a leader, and when it campaigns itself."""

    def __init__(
        self, membership: Membership, timings: Timings, random: Random, now: float
    ) -> None:
        self._membership = membership
        self._timings = timings
        self._random = random
        self._dead_leader = 0
        self._heard_at = -inf
        self._votes_since = now
        self._loyal_until = now + timings.election_s
        self._campaign_at = -inf
        self.reset(now)

    def heard(self, leader_id: int, at: float) -> None:
        """``leader_id`` was certainly leading at the time ``at``."""
        self._dead_leader = leader_id  # if it is lost, its turn is skipped
        self._heard_at = at

    def reset(self, now: float) -> None:
        """Restart the timer. It is longer than voters stay loyal to a leader, so that the first
        campaign is not refused; and the lower the id the longer, so that votes are rarely split.
        """
        timings, self._campaign_at = self._timings, now
        if self._membership.peers:
            self._campaign_at += timings.election_s + timings.election_grace_s
            self._campaign_at += self._turn_s() + self._random.uniform(0, timings.jitter_s)

    def votes(self, now: float) -> None:
        """This replica votes, for itself or another: the vote goes to its disk."""
        self._votes_since = now
        self.reset(now)

    def voted(self, now: float) -> None:
        """That vote is on disk. Only now do others hear of it, and their disks may take as long as
        this one did, so the timer is extended by that: otherwise no candidate would get its votes
        in time on slow disks. The extension is limited, because a disk that took very long has
        hung, and need not hang again.
        """
        patience_s = min(now - self._votes_since, SLOW_MAX * self._timings.election_s)
        self.reset(now + patience_s)

    def shorten(self, now: float) -> None:
        """The leader is certainly gone: forget having heard it, and wait only for the turns of the
        members that should campaign first.
        """
        self._heard_at = -inf
        self._campaign_at = min(self._campaign_at, now + self._turn_s())

    def has_expired(self, now: float, could_serve: bool) -> bool:
        """Whether it is time to campaign. A replica that could not serve lets all others have their
        turns and time for an election first, and campaigns only if nobody is elected.
        """
        campaign_at, others = self._campaign_at, len(self._membership.peers)
        if others and not could_serve:
            campaign_at += others * self._timings.stagger_s + self._timings.election_s
        return now >= campaign_at

    def is_loyal(self, now: float) -> bool:
        """Whether a leader may rely on this replica to elect nobody else (thesis 4.2.3): one that
        it has heard lately, or that it may have heard before a restart.
        """
        return now < self._loyal_until or now - self._heard_at < self._timings.election_s

    def _turn_s(self) -> float:
        own, lost = self._membership.id, self._dead_leader
        before = sum(member > own and member != lost for member in self._membership.members)
        return before * self._timings.stagger_s


@dataclass(frozen=True, slots=True)
class HandOver:
    """A leader is giving way to ``target``: it takes no more proposals and grants no more leases.
    The earlier leases are over at ``drained_at``; at ``gives_up_at`` the leader abandons this, and
    goes on leading.
    """

    target: int
    drained_at: float
    gives_up_at: float


class FlapGuard:
    """How long a higher id must have been steady before a leader gives way to it.

    The wait doubles with each hand-over in the flap window: a member that comes and goes
    costs the group a write pause each time.
    """

    def __init__(self, timings: Timings) -> None:
        self._timings = timings
        self._hand_overs: deque[float] = deque(maxlen=10)
        self._not_before = -inf

    def allows(self, steady_s: float, now: float, *, is_urgent: bool = False) -> bool:
        """Whether a hand-over may begin to a member that has been steady for ``steady_s``. If it
        ``is_urgent``, because this leader is useless, earlier hand-overs do not prolong the wait.
        """
        while self._hand_overs and now - self._hand_overs[0] > self._timings.flap_window_s:
            self._hand_overs.popleft()
        doublings = 0 if is_urgent else len(self._hand_overs)
        wait_s: float = self._timings.stable_s * 2**doublings
        return now >= self._not_before and steady_s >= wait_s

    def gave_up(self, now: float) -> None:
        """A hand-over failed: the next one waits for another stable period."""
        self._not_before = now + self._timings.stable_s

    def handed_over(self, now: float) -> None:
        """A hand-over took place."""
        self._hand_overs.append(now)
