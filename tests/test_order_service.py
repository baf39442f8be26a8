"""The order tier's calls, and its applied state in SQLite."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.members import ClockThreads
from twstock.config import Limits
from twstock.errors import (
    BrokenInvariant,
    CorruptTables,
    DiskFull,
    InvalidRequest,
    NotLeader,
    Overloaded,
    TwstockError,
    Unavailable,
)
from twstock.market import (
    CALL_ITEMS_MAX,
    QUANTITY_MAX,
    Batch,
    BatchResult,
    BeginEpoch,
    Order,
    Outcome,
    Side,
    Trade,
)
from twstock.order import oldorders
from twstock.order.service import KEYS_PAGE, KEYS_PAUSE_S, OrderService
from twstock.order.state import OrderState
from twstock.order.tables import OrderTables, by_keys, by_number, page
from twstock.replication.database import Database
from twstock.rpc import calls
from twstock.rpc.calls import ExecutedTrades, Page, Placement, PlaceOrder, PlaceOrders, SyncUp
from twstock.rpc.streams import WAIT_MAX_S
from twstock.rpc.wire.commands import encode_order_record


def trade(number: int, key: str = "") -> Trade:
    """One trade."""
    made = Order(key or f"key-{number}", "GameStart", Side.BUY, number)
    return Trade(number, made, number, 1599, 5)


def test_numbers_without_a_gap() -> None:
    """A number that is not the next one is a broken invariant."""
    state = OrderState()
    state.apply(1, encode_order_record([trade(1), trade(2)]))
    for wrong in (2, 4):
        with pytest.raises(BrokenInvariant):
            state.apply(2, encode_order_record([trade(wrong, "new")]))


def test_key_is_recorded_once() -> None:
    """A second order with the same key is a broken invariant."""
    state = OrderState()
    state.apply(1, encode_order_record([trade(1, "k")]))
    with pytest.raises(BrokenInvariant):
        state.apply(2, encode_order_record([trade(2, "k")]))


def test_memory_forgets_only_what_is_saved() -> None:
    """An order stays in memory until the tables have it, however many there are; then only the last
    ones stay.
    """
    state = OrderState(recent_max=2)
    for number in range(1, 6):
        state.apply(number, encode_order_record([trade(number)]))
    state.saved(1)
    assert state.first_recent == 2
    state.saved(5)
    assert state.first_recent == 4
    assert state.order(3) is None
    assert state.by_key("key-3") is None
    assert state.by_key("key-4") == trade(4)


@given(st.lists(st.integers(1, 5), max_size=10), st.integers(0, 10))
def test_replay_and_reload_give_the_same_state(sizes: Sequence[int], cut: int) -> None:
    """Applying all records, or going on from the tables after any of them, ends in the same
    digest.
    """
    payloads, number = [], 0
    for size in sizes:
        payloads.append(encode_order_record([trade(number + 1 + i) for i in range(size)]))
        number += size
    whole, first = OrderState(), OrderState()
    changes = []
    for index, payload in enumerate(payloads, 1):
        whole.apply(index, payload)
        if index <= cut:
            changes.append(first.apply(index, payload).change)
    connection = sqlite3.connect(":memory:")
    tables = OrderTables(100)
    connection.executescript(tables.schema)
    tables.save(connection, changes)
    again = tables.load(connection, first.digest)
    for index, payload in enumerate(payloads[cut:], cut + 1):
        again.apply(index, payload)
    assert (again.digest, again.last_number) == (whole.digest, whole.last_number)
    connection.close()


def test_tables_find_orders_by_number_key_and_page() -> None:
    """Orders are found by number, by many keys at once and page by page; a number that is missing
    is damage.
    """
    connection = sqlite3.connect(":memory:")
    tables = OrderTables(100)
    connection.executescript(tables.schema)
    tables.save(connection, [tuple(trade(n) for n in range(1, 1200))])
    assert by_number(connection, 7) == trade(7)
    with pytest.raises(CorruptTables, match="the row of 5000 is missing"):
        by_number(connection, 5000)
    assert [t.number for t in page(connection, 10, 3)] == [11, 12, 13]
    wanted = [f"key-{n}" for n in range(1, 1100)] + ["nobody's"]
    assert len(by_keys(connection, wanted)) == 1099
    connection.close()


class Member:
    """A member of the order group that does what a test says."""

    def __init__(self) -> None:
        self.machine: Any = OrderState(recent_max=3)
        self.orders: Any = None
        self.ready = True
        self.giving_way = False
        self.full = False
        self.has_lease = True
        self.index = 0
        self.database: Any = None

    def propose(self, payload: bytes) -> "Deferred[Any]":
        """Commit at once."""
        self.index += 1
        applied = self.machine.apply(self.index, payload)
        self.database.record(self.index, b"", applied.change)
        return succeed(applied.result)

    def check_room(self) -> None:
        """Raise DiskFull if the test says that the disk is full."""
        if self.full:
            raise DiskFull("disk full")

    def resign(self) -> None:
        """Stop leading."""
        self.orders.end()

    def is_giving_way(self) -> bool:
        """Whether it hands over."""
        return self.giving_way

    def lease_until(self) -> float:
        """No call asks for it."""
        raise AssertionError("orders are read with a lease or without")

    def not_leading(self) -> TwstockError:
        """Who leads instead."""
        return NotLeader(2)

    def check_leads(self) -> None:
        """Whether it leads."""
        if not self.ready:
            raise self.not_leading()

    def check_lease(self) -> None:
        """Whether it may read."""
        self.check_leads()
        if not self.has_lease:
            raise Unavailable("no lease")

    async def fetch(self, fetch: Any) -> Any:
        """Log entries."""
        raise AssertionError("no test of this file pulls entries")


class Market:
    """A catalog that executes everything."""

    def __init__(self) -> None:
        self.last = 0
        self.refuses: TwstockError | None = None

    async def execute(self, batch: Batch) -> BatchResult:
        """Every order trades."""
        outcomes = []
        for order in batch.orders:
            self.last += 1
            outcomes.append(Outcome(Trade(self.last, order, self.last, 1599, batch.at_ms)))
        return BatchResult(tuple(outcomes))

    async def await_published(self, versions: Mapping[str, int]) -> None:
        """No front-end has a cache."""

    async def begin_epoch(self, epoch: BeginEpoch) -> ExecutedTrades:
        """Nothing was left."""
        if self.refuses is not None:
            raise self.refuses
        return ExecutedTrades((), self.last)


class Service:
    """An order service with its surroundings."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.member = Member()
        self.threads = ClockThreads(self.clock)
        threads: Any = self.threads

        def deliver(function: Callable[..., object], *args: Any) -> None:
            self.clock.callLater(0, function, *args)

        def panic(failure: Failure) -> None:
            failure.raiseException()

        limits = Limits(page_max=4, sync_orders_max=4)
        path = directory / "applied.sqlite"
        self.tables = OrderTables(3)
        self.database = Database(path, self.tables, threads, deliver, panic)
        self.database.open()
        self.member.machine = self.tables.load(self.database.connection, b"")
        self.member.database = self.database
        keys = iter(f"made-{n}" for n in range(1000))
        surroundings = self.clock, limits, lambda: 7, lambda: next(keys), panic
        self.market = Market()
        self._make = lambda: OrderService(
            self.member, self.database, self.tables.old_keys, self.market, *surroundings
        )
        self._serve()
        self.orders.begin(1)

    def restart(self) -> None:
        """Go on as a new process: what was saved is in the tables, and nothing in memory."""
        self.member.machine = self.tables.load(self.database.connection, b"")
        self._serve()

    def _serve(self) -> None:
        """Connect the service as tap and member do."""
        self.orders = self.member.orders = self._make()
        self.database.on_saved = self.orders.saved

    def count_reads(self) -> list[None]:
        """The list that is returned gets an item for each later read in the tables' thread."""
        reads: list[None] = []
        read = self.database.read

        def counted(query: Callable[[sqlite3.Connection], Any]) -> "Deferred[Any]":
            reads.append(None)
            return read(query)

        self.database.read = counted  # type: ignore[method-assign]
        return reads

    def ask(self, coroutine: Any) -> Any:
        """The result of a call, letting time pass."""
        results: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(results.append)
        for _ in range(50):
            self.clock.advance(0.001)
            self.database.save(self.clock.seconds())
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def place(self, count: int) -> None:
        """Place so many orders."""
        orders = tuple(PlaceOrder(f"k{n}", "GameStart", "buy", n) for n in range(1, count + 1))
        self.ask(self.orders.place_orders(PlaceOrders(orders)))


