"""What requests may contain, and which HTTP answer each result has."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twstock import errors
from twstock.errors import InvalidRequest
from twstock.market import QUANTITY_MAX, Order, Refusal, Side, Stock, Trade
from twstock.rpc.calls import Orders, Page, Placement, PlaceOrder, StockPage, Stocks
from twstock.web import answers, bodies
from twstock.web.answers import Answer

GOOD = {"name": "GOOGL", "quantity": 1, "type": "buy"}


def body(**changes: Any) -> bytes:
    """A good order with some members changed."""
    return json.dumps(GOOD | changes).encode()


def told(answer: Answer) -> Any:
    """The JSON of an answer."""
    return json.loads(answer.body)


def test_a_good_order_is_taken_word_by_word() -> None:
    """Name, type and quantity arrive as they were sent; unknown members are ignored."""
    order = bodies.parse_order(body(name="Überseekontor / 北", comment=[1.5]), "k")
    assert order == PlaceOrder("k", "Überseekontor / 北", "buy", 1)


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        (b"", "body"),
        (b"nonsense", "body"),
        (b"[]", "body"),
        (b"1", "body"),
        (b"null", "body"),
        (b'{"name": "GOOGL"', "body"),
        (body() + b"x", "body"),
        (b"\xef\xbb\xbf" + body(), "body"),
        (b'{"name": "\xff", "quantity": 1, "type": "buy"}', "body"),
        (body().decode().encode("utf-16"), "body"),
        (b"[" * 16000, "body"),
        (b'{"a":' * 3000, "body"),
        (b'{"name": "GOOGL", "type": "buy"}', "quantity"),
        (b'{"quantity": 1, "type": "buy"}', "name"),
        (b'{"quantity": 1, "name": "GOOGL"}', "type"),
        (body(name=1), "name"),
        (body(name=None), "name"),
        (body(name=["GOOGL"]), "name"),
        (body(name="\ud800"), "name"),
        (body(type=1), "type"),
        (body(type=None), "type"),
        (body(type="\udfff"), "type"),
        (body(quantity="1"), "quantity"),
        (body(quantity=True), "quantity"),
        (body(quantity=None), "quantity"),
        (body(quantity=1.0), "quantity"),
        (body(quantity=1.5), "quantity"),
        (body(quantity=[1]), "quantity"),
        (body(quantity=QUANTITY_MAX + 1), "quantity"),
        (body(quantity=2**63), "quantity"),
        (b'{"name": "A", "quantity": ' + b"9" * 5000 + b', "type": "buy"}', "quantity"),
        (b'{"name": "A", "quantity": NaN, "type": "buy"}', "quantity"),
        (b'{"name": "A", "quantity": Infinity, "type": "buy"}', "quantity"),
        (b'{"name": "A", "quantity": -Infinity, "type": "buy"}', "quantity"),
        (b'{"name": "A", "quantity": 1e309, "type": "buy"}', "quantity"),
        (b'{"name": "A", "quantity": 1, "type": "buy", "x": [[NaN]]}', "x"),
        (b'{"name": "A", "quantity": 1, "type": "buy", "quantity": 2}', "quantity"),
        (b'{"name": "A", "quantity": 1, "type": "buy", "x": {"y": 1, "y": 2}}', "y"),
    ],
)
def test_what_is_wrong_with_a_body_is_named(sent: bytes, field: str) -> None:
    """Each malformed body is a 400 whose message names the field."""
    with pytest.raises(InvalidRequest) as caught:
        bodies.parse_order(sent, "k")
    assert caught.value.field == field
    answer = answers.failure(caught.value)
    assert answer is not None
    assert answer.status == 400
    assert told(answer)["error"]["message"].startswith(field)


@pytest.mark.parametrize(
    ("sent", "refusal"),
    [
        (body(type="hold"), Refusal.UNKNOWN_TYPE),
        (body(type="BUY", quantity=0), Refusal.UNKNOWN_TYPE),
        (body(type=""), Refusal.UNKNOWN_TYPE),
        (body(quantity=0), Refusal.NOT_POSITIVE),
        (b'{"name": "A", "quantity": -0, "type": "buy"}', Refusal.NOT_POSITIVE),
        (body(quantity=-5), Refusal.NOT_POSITIVE),
        (b'{"name": "A", "quantity": -' + b"9" * 5000 + b', "type": "sell"}', Refusal.NOT_POSITIVE),
        (body(quantity=QUANTITY_MAX), None),
        (body(type="sell", name="no such stock"), None),
        (body(name="x" * 255), None),
        (body(name="x" * 256), Refusal.UNKNOWN_STOCK),
        (body(name=""), Refusal.UNKNOWN_STOCK),
        (body(name="", quantity=0), Refusal.NOT_POSITIVE),
    ],
)
def test_what_makes_no_sense_is_refused_in_the_seeds_words(
    sent: bytes, refusal: Refusal | None
) -> None:
    """Type, then quantity, then name: 404. Whether a stock exists that could exist is for the
    catalog to say.
    """
    answer = answers.refusal(bodies.parse_order(sent, "k"))
    if refusal is None:
        assert answer is None
    else:
        assert answer is not None
        assert told(answer) == {"error": {"code": 404, "message": refusal}}


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just(2**63),
    ),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)  # fmt: skip
ORDERS = st.dictionaries(
    st.sampled_from(["name", "quantity", "type", "x"]), JSON | st.sampled_from(["buy", 5])
)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=200), ORDERS.map(lambda o: json.dumps(o).encode())))
def test_no_body_is_an_internal_error(sent: bytes) -> None:
    """Whatever is sent is an order, a refusal, or an InvalidRequest whose answer is JSON."""
    try:
        order = bodies.parse_order(sent, "k")
    except InvalidRequest as error:
        answer = answers.failure(error)
        assert answer is not None
        assert told(answer)["error"]["code"] == answer.status == 400
    else:
        order.name.encode()
        assert -(2**63) <= order.quantity <= QUANTITY_MAX


@pytest.mark.parametrize("key", [b"k", b"!" * 255, b'"quoted"', b"a-b_c.d~"])
def test_a_key_of_visible_ascii_is_taken(key: bytes) -> None:
    """Up to 255 characters, as they are."""
    assert bodies.parse_key([key]) == key.decode()


@pytest.mark.parametrize(
    "values", [[b""], [b"a b"], [b"\xc3\xa9"], [b"x" * 256], [b"a\x7f"], [b"a", b"a"], [b"a\tb"]]
)
def test_another_key_is_named(values: list[bytes]) -> None:
    """A key that could be read in two ways would protect nobody."""
    with pytest.raises(InvalidRequest, match=r"^Idempotency-Key: "):
        bodies.parse_key(values)


def test_no_key_is_no_error() -> None:
    """The front-end then makes one."""
    assert bodies.parse_key(None) is None


@pytest.mark.parametrize(
    ("spelled", "number"),
    [
        (b"1", 1),
        (b"%31%30", 10),
        (str(2**63 - 1).encode(), 2**63 - 1),
        (str(2**63).encode(), None),
        (b"9" * 5000, None),
        (b"0", None),
        (b"01", None),
        (b"-1", None),
        (b"+1", None),
        (b"1.0", None),
        (b"1e3", None),
        (b"", None),
        (b"%20", None),
        (b"x", None),
        (b"%ff", None),
        ("٣".encode(), None),
        (b"1%0A", None),
    ],
)
def test_an_order_number_is_a_number_from_1_up(spelled: bytes, number: int | None) -> None:
    """Everything else is a 404, like a number that no order has."""
    assert bodies.parse_number(spelled) == number


def test_pages_have_defaults_and_a_limit() -> None:
    """Empty parameters count as absent, and a limit above the highest is lowered."""
    assert bodies.parse_order_page({}, 1000) == Page(0, 100)
    assert bodies.parse_order_page({b"after": [b""], b"limit": [b""]}, 1000) == Page(0, 100)
    assert bodies.parse_order_page({b"after": [b"7"], b"limit": [b"5000"]}, 1000) == Page(7, 1000)
    assert bodies.parse_stock_page({b"after": ["Ü".encode()]}, 1000) == StockPage("Ü", 100)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"0" * 5000 + b"7", 7),
        (str(2**63 - 2).encode(), 2**63 - 2),
        (str(2**63 - 1).encode(), 2**63 - 1),
        (str(2**63).encode(), 2**63 - 1),
        (b"1" + b"0" * 19, 2**63 - 1),
        (b"1" + b"0" * 20, 2**63 - 1),
        (b"9" * 15_000, 2**63 - 1),
    ],
)
def test_a_number_may_be_of_any_length(text: bytes, number: int) -> None:
    """One that is larger than any there can be is no error: it is lowered to the largest."""
    given = {b"after": [text], b"limit": [text]}
    assert bodies.parse_order_page(given, 2**63) == Page(number, number)
    assert bodies.parse_stock_page({b"limit": [text]}, 1000).limit == min(number, 1000)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("after", [b"x"]),
        ("after", [b"-1"]),
        ("after", [b"9" * 5000 + b"x"]),
        ("after", [b"+1"]),
        ("after", [b" 1"]),
        ("after", [b"1\n"]),
        ("after", ["٣".encode()]),
        ("after", [b"1", b"2"]),
        ("limit", [b"0"]),
        ("limit", [b"0" * 5000]),
        ("limit", [b"1.5"]),
        ("limit", [b"\xff"]),
    ],
)
def test_what_is_wrong_with_a_page_is_named(field: str, values: list[bytes]) -> None:
    """A parameter that is no number is a 400 that names it."""
    with pytest.raises(InvalidRequest, match=f"^{field}: "):
        bodies.parse_order_page({field.encode(): values}, 1000)


class CountedName(str):
    """A name that counts how often it is compared with another."""

    __slots__ = ()
    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        CountedName.compared += 1
        return str.__eq__(self, other)  # type: ignore[no-any-return]


def test_finding_a_name_that_appears_twice_takes_as_long_as_reading() -> None:
    """Names are not all compared with each other, or one body could stop the front-end for
    seconds.
    """
    names = [CountedName(f"n{number}") for number in range(2000)]
    with pytest.raises(InvalidRequest, match=r"^n1999: appears twice"):
        bodies._members([(name, 1) for name in (*names, CountedName("n1999"))])
    assert CountedName.compared < 2 * len(names)


def test_a_stock_name_that_is_not_utf8_is_refused() -> None:
    """The answer is a 400 that names the field."""
    assert bodies.parse_name(b"a%2Fb%20%C3%9C") == "a/b Ü"
    with pytest.raises(InvalidRequest, match=r"^name: "):
        bodies.parse_name(b"%ff")
    for after in (b"\xff", b"x" * 256):
        with pytest.raises(InvalidRequest, match=r"^after: "):
            bodies.parse_stock_page({b"after": [after]}, 10)


def test_a_name_that_no_stock_can_have_counts_as_empty() -> None:
    """Whoever asks for it is told that there is no such stock."""
    assert bodies.parse_name(b"%C3%9C" * 255) == "Ü" * 255
    assert bodies.parse_name(b"x" * 256) == ""


@pytest.mark.parametrize(
    ("error", "status", "outcome", "retry"),
    [
        (InvalidRequest("name", "missing"), 400, None, False),
        (errors.KeyReused(), 422, None, False),
        (errors.Overloaded("full"), 429, "none", True),
        (errors.DiskFull("full"), 507, "none", True),
        (errors.Unavailable("x"), 503, "none", True),
        (errors.NotLeader(2), 503, "none", True),
        (errors.OutcomeUnknown("x"), 503, "unknown", True),
        (errors.StaleEpoch("x"), 503, "unknown", True),
        (errors.BrokenInvariant("x"), 503, "unknown", True),
    ],
)
def test_errors_have_their_status(
    error: Exception, status: int, outcome: str | None, retry: bool
) -> None:
    """The table of docs/api.md; the outcome is ``none`` only if nothing can have happened."""
    answer = answers.failure(error)
    assert answer is not None
    fields = told(answer)["error"]
    assert (answer.status, fields["code"], fields.get("outcome")) == (status, status, outcome)
    assert (answers.RETRY[0] in answer.headers) is retry


def test_stocks_and_orders_look_as_promised() -> None:
    """Prices have two decimals, and pages tell where the next one begins."""
    stock = Stock("A", 1599, 7, 5, 2, 12)
    fields = {"name": "A", "price": 15.99, "quantity": 7, "volume": 5, "version": 2}
    assert answers.stock_fields(stock) == fields
    page = answers.stock_page(Stocks((stock,), ""), 7)
    assert told(page) == {"data": [fields], "next": None}
    trade = Trade(3, Order("k", "A", Side.BUY, 5), 2, 1599, 1234)
    listed = told(answers.order_page(Orders((trade,), 3), 7))
    assert listed["next"] == 3
    row = listed["data"][0]
    assert (row["order_num"], row["name"], row["type"], row["quantity"]) == (3, "A", "buy", 5)


def test_a_replayed_answer_says_so() -> None:
    """It has the header of a replay, whether the order was executed or refused."""
    executed = answers.placement(Placement(5, replayed=True), keyed=True)
    assert told(executed) == {"data": {"transaction_number": 5}}
    refused = answers.placement(Placement(refusal=Refusal.NOT_ENOUGH, replayed=True), keyed=True)
    assert (refused.status, told(refused)["error"]["message"]) == (404, Refusal.NOT_ENOUGH)
    assert executed.headers == refused.headers == answers.REPLAYED
    assert answers.placement(Placement(5), keyed=True).headers == ()


def test_a_whole_answer_is_complete() -> None:
    """It has a status line, date, id and length, and says that the connection ends."""
    answer = answers.not_allowed({"POST", "GET"}).closing().whole(b"today", b"7")
    head, _, content = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[:3] == [b"HTTP/1.1 405 Method Not Allowed", b"Date: today", b"X-Request-Id: 7"]
    assert b"Allow: GET, POST" in lines
    assert b"Connection: close" in lines
    assert b"Content-Length: %d" % len(content) in lines
