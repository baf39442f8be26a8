"""Finding leaders, placing orders and asking questions, while members come and go."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from tests.fakes import HANG, FakeMember, status
from twstock import origin
from twstock.config import Limits
from twstock.errors import (
    DiskFull,
    InvalidRequest,
    KeyReused,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    StaleEpoch,
    Unavailable,
)
from twstock.market import ChangeKind, ChangeRequest, Order, Side, Stock, Trade
from twstock.rpc.calls import (
    LOOKUPS_MAX,
    AwaitPublished,
    Changed,
    Changes,
    Lease,
    LookedUp,
    Notified,
    Orders,
    Page,
    Placement,
    Placements,
    PlaceOrder,
    Probe,
    Published,
    Register,
    StockPage,
    Stocks,
    SyncedUp,
    SyncUp,
)
from twstock.web.tiers import CatalogTier, OrderTier
from twstock.web.upstream.leader import EVERYBODY_EACH, Leader, LeaderWatch
from twstock.web.upstream.pace import CALLS_MAX, LINGER_MAX_S, LINGER_SHARE, PATIENCE_S

LIMITS = Limits(batch_orders_max=4, requests_waiting_max=20, calls_under_way_max=8)
FRONT_ID = 7
Placed = list[Placement | Exception]


def order(number: int = 1) -> PlaceOrder:
    """An order with a key of its own."""
    return PlaceOrder(f"key-{number}", "GOOGL", "buy", number)


def executed(request: Any) -> Placements:
    """A leader that executes everything: the number is the quantity."""
    return Placements(tuple(Placement(o.quantity, version=o.quantity) for o in request.orders))


class Group:
    """An order tier of three fake members; the one of id 3 leads term 1."""

    def __init__(self, members: int = 3, kind: Any = OrderTier, group: str = "order") -> None:
        self.clock = Clock()
        self.members = {n: FakeMember(self.clock) for n in range(1, members + 1)}
        self.leads(members, 1)
        self.watch = LeaderWatch(group, self.members, self.clock, LIMITS, Random(1), FRONT_ID)
        self.tier = kind(self.watch, self.members, self.clock, LIMITS, Random(2))
        self.watch.start()

    def leads(self, leader: int, term: int, *gone: int) -> None:
        """From now on the members say that ``leader`` leads this term; those that are ``gone``
        refuse connections.
        """
        for number, member in self.members.items():
            role = "leader" if number == leader else "follower"
            alive = number not in gone
            said = status(number, role, term, leader_id=leader)
            member.status = said if alive else None

    def advance(self, seconds: float, step: float = 0.005) -> None:
        """Let time pass in small steps."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)

    def place(self, number: int = 1) -> "list[Any]":
        """Place an order; the list gets its result."""
        placing = outcome(self.tier.place(order(number)))
        self.clock.advance(0)
        return placing

    def executes_in(self, seconds: float) -> None:
        """From now on member 3 answers orders after so many seconds."""
        leader = self.members[3]

        def execute(request: Any) -> Any:
            self.clock.callLater(seconds, leader.settle, leader.calls[-1], executed(request))
            return HANG

        leader.replies["PlaceOrders"] = execute

    def placed(self, member: int) -> list[list[str]]:
        """The keys of each PlaceOrders call that a member got."""
        calls = self.members[member].of("PlaceOrders")
        return [[o.key for o in called.request.orders] for called in calls]


def outcome(deferred: "Deferred[Any]") -> "list[Any]":
    """A list that gets a Deferred's result, or its error."""
    results: list[Any] = []
    deferred.addCallbacks(results.append, lambda failure: results.append(failure.value))
    return results


def error_of(results: "list[Any]") -> type[Any]:
    """The class of the one result."""
    assert len(results) == 1, results
    return type(results[0])


# --- the leader ------------------------------------------------------------------------------


def test_the_leader_of_the_highest_term_is_known() -> None:
    """Of two members that say they lead, the one in the higher term counts."""
    group = Group()
    assert group.watch.leader == Leader(1, 3)
    group.members[1].status = status(1, "leader", 2)
    group.advance(EVERYBODY_EACH * LIMITS.probe_every_s + 0.01)
    assert group.watch.leader == Leader(2, 1)


def test_followers_are_asked_less_often_than_their_leader() -> None:
    """Followers say what the leader says, and only the leader is missed at once when it is gone."""
    group = Group()
    group.advance(3)
    asked = {number: len(member.of("Heartbeat")) for number, member in group.members.items()}
    assert asked[1] == asked[2]
    assert asked[3] - 3 <= EVERYBODY_EACH * asked[1] <= asked[3] + 3


def test_everybody_is_asked_as_long_as_the_leader_is_silent() -> None:
    """A silent leader still counts as the leader, but all others are asked with each probe: one of
    them may soon lead.
    """
    group = Group()
    group.advance(0.11)
    group.members[3].replies["Heartbeat"] = HANG
    group.advance(0.1)
    before = len(group.members[1].of("Heartbeat"))
    group.advance(0.5)
    assert group.watch.leader == Leader(1, 3)
    assert len(group.members[1].of("Heartbeat")) == before + 5


