"""One term of leading the order group, against the catalog's real state machine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twstock.catalog.changes import Lost, Stale
from twstock.catalog.state import CatalogState
from twstock.config import Limits
from twstock.errors import (
    DiskFull,
    InvalidRequest,
    KeyReused,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    StaleEpoch,
    TwstockError,
    Unavailable,
)
from twstock.market import (
    CALL_ITEMS_MAX,
    Batch,
    BatchResult,
    BeginEpoch,
    CatalogCommand,
    DirectTrade,
    Order,
    Seed,
    Side,
    Stock,
    Trade,
)
from twstock.order.askers import BEHIND_MAX, Askers, Asking
from twstock.order.leading import Leading
from twstock.order.state import OrderState
from twstock.rpc.calls import ExecutedTrades, Placement
from twstock.rpc.wire.commands import encode_catalog_command


def order(key: str, quantity: int = 1, name: str = "GameStart") -> Order:
    """A buy."""
    return Order(key, name, Side.BUY, quantity)


class Catalog:
    """The catalog's state machine, and a wire that a test can break.

    With ``hides``, caches hide every new version until ``publish`` is called; ``asked`` are the
    questions about it that have no answer yet.
    """

    def __init__(self) -> None:
        self.state = CatalogState(1000, 3600.0)
        self.index = 0
        self.batches: list[Batch] = []
        self.lose_requests = 0
        self.lose_answers = 0
        self.refuse: Exception | None = None
        self.held: list[Deferred[None]] | None = None
        self.hides = False
        self.shown: dict[str, int] = {}
        self.asked: list[tuple[Mapping[str, int], Deferred[None]]] = []
        self.questions = 0
        self.list_max: int | None = None
        stocks = (Stock(name, 1599, 100, initial_quantity=100) for name in ("FishCo", "GameStart"))
        self.apply(Seed(tuple(stocks)))

    def apply(self, command: CatalogCommand) -> object:
        """Commit and apply one command."""
        self.index += 1
        return self.state.apply(self.index, encode_catalog_command(command)).result

    async def execute(self, batch: Batch) -> BatchResult:
        """The order leader's call."""
        self.batches.append(batch)
        result = await self._call(batch)
        assert isinstance(result, BatchResult)
        if not self.hides:
            self.publish()
        names = {order.name for order in batch.orders} | {t.order.name for t in result.others}
        stocks = {s.name: s.version for s in self.state.stocks() if s.name in names}
        return replace(result, unpublished=self.unpublished(stocks))

    def unpublished(self, versions: Mapping[str, int]) -> dict[str, int]:
        """Those that a cache hides."""
        return {n: v for n, v in versions.items() if self.shown.get(n, 0) < v}

    def publish(self) -> None:
        """No cache hides anything that is committed."""
        self.shown = {stock.name: stock.version for stock in self.state.stocks()}
        asked, self.asked = self.asked, []
        for _, answer in asked:
            answer.callback(None)

    async def await_published(self, versions: Mapping[str, int]) -> None:
        """The order leader's call."""
        self.questions += 1
        if self.lose_requests:
            self.lose_requests -= 1
            raise OutcomeUnknown("lost on the way there")
        if self.unpublished(versions):
            answer: Deferred[None] = Deferred()
            self.asked.append((versions, answer))
            await answer

    async def begin_epoch(self, epoch: BeginEpoch) -> ExecutedTrades:
        """The order leader's call."""
        result = await self._call(epoch)
        assert isinstance(result, ExecutedTrades)
        if not self.hides:
            self.publish()
        await self.await_published({s.name: s.version for s in self.state.stocks()})
        return replace(result, trades=result.trades[: self.list_max])

    async def _call(self, command: CatalogCommand) -> object:
        if self.lose_requests:
            self.lose_requests -= 1
            raise OutcomeUnknown("lost on the way there")
        if self.refuse is not None:
            raise self.refuse
        if self.held is not None:
            gate: Deferred[None] = Deferred()
            self.held.append(gate)
            await gate
        result = self.apply(command)
        if self.lose_answers:
            self.lose_answers -= 1
            raise OutcomeUnknown("lost on the way back")
        if isinstance(result, Stale):
            raise StaleEpoch(result.reason)
        if isinstance(result, Lost):
            raise Unavailable(result.reason)
        return result


class Orders:
    """The order group: commits at once, unless a test holds or refuses."""

    def __init__(self) -> None:
        self.state = OrderState()
        self.index = 0
        self.resigned = False
        self.refuse: Exception | None = None
        self.held: list[Callable[[], None]] | None = None

    def propose(self, payload: bytes) -> "Deferred[tuple[Trade, ...]]":
        """Record orders."""
        if self.refuse is not None:
            raise self.refuse
        result: Deferred[tuple[Trade, ...]] = Deferred()

        def commit() -> None:
            self.index += 1
            result.callback(self.state.apply(self.index, payload).result)  # type: ignore[arg-type]

        if self.held is None:
            commit()
        else:
            self.held.append(commit)
        return result

    def resign(self) -> None:
        """Stop leading."""
        self.resigned = True

    def last_number(self) -> int:
        """The highest recorded number."""
        return self.state.last_number

    def find_keys(self, keys: Sequence[str]) -> "Deferred[dict[str, Trade]]":
        """Recorded orders by key."""
        return succeed({k: t for k in keys if (t := self.state.by_key(k)) is not None})


