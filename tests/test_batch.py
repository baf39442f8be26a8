"""Many orders in one request, each with its own key and its own outcome."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from treq.testing import StubTreq
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from tests.test_api import GOOD, Reply, Site
from tests.test_tiers import LIMITS, Group, executed
from twstock.config import Limits
from twstock.errors import DiskFull, KeyReused, OutcomeUnknown, Overloaded, Unavailable
from twstock.market import NAME_CHARS_MAX, QUANTITY_MAX, Refusal
from twstock.rpc.calls import Placement, PlaceOrder
from twstock.web.batch import Batches
from twstock.web.bodies import BATCH_ORDERS_MAX
from twstock.web.http.routes import larger_bodies, mount
from twstock.web.traffic import Traffic

BAD_KEY = "orders[1].idempotency_key: expected one of 1 to 255 visible ASCII characters"


class Desk(Site):
    """A front-end whose order service answers each order by its name."""

    def __init__(self, orders: Any = None) -> None:
        super().__init__()
        self.results: dict[str, Any] = {}
        orders = orders or self
        self.traffic = Traffic()
        self.batches = Batches(self.cache, orders, lambda: "made-key", Limits(), self.traffic)
        self.treq = StubTreq(mount(self.api.routes() + self.batches.routes()).resource())

    def place(self, order: PlaceOrder) -> "Deferred[Placement]":
        """As the order leader."""
        self.tiers.placed.append(order)
        return self.tiers.answer(self.results.get(order.name, self.tiers.placement))

    def send(self, orders: Any, **headers: str) -> Reply:
        """POST /orders/batch."""
        body = orders if isinstance(orders, bytes) else json.dumps({"orders": orders}).encode()
        return self.ask("POST", "/orders/batch", data=body, headers=headers)

    def rows(self, *orders: Any) -> Any:
        """The rows of the answer."""
        reply = self.send(list(orders))
        assert reply.code == 200
        return reply.json["data"]


@pytest.fixture
def desk() -> Desk:
    """Everything works."""
    return Desk()


def test_each_order_of_a_batch_is_counted() -> None:
    """It counts whatever becomes of it. A request without orders counts as none."""
    desk = Desk()
    desk.rows({"name": "A", "quantity": 1, "type": "buy"}, "none", {"name": "B"})
    desk.send([])
    assert desk.traffic.batched == 3


def test_each_order_has_its_own_outcome(desk: Desk) -> None:
    """In the sequence of the request, whatever becomes of the others."""
    desk.results = {
        "B": Placement(7, replayed=True, version=3),
        "C": Placement(refusal=Refusal.NOT_ENOUGH),
        "D": KeyReused(),
        "E": OutcomeUnknown("lost"),
        "F": Placement(refusal=Refusal.UNKNOWN_STOCK, replayed=True),
    }
    rows = desk.rows(*(GOOD | {"name": name, "idempotency_key": name} for name in "ABCDEF"))
    assert rows == [
        {"status": 200, "transaction_number": 1},
        {"status": 200, "transaction_number": 7, "replayed": True},
        {"status": 404, "error": {"code": 404, "message": "not enough stocks left to buy"}},
        {
            "status": 422,
            "error": {"code": 422, "message": "idempotency key was used with another order"},
        },
        {"status": 503, "error": {"code": 503, "message": "lost", "outcome": "unknown"}},
        {
            "status": 404,
            "error": {"code": 404, "message": "invalid stock name"},
            "replayed": True,
        },
    ]


def test_without_a_key_a_row_tells_neither_of_a_replay_nor_of_the_key(desk: Desk) -> None:
    """The front-end made the key and may have asked twice with it; the client does not know it."""
    desk.results = {
        "A": Placement(7, replayed=True, version=3),
        "B": Placement(refusal=Refusal.UNKNOWN_STOCK, replayed=True),
        "C": OutcomeUnknown("ask again with the same key"),
        "D": Unavailable("nobody leads"),
    }
    doubt = "the outcome could not be learnt in time: the order may have been executed"
    assert desk.rows(*(GOOD | {"name": name} for name in "ABCD")) == [
        {"status": 200, "transaction_number": 7},
        {"status": 404, "error": {"code": 404, "message": "invalid stock name"}},
        {"status": 503, "error": {"code": 503, "message": doubt, "outcome": "unknown"}},
        {"status": 503, "error": {"code": 503, "message": "nobody leads", "outcome": "none"}},
    ]


def test_orders_have_their_own_keys(desk: Desk) -> None:
    """Or get one, so that the front-end may ask again. A key for the whole request is refused."""
    desk.rows(GOOD | {"idempotency_key": "mine"}, GOOD)
    assert [order.key for order in desk.tiers.placed] == ["mine", "made-key"]
    reply = desk.send([GOOD], **{"Idempotency-Key": "all"})
    assert (reply.code, reply.message.split(":")[0]) == (400, "Idempotency-Key")


@pytest.mark.parametrize(
    ("order", "status", "message"),
    [
        (GOOD | {"quantity": 1.5}, 400, "orders[1].quantity: expected an integer"),
        (GOOD | {"quantity": True}, 400, "orders[1].quantity: expected an integer"),
        (
            GOOD | {"quantity": QUANTITY_MAX + 1},
            400,
            f"orders[1].quantity: expected at most {QUANTITY_MAX}",
        ),
        ({"name": "A", "type": "buy"}, 400, "orders[1].quantity: missing"),
        ({"name": "A", "quantity": 1}, 400, "orders[1].type: missing"),
        ({"type": "buy", "quantity": 1}, 400, "orders[1].name: missing"),
        (GOOD | {"name": 7}, 400, "orders[1].name: expected a text"),
        (GOOD | {"name": "\ud800"}, 400, "orders[1].name: not a Unicode text"),
        (
            GOOD | {"name": "x" * (NAME_CHARS_MAX + 1)},
            404,
            "invalid stock name",
        ),
        (GOOD | {"idempotency_key": "a b"}, 400, BAD_KEY),
        (GOOD | {"idempotency_key": None}, 400, BAD_KEY),
        (GOOD | {"idempotency_key": ""}, 400, BAD_KEY),
        (GOOD | {"idempotency_key": "é"}, 400, BAD_KEY),
        ([], 400, "orders[1]: expected a JSON object"),
        (None, 400, "orders[1]: expected a JSON object"),
        (GOOD | {"type": "hold"}, 404, "invalid transaction type"),
        (GOOD | {"quantity": 0}, 404, "num stocks traded should be non negative"),
    ],
)
def test_a_bad_order_spoils_no_other(desk: Desk, order: Any, status: int, message: str) -> None:
    """Its row says what is wrong, and only the others are placed."""
    rows = desk.rows(GOOD, order, GOOD)
    assert [row["status"] for row in rows] == [200, status, 200]
    assert rows[1]["error"] == {"code": status, "message": message}
    assert len(desk.tiers.placed) == 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "body: not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"[]", "body: expected a JSON object"),
        (b"{}", "orders: missing"),
        (b'{"orders": 1}', "orders: expected a list of 1 to 1000 orders"),
        (b'{"orders": {}}', "orders: expected a list of 1 to 1000 orders"),
        (b'{"orders": []}', "orders: expected a list of 1 to 1000 orders"),
        (b'{"orders": [' + b"{}," * 1000 + b"{}]}", "orders: expected a list of 1 to 1000 orders"),
        (b'{"orders": [NaN]}', "orders: NaN and Infinity are not JSON"),
        (b'{"orders": [{"quantity": NaN}]}', "quantity: NaN and Infinity are not JSON"),
        (b'{"orders": [{"name": 1, "name": 1}]}', "name: appears twice"),
        (b'{"orders": [], "orders": []}', "orders: appears twice"),
    ],
)
def test_what_is_no_batch_is_refused_as_a_whole(desk: Desk, body: bytes, message: str) -> None:
    """The error names the field, and nothing is placed."""
    reply = desk.send(body)
    assert (reply.code, reply.message) == (400, message)
    assert desk.tiers.placed == []


@given(st.lists(st.dictionaries(st.text(max_size=4), st.integers() | st.text()) | st.none()))
def test_every_batch_has_a_row_for_each_order(orders: list[Any]) -> None:
    """Whatever the orders are. Too few or too many are refused as a whole."""
    reply = Desk().send(orders)
    assert reply.code == (200 if 1 <= len(orders) <= BATCH_ORDERS_MAX else 400)
    if reply.code == 200:
        assert len(reply.json["data"]) == len(orders)


@pytest.mark.parametrize(
    ("error", "status"), [(Overloaded(), 429), (Unavailable(), 503), (DiskFull(), 507)]
)
def test_doubt_belongs_to_the_key(desk: Desk, error: Exception, status: int) -> None:
    """Under the client's own key an earlier request may have executed the order, although this one
    did nothing.
    """
    desk.tiers.placement = error
    rows = desk.rows(GOOD, GOOD | {"idempotency_key": "mine"})
    assert [row["status"] for row in rows] == [status, status]
    assert [row["error"]["outcome"] for row in rows] == ["none", "unknown"]


@pytest.mark.logs_failures
def test_an_error_that_nobody_foresaw_is_one_orders_own(desk: Desk) -> None:
    """It is logged, and the other orders have their outcomes."""
    desk.results["BAD"] = ZeroDivisionError("secret")
    with capturedLogs() as logged:
        rows = desk.rows(GOOD, GOOD | {"name": "BAD"})
    assert rows[1] == {
        "status": 500,
        "error": {"code": 500, "message": "internal error", "outcome": "unknown"},
    }
    assert rows[0]["status"] == 200
    assert any("log_failure" in event for event in logged)


def test_who_traded_here_reads_the_trade_here(desk: Desk) -> None:
    """The cached version from before is dropped."""
    desk.get("/stocks/GOOGL")
    desk.tiers.placement = Placement(1, version=4)
    desk.rows(GOOD)
    assert desk.cache.minimum("GOOGL") == 4


def test_a_batch_waits_for_its_last_order(desk: Desk) -> None:
    """In whatever sequence their answers come, the rows are in that of the request."""
    desk.tiers.hold = True
    body = json.dumps({"orders": [GOOD] * 3}).encode()
    reply = desk.begin("POST", "/orders/batch", data=body)
    for number in (3, 1, 2):
        assert reply == []
        desk.tiers.waiting[number - 1].callback(Placement(number, version=number))
        desk.treq.flush()
    assert [row["transaction_number"] for row in reply[0].json["data"]] == [1, 2, 3]


def test_a_full_queue_refuses_what_it_has_no_room_for() -> None:
    """Order by order: those before are placed, and go to the leader together."""
    group = Group()
    group.members[3].replies["PlaceOrders"] = executed
    desk = Desk(group.tier)
    room = LIMITS.requests_waiting_max
    orders = [GOOD | {"quantity": number} for number in range(1, room + 4)]
    body = json.dumps({"orders": orders}).encode()
    reply = desk.begin("POST", "/orders/batch", data=body)
    group.advance(0.1)
    desk.treq.flush()
    rows = reply[0].json["data"]
    assert [row["status"] for row in rows] == [200] * room + [429] * 3
    assert [row["transaction_number"] for row in rows[:room]] == list(range(1, room + 1))
    assert rows[-1]["error"]["outcome"] == "none"
    sizes = [len(call.request.orders) for call in group.members[3].of("PlaceOrders")]
    assert sizes == [LIMITS.batch_orders_max] * 5


def test_a_batch_may_be_larger_than_an_order(desk: Desk) -> None:
    """Only its path has the larger limit."""
    routes = desk.api.routes() + desk.batches.routes()
    assert larger_bodies(routes) == {b"/orders/batch": Limits().batch_body_bytes_max}


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/orders/batch", "POST"),
        ("HEAD", "/orders/%62atch", "POST"),
        ("PUT", "/orders/batch", "POST"),
        ("POST", "/orders/1", "GET, HEAD"),
        ("POST", "/orders/batch/", "GET, HEAD"),
        ("POST", "/orders/batches", "GET, HEAD"),
    ],
)
def test_batch_is_no_number(desk: Desk, method: str, path: str, allow: str) -> None:
    """It is a path of its own, and orders are still found by their numbers."""
    reply = desk.ask(method, path)
    assert (reply.code, reply.header("Allow")) == (405, allow)
    assert desk.get("/orders/batch/1").code == desk.get("/orders/batches").code == 404
    assert desk.get("/orders/1").code == 200
