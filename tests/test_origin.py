"""The ids of requests go along with whatever is done for them, and into each line of the log."""

from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from tests.fakes import HANG
from tests.rpc_fixture import REQUEST, serve  # noqa: F401
from tests.test_invalidation import LIMITS, Scene
from tests.test_invalidation import stock as version_of
from tests.test_leading import Catalog
from tests.test_leading import order as new_order
from tests.test_tiers import Group, order
from twstock import origin
from twstock.config import Limits
from twstock.errors import DiskFull, Unavailable
from twstock.order.leading import Leading
from twstock.origin import IDS_MAX, OriginLogger
from twstock.rpc.calls import Lookup, Placement, PlaceOrder
from twstock.rpc.client import Client
from twstock.rpc.wire import methods
from twstock.web.tiers import CatalogTier


class Desk:
    """Something that logs."""

    log = OriginLogger()


def lines(events: Any) -> list[str]:
    """The log as text."""
    return [formatEvent(event) for event in events]


@pytest.mark.logs_failures
def test_a_line_tells_whose_it_is() -> None:
    """A line has the request's ids, in its text and as a value; without a request it has
    neither.
    """
    with capturedLogs() as events:
        Desk.log.info("no {what}", what="request")
        with origin.on_behalf_of(("a", "{b}")):
            Desk.log.warn("for {what}", what="two")
            Desk.log.failure("it failed", Failure(ValueError("x")))
    assert lines(events)[:2] == ["no request", "for two [request a {b}]"]
    assert lines(events)[2].startswith("it failed [request a {b}]")
    assert [event.get("request_id") for event in events] == [None, "a {b}", "a {b}"]


def test_a_coroutine_remembers_whom_it_was_started_for() -> None:
    """A coroutine keeps the ids however long it waits, and whoever wakes it."""
    told: list[origin.Ids] = []
    gates: list[Deferred[None]] = [Deferred(), Deferred()]

    async def wait(gate: Deferred[None]) -> None:
        await gate
        told.append(origin.current())

    for gate, name in zip(gates, "ab", strict=True):
        with origin.on_behalf_of((name,)):
            ensureDeferred(wait(gate))
    gates[1].callback(None)
    gates[0].callback(None)
    assert told == [("b",), ("a",)]
    assert origin.current() == ()


def test_what_many_have_in_common_is_bounded() -> None:
    """The ids of several requests are put together: each once, and only the first ones."""
    assert origin.together([("a",), (), ("b", "a")]) == ("a", "b")
    many = origin.together([(str(number),) for number in range(1000)])
    assert many == tuple(map(str, range(IDS_MAX)))
    assert len(origin.together([tuple(map(str, range(100)))])) == IDS_MAX


def test_what_comes_over_the_wire_is_not_believed() -> None:
    """Ids that are received count only if they are short, printable ASCII text, and are limited in
    number: nobody else can write lines into the log.
    """
    odd: list[str | bytes] = ["a", "", "b\nc", "x" * 129, "é", b"d", "e"]
    assert origin.received(odd) == ("a", "e")
    assert len(origin.received(["a"] * 100)) == IDS_MAX


@pytest.mark.logs_failures
@pytest_twisted.ensureDeferred
async def test_an_id_crosses_the_wire(serve: Callable[[Any], Client]) -> None:  # noqa: F811
    """The ids reach the function that answers a call, and the log line that says that it failed, by
    a stream and by a single call.
    """
    told: list[origin.Ids] = []

    async def answer(request: PlaceOrder) -> Placement:
        told.append(origin.current())
        if request.quantity > 1:
            raise ZeroDivisionError
        return Placement(1)

    client = serve(answer)
    await client.call(methods.ORDER, REQUEST, 20.0)
    with capturedLogs() as events:
        for quantity in (1, 2):
            with origin.on_behalf_of(("mine", "yours")):
                call = client.call(methods.ORDER, REQUEST._replace(quantity=quantity), 20.0)
            call.addErrback(lambda _: None)
            await call
    assert told == [(), ("mine", "yours"), ("mine", "yours")]
    failed = [event for event in events if event.get("call") == "Order"]
    assert [event["request_id"] for event in failed] == ["mine yours"]


