"""What a leader sends, counts and relies on."""

from dataclasses import replace
from math import inf

import pytest

from tests.bench import (
    ELECTION_S,
    START,
    accept,
    answer,
    append,
    appends,
    campaign,
    entries,
    lead,
    out,
    refuse,
    replica,
)
from tests.simulation import TIMINGS
from twstock.errors import NotLeader
from twstock.replication.messages import (
    AppendEntries,
    AppendReply,
    EntryKind,
    Message,
    VoteReply,
    VoteRequest,
)
from twstock.replication.standing import Role


def test_an_election_needs_a_majority_of_votes() -> None:
    """Of five replicas, two votes and its own. A vote that comes twice counts once."""
    subject = replica(5, of=5)
    ready = campaign(subject)
    assert ready.persist is not None
    subject.persisted(ready.persist.sequence, START + 1)
    for _ in range(3):
        subject.step(VoteReply(1, 5, 1, True), START + 1)
    assert subject.leader_id == 0
    subject.step(VoteReply(2, 5, 1, True), START + 1)
    assert subject.role is Role.LEADER


def test_the_own_vote_counts_when_it_is_on_disk() -> None:
    """Not earlier, and requests for votes do not leave earlier."""
    subject = replica(3)
    ready = campaign(subject)
    assert not any(isinstance(m, VoteRequest) for m in ready.send_now)
    for voter in (1, 2):
        subject.step(VoteReply(voter, 3, 1, True), START + 1)
        assert subject.leader_id == 0
    assert ready.persist is not None
    subject.persisted(ready.persist.sequence, START + 1)
    assert subject.role is Role.LEADER


def test_a_term_begins_with_a_no_op() -> None:
    """It settles what older terms left, without waiting for a client (Raft section 8)."""
    subject = replica(3, terms=(1,))
    lead(subject)
    last = subject.log.entry(2)
    assert (last.term, last.kind, subject.commit) == (2, EntryKind.NOOP, 2)


def test_a_single_replica_commits_when_its_own_disk_has_it() -> None:
    """It needs no other replica, but it needs its disk, for its vote and for each entry."""
    subject = replica(1, of=1)
    ready = subject.tick(START)
    assert subject.leader_id == 0
    assert ready.persist is not None
    ready = subject.persisted(ready.persist.sequence, START)
    assert (subject.role, subject.commit, ready.apply) == (Role.LEADER, 0, ())
    assert subject.lease_until == -inf
    assert ready.persist is not None
    assert len(subject.persisted(ready.persist.sequence, START).apply) == 1
    assert subject.lease_until == inf
    ready = subject.propose([b"a", b"b"], START)
    assert (subject.commit, ready.apply) == (1, ())
    assert ready.persist is not None
    ready = subject.persisted(ready.persist.sequence, START)
    assert [entry.payload for entry in ready.apply] == [b"a", b"b"]


def test_the_own_disk_counts_like_any_other() -> None:
    """The leader sends while it writes, but its own copy counts only when the write is done."""
    subject = replica(3)
    lead(subject)
    ready = subject.propose([b"a"], START + 1)
    assert {m.target for m in appends(ready)} == {1, 2}
    assert all(m in ready.send_now for m in appends(ready))
    request = appends(ready)[0]
    assert subject.commit == 1
    subject.step(accept(request), START + 1)
    assert subject.commit == 1
    assert ready.persist is not None
    assert len(subject.persisted(ready.persist.sequence, START + 1).apply) == 1


def test_a_leader_whose_disk_hangs_commits_through_the_others() -> None:
    """It does not apply what it does not have on disk itself; and it can resign."""
    subject = replica(3)
    lead(subject)
    ready = subject.propose([b"a"], START + 1)
    for request in appends(ready):
        ready = subject.step(accept(request), START + 1)
    assert (subject.commit, ready.apply) == (2, ())
    subject.resign(START + 1.5)
    assert (subject.role, subject.term, subject.leader_id) == (Role.FOLLOWER, 1, 0)
    assert subject.lease_until == -inf
    with pytest.raises(NotLeader):
        subject.propose([b"b"], START + 1.5)


def test_what_every_member_has_is_on_all_disks() -> None:
    """Those of both followers and the own one. The followers are told with what they are sent
    next.
    """
    subject = replica(3)
    lead(subject)
    subject.tick(START + 1)
    assert subject.everywhere == 1
    ready = subject.propose([b"a"], START + 1)
    for request, known in zip(appends(ready), (1, 1), strict=True):
        subject.step(accept(request), START + 1)
        subject.tick(START + 1)
        assert subject.everywhere == known
    assert subject.commit == 2
    assert ready.persist is not None
    subject.persisted(ready.persist.sequence, START + 1)
    subject.tick(START + 1)
    assert subject.everywhere == 2
    ready = subject.propose([b"b"], START + 1)
    assert [request.everywhere for request in appends(ready)] == [2, 2]