class Desk:
    """Everything of one order leader and its surroundings."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.catalog = Catalog()
        self.orders = Orders()
        self.panics: list[Failure] = []
        self.limits = Limits(orders_waiting_max=4, batch_orders_max=2, publication_questions_max=2)

    def lead(self, epoch: int, unrecorded_trades_max: int = 2000) -> Leading:
        """Begin a term."""
        leading = Leading(
            epoch,
            self.orders,
            self.catalog,
            self.clock,
            replace(self.limits, unrecorded_trades_max=unrecorded_trades_max),
            lambda: 1000,
            self.panics.append,
        )
        leading.start()
        return leading

    def run(self, seconds: float = 0.2) -> None:
        """Let time pass."""
        self.clock.pump([0.01] * round(seconds / 0.01))
        assert self.panics == []


@pytest.fixture
def desk() -> Desk:
    """A catalog with two stocks, no orders."""
    return Desk()


def place(leading: Leading, wanted: Order) -> list[object]:
    """Place an order; the list has what became of it as soon as that is known."""
    results: list[object] = []
    leading.place(wanted, results.append)
    leading.go()
    return results


def failed(results: list[object]) -> type[BaseException]:
    """The class of the error that a placement came to."""
    (error,) = results
    assert isinstance(error, BaseException)
    return type(error)


def test_orders_are_traded_numbered_and_recorded(desk: Desk) -> None:
    """An order is answered when its trade is recorded, with its number and version."""
    leading = desk.lead(1)
    results = place(leading, order("a"))
    assert results == [Placement(1, "", False, 1)]
    assert desk.orders.state.order(1) is not None


def test_refusal_takes_no_number(desk: Desk) -> None:
    """Refused orders leave no gap."""
    leading = desk.lead(1)
    assert place(leading, order("a", 101))[0].refusal  # type: ignore[attr-defined]
    assert place(leading, order("b")) == [Placement(1, "", False, 1)]


def test_orders_gather_while_a_batch_is_under_way(desk: Desk) -> None:
    """What comes while the catalog works goes to it as one batch."""
    leading = desk.lead(1)
    desk.catalog.held = []
    results = [place(leading, order(key)) for key in "abc"]
    for _ in range(3):
        for gate in desk.catalog.held[:]:
            desk.catalog.held.remove(gate)
            gate.callback(None)
    assert [r[0].number for r in results] == [1, 2, 3]  # type: ignore[attr-defined]
    assert [len(b.orders) for b in desk.catalog.batches] == [1, 2]


def test_lost_answer_is_asked_again_and_trades_once(desk: Desk) -> None:
    """A batch is sent again under its number until its outcome is known."""
    leading = desk.lead(1)
    desk.catalog.lose_answers = 2
    results = place(leading, order("a", 10))
    desk.run()
    assert results == [Placement(1, "", False, 1)]
    assert [b.number for b in desk.catalog.batches] == [1, 1, 1]
    stock = desk.catalog.state.stock("GameStart")
    assert stock is not None
    assert stock.quantity == 90


def test_same_key_joins_in_flight_and_is_remembered_after(desk: Desk) -> None:
    """Each key is executed once, whoever asks again and whenever. Another order under it is
    refused.
    """
    leading = desk.lead(1)
    desk.catalog.held = []
    first, second = place(leading, order("a")), place(leading, order("a"))
    desk.catalog.held.pop().callback(None)
    desk.catalog.held = None
    assert first == [Placement(1, "", False, 1)]
    assert second == [Placement(1, "", True, 1)]
    assert place(leading, order("a")) == [Placement(1, "", True, 1)]
    assert failed(place(leading, order("a", 2))) is KeyReused


def busy(desk: Desk, leading: Leading) -> None:
    """The catalog works at a batch, so that what comes now stays on the desk."""
    desk.catalog.held = []
    place(leading, order("busy"))


def let_go(desk: Desk) -> None:
    """The catalog answers, and from now on at once."""
    held, desk.catalog.held = desk.catalog.held or [], None
    for gate in held:
        gate.callback(None)


def test_another_order_under_a_key_on_the_desk_waits_for_its_outcome(desk: Desk) -> None:
    """The key belongs to the first order if that has traded or was refused, so the second is
    refused for its key.
    """
    leading = desk.lead(1)
    busy(desk, leading)
    traded, refused = place(leading, order("a")), place(leading, order("b", 101))
    others = [place(leading, order("a", 2)), place(leading, order("b", 2))]
    assert others == [[], []]
    let_go(desk)
    assert traded == [Placement(2, "", False, 2)]
    assert refused[0].refusal  # type: ignore[attr-defined]
    assert [failed(other) for other in others] == [KeyReused, KeyReused]
    assert leading.orders_open == 0
    assert desk.orders.last_number() == 2


def test_a_retry_is_not_judged_by_a_wrong_order_that_waits(desk: Desk) -> None:
    """The records tell which order a key belongs to, whoever tries another order under it
    meanwhile, and how often.
    """
    leading = desk.lead(1)
    assert place(leading, order("a")) == [Placement(1, "", False, 1)]
    busy(desk, leading)
    wrong = [place(leading, order("a", 2))]
    right = [place(leading, order("a")) for _ in range(2)]
    wrong.append(place(leading, order("a", 3)))
    let_go(desk)
    assert [result[0].number for result in right] == [1, 1]  # type: ignore[attr-defined]
    assert [failed(result) for result in wrong] == [KeyReused, KeyReused]
    assert desk.orders.last_number() == 2
    assert leading.orders_open == 0


def test_who_waits_for_a_key_trades_when_nobody_had_it(desk: Desk) -> None:
    """The first order was taken back because the catalog's disk was full, so it never happened. The
    second one is then placed, and trades.
    """
    leading = desk.lead(1)
    busy(desk, leading)
    first = place(leading, order("a"))
    second = place(leading, order("a", 2))
    execute, refused = desk.catalog.execute, list[Batch]()

    async def full_once(batch: Batch) -> BatchResult:
        desk.catalog.execute = execute  # type: ignore[method-assign]
        refused.append(batch)
        raise DiskFull("full")

    desk.catalog.execute = full_once  # type: ignore[method-assign]
    let_go(desk)
    assert failed(first) is DiskFull
    assert [batch.orders for batch in refused] == [(order("a"),)]
    assert second == [Placement(2, "", False, 2)]


def test_who_waits_for_a_key_learns_that_the_term_is_over(desk: Desk) -> None:
    """Nothing has happened to that order, whatever becomes of the one before it."""
    leading = desk.lead(1)
    desk.catalog.held = []
    first, second = place(leading, order("a")), place(leading, order("a", 2))
    leading.end()
    assert (failed(first), failed(second)) == (OutcomeUnknown, Unavailable)


def test_those_who_wait_for_a_key_are_bounded(desk: Desk) -> None:
    """Together with those who join: beyond the bound the outcome is unknown, and nothing is left of
    them later.
    """
    leading = desk.lead(1)
    busy(desk, leading)
    place(leading, order("a"))
    for quantity in range(2, 6):
        place(leading, order("a", quantity))
    with pytest.raises(OutcomeUnknown):
        place(leading, order("a", 7))
    let_go(desk)
    assert leading.orders_open == 0
    assert place(leading, order("a", 7)) != []


def test_no_more_than_a_bound_wait_behind_one_key() -> None:
    """All of them are placed again each time the key is free. Other keys are not concerned, and the
    end of the wait makes room.
    """
    askers = Askers()
    for quantity in range(BEHIND_MAX):
        askers.wait(Asking(order("a", quantity + 1), print, 0.0))
    with pytest.raises(OutcomeUnknown):
        askers.wait(Asking(order("a"), print, 0.0))
    askers.wait(Asking(order("b"), print, 0.0))
    assert len(askers.tell("a", KeyReused())) == BEHIND_MAX
    assert askers.tell("a", KeyReused()) == ()


def test_who_may_not_wait_behind_a_key_keeps_nobody_out(desk: Desk) -> None:
    """Those who are refused because so many wait behind one key do not count as waiting."""
    desk.limits = replace(desk.limits, orders_waiting_max=BEHIND_MAX + 1)
    leading = desk.lead(1)
    busy(desk, leading)
    first = place(leading, order("a"))
    for quantity in range(BEHIND_MAX):
        place(leading, order("a", quantity + 2))
    for _ in range(2):
        with pytest.raises(OutcomeUnknown):
            place(leading, order("a", 99))
    again = place(leading, order("a"))
    let_go(desk)
    assert (first, again) == ([Placement(2, "", False, 2)], [Placement(2, "", True, 2)])


def test_nothing_is_left_of_an_order_that_is_answered_before_it_begins() -> None:
    """An earlier leader's trade under its key may be recorded while the order is in the queue."""
    askers = Askers()
    answers: list[Placement | TwstockError] = []
    askers.open(Asking(order("a"), answers.append, 5.0))
    assert askers.tell("a", Placement(1)) == ()
    assert answers == [Placement(1)]
    assert not any(vars(askers).values())


