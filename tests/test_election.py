"""Who votes for whom, and who campaigns when."""

import pytest

from tests.bench import CALM, ELECTION_S, START, append, ask, campaign, lead, out, replica
from tests.simulation import TIMINGS
from twstock.replication.messages import (
    HardState,
    Message,
    Ready,
    Transfer,
    VoteReply,
    VoteRequest,
)
from twstock.replication.replica import Replica
from twstock.replication.standing import Role


def test_a_vote_leaves_only_after_it_is_on_disk() -> None:
    """The reply that grants a vote waits for the write of term and vote."""
    ready = replica().step(ask(2, 1, 5), CALM)
    assert ready.persist is not None
    assert ready.persist.hard_state == HardState(5, 2)
    assert ready.send_now == ()
    assert ready.send_after == (VoteReply(1, 2, 5, True, False, 8),)


def test_a_vote_in_a_known_term_leaves_only_after_it_is_on_disk() -> None:
    """Also when the term is on disk already: the vote is a promise of its own."""
    ready = replica(term=5).step(ask(2, 1, 5), CALM)
    assert ready.persist is not None
    assert ready.persist.hard_state == HardState(5, 2)
    assert ready.send_now == ()


def test_a_vote_survives_a_crash() -> None:
    """A replica that voted and came back after a crash does not vote for another one in that
    term.
    """
    kept = replica().step(ask(2, 1, 5), CALM).persist
    assert kept is not None
    assert kept.hard_state is not None
    again = replica(term=kept.hard_state.term, vote=kept.hard_state.vote)
    (reply,) = out(again.step(ask(3, 1, 5), CALM))
    assert reply == VoteReply(1, 3, 5, False, False, 8)
    (reply,) = out(again.step(ask(2, 1, 5), CALM))
    assert reply == VoteReply(1, 2, 5, True, False, 8)


def test_a_vote_is_given_once_in_a_term() -> None:
    """The second candidate of a term is refused, the first may ask again."""
    subject = replica()
    granted = [out(subject.step(ask(candidate, 1, 5), CALM))[0] for candidate in (2, 3, 2)]
    assert [isinstance(m, VoteReply) and m.granted for m in granted] == [True, False, True]


@pytest.mark.parametrize(
    ("last", "granted"),
    [((9, 1), False), ((1, 2), False), ((2, 2), True), ((3, 2), True), ((1, 3), True)],
)
@pytest.mark.parametrize("pre_vote", [False, True])
def test_votes_go_to_logs_that_are_up_to_date(
    last: tuple[int, int], granted: bool, pre_vote: bool
) -> None:
    """The term of the last entry decides, then the length (Raft section 5.4.1)."""
    subject = replica(terms=(1, 2))
    (reply,) = out(subject.step(ask(2, 1, 5, last, pre_vote=pre_vote), CALM))
    assert isinstance(reply, VoteReply)
    assert reply.granted is granted


def test_a_pre_vote_changes_nothing() -> None:
    """Granting a pre-vote promises nothing: no term, no vote, no write."""
    subject = replica(term=3)
    ready = subject.step(ask(2, 1, 4, pre_vote=True), CALM)
    assert ready.persist is None
    assert ready.send_now == (VoteReply(1, 2, 4, True, True, 8),)
    assert (subject.term, subject.role) == (3, Role.FOLLOWER)


def test_a_pre_vote_of_an_old_term_is_answered_with_the_own_term() -> None:
    """The refusal tells the candidate the newer term, which it needs to be elected."""
    for pre_vote in (False, True):
        (reply,) = out(replica(term=9).step(ask(2, 1, 4, pre_vote=pre_vote), CALM))
        assert reply == VoteReply(1, 2, 9, False, pre_vote, 8)


def test_the_longest_log_is_elected_from_a_lower_term() -> None:
    """A candidate with the only complete log but an old term catches up and wins."""
    candidate, voter = replica(2, (1, 1), of=3), replica(1, (1,), term=7)
    now = START + 1
    for _ in range(4):
        queue: list[Message] = out(candidate.tick(now))
        while queue:
            message = queue.pop(0)
            receiver = {1: voter, 2: candidate}.get(message.target)
            if receiver is None:
                continue
            ready = receiver.step(message, now)
            queue += out(ready)
            if ready.persist is not None:
                queue += out(receiver.persisted(ready.persist.sequence, now))
        now += 0.5
    assert (candidate.role, candidate.term) == (Role.LEADER, 8)


def test_a_vote_counts_that_comes_while_the_next_pre_votes_are_asked_for() -> None:
    """A voter's disk may take longer than the candidate's patience. Asking for the next pre-votes
    begins nothing new, so the candidate is still elected in the term that it asked for.
    """
    subject = replica(3)
    campaign(subject)
    subject.persisted(1, START + 1)
    requests = out(subject.tick(START + 3))
    assert [m.pre_vote for m in requests if isinstance(m, VoteRequest)] == [True, True]
    subject.step(VoteReply(2, 3, 1, True), START + 3)
    assert (subject.role, subject.term) == (Role.LEADER, 1)