@pytest.fixture
def service(tmp_path: Path) -> Any:
    """A leading order replica."""
    service = Service(tmp_path)
    yield service
    service.database.close()


def test_orders_beyond_memory_are_read_from_the_tables(service: Service) -> None:
    """An order can be read by its number, whether it is in memory or only in the tables."""
    service.place(20)
    assert service.member.machine.first_recent == 18
    for number in (1, 17, 18, 20):
        assert service.ask(service.orders.details(number)).order.quantity == number


def test_retry_years_later_trades_once(service: Service) -> None:
    """A key that is no longer in memory is found in the tables, and answered as before."""
    service.place(20)
    again = service.ask(service.orders.order(PlaceOrder("k1", "GameStart", "buy", 1)))
    assert again == Placement(1, "", True, 1)
    assert service.orders.last_number() == 20


def test_a_new_key_is_not_looked_for_in_the_tables(service: Service) -> None:
    """A new key costs no read, although there are orders that only the tables have. A key of one of
    these costs one read, and is found.
    """
    service.place(20)
    reads = service.count_reads()
    service.ask(service.orders.order(PlaceOrder("new", "GameStart", "buy", 1)))
    assert len(reads) == 0
    found = service.ask(service.orders.order(PlaceOrder("k3", "GameStart", "buy", 3)))
    assert found == Placement(3, "", True, 3)
    assert len(reads) == 1


