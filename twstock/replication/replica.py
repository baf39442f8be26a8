"""One replica of a group: Raft without a clock, a disk or a network.

Each event is a call (``tick``, ``step``, ``propose``, ``persisted``, and a few that come from the
transport or the operator) and returns a ``Ready``. The rules are those of figure 2 of the paper
(Ongaro and Ousterhout, 2014), with pre-votes, CheckQuorum, voters that stay loyal to a leader
that they hear, and hand-over to higher ids from the dissertation ("thesis").
"""

from collections.abc import Sequence

from twstock.errors import BrokenInvariant, NotLeader
from twstock.replication.election import Ballot
from twstock.replication.leadership import Leadership
from twstock.replication.messages import (
    AppendEntries,
    AppendReply,
    Committed,
    Entry,
    EntryKind,
    HardState,
    Message,
    Reach,
    Ready,
    Transfer,
    VoteReply,
    VoteRequest,
)
from twstock.replication.standing import Standing


class Replica(Standing):
    """The rules of figure 2; ``Standing``, its base, holds the state that they act on. Times are
    seconds of one monotonic clock.
    """

    def set_digest(self, applied: int, digest: bytes) -> None:
        """The state machine has applied entries up to ``applied``, and its state has this digest:
        appends carry both from now on.
        """
        self._watermarks.applied, self._watermarks.digest = applied, digest

    def set_takes_commands(self, takes_commands: bool) -> None:
        """Whether the log has room for commands, and its disk does not hang: if not, this replica
        lets others lead, and is sent no entries for a while.
        """
        self._takes_commands = takes_commands

    def set_reach(self, reach: Reach, *, unheard: bool = False) -> None:
        """Whether this replica is in contact with the outside of its group: if not, it gives way to
        one with a good reach. ``unheard``: no front-end has ever called, whatever ``reach`` is.
        """
        self._reach, self._unheard = reach, unheard

    def tick(self, now: float) -> Ready:
        """Time has passed. Decisions depend on ``now``, never on the number of ticks."""
        if self._lead is not None:
            self._learn_everywhere(self._lead.everywhere(self._writes.durable_index))
            self._drive(self._lead, now)
        elif self._timer.has_expired(now, self._could_serve) and self._writes.state_is_durable:
            # Before that no message could leave, and a new campaign would void the one under way.
            self._campaign(now, pre_vote=True)
        return self._ready()

    def step(self, message: Message, now: float) -> Ready:
        """A message arrives. Each append and vote request is answered exactly once."""
        if message.target == self._membership.id and message.source in self._membership.peers:
            self._dispatch(message, now)
        return self._ready()

    def propose(self, payloads: Sequence[bytes], now: float) -> Ready:
        """Add commands to the log; raises NotLeader, and adds nothing, if this replica does
        not lead or is giving way. They are committed when ``apply`` hands them out.
        """
        lead = self._lead
        if lead is None or lead.hand_over is not None:
            raise NotLeader(self.handing_over_to or self._leader_id)
        self._log.extend(self._term, EntryKind.COMMAND, payloads)
        self._outbox += lead.appends(now)
        return self._ready()

    def persisted(self, sequence: int, now: float) -> Ready:
        """All writes up to ``sequence`` are on disk."""
        was_durable = self._writes.state_is_durable
        self._writes.finish(sequence)
        if self._writes.state_is_durable and not was_durable:
            self._vote_kept(now)
        if self._lead is not None:
            self._drive(self._lead, now)
        return self._ready()

    def unreachable(self, peer: int, now: float) -> Ready:
        """An append to ``peer`` could not be delivered, or was refused."""
        if self._lead is not None and peer in self._lead.followers:
            self._lead.followers[peer].lost(now)
        return self._ready()

    def leader_lost(self, now: float, term: int | None = None) -> Ready:
        """The process of the leader that this replica follows is certainly gone: its host
        refuses connections. Forget having heard it, and campaign without waiting for the
        time-out: at once if this replica could serve and is first in turn, else in its turn.

        ``term`` is the one in which that leader was known. If it is over, the news is stale, and
        forgetting the new leader would break that one's lease.
        """
        if self._leader_id in (0, self._membership.id) or term not in (None, self._term):
            return self._ready()
        self._leader_id = 0
        self._timer.shorten(now)
        return self.tick(now)

    def hand_over(self, target: int, now: float) -> Ready:
        """Begin to give way to ``target``. Nothing happens unless this replica leads, is ready
        and is not giving way already, and the target answers, is caught up within a window, and
        could serve.
        """
        lead = self._lead
        if lead is not None and self.is_ready and not lead.hand_over:
            if lead.can_take_over(target, now):
                lead.begin_hand_over(target, now)
            self._drive(lead, now)
        return self._ready()

    def resign(self, now: float) -> Ready:
        """Stop leading, in the same term: a newer leader exists somewhere, or its disk hangs."""
        if self._lead is not None:
            self._follow(self._term, 0, now)
        return self._ready()

    # Messages.

    def _dispatch(self, message: Message, now: float) -> None:
        match message:
            case AppendEntries():
                self._on_append(message, now)
            case AppendReply():
                self._on_append_reply(message, now)
            case VoteRequest():
                self._on_vote_request(message, now)
            case VoteReply():
                self._on_vote_reply(message, now)
            case Transfer():
                self._on_transfer(message, now)
            case Committed():
                self._on_committed(message, now)

    def _on_append(self, request: AppendEntries, now: float) -> None:
        if request.term < self._term:
            return self._answer_append(request, ok=False)
        if request.term == self._term and self._leader_id not in (0, request.source):
            raise BrokenInvariant(f"{self._leader_id} and {request.source} lead {self._term}")
        self._follow(request.term, request.source, now)
        self._timer.heard(request.source, now)
        self._timer.reset(now)
        if not self._log.matches(request.prev_index, request.prev_term):
            return self._answer_append(request, ok=False)
        self._writes.replaced(self._log.merge(request.entries, self.commit))
        self._learn_commit(min(request.commit, request.prev_index + len(request.entries)))
        self._learn_everywhere(request.everywhere)
        return self._answer_append(request, ok=True)

    def _answer_append(self, request: AppendEntries, *, ok: bool) -> None:
        index = request.prev_index + (len(request.entries) if ok else 0)
        hint = index if ok else self._log.hint(request.prev_index, request.prev_term, self.commit)
        own, peer = self._membership.id, request.source
        self._outbox.append(
            AppendReply(
                own,
                peer,
                self._term,
                ok,
                index,
                hint,
                request.sequence,
                request.sent_at,
                self._watermarks.applied,
                self._takes_commands,
                self._reach,
            )
        )

    def _on_append_reply(self, reply: AppendReply, now: float) -> None:
        if reply.term > self._term:
            self._follow(reply.term, 0, now)
        elif self._lead is not None and reply.term == self._term:
            self._lead.answered(reply, now)
            self._drive(self._lead, now)

    def _on_vote_request(self, request: VoteRequest, now: float) -> None:
        granted = self._may_vote(request, now)
        if granted and not request.pre_vote:
            self._vote = request.source
            self._writes.state_changed()
            self._timer.votes(now)
        # Its own term in a refusal lets a candidate with an older one catch up (etcd 10355).
        term = request.term if granted else self._term
        own, peer = self._membership.id, request.source
        self._outbox.append(VoteReply(own, peer, term, granted, request.pre_vote, request.sequence))

    def _may_vote(self, request: VoteRequest, now: float) -> bool:
        if request.term < self._term or (not request.transfer and self._is_loyal(now)):
            return False
        if request.term > self._term and not request.pre_vote:
            self._follow(request.term, 0, now)
        is_free = self._vote in (0, request.source) and self._leader_id == 0
        return (request.term > self._term or is_free) and self._log.is_no_newer_than(
            request.last_index, request.last_term
        )

    def _is_loyal(self, now: float) -> bool:
        """Whether this replica has to stay loyal to a leader, which may be itself."""
        if self._lead is not None and now - self._lead.contact_at < self._timings.election_s:
            return True
        return self._timer.is_loyal(now)

    def _vote_kept(self, now: float) -> None:
        """The newest term, and the vote in it if it has one, are on disk: others hear of it now."""
        if self._vote:
            self._timer.voted(now)
        if ballot := self._ballots.get(False):
            ballot.votes.add(self._membership.id)
            self._count(ballot, now)

    def _on_vote_reply(self, reply: VoteReply, now: float) -> None:
        ballot = self._ballots.get(reply.pre_vote)
        if not reply.granted:
            if reply.term > self._term:
                self._follow(reply.term, 0, now)
        elif ballot is not None and reply.term == ballot.term:
            ballot.votes.add(reply.source)
            self._count(ballot, now)

    def _on_transfer(self, request: Transfer, now: float) -> None:
        is_from_leader = request.term == self._term and self._leader_id in (0, request.source)
        if is_from_leader or request.term > self._term:
            self._follow(request.term, request.source, now)
            self._campaign(now, pre_vote=False, transfer=True)

    def _on_committed(self, pulled: Committed, now: float) -> None:
        settled = pulled.entries[: max(0, pulled.commit - pulled.prev_index)]
        if not settled or not self._log.matches(pulled.prev_index, pulled.prev_term):
            return
        # The sender has reached the term of the leader that committed these. So must this replica,
        # or an older leader could still replace them.
        term = max(pulled.term, settled[-1].term)
        if term > self._term:
            self._follow(term, 0, now)
        if self._lead is None:  # a leader of that term or a newer one has them
            self._ballots.clear()  # votes were asked for with another log
            self._writes.replaced(self._log.merge(settled, self.commit))
            self._learn_commit(settled[-1].index)

    # Terms and elections.

    def _follow(self, term: int, leader_id: int, now: float) -> None:
        """Become a follower in ``term``. A replica that led until now stays loyal to its lease."""
        if self._lead is not None:
            self._timer.heard(self._membership.id, min(self._lead.contact_at, now))
            self._timer.reset(now)
        self._lead = None
        self._ballots.clear()
        if term > self._term:
            self._enter_term(term)
        self._leader_id = leader_id

    def _campaign(self, now: float, *, pre_vote: bool, transfer: bool = False) -> None:
        own = self._membership.id
        self._leader_id = 0
        if pre_vote:
            self._timer.reset(now)
        else:
            self._ballots.clear()
            self._enter_term(self._term + 1, vote=own)
            self._timer.votes(now)
        term = self._term + 1 if pre_vote else self._term
        ballot = self._ballots[pre_vote] = Ballot(term, pre_vote)
        last_index, last_term = self._log.last_index, self._log.last_term
        self._outbox += (
            VoteRequest(
                own, peer, term, last_index, last_term, pre_vote, transfer, next(self._sequences)
            )
            for peer in self._membership.peers
        )
        if pre_vote:  # a real vote for itself counts once it is on disk
            ballot.votes.add(own)
            self._count(ballot, now)

    def _count(self, ballot: Ballot, now: float) -> None:
        if not ballot.won(self._membership):
            return
        if ballot.pre_vote:
            self._campaign(now, pre_vote=False)
        elif self._writes.state_is_durable:
            self._lead_term(now)

    def _lead_term(self, now: float) -> None:
        self._ballots.clear()
        self._leader_id = self._membership.id
        self._lead = Leadership(
            self._membership,
            self._timings,
            self._log,
            self._watermarks,
            term=self._term,
            sequences=self._sequences,
            now=now,
        )
        self._log.extend(self._term, EntryKind.NOOP, [b""])
        self._drive(self._lead, now)

    # Leading.

    def _drive(self, lead: Leadership, now: float) -> None:
        if lead.is_out_of_touch(now):
            return self._follow(self._term, 0, now)
        index = lead.quorum_index(self._writes.durable_index)
        # Only an entry of its own term commits those before it (Raft section 5.4.2, figure 8).
        if index > self.commit and self._log.term_at(index) == self._term:
            self._learn_commit(index)
        is_full, reach, unheard = not self._takes_commands, self._reach, self._unheard
        guard = self._flap_guard
        if transfer := lead.give_way(guard, now, is_full=is_full, reach=reach, unheard=unheard):
            self._outbox.append(transfer)
            return self._follow(self._term, 0, now)
        lead.expire(now)
        self._outbox += lead.heartbeats(now)
        self._outbox += lead.appends(now)
        return None

    # Committing and applying.

    def _learn_commit(self, index: int) -> None:
        if index > self._log.last_index:
            raise BrokenInvariant(f"{index} is committed, the log ends at {self._log.last_index}")
        self._watermarks.commit = max(self.commit, index)

    def _learn_everywhere(self, index: int) -> None:
        # What all have on disk, and is committed, stays so, whoever leads.
        self._watermarks.everywhere = max(self._watermarks.everywhere, index)

    def _ready(self) -> Ready:
        persist = self._writes.start(self._log, HardState(self._term, self._vote))
        apply = self._hand_out()
        send_now: list[Message] = []
        send_after: list[Message] = []
        for message in self._outbox:
            (send_now if self._writes.cover(message) else send_after).append(message)
        self._outbox.clear()
        return Ready(tuple(send_now), persist, tuple(send_after), apply)

    def _hand_out(self) -> tuple[Entry, ...]:
        first = self._handed_out + 1
        last = min(self.commit, self._writes.durable_index)
        if last < first:
            return ()
        if self._log.holds(first):
            entries = self._log.between(first, last)
        else:  # far behind after a start: one message's worth now, the rest with the next event
            sizes = self._timings.append_entries_max, self._timings.append_bytes_max
            entries = tuple(e for e in self._log.slice(first, *sizes) if e.index <= last)
        self._handed_out = entries[-1].index
        self._log.forget(self._handed_out)  # committed, and durable here
        return entries