def test_what_every_member_has_does_not_count_before_it_is_committed() -> None:
    """An entry of an older term may still be replaced, even if all members have it."""
    subject = replica(3, terms=(1,))
    ready = campaign(subject)
    assert ready.persist is not None
    subject.persisted(ready.persist.sequence, START + 1)
    subject.step(VoteReply(1, 3, 2, True), START + 1)
    for peer in (1, 2):
        subject.step(AppendReply(peer, 3, 2, True, 1, 1, 0, START, 0, True), START + 1)
    subject.tick(START + 1)
    assert (subject.matched(1), subject.matched(2)) == (1, 1)
    assert (subject.commit, subject.everywhere) == (0, 0)


def test_a_follower_remembers_what_every_member_has() -> None:
    """It stays so, whoever leads later and however little that leader knows."""
    subject = replica(1)
    subject.step(replace(append(3, 1, 1, new=entries(1, 1)), everywhere=2), START)
    assert subject.everywhere == 2
    subject.step(replace(append(2, 1, 2, prev=(2, 1)), everywhere=0), START)
    assert subject.everywhere == 2


def test_figure_8() -> None:
    """Figure 8 of the Raft paper: an entry of an older term is not committed by counting, however
    many have it. Another leader may still replace it, until an entry of the current term is behind
    it.
    """
    subject = replica(1, terms=(1, 2), of=5, term=3)
    now = START + 1
    ready = campaign(subject, now)
    assert ready.persist is not None
    subject.persisted(ready.persist.sequence, now)
    for voter in (2, 3):
        ready = subject.step(VoteReply(voter, 1, 4, True), now)
    assert ready.persist is not None
    subject.persisted(ready.persist.sequence, now)
    for peer in (2, 3, 4):
        held = AppendReply(peer, 1, 4, True, 2, 2, 1, now)
        subject.step(held, now)
    assert subject.commit == 0
    replaced = replica(1, terms=(1, 2, 4), of=5, term=4)
    replaced.step(append(5, 1, 5, (1, 1), entries(3, 5, first=2)), now)
    assert replaced.log.term_at(2) == 3
    for request in appends(ready)[:2]:
        subject.step(accept(request), now)
    assert subject.commit == 3


def test_stale_answers_move_nothing_back_and_start_nothing() -> None:
    """Late and duplicate answers, accepting or refusing, neither lower what a follower is known to
    have nor start a second chain of appends (message storms).
    """
    subject = replica(3)
    lead(subject)
    now = START + 1
    ready = subject.propose([b"%d" % n for n in range(200)], now)
    window = [m for m in appends(ready) if m.target == 1]
    assert len(window) == TIMINGS.append_window
    replies = [accept(m) for m in window]
    more = appends(subject.step(replies[0], now))
    assert len(more) == 1
    matched = subject.matched(1)
    stale = [replies[0], replies[0], refuse(window[0], 0), replace(replies[0], sequence=1)]
    stale.append(replace(replies[0], sequence=1, index=1))
    for reply in stale:
        assert appends(subject.step(reply, now)) == []
        assert subject.matched(1) == matched
    (probe,) = appends(subject.step(refuse(window[2], matched), now))
    assert probe.prev_index == matched
    for reply in (refuse(window[2], 0), refuse(window[1], 0), refuse(more[0], 0)):
        assert appends(subject.step(reply, now)) == []
    assert len(appends(subject.step(accept(probe), now))) == TIMINGS.append_window


def test_an_append_that_is_lost_is_sent_again() -> None:
    """After its time-out, or when a follower that could not be reached answers a heartbeat."""
    subject = replica(3)
    lead(subject)
    now = START + 1
    (first, _) = appends(subject.propose([b"a"], now))
    assert appends(subject.tick(now + TIMINGS.append_timeout_s * 0.9)) == []
    subject.step(accept(append(3, 2, 1, (1, 1), sequence=1)), now + 0.2)
    again = appends(subject.tick(now + TIMINGS.append_timeout_s + 0.001))
    assert first.entries in [m.entries for m in again if m.target == 1]
    now += 0.26
    assert appends(subject.unreachable(1, now)) == []
    assert [m.target for m in appends(subject.tick(now + 0.01))] == []
    heartbeat_reply = AppendReply(1, 3, 1, True, 1, 1, sequence=5, sent_at=now, takes_commands=True)
    assert [m.target for m in appends(subject.step(heartbeat_reply, now + 0.02))] == [1]