def test_a_leader_reads_the_keys_that_the_tables_had_at_the_start(service: Service) -> None:
    """The keys are read once, however often the replica begins to lead. Until then each key is
    looked for in the tables.
    """

    async def find(*keys: str) -> dict[str, Trade]:
        return await service.orders.find_keys(keys)

    service.place(20)
    service.restart()
    assert service.ask(find("k3", "new")).keys() == {"k3"}
    reads = service.count_reads()
    for term in (2, 3):
        service.orders.begin(term)
        service.orders.end()
    assert service.ask(find("k3", "new")).keys() == {"k3"}
    assert len(reads) == 2
    assert service.ask(find("new")) == {}
    assert len(reads) == 2
    assert service.ask(find("k3", "new")).keys() == {"k3"}


def test_keys_are_read_page_by_page(service: Service) -> None:
    """With more orders than a page has, old keys are read page by page, with a pause after each,
    and are found meanwhile and afterwards.
    """
    orders = tuple(trade(n) for n in range(1, 2 * KEYS_PAGE + 2))
    OrderTables(3).save(service.database.connection, [orders])
    service.restart()
    reads, counts = service.count_reads(), []
    service.orders.begin(2)
    for _ in range(4):
        keys = ["key-1", f"key-{KEYS_PAGE + 1}", f"key-{2 * KEYS_PAGE + 1}"]
        found: list[Any] = []
        service.orders.find_keys(keys).addCallback(found.append)
        service.clock.pump([KEYS_PAUSE_S / 4] * 4)
        assert sorted(found[0]) == sorted(keys)
        counts.append(len(reads))
    assert counts == [2, 4, 6, 7]


def test_orders_are_paged_across_tables_and_memory(service: Service) -> None:
    """Pages follow each other without a gap, from the tables into memory, and end."""
    service.place(10)
    seen, after = [], 0
    while True:
        answer = service.ask(service.orders.page(Page(after, 4)))
        seen += [t.number for t in answer.orders]
        after = answer.next
        if not after:
            break
    assert seen == list(range(1, 11))