def test_everybody_is_asked_at_once_when_the_leader_is_lost() -> None:
    """When the leader is suspected the others are asked at once, and their new leader is known."""
    group = Group()
    group.advance(0.11)
    group.leads(2, 2, 3)
    before = len(group.members[1].of("Heartbeat"))
    group.watch.suspect(3)
    group.clock.advance(0)
    assert len(group.members[1].of("Heartbeat")) == before + 1
    assert group.watch.leader == Leader(2, 2)


def test_members_are_told_which_front_end_asks() -> None:
    """Each probe has the front-end's id: a leader that no front-end reaches gives way."""
    group = Group()
    group.advance(1)
    asked = {called.request for member in group.members.values() for called in member.calls}
    assert asked == {Probe(front_id=FRONT_ID)}


def test_any_members_word_about_the_leader_will_do() -> None:
    """A follower that has heard of the new term names the leader before that one itself was
    asked.
    """
    group = Group()
    group.members[2].replies["Heartbeat"] = HANG
    group.members[3].status = None
    group.members[1].status = status(1, "follower", 2, leader_id=2)
    group.advance(0.11)
    assert group.watch.leader == Leader(2, 2)


def test_never_two_probes_to_one_member_are_under_way() -> None:
    """A member that does not answer is asked again only when the probe before has timed out."""
    group = Group()
    group.members[2].replies["Heartbeat"] = HANG
    before = len(group.members[2].of("Heartbeat"))
    group.advance(0.24)
    assert len(group.members[2].of("Heartbeat")) <= before + 1
    group.advance(0.3)
    assert len(group.members[2].of("Heartbeat")) <= before + 3


def test_a_refused_connection_is_reported_to_the_highest_living_member_at_once() -> None:
    """The front-end nominates the highest member that it still reaches, and repeats that only now
    and then.
    """
    group = Group()
    group.leads(3, 1, 3)
    group.advance(0.11)
    assert group.watch.leader is None
    told = group.members[2].of("NotifyReplica")
    assert [called.request.leader_id for called in told] == [2]
    assert not group.members[1].of("NotifyReplica")
    group.advance(0.5)
    assert len(group.members[2].of("NotifyReplica")) <= 4


def test_who_was_nominated_too_early_is_nominated_soon_again() -> None:
    """The second nomination comes soon, since a process that is killed may close its connections
    before its listener, so that the nominee can still connect to it. Further ones come more slowly.
    """
    group = Group()
    group.leads(3, 1, 3)
    told: list[float] = []
    group.members[2].replies["NotifyReplica"] = lambda _: told.append(group.clock.seconds())
    group.watch.suspect(3)
    group.advance(1.0)
    assert told[1] - told[0] < 4 * LIMITS.retry_s
    assert len(told) <= 8
    group.leads(2, 2, 3)
    group.advance(0.11)
    group.leads(2, 2, 2, 3)
    del told[:]
    group.members[1].replies["NotifyReplica"] = lambda _: told.append(group.clock.seconds())
    group.watch.suspect(2)
    group.advance(0.2)
    assert told[1] - told[0] < 4 * LIMITS.retry_s


def test_nominations_go_on_as_long_as_nobody_leads() -> None:
    """The pauses between them do not grow without bound: after ten minutes nominations still
    come.
    """
    group = Group()
    group.leads(3, 1, 3)
    group.advance(600, step=0.2)
    before = len(group.members[2].of("NotifyReplica"))
    group.advance(2)
    assert len(group.members[2].of("NotifyReplica")) > before


def test_a_late_answer_is_no_reason_to_nominate() -> None:
    """A leader counts as lost only when it has missed several probes in a row."""
    group = Group()
    group.members[3].replies["Heartbeat"] = HANG
    group.advance(0.5)
    assert group.watch.leader == Leader(1, 3)
    assert not group.members[2].of("NotifyReplica")
    assert group.watch.statuses()[3] is None
    group.advance(0.6)
    assert group.watch.leader is None
    assert group.members[2].of("NotifyReplica")


def test_a_new_leader_is_found_at_the_pace_of_retries() -> None:
    """While there is no leader, probes come more often than usual."""
    group = Group()
    group.leads(3, 1, 3)
    group.advance(0.11)
    changed: list[float] = []
    group.watch.subscribe(lambda: changed.append(group.clock.seconds()))
    at = group.clock.seconds()
    group.leads(2, 2, 3)
    group.advance(0.1)
    assert group.watch.leader == Leader(2, 2)
    assert changed[0] - at <= 2 * LIMITS.retry_s


def test_waiting_for_a_change_ends_with_it_or_with_the_time() -> None:
    """The wait ends when the leader changes, or when its time is up."""
    group = Group()
    by_time = outcome(group.watch.change_within(0.05))
    group.advance(0.06)
    assert by_time == [None]
    by_change = outcome(group.watch.change_within(5.0))
    group.leads(2, 2, 3)
    group.advance(0.11)
    assert by_change == [None]


def test_stopping_leaves_no_timers() -> None:
    """After the stop no timer is left, though a probe was under way; an order under way ends as
    unknown, and a later one is refused.
    """
    group = Group()
    group.members[2].replies["Heartbeat"] = HANG
    group.members[3].replies["PlaceOrders"] = HANG
    result = group.place()
    group.advance(EVERYBODY_EACH * LIMITS.probe_every_s + 0.01)
    assert not group.members[2].calls[-1].answer.called
    group.tier.queue.stop()
    group.watch.stop()
    assert error_of(result) is OutcomeUnknown
    assert group.clock.getDelayedCalls() == []
    assert error_of(group.place(2)) is Unavailable


