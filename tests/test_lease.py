"""The session of a front-end's cache: which lease it holds, and when it must not rely on one."""

from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.fakes import HANG, FakeMember, status
from tests.test_cache import stock
from tests.test_tiers import LIMITS, Group
from twstock.errors import NotLeader, OutcomeUnknown
from twstock.rpc.calls import Lease, Register
from twstock.web.cache import Cache
from twstock.web.tiers import CatalogTier
from twstock.web.upstream.lease import APART_S, Clocks, LeaseSession


class Session:
    """A front-end's session at fake catalogs; the boot clock runs with the reactor's."""

    def __init__(self, catalogs: int = 1, size: int = 10, lease: Any = None) -> None:
        self.group = Group(catalogs, CatalogTier, "catalog")
        self.clock: Clock = self.group.clock
        self.asleep = self.set_forward = 0.0
        self.cache = Cache(size)
        self.grants(lease or Lease(0.25, True))
        self.lease = LeaseSession(
            self.cache,
            self.group.tier,
            self.group.watch,
            Clocks(self.clock, self.boottime, self.wall),
            Register(1, "http://127.0.0.1:1", "session"),
            LIMITS,
        )
        self.lease.start()
        self.grants(Lease(0.25, False))

    def boottime(self) -> float:
        """CLOCK_BOOTTIME: unlike the reactor's clock it goes on while the machine sleeps."""
        return 1000.0 + self.clock.seconds() + self.asleep

    def wall(self) -> float:
        """The wall clock, which somebody may set."""
        return 1.7e9 + self.boottime() + self.set_forward

    def grants(self, reply: Any) -> None:
        """From now on every catalog says this to Register."""
        for member in self.group.members.values():
            member.replies["Register"] = reply

    def registered(self, member: int = 1) -> int:
        """How often a catalog was asked."""
        return len(self.group.members[member].of("Register"))

    @property
    def catalog(self) -> FakeMember:
        """The first catalog."""
        return self.group.members[1]

    def holds(self) -> bool:
        """Whether the cache may answer now."""
        return self.cache.holds_lease(self.boottime())

    def remember(self, version: int = 1) -> bool:
        """A lookup brings a stock."""
        return self.cache.fill(self.cache.ticket(self.boottime()), stock(version))


@pytest.mark.parametrize("seconds", [-3600.0, -2 * APART_S, 2 * APART_S, 3600.0])
def test_a_wall_clock_that_jumps_empties_the_cache(seconds: float) -> None:
    """The machine may have been frozen together with its other clock, so that the lease seems to
    hold. Afterwards the cache goes on with a lease of its own.
    """
    session = Session()
    assert session.remember()
    session.clock.advance(LIMITS.lease_renew_s)
    assert len(session.cache) == 1
    session.set_forward = seconds
    session.clock.advance(LIMITS.lease_renew_s)
    assert len(session.cache) == 0
    assert session.holds()
    assert session.remember()
    session.clock.advance(LIMITS.lease_renew_s)
    assert len(session.cache) == 1


def test_a_wall_clock_that_jumps_ends_the_lease_at_once() -> None:
    """Nothing is shown until the catalog has answered, however long that takes."""
    session = Session()
    session.grants(HANG)
    session.set_forward = 3600.0
    session.clock.advance(LIMITS.lease_renew_s)
    assert not session.holds()


def test_a_wall_clock_that_is_corrected_slowly_empties_nothing() -> None:
    """As fast as chrony does it (83,333 ppm), however far it comes in the end."""
    session = Session()
    assert session.remember()
    for _ in range(100):
        session.set_forward += LIMITS.lease_renew_s / 12
        session.clock.advance(LIMITS.lease_renew_s)
    assert session.set_forward > 10 * APART_S
    assert len(session.cache) == 1


def test_a_renewal_from_before_a_jump_grants_nothing() -> None:
    """It counts from a clock that may have stood still, and the session may be over long since."""
    session = Session()
    session.grants(HANG)
    session.clock.advance(LIMITS.lease_renew_s)
    under_way = session.registered()
    session.set_forward = 3600.0
    session.grants(Lease(0.25, False))
    session.clock.advance(LIMITS.lease_renew_s)
    assert session.registered() == under_way + 1
    assert session.holds()
    assert len(session.cache) == 0


def test_the_lease_is_taken_at_once_and_renewed_in_time() -> None:
    """It never lapses, and what is cached stays."""
    session = Session()
    assert session.holds()
    assert session.remember()
    for _ in range(100):
        session.clock.advance(0.01)
        assert session.holds()
    assert len(session.cache) == 1
    assert 11 <= session.registered() <= 14


def test_without_a_cache_there_is_no_session() -> None:
    """No trade has to wait for a front-end that keeps nothing."""
    session = Session(size=0)
    session.clock.advance(1.0)
    assert session.registered() == 0


def test_never_more_than_one_renewal_is_under_way() -> None:
    """A catalog that does not answer is asked again only when the last call has ended."""
    session = Session()
    session.grants(HANG)
    session.group.advance(0.2)
    assert session.registered() == 2
    session.group.advance(0.2)
    assert session.registered() == 3


def test_the_lease_ends_in_time_when_renewals_hang() -> None:
    """The last grant counts from before it was asked for, less a tenth."""
    session = Session()
    session.grants(HANG)
    session.group.advance(0.22)
    assert session.holds()
    session.group.advance(0.01)
    assert not session.holds()


def test_a_late_answer_grants_what_is_left_of_it() -> None:
    """A grant counts from when it was asked for: the time on the way is lost."""
    session = Session()
    session.grants(HANG)
    session.group.advance(0.08)
    sent_at = session.boottime()
    session.group.advance(0.1)
    session.catalog.settle(session.catalog.of("Register")[-1], Lease(0.25, False))
    assert session.cache.holds_lease(sent_at + 0.224)
    assert not session.cache.holds_lease(sent_at + 0.226)