def test_orders_that_the_tables_have_lost_are_not_left_out(service: Service) -> None:
    """If the last orders are missing from the tables, whoever asks for them gets an error and not a
    shorter list.
    """
    service.place(20)
    service.restart()
    service.database.connection.execute("DELETE FROM orders WHERE number > 16")
    assert len(service.ask(service.orders.orders_after(13, 3))) == 3
    with pytest.raises(CorruptTables, match="the row of 17 is missing"):
        service.ask(service.orders.orders_after(14, 3))


def test_sync_up_answers_from_any_replica(service: Service) -> None:
    """SyncUp gives committed orders in bounded pieces, also from a follower."""
    service.place(6)
    service.member.ready = False
    answer = service.ask(service.orders.sync_up(SyncUp(1)))
    assert [t.number for t in answer.orders] == [2, 3, 4, 5]
    assert answer.more
    answer = service.ask(service.orders.sync_up(SyncUp(5)))
    assert ([t.number for t in answer.orders], answer.more) == ([6], False)
    assert not answer.whole
    assert service.ask(service.orders.sync_up(SyncUp(5, whole=True))) == replace(answer, whole=True)
    answer = service.ask(service.orders.sync_up(SyncUp(6)))
    assert (answer.orders, answer.more) == ((), False)
    for limit, numbers in ((1, [2]), (4, [2, 3, 4, 5]), (5, [2, 3, 4, 5]), (-1, [2, 3, 4, 5])):
        answer = service.ask(service.orders.sync_up(SyncUp(1, limit=limit)))
        assert [t.number for t in answer.orders] == numbers
        assert answer.more


class OldReads:
    """Calls for orders that only the tables have; ``results`` gets the name of each as it ends."""

    def __init__(self, service: Service) -> None:
        service.place(20)
        self._clock, self._orders = service.clock, service.orders
        self.results: list[Any] = []
        self.statements: list[str] = []
        service.database.connection.set_trace_callback(self.statements.append)

    def ask(self, until: float = inf) -> "list[Deferred[Any]]":
        """One call of each kind: an order, a page of four and a SyncUp of four."""
        orders = self._orders
        return [
            self.note("one", orders.details(1, until)),
            self.note("page", orders.page(Page(0, 4), until)),
            self.note("sync", orders.sync_up(SyncUp(0), until)),
        ]

    def wait(self) -> None:
        """Let time pass until all have ended."""
        self._clock.pump([0.001] * 20)

    def note(self, name: str, call: Any) -> "Deferred[Any]":
        """Make a call that adds its name to the results, with the type of the error if it fails."""
        asking = Deferred.fromCoroutine(call)
        return asking.addCallbacks(lambda _: name, lambda f: (name, f.type)).addCallback(
            self.results.append
        )