# --- placing orders --------------------------------------------------------------------------


def test_an_order_goes_to_the_leader_at_once() -> None:
    """A single order is one call, and its answer is that of the call."""
    group = Group()
    group.members[3].replies["PlaceOrders"] = executed
    assert group.place(7) == [Placement(7, version=7)]
    assert group.placed(3) == [["key-7"]]
    assert len(group.tier.queue) == 0


def test_what_arrives_in_one_turn_goes_in_one_call() -> None:
    """Orders that arrive in the same turn of the reactor go together."""
    group = Group()
    group.members[3].replies["PlaceOrders"] = executed
    results = [outcome(group.tier.place(order(n))) for n in range(1, 4)]
    group.clock.advance(0)
    assert group.placed(3) == [["key-1", "key-2", "key-3"]]
    assert [r[0].number for r in results] == [1, 2, 3]


def test_orders_gather_while_a_call_is_under_way() -> None:
    """Orders that arrive meanwhile go together in the next calls, each up to the limit of a
    batch.
    """
    group = Group()
    leader = group.members[3]
    leader.replies["PlaceOrders"] = HANG
    results = [group.place(n) for n in range(1, 9)]
    assert group.placed(3) == [["key-1"]]
    leader.replies["PlaceOrders"] = executed
    [called] = leader.of("PlaceOrders")
    leader.settle(called, executed(called.request))
    assert group.placed(3)[1:] == [
        ["key-2", "key-3", "key-4", "key-5"],
        ["key-6", "key-7", "key-8"],
    ]
    assert [r[0].number for r in results] == list(range(1, 9))


@pytest.mark.logs_failures
def test_a_client_that_cannot_be_told_keeps_nobody_from_an_answer() -> None:
    """If telling a client raises, it is logged with the request's id, and the others of its call
    are told.
    """
    group = Group()
    group.members[3].replies["PlaceOrders"] = executed
    told: list[Any] = []

    def cannot_be_told(_: object) -> None:
        raise ValueError("oops")

    with capturedLogs() as logged:
        with origin.on_behalf_of(("mine",)):
            group.tier.put(order(1), cannot_be_told)
        group.tier.put(order(2), told.append)
        group.clock.advance(0)
    assert told == [Placement(2, version=2)]
    assert len(group.tier.queue) == 0
    [event] = [event for event in logged if "log_failure" in event]
    assert event["request_id"] == "mine"


def test_clients_in_a_closed_loop_share_one_call() -> None:
    """Each client sends its next order some time after its answer. From the second call on all
    their orders go together, and a call waits no longer than the slowest client needs.
    """
    group = Group()
    group.executes_in(0.02)
    clients, rounds = LIMITS.batch_orders_max, 5
    answered = [0] * clients

    def send(client: int) -> None:
        sending = group.tier.place(order(client)._replace(key=f"{client}-{answered[client]}"))
        sending.addCallback(heard, client)

    def heard(_: Placement, client: int) -> None:
        answered[client] += 1
        way_s = 0.0005 * client
        group.clock.callLater(way_s, send, client)

    for client in range(clients):
        group.clock.callLater(0.001 * client, send, client)
    group.advance(rounds * 0.022 + 0.001, 0.0005)
    assert [len(keys) for keys in group.placed(3)[:rounds]] == [1] + [clients] * (rounds - 1)
    assert min(answered) == rounds - 1


@pytest.mark.parametrize("took_s", [0.02, PATIENCE_S * 0.95])
@pytest.mark.parametrize("early", [True, False])
def test_an_order_waits_for_company_no_longer_than_the_linger(took_s: float, early: bool) -> None:
    """None of those who were answered sends another order. One that came while their call was under
    way, or after it, goes when the linger is over.
    """
    linger_s = min(took_s * LINGER_SHARE, LINGER_MAX_S)
    group = Group()
    group.executes_in(took_s)
    together = [outcome(group.tier.place(order(n))) for n in (1, 2, 3)]
    group.clock.advance(0)
    group.clock.advance(took_s / 2)
    late = group.place(4) if early else []
    group.clock.advance(took_s / 2)
    assert [len(results) for results in together] == [1, 1, 1]
    late = late if early else group.place(4)
    group.clock.advance(linger_s * 0.9)
    assert group.placed(3) == [["key-1", "key-2", "key-3"]]
    group.clock.advance(linger_s * 0.2)
    assert group.placed(3)[1:] == [["key-4"]]
    group.clock.advance(took_s)
    assert late == [Placement(4, version=4)]


def test_an_order_goes_as_soon_as_as_many_wait_as_were_answered() -> None:
    """When as many wait as the last call answered, they go before the linger is over. A client that
    is alone never lingers.
    """
    group = Group()
    group.executes_in(0.04)
    group.place(1)
    group.place(2)
    group.clock.advance(0.04)
    assert group.placed(3) == [["key-1"]]
    group.place(3)
    assert group.placed(3)[1:] == [["key-2", "key-3"]]
    group.clock.advance(0.04)
    group.advance(LINGER_MAX_S * 1.2)
    for number in (4, 5, 6):
        group.place(number)
        assert group.placed(3)[-1] == [f"key-{number}"]
        group.clock.advance(0.04)


