"""How a leader hands over to a higher id, or to a member that can do what it cannot."""

from collections.abc import Mapping
from dataclasses import replace
from math import inf
from types import MappingProxyType

import pytest

from tests.bench import ELECTION_S, START, accept, answer, append, appends, lead, out, replica
from tests.simulation import TIMINGS
from twstock.errors import NotLeader
from twstock.replication.election import FlapGuard
from twstock.replication.messages import (
    AppendEntries,
    Message,
    Reach,
    Ready,
    Transfer,
)
from twstock.replication.replica import Replica
from twstock.replication.standing import Role


def following(
    subject: Replica,
    peer: int | tuple[int, ...],
    since: float,
    until: float,
    *,
    full: int = 0,
    reaches: Mapping[int, Reach] = MappingProxyType({}),
) -> tuple[list[Transfer], float]:
    """Let time pass while ``peer`` (or these) and nobody else answers; the member ``full`` has no
    room, and ``reaches`` are by member. Returns the transfers that were sent, and the time when
    ``subject`` stopped leading, or ``until``.
    """
    peers = peer if isinstance(peer, tuple) else (peer,)
    sent: list[Message] = []
    now = since
    while now < until and subject.role is Role.LEADER:
        queue = out(subject.tick(now))
        while queue:
            message = queue.pop(0)
            sent.append(message)
            if message.target in peers and isinstance(message, AppendEntries):
                has_room = message.target != full
                reach = reaches.get(message.target, Reach.UNSURE)
                reply = replace(accept(message), takes_commands=has_room, reach=reach)
                queue += out(subject.step(reply, now))
        now += 0.01
    return [m for m in sent if isinstance(m, Transfer)], now


def test_a_leader_gives_way_to_a_higher_id() -> None:
    """When the higher id has been caught up and steady for long enough. The old leader is then a
    follower in the same term.
    """
    subject = replica(1, of=3)
    lead(subject, voters=(2,))
    begin = START + 1
    _, now = following(subject, 3, begin, begin + TIMINGS.stable_s * 0.95)
    assert subject.handing_over_to == 0
    ((transfer,), _) = following(subject, 3, now, begin + 2)
    assert (transfer.target, transfer.term) == (3, 1)
    assert (subject.role, subject.term) == (Role.FOLLOWER, 1)


def test_a_leader_does_not_give_way_to_a_lower_id() -> None:
    """As long as nothing is wrong with it."""
    subject = replica(3)
    lead(subject)
    following(subject, 2, START + 1, START + 5)
    assert (subject.role, subject.handing_over_to) == (Role.LEADER, 0)


def test_a_leader_whose_disk_is_full_gives_way_to_a_lower_id_with_room() -> None:
    """When the others have been steady for long enough: they commit without the full disk, and take
    orders.
    """
    subject = replica(3)
    lead(subject)
    begin = START + 1
    subject.set_takes_commands(False)
    following(subject, (1, 2), begin, begin + TIMINGS.stable_s * 0.95)
    assert subject.handing_over_to == 0
    ((transfer,), _) = following(subject, (1, 2), begin + TIMINGS.stable_s * 0.95, begin + 2)
    assert transfer.target == 2


@pytest.mark.parametrize("full", [1, 2])
def test_a_leader_keeps_the_lead_on_a_full_disk_unless_most_others_have_room(full: int) -> None:
    """A new leader could not get orders onto the disks of a majority either."""
    subject = replica(3)
    lead(subject)
    subject.set_takes_commands(False)
    following(subject, (1, 2), START + 1, START + 5, full=full)
    assert (subject.role, subject.handing_over_to) == (Role.LEADER, 0)


