"""What a follower does with the messages that it is sent, and when it answers."""

from dataclasses import replace

import pytest

from tests.bench import CALM, START, accept, append, ask, campaign, entries, lead, out, replica
from twstock.errors import BrokenInvariant, NotLeader
from twstock.replication.log import Log
from twstock.replication.messages import (
    AppendReply,
    Committed,
    Entry,
    EntryKind,
    HardState,
    Ready,
    VoteReply,
)
from twstock.replication.standing import Role


def test_a_late_duplicate_removes_nothing() -> None:
    """An append of entries that the follower has already removes none of those behind them (Raft
    section 5.3).
    """
    subject = replica(1, term=2)
    both = entries(1, 2)
    subject.step(append(3, 1, 2, new=both), CALM)
    ready = subject.step(append(3, 1, 2, new=both[:1]), CALM)
    assert subject.last_index == 2
    assert ready.persist is None


def test_the_answer_to_an_append_waits_for_its_write() -> None:
    """Nothing is acknowledged before it is on disk, not even to a duplicate of the request;
    a heartbeat that promises nothing new is answered at once.
    """
    subject = replica(1, terms=(1,), term=2)
    request = append(3, 1, 2, (1, 1), entries(2, first=2))
    first, second = subject.step(request, CALM), subject.step(request, CALM)
    for ready in (first, second):
        assert ready.send_now == ()
        assert ready.send_after == (accept(request),)
    assert second.persist is None
    heartbeat = append(3, 1, 2, (1, 1))
    assert subject.step(heartbeat, CALM).send_now == (accept(heartbeat),)
    assert first.persist is not None
    subject.persisted(first.persist.sequence, CALM)
    assert subject.step(request, CALM).send_now == (accept(request),)


def test_nothing_of_a_new_term_leaves_before_the_term_is_on_disk() -> None:
    """Not even a heartbeat is answered before: its answer says "I follow you in this term"."""
    subject = replica(1, term=2)
    ready = subject.step(append(3, 1, 5), CALM)
    assert ready.persist is not None
    assert ready.persist.hard_state == HardState(5, 0)
    assert ready.send_now == ()
    assert subject.step(append(3, 1, 5), CALM).send_now == ()
    subject.persisted(ready.persist.sequence, CALM)
    assert subject.step(append(3, 1, 5), CALM).send_now == (accept(append(3, 1, 5)),)


def test_a_write_does_not_claim_what_has_been_replaced() -> None:
    """When entries are replaced while their write is under way, the end of that write does not make
    the new entries at the same indices durable (an ABA problem).
    """
    subject = replica(1, term=2)
    old = subject.step(append(3, 1, 2, new=entries(2, 2, 2)), CALM)
    new = append(2, 1, 3, (1, 2), entries(3, 3, first=2), commit=3)
    replaced = subject.step(new, CALM)
    assert old.persist is not None
    assert replaced.persist is not None
    assert subject.persisted(old.persist.sequence, CALM).apply == tuple(entries(2))
    assert subject.step(new, CALM).send_now == ()
    applied = subject.persisted(replaced.persist.sequence, CALM).apply
    assert applied == tuple(entries(3, 3, first=2))
    subject.set_digest(3, b"")
    assert subject.step(new, CALM).send_now == (accept(new),)


def test_nothing_is_applied_before_it_is_durable_here() -> None:
    """The leader's commit index may be ahead of this disk; an entry is applied only when it is
    written here, and once.
    """
    subject = replica(1, term=2)
    ready = subject.step(append(3, 1, 2, new=entries(1, 2), commit=2), CALM)
    assert (subject.commit, ready.apply) == (2, ())
    assert ready.persist is not None
    assert subject.persisted(ready.persist.sequence, CALM).apply == tuple(entries(1, 2))
    assert subject.step(append(3, 1, 2, (2, 2), commit=2), CALM).apply == ()


def test_what_was_applied_before_a_restart_is_not_applied_again() -> None:
    """A restarted replica applies only what follows the index that was applied before."""
    subject = replica(1, terms=(1, 1, 1), commit=2)
    assert subject.step(append(3, 1, 1, (3, 1), commit=3), CALM).apply == tuple(
        entries(1, 1, 1)[2:]
    )


def test_a_heartbeat_commits_only_what_it_matches() -> None:
    """A heartbeat commits no entry after the one that it matches, whatever its commit index is: the
    entries after that may differ from the leader's.
    """
    subject = replica(1, terms=(1, 1))
    subject.step(append(3, 1, 2, (1, 1), commit=9), CALM)
    assert subject.commit == 1


def test_a_refusal_tells_where_to_look() -> None:
    """The hint skips entries whose terms the leader's log cannot have there."""
    subject = replica(1, terms=(1, 1, 2, 2, 2))
    for prev, hint in (((9, 3), 5), ((4, 1), 2), ((5, 3), 4)):
        (reply,) = out(subject.step(append(3, 1, 3, prev), CALM))
        assert isinstance(reply, AppendReply)
        assert (reply.ok, reply.index, reply.hint) == (False, prev[0], hint)


def test_each_append_is_answered_once_also_from_an_old_term() -> None:
    """An append of an old term is refused, with the follower's own term and the request's sequence
    number and time of sending.
    """
    subject = replica(1, term=6)
    (reply,) = out(subject.step(append(3, 1, 5, sequence=77), CALM))
    assert reply == AppendReply(1, 3, 6, False, 0, 0, 77, 50.0, 0, True)