def test_each_order_of_a_call_has_its_own_result() -> None:
    """One order is refused, one has a key that was used for another, and one is sent again; each is
    told its own result.
    """
    group = Group()
    leader = group.members[3]
    leader.replies["PlaceOrders"] = HANG
    blocker = group.place(9)
    results = [group.place(n) for n in (1, 2, 3)]
    answers: Placed = [Placement(refusal="no"), KeyReused(), Unavailable("busy")]
    leader.replies["PlaceOrders"] = lambda q: (
        Placements(tuple(answers)) if len(q.orders) == 3 else executed(q)
    )
    leader.settle(leader.of("PlaceOrders")[0], Placements((Placement(9),)))
    assert blocker == [Placement(9)]
    assert results[0] == [Placement(refusal="no")]
    assert error_of(results[1]) is KeyReused
    assert results[2] == []
    group.advance(0.05)
    assert results[2] == [Placement(3, version=3)]


def test_too_many_orders_are_refused_at_once() -> None:
    """Orders beyond the queue's limit are refused, and were never sent."""
    group = Group()
    group.members[3].replies["PlaceOrders"] = HANG
    for number in range(LIMITS.requests_waiting_max):
        group.place(number)
    assert error_of(group.place(99)) is Overloaded
    assert len(group.tier.queue) == LIMITS.requests_waiting_max


def test_a_killed_leader_costs_no_order() -> None:
    """When the connection breaks and another member leads, the order goes there with the same
    key.
    """
    group = Group()
    leader = group.members[3]
    leader.replies["PlaceOrders"] = HANG
    result = group.place(5)
    group.leads(3, 1, 3)
    leader.settle(leader.of("PlaceOrders")[0], OutcomeUnknown("connection lost"))
    assert group.watch.leader is None
    assert group.members[2].of("NotifyReplica"), "nominated at once"
    group.members[2].replies["PlaceOrders"] = executed
    group.advance(0.2)
    assert result == []
    group.leads(2, 2, 3)
    group.advance(0.06)
    assert result == [Placement(5, version=5)]
    assert group.placed(2) == [["key-5"]]


def test_a_paused_leader_is_abandoned_for_one_of_a_higher_term() -> None:
    """A stopped process neither answers nor closes its connections. When another member leads in a
    new term the calls to the old leader are cancelled, and its late answers do not count.
    """
    group = Group()
    old = group.members[3]
    old.replies |= {"PlaceOrders": HANG, "Heartbeat": HANG}
    group.members[2].replies["PlaceOrders"] = executed
    results = [group.place(n) for n in (1, 2)]
    group.advance(0.3)
    group.leads(2, 2)
    group.advance(0.11)
    assert results == [[Placement(1, version=1)], [Placement(2, version=2)]]
    assert old.of("PlaceOrders")[0].cancelled
    late = Placements((Placement(77),))
    old.settle(old.of("PlaceOrders")[0], late)
    assert results[0] == [Placement(1, version=1)]


def test_abandoned_calls_leave_room_for_new_ones() -> None:
    """When another member leads, calls that a paused leader never answered no longer count against
    the limit.
    """
    group = Group()
    group.members[3].replies |= {"PlaceOrders": HANG, "Heartbeat": HANG}
    group.members[2].replies["PlaceOrders"] = executed
    results: list[list[Any]] = []
    for number in range(CALLS_MAX + 1):
        results.append(group.place(number))
        group.advance(PATIENCE_S * 1.2)
    assert len(group.placed(3)) == CALLS_MAX
    group.leads(2, 2)
    group.advance(0.11)
    assert [result[0].number for result in results] == list(range(CALLS_MAX + 1))


def test_a_paused_leader_hangs_nobody_beyond_the_budget() -> None:
    """Without another leader each order ends when its own budget is over. It was sent, so its
    outcome is unknown.
    """
    group = Group()
    group.members[3].replies["PlaceOrders"] = HANG
    result = group.place()
    group.advance(1.0)
    later = group.place(2)
    group.advance(LIMITS.request_budget_s - 1.0 + 0.01)
    assert error_of(result) is OutcomeUnknown
    assert later == []
    group.advance(1.0)
    assert error_of(later) is OutcomeUnknown


def test_without_any_leader_nothing_happened() -> None:
    """An order that was never sent ends as Unavailable when its budget is over."""
    group = Group()
    group.leads(0, 2)
    group.advance(0.11)
    result = group.place()
    group.advance(LIMITS.request_budget_s - 0.05)
    assert result == []
    group.advance(0.1)
    assert error_of(result) is Unavailable


@pytest.mark.parametrize("refusal", [NotLeader(0), Unavailable("not ready")])
def test_a_refused_attempt_had_no_effect(refusal: Exception) -> None:
    """If every attempt was refused by a replica that does not serve, the order ends as Unavailable:
    nothing happened.
    """
    group = Group()
    for member in group.members.values():
        member.replies["PlaceOrders"] = refusal
    result = group.place()
    group.advance(2.0)
    assert error_of(result) is Unavailable
    assert sum(len(group.placed(n)) for n in (1, 2, 3)) > 10, "tried again and again"


