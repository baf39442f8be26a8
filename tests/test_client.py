"""The typed client: what it asks, what it makes of the answers, and when it asks again."""

import json
from decimal import Decimal
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.web.client import URI

from tests.front_ends import CUT, HANG, LOSE, REFUSE, World, error
from tests.test_api import Site
from twstock.client import (
    BadAnswer,
    Client,
    InvalidRequest,
    KeyReused,
    Member,
    OrderNotFound,
    OutcomeUnknown,
    Placed,
    Refusal,
    Refused,
    Side,
    Stock,
    StockNotFound,
    Ticket,
    Unavailable,
    WrongUrl,
)
from twstock.client.batch import BODY_BYTES_MAX
from twstock.client.client import CONNECT_TIMEOUT_S, NEXT_ADDRESS_S, PATIENCE_S, Endpoints
from twstock.client.fronts import ANSWER_BYTES_MAX, REQUESTS_UNDER_WAY_MAX
from twstock.client.values import change
from twstock.web.answers import NO_SUCH_PATH

BUSY = error(429, "too many orders are waiting", outcome="unknown")
LOST = error(503, "the outcome could not be learnt in time", outcome="unknown")
IDLE = error(503, "no order leader took the order in time", outcome="none")


@pytest.fixture
def world():
    """One front-end that works, and a client of it."""
    return World()


async def listed(rows):
    """All of an async iterator."""
    return [row async for row in rows]


def test_waiting_for_a_connection_counts_as_well(world):
    """However many requests there are, thousands or more, each ends within its patience, the time
    in which it waits for others included.
    """
    world.front.replies = [HANG] * 1000
    reading = [world.begin(world.client.lookup("AAPL")) for _ in range(2000)]
    world.front.replies = [HANG] * 1000
    named = world.begin(world.client.buy("AAPL", 1, "mine"))
    unnamed = world.begin(world.client.buy("AAPL", 1))
    for result in (*reading, unnamed):
        with pytest.raises(Unavailable):
            world.finish(result, PATIENCE_S + 0.1)
    with pytest.raises(OutcomeUnknown) as unknown:
        world.finish(named, 0.1)
    assert unknown.value.key == "mine"
    assert world.clock.seconds() <= PATIENCE_S + 0.2
    world.front.replies = []
    assert world.run(world.client.lookup("AAPL")).name == "AAPL"


def test_a_closed_client_asks_nobody(world):
    """Each call raises, and nothing is sent: nobody trades on with a client that was closed."""
    client, asked = world.client, list(world.front.requests)
    world.run(client.close())
    calls = [
        lambda: client.lookup("AAPL"),
        lambda: client.buy("AAPL", 1),
        lambda: client.place_many([Ticket.buy("AAPL", 1)]),
        lambda: client.order(1),
        lambda: listed(client.orders()),
        lambda: client.administrator("a token").halt("AAPL"),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="the client is closed"):
            world.run(call())
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.events()
    assert world.front.requests == asked


def test_a_request_under_way_ends_well_though_the_client_is_closed(world):
    """It is even sent again if it has to be, so that no order is left in doubt."""
    world.front.replies = [(503, IDLE)]
    placing = world.begin(world.client.buy("AAPL", 1))
    world.run(world.client.close())
    assert world.finish(placing, PATIENCE_S).number == 1


# --- reading ---------------------------------------------------------------------------------


def test_money_has_the_digits_that_were_sent(world):
    """A price is a Decimal made from the text, never from a float."""
    body = b'{"data":{"name":"X","price":%s,"quantity":1,"volume":2,"version":3}}'
    for text in ("15.90", "0.1", "100", "9007199254740993.07", "1E+2"):
        world.front.replies = [(200, body % text.encode())]
        stock = world.run(world.client.lookup("X"))
        assert stock == ("X", Decimal(text), 1, 2, 3, False)
        assert str(stock.price) == text


def test_a_halted_stock_says_so(world):
    """The field ``halted`` is only sent while it is true."""
    world.ledger.stocks["AAPL"]["halted"] = True
    assert world.run(world.client.lookup("AAPL")).halted
    assert not world.run(world.client.lookup("NVDA")).halted


