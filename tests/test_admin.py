"""Administration over REST: who may make changes, what is asked for, and what is answered."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import capturedLogs

from tests.test_api import Reply, Site
from twstock.access import Admin
from twstock.config import Limits
from twstock.errors import (
    ConfigError,
    DiskFull,
    InvalidRequest,
    KeyReused,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)
from twstock.market import (
    PRICE_CENTS_MAX,
    QUANTITY_MAX,
    ChangeKind,
    ChangeRefusal,
    ChangeRequest,
    Refusal,
    Stock,
    StockChange,
)
from twstock.rpc.calls import Changed, Changes, Page, Placement
from twstock.tokens import is_read_by_all, read_token
from twstock.web import answers
from twstock.web.admin import Administration, known_token
from twstock.web.adminspec import SCHEMAS
from twstock.web.answers import NO_ADMINISTRATOR
from twstock.web.bodies import parse_add
from twstock.web.cache import Cache
from twstock.web.http.routes import mount

ADD, RESTOCK, PRICE, HALT, RESUME = ChangeKind
TOKEN = "a-token-of-this-test"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
STOCK = Stock("GOOGL", 1599, 7, 5, 3, 12, halted=True)
LEMON = {"name": "Lemon", "price": 2.5, "quantity": 10}


class FakeCatalog:
    """Answers what it is told to, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.changed: Any = Changed(4, STOCK)
        self.listed = Changes((), 0, 0)
        self.requests: list[ChangeRequest] = []
        self.pages: list[Page] = []

    def change(self, request: ChangeRequest) -> "Deferred[Changed]":
        """As the catalog."""
        self.requests.append(request)
        if isinstance(self.changed, Exception):
            return fail(self.changed)
        return succeed(self.changed)

    def list_changes(self, page: Page) -> "Deferred[Changes]":
        """As the catalog."""
        self.pages.append(page)
        return succeed(self.listed)