@pytest.mark.parametrize(
    "doubt",
    [
        OutcomeUnknown("lost"),
        StaleEpoch("x"),
        pytest.param(ValueError("odd"), marks=pytest.mark.logs_failures),
    ],
)
def test_one_unknown_attempt_makes_the_end_unknown(doubt: Exception) -> None:
    """If an earlier attempt may have been executed, later refusals do not change that."""
    group = Group()
    answers = [doubt]
    group.members[3].replies["PlaceOrders"] = lambda _: (
        answers.pop() if answers else Unavailable("not ready")
    )
    result = group.place()
    group.advance(2.0)
    assert error_of(result) is OutcomeUnknown


def test_an_abandoned_attempt_makes_the_end_unknown() -> None:
    """A paused leader may have executed the order before it was paused."""
    group = Group()
    group.members[3].replies |= {"PlaceOrders": HANG, "Heartbeat": HANG}
    group.members[2].replies["PlaceOrders"] = Unavailable("not ready")
    result = group.place()
    group.leads(2, 2)
    group.advance(2.0)
    assert error_of(result) is OutcomeUnknown


@pytest.mark.parametrize("refusal", [Overloaded("full"), DiskFull("full")])
def test_a_full_leader_is_believed_unless_there_is_a_doubt(refusal: Exception) -> None:
    """A refusal for want of room is told at once, because nothing happened. If an earlier attempt
    may have been executed, the outcome is unknown.
    """
    group = Group()
    group.members[3].replies["PlaceOrders"] = refusal
    assert error_of(group.place()) is type(refusal)
    answers = [OutcomeUnknown("lost")]
    group.members[3].replies["PlaceOrders"] = lambda _: answers.pop() if answers else refusal
    result = group.place()
    group.advance(2.0)
    assert error_of(result) is OutcomeUnknown


def test_an_invalid_order_is_the_clients_fault() -> None:
    """What a server finds malformed is not sent again."""
    group = Group()
    group.members[3].replies["PlaceOrders"] = InvalidRequest("name", "odd")
    assert error_of(group.place()) is InvalidRequest


def test_the_leader_that_a_refusal_names_is_asked_next() -> None:
    """After a refusal with NotLeader the members are probed at once, so the order goes to the new
    leader without a pause.
    """
    group = Group()
    group.members[3].replies["PlaceOrders"] = NotLeader(2)
    group.leads(2, 2)
    group.members[2].replies["PlaceOrders"] = executed
    assert group.place(4) == [Placement(4, version=4)]
    assert group.placed(2) == [["key-4"]]


def test_a_call_that_is_stuck_does_not_hold_up_the_orders_after_it() -> None:
    """After ``PATIENCE_S`` the next orders go in a call of their own; there are never more than
    ``CALLS_MAX``.
    """
    group = Group()
    leader = group.members[3]
    leader.replies["PlaceOrders"] = lambda q: HANG if q.orders[0].quantity == 1 else executed(q)
    stuck, other = group.place(1), group.place(2)
    group.advance(PATIENCE_S * 0.8)
    assert other == []
    group.advance(PATIENCE_S * 0.4)
    assert other == [Placement(2, version=2)]
    assert stuck == []
    leader.replies["PlaceOrders"] = HANG
    for number in range(3, 16):
        group.place(number)
        group.advance(PATIENCE_S * 1.2)
    assert len(group.placed(3)) == CALLS_MAX + 1


def test_an_answer_that_does_not_fit_is_a_doubt() -> None:
    """An answer with too few results tells nothing, so the orders are sent again."""
    group = Group()
    answers: list[Any] = [Placements(())]
    group.members[3].replies["PlaceOrders"] = lambda q: answers.pop() if answers else executed(q)
    result = group.place(3)
    group.advance(0.05)
    assert result == [Placement(3, version=3)]


def test_a_client_that_gives_up_does_not_take_the_order_back() -> None:
    """When the client cancels, the call goes on and its result is dropped."""
    group = Group()
    leader = group.members[3]
    leader.replies["PlaceOrders"] = HANG
    placing = group.tier.place(order())
    result = outcome(placing)
    group.clock.advance(0)
    placing.cancel()
    called = leader.of("PlaceOrders")[0]
    assert not called.cancelled
    leader.settle(called, Placements((Placement(1),)))
    assert len(result) == 1
    assert len(group.tier.queue) == 0


# --- asking ----------------------------------------------------------------------------------


def ask(group: Group, question: Callable[[], Any]) -> "list[Any]":
    """Ask a question; the list gets the answer."""
    return outcome(Deferred.fromCoroutine(question()))


TRADE = Trade(5, Order("k", "GOOGL", Side.BUY, 1), 1, 100, 0)


def test_an_order_is_asked_of_the_leader_first() -> None:
    """If the leader says that there is no such order, nobody else is asked."""
    group = Group()
    group.members[3].replies["GetOrderDetails"] = lambda _: None
    assert ask(group, lambda: group.tier.order(5)) == [None]
    assert not group.members[2].of("GetOrderDetails")