def test_each_answer_tells_how_far_its_sender_is() -> None:
    """It has what is applied, and whether there is room for commands: a leader does not hand over
    to a member without room.
    """
    subject = replica(1, term=2)
    request = append(3, 1, 2, new=entries(1, 2), commit=2)
    subject.set_digest(1, b"state")
    subject.set_takes_commands(False)
    (reply,) = out(subject.step(request, CALM))
    assert reply == replace(accept(request), applied=1, takes_commands=False)


def test_pulled_entries_replace_an_uncommitted_suffix() -> None:
    """Pulled entries are committed and never change, so they replace others. The term rises with
    them, so no older leader can replace them.
    """
    subject = replica(1, terms=(1, 2, 2), term=2)
    pulled = Committed(2, 1, 5, 1, 1, 3, tuple(entries(3, 3, 4, first=2)))
    ready = subject.step(pulled, CALM)
    assert out(ready) == []
    assert (subject.term, subject.commit, subject.last_index) == (5, 3, 3)
    assert ready.persist is not None
    assert ready.persist.entries == pulled.entries[:2]
    assert ready.apply == tuple(entries(1))
    assert subject.persisted(ready.persist.sequence, CALM).apply == pulled.entries[:2]
    (reply,) = out(subject.step(append(3, 1, 2, (1, 1), entries(2, 2, first=2)), CALM))
    assert isinstance(reply, AppendReply)
    assert not reply.ok


def test_pulled_entries_that_do_not_connect_are_ignored() -> None:
    """Pulled entries that follow a gap, or an entry that is another one here, change nothing."""
    subject = replica(1, terms=(1, 1))
    for prev in ((3, 1), (2, 2)):
        subject.step(Committed(2, 1, 1, *prev, 9, tuple(entries(3, first=prev[0] + 1))), CALM)
    assert (subject.last_index, subject.commit) == (2, 0)


def test_pulled_entries_do_not_break_a_leader() -> None:
    """A leader keeps its own entries when it is sent committed ones of its term. If they come with
    a newer term, it steps down first.
    """
    subject = replica(3)
    lead(subject)
    subject.propose([b"own"], START + 1)
    subject.step(Committed(2, 3, 1, 0, 0, 2, tuple(entries(1, 1))), START + 1)
    assert (subject.role, subject.log.entry(2).payload) == (Role.LEADER, b"own")
    subject.step(Committed(2, 3, 4, 1, 1, 2, tuple(entries(3, first=2))), START + 1)
    assert (subject.role, subject.term, subject.commit) == (Role.FOLLOWER, 4, 2)


def test_a_candidate_gives_up_when_its_log_changes() -> None:
    """Votes that were asked for with the former log do not make it leader with another one."""
    subject = replica(3, terms=(1, 2))
    campaign(subject)
    subject.step(Committed(2, 3, 3, 1, 1, 2, tuple(entries(1, first=2))), START + 1)
    subject.persisted(1, START + 1)
    subject.step(VoteReply(2, 3, 3, True), START + 1)
    assert subject.role is Role.FOLLOWER


def test_two_leaders_in_one_term_stop_the_process() -> None:
    """An append of a second leader in the same term is a broken invariant."""
    subject = replica(1, term=2)
    subject.step(append(2, 1, 2), CALM)
    with pytest.raises(BrokenInvariant):
        subject.step(append(3, 1, 2), CALM)


def test_replacing_committed_entries_stops_the_process() -> None:
    """An append that would replace a committed entry is a broken invariant."""
    subject = replica(1, terms=(1, 1), commit=2)
    with pytest.raises(BrokenInvariant):
        subject.step(append(2, 1, 2, (1, 1), entries(2, first=2)), CALM)


def test_an_applied_index_beyond_the_log_stops_the_start() -> None:
    """A state machine that has applied more than the log has is a broken invariant (etcd 13766)."""
    with pytest.raises(BrokenInvariant):
        replica(1, terms=(1,), commit=2)


def test_a_log_whose_term_was_torn_off_raises_the_term() -> None:
    """If only the entries of a write survive a power cut, and not its term, the replica starts in
    the term of the last entry. It cannot have voted in that term, as nothing was promised in it.
    """
    subject = replica(1, terms=(1, 4), term=2)
    assert subject.term == 4
    ready = subject.tick(START)
    assert ready.persist is not None
    assert ready.persist.hard_state == HardState(4, 0)


def test_a_follower_cannot_propose() -> None:
    """The error names the leader that the follower knows, and the log stays as it is."""
    subject = replica(1, term=2)
    subject.step(append(3, 1, 2), CALM)
    with pytest.raises(NotLeader) as caught:
        subject.propose([b"a"], CALM)
    assert (caught.value.leader_id, subject.last_index) == (3, 0)


def test_messages_for_others_are_ignored() -> None:
    """A message that is for another member, or comes from none, changes nothing."""
    subject = replica(1)
    assert subject.step(ask(2, 3, 9), CALM) == Ready()
    assert subject.step(ask(7, 1, 9), CALM) == Ready()
    assert subject.term == 0


def test_batches_keep_to_their_limits() -> None:
    """Entries and bytes of one append are bounded, but one entry always goes."""
    log = Log(Entry(n, 1, EntryKind.COMMAND, b"x" * 30) for n in range(1, 6))
    assert [len(log.slice(1, *limits)) for limits in ((3, 999), (9, 60), (9, 89), (9, 1))] == [
        3,
        2,
        2,
        1,
    ]
    assert log.slice(6, 9, 999) == ()