def test_a_candidate_waits_once_more_as_long_as_its_own_disk_took() -> None:
    """Nobody hears of its vote before that is on disk, and the disks of the voters may be as
    slow.
    """
    subject, took_s = replica(3), 2.0
    campaign(subject)
    asked_at = START + 1 + took_s
    assert out(subject.persisted(1, asked_at)) == []
    assert out(subject.tick(asked_at + took_s + ELECTION_S)) == []
    assert out(subject.tick(asked_at + took_s + 2 * ELECTION_S)) != []


def test_a_disk_that_hung_is_not_waited_for_as_long_again() -> None:
    """Otherwise two candidates whose disks hung together would both wait, each with only its own
    vote.
    """
    subject, took_s = replica(3), 60.0
    campaign(subject)
    asked_at = START + 1 + took_s
    subject.persisted(1, asked_at)
    assert out(subject.tick(asked_at + 12 * ELECTION_S)) != []


def test_a_voter_waits_for_its_candidate_from_when_it_can_hear_of_the_vote() -> None:
    """From when its vote is on disk. Otherwise it would campaign against its candidate while its
    own reply is on the way.
    """
    subject, took_s = replica(2), 2.0
    ready = subject.step(ask(3, 2, 1), START + 1)
    assert ready.persist is not None
    subject.persisted(ready.persist.sequence, START + 1 + took_s)
    assert out(subject.tick(START + 1 + took_s + ELECTION_S)) == []


def test_a_term_without_a_vote_puts_off_no_campaign() -> None:
    """A replica that only learns of a newer term may be the one that should lead."""
    subject = replica(3)
    ready = subject.step(VoteReply(1, 3, 7, False), START + 0.9)
    assert ready.persist is not None
    subject.persisted(ready.persist.sequence, START + 1)
    assert out(subject.tick(START + 1)) != []


def test_voters_stay_with_a_leader_they_hear() -> None:
    """For an election time-out they refuse votes and pre-votes, and stay in their term. So a
    follower that is cut off in one direction disturbs nobody.
    """
    voter = replica(1, term=4)
    voter.step(append(3, 1, 4), START + 1)
    for pre_vote in (True, False):
        request = ask(2, 1, 9, pre_vote=pre_vote)
        (reply,) = out(voter.step(request, START + 1 + ELECTION_S * 0.99))
        assert reply == VoteReply(1, 2, 4, False, pre_vote, 8)
    assert (voter.term, voter.leader_id) == (4, 3)
    (reply,) = out(voter.step(ask(2, 1, 9), START + 1 + ELECTION_S * 1.01))
    assert isinstance(reply, VoteReply)
    assert reply.granted


def test_a_leader_with_its_majority_stays() -> None:
    """A leader that a majority has answered a moment ago refuses candidates, too."""
    subject = replica(3)
    lead(subject)
    (reply,) = out(subject.step(ask(2, 3, 9), START + 1.1))
    assert reply == VoteReply(3, 2, 1, False, False, 8)
    assert subject.role is Role.LEADER


def test_a_replica_that_has_just_started_does_not_vote() -> None:
    """Before it crashed it may have promised to stay with a leader, so it refuses for an election
    time-out.
    """
    request = ask(2, 1, 5)
    (reply,) = out(replica().step(request, START + ELECTION_S * 0.99))
    assert isinstance(reply, VoteReply)
    assert not reply.granted


def test_who_led_until_now_stays_loyal_to_its_leases() -> None:
    """A leader that resigns gives no vote to anybody while its lease may last."""
    subject = replica(3)
    lead(subject)
    lease_until = subject.lease_until
    subject.resign(START + 1.1)
    for now, granted in ((lease_until, False), (START + 1.001 + ELECTION_S, True)):
        (reply,) = out(subject.step(ask(2, 3, 5), now))
        assert isinstance(reply, VoteReply)
        assert reply.granted is granted


def test_a_transfer_needs_no_pre_vote_and_no_patience() -> None:
    """The target of a hand-over campaigns at once, and voters grant it although they have just
    heard the leader.
    """
    target, voter = replica(3, term=4), replica(1, term=4)
    for subject in (target, voter):
        subject.step(append(2, subject._membership.id, 4), CALM)
    ready = target.step(Transfer(2, 3, 4), CALM)
    requests = [m for m in ready.send_after if isinstance(m, VoteRequest)]
    assert [(m.target, m.term, m.pre_vote, m.transfer) for m in requests] == [
        (1, 5, False, True),
        (2, 5, False, True),
    ]
    (reply,) = out(voter.step(requests[0], CALM))
    assert isinstance(reply, VoteReply)
    assert reply.granted