def test_what_is_not_there_is_an_error_with_its_name(world):
    """A stock by its name, an order by its number."""
    with pytest.raises(StockNotFound) as stock:
        world.run(world.client.lookup("Nobody"))
    assert stock.value.name == "Nobody"
    with pytest.raises(OrderNotFound) as order:
        world.run(world.client.order(7))
    assert order.value.number == 7
    with pytest.raises(StockNotFound):
        world.run(world.client.lookup("half a pair \ud800"))


def test_a_stock_that_is_known_need_not_be_sent_again(world):
    """The answer 304 stands for the stock that the client has."""
    known = Stock("AAPL", Decimal("15.99"), 100, 0, 0)
    world.front.replies = [(304, b"")]
    assert world.run(world.client.lookup("AAPL", known)) is known
    assert world.front.requests[0].getHeader("If-None-Match") == '"0"'
    old = known._replace(version=-1)
    assert world.run(world.client.lookup("AAPL", old)) == known


def test_lists_go_through_every_page(world):
    """The iterator yields the rows of all pages in sequence, from where it was asked to begin."""
    for _ in range(5):
        world.run(world.client.buy("AAPL", 1))
    names = [stock.name for stock in world.run(listed(world.client.stocks()))]
    assert names == ["AAPL", "GOOGL", "NVDA"]
    orders = world.run(listed(world.client.orders()))
    assert [order.number for order in orders] == [1, 2, 3, 4, 5]
    assert orders[0] == (1, "AAPL", Side.BUY, 1, Decimal("15.99"), 1, 7)
    later = world.run(listed(world.client.orders(after=3)))
    assert [order.number for order in later] == [4, 5]


def test_a_list_that_leads_back_to_itself_is_not_followed_for_ever(world):
    """Such a server is broken."""
    world.front.replies = [(200, {"data": [], "next": 7})] * 3
    with pytest.raises(BadAnswer, match="followed by itself"):
        world.run(listed(world.client.orders()))
    assert len(world.asked) == 2


def test_the_members_of_the_cluster(world):
    """What is not known of a member is None; what this client does not know is ignored."""
    row = {"service": "order", "id": 3, "address": "a:1", "alive": True, "role": "leader"}
    row |= {"term": 2, "last_transaction": 9, "commit": 12, "lag": 0, "pid": 5, "more": []}
    dead = {"service": "front", "id": 1, "address": "b:2", "alive": False, "role": None}
    world.front.replies = [(200, {"data": {"services": [row | {"uptime_s": 1.5}, dead]}})]
    assert world.run(world.client.cluster()) == [
        Member("order", 3, "a:1", True, "leader", 2, 9, 12, 0, 5, 1.5),
        Member("front", 1, "b:2", False),
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [("uptime_s", "soon"), ("uptime_s", True), ("role", 7), ("lag", "0"), ("pid", 1.5)],
)
def test_a_member_that_makes_no_sense_is_no_answer(world, field, value):
    """A field of the wrong type raises BadAnswer, which names it."""
    row = {"service": "order", "id": 3, "address": "a:1", "alive": True, field: value}
    world.front.replies = [(200, {"data": {"services": [row]}})]
    with pytest.raises(BadAnswer, match=f"^{field}: expected"):
        world.run(world.client.cluster())


@pytest.mark.parametrize(
    ("field", "value"),
    [("price", "15.99"), ("price", True), ("quantity", 1.5), ("name", 7), ("volume", None)],
)
def test_an_answer_that_makes_no_sense_is_none(world, field, value):
    """A field of the wrong type, or a missing one, raises BadAnswer, which names it."""
    world.ledger.stocks["AAPL"][field] = value
    with pytest.raises(BadAnswer, match=f"^{field}: expected"):
        world.run(world.client.lookup("AAPL"))
    del world.ledger.stocks["AAPL"][field]
    with pytest.raises(BadAnswer, match=f"^{field}: missing"):
        world.run(world.client.lookup("AAPL"))