def test_a_sleeping_machine_wakes_up_without_lease() -> None:
    """The boot clock went on. Nothing is served, and the next lease starts with an empty cache."""
    session = Session()
    session.remember()
    session.asleep = 5.0
    assert not session.holds()
    session.group.advance(0.09)
    assert session.holds()
    assert len(session.cache) == 0


def test_a_session_that_is_new_to_the_catalog_starts_empty() -> None:
    """The catalog may have acknowledged trades without telling this cache."""
    for seconds in (0.25, 0.0):
        session = Session()
        session.remember()
        session.grants(Lease(seconds, True))
        session.group.advance(0.09)
        assert session.holds() == (seconds > 0)
        assert len(session.cache) == 0


def test_after_a_lost_answer_the_cache_starts_empty() -> None:
    """The lost answer may have been the one that called the session new."""
    session = Session()
    session.remember()
    answers = [OutcomeUnknown("lost")]
    session.grants(lambda _: answers.pop() if answers else Lease(0.25, False))
    session.group.advance(0.17)
    assert not answers
    assert session.holds()
    assert len(session.cache) == 0
    session.remember()
    session.group.advance(0.2)
    assert len(session.cache) == 1


def test_what_was_missed_is_invalidated() -> None:
    """The answer to a renewal, whether it grants a lease or not, names the versions that wait for
    this session.
    """
    for seconds in (0.2, 0.0):
        session = Session()
        session.remember(1)
        session.grants(Lease(seconds, False, {"GOOGL": 3}))
        session.group.advance(0.09)
        assert len(session.cache) == 0
        assert session.cache.minimum("GOOGL") == 3


def test_a_refused_renewal_lets_the_lease_run_out() -> None:
    """It grants nothing, and takes away nothing that was granted before."""
    session = Session()
    session.grants(Lease(0.0, False))
    session.group.advance(0.22)
    assert session.holds()
    session.group.advance(0.01)
    assert not session.holds()


@pytest.mark.logs_failures
@pytest.mark.parametrize("refusal", [NotLeader(0), OutcomeUnknown("lost"), Lease(0.0, False)])
def test_a_new_leader_empties_the_cache(refusal: Any) -> None:
    """The new leader knows nothing of this session, whatever its first answer is."""
    session = Session(3)
    session.remember()
    session.grants(refusal)
    session.group.leads(2, 2)
    session.group.advance(0.11)
    assert not session.holds()
    assert len(session.cache) == 0
    session.grants(Lease(0.25, True))
    session.group.advance(0.2)
    assert session.holds()


def test_a_new_leader_is_asked_at_once() -> None:
    """The lease of the old one is given up."""
    session = Session(3)
    session.group.leads(2, 2)
    session.group.advance(0.105)
    assert session.registered(2) >= 1
    assert session.holds()


def test_a_zombie_extends_nothing() -> None:
    """A renewal that a paused leader answers when another one leads is ignored."""
    session = Session(3)
    session.remember()
    zombie = session.group.members[3]
    zombie.replies |= {"Register": HANG, "Heartbeat": HANG}
    for number in (1, 2):
        session.group.members[number].replies["Register"] = Lease(0.0, False)
        session.group.members[number].status = status(number, "follower", 1, leader_id=3)
    session.group.advance(0.09)
    late = zombie.of("Register")[-1]
    session.group.members[2].status = status(2, "leader", 2)
    session.group.advance(0.11)
    zombie.settle(late, Lease(0.25, False))
    assert not session.holds()
    assert len(session.cache) == 0


def test_a_leader_that_is_only_out_of_sight_costs_nothing() -> None:
    """When the same leader of the same term can be reached again, the session goes on."""
    session = Session()
    session.remember()
    session.group.leads(1, 1, 1)
    session.group.advance(0.11)
    assert session.group.watch.leader is None
    session.group.leads(1, 1)
    session.group.advance(0.1)
    assert session.holds()
    assert len(session.cache) == 1


def test_a_leader_out_of_sight_extends_nothing() -> None:
    """Nobody can tell whether it still leads, so its answer is ignored."""
    session = Session()
    session.grants(HANG)
    session.group.advance(0.09)
    session.group.leads(1, 1, 1)
    session.group.advance(0.11)
    assert session.group.watch.leader is None
    session.catalog.settle(session.catalog.of("Register")[-1], Lease(0.25, False))
    assert session.holds()
    session.group.advance(0.03)
    assert not session.holds()


def test_after_an_answer_from_out_of_sight_the_cache_starts_empty() -> None:
    """That answer may have been the one that called the session new."""
    session = Session(lease=Lease(2.0, True))
    session.remember()
    session.grants(HANG)
    session.group.advance(0.09)
    session.group.leads(1, 1, 1)
    session.group.advance(0.11)
    assert session.group.watch.leader is None
    session.catalog.settle(session.catalog.of("Register")[-1], Lease(2.0, True))
    session.group.leads(1, 1)
    session.grants(Lease(2.0, False))
    assert len(session.cache) == 1
    session.group.advance(0.2)
    assert session.holds()
    assert len(session.cache) == 0


def test_stopping_gives_the_lease_up() -> None:
    """Afterwards nothing is served, and no timer is left in the reactor."""
    session = Session()
    session.remember()
    session.grants(HANG)
    session.group.advance(0.09)
    session.lease.stop()
    session.group.watch.stop()
    assert not session.holds()
    assert session.clock.getDelayedCalls() == []
