"""What a member's log says about the member's life in its group."""

from types import SimpleNamespace

import pytest
from twisted.logger import Logger, formatEvent

from twstock.config import DEFAULT_TIMINGS
from twstock.replication.chronicle import LEADERLESS_S, Chronicle
from twstock.replication.messages import Membership
from twstock.replication.standing import Role

ROOM = 1000


class Replica(SimpleNamespace):
    """A replica as it can be seen."""

    def __init__(self, **seen):
        calm = {"role": Role.FOLLOWER, "term": 1, "leader_id": 3, "is_ready": False, "commit": 10}
        calm |= {"handing_over_to": 0, "silent": {}, "match": {}, "beyond_help": ()}
        super().__init__(**{**calm, **seen})

    def silent_s(self, peer, _now):
        """For how long a peer has said nothing."""
        return self.silent.get(peer, 0.0)

    def must_rejoin(self, peer):
        """Whether it has lost what it promised."""
        return peer in self.beyond_help

    def matched(self, peer):
        """How far a peer has got."""
        return self.match.get(peer, self.commit)


def leader(**seen):
    """A replica that leads."""
    ready = {"role": Role.LEADER, "leader_id": 2, "is_ready": True, "term": 2}
    return Replica(**{**ready, **seen})


@pytest.fixture
def member():
    """Member 2 of three: ``look`` returns what it tells."""
    chronicle = Chronicle("order", Membership(2, (1, 2, 3)), DEFAULT_TIMINGS, ROOM)
    told = []
    chronicle._log = Logger(observer=lambda event: told.append(formatEvent(event)))

    def look(replica, now=0.0, room=ROOM):
        told.clear()
        chronicle.look(replica, room, now)
        lines = list(told)
        told.clear()
        chronicle.look(replica, room, now)
        assert told == [], "nothing is told twice"
        return lines

    return SimpleNamespace(chronicle=chronicle, look=look, told=told)


def test_a_leader_tells_which_members_must_rejoin(member):
    """It says so once in each term that it leads."""
    assert member.look(leader())[-1:] == ["leads term 2"]
    words = ["order-3 has lost what it confirmed: it must rejoin"]
    assert member.look(leader(beyond_help=(3,))) == words
    assert member.look(leader(beyond_help=(3,), term=4)) == [
        "leads term 2 no more: term 4 has begun",
        "leads term 4",
        *words,
    ]


def test_a_follower_tells_whom_it_follows_and_that_it_hears_nobody(member):
    """It says each once, however long it looks for a leader."""
    assert member.look(Replica()) == ["follows order-3 in term 1"]
    assert member.look(Replica(leader_id=0)) == []
    lost = Replica(leader_id=0, role=Role.CANDIDATE, term=2)
    assert member.look(lost) == ["hears no leader: order-3 is silent"]
    assert member.look(Replica(leader_id=0, role=Role.CANDIDATE, term=9)) == []
    assert member.look(Replica(leader_id=1, term=9)) == ["follows order-1 in term 9"]


def test_a_member_tells_that_nobody_leads_for_long(member):
    """It says so once each time, also at its start, when it has not heard any leader yet."""
    nobody = Replica(leader_id=0, role=Role.CANDIDATE)
    assert member.look(nobody, now=100.0) == []
    assert member.look(nobody, now=100.0 + LEADERLESS_S - 0.1) == []
    assert member.look(nobody, now=107.0) == ["has found no leader for 7 s"]
    assert member.look(nobody, now=200.0) == []
    member.look(Replica(), now=201.0)
    member.look(nobody, now=202.0)
    assert member.look(nobody, now=206.0) == ["has found no leader for 5 s"]


def test_a_leader_tells_when_it_is_ready(member):
    """It says nothing before it has everything that earlier leaders acknowledged."""
    assert member.look(leader(is_ready=False)) == []
    assert member.look(leader()) == ["leads term 2"]