def test_a_follower_that_was_away_when_its_leader_was_elected_gets_what_it_lacks() -> None:
    """That it could not be reached, or did not answer, says nothing about its log, however often.
    So it is not sent everything from the first entry on.
    """
    for timed_out in (False, True):
        subject = replica(3, terms=(1, 1, 1))
        lead(subject, voters=(2,))
        now, sent = START + 1, []
        for _ in range(3):
            if not timed_out:
                subject.unreachable(1, now)
            now += TIMINGS.append_timeout_s + 0.001
            ready = subject.tick(now)
            answer(subject, ready, now, (2,))
            sent += [(m.target, m.prev_index, len(m.entries)) for m in appends(ready)]
        assert sent == [(1, 3, 1)] * 3


def test_a_follower_without_room_is_asked_again_after_the_time_out_only() -> None:
    """Its answers to heartbeats say that it is there, not that it has room. Otherwise each would
    bring everything again that it has refused.
    """
    subject = replica(3)
    lead(subject)
    now = START + 1
    subject.propose([b"a"], now)
    for _ in range(2):
        assert appends(subject.unreachable(1, now)) == []
        end = now + TIMINGS.append_timeout_s
        while now < end - 0.02:
            now += 0.01
            answer_ = accept(append(3, 1, 1, (1, 1), sequence=1))
            heard = replace(answer_, sent_at=now, takes_commands=False)
            assert [m for m in appends(subject.step(heard, now)) if m.target == 1] == []
        now = end
        assert [m.prev_index for m in appends(subject.tick(now)) if m.target == 1] == [1]


def test_streamed_appends_that_are_lost_are_all_sent_again() -> None:
    """Later appends go out before the first is answered. When that is lost, the leader goes back to
    its beginning.
    """
    subject = replica(3)
    lead(subject)
    payloads = [b"x"] * (TIMINGS.append_entries_max * TIMINGS.append_window)
    now = START + 1
    first, *others = [m for m in appends(subject.propose(payloads, now)) if m.target == 1]
    assert len(others) == TIMINGS.append_window - 1
    subject.unreachable(1, now)
    subject.unreachable(1, now)
    again = appends(subject.tick(now + TIMINGS.append_timeout_s + 0.001))
    assert first.entries in [m.entries for m in again if m.target == 1]


def test_a_broken_promise_of_a_follower_starts_no_storm() -> None:
    """A follower that refuses what it has accepted is asked again only after the time-out."""
    subject = replica(3)
    lead(subject)
    (request, _) = appends(subject.propose([b"a"], START + 1))
    assert appends(subject.step(refuse(request, 0), START + 1)) == []
    assert subject.matched(1) == 1


def test_who_refuses_what_it_has_confirmed_has_lost_it() -> None:
    """A follower that refuses a heartbeat for an entry that it has confirmed must rejoin, and takes
    over nothing until it has. A message that was sent before the confirmation proves nothing, for
    it may have overtaken the entries.
    """
    subject = replica(3)
    lead(subject)
    now = START + 1
    (request, _) = appends(subject.propose([b"a"], now))
    subject.step(accept(request), now)
    overtaken = replace(refuse(request, 0), sent_at=now)
    subject.step(overtaken, now + 0.01)
    assert (subject.must_rejoin(1), subject.matched(1)) == (False, 2)
    heartbeat = replace(append(3, 1, 1, (2, 1)), sent_at=now + 0.01)
    subject.step(refuse(heartbeat, 0), now + 0.02)
    assert (subject.must_rejoin(1), subject.must_rejoin(2)) == (True, False)
    assert subject.heir(now + 0.02) == 2
    again = replace(heartbeat, sent_at=now + 0.02)
    subject.step(replace(accept(again), applied=2), now + 0.03)
    assert not subject.must_rejoin(1)


def test_heartbeats_follow_what_the_follower_has() -> None:
    """A follower always accepts them. They have the digest of the leader's state, and are due by
    the clock.
    """
    subject = replica(3)
    lead(subject)
    subject.set_digest(1, b"state")
    subject.propose([b"a"], START + 1)
    ready = subject.tick(START + 1 + TIMINGS.heartbeat_s)
    heartbeats = [m for m in out(ready) if isinstance(m, AppendEntries) and not m.entries]
    assert [(m.target, m.prev_index, m.applied, m.digest) for m in heartbeats] == [
        (1, 1, 1, b"state"),
        (2, 1, 1, b"state"),
    ]
    assert out(subject.tick(START + 1 + TIMINGS.heartbeat_s * 1.5)) == []