def test_an_old_transfer_is_ignored() -> None:
    """A transfer of an older term, or a second copy, starts nothing."""
    subject = replica(3, term=4)
    assert subject.step(Transfer(2, 3, 3), CALM) == Ready()
    subject.step(Transfer(2, 3, 4), CALM)
    assert subject.step(Transfer(2, 3, 4), CALM) == Ready()
    assert subject.term == 5


def test_higher_ids_campaign_first() -> None:
    """Time-outs are staggered by id, and the leader that was lost does not count."""
    first_try: dict[tuple[int, bool], list[float]] = {}
    for own in (1, 2, 3):
        for lost in (False, True):
            subject = replica(own, term=1)
            if lost and own != 3:
                subject.step(append(3, own, 1), START)
            now = START
            while not out(subject.tick(now)):
                now += 0.001
            first_try.setdefault((own, lost), []).append(now - START)
    patience_s = ELECTION_S + TIMINGS.election_grace_s

    def within(own: int, lost: bool, rank: int) -> bool:
        least = patience_s + rank * TIMINGS.stagger_s
        (took_s,) = first_try[own, lost]
        return least <= took_s <= least + TIMINGS.jitter_s + 0.002

    assert within(3, False, 0)
    assert within(2, False, 1)
    assert within(1, False, 2)
    assert within(2, True, 0)
    assert within(1, True, 1)


@pytest.mark.parametrize("lack", ["tables", "room"])
@pytest.mark.parametrize("gone", [False, True])
def test_who_could_not_serve_lets_the_others_campaign_first(lack: str, gone: bool) -> None:
    """A replica that is behind with its tables, or has no room, waits until all others have had
    their turn and one election more. Then it campaigns, because nobody else may be left. When it
    has caught up it waits no longer.
    """

    def followed(own: int) -> Replica:
        subject = replica(own, (4,) * (TIMINGS.unapplied_max + 1), term=4)
        last = subject.last_index
        subject.step(append(3, own, 4, (last, 4), commit=1), CALM)
        if own == 2 and lack == "room":
            subject.set_takes_commands(False)
        if own == 1 or lack == "room":
            subject.set_digest(last, b"")
        return subject

    def tries(subject: Replica, now: float = CALM) -> float:
        ready = subject.leader_lost(now) if gone else subject.tick(now)
        while not out(ready):
            now += 0.001
            ready = subject.tick(now)
        return now - CALM

    late, other = tries(followed(2)), tries(followed(1))
    assert ELECTION_S < late - other < 2 * ELECTION_S
    caught_up = followed(2)
    caught_up.set_takes_commands(True)
    caught_up.set_digest(caught_up.last_index, b"")
    assert tries(caught_up) < other


def test_a_replica_that_keeps_up_under_load_waits_for_nobody() -> None:
    """Under load there is always something that it has not applied yet; that much does not count as
    being behind.
    """
    subject = replica(3, (1,) * TIMINGS.unapplied_max)
    patience_s = ELECTION_S + TIMINGS.election_grace_s + TIMINGS.jitter_s
    assert out(subject.tick(START + patience_s + 0.001)) != []


def test_a_single_replica_waits_for_nobody() -> None:
    """Even if it is far behind with its tables: no other could serve."""
    subject = replica(1, (1,) * (TIMINGS.unapplied_max + 1), of=1)
    assert subject.tick(START).persist is not None


def test_news_that_the_leader_is_gone_starts_a_campaign_at_once() -> None:
    """A follower that learns that the leader's host refuses connections asks for pre-votes and may
    vote again; the next in line only waits for its turn.
    """
    subject, other = replica(2, term=4), replica(1, term=4)
    for each in (subject, other):
        each.step(append(3, each._membership.id, 4), CALM)
    requests = out(subject.leader_lost(CALM + 0.01, term=4))
    assert [m.target for m in requests if isinstance(m, VoteRequest) and m.pre_vote] == [1, 3]
    assert out(other.leader_lost(CALM + 0.01)) == []
    (reply,) = out(other.step(ask(2, 1, 5, pre_vote=True), CALM + 0.02))
    assert isinstance(reply, VoteReply)
    assert reply.granted
    assert out(other.tick(CALM + 0.01 + TIMINGS.stagger_s)) != []


def test_stale_news_of_a_lost_leader_changes_nothing() -> None:
    """News from an older term must not end a voter's loyalty to the new leader."""
    subject = replica(2, term=4)
    subject.step(append(1, 2, 5), CALM)
    assert subject.leader_lost(CALM, term=4) == Ready()
    assert subject.leader_id == 1
    (reply,) = out(subject.step(ask(3, 2, 6), CALM))
    assert isinstance(reply, VoteReply)
    assert not reply.granted