def test_changes_have_what_their_kind_has():
    """A halt has neither price nor quantity, a price no quantity."""
    row = {"change_number": 4, "name": "A", "version": 2, "timestamp_ms": 9}
    assert change(row | {"kind": "halt"}) == (4, "halt", "A", None, None, 2, 9)
    priced = change(row | {"kind": "price", "price": Decimal("1.50")})
    assert (priced.price, priced.quantity) == (Decimal("1.50"), None)


# --- the project's own API -------------------------------------------------------------------


class Api(World):
    """The project's own API in the place of the fake front-end."""

    def __init__(self):
        super().__init__()
        self.site = Site()
        self.front.treq = self.site.treq


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=255))
@example("..")
@example("a/../%2F b\r\n\0")
@settings(max_examples=30)
def test_any_name_reaches_the_catalog_as_it_is(name):
    """Slashes, dots, spaces, percent signs, and whatever else a name may have."""
    world = Api()
    with pytest.raises(StockNotFound):
        world.run(world.client.lookup(name))
    assert [lookup.name for lookup in world.site.tiers.looked_up] == [name]


def test_the_client_and_the_api_understand_each_other():
    """Stocks, orders, lists and refusals, through the project's own handlers."""
    world = Api()
    assert world.run(world.client.lookup("GOOGL")) == ("GOOGL", Decimal("10.0"), 100, 0, 0, False)
    assert world.run(world.client.buy("GOOGL", 5)) == Placed(1, False, "key-1")
    assert world.site.tiers.placed[0] == ("key-1", "GOOGL", "buy", 5)
    order = world.run(world.client.order(1))
    assert order == (1, "GOOGL", Side.BUY, 5, Decimal("15.99"), 1, 1234)
    with pytest.raises(Refused) as refused:
        world.run(world.client.sell("GOOGL", 0))
    assert refused.value.kind is Refusal.NOT_POSITIVE
    with pytest.raises(Refused) as refused:
        world.run(world.client.buy("x" * 300, 5))
    assert refused.value.kind is Refusal.UNKNOWN_STOCK
    with pytest.raises(InvalidRequest) as invalid:
        world.run(world.client.buy("GOOGL", 2**60))
    assert invalid.value.field == "quantity"
    with pytest.raises(InvalidRequest, match="Idempotency-Key: expected"):
        world.run(world.client.buy("GOOGL", 5, key="two words"))


# --- orders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", list(Refusal))
def test_a_refusal_is_an_error_with_its_words_and_its_kind(world, refusal):
    """Each that the API knows, and one that this version does not know yet."""
    for words, kind in ((str(refusal), refusal), ("the market is closed", None)):
        world.front.replies = [(404, error(404, words))]
        with pytest.raises(Refused, match=words) as refused:
            world.run(world.client.buy("AAPL", 1, key=f"mine-{words.split()[0]}"))
        assert refused.value.kind is kind
        assert refused.value.key.startswith("mine-")
    assert len(world.asked) == 2


@pytest.mark.parametrize("key", ["", "two words", "é", "\udc80", "k" * 256, "a\r\nb: c"])
def test_what_is_no_key_is_refused_without_asking(world, key):
    """No order can have such a key, and not every text fits into a header."""
    with pytest.raises(InvalidRequest, match="Idempotency-Key: expected one of 1 to 255"):
        world.run(world.client.buy("AAPL", 1, key=key))
    with pytest.raises(InvalidRequest, match="Idempotency-Key: expected one of 1 to 255"):
        world.run(world.client.administrator("secret").halt("AAPL", key=key))
    assert world.asked == []


def test_a_key_that_belongs_to_another_order_is_an_error(world):
    """The same order under the same key is the same trade."""
    assert world.run(world.client.buy("AAPL", 1, key="mine")) == Placed(1, False, "mine")
    assert world.run(world.client.buy("AAPL", 1, key="mine")) == Placed(1, True, "mine")
    with pytest.raises(KeyReused):
        world.run(world.client.buy("AAPL", 2, key="mine"))