def test_new_leader_records_what_the_old_one_left(desk: Desk) -> None:
    """A trade whose leader died before recording it becomes an order of the next leader."""
    old = desk.lead(1)
    desk.orders.held = []
    lost = place(old, order("a"))
    old.end()
    desk.orders.held = None
    assert failed(lost) is OutcomeUnknown
    new = desk.lead(2)
    assert desk.orders.state.last_number == 1
    assert place(new, order("a")) == [Placement(1, "", True, 1)]


def test_what_the_old_one_left_may_come_in_several_answers(desk: Desk) -> None:
    """All of it is recorded before anything new is traded, so that numbers have no gap."""
    for number in range(5):
        desk.catalog.apply(DirectTrade(Order(f"d{number}", "FishCo", Side.BUY, 1), 0))
    desk.catalog.list_max = 2
    leading = desk.lead(1)
    assert desk.orders.last_number() == 5
    assert leading.is_serving


def lead_after_a_trade(desk: Desk) -> Leading:
    """A leader whose predecessor left trade 1, of order "a", which waits to be recorded."""
    old = desk.lead(1)
    desk.orders.held = []
    place(old, order("a"))
    old.end()
    desk.orders.held = []
    return desk.lead(2)


def record(desk: Desk) -> None:
    """What waits is recorded, and from now on everything is at once."""
    (commit,), desk.orders.held = desk.orders.held or [], None
    commit()