def test_a_leader_that_lost_its_reach_gives_way_to_a_lower_id_with_a_good_one() -> None:
    """To the highest id with a good reach (it is in contact with front-ends and the catalog), when
    that has been steady for long enough.
    """
    subject = replica(3)
    lead(subject)
    begin, reaches = START + 1, {1: Reach.GOOD, 2: Reach.UNSURE}
    subject.set_reach(Reach.LOST)
    following(subject, (1, 2), begin, begin + TIMINGS.stable_s * 0.95, reaches=reaches)
    assert subject.handing_over_to == 0
    after = begin + TIMINGS.stable_s * 0.95
    ((transfer,), _) = following(subject, (1, 2), after, begin + 2, reaches=reaches)
    assert transfer.target == 1


@pytest.mark.parametrize("own", Reach)
@pytest.mark.parametrize("other", Reach)
def test_a_leader_keeps_the_lead_unless_another_is_better(own: Reach, other: Reach) -> None:
    """If no member has a good reach, or nobody knows, the leader stays. A higher id is preferred
    only with a good reach, or with the same unknown one: a member that has just been started may
    never reach anybody.
    """
    lower, higher = replica(3), replica(1, of=3)
    for subject in (lower, higher):
        lead(subject, voters=(2,))
        subject.set_reach(own, unheard=own is Reach.UNHEARD)
        following(subject, 2, START + 1, START + 5, reaches={2: other})
    is_better = own in (Reach.LOST, Reach.UNHEARD) and other is Reach.GOOD
    assert (lower.role is Role.FOLLOWER) is is_better
    wanted = other is Reach.GOOD or (other is own and own in (Reach.UNSURE, Reach.UNHEARD))
    assert (higher.role is Role.FOLLOWER) is wanted


@pytest.mark.parametrize("unheard", [True, False])
def test_a_leader_that_lost_the_catalog_gives_way_to_one_that_no_front_end_calls(
    unheard: bool,
) -> None:
    """If no front-end has ever called this leader either: then there may be none."""
    subject = replica(3)
    lead(subject)
    subject.set_reach(Reach.LOST, unheard=unheard)
    following(subject, 2, START + 1, START + 5, reaches={2: Reach.UNHEARD})
    assert (subject.role is Role.FOLLOWER) is unheard


def test_a_follower_tells_its_reach() -> None:
    """Its answers have it; the leader cannot know it otherwise."""
    subject = replica(2)
    subject.set_reach(Reach.LOST)
    (reply,) = out(subject.step(append(3, 2, 1), START))
    assert reply.reach is Reach.LOST


def test_hand_over_works_under_constant_load() -> None:
    """Proposals are refused instead of waiting for a quiet moment, and everything that was accepted
    is committed before the target is told.
    """
    subject = replica(2, timings=replace(TIMINGS, stable_s=0.5))
    lead(subject, voters=(1,))
    now, accepted = START + 1, 0
    refused: list[int] = []
    while subject.role is Role.LEADER and now < START + 5:
        try:
            ready = subject.propose([b"load"], now)
            accepted += 1
        except NotLeader as error:
            refused.append(error.leader_id)
            ready = Ready()
        answer(subject, ready, now, [3])
        answer(subject, subject.tick(now), now, [3])
        now += 0.01
    assert subject.role is Role.FOLLOWER
    assert accepted > 40
    assert set(refused) == {3}
    assert subject.commit == subject.last_index == accepted + 1


def test_leases_are_void_in_a_hand_over_and_waited_out() -> None:
    """Whatever was granted is over before the target may campaign."""
    subject = replica(2)
    lead(subject, voters=(1, 3))
    now = START + 1.01
    granted_until = subject.lease_until
    assert granted_until > now
    ready = subject.hand_over(3, now)
    assert (subject.handing_over_to, subject.lease_until) == (3, -inf)
    assert not any(isinstance(m, Transfer) for m in out(ready))
    assert following(subject, 3, now, granted_until - 0.001)[0] == []
    assert len(following(subject, 3, granted_until, granted_until + 0.1)[0]) == 1