@pytest.mark.parametrize(
    "fault",
    [REFUSE, HANG, LOSE, CUT, (429, BUSY), (503, LOST), (503, IDLE), (507, BUSY), (502, b"<html>")],
)
@pytest.mark.parametrize("fronts", [1, 2])
def test_whatever_happens_on_the_way_the_order_is_executed_once(fault, fronts):
    """It is sent again under its key until there is an answer, and at another front-end if there is
    one.
    """
    world = World(fronts, timeout_s=1.0)
    for front in world.fronts:
        front.replies = [fault]
    placed = world.run(world.client.buy("AAPL", 3))
    assert (placed.number, placed.key) == (1, "key-1")
    assert placed.replayed is (fault in (LOSE, CUT))
    assert len(world.ledger.orders) == 1
    assert set(world.keys_sent()) == {"key-1"}
    assert len(world.asked) == fronts + 1
    assert [number for _, number in world.asked[:fronts]] == [1, 2][:fronts]


def test_a_front_end_that_is_down_is_passed_over_at_once():
    """The one that answered is asked first from then on."""
    world = World(3)
    world.fronts[0].down = world.fronts[1].down = True
    world.run(world.client.lookup("AAPL"))
    world.run(world.client.buy("AAPL", 1))
    assert world.asked == [(0.0, 1), (0.0, 2), (0.0, 3), (0.0, 3)]


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(world, status):
    """The client waits for as long as the front-end wants, and hardly longer."""
    world.front.replies = [(status, BUSY, {"Retry-After": "3"})]
    world.run(world.client.buy("AAPL", 1))
    assert [round(at, 1) for at, _ in world.asked] == [0.0, 3.0]


def test_a_retry_after_beyond_the_patience_is_not_waited_for(world):
    """The caller is told at once what is certain by now."""
    world.front.replies = [(429, BUSY, {"Retry-After": "60"})]
    results = world.begin(world.client.buy("AAPL", 1))
    with pytest.raises(Unavailable, match="too many orders are waiting"):
        world.finish(results, limit_s=0.0)


@pytest.mark.parametrize("fault", [REFUSE, (429, BUSY), (507, BUSY), (503, IDLE)])
def test_when_patience_ends_and_nothing_can_have_happened_it_says_so(world, fault):
    """No attempt can have executed the order, so its key need not be remembered."""
    world.front.replies = [fault] * 1000
    with pytest.raises(Unavailable, match="http://front-1:1: "):
        world.run(world.client.buy("AAPL", 1))
    assert 8.9 < world.clock.seconds() < 10.1


@pytest.mark.parametrize("fault", [HANG, LOSE, CUT, (503, LOST), (500, LOST), (200, b"<html>")])
def test_when_the_outcome_is_unknown_it_can_be_asked_for_again(fault):
    """One attempt that may have executed the order is enough; asking again under its key tells what
    became of it.
    """
    world = World(1, timeout_s=1.0)
    world.front.replies = [fault, *[REFUSE] * 1000]
    with pytest.raises(OutcomeUnknown) as unknown:
        world.run(world.client.buy("AAPL", 1))
    assert world.clock.seconds() < 10.1
    world.front.replies = []
    placed = world.run(world.client.buy("AAPL", 1, unknown.value.key))
    assert placed == Placed(1, fault in (LOSE, CUT), "key-1")
    assert len(world.ledger.orders) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "front-1"])
def test_a_front_end_that_is_not_there_is_passed_over_at_once(host):
    """For a numeric address there is nothing else to try, so the client does not wait the third of
    a second that Twisted would wait before the next address.
    """
    reactor = MemoryReactorClock()
    uri = URI.fromBytes(f"http://{host}:8080".encode())
    connecting = Endpoints(reactor).endpointForURI(uri).connect(Factory.forProtocol(Protocol))
    reactor.advance(0)
    ((*_, factory, timeout_s, _),) = reactor.tcpClients
    assert timeout_s == CONNECT_TIMEOUT_S
    factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
    reactor.advance(0 if host != "front-1" else NEXT_ADDRESS_S)
    assert isinstance(connecting.result.value, ConnectionRefusedError)
    connecting.addErrback(lambda _: None)