def test_another_body_under_a_listed_key_has_not_traded(desk: Desk) -> None:
    """While the trade that an old leader left is being recorded, another order under its key waits,
    and is then refused; the same order is a replay.
    """
    new = lead_after_a_trade(desk)
    desk.catalog.held = []
    other, right = place(new, order("a", 50)), place(new, order("a"))
    record(desk)
    assert (other, right) == ([], [])
    let_go(desk)
    assert failed(other) is KeyReused
    assert right == [Placement(1, "", True, 1)]
    assert desk.orders.state.last_number == 1
    assert new.orders_open == 0


def test_an_order_that_is_answered_while_it_waits_answers_nobody_else(desk: Desk) -> None:
    """It is answered when an older leader's trade is recorded. A different order that comes under
    its key before the next batch is judged by itself.
    """
    new = lead_after_a_trade(desk)
    busy(desk, new)
    right = place(new, order("a"))
    record(desk)
    assert right == [Placement(1, "", True, 1)]
    wrong = place(new, order("a", 2))
    let_go(desk)
    assert failed(wrong) is KeyReused
    assert new.orders_open == 0
    assert desk.orders.last_number() == 2


def test_an_order_that_is_answered_while_its_key_is_looked_up_is_not_sent(desk: Desk) -> None:
    """Its trade was recorded after the lookup had begun."""
    new = lead_after_a_trade(desk)
    lookup: Deferred[dict[str, Trade]] = Deferred()
    desk.orders.find_keys = lambda keys: lookup  # type: ignore[method-assign]
    right = place(new, order("a"))
    record(desk)
    lookup.callback({})
    assert right == [Placement(1, "", True, 1)]
    assert [batch.epoch for batch in desk.catalog.batches] == [1]


def test_a_wrong_order_is_refused_though_the_trade_is_recorded_while_it_waits(desk: Desk) -> None:
    """It learns so from its own lookup of the key, and whoever waits behind it gets the trade."""
    new = lead_after_a_trade(desk)
    busy(desk, new)
    wrong, right = place(new, order("a", 2)), place(new, order("a"))
    record(desk)
    let_go(desk)
    assert failed(wrong) is KeyReused
    assert right == [Placement(1, "", True, 1)]
    assert new.orders_open == 0


def test_straggler_of_an_old_term_does_not_trade(desk: Desk) -> None:
    """The fence refuses the old leader's batch. That leader resigns, and its order's outcome is
    unknown to it.
    """
    old = desk.lead(1)
    desk.catalog.held = []
    lost = place(old, order("a"))
    gates, desk.catalog.held = desk.catalog.held, None
    desk.lead(2)
    gates[0].callback(None)
    assert desk.orders.resigned
    old.end()
    assert failed(lost) is OutcomeUnknown
    assert desk.catalog.state.last_transaction == 0


def test_end_tells_apart_what_was_sent(desk: Desk) -> None:
    """An order that was sent to the catalog is unknown; one that was not has certainly had no
    effect.
    """
    leading = desk.lead(1)
    desk.catalog.held = []
    sent = place(leading, order("a"))
    waiting = place(leading, order("b"))
    leading.end()
    assert failed(sent) is OutcomeUnknown
    assert failed(waiting) is Unavailable
    with pytest.raises(Unavailable):
        place(leading, order("c"))


def test_orders_wait_for_fence_and_list(desk: Desk) -> None:
    """No order is taken before the catalog has listed what older leaders left."""
    desk.catalog.lose_requests = 2
    leading = desk.lead(1)
    with pytest.raises(Unavailable):
        place(leading, order("a"))
    desk.run()
    assert place(leading, order("a")) == [Placement(1, "", False, 1)]


def test_catalog_that_lost_trades_is_not_traded_with(desk: Desk) -> None:
    """A catalog with fewer trades than orders are recorded stops the order tier, which says why."""
    desk.lead(1)
    first = desk.lead(2)
    place(first, order("a"))
    first.end()
    desk.catalog = Catalog()
    leading = desk.lead(3)
    desk.run()
    assert not leading.is_serving
    assert leading.reason
    with pytest.raises(Unavailable):
        place(leading, order("b"))


