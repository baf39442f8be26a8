"""What a replica knows and sends while it leads one term."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from twstock.replication.election import FlapGuard, HandOver
from twstock.replication.log import Log
from twstock.replication.messages import (
    AppendEntries,
    AppendReply,
    Entry,
    Membership,
    Reach,
    Timings,
    Transfer,
)
from twstock.replication.progress import Progress


@dataclass(slots=True)
class Watermarks:
    """How far a replica has got: entries up to ``commit`` are committed, those up to ``applied``
    are applied, which led to a state with this ``digest``. Every member is known to have the
    entries up to ``everywhere`` on disk; these are committed.
    """

    commit: int
    applied: int = 0
    digest: bytes = b""
    everywhere: int = 0


class Leadership:
    """The volatile state of a leader (Raft figure 2): gone when it steps down.

    ``first_index`` is where the no-op of the term goes; once that is committed, so is
    everything before it.
    """

    def __init__(
        self,
        membership: Membership,
        timings: Timings,
        log: Log,
        watermarks: Watermarks,
        *,
        term: int,
        sequences: Iterator[int],
        now: float,
    ) -> None:
        self.term = term
        self.first_index = log.last_index + 1
        self.hand_over: HandOver | None = None
        self.followers = {peer: Progress(self.first_index, timings) for peer in membership.peers}
        self._membership = membership
        self._timings = timings
        self._log = log
        self._watermarks = watermarks
        self._sequences = sequences
        self._since = now

    def answered(self, reply: AppendReply, now: float) -> None:
        """A follower answers, in this term."""
        if reply.source in self.followers:
            self.followers[reply.source].answered(reply, now)

    def quorum_index(self, durable_index: int) -> int:
        """Up to where a majority has the log on disk; this replica has it up to ``durable_index``.

        Of itself, too, a leader counts only what is on disk (thesis 10.2.1; etcd 14370).
        """
        held = [durable_index, *(progress.match for progress in self.followers.values())]
        return sorted(held, reverse=True)[self._membership.majority - 1]

    def everywhere(self, durable_index: int) -> int:
        """The highest committed index up to which every member has the log on disk."""
        held = [durable_index, *(progress.match for progress in self.followers.values())]
        return min(self._watermarks.commit, *held)

    @property
    def contact_at(self) -> float:
        """The last time at which a majority was certainly following: it has answered requests that
        were sent then or later.

        The time of sending counts, not that of the answer's arrival: an answer that waited in a
        queue, or for a paused process, says nothing about the time in between.
        """
        needed = self._membership.majority - 1
        if not needed:
            return inf
        answered = sorted((p.answered_at for p in self.followers.values()), reverse=True)
        return answered[needed - 1]

    @property
    def lease_until(self) -> float:
        """Until when nobody else can be elected: voters stay with a leader for an election
        time-out after they heard it, and they heard it after ``contact_at``.
        """
        return self.contact_at + self._timings.election_s * self._timings.lease_fraction

    def is_out_of_touch(self, now: float) -> bool:
        """Whether no majority has answered for two election time-outs (CheckQuorum)."""
        return now - max(self._since, self.contact_at) > 2 * self._timings.election_s

    def heartbeats(self, now: float) -> list[AppendEntries]:
        """The heartbeats that are due: those to followers that have answered nothing lately.

        Each follows an entry that the follower is known to have, so it is accepted whatever else is
        under way, and its answer shows only that the follower is there.
        """
        messages = []
        for peer, progress in self.followers.items():
            if progress.wants_heartbeat(now):
                progress.heartbeat_sent(now)
                messages.append(self._append(peer, progress.match, (), now))
        return messages

    def appends(self, now: float) -> list[AppendEntries]:
        """As many appends as the followers' windows and the log have room for."""
        messages = []
        for peer, progress in self.followers.items():
            while self._has(progress.next) and progress.may_send(now):
                entries = self._log.slice(
                    progress.next, self._timings.append_entries_max, self._timings.append_bytes_max
                )
                message = self._append(peer, progress.next - 1, entries, now)
                progress.sent(message.sequence, entries[-1].index, now)
                messages.append(message)
        return messages

    def has_room_elsewhere(self, now: float) -> bool:
        """Whether enough followers have room for a majority to commit a command. Silent ones count
        as full only while another one refuses entries: silence says nothing about a disk.
        """
        followers = self.followers.values()
        others = sum(progress.has_room(now) for progress in followers)
        return others + 1 >= self._membership.majority or not any(p.refuses for p in followers)

    def expire(self, now: float) -> None:
        """Forget appends that have been under way for too long."""
        for progress in self.followers.values():
            progress.expire(now)

    def can_take_over(self, peer: int, now: float) -> bool:
        """Whether ``peer`` is another member, answers, is caught up within one window, and could
        serve.
        """
        progress, last = self.followers.get(peer), self._log.last_index
        return progress is not None and progress.can_take_over(last, self._watermarks.commit, now)

    def heir(self, now: float) -> int:
        """The highest other id that could take over; 0 if none can."""
        return max((p for p in self.followers if self.can_take_over(p, now)), default=0)

    def begin_hand_over(self, target: int, now: float) -> None:
        """Stop proposals and leases in favour of ``target``."""
        drained_at = max(now + self._timings.lease_drain_s, self.lease_until)
        self.hand_over = HandOver(target, drained_at, drained_at + 3 * self._timings.election_s)

    def give_way(
        self, guard: FlapGuard, now: float, *, is_full: bool, reach: Reach, unheard: bool
    ) -> Transfer | None:
        """Take the next step in giving way, to a higher id or because this replica's log
        ``is_full`` or its ``reach`` is lost: begin a hand-over if another should lead, end one that
        has failed, or return the message after which this replica must not lead any more.
        ``unheard``: no front-end has ever called it.

        The message is due once all leases are over, the whole log is committed, and the target has
        applied all of it: before, it would lead but not serve.
        """
        hand_over, last, commit = self.hand_over, self._log.last_index, self._watermarks.commit
        if hand_over is None:
            if heir := self._preferred(guard, now, is_full, reach, unheard):
                self.begin_hand_over(heir, now)
            return None
        target = self.followers[hand_over.target]
        if now >= hand_over.gives_up_at or not target.keeps_up(now):
            self.hand_over = None
            guard.gave_up(now)
        elif now >= hand_over.drained_at and commit == target.applied == last:
            guard.handed_over(now)
            return Transfer(self._membership.id, hand_over.target, self.term, next(self._sequences))
        return None

    def _preferred(
        self, guard: FlapGuard, now: float, is_full: bool, reach: Reach, unheard: bool
    ) -> int:
        """The highest id that should lead instead; 0 if none should, and until the first entry of
        this term is committed.

        Only higher ids are considered, unless this leader is useless: its reach is lost, or its log
        is full and the others could commit without it. If front-ends call the other, but none has
        called this leader, its id does not matter either. ``_would_do`` judges the other's reach.
        """
        if self._watermarks.commit < self.first_index:
            return 0
        is_lost = reach is Reach.LOST
        is_useless = is_lost or (is_full and self._majority_can_take_over(now))
        above = 0 if is_useless else self._membership.id
        steady = (
            peer
            for peer, progress in self.followers.items()
            if (peer > above or (reach is Reach.UNHEARD and progress.reach is Reach.GOOD))
            and _would_do(progress.reach, reach, unheard)
            and guard.allows(progress.steady_s(now), now, is_urgent=is_lost)
        )
        return max((p for p in steady if self.can_take_over(p, now)), default=0)

    def _majority_can_take_over(self, now: float) -> bool:
        """Whether others could commit without this replica: otherwise the next leader would take
        commands whose outcome it could not learn.
        """
        able = sum(self.can_take_over(peer, now) for peer in self.followers)
        return able >= self._membership.majority

    def _has(self, index: int) -> bool:
        """Whether the log still has the entry at ``index``, to be sent. A follower that needs one
        that was dropped has lost what it promised, and has to rejoin.
        """
        return self._log.first_index <= index <= self._log.last_index

    def _append(
        self, peer: int, prev_index: int, entries: tuple[Entry, ...], now: float
    ) -> AppendEntries:
        return AppendEntries(
            source=self._membership.id,
            target=peer,
            term=self.term,
            prev_index=prev_index,
            prev_term=self._log.term_at(prev_index),
            commit=self._watermarks.commit,
            entries=entries,
            sequence=next(self._sequences),
            sent_at=now,
            applied=self._watermarks.applied,
            digest=self._watermarks.digest,
            everywhere=self._watermarks.everywhere,
        )


def _would_do(other: Reach, own: Reach, unheard: bool) -> bool:
    """Whether another's reach is good enough to take over from a leader with reach ``own``: good,
    or unsure like the leader's. One that no front-end has called is good enough only if none has
    ever called the leader either (``unheard``).
    """
    if other is Reach.UNHEARD:
        return unheard
    return other is Reach.GOOD or other is own is Reach.UNSURE