def test_under_a_key_of_ones_own_nothing_is_certain(world):
    """An earlier request under it may have executed the order, whatever became of this one."""
    world.front.down = True
    with pytest.raises(OutcomeUnknown) as unknown:
        world.run(world.client.buy("AAPL", 1, key="mine"))
    assert unknown.value.key == "mine"


@pytest.mark.parametrize("fault", [HANG, LOSE, (503, LOST)])
@pytest.mark.parametrize("status", [301, 400, 401, 403, 405, 413, 501])
def test_an_answer_that_decides_nothing_leaves_an_earlier_doubt(fault, status):
    """That a later attempt was turned away says nothing about the one before."""
    world = World(2, timeout_s=1.0)
    world.fronts[0].replies = [fault]
    world.fronts[1].replies = [(status, error(status, "not here"))]
    with pytest.raises(OutcomeUnknown, match=f"^{status} not here") as unknown:
        world.run(world.client.buy("AAPL", 1))
    assert unknown.value.key == "key-1"
    world.fronts[1].replies = [(status, error(status, "not here"))]
    with pytest.raises(OutcomeUnknown) as unknown:
        world.run(world.client.buy("AAPL", 1, key="mine"))
    assert unknown.value.key == "mine"


@pytest.mark.parametrize("status", [400, 404, 409, 422])
@pytest.mark.parametrize("body", [{"message": "name: no route"}, {}, [], "name: no route"])
def test_a_status_without_the_form_of_a_refusal_decides_nothing(status, body):
    """A proxy on the way uses the same statuses, and knows nothing of the order."""
    world = World(1, timeout_s=1.0)
    strange = error(status, "name: no route")
    strange["error"].pop("code")
    for form in (body, strange):
        world.front.replies = [HANG, (status, form)]
        with pytest.raises(OutcomeUnknown):
            world.run(world.client.buy("AAPL", 1))
        row = {"status": status, **(form if isinstance(form, dict) else {})}
        world.front.replies = [HANG, (200, {"data": [row]})]
        (unknown,) = world.run(world.client.place_many([Ticket.buy("AAPL", 1)]))
        assert type(unknown) is OutcomeUnknown


def test_a_path_that_is_none_decides_nothing(world):
    """After an attempt that may have got through, the error "no such path" may be that of another
    server.
    """
    nothing = json.loads(NO_SUCH_PATH.body)
    world.front.replies = [HANG, (404, nothing), (404, nothing)]
    with pytest.raises(OutcomeUnknown, match="no such path"):
        world.run(world.client.buy("AAPL", 1))
    with pytest.raises(BadAnswer, match="no such path"):
        world.run(world.client.buy("AAPL", 1))


@pytest.mark.parametrize("body", [json.loads(NO_SUCH_PATH.body), {"message": "no route"}])
def test_a_404_of_somebody_else_does_not_say_what_there_is(world, body):
    """Such as that of a proxy, or of a front-end for a path that it does not have."""
    for asking in (world.client.lookup("AAPL"), world.client.order(1)):
        world.front.replies = [(404, body)]
        with pytest.raises(BadAnswer, match="404"):
            world.run(asking)


def test_an_answer_that_decides_ends_an_earlier_doubt():
    """The order was refused, its key is another order's, or no front-end takes it."""
    answers = ((404, "invalid stock name", Refused), (422, "used with another order", KeyReused))
    for status, words, kind in (*answers, (400, "quantity: too large", InvalidRequest)):
        world = World(1, timeout_s=1.0)
        world.front.replies = [HANG, (status, error(status, words))]
        with pytest.raises(kind):
            world.run(world.client.buy("AAPL", 1))


def test_an_answer_to_an_order_that_makes_no_sense_leaves_it_unknown(world):
    """The answer was a 200, so the order may have been executed."""
    world.front.replies = [(200, {"data": {}})]
    with pytest.raises(OutcomeUnknown, match="transaction_number: missing") as unknown:
        world.run(world.client.buy("AAPL", 1))
    assert unknown.value.key == "key-1"