@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("epoch", [1, 2])
def test_orders_that_were_lost_are_missed(desk: Desk, epoch: int, left: int) -> None:
    """Older copies of the order log were put back, and the catalog knows that more was recorded
    than they have. Their leader may even be elected in the epoch of the fence.
    """
    first = desk.lead(1)
    for key in "abc":
        place(first, order(key))
    first.end()
    for number in range(left):  # and nobody has recorded these
        desk.catalog.apply(DirectTrade(order(f"direct-{number}"), 5))
    assert desk.catalog.state.recorded == 2
    desk.orders = Orders()
    leading = desk.lead(epoch)
    desk.run()
    assert not leading.is_serving
    assert "lost orders 1 to 2" in leading.reason
    assert desk.orders.state.last_number == 0
    leading.end()


def test_direct_trades_become_orders_in_time(desk: Desk) -> None:
    """They are listed once a second, and by the next batch."""
    leading = desk.lead(1)
    desk.catalog.apply(DirectTrade(order("direct-1"), 5))
    desk.run(1.1)
    assert desk.orders.state.last_number == 1
    desk.catalog.apply(DirectTrade(order("direct-2"), 5))
    assert place(leading, order("a")) == [Placement(3, "", False, 3)]
    assert desk.orders.state.by_key("direct-2") is not None


def trade_directly(desk: Desk, *keys: str) -> None:
    """Somebody trades at the catalog."""
    for key in keys:
        desk.catalog.apply(DirectTrade(order(key), 5))


def test_the_catalog_learns_without_orders_that_direct_trades_are_recorded(desk: Desk) -> None:
    """It keeps a limited number that it does not know to be recorded, and would refuse more until
    the next order. So a batch without orders tells it.
    """
    desk.lead(1, unrecorded_trades_max=4)
    trade_directly(desk, *"abcd")
    desk.run(2.2)
    assert (desk.orders.last_number(), desk.catalog.state.recorded) == (4, 4)
    index = desk.catalog.index
    desk.run(2.2)
    trade_directly(desk, *"ef")
    desk.run(2.2)
    assert (desk.orders.last_number(), desk.catalog.state.recorded) == (6, 4)
    assert [batch.orders for batch in desk.catalog.batches] == [()]
    assert desk.catalog.index == index + 2 + 4  # two trades, and four lists


def test_few_direct_trades_are_told_after_a_while_and_once(desk: Desk) -> None:
    """The catalog may be configured to keep fewer. A term without trades tells nothing."""
    leading = desk.lead(1)
    desk.run(120)
    assert desk.catalog.batches == []
    trade_directly(desk, "a")
    desk.run(120)
    assert [(batch.recorded, batch.orders) for batch in desk.catalog.batches] == [(1, ())]
    assert desk.catalog.state.recorded == 1
    assert (leading._counts.batch_orders.count, leading._counts.batch_s.count) == (0, 0)


def test_orders_follow_a_batch_of_none(desk: Desk) -> None:
    """A batch without orders is sent again until its outcome is known, brings direct trades, and is
    numbered like any other.
    """
    leading = desk.lead(1, unrecorded_trades_max=4)
    trade_directly(desk, *"abc")
    desk.run(1.2)
    trade_directly(desk, "d")
    desk.catalog.lose_answers = 2  # of the list, and of the batch
    desk.run(1.0)
    desk.catalog.lose_answers = 1
    desk.run(1.2)
    result = place(leading, order("e"))
    assert result == [Placement(5, "", False, 5)]
    assert [(batch.number, len(batch.orders)) for batch in desk.catalog.batches][-1] == (2, 1)


def test_a_batch_of_none_is_taken_back_from_a_full_catalog(desk: Desk) -> None:
    """It is tried again after the next list, under the same number."""
    leading = desk.lead(1, unrecorded_trades_max=2)
    trade_directly(desk, *"ab")
    execute, refused = desk.catalog.execute, list[int]()

    async def full(batch: Batch) -> BatchResult:
        refused.append(batch.number)
        raise DiskFull("full")

    desk.catalog.execute = full  # type: ignore[method-assign]
    desk.run(2.5)
    desk.catalog.execute = execute  # type: ignore[method-assign]
    assert place(leading, order("c")) == [Placement(3, "", False, 3)]
    assert refused == [1, 1]
    assert [batch.number for batch in desk.catalog.batches] == [1]


def test_replays_do_not_put_direct_trades_off(desk: Desk) -> None:
    """Orders that are answered from the records tell nothing about what the catalog has traded, so
    it is still asked.
    """
    leading = desk.lead(1)
    place(leading, order("a"))
    desk.catalog.apply(DirectTrade(order("direct"), 5))
    for _ in range(11):
        assert place(leading, order("a")) == [Placement(1, "", True, 1)]
        desk.run(0.1)
    assert desk.orders.state.last_number == 2