def test_a_drain_longer_than_the_lease_is_waited_for() -> None:
    """Leases that front-ends hold may last longer than the leader's own, by configuration."""
    subject = replica(2, timings=replace(TIMINGS, lease_drain_s=0.5))
    lead(subject, voters=(1, 3))
    now = START + 1.01
    subject.hand_over(3, now)
    assert following(subject, 3, now, now + 0.49)[0] == []
    assert len(following(subject, 3, now + 0.5, now + 0.6)[0]) == 1


def test_a_drain_longer_than_all_patience_is_waited_for() -> None:
    """The time after which a hand-over gives up begins when the drain ends; otherwise none would
    ever succeed.
    """
    drain_s = 4 * ELECTION_S
    subject = replica(2, timings=replace(TIMINGS, lease_drain_s=drain_s))
    lead(subject, voters=(1, 3))
    now = START + 1.01
    subject.hand_over(3, now)
    assert following(subject, 3, now, now + drain_s - 0.01)[0] == []
    assert len(following(subject, 3, now + drain_s, now + drain_s + 0.1)[0]) == 1


def test_a_hand_over_waits_for_the_target() -> None:
    """A target that lacks an entry, even a committed one, could not win. One that has not applied
    all of them could not serve.
    """
    subject = replica(2)
    lead(subject, voters=(1, 3))
    ready = subject.propose([b"a"], START + 1.01)
    answer(subject, ready, START + 1.01, [1])
    (missing,) = (m for m in appends(ready) if m.target == 3)
    subject.hand_over(3, START + 1.01)
    ready = subject.tick(START + 1.29)
    assert subject.commit == subject.last_index
    assert not any(isinstance(m, Transfer) for m in out(ready))
    ready = subject.step(accept(missing), START + 1.295)
    assert not any(isinstance(m, Transfer) for m in out(ready))
    heartbeat = append(2, 3, 1, (2, 1), commit=2)
    ready = subject.step(replace(accept(heartbeat), sent_at=START + 1.3), START + 1.301)
    assert any(isinstance(m, Transfer) for m in out(ready))


def test_a_hand_over_gives_up() -> None:
    """When not everything gets committed (here the own disk hangs, and one member is gone) the
    leader goes on, and tries again only after another stable period.
    """
    subject = replica(2)
    lead(subject, voters=(1, 3))
    begin = START + 1.01
    for message in out(subject.propose([b"a"], begin)):
        if message.target == 3 and isinstance(message, AppendEntries):
            subject.step(accept(message), begin)
    patience_s = subject.lease_until - begin + 3 * ELECTION_S
    subject.hand_over(3, begin)
    assert following(subject, 3, begin, begin + patience_s - 0.02)[0] == []
    assert subject.handing_over_to == 3
    assert following(subject, 3, begin + patience_s - 0.02, begin + patience_s + 0.02)[0] == []
    assert (subject.role, subject.handing_over_to) == (Role.LEADER, 0)
    again = begin + patience_s + TIMINGS.stable_s
    following(subject, 3, begin + patience_s + 0.02, again - 0.02)
    assert subject.handing_over_to == 0
    following(subject, 3, again - 0.02, again + 0.05)
    assert subject.handing_over_to == 3


def test_a_target_whose_disk_hangs_ends_the_hand_over() -> None:
    """It answers heartbeats but no append, so it could not write its vote either."""
    subject = replica(2, timings=replace(TIMINGS, lease_drain_s=0.5))
    lead(subject, voters=(1, 3))
    now = START + 1.01
    answer(subject, subject.propose([b"a"], now), now, [1])
    subject.hand_over(3, now)
    while now < START + 1.5:
        for message in out(subject.tick(now)):
            if isinstance(message, AppendEntries) and not message.entries:
                subject.step(accept(message), now)
        now += 0.02
    assert (subject.role, subject.handing_over_to) == (Role.LEADER, 0)
    subject.hand_over(3, now)
    assert subject.handing_over_to == 0


