"""The REST API against fake tiers, over treq in memory."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from treq.testing import RequestTraversalAgent, StubTreq
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent, globalLogPublisher
from twisted.web.http_headers import Headers

from tests.fakes import HANG, FakeMember, status
from tests.test_cache import stock
from twstock.config import Limits, default_cluster
from twstock.errors import DiskFull, KeyReused, OutcomeUnknown, Overloaded, Unavailable
from twstock.market import Order, Refusal, Side, Stock, Trade
from twstock.rpc.calls import Lookup, Orders, Page, Placement, PlaceOrder, StockPage, Stocks
from twstock.web import answers
from twstock.web.api import Api
from twstock.web.cache import Cache
from twstock.web.http.routes import mount
from twstock.web.internal import Internal
from twstock.web.upstream.leader import LeaderWatch
from twstock.web.upstream.orders import Tell
from twstock.web.upstream.roster import Roster

TRADE = Trade(1, Order("k", "GOOGL", Side.BUY, 5), 1, 1599, 1234)
GOOD = {"name": "GOOGL", "quantity": 5, "type": "buy"}
HEADER_NAMES_IT = "idempotency_key: expected in the header, Idempotency-Key"


class FakeTiers:
    """The catalog, the order service and the roster at once; each answer can be set."""

    def __init__(self) -> None:
        self.stocks: dict[str, Stock] = {"GOOGL": stock(0)}
        self.placement: Any = Placement(1, version=1)
        self.trade: Any = TRADE
        self.problems: list[str] = []
        self.looked_up: list[Lookup] = []
        self.placed: list[PlaceOrder] = []
        self.ordered: list[int] = []
        self.pages: list[Any] = []
        self.waiting: list[Deferred[Any]] = []
        self.hold = False

    def answer(self, value: Any) -> "Deferred[Any]":
        """Now, or when the test says so."""
        if isinstance(value, Exception):
            return fail(value)
        if not self.hold:
            return succeed(value)
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def lookup(self, request: Lookup) -> "Deferred[Stock | None]":
        """As the catalog."""
        self.looked_up.append(request)
        return self.answer(self.stocks.get(request.name))

    def place(self, order: PlaceOrder) -> "Deferred[Placement]":
        """As the order leader."""
        self.placed.append(order)
        return self.answer(self.placement)

    def put(self, order: PlaceOrder, tell: Tell) -> None:
        """The same, for whoever wants no Deferred."""
        self.place(order).addErrback(lambda failure: failure.value).addCallback(tell)

    def order(self, number: int) -> "Deferred[Trade | None]":
        """As the order service."""
        self.ordered.append(number)
        return self.answer(self.trade)

    def list(self, page: Any) -> "Deferred[Any]":
        """As either service, by what is asked for."""
        self.pages.append(page)
        if isinstance(page, StockPage):
            return self.answer(Stocks((stock(0),), "GOOGL"))
        return self.answer(Orders((TRADE,), 1))

    def reasons(self) -> "list[str]":
        """As the roster."""
        return self.problems

    def rows(self) -> "Deferred[list[dict[str, Any]]]":
        """As the roster."""
        return self.answer([{"service": "front"}])


class Reply:
    """An HTTP answer."""

    def __init__(self, code: int, length: object, headers: Headers, content: bytes) -> None:
        self.code = code
        # The value of Content-Length; something else if the body came in chunks.
        self.length = length
        self.headers = headers
        self.content = content

    def header(self, name: str) -> str | None:
        """One header, which appears at most once."""
        values = self.headers.getRawHeaders(name) or [None]
        assert len(values) == 1, values
        return values[0]

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.content)

    @property
    def message(self) -> str:
        """The message of an error in the one form, whose code is the status."""
        error = self.json["error"]
        assert error["code"] == self.code
        return str(error["message"])


class Site:
    """The public API over treq; the cache holds a lease at time 1."""

    def __init__(self, size: int = 10, resource: Any = None) -> None:
        self.tiers = FakeTiers()
        self.cache = Cache(size)
        self.cache.renew(0.0, 100.0, 1.0, True)
        self.now = 1.0
        self.api = Api(
            self.cache,
            self.tiers,
            self.tiers,
            self.tiers,
            (1, "session"),
            lambda: self.now,
            lambda: "made-key",
            Limits(),
        )
        self.treq = StubTreq(resource or mount(self.api.routes()).resource())

    def ask(self, method: str, path: str, **rest: Any) -> Reply:
        """One request; every answer is JSON with a length."""
        reply = self.begin(method, path, **rest)
        assert len(reply) == 1, "no answer yet"
        answer = reply[0]
        assert isinstance(answer, Reply), answer
        assert answer.header("Content-Type") == "application/json"
        if method != "HEAD":
            assert answer.length == len(answer.content)
        return answer

    def begin(self, method: str, path: str, **rest: Any) -> "list[Any]":
        """A request that may be answered later; the list gets the answer or the failure."""
        results: list[Any] = []

        async def run() -> Reply:
            response = await self.treq.request(method, f"http://localhost{path}", **rest)
            content = await response.content()
            return Reply(response.code, response.length, response.headers, content)

        Deferred.fromCoroutine(run()).addBoth(results.append)
        self.treq.flush()
        return results

    def get(self, path: str) -> Reply:
        """GET."""
        return self.ask("GET", path)

    def post(self, order: Any, headers: Mapping[str, str] | None = None) -> Reply:
        """POST /orders."""
        data = order if isinstance(order, bytes) else json.dumps(order).encode()
        return self.ask("POST", "/orders", data=data, headers=headers or {})


@pytest.fixture
def site() -> Site:
    """A front-end whose tiers work."""
    return Site()


# --- lookups ---------------------------------------------------------------------------------


def test_a_lookup_misses_then_hits(site: Site) -> None:
    """The second lookup of a stock does not ask the catalog."""
    first, second = site.get("/stocks/GOOGL"), site.get("/stocks/GOOGL")
    fields = {"name": "GOOGL", "price": 10.0, "quantity": 100, "volume": 0, "version": 0}
    assert first.json == second.json == {"data": fields}
    assert (first.header("X-Cache"), second.header("X-Cache")) == ("miss", "hit")
    assert site.tiers.looked_up == [Lookup("GOOGL", 1, "session")]
    counters = {"size": 10, "entries": 1, "hits": 1, "misses": 1}
    assert site.get("/cache").json == {"data": counters | {"evictions": 0, "invalidations": 0}}


def test_without_a_lease_every_lookup_asks_and_names_no_session(site: Site) -> None:
    """No trade should wait for a front-end that stores nothing."""
    site.now = 1000.0
    assert [site.get("/stocks/GOOGL").header("X-Cache") for _ in range(2)] == ["miss"] * 2
    assert site.tiers.looked_up == [Lookup("GOOGL")] * 2


def test_an_answer_that_a_delete_overtook_is_shown_but_not_kept(site: Site) -> None:
    """A race of the original (a stale fill), through HTTP."""
    site.tiers.hold = True
    reply = site.begin("GET", "/stocks/GOOGL")
    site.cache.invalidate("GOOGL", 1)
    site.tiers.waiting[0].callback(stock(0))
    site.treq.flush()
    assert reply[0].json["data"]["version"] == 0
    assert len(site.cache) == 0


def test_an_unknown_stock_is_404(site: Site) -> None:
    """The answer is the same for every path below /stocks/ that names no stock."""
    for path in ("/stocks/nope", "/stocks/", "/stocks/a/b", "/stocks/%2e%2e", "/stocks/%00"):
        reply = site.get(path)
        assert (reply.code, reply.message) == (404, "stock not found")


def test_a_name_that_no_stock_can_have_is_404_without_a_question(site: Site) -> None:
    """The longest name that a stock can have is still looked up."""
    for length in (255, 256, 9000):
        reply = site.get("/stocks/" + "x" * length)
        assert (reply.code, reply.message) == (404, "stock not found")
    assert [asked.name for asked in site.tiers.looked_up] == ["x" * 255]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/stocks/a%2Fb", "a/b"),
        ("/stocks/%2Fb", "/b"),
        ("/stocks/%c3%9cber%20A%26B", "Über A&B"),
        ("/%73tocks/A%2B+", "A++"),
        ("/stocks/%25", "%"),
        ("/stocks/a%0Ab", "a\nb"),
        ("/stocks/..", ".."),
    ],
)
def test_names_may_be_percent_encoded(site: Site, path: str, name: str) -> None:
    """Also with slashes: a segment is what stands between raw slashes."""
    site.tiers.stocks[name] = stock(0, name)
    assert site.get(path).json["data"]["name"] == name


def test_stocks_are_listed_in_pages(site: Site) -> None:
    """``after`` and ``limit`` go to the catalog, ``next`` comes back."""
    assert site.get("/stocks?after=A%20B&limit=7").json["next"] == "GOOGL"
    assert site.tiers.pages == [StockPage("A B", 7)]
    assert site.get("/stocks?limit=none").message.startswith("limit:")


@pytest.mark.parametrize(
    ("path", "link"),
    [
        ("/stocks?after=A%20B&limit=7", "</stocks?after=GOOGL&limit=7>"),
        ("/stocks?limit=5000", "</stocks?after=GOOGL&limit=1000>"),
        ("/orders/?limit=2", "</orders?after=1&limit=2>"),
        ("/orders", "</orders?after=1&limit=100>"),
    ],
)
def test_a_page_links_to_the_next(site: Site, path: str, link: str) -> None:
    """The link has the limit of this page (RFC 8288)."""
    assert site.get(path).header("Link") == f'{link}; rel="next"'


def test_a_link_holds_any_name() -> None:
    """Percent-encoded, so that it is one parameter of one URL. The last page has no link."""
    page = answers.stock_page(Stocks((), 'Ü/&"> '), 3)
    assert page.headers == (
        (b"Link", b'</stocks?after=%C3%9C%2F%26%22%3E%20&limit=3>; rel="next"'),
    )
    assert answers.stock_page(Stocks((), ""), 3).headers == ()
    assert answers.order_page(Orders((), 0), 3).headers == ()


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_stock_that_a_client_has_is_not_sent_again(site: Site, cached: bool, method: str) -> None:
    """From the cache or from the catalog: a client that names its version is answered 304."""
    if not cached:
        site.now = 1000.0
    first = site.ask(method, "/stocks/GOOGL")
    assert (first.header("ETag"), first.header("Cache-Control")) == ('"0"', "no-cache")
    for field in ('"0"', 'W/"0"', '"7", "0"', "*"):
        (reply,) = site.begin(method, "/stocks/GOOGL", headers={"If-None-Match": field})
        assert (reply.code, reply.content) == (304, b"")
        assert (reply.header("ETag"), reply.header("Cache-Control")) == ('"0"', "no-cache")
        assert reply.header("X-Cache") == ("hit" if cached else "miss")
    again = site.ask(method, "/stocks/GOOGL", headers={"If-None-Match": '"1", W/"2"'})
    assert again.code == 200
    assert site.ask(method, "/stocks/NONE", headers={"If-None-Match": "*"}).code == 404
    assert site.ask("GET", "/livez", headers={"If-None-Match": "*"}).code == 200


@pytest.mark.logs_failures
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/stocks/NONE", 404),
        ("GET", "/stocks?limit=x", 400),
        ("POST", "/orders", 400),
        ("PUT", "/orders", 405),
        ("GET", "/nope", 404),
        ("DELETE", "/delete/x", 403),
        ("GET", "/orders/1", 500),
    ],
)
def test_errors_are_problems_for_who_asks(site: Site, method: str, path: str, status: int) -> None:
    """An error as problem details has the same message and headers as in the usual form."""
    site.tiers.trade = ZeroDivisionError()
    with capturedLogs():
        usual = site.ask(method, path)
        (reply,) = site.begin(method, path, headers={"Accept": "application/problem+json"})
    assert reply.header("Content-Type") == "application/problem+json"
    assert (reply.code, reply.json["status"], reply.json["detail"]) == (
        status,
        status,
        usual.message,
    )
    assert reply.header("Allow") == usual.header("Allow")


# --- orders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/orders", "/orders/"])
def test_an_order_is_placed(site: Site, path: str) -> None:
    """The front-end makes a key if the client sent none."""
    reply = site.ask("POST", path, data=json.dumps(GOOD).encode())
    assert (reply.code, reply.json) == (200, {"data": {"transaction_number": 1}})
    assert reply.header("Idempotency-Replayed") is None
    assert site.tiers.placed == [PlaceOrder("made-key", "GOOGL", "buy", 5)]


def test_the_clients_key_is_used_and_a_replay_is_marked(site: Site) -> None:
    """The same key has the same answer, which says that it is a replay."""
    site.tiers.placement = Placement(1, replayed=True, version=1)
    reply = site.post(GOOD, {"Idempotency-Key": "mine"})
    assert site.tiers.placed[0].key == "mine"
    assert reply.header("Idempotency-Replayed") == "true"
    assert site.post(GOOD, {"Idempotency-Key": "a b"}).message.startswith("Idempotency-Key:")


@pytest.mark.parametrize("placed", [Placement(1, "", True, 1), Placement(0, "halted", True)])
def test_without_a_key_there_is_no_replay(site: Site, placed: Placement) -> None:
    """The front-end may have asked twice, but its client has asked once."""
    site.tiers.placement = placed
    assert site.post(GOOD).header("Idempotency-Replayed") is None


def test_who_has_no_key_is_not_told_to_ask_again_with_it(site: Site) -> None:
    """Instead it is told that the order may have been executed."""
    site.tiers.placement = OutcomeUnknown("ask again with the same key")
    doubt = "the outcome could not be learnt in time: the order may have been executed"
    assert site.post(GOOD).message == doubt
    assert site.post(GOOD, {"Idempotency-Key": "k"}).message == "ask again with the same key"


def test_an_executed_order_is_never_hidden_from_its_client(site: Site) -> None:
    """The cached version from before is dropped, and is not stored again (read your writes)."""
    site.get("/stocks/GOOGL")
    site.post(GOOD)
    assert site.get("/stocks/GOOGL").header("X-Cache") == "miss"
    assert site.cache.minimum("GOOGL") == 1
    assert site.get("/stocks/GOOGL").header("X-Cache") == "miss"


def test_an_order_may_have_members_that_nobody_knows(site: Site) -> None:
    """They are ignored."""
    site.post({**GOOD, "note": "from me", "limit": 1.5})
    assert site.tiers.placed == [PlaceOrder("made-key", "GOOGL", "buy", 5)]


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({**GOOD, "type": "hold"}, 404, "invalid transaction type"),
        ({**GOOD, "quantity": 0}, 404, "num stocks traded should be non negative"),
        ({**GOOD, "quantity": 1.5}, 400, "quantity: expected an integer"),
        ({"name": "GOOGL"}, 400, "quantity: missing"),
        ({**GOOD, "idempotency_key": "k"}, 400, HEADER_NAMES_IT),
        ({**GOOD, "idempotency_key": None}, 400, HEADER_NAMES_IT),
        ([], 400, "body: expected a JSON object"),
        (b"", 400, "body: not JSON: Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_a_bad_order_is_not_sent_on(site: Site, body: Any, code: int, message: str) -> None:
    """The front-end refuses it itself."""
    reply = site.post(body)
    assert (reply.code, reply.message) == (code, message)
    assert site.tiers.placed == []


@pytest.mark.parametrize(
    ("result", "code", "outcome"),
    [
        (Placement(refusal=Refusal.UNKNOWN_STOCK), 404, None),
        (Placement(refusal=Refusal.NOT_ENOUGH), 404, None),
        (KeyReused(), 422, None),
        (Overloaded("full"), 429, "none"),
        (Unavailable("no leader"), 503, "none"),
        (OutcomeUnknown("lost"), 503, "unknown"),
        (DiskFull("full"), 507, "none"),
    ],
)
def test_what_becomes_of_an_order_has_its_status(
    site: Site, result: Any, code: int, outcome: str | None
) -> None:
    """Each outcome has the status of the table in docs/api.md."""
    site.tiers.placement = result
    reply = site.post(GOOD)
    assert (reply.code, reply.json["error"].get("outcome")) == (code, outcome)
    assert (reply.header("Retry-After") == "1") is (outcome is not None)
    assert site.cache.minimum("GOOGL") == 0


@pytest.mark.parametrize(
    ("result", "code"), [(Overloaded(), 429), (Unavailable(), 503), (DiskFull(), 507)]
)
def test_doubt_belongs_to_the_key(site: Site, result: Exception, code: int) -> None:
    """Under the client's own key an earlier request may have executed the order, although this one
    did nothing.
    """
    site.tiers.placement = result
    reply = site.post(GOOD, {"Idempotency-Key": "mine"})
    assert (reply.code, reply.json["error"]["outcome"]) == (code, "unknown")


def test_an_order_can_be_read_by_its_number(site: Site) -> None:
    """The number goes to the order service, and the answer has the fields of the API."""
    fields = site.get("/orders/1").json["data"]
    names = ("order_num", "name", "type", "quantity")
    assert tuple(fields[name] for name in names) == (1, "GOOGL", "buy", 5)
    assert site.get("/orders/42").code == 200
    assert site.tiers.ordered == [1, 42]
    site.tiers.trade = None
    for path in ("/orders/7", "/orders/0", "/orders/x", "/orders/1/2", "/orders/-1"):
        reply = site.get(path)
        assert (reply.code, reply.message) == (404, "Transaction number not found")


def test_orders_are_listed_in_pages(site: Site) -> None:
    """``after`` and ``limit`` go to the order service, ``next`` comes back."""
    assert site.get("/orders?after=3&limit=2").json["next"] == 1
    assert site.tiers.pages == [Page(3, 2)]
    assert site.get("/orders?after=x").message.startswith("after:")


def test_a_client_that_hangs_up_does_not_cancel_its_order(site: Site) -> None:
    """Klein cancels the handler, but the order goes on, and its version is remembered here."""
    site.tiers.hold = True
    agent = RequestTraversalAgent(mount(site.api.routes()).resource())
    request = agent.request(b"POST", b"http://localhost/orders", None, body_of(GOOD))
    request.addErrback(lambda _: None)
    agent.flush()
    (pump,) = agent._pumps
    pump.clientIO.abortConnection()
    pump.flush()
    assert pump.serverIO.disconnected
    waiting = site.tiers.waiting[0]
    assert not waiting.called
    waiting.callback(Placement(1, version=4))
    assert site.cache.minimum("GOOGL") == 4


def body_of(order: Any) -> Any:
    """A request body for an agent."""
    from treq.testing import _SynchronousProducer

    return _SynchronousProducer(json.dumps(order).encode())


# --- everything else -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/nope", "/stock", "/orders//", "//orders", "//livez", "/cluster/x", "/delete"]
)
def test_an_unknown_path_is_404(site: Site, path: str) -> None:
    """The answer is JSON, and never a redirect."""
    reply = site.get(path)
    assert reply.code == 404
    assert reply.json["error"]["code"] == 404


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/orders", "GET, HEAD, POST"),
        ("DELETE", "/orders/", "GET, HEAD, POST"),
        ("POST", "/stocks/GOOGL", "GET, HEAD"),
        ("POST", "/orders/1", "GET, HEAD"),
        ("PATCH", "/cluster", "GET, HEAD"),
        ("OPTIONS", "/livez", "GET, HEAD"),
        ("GET", "/delete/GOOGL", "DELETE"),
        ("BREW", "/readyz", "GET, HEAD"),
    ],
)
def test_another_method_is_405(site: Site, method: str, path: str, allow: str) -> None:
    """Allow lists the methods that the path has."""
    reply = site.ask(method, path)
    assert (reply.code, reply.header("Allow")) == (405, allow)
    assert reply.message == f"expected {allow}"


@pytest.mark.parametrize(
    "path",
    ["/stocks", "/stocks/GOOGL", "/stocks/x", "/orders", "/orders/1", "/cluster", "/cache",
     "/livez", "/readyz", "/nope"],
)  # fmt: skip
def test_head_is_get_without_the_body(path: str) -> None:
    """HEAD has the same status and headers, with the length of what GET would send."""
    got, headed = Site().get(path), Site().ask("HEAD", path)
    assert headed.content == b""
    assert headed.code == got.code
    for name, values in got.headers.getAllRawHeaders():
        assert name == b"Date" or headed.headers.getRawHeaders(name) == values


def test_invalidation_is_not_for_the_public(site: Site) -> None:
    """It is answered 403, whatever the name, and the cache stays as it is."""
    site.get("/stocks/GOOGL")
    for path in ("/delete/GOOGL", "/delete/", "/delete/a%2Fb?version=7"):
        assert site.ask("DELETE", path).code == 403
    assert len(site.cache) == 1


def test_live_is_not_ready(site: Site) -> None:
    """Liveness is about the process alone, readiness about everything behind it."""
    assert site.get("/readyz").json == {"data": {"ready": True, "reasons": []}}
    site.tiers.problems = ["no order leader is known"]
    reply = site.get("/readyz")
    assert (reply.code, reply.message) == (503, "no order leader is known")
    assert reply.json["data"] == {"ready": False, "reasons": ["no order leader is known"]}
    assert reply.header("Retry-After") == "1"
    assert site.get("/livez").code == 200


@pytest.mark.logs_failures
@pytest.mark.parametrize("path", ["/orders/1", "/cluster"])
def test_an_unexpected_error_is_a_logged_500(site: Site, path: str) -> None:
    """The answer is JSON without a traceback; the log has that."""
    site.tiers.trade = ZeroDivisionError("secret")
    site.tiers.rows = lambda: 1 / 0  # type: ignore[assignment, return-value]
    logged: list[Any] = []
    globalLogPublisher.addObserver(logged.append)
    try:
        reply = site.get(path)
    finally:
        globalLogPublisher.removeObserver(logged.append)
    assert (reply.code, reply.message) == (500, "internal error")
    assert any("log_failure" in event for event in logged)


# --- the internal listener -------------------------------------------------------------------


def internal(rows: Callable[[], dict[str, Any]] = dict) -> Site:
    """The internal listener."""
    site = Site()
    site.treq = StubTreq(Internal(site.cache, rows).app().resource())
    return site


def test_the_catalog_invalidates_by_version() -> None:
    """The lowest version that may be shown is raised before the answer, which is that of the
    original.
    """
    site = internal()
    site.cache.fill(site.cache.ticket(1.0), stock(1))
    reply = site.ask("DELETE", "/delete/GOOGL?version=2")
    assert (reply.code, reply.json) == (200, {"code": 200, "message": "Cache invalidated"})
    assert len(site.cache) == 0
    assert site.cache.minimum("GOOGL") == 2


def test_the_seed_invalidates_without_version() -> None:
    """As the original's catalog does: a lookup from before may not be stored after that."""
    site = internal()
    ticket = site.cache.ticket(1.0)
    assert site.ask("DELETE", "/delete/a%2Fb").code == 200
    assert not site.cache.fill(ticket, stock(9, "a/b"))


