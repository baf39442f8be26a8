"""What a replica knows of its contact with the processes outside of its group, and which member
leads because of it.
"""

from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from tests.members import Group
from twstock.config import Limits
from twstock.replication.assembly import replication_endpoints
from twstock.replication.messages import Reach
from twstock.replication.reach import Contact, Contacts
from twstock.rpc.calls import Probe

LIMIT_S = 1.0
EVERY_S = 0.1


def hear(contact: Contact, since: float, until: float) -> None:
    """Somebody is heard at regular intervals, from ``since`` until ``until``."""
    for k in range(round((until - since) / EVERY_S) + 1):
        contact.heard(since + k * EVERY_S)


def test_who_was_never_there_is_not_missed() -> None:
    """Without ``missed_from``, who was never heard is not lost: a group that is used by gRPC alone
    has no front-ends.
    """
    assert Contact("", LIMIT_S).reach(100.0) is None
    assert Contacts(LIMIT_S).reach(100.0) is Reach.UNHEARD
    assert Contacts(LIMIT_S).lost(100.0) == ""


def test_who_has_to_be_there_is_missed_from_the_start() -> None:
    """With ``missed_from``, a contact is lost after the limit although it was never heard, and good
    once it was heard for long enough.
    """
    contact = Contact("", LIMIT_S, missed_from=5.0)
    assert [contact.reach(at) for at in (5.0, 6.0, 6.1)] == [
        Reach.UNSURE,
        Reach.UNSURE,
        Reach.LOST,
    ]
    hear(contact, 7.0, 8.0)
    assert contact.reach(8.0) is Reach.GOOD


def test_who_is_there_before_it_is_missed_counts_at_once() -> None:
    """A contact that is heard before ``missed_from`` can be good, and lost, before that time."""
    contact = Contact("", LIMIT_S, missed_from=5.0)
    assert contact.reach(0.0) is Reach.UNSURE
    hear(contact, 1.0, 2.0)
    assert contact.reach(2.0) is Reach.GOOD
    assert contact.reach(3.1) is Reach.LOST


def test_a_contact_is_good_when_it_has_lasted() -> None:
    """A contact is good only when it has been heard for as long as the limit; one call proves
    nothing.
    """
    contact = Contact("", LIMIT_S)
    contact.heard(5.0)
    assert contact.reach(5.0) is Reach.UNSURE
    hear(contact, 5.1, 5.9)
    assert contact.reach(5.9) is Reach.UNSURE
    contact.heard(6.0)
    assert contact.reach(6.0) is Reach.GOOD


def test_a_contact_is_lost_after_a_silence_and_has_to_last_again() -> None:
    """A contact is unsure after a silence of half the limit, and lost after the whole limit. When
    it is heard again it becomes good only after the limit.
    """
    contact = Contact("", LIMIT_S)
    hear(contact, 0.0, 5.0)
    assert [contact.reach(at) for at in (5.5, 5.6, 6.0, 6.1)] == [
        Reach.GOOD,
        Reach.UNSURE,
        Reach.UNSURE,
        Reach.LOST,
    ]
    contact.heard(7.0)
    assert contact.reach(7.0) is Reach.UNSURE
    hear(contact, 7.1, 8.0)
    assert contact.reach(8.0) is Reach.GOOD


def test_a_short_silence_is_no_new_beginning() -> None:
    """A call may be late: after a silence shorter than the limit the contact is good at once."""
    contact = Contact("", LIMIT_S)
    hear(contact, 0.0, 5.0)
    contact.heard(5.9)
    assert contact.reach(5.9) is Reach.GOOD


@pytest.mark.parametrize("ahead_s", [0.0, 0.1, 0.4])
def test_a_pause_that_all_share_makes_no_two_differ(ahead_s: float) -> None:
    """When those who call stand still for three seconds, one replica's contact is never lost while
    another's is good, though the other heard of them ``ahead_s`` later, and hears of them again
    ``ahead_s`` earlier.
    """
    leader, other = Contact("", LIMIT_S), Contact("", LIMIT_S)
    hear(leader, 0.0, 5.0)
    hear(other, ahead_s, 5.0 + ahead_s)
    for k in range(800):
        now = 5.0 + k / 100
        if now >= 8.0 and k % 10 == 0:
            leader.heard(now)
        if now + ahead_s >= 8.0 and k % 10 == 0:
            other.heard(now)
        assert (leader.reach(now), other.reach(now)) != (Reach.LOST, Reach.GOOD)
    assert leader.reach(now) is other.reach(now) is Reach.GOOD