def test_an_append_that_is_answered_puts_off_the_heartbeat() -> None:
    """It told the follower as much. One without an answer does not: the follower's disk may hang,
    and it answers heartbeats without its disk.
    """
    subject = replica(3)
    lead(subject)
    subject.tick(START + 1)
    sent_at = START + 1 + TIMINGS.heartbeat_s / 2
    to_first, _ = appends(subject.propose([b"a"], sent_at))
    subject.step(accept(to_first), sent_at + TIMINGS.heartbeat_s / 4)

    def heartbeats(now: float) -> list[int]:
        found = [m for m in out(subject.tick(now)) if isinstance(m, AppendEntries)]
        return [m.target for m in found if not m.entries]

    assert heartbeats(START + 1 + TIMINGS.heartbeat_s) == [2]
    assert heartbeats(sent_at + TIMINGS.heartbeat_s) == [1]


def test_a_leader_without_a_majority_steps_down() -> None:
    """After two election time-outs without answers of a majority (CheckQuorum). An answer counts
    from when its request was sent, however late it arrives.
    """
    subject = replica(3)
    lead(subject)
    late = AppendReply(1, 3, 1, True, 1, 1, sequence=5, sent_at=START + 1.001)
    subject.step(late, START + 1 + ELECTION_S)
    subject.tick(START + 1 + 1.99 * ELECTION_S)
    assert subject.role is Role.LEADER
    subject.tick(START + 1.002 + 2 * ELECTION_S)
    assert (subject.role, subject.leader_id) == (Role.FOLLOWER, 0)


def test_a_leader_steps_down_for_a_newer_term() -> None:
    """Whichever message tells it."""
    higher: list[Message] = [
        AppendReply(1, 3, 9, False, 0),
        VoteReply(1, 3, 9, False),
        append(1, 3, 9),
    ]
    for message in higher:
        subject = replica(3)
        lead(subject)
        subject.step(message, START + 1)
        assert (subject.role, subject.term) == (Role.FOLLOWER, 9)


def test_a_lease_begins_with_a_committed_entry_of_the_own_term() -> None:
    """Before that a new leader may not know everything that has been acknowledged."""
    subject = replica(3)
    ready = campaign(subject)
    assert ready.persist is not None
    subject.persisted(ready.persist.sequence, START + 1)
    ready = subject.step(VoteReply(1, 3, 1, True), START + 1)
    assert ready.persist is not None
    subject.persisted(ready.persist.sequence, START + 1)
    for peer in (1, 2):
        heartbeat_reply = AppendReply(peer, 3, 1, True, 0, 0, 1, START + 1)
        subject.step(heartbeat_reply, START + 1)
    assert (subject.is_ready, subject.lease_until) == (False, -inf)
    subject.step(accept(appends(ready)[0]), START + 1)
    assert (subject.is_ready, subject.lease_until > START + 1) == (True, True)


def test_a_lease_counts_from_the_time_of_sending() -> None:
    """Voters are loyal from when they heard the leader, not from when it read their answers; and it
    takes a majority of them.
    """
    subject = replica(5, of=5)
    lead(subject, voters=(1, 2))
    lease_s = ELECTION_S * TIMINGS.lease_fraction
    assert subject.lease_until == pytest.approx(START + 1 + lease_s)
    for peer, sent_at in ((1, START + 1.2), (2, START + 1.1), (1, START + 1.15)):
        subject.step(AppendReply(peer, 5, 1, True, 1, 1, 1, sent_at), START + 1.25)
    assert subject.lease_until == pytest.approx(START + 1.1 + lease_s)


def test_followers_that_are_silent_need_not_have_full_disks() -> None:
    """The leader itself may have been paused. Whether it still leads is decided at its tick."""
    subject = replica(3)
    lead(subject)
    assert subject.has_room_elsewhere(START + 60)


def test_a_late_report_of_a_lost_append_is_no_sign_of_a_full_disk() -> None:
    """An append timed out, was sent again and was accepted; only then is the first one reported as
    lost. The follower has refused nothing, and may have room even while it takes no new commands.
    """
    subject = replica(3)
    lead(subject, voters=(2,))
    again = START + 1 + TIMINGS.append_timeout_s
    subject.propose([b"new"], START + 1)
    (second,) = (m for m in appends(subject.tick(again)) if m.target == 2)
    subject.step(replace(accept(second), takes_commands=False), again)
    subject.unreachable(2, again)
    assert subject.has_room_elsewhere(again)
