"""The cache's session: what it grants, and what it must never grant."""

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
    """The machine may have been frozen, and its other clock with it: until then the lease seems
    to hold. Afterwards the cache goes on with a lease of its own.
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
    """It counts from a clock that may have stood still: the session may be long over."""
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
    """A session that is renewed every 80 ms never lapses and keeps what is cached."""
    session = Session()
    assert session.holds()
    assert session.remember()
    for _ in range(100):
        session.clock.advance(0.01)
        assert session.holds()
    assert len(session.cache) == 1
    assert 11 <= session.registered() <= 14


def test_without_a_cache_there_is_no_session() -> None:
    """Nobody has to wait for a front-end that remembers nothing."""
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
    """What was granted last counts from before it was asked for, less 10 %."""
    session = Session()
    session.grants(HANG)
    session.group.advance(0.22)
    assert session.holds()
    session.group.advance(0.01)
    assert not session.holds()


def test_a_late_answer_grants_what_is_left_of_it() -> None:
    """The time on the way is the front-end's loss."""
    session = Session()
    session.grants(HANG)
    session.group.advance(0.08)
    sent_at = session.boottime()
    session.group.advance(0.1)
    session.catalog.settle(session.catalog.of("Register")[-1], Lease(0.25, False))
    assert session.cache.holds_lease(sent_at + 0.224)
    assert not session.cache.holds_lease(sent_at + 0.226)


def test_a_sleeping_machine_wakes_up_without_lease() -> None:
    """The boot clock went on: nothing is served, and the next lease starts empty."""
    session = Session()
    session.remember()
    session.asleep = 5.0
    assert not session.holds()
    session.group.advance(0.09)
    assert session.holds()
    assert len(session.cache) == 0


def test_a_session_that_is_new_to_the_catalog_starts_empty() -> None:
    """The catalog may have acknowledged trades without telling this cache."""
    session = Session()
    session.remember()
    session.grants(Lease(0.25, True))
    session.group.advance(0.09)
    assert session.holds()
    assert len(session.cache) == 0


def test_after_a_lost_answer_the_cache_starts_empty() -> None:
    """The answer that was lost may have been the one that said "fresh"."""
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
    """A renewal, granted or refused, tells of the versions that wait for this session."""
    for seconds in (0.2, 0.0):
        session = Session()
        session.remember(1)
        session.grants(Lease(seconds, False, {"GOOGL": 3}))
        session.group.advance(0.09)
        assert len(session.cache) == 0
        assert session.cache.minimum("GOOGL") == 3


def test_a_refused_renewal_lets_the_lease_run_out() -> None:
    """It grants nothing, and takes nothing away that was granted before."""
    session = Session()
    session.grants(Lease(0.0, False))
    session.group.advance(0.22)
    assert session.holds()
    session.group.advance(0.01)
    assert not session.holds()


@pytest.mark.logs_failures
@pytest.mark.parametrize("refusal", [NotLeader(0), OutcomeUnknown("lost"), Lease(0.0, False)])
def test_a_new_leader_empties_the_cache(refusal: Any) -> None:
    """The new leader knows nothing of this session, whatever it says first."""
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
    """The lease of the old one was given up."""
    session = Session(3)
    session.group.leads(2, 2)
    session.group.advance(0.105)
    assert session.registered(2) >= 1
    assert session.holds()


def test_a_zombie_extends_nothing() -> None:
    """A renewal that a paused leader answers after another leads is thrown away."""
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
    """A broken connection to the same leader of the same term is no new session."""
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
    """Nobody can tell whether it still leads: its word is thrown away."""
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


def test_stopping_gives_the_lease_up() -> None:
    """After ``stop`` nothing is served and nothing is left in the reactor."""
    session = Session()
    session.remember()
    session.grants(HANG)
    session.group.advance(0.09)
    session.lease.stop()
    session.group.watch.stop()
    assert not session.holds()
    assert session.clock.getDelayedCalls() == []
