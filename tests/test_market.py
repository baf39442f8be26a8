"""The catalog as the order leader reaches it: what is sent, and which catalog is asked next."""

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.fakes import HANG, FakeMember, status
from twstock.config import Limits
from twstock.errors import NotLeader, OutcomeUnknown, Unavailable
from twstock.market import Batch, BatchResult, Order, Outcome, Side, Trade, Verdict
from twstock.order.catalogmarket import CatalogMarket
from twstock.order.catalogwatch import TRIES, CatalogWatch
from twstock.replication.messages import Reach
from twstock.replication.reach import Contact
from twstock.rpc.calls import AtOnce, Placement, Probe, ProbeAnswer, Published, Verdicts

ORDER = Order("k", "A", Side.BUY, 1)
BATCH = Batch(1, 1, 0, 0, 5, (ORDER,))
LIMITS = Limits()
NUMBER = 2
VERDICTS = Verdicts((Verdict(1, 1, 100, 5),), unpublished={"A": 1})


class Scene:
    """An order leader's market, and three catalogs."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.catalogs = {number: FakeMember(self.clock) for number in (1, 2, 3)}
        clients: Any = self.catalogs
        self.contact = Contact("it is gone", LIMITS.out_of_reach_s)
        self.market = CatalogMarket(clients, self.contact, self.clock, LIMITS.trade_deadline_s)
        self.watch = CatalogWatch(  # type: ignore[arg-type]
            NUMBER, clients, self.contact, self.clock, LIMITS
        )

    def replies(self, number: int, **replies: Any) -> None:
        """Set what a catalog answers."""
        self.catalogs[number].replies = replies

    def asked(self, method: str) -> list[int]:
        """The catalogs that were asked, once for each call, from the lowest id."""
        return [n for n, member in self.catalogs.items() for _ in member.of(method)]

    def outcome(self, coroutine: Any) -> list[Any]:
        """A list that gets the result of a call, or its Failure."""
        results: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(results.append)
        return results


def failed(results: list[Any]) -> type[BaseException]:
    """The class of the error with which a call ended."""
    (failure,) = results
    assert isinstance(failure, Failure)
    return type(failure.value)


def test_a_batch_is_to_be_answered_at_once() -> None:
    """A batch asks for its outcomes before they are published; the answer names the versions that
    are still unpublished.
    """
    scene = Scene()
    scene.replies(3, Trade=VERDICTS, AwaitPublished=Published())
    outcome = Outcome(Trade(1, ORDER, 1, 100, 5))
    assert scene.outcome(scene.market.execute(BATCH)) == [BatchResult((outcome,), (), {"A": 1})]
    assert scene.outcome(scene.market.await_published({"A": 1})) == [None]
    trade, await_published = scene.catalogs[3].calls
    assert trade.request == AtOnce(BATCH)
    assert await_published.request.versions == {"A": 1}


def test_an_answer_of_another_kind_leaves_the_outcome_open() -> None:
    """The batch may have been executed. If it counted as refused, its orders could be executed
    twice.
    """
    scene = Scene()
    scene.replies(3, Trade=Placement(1))
    assert failed(scene.outcome(scene.market.execute(BATCH))) is OutcomeUnknown


@pytest.mark.parametrize(
    ("error", "then"),
    [(NotLeader(1), 1), (NotLeader(0), 2), (OutcomeUnknown("lost"), 2), (Unavailable("busy"), 2)],
)
def test_another_catalog_is_asked_after_a_failure(error: Exception, then: int) -> None:
    """The next call goes to the catalog that is said to lead, or else to the next in turn."""
    scene = Scene()
    scene.replies(3, Trade=error)
    assert failed(scene.outcome(scene.market.execute(BATCH))) is type(error)
    scene.replies(then, Trade=VERDICTS)
    assert len(scene.outcome(scene.market.execute(BATCH))) == 1
    assert scene.asked("Trade") == sorted((3, then))


def test_a_late_failure_does_not_leave_the_leader_that_was_found_meanwhile() -> None:
    """Of two calls that are under way, one has learnt who leads. When the other one fails later,
    that leader is still asked.
    """
    scene = Scene()
    scene.replies(3, Trade=NotLeader(1), AwaitPublished=HANG)
    late = scene.outcome(scene.market.await_published({"A": 1}))
    scene.outcome(scene.market.execute(BATCH))
    scene.clock.advance(LIMITS.trade_deadline_s)
    assert failed(late) is OutcomeUnknown
    scene.replies(1, Trade=VERDICTS)
    scene.outcome(scene.market.execute(BATCH))
    assert scene.asked("Trade") == [1, 3]


def advance(scene: Scene, seconds: float) -> None:
    """Let time pass in small steps."""
    for _ in range(round(seconds / 0.05)):
        scene.clock.advance(0.05)


def test_a_call_that_is_answered_is_a_contact() -> None:
    """A call that fails is no contact with the catalog."""
    scene = Scene()
    scene.replies(3, Trade=NotLeader(1))
    scene.outcome(scene.market.execute(BATCH))
    assert scene.contact.reach(scene.clock.seconds()) is None
    scene.replies(1, Trade=VERDICTS)
    scene.outcome(scene.market.execute(BATCH))
    assert scene.contact.reach(scene.clock.seconds()) is Reach.UNSURE


def test_the_leader_of_the_catalog_is_a_contact_and_nobody_else() -> None:
    """Answers of followers are no contact; those of the leader are, whichever member it is. After
    the stop nobody is asked.
    """
    scene = Scene()
    for number in (2, 3):
        scene.catalogs[number].status = status(number, leader_id=1)
    scene.watch.startService()
    advance(scene, 2 * LIMITS.out_of_reach_s)
    assert scene.contact.reach(scene.clock.seconds()) is None
    scene.catalogs[1].status = status(1, "leader")
    advance(scene, 0.7 * LIMITS.out_of_reach_s)
    assert scene.contact.reach(scene.clock.seconds()) is Reach.UNSURE
    advance(scene, 1.5 * LIMITS.out_of_reach_s)
    assert scene.contact.reach(scene.clock.seconds()) is Reach.GOOD
    scene.watch.stopService()
    asked = len(scene.asked("Heartbeat"))
    advance(scene, LIMITS.out_of_reach_s)
    assert len(scene.asked("Heartbeat")) == asked


def test_every_catalog_is_told_who_reaches_it() -> None:
    """Each catalog that answers is asked often enough to count this order replica as a contact,
    although another one is silent.
    """
    scene = Scene()
    scene.replies(3, Heartbeat=HANG)
    scene.watch.startService()
    advance(scene, 2 * LIMITS.out_of_reach_s)
    for number in (1, 2):
        asked = scene.catalogs[number].of("Heartbeat")
        assert len(asked) >= 2 * TRIES
        assert {called.request for called in asked} == {Probe(order_id=NUMBER)}


def test_an_answer_that_takes_a_while_is_asked_for_as_often() -> None:
    """If the next question waited longer because an answer was slow, the contact would not count as
    good.
    """
    scene = Scene()
    leader = scene.catalogs[3]

    def answer(_: object) -> object:
        told = ProbeAnswer(status(3, "leader"))
        scene.clock.callLater(0.05, leader.settle, leader.calls[-1], told)
        return HANG

    scene.replies(3, Heartbeat=answer)
    scene.watch.startService()
    advance(scene, LIMITS.out_of_reach_s)
    for _ in range(40):
        advance(scene, 0.05)
        assert scene.contact.silent_s(scene.clock.seconds()) < 0.4 * LIMITS.out_of_reach_s


@pytest.mark.parametrize("silence", [HANG, OutcomeUnknown("connection refused")])
def test_a_catalog_that_leads_no_more_or_is_cut_off_is_lost(silence: object) -> None:
    """The contact is lost when the catalog's leader is silent, or cannot be reached, and good again
    when there is another leader.
    """
    scene = Scene()
    scene.catalogs[3].status = status(3, "leader")
    scene.watch.startService()
    advance(scene, 2 * LIMITS.out_of_reach_s)
    assert scene.contact.reach(scene.clock.seconds()) is Reach.GOOD
    scene.replies(3, Heartbeat=silence)
    advance(scene, 2 * LIMITS.out_of_reach_s)
    assert scene.contact.reach(scene.clock.seconds()) is Reach.LOST
    scene.catalogs[2].status = status(2, "leader", term=2)
    advance(scene, 3 * LIMITS.out_of_reach_s)
    assert scene.contact.reach(scene.clock.seconds()) is Reach.GOOD