def test_any_member_may_answer_for_an_order_that_it_has() -> None:
    """Without a leader, or with one that hangs, a follower that has the order may answer."""
    group = Group()
    group.members[3].replies["GetOrderDetails"] = HANG
    group.members[2].replies["GetOrderDetails"] = NotLeader(3)
    group.members[1].replies["GetOrderDetails"] = TRADE
    result = ask(group, lambda: group.tier.order(5))
    group.advance(0.3)
    assert result == [TRADE]
    group.leads(0, 2)
    group.advance(0.11)
    result = ask(group, lambda: group.tier.order(5))
    group.advance(0.3)
    assert result == [TRADE]


def test_a_leader_that_is_slow_to_answer_one_question_leads_on() -> None:
    """Its heartbeats say that it lives, so orders need not wait because it is slow to read from its
    disk. A connection that is lost is another matter.
    """
    group = Group()
    for member in group.members.values():
        member.replies["GetOrderDetails"] = HANG
    lost: list[Leader | None] = []
    group.watch.subscribe(lambda: lost.append(group.watch.leader))
    result = ask(group, lambda: group.tier.order(5))
    group.advance(LIMITS.request_budget_s + 0.1)
    assert error_of(result) is Unavailable
    assert lost == []
    group.members[3].replies["GetOrderDetails"] = OutcomeUnknown("the connection is lost")
    ask(group, lambda: group.tier.order(5))
    assert lost[0] is None


def test_a_page_of_orders_may_take_the_leader_its_time() -> None:
    """Only the leader lists orders, so the call may take most of the budget, and no follower is
    asked.
    """
    group, orders = Group(), Orders((TRADE,), 0)
    leader = group.members[3]
    leader.replies["ListOrders"] = HANG
    result = ask(group, lambda: group.tier.list(Page(0, 10)))
    group.advance(LIMITS.request_budget_s / 2)
    leader.settle(leader.of("ListOrders")[0], orders)
    assert result == [orders]
    assert [len(member.of("ListOrders")) for member in group.members.values()] == [0, 0, 1]


def test_no_order_is_denied_without_a_leader() -> None:
    """A follower without the order cannot say that there is none, so the answer is Unavailable."""
    group = Group()
    for member in group.members.values():
        member.replies["GetOrderDetails"] = NotLeader(0)
    result = ask(group, lambda: group.tier.order(5))
    group.advance(2.0)
    assert error_of(result) is Unavailable


def catalogs(members: int) -> Group:
    """A catalog tier."""
    return Group(members, CatalogTier, "catalog")


PAGE = StockPage("", 1)
STOCKS = Stocks((), "")


def test_too_many_questions_are_refused_at_once() -> None:
    """Questions beyond the limit are refused; when the others have ended new ones are taken."""
    group = catalogs(1)
    group.members[1].replies["ListStocks"] = HANG
    for _ in range(LIMITS.requests_waiting_max):
        ask(group, lambda: group.tier.list(PAGE))
    assert error_of(ask(group, lambda: group.tier.list(PAGE))) is Overloaded
    group.advance(2.0)
    group.members[1].replies["ListStocks"] = lambda _: STOCKS
    assert ask(group, lambda: group.tier.list(PAGE)) == [STOCKS]


def test_questions_wait_here_and_not_at_the_member() -> None:
    """A member uses a thread for each call, so only a limited number of questions is sent at
    once.
    """
    group = catalogs(1)
    group.members[1].replies["ListStocks"] = HANG
    asked = [ask(group, lambda: group.tier.list(PAGE)) for _ in range(12)]
    calls = group.members[1].of("ListStocks")
    assert len(calls) == LIMITS.calls_under_way_max
    for called in group.members[1].of("ListStocks"):
        group.members[1].settle(called, STOCKS)
    group.advance(0.01)
    for called in group.members[1].of("ListStocks"):
        group.members[1].settle(called, STOCKS)
    assert asked == [[STOCKS]] * 12


def test_a_question_that_waited_is_asked_of_whoever_leads_now() -> None:
    """A paused leader has swallowed as many calls as there may be. The questions that waited behind
    them go to the new leader.
    """
    group = catalogs(3)
    group.members[3].replies |= {"ListStocks": HANG, "Heartbeat": HANG}
    group.members[2].replies["ListStocks"] = STOCKS
    asked = [ask(group, lambda: group.tier.list(PAGE)) for _ in range(20)]
    group.leads(2, 2)
    group.advance(0.3)
    assert asked == [[STOCKS]] * 20
    assert len(group.members[3].of("ListStocks")) == LIMITS.calls_under_way_max


def test_a_storm_of_questions_to_a_stopped_member_leaves_no_trace() -> None:
    """Each question ends within its budget, and afterwards all slots are free again."""
    limits = replace(LIMITS, requests_waiting_max=1000)
    group = catalogs(1)
    tier = CatalogTier(group.watch, group.members, group.clock, limits, Random(3))
    group.members[1].replies["ListStocks"] = HANG
    asked = [ask(group, lambda: tier.list(PAGE)) for _ in range(600)]
    group.advance(2.0)
    assert {error_of(results) for results in asked} == {Unavailable}
    assert (tier._slots.tokens, tier._asking) == (limits.calls_under_way_max, 0)