@pytest.mark.parametrize(
    ("why", "after", "told"),
    [
        ("", Replica(term=5, leader_id=0), "leads term 2 no more: term 5 has begun"),
        ("", Replica(term=2, leader_id=0), "leads term 2 no more: no majority answers"),
        ("its disk hangs", Replica(term=2, leader_id=0), "leads term 2 no more: its disk hangs"),
    ],
)
def test_a_leader_that_steps_down_tells_why(member, why, after, told):
    """A newer term, no majority, or a reason of its own."""
    member.look(leader())
    if why:
        member.chronicle.because(why)
    assert member.look(after) == [told]


def test_a_hand_over_is_told_from_its_beginning(member):
    """First to whom the leader hands over, and then that it has."""
    member.look(leader())
    assert member.look(leader(handing_over_to=3)) == ["gives way to order-3"]
    after = Replica(term=3, leader_id=3)
    assert member.look(after) == [
        "leads term 2 no more: it has handed over to order-3",
        "follows order-3 in term 3",
    ]


def test_a_leader_tells_of_a_follower_that_is_silent_is_back_and_has_caught_up(member):
    """A new leader does not call anybody silent at once."""
    far = 2 * DEFAULT_TIMINGS.election_s
    assert member.look(leader(silent={1: float("inf")}), now=0.0) == ["leads term 2"]
    assert member.look(leader(silent={1: float("inf")}), now=far) == []
    assert member.look(leader(silent={1: float("inf")}), now=far + 1) == ["does not hear order-1"]
    behind = leader(match={1: 4})
    assert member.look(behind, now=far + 2) == ["hears order-1 again"]
    assert member.look(leader(), now=far + 3) == ["order-1 has caught up"]


def test_a_leader_judges_its_followers_anew_in_each_term(member):
    """That one was silent or behind in an earlier term says nothing in a later one."""
    far = 10 * DEFAULT_TIMINGS.election_s
    member.look(leader(), now=0.0)
    assert member.look(leader(silent={1: far}), now=far) == ["does not hear order-1"]
    again = leader(term=4, silent={1: far})
    assert member.look(again, now=far)[1:] == ["leads term 4"]
    assert member.look(again, now=2 * far) == ["does not hear order-1"]
    assert member.look(leader(term=4, match={1: 4}), now=2 * far) == ["hears order-1 again"]
    assert member.look(leader(term=6), now=2 * far)[1:] == ["leads term 6"]


def test_what_a_leader_would_lack_is_told_once(member):
    """It says when it could not serve as the leader, and when it could again."""
    member.chronicle.reach("")
    member.chronicle.reach("no front-end reaches it")
    member.chronicle.reach("no front-end reaches it")
    member.chronicle.reach("")
    assert member.told == [
        "could not serve as the leader: no front-end reaches it",
        "could serve as the leader again",
    ]


def test_who_has_lost_what_it_confirmed_has_not_caught_up(member):
    """However far it had confirmed before. It has caught up when it has rejoined."""
    far = 10 * DEFAULT_TIMINGS.election_s
    member.look(leader(), now=0.0)
    assert member.look(leader(silent={1: far}), now=far) == ["does not hear order-1"]
    assert member.look(leader(beyond_help=(1,)), now=far + 1) == [
        "hears order-1 again",
        "order-1 has lost what it confirmed: it must rejoin",
    ]
    assert member.look(leader(), now=far + 2) == ["order-1 has caught up"]


def test_a_full_disk_is_told_and_that_it_has_room_again(member):
    """Each is said once, whatever is refused meanwhile."""
    member.look(Replica())
    assert member.look(Replica(), room=ROOM - 1) == ["the disk is full"]
    assert member.look(Replica(), room=ROOM) == ["the disk has room again"]


def test_the_beginning_of_a_member_is_told(member):
    """For whose answers it waits, that it is formed, what it has, and that it has caught up."""
    for missing in ((1, 3), (1, 3), (3,)):
        member.chronicle.waits(missing)
    member.chronicle.formed()
    member.chronicle.opened(4, 10, 7)
    member.chronicle.caught_up(3, 20)
    assert member.told == [
        "is a new member: waits for the first answer of order-1, order-3",
        "is a new member: waits for the first answer of order-3",
        "is formed: it knows order-1, order-3",
        "takes part with 10 entries, 7 of them applied, in term 4",
        "has caught up with order-3: 13 entries",
    ]
