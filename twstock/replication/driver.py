"""Carries out what a replica decides: sends or holds messages, writes, applies, and answers."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twstock.errors import InvalidRequest, NotLeader, OutcomeUnknown, TwstockError, Unavailable
from twstock.replication.equipment import Equipment
from twstock.replication.messages import (
    AppendEntries,
    Applied,
    Committed,
    Entry,
    EntryKind,
    HardState,
    Message,
    Ready,
    Reply,
    Request,
    Transfer,
    VoteRequest,
)
from twstock.replication.replica import Replica
from twstock.replication.tier import StateMachine
from twstock.replication.writer import Writer
from twstock.rpc.calls import Envelope, Peer
from twstock.tally import SIZES, Histogram

DIGESTS_MAX = 4096
"""For how many applied indices the digest is kept, to be compared with the leader's."""

TERMS_AHEAD_MAX = 2**32
"""How far the term of a message may be above the replica's own: ten elections a second would take
thirteen years to get there. All members keep a wrong term for good once they have accepted it. One
near the largest that a message can carry ends their processes at every election, even after a
restart."""


class Driver:
    """Runs a replica. ``machine`` has applied the entries up to ``applied``.

    Whatever the replica or the state machine raises goes to ``panic``: no step may follow one that
    was only half done. ``on_leading`` is called with the term when the replica leads and has
    applied all that any earlier leader acknowledged; ``on_leading_ended`` when that is over.

    It counts how long proposals took until they were applied (``commit_s``), the entries of each
    append (``append_entries``), campaigns for votes, terms that were led, and how often a leader
    was found.
    """

    _log = Logger()

    def __init__(
        self,
        me: Peer,
        replica: Replica,
        machine: StateMachine,
        applied: int,
        writer: Writer,
        equipment: Equipment,
        on_leading: Callable[[int], None],
        on_leading_ended: Callable[[], None],
    ) -> None:
        self._me = me
        self.replica = replica
        self._machine = machine
        self._writer = writer
        self._database = equipment.database
        self._transport = equipment.transport
        self._seconds = equipment.surroundings.clock.seconds
        self._panic = equipment.surroundings.panic
        self._on_leading = on_leading
        self._on_leading_ended = on_leading_ended
        self._held: deque[tuple[int, tuple[Message, ...]]] = deque()
        self._written = self._issued = 0
        self._waiting: OrderedDict[int, tuple[int, float, Deferred[Any]]] = OrderedDict()
        self._answers: dict[tuple[int, int], Deferred[Reply]] = {}
        self._digests: OrderedDict[int, bytes] = OrderedDict({applied: machine.digest})
        self._leading_term = self._campaign_term = self._leader_id = 0
        self._disbelieved: set[int] = set()
        self._stopped = False
        self.applied = applied
        self.commit_s, self.append_entries = Histogram(), Histogram(SIZES)
        self.elections_begun = self.elections_won = self.leaders_found = 0
        replica.set_digest(applied, machine.digest)

    @property
    def proposals(self) -> int:
        """How many proposals are neither committed nor lost yet."""
        return len(self._waiting)

    def digest_at(self, index: int) -> bytes:
        """The state's digest at an index that was applied lately; empty: no longer kept."""
        return self._digests.get(index, b"")

    def run(self, decide: Callable[[float], Ready]) -> None:
        """Let the replica decide something now, and carry it out."""
        if self._stopped:
            return
        try:
            self._carry_out(decide(self._seconds()))
        except Exception:
            self._panic(Failure())

    def propose(self, payload: bytes) -> "Deferred[Any]":
        """Replicate a command; fires with its result when it is committed and applied here.

        Raises NotLeader, and has then done nothing. Fails with OutcomeUnknown when leadership is
        lost meanwhile, with Unavailable when another leader's entry has taken its place.
        """
        now = self._seconds()
        try:
            ready = self.replica.propose([payload], now)
        except NotLeader:
            raise
        except Exception:
            self._panic(Failure())
            raise
        result: Deferred[Any] = Deferred()
        self._waiting[self.replica.last_index] = (self.replica.term, now, result)
        self.run(lambda _now: ready)
        return result

    def check_term(self, message: Message, peer: int) -> None:
        """Raise InvalidRequest for a message of ``peer`` whose term no election can have led to; to
        be called before it is stepped. Logged once for each peer, which may go on for ever.
        """
        term, own = message.term, self.replica.term
        if isinstance(message, AppendEntries | Committed) and message.entries:
            term = max(term, message.entries[-1].term)  # no entry has a newer one than the last
        if term <= own + TERMS_AHEAD_MAX:
            return
        if peer not in self._disbelieved:
            self._disbelieved.add(peer)
            self._log.error(
                "refuses messages of {peer}: term {term} cannot follow {own}",
                peer=f"{self._me.group}-{peer}",
                term=term,
                own=own,
            )
        raise InvalidRequest("term", "no election can have led to it")

    async def answer(self, request: Request) -> Reply:
        """Step a peer's request and wait for the replica's reply to it."""
        key = (request.source, request.sequence)
        answer: Deferred[Reply] = Deferred()
        self._answers[key] = answer
        try:
            self.run(lambda now: self.replica.step(request, now))
            return await answer
        finally:
            self._answers.pop(key, None)

    def written(self, sequence: int) -> None:
        """Every write up to ``sequence`` is durable: send the messages that waited for that."""
        self._written = sequence

        def persisted(now: float) -> Ready:
            for message in self._released():
                self._send(message)
            return self.replica.persisted(sequence, now)

        self.run(persisted)

    def stop(self) -> None:
        """Decide nothing any more; pending proposals fail with OutcomeUnknown."""
        self._stopped = True
        self._end_leading()

    def _released(self) -> Iterator[Message]:
        while self._held and self._held[0][0] <= self._written:
            yield from self._held.popleft()[1]

    def _carry_out(self, ready: Ready) -> None:
        for message in ready.send_now:
            self._send(message)
        if ready.persist is not None:
            self._issued = ready.persist.sequence
            self._count_campaign(ready.persist.hard_state)
            self._writer.write(ready.persist)
        if ready.send_after:
            self._held.append((self._issued, ready.send_after))
            for message in self._released():
                self._send(message)
        for entry in ready.apply:
            self._apply(entry)
        self._notice_leadership()

    # --- messages ----------------------------------------------------------------------------

    def _send(self, message: Message) -> None:
        if isinstance(message, AppendEntries | VoteRequest | Transfer):
            if isinstance(message, AppendEntries) and message.entries:
                self.append_entries.observe(len(message.entries))
            sending = self._transport.send(message.target, Envelope(self._me, message))
            sending.addCallback(self._replied, message.target).addErrback(self._lost, message)
            sending.addErrback(self._panic)
        elif not isinstance(message, Committed):
            answer = self._answers.pop((message.target, message.sequence), None)
            if answer is not None:
                answer.callback(message)

    def _replied(self, reply: Reply | None, peer: int) -> None:
        if reply is not None:
            self.check_term(reply, peer)  # a refused reply counts as lost
            self.run(lambda now: self.replica.step(reply, now))

    def _lost(self, failure: Failure, message: Message) -> None:
        failure.trap(TwstockError)
        if isinstance(message, AppendEntries) and message.entries:
            self.run(lambda now: self.replica.unreachable(message.target, now))

    # --- applying ----------------------------------------------------------------------------

    def _apply(self, entry: Entry) -> None:
        applied = Applied(None)
        if entry.kind is EntryKind.COMMAND:
            applied = self._machine.apply(entry.index, entry.payload)
        digest = self._machine.digest
        self.applied = entry.index
        self._digests[entry.index] = digest
        if len(self._digests) > DIGESTS_MAX:
            self._digests.popitem(last=False)
        self.replica.set_digest(entry.index, digest)
        self._database.record(entry.index, digest, applied.change)
        self._settle(entry, applied)

    def _settle(self, entry: Entry, applied: Applied) -> None:
        term, began, waiting = self._waiting.pop(entry.index, (0, 0.0, None))
        if waiting is None:
            return
        if term == entry.term:
            self.commit_s.observe(self._seconds() - began)
            waiting.callback(applied.result)
        else:  # another leader's entry is in the proposal's place: that can never commit
            waiting.errback(Unavailable("the proposal was replaced"))

    # --- leading -----------------------------------------------------------------------------

    def _count_campaign(self, promise: HardState | None) -> None:
        """A vote for itself in a new term is a campaign, also in a group of one."""
        if promise is None or promise.vote != self._me.id or promise.term <= self._campaign_term:
            return
        self._campaign_term = promise.term
        self.elections_begun += 1

    def _notice_leadership(self) -> None:
        if self.replica.leader_id != self._leader_id:
            self._leader_id = self.replica.leader_id
            self.leaders_found += self._leader_id != 0
        term = self.replica.term if self.replica.is_ready else 0
        if term == self._leading_term:
            return
        self._end_leading()
        self._leading_term = term
        if term:
            self.elections_won += 1
            self._on_leading(term)

    def _end_leading(self) -> None:
        if self._leading_term:
            self._leading_term = 0
            self._on_leading_ended()
        waiting, self._waiting = self._waiting, OrderedDict()
        for _, _, result in waiting.values():
            result.errback(OutcomeUnknown("leadership was lost"))
