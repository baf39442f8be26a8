"""The catalog's calls, on a member that commits at once."""

import gc
import importlib.resources
import itertools
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from tests.test_process_module import ReactorDouble
from twstock.catalog.invalidation import Publisher
from twstock.catalog.requests import EPOCHS_AHEAD_MAX
from twstock.catalog.seed import STOCK_BYTES, STOCKS_MAX, parse_seed, read_seed
from twstock.catalog.service import Catalog
from twstock.catalog.sessions import Sessions
from twstock.catalog.state import CatalogState
from twstock.catalog.tap import build
from twstock.config import DEFAULT_TIMINGS, Limits, default_cluster
from twstock.errors import (
    ConfigError,
    CorruptStorage,
    DiskFull,
    InvalidRequest,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    StaleEpoch,
    TwstockError,
    Unavailable,
)
from twstock.market import (
    CALL_ITEMS_MAX,
    PRICE_CENTS_MAX,
    QUANTITY_MAX,
    Batch,
    BeginEpoch,
    Order,
    Refusal,
    RefusalBounds,
    Seed,
    Side,
    Stock,
    Verdict,
)
from twstock.replication.member import Member
from twstock.replication.messages import Timings
from twstock.rpc import calls
from twstock.rpc.calls import (
    LOOKUPS_MAX,
    AtOnce,
    AwaitPublished,
    ExecutedTrades,
    Lease,
    Lookup,
    LookupMany,
    Placement,
    PlaceOrder,
    Published,
    Register,
    StockPage,
    Verdicts,
)
from twstock.rpc.wire.commands import encode_catalog_command

T = TypeVar("T")
LIMITS = Limits()
LEASE_S = LIMITS.cache_lease_s


class FakeMember:
    """The only member of its group: what is proposed is applied at once, or when ``commit``
    is called.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.machine: Any = CatalogState(1000, 1e9)
        self.leads = True
        self.giving_way = False
        self.lease = float("inf")
        self.holds_back = False
        self.error: TwstockError | None = None
        self.proposed: list[tuple[bytes, Deferred[Any]]] = []
        self._indices = itertools.count(1)

    def propose(self, payload: bytes) -> "Deferred[Any]":
        """Commit, unless held back."""
        if self.error is not None:
            raise self.error
        result: Deferred[Any] = Deferred()
        self.proposed.append((payload, result))
        if not self.holds_back:
            self.commit()
        return result

    def commit(self) -> None:
        """Apply what has been proposed."""
        while self.proposed:
            payload, result = self.proposed.pop(0)
            result.callback(self.machine.apply(next(self._indices), payload).result)

    def is_giving_way(self) -> bool:
        """Whether it is handing over."""
        return self.giving_way

    def lease_until(self) -> float:
        """Until when it may read."""
        return self.lease

    def not_leading(self) -> TwstockError:
        """Somebody else leads."""
        return NotLeader(3)

    def check_leads(self) -> None:
        """Whether it leads."""
        if not self.leads:
            raise self.not_leading()

    def check_lease(self) -> None:
        """Whether it may read."""
        self.check_leads()
        if self._clock.seconds() >= self.lease:
            raise Unavailable("no lease")


class FakeFronts:
    """Front-ends that answer invalidations at once, or not at all."""

    def __init__(self) -> None:
        self.silent = False
        self.told: list[str] = []

    def request(self, method: str, url: str, **_kwargs: Any) -> "Deferred[Any]":
        """Note what was told."""
        self.told.append(url)
        return Deferred() if self.silent else succeed(self)

    code = 200

    def content(self) -> "Deferred[bytes]":
        """No body."""
        return succeed(b"")


class Scene:
    """A catalog that leads alone, filled from the default file, its first wait over."""

    def __init__(self, seed: Seed | None = None) -> None:
        self.clock = Clock()
        self.member = FakeMember(self.clock)
        self.fronts = FakeFronts()
        sessions = Sessions(LEASE_S)
        self.catalog = Catalog(
            self.member,
            sessions,
            Publisher(sessions, self.fronts, self.clock, LIMITS, Failure.raiseException),
            lambda: seed or read_seed(None, LIMITS.message_bytes_max),
            [1, 2],
            self.clock,
            LIMITS,
            lambda: 1_700_000_000_000,
            map(str, itertools.count(1)).__next__,
            Failure.raiseException,
        )

    def lead(self) -> None:
        """Leadership begins and the wait after it passes."""
        self.catalog.begin(1)
        self.clock.advance(LEASE_S)

    def lookup(self, name: str, front_id: int = 0) -> Stock | None:
        """The answer to a lookup."""
        return result_of(self.catalog.lookup(Lookup(name, front_id, f"s{front_id}")))

    def trade(self, type_: str, quantity: int, name: str = "GameStart") -> Placement:
        """The answer to the original's single trade."""
        answer = result_of(self.catalog.trade(PlaceOrder("", name, type_, quantity)))
        assert isinstance(answer, Placement)
        return answer

    def register(self, front_id: int = 1) -> Lease:
        """The answer to a front-end's registration."""
        request = Register(front_id, f"http://front{front_id}", f"s{front_id}")
        return result_of(self.catalog.register(request))


@pytest.fixture
def scene() -> Scene:
    """A catalog that serves."""
    made = Scene()
    made.lead()
    return made