def test_the_catalog_invalidates_in_batches() -> None:
    """Under load, many stocks come in one request."""
    site = internal()
    data = json.dumps({"stocks": {"GOOGL": 2, "a/b": 7}}).encode()
    assert site.ask("DELETE", "/delete/", data=data).json["message"] == "Cache invalidated"
    assert [site.cache.minimum(name) for name in ("GOOGL", "a/b")] == [2, 7]


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/delete/GOOGL?version=x", b""),
        ("/delete/GOOGL?version=1&version=2", b""),
        ("/delete/", b""),
        ("/delete/", b'{"stocks": []}'),
        ("/delete/", b'{"stocks": {"A": true}}'),
        ("/delete/", b'{"stocks": {"A": "1"}}'),
    ],
)
def test_a_malformed_invalidation_is_400(path: str, data: bytes) -> None:
    """The catalog must not believe that the cache was told."""
    assert internal().ask("DELETE", path, data=data).code == 400


def test_a_front_end_tells_of_itself() -> None:
    """Other front-ends put its answer into their /cluster."""
    reply = internal(lambda: {"service": "front"}).get("/self")
    assert reply.json == {"data": {"service": "front"}}


# --- the roster ------------------------------------------------------------------------------


class Cluster:
    """A roster of two front-ends, a catalog and three orders, all fake."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.cluster = default_cluster(fronts=2)
        self.members = {n: FakeMember(self.clock, status(n)) for n in (1, 2, 3)}
        self.members[3].status = status(3, "leader", 4, commit=10, last_transaction=7)
        self.members[1].status = status(1, term=4, leader_id=3, commit=8, last_transaction=6)
        self.catalog = FakeMember(self.clock, status(1, "leader", 2, commit=5))
        self.fetched: dict[str, Any] = {}
        self.watches = (self.watch("catalog", {1: self.catalog}), self.watch("order", self.members))
        front = self.cluster.fronts[0]
        self.fetches = 0
        self.roster = Roster(
            self.cluster, self.watches, front, 99, self.clock.seconds, self.fetch, self.clock
        )
        for watch in self.watches:
            watch.start()

    def watch(self, group: str, members: Any) -> LeaderWatch:
        """A watch that has probed nobody yet."""
        from random import Random

        return LeaderWatch(group, members, self.clock, Limits(), Random(1))

    def fetch(self, url: str) -> "Deferred[bytes]":
        """What the other front-end says."""
        self.fetches += 1
        told = self.fetched.get(url, Unavailable("refused"))
        return fail(told) if isinstance(told, Exception) else succeed(told)

    def rows(self) -> "dict[tuple[str, int], dict[str, Any]]":
        """The rows by service and id, once they are there."""
        results: list[Any] = []
        self.roster.rows().addBoth(results.append)
        for _ in range(40):
            self.clock.advance(0.01)
        assert len(results) == 1, "not within 0.4 s"
        return {(row["service"], row["id"]): row for row in results[0]}


def test_every_member_has_a_row() -> None:
    """Alive or not, each with the same columns, front-ends first."""
    cluster = Cluster()
    rows = cluster.rows()
    fronts = [("front", 1), ("front", 2)]
    assert list(rows) == [*fronts, ("catalog", 1), ("order", 1), ("order", 2), ("order", 3)]
    assert len({frozenset(row) for row in rows.values()}) == 1
    assert rows["order", 3]["role"] == "leader"
    assert rows["order", 3]["last_transaction"] == 7
    assert rows["order", 1]["lag"] == 2
    assert rows["order", 1]["pid"] == 1001
    assert rows["front", 1] | {"pid": 99, "role": "serving", "alive": True} == rows["front", 1]
    assert rows["front", 1]["address"] == "127.0.0.1:8080"


def test_the_dead_have_rows_of_nulls() -> None:
    """Whether a member refuses connections or hangs, its row takes no longer than a probe."""
    cluster = Cluster()
    cluster.members[2].status = None
    cluster.members[1].replies["Heartbeat"] = HANG
    rows = cluster.rows()
    for key in (("order", 1), ("order", 2), ("front", 2)):
        assert rows[key]["alive"] is False
        assert {
            v for k, v in rows[key].items() if k not in ("service", "id", "address", "alive")
        } == {None}


def test_another_front_end_speaks_for_itself() -> None:
    """Its own row is taken, if it is really the front-end that was asked."""
    cluster = Cluster()
    url = f"http://{cluster.cluster.fronts[1].internal}/self"
    own = cluster.roster.own_row() | {"id": 2, "pid": 55}
    cluster.fetched[url] = json.dumps({"data": own}).encode()
    assert cluster.rows()["front", 2]["pid"] == 55
    for odd in (b"nonsense", b"{}", json.dumps({"data": own | {"id": 3}}).encode()):
        cluster.fetched[url] = odd
        assert cluster.rows()["front", 2]["alive"] is False


def test_all_who_ask_for_the_rows_meanwhile_share_the_next_look() -> None:
    """Any number of them costs the other members as much as one. They cannot share the look that is
    under way, which may have missed what they know of.
    """
    cluster = Cluster()
    cluster.members[1].replies["Heartbeat"] = HANG
    results: list[Any] = []
    for _ in range(100):
        cluster.roster.rows().addBoth(results.append)
    assert (cluster.fetches, results) == (1, [])
    cluster.clock.advance(0.3)
    assert (cluster.fetches, len(results)) == (2, 1)
    del cluster.members[1].replies["Heartbeat"]
    cluster.clock.advance(0.3)
    assert (cluster.fetches, len(results)) == (2, 100)
    assert all(each is results[1] for each in results[1:])
    assert cluster.rows()["order", 1]["alive"]
    assert cluster.fetches == 3


@pytest.mark.logs_failures
def test_an_error_that_nobody_foresaw_is_logged_and_hides_no_member() -> None:
    """If rows cannot be made because of a bug, their members are shown as dead, and the others as
    they are.
    """
    cluster = Cluster()

    def broken() -> Any:
        raise RuntimeError("a bug")

    cluster.watches[1].statuses = broken  # type: ignore[method-assign]
    cluster.fetched[f"http://{cluster.cluster.fronts[1].internal}/self"] = RuntimeError("a bug")
    with capturedLogs() as lines:
        rows = cluster.rows()
    dead = {key for key, row in rows.items() if not row["alive"]}
    assert dead == {("front", 2), *(("order", number) for number in (1, 2, 3))}
    assert rows["catalog", 1]["alive"]
    told = [formatEvent(line) for line in lines if "log_failure" in line]
    assert told == [
        f"the rows of {who} could not be made" for who in ("front-2", "the order group")
    ]


def test_who_asks_again_at_once_keeps_nobody_waiting() -> None:
    """As on a connection with one request after another: whoever came before is served by the very
    next look.
    """
    cluster = Cluster()
    told: list[str] = []

    def again(_rows: object, times: int) -> None:
        told.append("again")
        if times:
            cluster.roster.rows().addBoth(again, times - 1)

    cluster.members[1].replies["Heartbeat"] = HANG
    cluster.roster.rows().addBoth(again, 5)
    cluster.roster.rows().addBoth(lambda _rows: told.append("other"))
    cluster.clock.pump([0.3] * 8)
    assert told == ["again", "other", *["again"] * 5]


def test_readiness_needs_both_leaders() -> None:
    """A leader that is not ready gives its reason."""
    cluster = Cluster()
    assert cluster.roster.reasons() == []
    cluster.members[3].status = status(3, "leader", 4, ready=False, reason="waits for the catalog")
    cluster.catalog.status = None
    cluster.clock.advance(0.11)
    assert cluster.roster.reasons() == [
        "no catalog leader is known",
        "the order leader is not ready: waits for the catalog",
    ]