class Desk:
    """The administration over treq, with a token."""

    def __init__(self, token: str = TOKEN) -> None:
        self.catalog = FakeCatalog()
        self.cache = Cache(10)
        keys = (f"made-{n}" for n in range(1, 100))
        self.part = Administration(self.cache, self.catalog, token, keys.__next__, Limits())
        self.site = Site(resource=mount(self.part.routes()).resource())

    def post(self, path: str, body: Any = b"", headers: Mapping[str, Any] | None = None) -> Reply:
        """POST to a path under ``/admin``; a body that is no bytes becomes JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.site.ask(
            "POST",
            f"/admin{path}",
            data=content,
            headers=AUTHORIZED if headers is None else headers,
        )

    @property
    def asked(self) -> ChangeRequest:
        """The one change that the catalog was asked for."""
        [request] = self.catalog.requests
        return request


@pytest.fixture
def desk() -> Desk:
    """An administration that works."""
    return Desk()


# --- who may ------------------------------------------------------------------------------------

CHANGES = [
    ("/stocks", LEMON),
    ("/stocks/GOOGL/restock", {"quantity": 1}),
    ("/stocks/GOOGL/price", {"price": 1}),
    ("/stocks/GOOGL/halt", b""),
    ("/stocks/GOOGL/resume", b""),
]


@pytest.mark.parametrize(("path", "body"), CHANGES)
def test_without_a_token_in_the_configuration_nobody_may_change_stocks(
    path: str, body: Any
) -> None:
    """Every change is refused, whatever token the request has, also with an empty one."""
    desk = Desk(token="")
    for headers in ({}, AUTHORIZED, {"Authorization": "Bearer "}, {"Authorization": "Bearer"}):
        reply = desk.post(path, body, headers)
        words = "administration is off: no admin token is configured"
        assert (reply.code, reply.message) == (403, words)
    assert desk.catalog.requests == []


@pytest.mark.parametrize(("path", "body"), CHANGES)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": "Bearer \xff"},
        {"Authorization": [f"Bearer {TOKEN}", "Bearer other"]},
    ],
)
def test_a_wrong_token_is_401(desk: Desk, path: str, body: Any, headers: Any) -> None:
    """Nothing else of the request is looked at before, and the challenge names the scheme."""
    for content in (body, b"not JSON"):
        reply = desk.post(path, content, headers)
        assert (reply.code, reply.header("WWW-Authenticate")) == (401, "Bearer")
    assert desk.catalog.requests == []


@pytest.mark.parametrize("value", [f"bearer {TOKEN}", f"BEARER  {TOKEN} ", f"Bearer {TOKEN}"])
def test_the_scheme_is_read_as_http_says(desk: Desk, value: str) -> None:
    """Its name in upper or lower case, with blanks around the token (RFC 9110 section 11.1)."""
    assert desk.post("/stocks/GOOGL/halt", b"", {"Authorization": value}).code == 200


def test_everybody_may_read_the_changes() -> None:
    """Changes can be read without a token, also when nobody may make any."""
    desk = Desk(token="")
    desk.catalog.listed = Changes((StockChange(7, HALT, "A", 0, 0, 3, 12),), 7, 9)
    reply = desk.site.get("/admin/changes?after=6&limit=1")
    row = {"change_number": 7, "kind": "halt", "name": "A", "version": 3, "timestamp_ms": 12}
    assert reply.json == {"data": [row], "next": 7, "last": 9}
    assert desk.catalog.pages == [Page(6, 1)]
    assert desk.site.get("/admin/changes?after=x").message.startswith("after:")
    assert desk.site.get("/admin/changes?limit=0").message.startswith("limit:")


# --- what is asked for ----------------------------------------------------------------------------


def test_each_path_asks_for_its_change(desk: Desk) -> None:
    """If the client gave no key, each request gets a new one."""
    for path, body in CHANGES:
        assert desk.post(path, body).code == 200
    assert desk.catalog.requests == [
        ChangeRequest("made-1", ADD, "Lemon", 250, 10),
        ChangeRequest("made-2", RESTOCK, "GOOGL", 0, 1),
        ChangeRequest("made-3", PRICE, "GOOGL", 100, 0),
        ChangeRequest("made-4", HALT, "GOOGL"),
        ChangeRequest("made-5", RESUME, "GOOGL"),
    ]


def test_the_client_s_key_is_taken(desk: Desk) -> None:
    """A malformed one is refused, as for orders."""
    desk.post("/stocks/GOOGL/halt", b"", AUTHORIZED | {"Idempotency-Key": "mine"})
    assert desk.asked.key == "mine"
    bad = desk.post("/stocks/GOOGL/halt", b"", AUTHORIZED | {"Idempotency-Key": "a b"})
    assert (bad.code, bad.message.partition(":")[0]) == (400, "Idempotency-Key")


@pytest.mark.parametrize(
    ("price", "cents"),
    [
        ("0", 0),
        ("0.01", 1),
        ("15.99", 1599),
        ("4.35", 435),  # 4.35 * 100 is 434.99999999999994 in binary
        ("1.15", 115),
        ("100", 10000),
        ("7.0", 700),
        ("7.5", 750),
        ("0070000.29", 7000029),
        ("9999999999999.99", PRICE_CENTS_MAX),
    ],
)
def test_a_price_is_taken_to_the_cent(desk: Desk, price: str, cents: int) -> None:
    """Nothing is rounded, whether the price is a text or a number with the same digits."""
    desk.post("/stocks/GOOGL/price", {"price": price})
    if not price.startswith("00"):
        desk.post("/stocks/GOOGL/price", b'{"price": %s}' % price.encode())
    assert {request.price_cents for request in desk.catalog.requests} == {cents}


@pytest.mark.parametrize(
    "price",
    [
        "-1", "-0.01", "1.999", "0.001", "0.30000000000000004", "1e2", "1E-2", "1.5e1",
        "10000000000000", "1e400", "1e-999999999", "9" * 5000, "NaN", "Infinity", "true", "null",
        "[]", "{}", '"15,99"', '" 1"', '"1 "', '""', '"1."', '".5"', '"+1"', '"-1"', '"1e2"',
        '"NaN"', '"\\u0661"', '"1_0"',
    ],
)  # fmt: skip
def test_what_is_no_price_is_named(desk: Desk, price: str) -> None:
    """Such as one with more than two decimals, which is often the rest of binary arithmetic."""
    reply = desk.post("/stocks/GOOGL/price", b'{"price": %s}' % price.encode())
    assert (reply.code, reply.message.partition(":")[0]) == (400, "price")
    assert desk.catalog.requests == []


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/stocks", b"", "body"),
        ("/stocks", b"[]", "body"),
        ("/stocks", {"price": 1, "quantity": 1}, "name"),
        ("/stocks", LEMON | {"name": ""}, "name"),
        ("/stocks", LEMON | {"name": 1}, "name"),
        ("/stocks", LEMON | {"name": 1.5}, "name"),
        ("/stocks", LEMON | {"name": " Lemon"}, "name"),
        ("/stocks", LEMON | {"name": "Le\tmon"}, "name"),
        ("/stocks", LEMON | {"name": "Le\u200bmon"}, "name"),
        ("/stocks", LEMON | {"name": "L" * 256}, "name"),
        ("/stocks", LEMON | {"name": "."}, "name"),
        ("/stocks", LEMON | {"name": ".."}, "name"),
        ("/stocks", b'{"name": "\\ud800", "price": 1, "quantity": 1}', "name"),
        ("/stocks", {"name": "Lemon", "quantity": 1}, "price"),
        ("/stocks", {"name": "Lemon", "price": 1}, "quantity"),
        ("/stocks", LEMON | {"quantity": -1}, "quantity"),
        ("/stocks", LEMON | {"quantity": QUANTITY_MAX + 1}, "quantity"),
        ("/stocks", LEMON | {"quantity": 1.0}, "quantity"),
        ("/stocks", LEMON | {"quantity": "1"}, "quantity"),
        ("/stocks", LEMON | {"quantity": True}, "quantity"),
        ("/stocks", b'{"name": "A", "name": "B"}', "name"),
        ("/stocks", LEMON | {"idempotency_key": "k"}, "idempotency_key"),
        ("/stocks/GOOGL/restock", b"", "body"),
        ("/stocks/GOOGL/restock", {"quantity": 1, "idempotency_key": "k"}, "idempotency_key"),
        ("/stocks/GOOGL/price", {"price": 1, "idempotency_key": "k"}, "idempotency_key"),
        ("/stocks/GOOGL/restock", {}, "quantity"),
        ("/stocks/GOOGL/restock", {"quantity": 0}, "quantity"),
        ("/stocks/GOOGL/price", {}, "price"),
    ],
)
def test_what_is_wrong_with_a_body_is_named(desk: Desk, path: str, body: Any, field: str) -> None:
    """The error names the field, as for orders, and the catalog is not asked."""
    reply = desk.post(path, body)
    assert (reply.code, reply.message.partition(":")[0]) == (400, field)
    assert desk.catalog.requests == []


def test_a_stock_may_start_without_shares_and_for_nothing() -> None:
    """Price and quantity may be 0, as in the file of the first stocks."""
    body = b'{"name": "A & B, Inc.", "price": "0", "quantity": 0}'
    assert parse_add(body, "k") == ChangeRequest("k", ADD, "A & B, Inc.", 0, 0)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/stocks/a%2Fb/halt", "a/b"),
        ("/stocks/%2F/halt", "/"),
        ("/stocks/halt/halt", "halt"),
        ("/stocks/x%2Frestock/halt", "x/restock"),
        ("/stocks/%c3%9cber%20A%26B/halt", "Über A&B"),
    ],
)
def test_names_may_be_percent_encoded(desk: Desk, path: str, name: str) -> None:
    """Also with slashes: a segment is what stands between raw slashes."""
    assert desk.post(path).code == 200
    assert (desk.asked.kind, desk.asked.name) == (HALT, name)


@pytest.mark.parametrize(
    "path",
    [
        "/stocks//halt",
        "/stocks/a/b/halt",
        "/stocks/x%2Fhalt",
        "/stocks/" + "x" * 256 + "/halt",
    ],
)
def test_a_path_without_a_name_is_404(desk: Desk, path: str) -> None:
    """No stock has such a name, and the catalog is not asked."""
    assert desk.post(path).code == 404
    assert desk.catalog.requests == []


def test_other_methods_and_paths_are_refused(desk: Desk) -> None:
    """They are answered 405 or 404, with an error in the common form."""
    assert desk.site.get("/admin/stocks").code == 405
    assert desk.site.ask("POST", "/admin/changes", data=b"").code == 405
    assert desk.post("/stocks/GOOGL/explode").code == 404


# --- what is answered --------------------------------------------------------------------------


def test_a_change_is_answered_with_its_number_and_the_stock(desk: Desk) -> None:
    """Whoever made it is not shown an older version here afterwards. A replay is marked, but only
    under a key of the client.
    """
    reply = desk.post("/stocks/GOOGL/halt")
    stock = {"name": "GOOGL", "price": 15.99, "quantity": 7, "volume": 5, "version": 3}
    data = {"change_number": 4, "stock": stock | {"halted": True}}
    assert (reply.code, reply.json) == (200, {"data": data})
    assert reply.header("Idempotency-Replayed") is None
    assert reply.header("Cache-Control") == "no-store"
    assert desk.cache.minimum("GOOGL") == 3
    desk.catalog.changed = Changed(4, STOCK, replayed=True)
    assert desk.post("/stocks/GOOGL/halt").header("Idempotency-Replayed") is None
    reply = desk.post("/stocks/GOOGL/halt", b"", {"Idempotency-Key": "k"} | AUTHORIZED)
    assert reply.header("Idempotency-Replayed") == "true"


@pytest.mark.parametrize("refusal", list(ChangeRefusal))
def test_refusals_are_404_and_409(desk: Desk, refusal: ChangeRefusal) -> None:
    """404 if the stock does not exist, 409 if the change does not fit the present state."""
    desk.catalog.changed = Changed(refusal=str(refusal))
    reply = desk.post("/stocks/GOOGL/halt")
    code = 404 if refusal is ChangeRefusal.UNKNOWN_STOCK else 409
    assert (reply.code, reply.message) == (code, str(refusal))
    assert desk.cache.minimum("GOOGL") == 0


@pytest.mark.parametrize(
    ("error", "code", "outcome", "keyed"),
    [
        (KeyReused(), 422, None, None),
        (InvalidRequest("name", "odd"), 400, None, None),
        (Overloaded("too many"), 429, "none", "unknown"),
        (DiskFull("disk full"), 507, "none", "unknown"),
        (Unavailable("nobody leads"), 503, "none", "unknown"),
        (OutcomeUnknown("lost"), 503, "unknown", "unknown"),
    ],
)
def test_errors_tell_whether_anything_happened(
    desk: Desk, error: Exception, code: int, outcome: str | None, keyed: str | None
) -> None:
    """Under the client's own key an earlier request may have made the change."""
    desk.catalog.changed = error
    for headers, wanted in ((AUTHORIZED, outcome), ({"Idempotency-Key": "k"} | AUTHORIZED, keyed)):
        reply = desk.post("/stocks/GOOGL/halt", b"", headers)
        assert (reply.code, reply.json["error"].get("outcome")) == (code, wanted)