@pytest.mark.parametrize("fault", [HANG, (503, LOST, {"Retry-After": "5"})])
def test_cancelling_stops_asking(world, fault):
    """While the client waits for an answer, or before the next attempt. A cancelled request is not
    taken for a lost connection and sent again.
    """
    world.front.replies = [fault]
    outcome = []
    task = Deferred.fromCoroutine(world.client.buy("AAPL", 1))
    task.addBoth(outcome.append)
    world.pump()
    task.cancel()
    world.pump()
    assert outcome[0].check(CancelledError)
    world.clock.advance(60)
    world.pump()
    assert len(world.asked) == 1
    assert world.clock.getDelayedCalls() == []


UNREADABLE = [b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b'{"data": 1e99999999999999999999}']


@pytest.mark.parametrize("body", UNREADABLE, ids=["not UTF-8", "lists", "objects", "number"])
def test_what_cannot_be_read_is_no_answer(world, body):
    """Whatever is not JSON, or not within its limits: an order may have been executed all the same,
    a lookup has no result.
    """
    reply = (200, b'{"data":' + body + b"}")
    world.front.replies = [reply] * 100
    with pytest.raises(OutcomeUnknown, match="not JSON"):
        world.run(world.client.buy("AAPL", 1))
    world.front.replies = [reply] * 100
    with pytest.raises(Unavailable, match="not JSON"):
        world.run(world.client.lookup("AAPL"))


@pytest.mark.parametrize("patience_s", [0.26, 0.27, 0.28, 0.29, 0.31, 0.33])
def test_a_pause_may_take_longer_than_there_is_time(patience_s):
    """Then nobody is asked any more, and the error still says why. The patience is about as long as
    the first pauses.
    """
    world = World(1, patience_s=patience_s)
    world.front.down = True
    with pytest.raises(Unavailable, match="refused"):
        world.run(world.client.lookup("AAPL"))


# --- many orders -----------------------------------------------------------------------------


def bodies(world):
    """The names in each batch that was sent."""
    orders = [json.loads(body)["orders"] for body in world.front.bodies]
    return [[row["name"] for row in rows] for rows in orders]


def test_many_orders_have_an_outcome_each(world):
    """In their sequence: a refusal of one does not hide the outcomes of the others."""
    results = world.run(
        world.client.place_many(
            (
                Ticket.buy("AAPL", 3),
                Ticket.sell("Nobody", 1),
                Ticket.buy("NVDA", 101, "mine"),
                Ticket.sell("NVDA", 2, "mine too"),
            )
        )
    )
    assert results[0] == Placed(1, False, "key-1")
    assert (results[1].kind, results[1].key) == (Refusal.UNKNOWN_STOCK, "key-2")
    assert (results[2].kind, results[2].key) == (Refusal.NOT_ENOUGH, "mine")
    assert results[3] == Placed(2, False, "mine too")
    assert world.run(world.client.place_many([])) == []
    assert len(world.asked) == 1


def test_what_is_not_settled_is_sent_again_alone(world):
    """It is sent under the same keys, and an order that has an outcome keeps it."""
    rows = [
        {"status": 503, **LOST},
        {"status": 200, "transaction_number": 9},
        {"status": 429, **BUSY},
    ]
    world.front.replies = [(200, {"data": rows})]
    tickets = [Ticket.buy(name, 1) for name in ("AAPL", "GOOGL", "NVDA")]
    results = world.run(world.client.place_many(tickets))
    assert bodies(world) == [["AAPL", "GOOGL", "NVDA"], ["AAPL", "NVDA"]]
    assert [placed.key for placed in results] == ["key-1", "key-2", "key-3"]
    assert results[1] == Placed(9, False, "key-2")


def test_many_orders_go_in_batches_that_the_server_takes(world):
    """A batch has a thousand orders at most."""
    world.ledger.stocks["AAPL"]["quantity"] = 5000
    results = world.run(world.client.place_many(Ticket.buy("AAPL", 1) for _ in range(2500)))
    assert [len(names) for names in bodies(world)] == [1000, 1000, 500]
    assert [placed.number for placed in results] == list(range(1, 2501))