def test_a_question_that_is_cancelled_asks_no_more() -> None:
    """Also while it waits for a slot: the feed's loop would outlive the feed otherwise."""
    group = catalogs(1)
    group.members[1].replies["ListStocks"] = HANG
    for _ in range(LIMITS.calls_under_way_max):
        ask(group, lambda: group.tier.list(PAGE))
    waiting = Deferred.fromCoroutine(group.tier.list(PAGE))
    became = outcome(waiting)
    waiting.cancel()
    assert error_of(became) is CancelledError
    assert group.tier.asking == LIMITS.calls_under_way_max


def test_registering_is_one_attempt_and_tells_who_granted() -> None:
    """It is not repeated here, since the session asks often, and the answer says which leader
    granted the lease.
    """
    group = catalogs(3)
    group.members[3].replies["Register"] = Lease(0.25, True)
    registration = Register(1, "http://x", "s")
    granted = ask(group, lambda: group.tier.register(registration))
    assert granted == [(Leader(1, 3), Lease(0.25, True))]
    group.members[3].replies["Register"] = NotLeader(0)
    assert error_of(ask(group, lambda: group.tier.register(registration))) is NotLeader
    assert len(group.members[3].of("Register")) == 2
    group.leads(0, 2)
    group.advance(0.11)
    assert error_of(ask(group, lambda: group.tier.register(registration))) is Unavailable


def test_a_nominee_that_answers_is_probed_again() -> None:
    """When a nominee has answered it may lead, so it is probed at once."""
    group = Group()
    group.leads(3, 1, 3)
    group.members[2].replies["NotifyReplica"] = Notified(2, 2)
    group.advance(0.105)
    assert group.members[2].calls[-1].method == "Heartbeat"


# --- changes of stocks -----------------------------------------------------------------------

HALT = ChangeRequest("k", ChangeKind.HALT, "GOOGL")


def catalog() -> Group:
    """A catalog of three."""
    return Group(kind=CatalogTier, group="catalog")


def changing(group: Group) -> "list[Any]":
    """Ask for a change; the list gets its result."""
    return outcome(Deferred.fromCoroutine(group.tier.change(HALT)))


def test_a_change_is_asked_for_again_under_its_key() -> None:
    """A change is repeated with its key, whatever goes wrong, until a leader has answered."""
    group, answers = catalog(), [OutcomeUnknown("lost"), Unavailable("not yet"), Changed(7)]
    group.members[3].replies["ChangeStock"] = lambda request: answers.pop(0)
    changed = changing(group)
    group.advance(0.5)
    assert changed == [Changed(7)]
    assert [called.request for called in group.members[3].of("ChangeStock")] == [HALT] * 3


def test_a_change_goes_to_the_leader_that_is_elected_meanwhile() -> None:
    """A call to a leader of an older term, which may hang for ever, is given up."""
    group = catalog()
    group.members[3].replies["ChangeStock"] = HANG
    group.members[2].replies["ChangeStock"] = Changed(7, replayed=True)
    changed = changing(group)
    group.advance(0.1)
    assert changed == []
    group.leads(2, 2)
    group.advance(0.3)
    assert changed == [Changed(7, replayed=True)]


@pytest.mark.parametrize(
    "error", [KeyReused(), InvalidRequest("f", "w"), Overloaded("full"), DiskFull("disk full")]
)
def test_a_definite_word_about_a_change_is_its_answer(error: Exception) -> None:
    """A definite error is told at once, if no earlier attempt can have done anything."""
    group = catalog()
    group.members[3].replies["ChangeStock"] = error
    assert error_of(changing(group)) is type(error)


@pytest.mark.parametrize("later", [Overloaded("full"), DiskFull("disk full"), Unavailable("no")])
def test_a_change_in_doubt_never_ends_as_if_nothing_had_happened(later: Exception) -> None:
    """If an earlier attempt may have been done, later refusals do not change that."""
    group, answers = catalog(), [OutcomeUnknown("lost")]
    group.members[3].replies["ChangeStock"] = lambda request: answers.pop() if answers else later
    changed = changing(group)
    group.advance(LIMITS.request_budget_s + 0.1)
    assert error_of(changed) is OutcomeUnknown


def test_a_reused_key_is_certain_even_in_doubt() -> None:
    """The key belongs to another change, so no attempt under it did anything."""
    group, answers = catalog(), [OutcomeUnknown("lost"), KeyReused()]
    group.members[3].replies["ChangeStock"] = lambda request: answers.pop(0)
    changed = changing(group)
    group.advance(0.2)
    assert error_of(changed) is KeyReused


def test_without_a_leader_no_change_has_happened() -> None:
    """The change ends as Unavailable, and nobody was asked for it."""
    group = catalog()
    group.leads(0, 2)
    group.advance(0.2)
    changed = changing(group)
    group.advance(LIMITS.request_budget_s + 0.1)
    assert error_of(changed) is Unavailable
    assert all(member.of("ChangeStock") == [] for member in group.members.values())


def test_a_change_that_no_answer_came_to_is_unknown_at_its_deadline() -> None:
    """It then no longer counts among the changes that wait."""
    group = catalog()
    group.members[3].replies["ChangeStock"] = HANG
    changed = changing(group)
    group.advance(LIMITS.request_budget_s + 0.1)
    assert error_of(changed) is OutcomeUnknown
    assert group.tier._asking == 0


