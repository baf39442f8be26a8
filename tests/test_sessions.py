"""The catalog's side of the cache protocol, rule by rule."""

from math import inf

import pytest

from tests.states import restored, sessions_snapshot
from twstock.catalog.sessions import Sessions
from twstock.market import Stock
from twstock.rpc.calls import Lease

LEASE_S = 10.0


class Scene:
    """An open catalog with the stocks A and B at version 0; ``now`` is the time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sessions = Sessions(LEASE_S)
        self.sessions.started(-LEASE_S)
        self.sessions.opened([stock("A", 0), stock("B", 0)])

    def register(self, front: int = 1, session: str = "s", cap: float = inf) -> Lease:
        """A front-end takes or renews its lease; ``cap`` is the longest that may be granted."""
        return self.sessions.register(front, f"http://{front}", session, self.now, cap)

    def look_up(self, name: str = "A", front: int = 1, session: str = "s") -> int:
        """A front-end fetches a stock; returns the version that it is shown."""
        shown = self.sessions.looked_up(front, session, name, self.now)
        assert shown is not None
        return shown.version

    def trade(self, version: int, name: str = "A") -> None:
        """A trade commits."""
        self.sessions.traded([stock(name, version)], self.now)

    def answer(self, version: int, front: int = 1, session: str = "s") -> None:
        """A front-end answers the invalidation of A up to ``version``."""
        self.sessions.answered(front, session, {"A": version}, self.now)

    def told(self) -> dict[int, dict[str, int]]:
        """The invalidations that are due: by front-end, the version of each stock."""
        return {call.front_id: dict(call.versions) for call in self.sessions.calls(self.now)}

    @property
    def published(self) -> int:
        """The version of A that everybody is shown."""
        shown = self.sessions.shown("A")
        assert shown is not None
        return shown.version


def stock(name: str, version: int) -> Stock:
    """A stock of some version."""
    return Stock(name, 1, 1, version, version, 1)


@pytest.fixture
def scene() -> Scene:
    """A catalog whose front-end 1 has a lease."""
    made = Scene()
    assert made.register() == Lease(LEASE_S, True)
    return made


def test_a_new_session_is_fresh_and_a_renewed_one_is_not(scene: Scene) -> None:
    """A session that was renewed in time may keep its cache; one whose lease ran out starts
    anew.
    """
    scene.now = 9.0
    assert scene.register() == Lease(LEASE_S, False)
    scene.now = 19.0
    assert scene.register() == Lease(LEASE_S, True)


def test_a_lease_is_capped(scene: Scene) -> None:
    """The caller limits a lease to the time in which it knows that nobody else leads; without such
    time there is none.
    """
    assert scene.register(2, cap=3.0) == Lease(3.0, True)
    assert scene.register(3, cap=0.0) == Lease(0.0, False)
    assert scene.register(4, cap=-1.0) == Lease(0.0, False)


def test_a_renewal_never_shortens_a_lease(scene: Scene) -> None:
    """A renewal with a shorter limit leaves the lease as it was: the front-end may count on it, so
    a trade waits.
    """
    assert scene.register(cap=1.0) == Lease(1.0, False)
    scene.look_up()
    scene.now = 9.9
    scene.trade(1)
    assert scene.published == 0


def test_another_session_waits_for_the_lease_before_it(scene: Scene) -> None:
    """A front-end's next process gets a lease only when that of the one before is over: that one
    may still be alive.
    """
    assert scene.register(session="new") == Lease(0.0, False)
    scene.now = LEASE_S
    assert scene.register(session="new") == Lease(LEASE_S, True)


def test_only_holders_are_told(scene: Scene) -> None:
    """An invalidation goes only to front-ends that were shown the stock since they last answered
    for it.
    """
    scene.register(2)
    scene.look_up("A", 1)
    scene.look_up("B", 2)
    scene.trade(1)
    assert scene.told() == {1: {"A": 1}}
    scene.answer(1)
    assert scene.published == 1
    scene.trade(2)
    assert (scene.told(), scene.published) == ({}, 2)


def test_an_unpublished_version_is_hidden_from_everybody(scene: Scene) -> None:
    """Until a trade is published every lookup shows the version before; who is shown that meanwhile
    is told of the trade, too.
    """
    scene.register(2)
    scene.look_up()
    scene.trade(1)
    assert scene.look_up(front=2) == 0
    assert scene.told() == {1: {"A": 1}, 2: {"A": 1}}
    scene.answer(1, front=1)
    assert scene.published == 0
    scene.answer(1, front=2)
    assert scene.published == 1


def test_who_was_told_is_not_told_again(scene: Scene) -> None:
    """A front-end that has answered for the new version stores no older one, so it may be shown the
    version before without being told again.
    """
    scene.register(2)
    scene.look_up(front=1)
    scene.look_up(front=2)
    scene.trade(1)
    scene.answer(1, front=1)
    assert scene.look_up(front=1) == 0
    assert scene.told() == {2: {"A": 1}}


def test_a_late_answer_does_not_count_for_a_newer_version(scene: Scene) -> None:
    """A call that was sent twice is answered twice; the second answer publishes nothing newer."""
    scene.look_up()
    scene.trade(1)
    scene.answer(1)
    scene.look_up()
    scene.answer(1)
    scene.trade(2)
    scene.answer(1)
    assert (scene.told(), scene.published) == ({1: {"A": 2}}, 1)


def test_an_answer_of_another_session_does_not_count(scene: Scene) -> None:
    """An answer of another session, or of an unknown front-end, publishes nothing."""
    scene.look_up()
    scene.trade(1)
    scene.answer(1, session="old")
    scene.answer(1, front=7)
    assert scene.published == 0


def test_the_end_of_a_lease_publishes(scene: Scene) -> None:
    """When the lease is over the trade is published unanswered: the front-end's own lease ended
    before.
    """
    scene.look_up()
    scene.trade(1)
    assert scene.sessions.wake_at() == LEASE_S
    scene.now = LEASE_S
    scene.sessions.expired(scene.now)
    assert (scene.published, scene.sessions.wake_at()) == (1, inf)


def test_an_answer_for_an_older_version_publishes_that_one(scene: Scene) -> None:
    """For a stock that is traded all the time, the first trade does not wait for the answer to the
    last one.
    """
    scene.look_up()
    for version in (1, 2, 3):
        scene.trade(version)
    assert scene.told() == {1: {"A": 3}}
    scene.answer(1)
    assert scene.published == 1
    scene.answer(3)
    assert scene.published == 3


def test_a_lookup_without_a_live_session_is_not_tracked(scene: Scene) -> None:
    """What is looked up without a session is not stored, so nobody is told and no trade waits."""
    scene.look_up(session="other")
    scene.look_up(front=9)
    scene.sessions.looked_up(0, "", "A", 0.0)
    scene.trade(1)
    assert (scene.told(), scene.published) == ({}, 1)


def test_unanswered_invalidations_are_named_and_bound_the_lease(scene: Scene) -> None:
    """A renewal repeats the unanswered invalidations, and the lease ends one lease after the first
    of them began, however often it is renewed.
    """
    scene.look_up()
    scene.now = 4.0
    scene.trade(1)
    scene.now = 6.0
    assert scene.register() == Lease(8.0, False, {"A": 1})
    scene.trade(2)
    scene.now = 13.0
    assert scene.register() == Lease(1.0, False, {"A": 2})
    scene.now = 14.0
    scene.sessions.expired(scene.now)
    assert scene.published == 2


def test_a_sign_of_life_renews_the_patience(scene: Scene) -> None:
    """An answer for an older version counts the time from then: a front-end that answers keeps its
    lease, although its stock is traded all the time.
    """
    scene.look_up()
    scene.trade(1)
    scene.now = 4.0
    scene.trade(2)
    scene.now = 5.0
    scene.answer(1)
    scene.now = 6.0
    assert scene.register() == Lease(9.0, False, {"A": 2})


def test_who_could_not_be_told_gets_a_lease_when_it_has_answered(scene: Scene) -> None:
    """A front-end whose lease ended before it had answered is told again whenever it asks for a
    lease, and gets one only when it has answered. Otherwise one that cannot be reached would delay
    trades with every lease.
    """
    scene.look_up()
    scene.trade(1)
    scene.now = LEASE_S
    assert scene.register(session="new") == Lease(0.0, False)
    assert (scene.published, scene.sessions.lapsed) == (1, {1})
    assert scene.told() == {1: {"A": 1}}
    scene.look_up(session="new")
    scene.trade(2)
    assert scene.published == 2
    scene.now = 2 * LEASE_S
    assert scene.told() == {}
    assert scene.register(session="new") == Lease(0.0, False)
    assert scene.register(2, "other") == Lease(LEASE_S, True)
    scene.answer(1, front=2, session="other")
    assert scene.told() == {1: {"A": 1}}
    scene.answer(1, session="new")
    assert scene.told() == {}
    assert scene.register(session="new") == Lease(LEASE_S, True)


def test_who_owed_nothing_gets_a_lease_at_once(scene: Scene) -> None:
    """A front-end that had answered everything when its lease ran out gets a new one at once; it
    may have been paused, for instance.
    """
    scene.look_up()
    scene.trade(1)
    scene.answer(1)
    scene.now = LEASE_S
    assert scene.register(session="new") == Lease(LEASE_S, True)


def test_a_trade_after_the_end_of_a_lease_is_not_owed(scene: Scene) -> None:
    """A front-end that had answered everything until its lease ran out gets a new one at once, also
    if the next trade comes before anybody has noticed that the lease is over.
    """
    scene.look_up()
    scene.now = LEASE_S
    scene.trade(1)
    assert scene.published == 1
    assert scene.sessions.lapsed == {1}
    assert scene.register(session="new") == Lease(LEASE_S, True)


def test_nothing_is_shown_granted_or_published_before_it_opens() -> None:
    """The catalog opens when the leases of all earlier leaders are over; then everything in the log
    is published.
    """
    sessions = Sessions(LEASE_S)
    assert sessions.opens_at == inf
    sessions.started(5.0)
    assert sessions.opens_at == 15.0
    assert sessions.register(1, "u", "s", 6.0, inf) == Lease(0.0, False)
    sessions.traded([stock("A", 3)], 6.0)
    assert not sessions.is_published({})
    assert (sessions.is_open, sessions.shown("A"), sessions.wake_at()) == (False, None, inf)
    sessions.opened([stock("A", 3)])
    assert sessions.is_open
    assert sessions.is_published({"A": 3})
    assert not sessions.is_published({"A": 4})
    assert not sessions.is_published({"B": 0})


def test_leases_that_a_leader_before_granted_for_longer_are_waited_for() -> None:
    """An earlier leader may have been configured with longer leases. This one waits for the
    longest, and grants its own.
    """
    sessions = Sessions(LEASE_S, any_lease_s=15.0)
    sessions.started(5.0)
    assert sessions.opens_at == 20.0
    sessions.opened([stock("A", 0)])
    assert sessions.register(1, "u", "s", 20.0, inf) == Lease(LEASE_S, True)
    shorter = Sessions(LEASE_S, any_lease_s=1.0)
    shorter.started(5.0)
    assert shorter.opens_at == 15.0


def test_leading_again_starts_from_nothing(scene: Scene) -> None:
    """A leader that was replaced forgets its sessions: it does not know what another leader granted
    meanwhile.
    """
    scene.look_up()
    scene.trade(1)
    scene.now = LEASE_S
    assert scene.register() == Lease(0.0, False)
    scene.sessions.started(scene.now)
    assert scene.sessions.shown("A") is None
    assert scene.told() == {}
    scene.sessions.opened([stock("A", 1)])
    assert scene.register() == Lease(LEASE_S, True)


def test_a_new_stock_is_shown_at_once(scene: Scene) -> None:
    """A stock that nobody has seen is published without waiting."""
    assert scene.sessions.shown("C") is None
    scene.trade(0, "C")
    assert scene.sessions.shown("C") == stock("C", 0)


def test_a_snapshot_holds_everything(scene: Scene) -> None:
    """Sessions that are restored from a test's snapshot are the same, and tell the same."""
    scene.register(2)
    scene.look_up("A", 1)
    scene.look_up("B", 2)
    scene.register(3, cap=1.0)
    scene.look_up("A", 3)
    for version in (1, 2):
        scene.trade(version)
    scene.answer(1)
    scene.now = 1.0
    scene.register(3)
    snapshot = sessions_snapshot(scene.sessions)
    again = restored(Sessions(LEASE_S), snapshot)
    assert sessions_snapshot(again) == snapshot
    assert len({snapshot, sessions_snapshot(again)}) == 1
    assert again.calls(1.0) == scene.sessions.calls(1.0)
    assert scene.told() == {1: {"A": 2}, 3: {"A": 2}}