def test_a_target_that_falls_silent_ends_the_hand_over() -> None:
    """The leader goes on at once, and takes proposals."""
    subject = replica(2, timings=replace(TIMINGS, lease_drain_s=0.5))
    lead(subject, voters=(1, 3))
    subject.hand_over(3, START + 1.01)
    following(subject, 1, START + 1.01, START + 1.01 + 1.3 * ELECTION_S)
    assert (subject.role, subject.handing_over_to) == (Role.LEADER, 0)
    subject.propose([b"a"], START + 1.5)


def test_nobody_hands_over_to_a_member_that_lags_or_is_unknown() -> None:
    """It could not win, and everybody would wait."""
    subject = replica(2)
    lead(subject, voters=(1,))
    for target in (2, 3, 9):
        subject.hand_over(target, START + 1.01)
        assert subject.handing_over_to == 0
    assert subject.heir(START + 1.01) == 1


@pytest.mark.parametrize("lack", ["tables", "room"])
def test_nobody_hands_over_to_a_member_that_could_not_serve(lack: str) -> None:
    """It has the whole log and could win, but orders would stand still until it has applied that,
    or for as long as its disk is full. Only its newest answer counts.
    """
    far = TIMINGS.unapplied_max + 1
    subject = replica(2)
    lead(subject, voters=(1, 3))
    now = START + 1.01
    answer(subject, subject.propose([b"x"] * (far - 1), now), now, (1, 3))
    assert subject.commit == far
    newest = append(2, 3, 1, (far, 1), commit=far)
    heartbeat = replace(newest, sent_at=now)
    bad, good = accept(heartbeat), accept(replace(heartbeat, sent_at=now + 0.01))
    bad = replace(bad, applied=0) if lack == "tables" else replace(bad, takes_commands=False)
    subject.step(bad, now)
    subject.hand_over(3, now)
    assert (subject.heir(now), subject.handing_over_to) == (1, 0)
    subject.step(good, now)
    subject.step(bad, now)
    assert subject.heir(now) == 3
    subject.hand_over(3, now)
    assert subject.handing_over_to == 3


def test_a_member_that_keeps_up_under_load_can_take_over() -> None:
    """Its answers say how far it had applied the log when it was asked, so they are always a little
    behind.
    """
    subject = replica(2)
    lead(subject, voters=(1, 3))
    now = START + 1.01
    answer(subject, subject.propose([b"x"] * TIMINGS.unapplied_max, now), now, (1, 3))
    heartbeat = replace(append(2, 3, 1, (subject.commit, 1), commit=1), sent_at=now)
    subject.step(accept(heartbeat), now)
    assert subject.heir(now) == 3


def test_frequent_hand_overs_become_rarer() -> None:
    """A higher id that comes and goes has to be steady for twice as long each time (flap guard)."""
    subject = replica(2, timings=replace(TIMINGS, flap_window_s=300.0))
    now, waits = START + 1, []
    for _ in range(3):
        while subject.role is not Role.LEADER:
            now += 0.05
            answer(subject, subject.tick(now), now, [1])
        sent, end = following(subject, 3, now, now + 10)
        assert len(sent) == 1
        waits.append(end - now)
        now = end
    for wait, factor in zip(waits, (1, 2, 4), strict=True):
        assert 0 <= wait - factor * TIMINGS.stable_s <= TIMINGS.election_s + 0.05


def test_an_urgent_hand_over_does_not_wait_longer_for_earlier_ones() -> None:
    """But it waits after one that was given up, or it would be tried again without a pause."""
    guard = FlapGuard(TIMINGS)
    for _ in range(3):
        guard.handed_over(START)
    assert not guard.allows(TIMINGS.stable_s, START)
    assert guard.allows(TIMINGS.stable_s, START, is_urgent=True)
    assert not guard.allows(TIMINGS.stable_s / 2, START, is_urgent=True)
    guard.gave_up(START)
    assert not guard.allows(TIMINGS.stable_s, START, is_urgent=True)