def result_of(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a call that is over; raises its error."""
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    assert results, "the call is still waiting"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def begun(coroutine: Coroutine[Any, Any, T]) -> list[Any]:
    """A list that gets the result of a call, or its Failure."""
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    return results


def batch(number: int, *orders: Order, recorded: int = 0, known: int = 0, epoch: int = 1) -> Batch:
    """A batch of an order leader."""
    return Batch(epoch, number, recorded, known, 5, orders)


def order(key: str, quantity: int = 1, name: str = "GameStart") -> Order:
    """An order to buy."""
    return Order(key, name, Side.BUY, quantity)


# --- the original's tests ----------------------------------------------------------------------


def test_lookup_valid(scene: Scene) -> None:
    """A stock of the catalog is found with its price and quantity."""
    assert scene.lookup("GameStart") == Stock("GameStart", 1599, 100, 0, 0, 100)


def test_lookup_invalid(scene: Scene) -> None:
    """A stock that is not in the catalog is not found."""
    assert scene.lookup("NoSuchStock") is None


def test_many_lookups_are_answered_by_place(scene: Scene) -> None:
    """Each name has one answer, in its place, also a name that is unknown or comes twice."""
    names = ("FishCo", "Unknown", "GameStart", "FishCo")
    found = result_of(scene.catalog.lookup_many(LookupMany(names)))
    assert found.stocks == tuple(scene.lookup(name) for name in names)
    assert found.stocks[1] is None


def test_whoever_looks_up_many_holds_each_of_them(scene: Scene) -> None:
    """The session is noted for each name before the answer leaves: a trade of any of them waits for
    that session.
    """
    scene.register()
    scene.fronts.silent = True
    result_of(scene.catalog.lookup_many(LookupMany(("FishCo", "GameStart"), 1, "s1")))
    for name in ("FishCo", "GameStart"):
        assert begun(scene.catalog.trade(PlaceOrder("", name, "buy", 1))) == []
        [shown] = result_of(scene.catalog.lookup_many(LookupMany((name,)))).stocks
        assert shown is not None
        assert shown.version == 0, "what a cache may still hide is not shown"
    assert scene.trade("buy", 1, "BoarCo").number == 3


def test_many_lookups_without_a_live_session_hold_nothing(scene: Scene) -> None:
    """No trade waits for a lookup without a session, with another front-end's session, or with one
    that is over.
    """
    scene.register()
    scene.fronts.silent = True
    for front_id, session in ((0, ""), (1, "s0"), (2, "s1")):
        result_of(scene.catalog.lookup_many(LookupMany(("FishCo",), front_id, session)))
    assert scene.trade("buy", 1, "FishCo").number == 1
    scene.clock.advance(LEASE_S)
    result_of(scene.catalog.lookup_many(LookupMany(("FishCo",), 1, "s1")))
    assert scene.trade("buy", 1, "FishCo").number == 2
    assert scene.fronts.told == []


def test_too_many_lookups_at_once_are_refused(scene: Scene) -> None:
    """An answer has to fit into a message."""
    names = ("FishCo",) * LIMITS.page_max
    assert len(result_of(scene.catalog.lookup_many(LookupMany(names))).stocks) == len(names)
    with pytest.raises(InvalidRequest, match="stock_names"):
        result_of(scene.catalog.lookup_many(LookupMany((*names, "FishCo"))))


def test_as_many_lookups_as_a_front_end_sends_are_answered(scene: Scene) -> None:
    """A front-end may still have a larger ``page_max`` than this catalog, while settings are
    changed on one machine after the other.
    """
    scene.catalog._limits = replace(LIMITS, page_max=10)
    names = ("FishCo",) * LOOKUPS_MAX
    assert len(result_of(scene.catalog.lookup_many(LookupMany(names))).stocks) == len(names)
    with pytest.raises(InvalidRequest, match="stock_names"):
        result_of(scene.catalog.lookup_many(LookupMany((*names, "FishCo"))))


def test_trade_buy_valid(scene: Scene) -> None:
    """Buying lowers the quantity and counts into the volume."""
    assert scene.trade("buy", 10) == Placement(number=1, version=1)
    assert scene.lookup("GameStart") == Stock("GameStart", 1599, 90, 10, 1, 100)


def test_trade_sell_valid(scene: Scene) -> None:
    """Selling raises the quantity and counts into the volume."""
    assert scene.trade("sell", 10) == Placement(number=1, version=1)
    assert scene.lookup("GameStart") == Stock("GameStart", 1599, 110, 10, 1, 100)


def test_trade_buy_invalid(scene: Scene) -> None:
    """More than there is cannot be bought, and nothing changes."""
    assert scene.trade("buy", 101) == Placement(refusal="not enough stocks left to buy")
    assert scene.lookup("GameStart") == Stock("GameStart", 1599, 100, 0, 0, 100)


# --- single trades -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "type_", "quantity", "words"),
    [
        ("GameStart", "swap", -1, "invalid transaction type"),
        ("Nothing", "buy", 0, "num stocks traded should be non negative"),
        ("Nothing", "buy", 1, "invalid stock name"),
        ("", "buy", 1, "invalid stock name"),
        ("N" * 256, "buy", 1, "invalid stock name"),
    ],
)
def test_single_trades_are_refused_in_the_seed_s_words(
    scene: Scene, name: str, type_: str, quantity: int, words: str
) -> None:
    """Type, then quantity, then name: the original's sequence."""
    assert scene.trade(type_, quantity, name) == Placement(refusal=words)


@pytest.mark.parametrize(
    "request_",
    [
        PlaceOrder("key", "GameStart", "buy", 1),
        PlaceOrder("", "GameStart", "buy", QUANTITY_MAX + 1),
    ],
)
def test_what_must_not_reach_the_log_is_refused(scene: Scene, request_: PlaceOrder) -> None:
    """A single trade with a key (only the order leader can promise to trade once), or with a
    quantity that is too large.
    """
    scene.member.holds_back = True
    with pytest.raises(InvalidRequest):
        result_of(scene.catalog.trade(request_))
    assert scene.member.proposed == []


def test_single_trades_are_listed_to_the_order_leader(scene: Scene) -> None:
    """Each has a key of its own, and is listed with the next batch so that it becomes an order."""
    scene.trade("buy", 1)
    scene.trade("buy", 1)
    result_of(scene.catalog.begin_epoch(BeginEpoch(1, 2)))
    result = result_of(scene.catalog.trade(batch(1, order("k"))))
    assert isinstance(result, Verdicts)
    assert [(t.number, t.order.key) for t in result.others] == [(1, "1"), (2, "2")]
    assert [verdict.number for verdict in result.verdicts] == [3]


# --- the order leader -----------------------------------------------------------------------------


def test_a_batch_of_a_replaced_leader_is_refused(scene: Scene) -> None:
    """The answer is an error of its own, so that the leader steps down."""
    result_of(scene.catalog.begin_epoch(BeginEpoch(2, 0)))
    with pytest.raises(StaleEpoch):
        result_of(scene.catalog.trade(batch(1, order("k"), epoch=1)))
    with pytest.raises(StaleEpoch):
        result_of(scene.catalog.begin_epoch(BeginEpoch(1, 0)))


def test_an_epoch_that_no_election_can_have_led_to_is_refused(scene: Scene) -> None:
    """If it were believed once, every later order leader would be fenced off. The highest epoch
    that is plausible is believed.
    """
    result_of(scene.catalog.begin_epoch(BeginEpoch(5, 0)))
    scene.member.holds_back = True
    for absurd in (5 + EPOCHS_AHEAD_MAX + 1, 2**40, 2**63 - 1):
        with pytest.raises(InvalidRequest, match="epoch: no election"):
            result_of(scene.catalog.begin_epoch(BeginEpoch(absurd, 0)))
    assert scene.member.proposed == []
    scene.member.holds_back = False
    result_of(scene.catalog.begin_epoch(BeginEpoch(5 + EPOCHS_AHEAD_MAX, 0)))
    assert scene.member.machine.fence == 5 + EPOCHS_AHEAD_MAX


def test_a_batch_raises_no_fence(scene: Scene) -> None:
    """A batch of a newer epoch than the fence is refused, and the fence stays."""
    result_of(scene.catalog.begin_epoch(BeginEpoch(1, 0)))
    for epoch in (2, 2**40):
        with pytest.raises(StaleEpoch):
            result_of(scene.catalog.trade(batch(1, order("k"), epoch=epoch)))
    assert scene.member.machine.fence == 1


def test_listing_again_does_not_make_the_log_grow(scene: Scene) -> None:
    """A leader with a lease answers BeginEpoch of the fence's own epoch from its state; without a
    lease it asks the log.
    """
    result_of(scene.catalog.begin_epoch(BeginEpoch(1, 0)))
    scene.trade("buy", 1)
    scene.member.holds_back = True
    listed = result_of(scene.catalog.begin_epoch(BeginEpoch(1, 0)))
    assert [t.number for t in listed.trades] == [1]
    scene.member.lease = scene.clock.seconds()
    waiting = begun(scene.catalog.begin_epoch(BeginEpoch(1, 0)))
    assert waiting == []
    scene.member.commit()
    assert waiting == [listed]


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_loss_is_refused_loudly(scene: Scene, epoch: int) -> None:
    """An order leader that knows a trade which the catalog does not know is refused, and the
    catalog logs it as critical.
    """
    result_of(scene.catalog.begin_epoch(BeginEpoch(1, 0)))
    with capturedLogs() as logged, pytest.raises(CorruptStorage, match="trades 1 to 5"):
        result_of(scene.catalog.begin_epoch(BeginEpoch(epoch, 5)))
    assert [str(event["log_level"]) for event in logged] == ["<LogLevel=critical>"]


def test_after_a_loss_nothing_is_read_traded_or_cached(scene: Scene) -> None:
    """What is left contradicts earlier answers. When the order leader lists its trades without
    missing any, because somebody has put the data back, all goes on.
    """
    assert scene.register().seconds > 0
    scene.member.holds_back = True
    for _ in range(2):  # without an entry of the log, which would grow for ever
        with pytest.raises(CorruptStorage):
            result_of(scene.catalog.begin_epoch(BeginEpoch(1, 5)))
    scene.member.holds_back = False
    for refused in (lambda: scene.lookup("FishCo"), lambda: scene.trade("buy", 1)):
        with pytest.raises(Unavailable, match="lost trades 1 to 5"):
            refused()
    assert "lost trades 1 to 5" in scene.catalog.reason
    assert scene.register().seconds == 0
    result_of(scene.catalog.begin_epoch(BeginEpoch(1, 0)))
    assert scene.lookup("FishCo") is not None
    assert scene.trade("buy", 1).number == 1
    assert scene.register().seconds > 0


def test_orders_that_their_replicas_have_lost_are_no_loss_of_stocks(scene: Scene) -> None:
    """Stocks are as they were answered before, so they can be looked up."""
    result_of(scene.catalog.begin_epoch(BeginEpoch(1, 0)))
    scene.trade("buy", 1)
    result_of(scene.catalog.trade(batch(1, order("k"), recorded=1, known=1)))
    with pytest.raises(CorruptStorage, match="the order replicas have lost"):
        result_of(scene.catalog.begin_epoch(BeginEpoch(2, 0)))
    assert scene.lookup("FishCo") is not None
    assert scene.register().seconds > 0


def test_a_loss_is_told_once_for_each_reason(scene: Scene) -> None:
    """The order leader asks again and again and is refused each time, but the log says each reason
    once.
    """
    with capturedLogs() as logged:
        for known in (5, 5, 5, 6, 6):
            with pytest.raises(CorruptStorage):
                result_of(scene.catalog.begin_epoch(BeginEpoch(1, known)))
    told = [event["reason"] for event in logged]
    assert [reason.partition(" to ")[2][0] for reason in told] == ["5", "6"]


@pytest.mark.parametrize(
    "wrong",
    [
        order(""),
        order("k" * 256),
        order("k", 0),
        order("k", QUANTITY_MAX + 1),
        order("k", 1, "G" * 256),
    ],
)
def test_a_malformed_batch_is_refused(scene: Scene, wrong: Order) -> None:
    """One malformed order is enough; nothing of the batch reaches the log."""
    result_of(scene.catalog.begin_epoch(BeginEpoch(1, 0)))
    scene.member.holds_back = True
    with pytest.raises(InvalidRequest):
        result_of(scene.catalog.trade(batch(1, order("fine"), wrong)))
    assert scene.member.proposed == []


def test_a_batch_of_too_many_orders_is_refused(scene: Scene) -> None:
    """It does not reach the log. One of as many as any order leader may send is taken, whatever
    is configured here: the leader may have been started with other settings.
    """
    result_of(scene.catalog.begin_epoch(BeginEpoch(1, 0)))
    orders = [order(f"k{number}", 1, "Nobody") for number in range(CALL_ITEMS_MAX + 1)]
    assert LIMITS.batch_orders_max < CALL_ITEMS_MAX
    answer = result_of(scene.catalog.trade(batch(1, *orders[1:])))
    assert isinstance(answer, Verdicts)
    assert len(answer.verdicts) == CALL_ITEMS_MAX
    scene.member.holds_back = True
    with pytest.raises(InvalidRequest, match="batch: expected at most"):
        result_of(scene.catalog.trade(batch(2, *orders)))
    assert scene.member.proposed == []


@pytest.mark.parametrize("error", [DiskFull("full"), NotLeader(2), OutcomeUnknown("lost")])
def test_the_member_s_errors_reach_the_caller(scene: Scene, error: TwstockError) -> None:
    """The caller is told whether nothing happened or the outcome is unknown."""
    scene.member.error = error
    with pytest.raises(type(error)):
        scene.trade("buy", 1)


# --- caches -------------------------------------------------------------------------------------


def test_a_trade_waits_for_the_caches_and_lookups_do_not_run_ahead(scene: Scene) -> None:
    """Until each front-end that holds the stock was told, or its lease is over, everybody sees the
    version before.
    """
    assert scene.register() == Lease(LEASE_S, True)
    scene.lookup("GameStart", 1)
    scene.fronts.silent = True
    waiting = begun(scene.catalog.trade(PlaceOrder("", "GameStart", "buy", 1)))
    assert scene.fronts.told == ["http://front1/delete/GameStart?version=1"]
    before = scene.lookup("GameStart")
    assert before is not None
    assert before.version == 0
    listed = result_of(scene.catalog.list_stocks(StockPage("G", 1)))
    assert listed.stocks[0].version == 0
    scene.clock.advance(LEASE_S)
    assert waiting == [Placement(number=1, version=1)]
    after = scene.lookup("GameStart")
    assert after is not None
    assert after.version == 1


def test_a_refusal_waits_for_the_trade_that_caused_it(scene: Scene) -> None:
    """Whoever is told "not enough" must not see afterwards that there was enough."""
    result_of(scene.catalog.begin_epoch(BeginEpoch(1, 0)))
    scene.register()
    scene.lookup("GameStart", 1)
    scene.fronts.silent = True
    bought = begun(scene.catalog.trade(PlaceOrder("", "GameStart", "buy", 100)))
    refused = begun(scene.catalog.trade(batch(1, order("k"), known=1)))
    assert (bought, refused) == ([], [])
    scene.clock.advance(LEASE_S)
    assert bought == [Placement(number=1, version=1)]
    assert [verdict.refusal for verdict in refused[0].verdicts] == [Refusal.NOT_ENOUGH]


def test_no_more_trades_are_listed_than_a_message_takes(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer also has the number of the last trade, which tells that there are more."""
    for _ in range(3):
        scene.trade("buy", 1)
    monkeypatch.setattr(calls, "TRADE_BYTES", LIMITS.message_bytes_max)
    assert [
        ([trade.number for trade in listed.trades], listed.last_number)
        for after in range(4)
        if (listed := result_of(scene.catalog.begin_epoch(BeginEpoch(1, after))))
    ] == [([1], 3), ([2], 3), ([3], 3), ([], 3)]


def test_listed_trades_are_published_before_they_are_listed(scene: Scene) -> None:
    """A new order leader may acknowledge them at once, so no cache may hide them any more."""
    scene.register()
    scene.lookup("GameStart", 1)
    scene.fronts.silent = True
    begun(scene.catalog.trade(PlaceOrder("", "GameStart", "buy", 1)))
    listed = begun(scene.catalog.begin_epoch(BeginEpoch(1, 0)))
    assert listed == []
    scene.clock.advance(LEASE_S)
    assert [t.number for t in listed[0].trades] == [1]


def test_a_batch_waits_until_the_trades_that_it_lists_are_published(scene: Scene) -> None:
    """A direct trade that the batch lists may be acknowledged by the order leader at once, so no
    cache may hide it any more.
    """
    result_of(scene.catalog.begin_epoch(BeginEpoch(1, 0)))
    scene.register()
    scene.lookup("GameStart", 1)
    scene.fronts.silent = True
    begun(scene.catalog.trade(PlaceOrder("", "GameStart", "buy", 1)))
    waiting = begun(scene.catalog.trade(batch(1, order("k", 1, "FishCo"))))
    assert waiting == []
    scene.clock.advance(LEASE_S)
    assert [trade.number for trade in waiting[0].others] == [1]


def test_a_lease_is_never_longer_than_the_leader_s_own(scene: Scene) -> None:
    """So all leases of front-ends are over before another catalog can lead."""
    scene.member.lease = scene.clock.seconds() + 0.1
    assert scene.register().seconds == pytest.approx(0.1)
    scene.member.lease = scene.clock.seconds()
    assert scene.register(2).seconds == 0


def test_a_leader_that_gives_way_grants_no_lease(scene: Scene) -> None:
    """It lets all leases run out before it hands over."""
    scene.member.giving_way = True
    assert scene.register().seconds == 0


@pytest.mark.parametrize(
    "request_",
    [
        Register(3, "http://front3", "s"),
        Register(1, "ftp://front1", "s"),
        Register(1, "http://" + "f" * 300, "s"),
        Register(1, "http://front1", ""),
        Register(1, "http://front1", "s" * 300),
    ],
)
def test_only_front_ends_of_the_cluster_register(scene: Scene, request_: Register) -> None:
    """A number that is not configured, a malformed address or a malformed session is refused. So
    the number of sessions is bounded, and their size.
    """
    with pytest.raises(InvalidRequest):
        result_of(scene.catalog.register(request_))


# --- answered at once -----------------------------------------------------------------------------


def hiding(scene: Scene) -> Scene:
    """A catalog whose front-end holds a stock and keeps silent; an order leader is at work."""
    result_of(scene.catalog.begin_epoch(BeginEpoch(1, 0)))
    scene.register()
    scene.lookup("GameStart", 1)
    scene.fronts.silent = True
    return scene


def at_once(scene: Scene, asked: Batch) -> Verdicts:
    """The answer to a batch that waits for no cache."""
    answer = result_of(scene.catalog.trade(AtOnce(asked)))
    assert isinstance(answer, Verdicts)
    return answer


def test_a_batch_at_once_says_what_a_cache_may_hide(scene: Scene) -> None:
    """AtOnce: a batch is answered when it is committed, with the versions that a cache may hide.
    The caches are told meanwhile, and AwaitPublished is answered when all have been.
    """
    hiding(scene)
    answer = at_once(scene, batch(1, order("a"), order("b", 1, "FishCo"), order("c")))
    assert [verdict.number for verdict in answer.verdicts] == [1, 2, 3]
    assert answer.unpublished == {"GameStart": 2}
    assert scene.fronts.told == ["http://front1/delete/GameStart?version=2"]
    waiting = begun(scene.catalog.await_published(AwaitPublished(answer.unpublished)))
    both = begun(scene.catalog.await_published(AwaitPublished({"FishCo": 1, "GameStart": 1})))
    assert result_of(scene.catalog.await_published(AwaitPublished({"FishCo": 1}))) == Published()
    assert (waiting, both) == ([], [])
    scene.clock.advance(LEASE_S)
    assert (waiting, both) == ([Published()], [Published()])


@pytest.mark.parametrize("versions", [{"GameStart": 3}, {"Nothing": 0}])
def test_nobody_waits_for_what_is_not_committed(scene: Scene, versions: dict[str, int]) -> None:
    """A version that is not in this log is refused at once, for waiting might never end: this
    leader may have been replaced, or the stock does not exist.
    """
    hiding(scene)
    at_once(scene, batch(1, order("a")))
    with pytest.raises(Unavailable):
        result_of(scene.catalog.await_published(AwaitPublished({"GameStart": 1, **versions})))


def test_more_versions_than_an_order_leader_asks_about_are_refused(scene: Scene) -> None:
    """As many as any order leader asks about at once are looked up (here in vain); one more is
    refused.
    """
    versions = {f"S{number}": 1 for number in range(CALL_ITEMS_MAX)}
    with pytest.raises(Unavailable):
        result_of(scene.catalog.await_published(AwaitPublished(versions)))
    with pytest.raises(InvalidRequest, match="versions: expected at most"):
        result_of(scene.catalog.await_published(AwaitPublished(versions | {"GameStart": 0})))


def test_a_batch_at_once_waits_for_its_commit(scene: Scene) -> None:
    """An answer means that the outcomes are durable."""
    result_of(scene.catalog.begin_epoch(BeginEpoch(1, 0)))
    scene.member.holds_back = True
    waiting = begun(scene.catalog.trade(AtOnce(batch(1, order("a")))))
    assert waiting == []
    scene.member.commit()
    assert waiting == [Verdicts((Verdict(1, 1, 1599, 5),))]


def test_refusals_and_trades_of_others_are_unpublished_too(scene: Scene) -> None:
    """The answer to a batch names every unpublished version that it rests on: those of the trades
    that it lists, and those that a refusal is due to.
    """
    hiding(scene)
    direct = begun(scene.catalog.trade(PlaceOrder("", "GameStart", "buy", 100)))
    answer = at_once(scene, batch(1, order("a", 1, "FishCo"), known=0))
    assert [trade.number for trade in answer.others] == [1]
    assert answer.unpublished == {"GameStart": 1}
    answer = at_once(scene, batch(2, order("b"), known=2))
    assert answer.verdicts[0].refusal == "not enough stocks left to buy"
    assert answer.unpublished == {"GameStart": 1}
    assert direct == [], "a direct trade is answered when no cache hides it"


def test_a_batch_that_is_not_at_once_waits_for_the_caches(scene: Scene) -> None:
    """An older version of the order leader sends it like that, and does not ask afterwards whether
    it is published.
    """
    hiding(scene)
    waiting = begun(scene.catalog.trade(batch(1, order("a"))))
    assert waiting == []
    scene.clock.advance(LEASE_S)
    assert waiting == [Verdicts((Verdict(1, 1, 1599, 5),))]


def test_another_copy_of_a_batch_is_as_unpublished_as_the_first(scene: Scene) -> None:
    """The answer to the first copy may have been lost, so the second names the same versions, as
    long as caches may hide them.
    """
    hiding(scene)
    first = at_once(scene, batch(1, order("a")))
    assert at_once(scene, batch(1, order("a"))) == first
    assert first.unpublished == {"GameStart": 1}
    scene.clock.advance(LEASE_S)
    assert at_once(scene, batch(1, order("a"))).unpublished == {}


def test_a_new_order_leader_waits_for_what_is_recorded_already(scene: Scene) -> None:
    """The leader before may have recorded a trade while caches were still told. It is not listed
    any more, but the new leader would answer from its records, so its list waits.
    """
    hiding(scene)
    at_once(scene, batch(1, order("a")))
    listed = begun(scene.catalog.begin_epoch(BeginEpoch(2, 1)))
    again = begun(scene.catalog.begin_epoch(BeginEpoch(2, 1)))
    assert (listed, again) == ([], [])
    scene.clock.advance(LEASE_S)
    assert listed == again == [ExecutedTrades((), 1)]


def test_a_new_catalog_leader_says_nothing_is_published_during_its_first_lease(
    scene: Scene,
) -> None:
    """Caches that were filled under the leader before may hide versions of its log. When their
    leases are over it answers, and shows these versions itself.
    """
    hiding(scene)
    unpublished = at_once(scene, batch(1, order("a"))).unpublished
    waiting = begun(scene.catalog.await_published(AwaitPublished(unpublished)))
    scene.catalog.end()
    assert waiting[0].check(OutcomeUnknown)
    late = begun(scene.catalog.await_published(AwaitPublished(unpublished)))
    assert late[0].check(OutcomeUnknown)
    scene.catalog.begin(2)
    waiting = begun(scene.catalog.await_published(AwaitPublished(unpublished)))
    everything = begun(scene.catalog.await_published(AwaitPublished()))
    listed = begun(scene.catalog.begin_epoch(BeginEpoch(2, 1)))
    answer = at_once(scene, batch(1, order("b"), known=1, epoch=2))
    assert answer.unpublished == {"GameStart": 2}
    scene.clock.advance(LEASE_S - 0.01)
    assert (waiting, everything, listed) == ([], [], [])
    scene.clock.advance(0.02)
    assert (waiting, everything, len(listed)) == ([Published()], [Published()], 1)
    shown = scene.lookup("GameStart")
    assert shown is not None
    assert shown.version == 2


def test_the_end_of_leadership_leaves_no_error_behind(scene: Scene) -> None:
    """The caller of a batch that was answered at once does not wait for the caches, so it must not
    be logged as an unhandled error that they are not told any more.
    """
    hiding(scene)
    with capturedLogs() as logged:
        at_once(scene, batch(1, order("a")))
        scene.catalog.end()
        gc.collect()
    assert list(logged) == []


def test_await_published_without_versions_is_about_what_was_committed_before(scene: Scene) -> None:
    """AwaitPublished without versions waits for everything that was committed before it, and for no
    later trade. Only a leader with a lease may answer it.
    """
    hiding(scene)
    assert result_of(scene.catalog.await_published(AwaitPublished())) == Published()
    at_once(scene, batch(1, order("a")))
    waiting = begun(scene.catalog.await_published(AwaitPublished()))
    scene.clock.advance(LEASE_S / 2)
    scene.register(2)
    scene.lookup("FishCo", 2)
    later = at_once(scene, batch(2, order("b", 1, "FishCo"), known=1)).unpublished
    assert (waiting, later) == ([], {"FishCo": 1})
    still = begun(scene.catalog.await_published(AwaitPublished(later)))
    scene.clock.advance(LEASE_S / 2)
    assert (waiting, still) == ([Published()], [])
    scene.clock.advance(LEASE_S / 2)
    assert still == [Published()]
    scene.member.lease = scene.clock.seconds()
    with pytest.raises(Unavailable):
        result_of(scene.catalog.await_published(AwaitPublished()))
    assert result_of(scene.catalog.await_published(AwaitPublished({"FishCo": 0}))) == Published()


# --- leading ------------------------------------------------------------------------------------


def test_only_the_leader_answers(scene: Scene) -> None:
    """Any other member refuses with NotLeader."""
    scene.member.leads = False
    for call in (
        scene.catalog.lookup(Lookup("GameStart")),
        scene.catalog.lookup_many(LookupMany(("GameStart",))),
        scene.catalog.list_stocks(StockPage("", 1)),
        scene.catalog.register(Register(1, "http://front1", "s")),
        scene.catalog.trade(PlaceOrder("", "GameStart", "buy", 1)),
        scene.catalog.trade(batch(1)),
        scene.catalog.begin_epoch(BeginEpoch(1, 0)),
        scene.catalog.await_published(AwaitPublished({"GameStart": 0})),
    ):
        with pytest.raises(NotLeader):
            result_of(call)


def test_a_leader_without_a_lease_answers_no_lookup(scene: Scene) -> None:
    """Another one may lead by now, and may have traded."""
    scene.member.lease = scene.clock.seconds()
    with pytest.raises(Unavailable):
        scene.lookup("GameStart")
    with pytest.raises(Unavailable):
        result_of(scene.catalog.lookup_many(LookupMany(("GameStart",))))
    with pytest.raises(Unavailable):
        result_of(scene.catalog.list_stocks(StockPage("", 1)))


def test_a_new_leader_waits_before_it_shows_anything() -> None:
    """Caches that were filled under the leader before may still show an older version than the log
    holds.
    """
    scene = Scene()
    scene.catalog.begin(1)
    with pytest.raises(Unavailable):
        scene.lookup("GameStart")
    assert scene.register() == Lease(0.0, False)
    waiting = begun(scene.catalog.trade(PlaceOrder("", "GameStart", "buy", 1)))
    assert waiting == []
    scene.clock.advance(LEASE_S)
    assert waiting == [Placement(number=1, version=1)]
    assert scene.lookup("GameStart") is not None


def test_the_end_of_leadership_is_told_to_who_waits(scene: Scene) -> None:
    """The trade is executed, but this leader can no longer tell the caches: the caller is told that
    the outcome is unknown.
    """
    scene.register()
    scene.lookup("GameStart", 1)
    scene.fronts.silent = True
    waiting = begun(scene.catalog.trade(PlaceOrder("", "GameStart", "buy", 1)))
    scene.catalog.end()
    assert waiting[0].check(OutcomeUnknown)
    assert scene.clock.getDelayedCalls() == []


def test_an_empty_catalog_is_filled_as_soon_as_the_log_takes_it() -> None:
    """On a full disk that takes a while, and until then nothing is shown or traded."""
    scene = Scene()
    scene.member.error = DiskFull("full")
    scene.lead()
    assert scene.catalog.reason == "the catalog is being filled"
    with pytest.raises(Unavailable):
        scene.lookup("GameStart")
    with pytest.raises(Unavailable):
        scene.trade("buy", 1)
    scene.member.error = None
    scene.clock.advance(LIMITS.retry_s)
    assert scene.lookup("GameStart") is not None
    assert scene.catalog.reason == ""


def test_an_empty_catalog_whose_file_is_gone_says_so_and_waits_for_it(tmp_path: Path) -> None:
    """The file of the first stocks may be lost between the start and the first election."""
    scene, file = Scene(), tmp_path / "stocks.csv"
    scene.catalog._seed = partial(read_seed, file, LIMITS.message_bytes_max)
    with capturedLogs() as logged:
        scene.lead()
    (line,) = [event for event in logged if "reason" in event]
    assert line["reason"] == f"{file}: No such file or directory"
    file.write_text("name,price,quantity\nA,1,1\n")
    scene.clock.advance(LIMITS.retry_s)
    assert scene.lookup("A") is not None


def test_a_catalog_with_stocks_is_not_filled_again() -> None:
    """Another file changes nothing in a catalog that has data."""
    scene = Scene(Seed((Stock("Old", 1, 1, initial_quantity=1),)))
    scene.lead()
    other = Scene()
    other.member.machine = scene.member.machine
    other.lead()
    assert other.lookup("GameStart") is None
    assert other.lookup("Old") is not None


def test_a_batch_of_none_makes_room_for_direct_trades(scene: Scene) -> None:
    """A batch without orders tells that the direct trades so far are recorded as orders, so further
    ones are taken.
    """
    scene.catalog._limits = replace(LIMITS, unrecorded_trades_max=2)
    result_of(scene.catalog.begin_epoch(BeginEpoch(1, 0)))
    assert [scene.trade("sell", 1).number for _ in range(2)] == [1, 2]
    with pytest.raises(Overloaded):
        scene.trade("sell", 1)
    told = result_of(scene.catalog.trade(AtOnce(batch(1, recorded=2, known=2))))
    assert told == Verdicts(())
    assert scene.trade("sell", 1).number == 3


def test_the_configured_bounds_go_into_the_log_with_the_first_stocks() -> None:
    """The bounds of refused keys that an empty catalog begins with then hold for as long as its log
    does.
    """
    seed = read_seed(None, LIMITS.message_bytes_max)
    catalog = built(Limits(refused_keys_max=7, refused_keys_s=2.5))
    assert catalog._seed() == Seed(seed.stocks, RefusalBounds(7, 2500))


@pytest.mark.parametrize(("drain_s", "waits_s"), [(0.6, 0.6), (0.25, 0.45)])
def test_a_catalog_waits_for_leases_of_another_configuration(
    drain_s: float, waits_s: float
) -> None:
    """At its start it waits for ``lease_drain_s``: whatever ``cache_lease_s`` was before, it was no
    longer than that. A leader's own lease may be longer, and is waited for as well, because that
    leader may only seem to be gone.
    """
    timings = replace(
        default_cluster().timings, lease_drain_s=drain_s, election_s=0.5, lease_fraction=0.9
    )
    catalog = built(Limits(cache_lease_s=0.05), timings)
    catalog._sessions.started(1.0)
    assert catalog._sessions.opens_at == 1.0 + waits_s


def built(limits: Limits, timings: Timings = DEFAULT_TIMINGS) -> Any:
    """The catalog that the tap makes; nothing of it runs."""
    reactor: Any = ReactorDouble()
    reactor.callFromThread = lambda call, *arguments: call(*arguments)
    seed = partial(read_seed, None, limits.message_bytes_max)
    cluster = replace(default_cluster(limits=limits), timings=timings)
    stages = build(cluster, 1, seed, reactor)
    (member,) = (stage for stage in stages._stages if isinstance(stage, Member))
    return member._tier


def test_stocks_come_in_pages(scene: Scene) -> None:
    """Each page tells where the next one goes on, the last one that there is none."""
    names: list[str] = []
    page = result_of(scene.catalog.list_stocks(StockPage("", 5)))
    while True:
        names += [s.name for s in page.stocks]
        if not page.next:
            break
        page = result_of(scene.catalog.list_stocks(StockPage(page.next, 5)))
    assert names == sorted(s.name for s in read_seed(None, LIMITS.message_bytes_max).stocks)
    assert len(result_of(scene.catalog.list_stocks(StockPage("", 0))).stocks) == len(names)


# --- the file -----------------------------------------------------------------------------------


def test_the_default_file_ships_with_the_package() -> None:
    """Twelve stocks, GameStart at 15.99."""
    seed = read_seed(None, LIMITS.message_bytes_max)
    assert len(seed.stocks) == 12
    assert seed.stocks[0] == Stock("GameStart", 1599, 100, initial_quantity=100)
    assert importlib.resources.files("twstock").joinpath("catalog.csv").is_file()


def test_bom_crlf_and_blanks_are_tolerated() -> None:
    """A file that a spreadsheet has written can be read."""
    content = b'\xef\xbb\xbfName, Price ,quantity\r\n"A, Inc",0.5,0\r\n\r\nB,7,9007199254740991\r\n'
    assert parse_seed(content, "f").stocks == (
        Stock("A, Inc", 50, 0, initial_quantity=0),
        Stock("B", 700, QUANTITY_MAX, initial_quantity=QUANTITY_MAX),
    )


PRICE = "f.csv:2: a price is a number from 0 up with at most two decimals"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "f.csv:1: expected the header"),
        (b"name;price;quantity\n", "f.csv:1: expected the header"),
        (b"name,price,quantity\n", "f.csv: expected 1 to"),
        (b"name,price,quantity\nA,1\n", "f.csv:2: expected name,price,quantity"),
        (b"name,price,quantity\nA,1,1\n\nA,2,2\n", "f.csv:4: the name 'A' appears twice"),
        (b"name,price,quantity\nA,1.999,1\n", PRICE),
        (b"name,price,quantity\nA,-1,1\n", PRICE),
        (b"name,price,quantity\nA,1e3,1\n", PRICE),
        (b"name,price,quantity\nA,nan,1\n", PRICE),
        (b"name,price,quantity\nA,1,1.5\n", "f.csv:2: a quantity"),
        (b"name,price,quantity\nA,1,-1\n", "f.csv:2: a quantity"),
        (b"name,price,quantity\nA,1,9007199254740992\n", "f.csv:2: a quantity"),
        (b"name,price,quantity\n,1,1\n", "f.csv:2: a name"),
        (b"name,price,quantity\nA\tB,1,1\n", "f.csv:2: a name"),
        (b"name,price,quantity\nA,1,1\n..,1,1\n", "f.csv:3: a name"),
        (b"name,price,quantity\n" + b"A" * 256 + b",1,1\n", "f.csv:2: a name"),
        (b"name,price,quantity\nA,1,1\n\xff,1,1\n", "f.csv:3: not UTF-8"),
        (b'name,price,quantity\n"A,1,1\n', "f.csv:2: "),
    ],
)
def test_complaints_about_the_file_name_the_line(content: bytes, complaint: str) -> None:
    """An error names the file, the line if there is one, and what is wrong."""
    with pytest.raises(ConfigError) as caught:
        parse_seed(content, "f.csv")
    assert str(caught.value).startswith(complaint)


def test_the_number_of_stocks_is_bounded() -> None:
    """One more than the bound is refused: they have to fit into one log entry."""
    rows = "".join(f"s{n},1,1\n" for n in range(STOCKS_MAX + 1))
    with pytest.raises(ConfigError, match="expected 1 to"):
        parse_seed(b"name,price,quantity\n" + rows.encode(), "f")


def test_the_stocks_of_a_file_fit_a_message(tmp_path: Path) -> None:
    """Otherwise no other replica could ever receive them: many bytes in long names are refused,
    however few stocks there are.
    """
    file = tmp_path / "long.csv"
    names = [chr(0x4E00 + n) * 200 for n in range(3500)]
    file.write_text("name,price,quantity\n" + "".join(f"{name},1,1\n" for name in names))
    with pytest.raises(
        ConfigError, match=r"long\.csv: its stocks may take 2212000 bytes .* 4194304"
    ):
        read_seed(file, LIMITS.message_bytes_max)
    assert len(read_seed(file, 2 * 2_212_000).stocks) == 3500


def test_no_stock_takes_more_of_the_first_entry_than_is_counted() -> None:
    """A stock with the longest name and the largest numbers is encoded in no more bytes than are
    counted for it.
    """
    dear = Stock("s" * 255, PRICE_CENTS_MAX, QUANTITY_MAX, initial_quantity=QUANTITY_MAX)
    assert len(encode_catalog_command(Seed((dear,) * 100))) <= 100 * (255 + STOCK_BYTES)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    """The error holds its path."""
    with pytest.raises(ConfigError, match=r"none\.csv"):
        read_seed(tmp_path / "none.csv", LIMITS.message_bytes_max)


def test_a_proposal_that_was_replaced_fails_the_call() -> None:
    """A failed proposal is an error of the call, and the process goes on."""
    scene = Scene()
    scene.lead()
    scene.member.propose = lambda payload: fail(Unavailable("replaced"))  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        scene.trade("buy", 1)