def test_a_bounded_number_of_rows_waits_for_the_tables(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads beyond the limit are refused at once, until the others are done. Reads of recent
    orders, and orders with an old key, do not count.
    """
    monkeypatch.setattr(oldorders, "ROWS_MAX", 14)
    reads, kinds = OldReads(service), ["one", "page", "sync"]
    for _ in range(3):
        reads.ask()
    assert reads.results == [("sync", Overloaded), *[(kind, Overloaded) for kind in kinds]]
    reads.note("recent", service.orders.details(20))
    assert reads.results.pop() == "recent"
    retry = PlaceOrder("k1", "GameStart", "buy", 1)
    assert service.ask(service.orders.order(retry)) == Placement(1, "", True, 1)
    assert reads.results[4:] == [*kinds, "one", "page"]
    reads.ask()
    reads.wait()
    assert reads.results[-3:] == kinds


def test_a_read_of_more_rows_than_may_wait_finds_its_turn(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read of more rows than the limit is taken when no others wait."""
    monkeypatch.setattr(oldorders, "ROWS_MAX", 1)
    reads = OldReads(service)
    reads.note("sync", service.orders.sync_up(SyncUp(0)))
    reads.wait()
    assert reads.results == ["sync"]


@pytest.mark.parametrize(("deadline_s", "delay_s"), [(0.5, 0.5), (inf, WAIT_MAX_S)])
def test_nothing_is_read_for_those_who_have_gone(
    service: Service, deadline_s: float, delay_s: float
) -> None:
    """Calls whose deadline passed while they waited, or, without one, which have been answered by
    then, cost no read. Later calls that are in time are answered.
    """
    reads = OldReads(service)
    service.threads.delay_s = delay_s
    reads.ask(service.clock.seconds() + deadline_s)
    service.clock.pump([delay_s] * 4)
    assert reads.results == [(kind, Unavailable) for kind in ("one", "page", "sync")]
    assert reads.statements == []
    service.threads.delay_s = delay_s / 4
    reads.ask(service.clock.seconds() + deadline_s)
    service.clock.pump([delay_s / 4] * 4)
    assert reads.results[3:] == ["one", "page", "sync"]


def test_nothing_is_read_for_a_call_that_was_given_up(service: Service) -> None:
    """A call that is cancelled costs no read; the others are answered."""
    reads = OldReads(service)
    for asking in reads.ask()[:2]:
        asking.cancel()
    reads.wait()
    assert reads.results == [("one", CancelledError), ("page", CancelledError), "sync"]
    assert len(reads.statements) == 1


def test_looking_keys_up_waits_for_few_reads(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many reads that wait only a few go before the search for a key, so an order is not held up
    by them.
    """
    monkeypatch.setattr(oldorders, "ROWS_AT_ONCE", 8)
    reads = OldReads(service)
    for _ in range(4):
        reads.note("page", service.orders.page(Page(0, 4)))

    async def find() -> None:
        assert (await service.orders.find_keys(["k1"])).keys() == {"k1"}

    reads.note("keys", find())
    trips = service.count_reads()
    service.clock.pump([0.0005] * 4)
    assert reads.results == ["page", "keys", "page", "page", "page"]
    assert len(trips) == 2


def test_an_error_of_the_tables_reaches_all_who_wait(service: Service) -> None:
    """When the tables fail, each read that waits gets the error."""
    reads = OldReads(service)
    reads.ask()
    service.database.close()
    reads.wait()
    assert reads.results == [(kind, Unavailable) for kind in ("one", "page", "sync")]


def test_sync_up_answers_no_more_than_a_message_takes(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With orders so large that fewer fit into a message, SyncUp gives at least one, and says that
    there are more.
    """
    service.place(6)
    half = Limits().message_bytes_max // 2
    monkeypatch.setattr(calls, "TRADE_BYTES", half // 3)
    answer = service.ask(service.orders.sync_up(SyncUp(0)))
    assert ([t.number for t in answer.orders], answer.more) == ([1, 2], True)
    monkeypatch.setattr(calls, "TRADE_BYTES", half)
    answer = service.ask(service.orders.sync_up(SyncUp(5)))
    assert ([t.number for t in answer.orders], answer.more) == ([6], False)


def test_only_a_leader_with_a_lease_says_that_an_order_is_missing(service: Service) -> None:
    """To say that there is no such order takes a leader that cannot have been replaced. An order
    that is there may be told by any replica.
    """
    service.place(1)
    assert service.ask(service.orders.details(2)) is None
    service.member.has_lease = False
    with pytest.raises(Unavailable):
        service.ask(service.orders.details(2))
    service.member.ready = False
    with pytest.raises(NotLeader):
        service.ask(service.orders.details(2))
    assert service.ask(service.orders.details(1)).number == 1


def test_a_leader_that_the_catalog_has_not_told_of_all_denies_no_order(service: Service) -> None:
    """Until the catalog has listed what it executed, the group may have lost orders that were
    acknowledged. Until then the leader tells the orders that it has, and does not say that others
    are missing.
    """
    service.place(6)
    service.market.refuses = Unavailable("the order replicas have lost orders 7 to 9")
    service.orders.end()
    service.orders.begin(2)
    assert service.ask(service.orders.details(6)).number == 6
    assert service.ask(service.orders.page(Page(1, 4))).next == 5
    for question in (service.orders.details(7), service.orders.page(Page(2, 4))):
        with pytest.raises(Unavailable, match="lost orders 7 to 9"):
            service.ask(question)
    service.market.refuses = None
    service.clock.pump([0.01] * 10)
    assert service.ask(service.orders.details(7)) is None
    assert len(service.ask(service.orders.page(Page(2, 4))).orders) == 4


@pytest.mark.parametrize("number", [0, -1, 2**60])
def test_absurd_numbers_are_missing(service: Service, number: int) -> None:
    """Numbers that no order can have are not found."""
    assert service.ask(service.orders.details(number)) is None


def test_business_refusals_are_answers(service: Service) -> None:
    """The original's words for a wrong type, a quantity below one, and a name that no stock can
    have.
    """
    for name, type_, quantity, words in (
        ("GameStart", "hold", 1, "invalid transaction type"),
        ("GameStart", "buy", 0, "num stocks traded should be non negative"),
        ("", "buy", 1, "invalid stock name"),
        ("x" * 256, "buy", 1, "invalid stock name"),
    ):
        request = PlaceOrder("", name, type_, quantity)
        assert service.ask(service.orders.order(request)) == Placement(refusal=words)


@pytest.mark.parametrize(
    "request_",
    [
        PlaceOrder("k" * 256, "A", "buy", 1),
        PlaceOrder("\u00e9" * 128, "A", "buy", 1),
        PlaceOrder("k", "A", "buy", QUANTITY_MAX + 1),
    ],
)
def test_malformed_orders_never_reach_the_log(service: Service, request_: PlaceOrder) -> None:
    """A key that is too long, or a quantity that is too large, is an invalid request."""
    with pytest.raises(InvalidRequest):
        service.ask(service.orders.order(request_))
    assert service.orders.last_number() == 0


def test_more_orders_than_a_front_end_sends_are_refused(service: Service) -> None:
    """A call with more orders than any front-end may send is refused as a whole, before its orders
    are looked at: they would keep the leader from its heartbeats. As many as any front-end may send
    are taken, whatever is configured here.
    """
    assert Limits().batch_orders_max < CALL_ITEMS_MAX
    wrong = PlaceOrder("k", "A", "hold", 1)
    taken = service.ask(service.orders.place_orders(PlaceOrders((wrong,) * CALL_ITEMS_MAX)))
    assert len(taken.results) == CALL_ITEMS_MAX
    order = PlaceOrder("k", "A", "buy", 1)
    with pytest.raises(InvalidRequest, match="orders: expected at most"):
        service.ask(service.orders.place_orders(PlaceOrders((order,) * (CALL_ITEMS_MAX + 1))))
    assert service.orders.last_number() == 0


def test_followers_and_leaders_that_give_way_take_no_orders(service: Service) -> None:
    """An order is refused with the leader's id."""
    request = PlaceOrder("k", "GameStart", "buy", 1)
    service.member.giving_way = True
    with pytest.raises(NotLeader) as giving_way:
        service.ask(service.orders.order(request))
    service.member.giving_way = False
    service.orders.end()
    with pytest.raises(NotLeader) as follows:
        service.ask(service.orders.order(request))
    assert (giving_way.value.leader_id, follows.value.leader_id) == (2, 2)


def test_without_room_for_the_record_nothing_is_traded(service: Service) -> None:
    """When the order log is full the order is refused before the catalog is asked to execute it, as
    it could not be recorded.
    """
    service.member.full = True
    with pytest.raises(DiskFull):
        service.ask(service.orders.order(PlaceOrder("k", "GameStart", "buy", 1)))
    assert service.market.last == 0
    service.member.full = False
    service.place(1)
    assert service.orders.last_number() == 1