def test_long_names_make_smaller_batches(world):
    """No body is longer than a front-end takes, whatever is in it, and each order is in exactly
    one.
    """
    tickets = [Ticket.buy("𝄞" * 255, 1, f"{k:0255}") for k in range(1000)]
    results = world.run(world.client.place_many(tickets))
    assert [refused.key for refused in results] == [ticket.key for ticket in tickets]
    assert sum(map(len, bodies(world))) == 1000
    assert max(map(len, world.front.bodies)) <= BODY_BYTES_MAX


def test_when_patience_ends_each_order_is_told_what_is_certain(world):
    """One order may have been executed, one cannot have been, and one has the caller's own key,
    which an earlier request may have used.
    """
    rows = [{"status": 503, **LOST}, {"status": 429, **BUSY}, {"status": 429, **BUSY}]
    world.front.replies = [(200, {"data": rows}), *[REFUSE] * 1000]
    tickets = [Ticket.buy("AAPL", 1), Ticket.buy("NVDA", 1), Ticket.buy("NVDA", 1, "mine")]
    unknown, unavailable, own = world.run(world.client.place_many(tickets))
    assert (type(unknown), unknown.key) == (OutcomeUnknown, "key-1")
    assert type(unavailable) is Unavailable
    assert (type(own), own.key) == (OutcomeUnknown, "mine")


def test_an_earlier_doubt_about_a_batch_is_about_each_of_its_orders():
    """Whether a later attempt is turned away as a whole, or order by order, or until patience
    ends.
    """
    row, busy = {"status": 403, **error(403, "not here")}, {"status": 429, **BUSY}
    for replies in (
        [(403, error(403, "not here"))],
        [(200, {"data": [row, row]})],
        [(200, {"data": [busy, busy]}), *[REFUSE] * 1000],
        [(200, {"data": [busy, busy]}), (200, {"data": [row, row]})],
    ):
        world = World(1, timeout_s=1.0)
        world.front.replies = [HANG, *replies]
        results = world.run(world.client.place_many([Ticket.buy("AAPL", 1)] * 2))
        assert [type(result) for result in results] == [OutcomeUnknown] * 2
        assert [result.key for result in results] == ["key-1", "key-2"]


def test_a_doubt_about_an_order_of_a_batch_outlives_an_answer_that_decides_nothing(world):
    """One order may have been executed by the first attempt, the other cannot have been; the second
    attempt is turned away.
    """
    row = {"status": 403, **error(403, "not here")}
    world.front.replies = [
        (200, {"data": [{"status": 503, **LOST}, {"status": 429, **BUSY}]}),
        (200, {"data": [row, row]}),
    ]
    unknown, certain = world.run(world.client.place_many([Ticket.buy("AAPL", 1)] * 2))
    assert (type(unknown), unknown.key) == (OutcomeUnknown, "key-1")
    assert type(certain) is BadAnswer


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ((400, error(400, "orders: expected at most 1000")), InvalidRequest),
        ((404, error(404, "no such path")), BadAnswer),
        ((200, {"data": []}), OutcomeUnknown),
        ((200, {"data": [{"status": 200}]}), OutcomeUnknown),
        ((200, {"data": [{"status": []}]}), OutcomeUnknown),
    ],
)
def test_an_answer_to_the_whole_batch_is_each_orders(world, reply, kind):
    """An answer that leaves open what became of the batch leaves it open for each order."""
    world.front.replies = [reply]
    [result] = world.run(world.client.place_many([Ticket.buy("AAPL", 1)]))
    assert type(result) is kind


# --- the connection --------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [REFUSE, HANG, CUT, (503, IDLE), (502, b"<html>")])
def test_what_changes_nothing_is_asked_again_too(fault):
    """A lookup is sent again like an order, but ends as Unavailable, for nothing can have
    happened.
    """
    world = World(2, timeout_s=1.0)
    world.fronts[0].replies = [fault]
    assert world.run(world.client.lookup("AAPL")).name == "AAPL"
    for front in world.fronts:
        front.replies = [fault] * 1000
    with pytest.raises(Unavailable):
        world.run(world.client.lookup("AAPL"))