def test_changes_are_listed_by_the_leader() -> None:
    """Only the leader is asked, as a follower may lack the last ones."""
    group, page = catalog(), Changes((), 0, 5)
    group.members[3].replies["ListChanges"] = page
    listed = outcome(Deferred.fromCoroutine(group.tier.list_changes(Page(3, 4))))
    assert listed == [page]
    assert group.members[3].of("ListChanges")[0].request == Page(3, 4)


# --- for the feed ----------------------------------------------------------------------------


def committed(group: Group, after: int = 4) -> "list[Any]":
    """Ask for the orders after a number; the list gets the answer."""
    return ask(group, lambda: group.tier.committed(Page(after, 7)))


def test_the_log_is_read_from_a_follower() -> None:
    """The highest follower is asked, because the leader has most to do. The answer says where to go
    on, if there is more.
    """
    group = Group()
    group.members[2].replies["SyncUp"] = SyncedUp((TRADE,), more=True, whole=True)
    assert committed(group) == [Orders((TRADE,), 5)]
    assert group.members[2].of("SyncUp")[0].request == SyncUp(4, whole=True, limit=7)
    group.members[2].replies["SyncUp"] = SyncedUp((TRADE,), whole=True)
    assert committed(group) == [Orders((TRADE,), 0)]
    group.members[2].replies["SyncUp"] = SyncedUp(whole=True)
    assert committed(group, 5) == [Orders((), 0)]
    assert not group.members[1].of("SyncUp")
    assert not group.members[3].of("SyncUp")


def test_the_leader_is_asked_for_what_followers_have_not_heard_of() -> None:
    """If the leader is known to have more orders, a follower that has none of them is not believed;
    it may be cut off.
    """
    group = Group()
    group.members[3].status = status(3, "leader", last_transaction=5)
    group.advance(0.2)
    group.members[2].replies["SyncUp"] = SyncedUp(whole=True)
    group.members[1].replies["SyncUp"] = HANG
    group.members[3].replies["SyncUp"] = SyncedUp((TRADE,), whole=True)
    found = committed(group)
    group.advance(0.3)
    assert found == [Orders((TRADE,), 0)]


def test_without_a_leader_the_log_is_what_any_follower_has() -> None:
    """If one follower has no more, another one is asked. Orders that only the lost leader had are
    not waited for.
    """
    group = Group()
    group.members[3].status = status(3, "leader", last_transaction=6)
    group.advance(0.2)
    group.leads(0, 2, 3)
    group.members[1].status = status(1, last_transaction=5)
    group.advance(0.5)
    group.members[2].replies["SyncUp"] = SyncedUp(whole=True)
    group.members[1].replies["SyncUp"] = SyncedUp((TRADE,), whole=True)
    assert committed(group) == [Orders((TRADE,), 0)]
    assert committed(group, 5) == [Orders((), 0)]


def test_the_last_number_is_the_leaders_or_what_was_known_last() -> None:
    """Without a leader it is the highest that a follower tells, because nothing is traded
    meanwhile; if nobody answers it is unknown.
    """
    group = Group()
    group.members[3].status = status(3, "leader", last_transaction=7)
    found = outcome(Deferred.fromCoroutine(group.tier.last_number()))
    assert found == [7]
    group.members[1].status = status(1, leader_id=3, last_transaction=5)
    group.members[2].status = status(2, leader_id=3, last_transaction=6)
    group.members[3].status = None
    group.advance(0.5)
    found = outcome(Deferred.fromCoroutine(group.tier.last_number()))
    group.advance(LIMITS.request_budget_s + 0.1)
    assert found == [6]
    group.members[1].status = group.members[2].status = None
    group.advance(1.0)
    found = outcome(Deferred.fromCoroutine(group.tier.last_number()))
    group.advance(LIMITS.request_budget_s + 0.1)
    assert error_of(found) is Unavailable


def test_many_stocks_are_looked_up_without_a_session() -> None:
    """The feed keeps no stocks, so it needs no session. The calls are limited in size."""
    group = Group(1, CatalogTier, "catalog")
    leader = group.members[1]
    group.leads(1, 1)
    group.advance(0.2)
    leader.replies["LookupMany"] = lambda request: LookedUp(
        tuple(None if name == "none" else Stock(name, 1, 1) for name in request.names)
    )
    names = [*(f"S{k}" for k in range(LOOKUPS_MAX)), "none"]
    found = outcome(Deferred.fromCoroutine(group.tier.lookup_many(names)))
    assert [stock and stock.name for stock in found[0]] == [*names[:-1], None]
    calls = [called.request for called in leader.of("LookupMany")]
    assert [len(call.names) for call in calls] == [LOOKUPS_MAX, 1]
    assert {(call.front_id, call.session) for call in calls} == {(0, "")}


def test_the_catalog_is_asked_when_everything_is_published() -> None:
    """A call without names waits for all that is committed when it is made."""
    group = Group(1, CatalogTier, "catalog")
    leader = group.members[1]
    group.leads(1, 1)
    group.advance(0.2)
    leader.replies["AwaitPublished"] = Published()
    found = outcome(Deferred.fromCoroutine(group.tier.everything_published()))
    assert found == [None]
    assert [called.request for called in leader.of("AwaitPublished")] == [AwaitPublished()]