def test_who_has_no_key_is_not_told_to_ask_again_with_it(desk: Desk) -> None:
    """Instead it is told that the change may have been made."""
    desk.catalog.changed = OutcomeUnknown("ask again with the same key")
    doubt = "the outcome could not be learnt in time: the change may have been made"
    assert desk.post("/stocks/GOOGL/halt").message == doubt
    keyed = {"Idempotency-Key": "k"} | AUTHORIZED
    assert desk.post("/stocks/GOOGL/halt", b"", keyed).message == "ask again with the same key"


def test_a_key_of_another_change_is_told_in_its_own_words(desk: Desk) -> None:
    """The error speaks of a change, not of an order."""
    desk.catalog.changed = KeyReused()
    reply = desk.post("/stocks/GOOGL/halt")
    assert reply.message == "idempotency key was used with another change"


def test_changes_show_what_their_kind_has() -> None:
    """An addition has a price and a quantity, a new price only a price, more shares only a
    quantity.
    """
    shown = [
        answers.change_fields(StockChange(1, kind, "A", 1599, 7, 3, 12)) for kind in ChangeKind
    ]
    assert [fields.get("price") for fields in shown] == [15.99, None, 15.99, None, None]
    assert [fields.get("quantity") for fields in shown] == [7, 7, None, None, None]
    assert [fields["kind"] for fields in shown] == ["add", "restock", "price", "halt", "resume"]