def test_all_contacts_count() -> None:
    """A replica's reach is good only if all of its contacts are good, and lost if one of them is;
    what is lost is told in words.
    """
    contacts = Contacts(LIMIT_S)
    hear(contacts.front_ends, 0.0, 5.0)
    assert contacts.reach(5.0) is Reach.GOOD
    market = contacts.add("it does not reach the catalog", 5.0)
    assert contacts.reach(5.0) is Reach.UNSURE
    hear(market, 5.1, 6.1)
    hear(contacts.front_ends, 5.1, 6.1)
    assert contacts.reach(6.1) is Reach.GOOD
    hear(contacts.front_ends, 6.2, 8.0)
    assert contacts.reach(8.0) is Reach.LOST
    assert contacts.lost(8.0) == "it does not reach the catalog"
    assert contacts.lost(20.0) == "no front-end reaches it and it does not reach the catalog"


def test_a_replica_that_no_front_end_has_called_is_not_good() -> None:
    """A replica whose other contacts are good is only ``UNHEARD`` until a front-end calls it: it
    may have been restarted where they do not reach it.
    """
    contacts = Contacts(LIMIT_S)
    market = contacts.add("it does not reach the catalog", 0.0)
    assert contacts.reach(1.0) is Reach.UNSURE
    hear(market, 1.0, 3.0)
    assert contacts.reach(3.0) is Reach.UNHEARD
    hear(contacts.front_ends, 2.0, 3.0)
    assert contacts.reach(3.0) is Reach.GOOD


@pytest.mark.parametrize("pause_s", [0.9, 3.0, 100.0])
def test_a_replica_that_stood_still_itself_misses_nobody_for_that(pause_s: float) -> None:
    """After a pause of the replica itself its contacts are as good as before, since it has yet to
    read what came meanwhile. A silence after that counts.
    """
    contacts = Contacts(LIMIT_S)
    for k in range(31):
        contacts.awake(k / 10)
        contacts.front_ends.heard(k / 10)
    until = 3.0 + pause_s
    contacts.awake(until)
    assert contacts.reach(until) is Reach.GOOD
    contacts.front_ends.heard(until)
    contacts.awake(until + 0.1)
    assert contacts.reach(until + 0.1) is Reach.GOOD
    for k in range(12):
        contacts.awake(until + 0.1 + k / 10)
    assert contacts.reach(until + 1.2) is Reach.LOST


def test_standing_still_proves_no_contact() -> None:
    """A pause of the replica itself makes no contact good that was heard for a moment only, and one
    that was never heard stays unknown.
    """
    contacts = Contacts(LIMIT_S)
    market = contacts.add("", 0.0)
    contacts.awake(0.0)
    market.heard(0.0)
    contacts.awake(4.0)
    assert contacts.front_ends.reach(4.0) is None
    market.heard(4.1)
    assert market.reach(4.1) is Reach.UNSURE


def test_a_pause_of_all_members_does_not_move_the_lead(tmp_path: Path) -> None:
    """The leader keeps the lead, in the same term, after a pause that is longer than front-ends may
    be silent, and shorter than a leader may be.
    """
    group = Group(tmp_path, limits=Limits(out_of_reach_s=0.16, probe_every_s=0.02))
    group.start()
    group.run_until(lambda: group.leader == 3)
    asked = [
        replication_endpoints("order", group.member(number), lambda: "")[0] for number in (1, 2, 3)
    ]
    for step in range(400):
        for heartbeat in asked:
            Deferred.fromCoroutine(heartbeat.answer(Probe(front_id=1)))
        group.run(0.02)
        if step == 200:
            group.clock.advance(0.2)
    assert (group.leader, group.member(3).term()) == (3, 1)


def ask(group: Group, seconds: float, *numbers: int, probe: Probe) -> None:
    """Let time pass in which these members are sent ``probe``, ten times a second."""
    for _ in range(round(seconds / EVERY_S)):
        for number in numbers:
            heartbeat, *_ = replication_endpoints("order", group.member(number), lambda: "")
            Deferred.fromCoroutine(heartbeat.answer(probe))
        group.run(EVERY_S)


@pytest.fixture
def group(tmp_path: Path) -> Group:
    """Three members, of which the third leads, and a front-end that calls all of them."""
    group = Group(tmp_path)
    group.start()
    group.run_until(lambda: group.leader == 3)
    ask(group, 3.0, 1, 2, 3, probe=Probe(front_id=1))
    assert group.leader == 3
    return group


def test_a_leader_that_no_front_end_reaches_gives_way_and_stays_without_the_lead(
    group: Group,
) -> None:
    """It gets the lead back only when a front-end has reached it for a while."""
    ask(group, Limits().out_of_reach_s + 1.0, 1, 2, probe=Probe(front_id=1))
    assert group.leader == 2
    ask(group, 20.0, 1, 2, probe=Probe(front_id=1))
    assert group.leader == 2
    ask(group, 10.0, 1, 2, 3, probe=Probe(front_id=1))
    assert group.leader == 3