@pytest.mark.parametrize("status", [301, 403, 405])
def test_an_answer_that_no_front_end_gives_is_an_error(world, status):
    """Redirects are not followed: an order is meant for the front-end that it was given to."""
    world.front.replies = [(status, error(status, "elsewhere"), {"Location": "http://front-1:1/"})]
    with pytest.raises(BadAnswer, match=f"^{status} elsewhere"):
        world.run(world.client.lookup("AAPL"))
    assert len(world.asked) == 1


def test_an_answer_without_end_is_not_kept(world):
    """No answer of this API is that long, so it counts as none, and the order is sent again."""
    world.front.replies = [(200, b" " * (ANSWER_BYTES_MAX + 1))]
    world.run(world.client.buy("AAPL", 1))
    assert world.keys_sent() == ["key-1"] * 2


def test_requests_wait_for_room(world):
    """However many are made at once, only a limited number is under way."""
    world.front.replies = [HANG] * REQUESTS_UNDER_WAY_MAX
    results = [world.begin(world.client.lookup("AAPL")) for _ in range(REQUESTS_UNDER_WAY_MAX + 5)]
    assert len(world.asked) == REQUESTS_UNDER_WAY_MAX
    assert {world.finish(result).name for result in results} == {"AAPL"}


def test_who_waits_for_room_may_give_up(world):
    """Others then have the room, in their sequence."""
    world.front.replies = [HANG] * REQUESTS_UNDER_WAY_MAX
    tasks = []
    for _ in range(REQUESTS_UNDER_WAY_MAX + 3):
        result = world.begin(world.client.lookup("AAPL"))
        tasks.append((world.task, result))
    for task, result in (tasks[-2], tasks[0]):
        task.cancel()
        with pytest.raises(CancelledError):
            world.finish(result)
    world.clock.advance(0)
    world.pump()
    assert [bool(result) for _, result in tasks[-3:]] == [True, True, True]
    assert len(world.asked) == REQUESTS_UNDER_WAY_MAX + 2


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://a", "front:80", "http://", "http://a:port", "http://a:0", "http://a..b"),
        *("http://a b", "http://user:password@a", "http://a?b=c", "http://a#b"),
    ],
)
def test_a_url_that_is_none_is_refused(url):
    """It is refused when the client is made, not when it is first used."""
    with pytest.raises(WrongUrl):
        Client(url, reactor=World().clock)
    with pytest.raises(WrongUrl):
        Client([], reactor=World().clock)


def test_a_front_end_may_have_an_address_of_ipv6():
    """The client connects to it, and names it in Host, in brackets."""
    reactor = MemoryReactorClock()
    looking = Deferred.fromCoroutine(Client("http://[::1]:8080", reactor=reactor).lookup("A/B"))
    ((host, port, factory, *_),) = reactor.tcpClients
    assert (host, port) == ("::1", 8080)
    protocol, transport = factory.buildProtocol(None), StringTransport()
    protocol.makeConnection(transport)
    assert transport.value().startswith(b"GET /stocks/A%2FB HTTP/1.1\r\n")
    assert b"\r\nHost: [::1]:8080\r\n" in transport.value()
    stock = {"name": "A/B", "price": 1.5, "quantity": 1, "volume": 0, "version": 0}
    body = json.dumps({"data": stock}).encode()
    protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    assert looking.result.name == "A/B"


def test_a_front_end_may_be_behind_a_path(world):
    """The paths of the API are appended to that of the URL, for example of a proxy."""
    asked = []
    world.client = Client("https://proxy:1/twstock/", reactor=world.clock, http=world)
    world.request = lambda method, url, **_: asked.append(url) or Deferred()
    world.begin(world.client.order(1))
    assert asked == ["https://proxy:1/twstock/orders/1"]


def test_chance_is_an_argument():
    """The same seed makes the same pauses, another one other pauses."""

    def times(seed):
        world = World(1, random=Random(seed))
        world.front.replies = [REFUSE] * 6
        world.run(world.client.lookup("AAPL"))
        return world.asked

    assert times(1) == times(1) != times(2)