def test_a_stock_tells_that_it_is_halted_only_while_it_is() -> None:
    """Clients of earlier versions do not know the field."""
    assert answers.stock_fields(STOCK)["halted"] is True
    assert "halted" not in answers.stock_fields(STOCK._replace(halted=False))


def test_the_refusal_of_an_order_in_a_halted_stock_is_a_404() -> None:
    """The message is the catalog's."""
    answer = answers.placement(Placement(refusal=str(Refusal.HALTED)), keyed=False)
    message = json.loads(answer.body)["error"]["message"]
    assert (answer.status, message) == (404, "trading in this stock is halted")


def test_every_route_is_described(desk: Desk) -> None:
    """Each operation has an id of its own, and names only schemas that exist."""
    operations = [route.operation for route in desk.part.routes()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids) == 6
    text = json.dumps([operations, SCHEMAS])
    named = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named - SCHEMAS.keys() == {"Stock", "Error"}
    for route in desk.part.routes():
        if route.method == "POST":
            assert route.operation["security"] == [{"adminToken": []}]
            assert {"200", "400", "401", "403", "409", "422", "503"} <= set(
                route.operation["responses"]
            )


# --- the token --------------------------------------------------------------------------------


def test_a_token_is_read_from_its_file(tmp_path: Path) -> None:
    """Blanks and line ends around it are left out."""
    file = tmp_path / "token"
    file.write_text(f"  {TOKEN}\n")
    file.chmod(0o600)
    with capturedLogs() as logged:
        assert known_token(Admin(file)) == TOKEN
    assert logged == []
    assert known_token(Admin(token="tried-out")) == "tried-out"
    assert known_token(Admin()) == ""


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"short", b"two tokens-here", b"\xff" * 20, b"t" * 513]
)
def test_a_file_without_a_token_is_named(tmp_path: Path, content: bytes) -> None:
    """Its content is not shown, for it may be a secret."""
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_token(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "two tokens" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The error has its path, whether it is missing or is a directory."""
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            read_token(path)


def test_a_token_that_everybody_can_read_is_warned_of(tmp_path: Path) -> None:
    """It is accepted, but the log says so, without showing it."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    assert is_read_by_all(file)
    with capturedLogs() as logged:
        assert known_token(Admin(file)) == TOKEN
    [event] = logged
    assert event["path"] == file
    assert TOKEN not in str(event)


def test_the_answer_to_a_wrong_token_tells_nothing_of_the_right_one() -> None:
    """A configuration that is printed does not show the token either."""
    assert TOKEN.encode() not in NO_ADMINISTRATOR.body
    assert TOKEN not in repr(Admin(token=TOKEN))