def test_a_member_that_is_restarted_where_no_front_end_reaches_it_does_not_get_the_lead(
    group: Group,
) -> None:
    """The member does not know whether there are front-ends, but the others do. If it is elected
    all the same, because the leader has ended, it gives the lead to a member that front-ends reach.
    """
    group.kill(3)
    ask(group, 5.0, 1, 2, probe=Probe(front_id=1))
    group.contacts[3] = Contacts(Limits().out_of_reach_s)
    group.start(3)
    ask(group, 20.0, 1, 2, probe=Probe(front_id=1))
    assert group.leader == 2
    group.kill(2)
    ask(group, 1.0, 1, probe=Probe(front_id=1))
    assert group.leader == 3
    ask(group, 5.0, 1, probe=Probe(front_id=1))
    assert group.leader == 1
    ask(group, 10.0, 1, 3, probe=Probe(front_id=1))
    assert group.leader == 3


def test_a_group_without_front_ends_gives_the_lead_to_its_highest_id(group: Group) -> None:
    """No member was called by a front-end since its start, so this keeps none from the lead."""
    for number in (1, 2, 3):
        group.kill(number)
        group.contacts[number] = Contacts(Limits().out_of_reach_s)
    group.start(1)
    group.start(2)
    group.run_until(lambda: group.leader == 2)
    group.start(3)
    group.run_until(lambda: group.leader == 3)


def test_a_leader_that_no_front_end_reaches_is_not_helped_by_others(group: Group) -> None:
    """A call that does not come from a front-end (of another member, or of a person who asks for
    the status) does not keep it in the lead.
    """
    for _ in range(30):
        ask(group, EVERY_S, 1, 2, probe=Probe(front_id=1))
        ask(group, EVERY_S, 3, probe=Probe())
    assert group.leader == 2


def test_the_lead_stays_where_it_is_when_all_front_ends_are_gone(group: Group) -> None:
    """The leader stays when front-ends call no member any more, and when they are back."""
    ask(group, 10.0, probe=Probe(front_id=1))
    assert group.leader == 3
    ask(group, 10.0, 1, 2, 3, probe=Probe(front_id=1))
    assert (group.leader, group.member(3).term()) == (3, 1)


def test_a_catalog_that_no_order_replica_reaches_gives_way(group: Group) -> None:
    """The catalog's leader is still called by front-ends, but no longer by order replicas."""
    for number in (1, 2, 3):
        contacts, now = group.contacts[number], group.clock.seconds()
        contacts.order_replicas = contacts.add("no order replica reaches it", now)
    for step in range(80):
        ask(group, EVERY_S, 1, 2, 3, probe=Probe(front_id=1))
        ask(group, EVERY_S, *((1, 2) if step > 40 else (1, 2, 3)), probe=Probe(order_id=1))
        assert step > 40 or group.leader == 3
    assert group.leader == 2


def test_an_order_replica_that_never_reached_the_catalog_does_not_keep_the_lead(
    group: Group,
) -> None:
    """It leads because it has the highest id, and gives way to the only one that reaches the
    catalog.
    """
    contacts = {n: group.member(n).needs_contact("") for n in (1, 2, 3)}
    for _ in range(80):
        contacts[2].heard(group.clock.seconds())
        ask(group, EVERY_S, 1, 2, 3, probe=Probe(front_id=1))
    assert group.leader == 2


def test_an_order_replica_without_catalog_does_not_keep_the_lead_where_there_are_no_front_ends(
    group: Group,
) -> None:
    """The leader gives way to the only member that reaches the catalog, though none is called by
    front-ends.
    """
    for number in (1, 2, 3):
        group.kill(number)
        group.contacts[number] = Contacts(Limits().out_of_reach_s)
    group.start()
    contacts = {n: group.member(n).needs_contact("") for n in (1, 2, 3)}
    group.run_until(lambda: group.leader == 3)
    for _ in range(80):
        contacts[2].heard(group.clock.seconds())
        group.run(EVERY_S)
    assert group.leader == 2


def test_a_contact_that_a_tier_needs_counts(group: Group) -> None:
    """The leader loses a contact that its tier needs, and gives way to a member that has it."""
    contacts = {n: group.member(n).needs_contact("it does not reach the catalog") for n in (2, 3)}
    for step in range(60):
        for number, contact in contacts.items():
            if number == 2 or step < 20:
                contact.heard(group.clock.seconds())
        ask(group, EVERY_S, 1, 2, 3, probe=Probe(front_id=1))
    assert group.leader == 2


def test_a_leader_that_stops_does_not_tell_that_front_ends_are_gone(group: Group) -> None:
    """While a leader that stops gives way, the others log that front-ends are gone and it does not:
    they may have been stopped before it.
    """
    group.run(0.9)
    with capturedLogs() as logged:
        stopping = group.member(3).stopService()
        group.run(0.2)
        assert not stopping.called
        group.run(2.0)
    assert stopping.called
    told = [event for event in logged if "lost" in event and event.get("lost")]
    assert len(told) == 2  # by the others