def test_replays_that_are_looked_up_do_not_put_direct_trades_off(desk: Desk) -> None:
    """Even if there are so many that one is always on the desk, while the tables are asked for old
    keys.
    """
    leading = desk.lead(1)
    place(leading, order("a"))
    desk.catalog.apply(DirectTrade(order("direct"), 5))
    trade = desk.orders.state.order(1)
    lookups: list[Deferred[dict[str, Trade]]] = []

    def find_keys(keys: Sequence[str]) -> "Deferred[dict[str, Trade]]":
        lookups.append(Deferred())
        return lookups[-1]

    desk.orders.find_keys = find_keys  # type: ignore[method-assign]
    place(leading, order("a"))
    for number in range(11):
        place(leading, order(f"again-{number}"))
        desk.run(0.1)
        assert trade is not None
        lookups.pop(0).callback({"a": trade, f"again-{number - 1}": trade})
    assert desk.orders.state.last_number == 2


def test_a_slow_reconciliation_is_not_followed_by_another(desk: Desk) -> None:
    """What waits has its turn between two lists of direct trades, however long one takes."""
    leading = desk.lead(1)
    desk.catalog.held = []
    desk.run(1.1)
    place(leading, order("a"))
    desk.run(2.0)
    assert desk.catalog.batches == []
    (listing,) = desk.catalog.held
    listing.errback(OutcomeUnknown("out of time"))
    assert len(desk.catalog.batches) == 1


@pytest.mark.parametrize("error", [Overloaded("busy"), OutcomeUnknown("gone")])
def test_orders_that_come_do_not_end_a_pause(desk: Desk, error: Exception) -> None:
    """A catalog that fails is asked once in a while, however many orders wait."""
    leading = desk.lead(1)
    desk.catalog.refuse = error
    results = [place(leading, order(key)) for key in "abcd"]
    assert len(desk.catalog.batches) == 1
    leading.end()
    assert desk.clock.getDelayedCalls() == []
    assert [len(result) for result in results] == [1, 1, 1, 1]


def test_orders_that_come_do_not_end_the_pause_of_a_new_leader(desk: Desk) -> None:
    """Nor do requests whose orders are all refused, because it does not serve yet."""
    desk.catalog.lose_requests = 2
    leading = desk.lead(1)
    leading.go()
    leading.go()
    assert desk.catalog.lose_requests == 1
    assert not leading.is_serving
    desk.run()
    assert leading.is_serving


def test_what_queues_nothing_wakes_nobody(desk: Desk) -> None:
    """A request whose orders were all refused does not make the leader ask the catalog."""
    leading = desk.lead(1)
    before = desk.catalog.index, [*desk.clock.getDelayedCalls()]
    leading.go()
    assert (desk.catalog.index, desk.clock.getDelayedCalls()) == before


def test_recording_is_tried_until_there_is_room(desk: Desk) -> None:
    """A leader that cannot propose for a while (it gives way, or its disk is full) leaves no
    gap.
    """
    leading = desk.lead(1)
    desk.orders.refuse = NotLeader(3)
    results = place(leading, order("a"))
    desk.run()
    assert results == []
    desk.orders.refuse = None
    desk.run()
    assert results == [Placement(1, "", False, 1)]
    assert place(leading, order("b")) == [Placement(2, "", False, 2)]


def test_who_asks_again_when_many_do_is_not_told_that_nothing_happened(desk: Desk) -> None:
    """Beyond the bound of those who join, the outcome is unknown, for the order is under way. Those
    who joined are answered.
    """
    leading = desk.lead(1)
    desk.catalog.refuse = Overloaded("busy")
    results = [place(leading, order("a")) for _ in range(5)]  # one, and four that join it
    with pytest.raises(OutcomeUnknown):
        place(leading, order("a"))
    desk.catalog.refuse = None
    desk.run()
    assert results == [[Placement(1, "", i > 0, 1)] for i in range(5)]


def test_a_busy_catalog_is_asked_again(desk: Desk) -> None:
    """No order is lost because it is busy for a moment."""
    leading = desk.lead(1)
    desk.catalog.refuse = Overloaded("busy")
    results = place(leading, order("a"))
    desk.run()
    assert results == []
    desk.catalog.refuse = None
    desk.run()
    assert results == [Placement(1, "", False, 1)]


def test_a_batch_that_is_too_large_for_the_catalog_is_taken_back(desk: Desk) -> None:
    """The catalog may have other settings for a while. Nothing has happened, no single order is to
    blame, and others go on.
    """
    leading = desk.lead(1)
    desk.catalog.refuse = InvalidRequest("command", "expected at most 9 bytes")
    assert failed(place(leading, order("a"))) is Overloaded
    desk.catalog.refuse = None
    assert place(leading, order("b")) == [Placement(1, "", False, 1)]


def test_a_batch_that_has_no_room_is_taken_back(desk: Desk) -> None:
    """Whoever waits is told that nothing has happened, and the next batch has the same number."""
    leading = desk.lead(1)
    desk.catalog.refuse = DiskFull("full")
    first, again = (place(leading, order("a")) for _ in range(2))
    assert (failed(first), failed(again)) == (DiskFull, DiskFull)
    desk.catalog.refuse = None
    assert place(leading, order("b")) == [Placement(1, "", False, 1)]
    assert place(leading, order("a")) == [Placement(2, "", False, 2)]
    assert [batch.number for batch in desk.catalog.batches] == [1, 1, 1, 2]


