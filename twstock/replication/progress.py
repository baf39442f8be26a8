"""What a leader knows of one follower, and which appends are under way to it."""

from collections import deque
from dataclasses import dataclass
from math import inf

from twstock.replication.messages import AppendReply, Reach, Timings


@dataclass(frozen=True, slots=True)
class Flight:
    """One append that has not been answered yet."""

    sequence: int
    prev_index: int
    last_index: int
    sent_at: float


class Progress:
    """One follower, as its leader knows it.

    A follower is *probed*, with one append at a time, until one is accepted; then appends
    are *streamed*, a window of them, each sent in the hope that the ones before it arrive.
    Only answers to flights that are still known move this forward: whatever else comes in
    (a duplicate, a straggler, the answer to a heartbeat) may raise ``match`` but never
    starts a second chain of appends.

    ``has_lost``: it refuses appends after an entry that it has confirmed. Its directory is not the
    one that it had, so it has to rejoin. Until then it makes no progress, and should not lead.
    """

    def __init__(self, next_index: int, timings: Timings) -> None:
        self.match = self.applied = 0
        self.reach = Reach.UNSURE
        self.has_lost = False
        self.next = next_index
        self.answered_at = -inf
        self._takes_commands = False
        self._timings = timings
        self._heartbeat_at = -inf
        self._heard_at = self._confirmed_at = -inf
        self._steady_since = inf
        self._probing = True
        self._quiet_until = -inf
        self._refused = False  # the last appends were refused, or lost
        self._waits_since: float | None = None
        self._flights: deque[Flight] = deque()

    def may_send(self, now: float) -> bool:
        """Whether another append may go out."""
        window = 1 if self._probing else self._timings.append_window
        return now >= self._quiet_until and len(self._flights) < window

    def sent(self, sequence: int, last_index: int, now: float) -> None:
        """An append with entries up to ``last_index`` goes out."""
        self._flights.append(Flight(sequence, self.next - 1, last_index, now))
        self.next = last_index + 1
        self._waits_since = now if self._waits_since is None else self._waits_since

    def wants_heartbeat(self, now: float) -> bool:
        """Whether a heartbeat is due: in the last ``heartbeat_s`` neither was one sent, nor an
        append that the follower has answered. An append without an answer is no substitute: the
        follower's disk may hang.
        """
        return now - max(self._heartbeat_at, self.answered_at) >= self._timings.heartbeat_s

    def heartbeat_sent(self, now: float) -> None:
        """A heartbeat goes out."""
        self._heartbeat_at = now

    def answered(self, reply: AppendReply, now: float) -> None:
        """The follower answers, in the leader's term."""
        if now - self._heard_at > self._timings.election_s:
            self._steady_since = now
        self._heard_at = now
        if reply.takes_commands:
            self._quiet_until = -inf
        if reply.sent_at >= self.answered_at:  # not a late one; a restart may lower ``applied``
            self.answered_at = reply.sent_at
            self.applied, self._takes_commands = reply.applied, reply.takes_commands
            self.reach = reply.reach
        known = any(flight.sequence == reply.sequence for flight in self._flights)
        if reply.ok:
            self._accepted(reply.index, now, known=known)
        elif known:
            self._rejected(reply)
        # An append that was sent before this much was confirmed may have overtaken the entries.
        if not reply.ok and reply.index <= self.match and reply.sent_at > self._confirmed_at:
            self.has_lost = True

    def lost(self, now: float) -> None:
        """An append could not be delivered: probe again, after the append time-out, or earlier if
        the follower answers and takes commands. A follower whose disk is full or hangs does answer
        heartbeats, and would otherwise be sent for each what it does not take.
        """
        self._probe_again()
        self._refused = self._waits_since is not None  # or it has taken them since
        self._quiet_until = now + self._timings.append_timeout_s

    def expire(self, now: float) -> None:
        """Forget flights that have not been answered for too long, and probe again."""
        if self._flights and now - self._flights[0].sent_at >= self._timings.append_timeout_s:
            self._probe_again()

    def keeps_up(self, now: float) -> bool:
        """Whether it answers, and no append has waited for an election time-out: a follower whose
        disk hangs goes on answering heartbeats.
        """
        oldest = min(self._heard_at, now if self._waits_since is None else self._waits_since)
        return now - oldest < self._timings.election_s

    def silent_s(self, now: float) -> float:
        """For how long it has not answered; inf: it never has."""
        return now - self._heard_at

    def can_take_over(self, last_index: int, commit: int, now: float) -> bool:
        """Whether it keeps up, is at most one window behind, and could serve: its applied state is
        not far behind the log, and it takes commands.
        """
        is_near = last_index - self.match <= self._timings.window_entries
        has_log = is_near and not self.has_lost
        has_tables = commit - self.applied <= self._timings.unapplied_max
        return self.keeps_up(now) and has_log and has_tables and self._takes_commands

    @property
    def refuses(self) -> bool:
        """Whether it has refused entries, has taken none since, and says that it takes no commands:
        its disk is full, or hangs.
        """
        return self._refused and not self._takes_commands

    def has_room(self, now: float) -> bool:
        """Whether, as far as is known, its disk takes commands, and it has answered lately."""
        return not self.refuses and self.silent_s(now) <= 2 * self._timings.election_s

    def steady_s(self, now: float) -> float:
        """For how long it has answered without a gap."""
        return now - self._steady_since

    def _accepted(self, index: int, now: float, *, known: bool) -> None:
        # In one term a leader only adds to its log, so what a follower has once accepted
        # stays accepted: an old answer is still true.
        is_news = index > self.match
        if index >= self.match:
            self.has_lost = False  # it has rejoined
        self.match = max(self.match, index)
        self.next = max(self.next, self.match + 1)
        while self._flights and self._flights[0].last_index <= self.match:
            self._flights.popleft()
        if is_news:
            self._confirmed_at = now
            self._refused = False
            self._waits_since = now if self._flights else None
        if known:
            self._probing = False

    def _rejected(self, reply: AppendReply) -> None:
        # A follower that refuses what it has accepted has broken a promise. It is not tried again
        # before the time-out, or the two would exchange messages as fast as the network can.
        if reply.index > self.match:
            self._probe_after(max(self.match, min(reply.hint, reply.index - 1)))

    def _probe_again(self) -> None:
        # From where the oldest flight began: its loss says nothing about the follower's log. From
        # ``match`` would do, too, but after an election that is 0: the whole log would be sent.
        begun = self._flights[0].prev_index if self._flights else self.next - 1
        self._probe_after(max(self.match, begun))

    def _probe_after(self, index: int) -> None:
        self._flights.clear()
        self._probing = True
        self.next = index + 1
