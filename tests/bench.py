"""One replica by itself: messages made by hand, and a way to have it elected."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

from tests.simulation import TIMINGS
from twstock.replication.log import Log
from twstock.replication.messages import (
    AppendEntries,
    AppendReply,
    Entry,
    EntryKind,
    HardState,
    Membership,
    Message,
    Ready,
    Timings,
    VoteReply,
    VoteRequest,
)
from twstock.replication.replica import Replica
from twstock.replication.standing import Role

ELECTION_S = TIMINGS.election_s
START = 100.0
CALM = START + ELECTION_S + 0.001  # voters that started at START may vote


def entries(*terms: int, first: int = 1) -> list[Entry]:
    """Commands with these terms, from index ``first`` on."""
    return [
        Entry(index, term, EntryKind.COMMAND, b"%d of %d" % (index, term))
        for index, term in enumerate(terms, first)
    ]


def replica(
    own: int = 1,
    terms: Sequence[int] = (),
    *,
    of: int = 3,
    term: int = 0,
    vote: int = 0,
    commit: int = 0,
    timings: Timings = TIMINGS,
) -> Replica:
    """Member ``own`` of ``of``, started at START with a log of entries of these terms."""
    members = tuple(range(1, of + 1))
    state = HardState(term or max(terms, default=0), vote)
    return Replica(
        Membership(own, members), timings, Log(entries(*terms)), state, START, Random(1), commit
    )


def append(
    source: int,
    target: int,
    term: int,
    prev: tuple[int, int] = (0, 0),
    new: Iterable[Entry] = (),
    commit: int = 0,
    sequence: int = 7,
) -> AppendEntries:
    """An append (a heartbeat, without entries) after the (index, term) of ``prev``."""
    return AppendEntries(
        source, target, term, prev[0], prev[1], commit, tuple(new), sequence, sent_at=50.0
    )


def ask(
    source: int,
    target: int,
    term: int,
    last: tuple[int, int] = (99, 99),
    *,
    pre_vote: bool = False,
    transfer: bool = False,
) -> VoteRequest:
    """A request for a vote by a candidate whose log ends with the (index, term) of ``last``."""
    return VoteRequest(source, target, term, last[0], last[1], pre_vote, transfer, sequence=8)


def out(ready: Ready) -> list[Message]:
    """All messages of a ``Ready``, whenever they may leave."""
    return [*ready.send_now, *ready.send_after]


def appends(ready: Ready) -> list[AppendEntries]:
    """The appends with entries."""
    return [m for m in out(ready) if isinstance(m, AppendEntries) and m.entries]


def accept(request: AppendEntries) -> AppendReply:
    """The answer of a follower that accepted ``request``, and could serve."""
    index = request.prev_index + len(request.entries)
    return AppendReply(
        request.target,
        request.source,
        request.term,
        True,
        index,
        index,
        request.sequence,
        request.sent_at,
        request.commit,
        True,
    )


def refuse(request: AppendEntries, hint: int) -> AppendReply:
    """The answer of a follower whose log does not match."""
    index = request.prev_index
    return replace(accept(request), ok=False, index=index, hint=hint)


def answer(subject: Replica, ready: Ready, now: float, voters: Iterable[int]) -> Ready:
    """Report ``ready`` as written to disk, and have ``voters`` grant votes and accept appends."""
    ready_now = ready
    if ready.persist is not None:
        ready_now = subject.persisted(ready.persist.sequence, now)
    everything = [*out(ready), *out(ready_now)]
    apply = ready_now.apply
    for message in everything:
        reply: Message | None = None
        if message.target in voters and isinstance(message, VoteRequest):
            reply = VoteReply(message.target, message.source, message.term, True, message.pre_vote)
        elif message.target in voters and isinstance(message, AppendEntries):
            reply = accept(message)
        if reply is not None:
            after = subject.step(reply, now)
            apply += after.apply
            if after.persist or out(after):
                apply += answer(subject, after, now, voters).apply
    return Ready(apply=apply)


def lead(subject: Replica, now: float = START + 1, voters: Iterable[int] = (1, 2)) -> Ready:
    """Have ``subject`` elected, and its no-op committed, by ``voters``."""
    ready = answer(subject, subject.tick(now), now, list(voters))
    assert subject.role is Role.LEADER
    return ready


def campaign(subject: Replica, now: float = START + 1) -> Ready:
    """Have ``subject`` ask for real votes, by granting pre-votes until it does."""
    ready = subject.tick(now)
    for message in out(ready):
        if isinstance(message, VoteRequest) and message.pre_vote:
            reply = VoteReply(message.target, message.source, message.term, True, True)
            if out(after := subject.step(reply, now)):
                return after
    return ready