def test_who_comes_while_a_batch_is_taken_back_is_answered_once_and_truly(desk: Desk) -> None:
    """A caller may ask for the next order of the batch from inside its answer: it joins that order,
    which has its answer still to come, and nothing that is refused trades later.
    """
    leading = desk.lead(1)
    busy(desk, leading)
    joined: list[object] = []
    leading.place(order("a"), lambda _: leading.place(order("b"), joined.append))
    second = place(leading, order("b"))
    desk.catalog.refuse = DiskFull("full")
    let_go(desk)
    desk.catalog.refuse = None
    desk.run()
    assert (failed(second), failed(joined)) == (DiskFull, DiskFull)
    assert desk.orders.last_number() == 1
    assert leading.orders_open == 0


def test_a_batch_that_may_have_got_through_is_not_taken_back(desk: Desk) -> None:
    """The catalog has no room now, but the answer to an earlier attempt was lost."""
    leading = desk.lead(1)
    desk.catalog.lose_answers = 1
    results = place(leading, order("a"))
    desk.catalog.refuse = DiskFull("full")
    desk.run()
    assert results == []
    desk.catalog.refuse = None
    desk.run()
    assert results == [Placement(1, "", False, 1)]


def test_desk_is_bounded(desk: Desk) -> None:
    """Beyond the limit orders are refused at once."""
    leading = desk.lead(1)
    desk.catalog.held = []
    for key in "abcd":
        place(leading, order(key))
    with pytest.raises(Overloaded):
        place(leading, order("e"))


# --- the caches ----------------------------------------------------------------------------------


def hiding(desk: Desk) -> Leading:
    """A leader that serves, at a catalog whose front-ends hide what is new."""
    leading = desk.lead(1)
    desk.catalog.hides = True
    return leading


def test_an_order_is_recorded_while_caches_are_told(desk: Desk) -> None:
    """It is recorded at once, but answered only when it is recorded and no cache hides it."""
    leading = hiding(desk)
    results = place(leading, order("a"))
    assert desk.orders.state.last_number == 1
    assert [versions for versions, _ in desk.catalog.asked] == [{"GameStart": 1}]
    assert results == []
    desk.catalog.publish()
    assert results == [Placement(1, "", False, 1)]
    assert leading.orders_open == 0


def test_an_order_that_is_published_waits_for_its_record(desk: Desk) -> None:
    """Whichever comes last brings the answer."""
    leading = hiding(desk)
    desk.orders.held = []
    results = place(leading, order("a"))
    desk.catalog.publish()
    assert results == []
    desk.orders.held.pop()()
    assert results == [Placement(1, "", False, 1)]


def test_what_no_cache_holds_is_not_asked_about(desk: Desk) -> None:
    """The catalog says so with the outcome, so the answer takes no further call."""
    leading = desk.lead(1)
    before = desk.catalog.questions
    assert place(leading, order("a")) == [Placement(1, "", False, 1)]
    assert desk.catalog.questions == before


def test_the_next_batch_does_not_wait_for_the_caches(desk: Desk) -> None:
    """Each batch has a question of its own about the caches; what no cache hides is answered at
    once.
    """
    leading = hiding(desk)
    first, second = place(leading, order("a")), place(leading, order("b"))
    assert [batch.number for batch in desk.catalog.batches] == [1, 2]
    assert desk.orders.state.last_number == 2
    assert [versions for versions, _ in desk.catalog.asked] == [{"GameStart": 1}, {"GameStart": 2}]
    desk.catalog.hides = False
    assert place(leading, order("c", 1, "FishCo")) == [Placement(3, "", False, 1)]
    assert (first, second) == ([Placement(1, "", False, 1)], [Placement(2, "", False, 2)])


def test_questions_are_bounded_and_what_is_more_gathers(desk: Desk) -> None:
    """Only so many wait at the catalog; the next one asks for everything that came meanwhile."""
    leading = hiding(desk)
    names = ("GameStart", "GameStart", "FishCo", "GameStart")
    results = [place(leading, order(f"k{n}", 1, name)) for n, name in enumerate(names)]
    assert [versions for versions, _ in desk.catalog.asked] == [{"GameStart": 1}, {"GameStart": 2}]
    first, desk.catalog.asked = desk.catalog.asked[0][1], desk.catalog.asked[1:]
    first.callback(None)
    assert [len(result) for result in results] == [1, 0, 0, 0]
    assert desk.catalog.asked[1][0] == {"FishCo": 1, "GameStart": 3}
    desk.catalog.publish()
    assert [len(result) for result in results] == [1, 1, 1, 1]


def test_no_question_is_larger_than_every_catalog_takes(desk: Desk) -> None:
    """Whatever ``page_max`` is here."""
    desk.limits = replace(desk.limits, page_max=2 * CALL_ITEMS_MAX)
    leading = hiding(desk)
    leading._reception.learn_unpublished({f"S{number}": 1 for number in range(CALL_ITEMS_MAX + 1)})
    asked = leading._reception.question(), leading._reception.question()
    assert [len(question.versions) for question in asked if question] == [CALL_ITEMS_MAX, 1]


