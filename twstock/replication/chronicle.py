"""What a member logs about its life in the group: one line for each change of state.

It looks at the replica on every tick and compares, so that code that decides need not log.
"""

from collections.abc import Sequence

from twisted.logger import Logger

from twstock.replication.messages import Membership, Timings
from twstock.replication.replica import Replica
from twstock.replication.standing import Role

LEADERLESS_S = 5.0
"""After this long without a leader the reason is more than a slow election."""


class Chronicle:
    """Logs what has changed since the last look. A disk with less room than ``room_min_bytes``
    counts as full.
    """

    _log = Logger()

    def __init__(
        self, group: str, membership: Membership, timings: Timings, room_min_bytes: int
    ) -> None:
        self._group = group
        self._membership = membership
        self._silent_max_s = 2 * timings.election_s
        self._room_min_bytes = room_min_bytes
        self._why = ""
        self._leads = 0
        self._since = 0.0
        self._follows = (0, 0)
        self._led_at: float | None = None
        self._told_of_none = False
        self._gives_way_to = 0
        self._silent: set[int] = set()
        self._behind: set[int] = set()
        self._beyond_help: set[int] = set()
        self._waits_for: Sequence[int] = ()
        self._opened_at = 0
        self._full = False
        self._lost = ""

    # --- what a member says by itself --------------------------------------------------------

    def because(self, reason: str) -> None:
        """Note why this member is about to stop leading, if it does so by itself."""
        self._why = reason

    def waits(self, missing: Sequence[int]) -> str:
        """A new member cannot be formed before these have answered; returns that in words."""
        words = f"a new member: waits for the first answer of {self._names(missing)}"
        if missing != self._waits_for:
            self._log.info("is {what}", what=words)
        self._waits_for = missing
        return words

    def formed(self) -> None:
        """The member has learnt the incarnations of all others, and may promise things."""
        self._log.info("is formed: it knows {peers}", peers=self._names(self._membership.peers))

    def opened(self, term: int, last_index: int, applied: int) -> None:
        """The data is open, and the member takes part."""
        self._opened_at = applied
        self._log.info(
            "takes part with {last_index} entries, {applied} of them applied, in term {term}",
            last_index=last_index,
            applied=applied,
            term=term,
        )

    def caught_up(self, peer: int, commit: int) -> None:
        """The log has all entries that ``peer`` knew to be committed when it was asked."""
        entries = max(commit - self._opened_at, 0)
        name = self._name(peer)
        self._log.info("has caught up with {peer}: {entries} entries", peer=name, entries=entries)

    # --- what can be seen ---------------------------------------------------------------------

    def reach(self, lost: str) -> None:
        """Note which contacts outside of the group are ``lost``, in words; empty: none."""
        if lost != self._lost:
            self._lost = lost
            if lost:
                self._log.warn("could not serve as the leader: {lost}", lost=lost)
            else:
                self._log.info("could serve as the leader again")

    def look(self, replica: Replica, room_bytes: int, now: float) -> None:
        """Log what has changed."""
        self._look_at_leadership(replica, now)
        self._look_at_leader(replica)
        self._look_for_leader(replica, now)
        if self._leads:
            self._look_at_followers(replica, now)
        if (room_bytes < self._room_min_bytes) != self._full:
            self._full = not self._full
            if self._full:
                self._log.error("the disk is full", room_bytes=room_bytes)
            else:
                self._log.info("the disk has room again", room_bytes=room_bytes)

    def _look_at_leadership(self, replica: Replica, now: float) -> None:
        leads = replica.term if replica.role is Role.LEADER and replica.is_ready else 0
        heir = replica.handing_over_to
        if heir != self._gives_way_to and heir:
            self._log.info("gives way to {heir}", heir=self._name(heir), term=replica.term)
        if leads != self._leads:
            if self._leads:
                self._tell_the_end(replica)
            if leads:
                self._since = now
                self._log.info("leads term {term}", term=leads, entry=replica.commit)
            self._leads, self._why = leads, ""
            self._silent.clear()
            self._behind.clear()
            self._beyond_help.clear()
        self._gives_way_to = heir

    def _tell_the_end(self, replica: Replica) -> None:
        reason = self._why
        if not reason and self._gives_way_to:
            reason = f"it has handed over to {self._name(self._gives_way_to)}"
        if not reason and replica.term > self._leads:
            reason = f"term {replica.term} has begun"
        self._log.info(
            "leads term {term} no more: {reason}",
            term=self._leads,
            reason=reason or "no majority answers",
        )

    def _look_at_leader(self, replica: Replica) -> None:
        """Log whom it follows; a candidate logs once that it hears no leader."""
        leader = replica.leader_id
        if leader == self._membership.id:
            self._follows = (leader, replica.term)
        elif leader and (leader, replica.term) != self._follows:
            self._follows = (leader, replica.term)
            name = self._name(leader)
            self._log.info("follows {leader} in term {term}", leader=name, term=replica.term)
        elif not leader and replica.role is Role.CANDIDATE and self._follows[0]:
            lost, self._follows = self._follows[0], (0, replica.term)
            if lost != self._membership.id:
                name = self._name(lost)
                self._log.warn("hears no leader: {leader} is silent", leader=name)

    def _look_for_leader(self, replica: Replica, now: float) -> None:
        """Warn once if nobody leads for long: most are down or cut off, or their disks too slow."""
        if replica.leader_id or self._led_at is None:
            self._led_at, self._told_of_none = now, False
        elif not self._told_of_none and now - self._led_at >= LEADERLESS_S:
            self._told_of_none = True
            self._log.warn("has found no leader for {seconds:.0f} s", seconds=now - self._led_at)

    def _look_at_followers(self, replica: Replica, now: float) -> None:
        for peer in self._membership.peers:
            silent_s = min(replica.silent_s(peer, now), now - self._since)
            if silent_s > self._silent_max_s and peer not in self._silent:
                self._silent.add(peer)
                self._log.warn("does not hear {peer}", peer=self._name(peer))
            elif silent_s <= self._silent_max_s and peer in self._silent:
                self._silent.discard(peer)
                self._behind.add(peer)
                behind = max(replica.commit - replica.matched(peer), 0)
                self._log.info("hears {peer} again", peer=self._name(peer), entries_behind=behind)
            lost = replica.must_rejoin(peer)
            if peer in self._behind and replica.matched(peer) >= replica.commit and not lost:
                self._behind.discard(peer)
                self._log.info("{peer} has caught up", peer=self._name(peer), entry=replica.commit)
            if lost and peer not in self._beyond_help:
                self._beyond_help.add(peer)
                name = self._name(peer)
                self._log.error("{peer} has lost what it confirmed: it must rejoin", peer=name)

    def _name(self, number: int) -> str:
        return f"{self._group}-{number}"

    def _names(self, numbers: Sequence[int]) -> str:
        return ", ".join(map(self._name, numbers)) or "nobody else"