def test_orders_that_go_together_tell_of_those_that_have_ids() -> None:
    """Orders that go in one call have the ids of all of them; the next call has none of these."""
    group = Group()
    told: list[origin.Ids] = []
    group.members[3].replies["PlaceOrders"] = lambda _: told.append(origin.current()) or HANG
    for number in range(1, 4):
        with origin.on_behalf_of((f"id-{number}",) if number > 1 else ()):
            group.tier.place(order(number))
    group.clock.advance(0)
    group.tier.place(order(4))
    group.advance(0.1)
    assert told == [("id-2", "id-3"), ()]


def test_lookups_that_go_together_tell_of_those_that_have_ids() -> None:
    """Lookups that go in one call have the ids of all of them, each once."""
    group = Group(1, CatalogTier, "catalog")
    told: list[origin.Ids] = []
    group.members[1].replies["LookupMany"] = lambda _: told.append(origin.current()) or HANG
    for name in "ABA":
        with origin.on_behalf_of((f"id-{name}",)):
            group.tier.lookup(Lookup(name)).addErrback(lambda _: None)
    group.clock.advance(0)
    assert told == [("id-A", "id-B")]
    group.advance(3.0)


class Ledger:
    """An order group of one that records at once."""

    def last_number(self) -> int:
        """Nothing is recorded."""
        return 0

    def find_keys(self, _keys: Any) -> Any:
        """Nothing is known."""
        found: Deferred[dict[str, Any]] = Deferred()
        found.callback({})
        return found

    def propose(self, _payload: bytes) -> "Deferred[Any]":
        """Never recorded: no test of this file waits for it."""
        return Deferred()

    def resign(self) -> None:
        """Not needed."""


def test_the_leader_asks_the_catalog_on_behalf_of_the_clients() -> None:
    """A batch has the ids of the calls that brought its orders, and no others."""
    told: list[origin.Ids] = []

    class Told(Catalog):
        async def execute(self, batch: Any) -> Any:
            told.append(origin.current())
            return await super().execute(batch)

    clock = Clock()
    leading = Leading(1, Ledger(), Told(), clock, Limits(), lambda: 0, Failure.raiseException)
    leading.start()
    clock.advance(1.0)
    for key, ids in (("a", ("one",)), ("b", ()), ("c", ("two", "three"))):
        with origin.on_behalf_of(ids):
            leading.place(new_order(key), lambda _: None)
            leading.go()
    assert told == [("one",), (), ("two", "three")]
    leading.end()


def test_an_order_that_waited_for_a_key_is_asked_for_on_behalf_of_the_clients() -> None:
    """An order waits for another one with its key, which fails. The batch in which it goes then has
    its ids.
    """
    told: list[origin.Ids] = []

    class Full(Catalog):
        async def execute(self, batch: Any) -> Any:
            told.append(origin.current())
            raise DiskFull("full")

    clock = Clock()
    leading = Leading(1, Ledger(), Full(), clock, Limits(), lambda: 0, Failure.raiseException)
    leading.start()
    with origin.on_behalf_of(("mine",)):
        leading.place(new_order("a"), lambda _: None)
        leading.place(new_order("a", 2), lambda _: None)
        leading.go()
    assert told == [("mine",), ("mine",)]
    leading.end()


def test_a_front_end_that_is_deaf_is_told_of_with_the_ids() -> None:
    """When an invalidation fails, the log line has the ids of the trades that wait for it."""
    scene = Scene()
    scene.sessions.looked_up(1, "s1", "A", scene.clock.seconds())
    with capturedLogs() as events:
        with origin.on_behalf_of(("mine",)):
            scene.publisher.publish([version_of("A", 1)])
        scene.http.answer(0, 500)
    assert [event["request_id"] for event in events] == ["mine"]
    scene.clock.advance(LIMITS.cache_lease_s)


@pytest.mark.parametrize(
    "error",
    [Unavailable("x"), pytest.param(ZeroDivisionError(), marks=pytest.mark.logs_failures)],
)
def test_placing_that_fails_is_logged_with_the_ids(error: Exception) -> None:
    """An unexpected error is logged with the ids; one that was raised on purpose is not logged."""
    group = Group()
    group.members[3].replies["PlaceOrders"] = error
    with capturedLogs() as events, origin.on_behalf_of(("mine",)):
        placing = group.place()
    with capturedLogs() as later:
        group.advance(3.0)
    assert len(placing) == 1
    logged = [event for event in (*events, *later) if "log_failure" in event]
    assert {event["request_id"] for event in logged} == ({"mine"} if logged else set())
    assert bool(logged) is isinstance(error, ZeroDivisionError)