def test_a_retry_waits_for_the_caches_too(desk: Desk) -> None:
    """The order is recorded, but whoever asks again must not hear of it while a cache may hide
    it.
    """
    leading = hiding(desk)
    first = place(leading, order("a"))
    assert desk.orders.state.by_key("a") is not None
    again, other = place(leading, order("a")), place(leading, order("a", 2))
    assert (first, again, other) == ([], [], [])
    desk.catalog.publish()
    assert failed(other) is KeyReused
    assert first == [Placement(1, "", False, 1)]
    assert again == [Placement(1, "", True, 1)]
    assert place(leading, order("a")) == [Placement(1, "", True, 1)]
    assert [batch.number for batch in desk.catalog.batches] == [1]


def test_a_key_from_the_records_waits_for_the_caches_too(desk: Desk) -> None:
    """A recorded order that nobody has placed at this leader may be unpublished as well."""
    leading = hiding(desk)
    desk.catalog.apply(DirectTrade(order("direct"), 5))
    place(leading, order("a", 1, "FishCo"))
    assert desk.orders.state.by_key("direct") is not None
    retry, other = place(leading, order("direct")), place(leading, order("b", 1, "FishCo"))
    assert (retry, other) == ([], [])
    leading.go()
    desk.catalog.publish()
    assert retry == [Placement(1, "", True, 1)]
    assert other == [Placement(3, "", False, 2)]


def test_a_key_with_another_body_in_the_records_waits_too(desk: Desk) -> None:
    """Being refused for the key tells of the trade. Whoever waits for that key goes on at once."""
    leading = hiding(desk)
    desk.catalog.apply(DirectTrade(order("direct"), 5))
    place(leading, order("a", 1, "FishCo"))
    reused, right = place(leading, order("direct", 7)), place(leading, order("direct"))
    assert (reused, right) == ([], [])
    desk.catalog.publish()
    assert failed(reused) is KeyReused
    assert right == [Placement(1, "", True, 1)]


def test_a_refusal_waits_for_the_trade_that_caused_it(desk: Desk) -> None:
    """Who is told "not enough" must not be shown afterwards that there is enough."""
    leading = hiding(desk)
    bought = place(leading, order("a", 100))
    refused = place(leading, order("b", 1))
    again = place(leading, order("b", 1))
    assert (bought, refused, again) == ([], [], [])
    desk.catalog.publish()
    assert bought == [Placement(1, "", False, 1)]
    assert refused == [Placement(refusal="not enough stocks left to buy")]
    assert again == [Placement(refusal="not enough stocks left to buy", replayed=True)]


def test_a_question_is_asked_until_it_is_answered(desk: Desk) -> None:
    """A catalog that has died or leads no more is asked again, or its successor is."""
    leading = hiding(desk)
    desk.catalog.held = []
    results = place(leading, order("a"))
    gates, desk.catalog.held = desk.catalog.held, None
    desk.catalog.lose_requests = 2
    gates[0].callback(None)
    assert desk.catalog.asked == []
    desk.run()
    (question,) = desk.catalog.asked
    question[1].errback(OutcomeUnknown("leadership was lost"))
    desk.catalog.asked.clear()
    desk.run()
    assert results == []
    desk.catalog.publish()
    assert results == [Placement(1, "", False, 1)]


def test_the_end_leaves_open_what_a_cache_may_hide(desk: Desk) -> None:
    """The order is recorded, so its caller must not be told that nothing has happened."""
    leading = hiding(desk)
    desk.catalog.apply(DirectTrade(order("direct"), 5))
    waiting = [place(leading, order("a", 1, "FishCo")), place(leading, order("b", 101))]
    waiting.append(place(leading, order("direct")))
    leading.end()
    assert [failed(results) for results in waiting] == [OutcomeUnknown] * 3
    desk.catalog.publish()
    desk.run()
    assert [len(results) for results in waiting] == [1, 1, 1]
    assert desk.clock.getDelayedCalls() == []


def test_orders_that_wait_for_the_caches_fill_the_desk(desk: Desk) -> None:
    """So the number of answers that wait is bounded."""
    leading = hiding(desk)
    for key in "abcd":
        place(leading, order(key))
    assert desk.orders.state.last_number == 4
    with pytest.raises(Overloaded):
        place(leading, order("e"))
    desk.catalog.publish()
    desk.catalog.hides = False
    assert place(leading, order("e")) == [Placement(5, "", False, 5)]


def test_a_new_leader_does_not_serve_before_everything_is_published(desk: Desk) -> None:
    """It would answer from its records what the leader before has recorded, while a cache may still
    hide it.
    """
    old = hiding(desk)
    place(old, order("a"))
    old.end()
    new = desk.lead(2)
    desk.run()
    with pytest.raises(Unavailable):
        place(new, order("a"))
    desk.catalog.publish()
    desk.catalog.hides = False
    assert place(new, order("a")) == [Placement(1, "", True, 1)]
