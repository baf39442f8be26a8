"""The fast lane and the ordinary way answer whatever arrives with the same bytes."""

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection as TcpConnection
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from tests.test_api import TRADE, FakeTiers
from tests.test_cache import stock
from tests.test_site import Connection
from twstock import origin
from twstock.config import Limits
from twstock.errors import (
    DiskFull,
    InvalidRequest,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)
from twstock.market import Stock
from twstock.rpc.calls import Placement
from twstock.web.api import Api
from twstock.web.cache import Cache
from twstock.web.http.channel import ApiChannel
from twstock.web.http.poll import write_now
from twstock.web.http.routes import mount
from twstock.web.http.site import ApiSite
from twstock.web.lane import Lane
from twstock.web.lanechannel import LaneChannel
from twstock.web.recognition import KEPT_BYTES_MAX, KEPT_MAX, Recognition

HOST = b"Host: h\r\n"
ORDER = b'{"name":"GOOGL","quantity":5,"type":"buy"}'
STOCK = b"GET /stocks/GOOGL HTTP/1.1\r\n" + HOST + b"\r\n"
NUMBER = b"GET /orders/1 HTTP/1.1\r\n" + HOST + b"\r\n"


def post(body: bytes = ORDER, *headers: bytes, path: bytes = b"/orders") -> bytes:
    """A request to trade."""
    lines = [HOST, b"Content-Length: %d\r\n" % len(body), *(h + b"\r\n" for h in headers)]
    return b"POST " + path + b" HTTP/1.1\r\n" + b"".join(lines) + b"\r\n" + body


class CountingLane(Lane):
    """Counts what it takes."""

    taken = 0

    def take(self, data: bytes, tell: Any) -> bytes | None:
        """As it is."""
        answer = super().take(data, tell)
        self.taken += answer is not None
        return answer


class HeldTiers(FakeTiers):
    """Tiers that can be asked to keep their answers back, and then to give the oldest."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[tuple[Deferred[Any], Any]] = []

    def answer(self, value: Any) -> "Deferred[Any]":
        """As it is; what is held back, a value or an error, is kept for later."""
        answer = super().answer(None if self.hold else value)
        if self.hold:
            self.held.append((answer, value))
        return answer

    def give(self) -> None:
        """The answer that was kept back longest, if any was."""
        if self.held:
            answer, value = self.held.pop(0)
            answer.callback(Failure(value) if isinstance(value, Exception) else value)


class End:
    """A front-end that knows a stock and an order, and one connection to it."""

    def __init__(
        self, *, fast: bool, limits: Limits | None = None, cache_size: int = 10, hold: bool = False
    ) -> None:
        self.clock = Clock()
        self.tiers = HeldTiers()
        self.tiers.hold = hold
        self.cache = Cache(cache_size)
        self.cache.renew(0.0, 100.0, 1.0, True)
        self.cache.fill(self.cache.ticket(1.0), stock(0))
        members = (self.tiers, self.tiers, self.tiers)
        limits = limits or Limits(body_bytes_max=200)
        api = Api(self.cache, *members, (1, "s"), lambda: 1.0, lambda: "made", limits)
        site = self.site = ApiSite(
            mount(api.routes()).resource(), self.clock, limits, limits.body_bytes_max
        )
        lane = self.lane = CountingLane(api, site.date, site.ids, limits, site.traffic)
        if fast:
            site.make_channel = lambda: LaneChannel(limits, lane)
        self.connect()

    def connect(self) -> None:
        """A new client; what the front-end has learnt it still knows."""
        channel: ApiChannel | None = self.site.buildProtocol(None)
        assert channel is not None
        server: Any = self
        self.client = Connection(server, channel)

    @property
    def wire(self) -> Any:
        """The server's end of the connection."""
        return self.client.wire

    def seen(self) -> tuple[Any, ...]:
        """Everything that a client, the tiers or whoever watches can see."""
        answers = re.sub(rb"Date: [^\r]*", b"Date: now", self.wire.value())
        tiers, counters = self.tiers, self.cache.counters
        asked = (tiers.placed, tiers.looked_up, tiers.ordered)
        counted = {key: latency.count for key, latency in self.site.traffic._latency.items()}
        return answers, self.client.open, asked, counters.hits, counters.misses, counted


class Both:
    """Sends the same both ways: nobody may see a difference."""

    def __init__(self, cache_size: int = 10, hold: bool = False) -> None:
        self.fast = End(fast=True, cache_size=cache_size, hold=hold)
        self.slow = End(fast=False, cache_size=cache_size, hold=hold)
        self.ends = self.fast, self.slow

    def know(self, name: str, answer: Any) -> None:
        """What the catalog answers for a stock: it may be an error."""
        for end in self.ends:
            end.tiers.stocks[name] = answer

    def send(self, *chunks: bytes) -> int:
        """Returns how many requests the lane took."""
        before = self.fast.lane.taken
        for chunk in chunks:
            for end in self.ends:
                end.client.send(chunk)
            self.compare()
        return self.fast.lane.taken - before

    def end(self) -> bytes:
        """The client sends no more; returns what it sees then."""
        for end in self.ends:
            end.client.end()
        return self.compare()

    def send_anew(self, request_: bytes) -> int:
        """The same on a connection of its own."""
        for end in self.ends:
            end.client.wire.loseConnection()
            end.connect()
        return self.send(request_)

    def give(self) -> bytes:
        """The tiers give an answer that they kept back; returns what the client sees then."""
        for end in self.ends:
            end.tiers.give()
        return self.compare()

    def compare(self) -> bytes:
        """Returns what both have answered since the last time."""
        seen: bytes = self.fast.seen()[0]
        assert self.fast.seen() == self.slow.seen()
        for end in self.ends:
            end.wire.clear()
        return seen


@pytest.mark.parametrize(
    "request_",
    [
        STOCK,
        NUMBER,
        post(),
        post(b"", path=b"/orders/"),
        post(b"{}"),
        post(b'{"name":"GOOGL","quantity":0,"type":"buy"}'),
        post(ORDER, b"Idempotency-Key: mine"),
        post(ORDER, b"Idempotency-Key: a b"),
        STOCK.replace(b"\r\n\r\n", b"\r\nUser-Agent: x (y; z)\r\nAccept: */*\r\n\r\n"),
        STOCK.replace(b"\r\n\r\n", b"\r\nconnection:  Keep-Alive \r\n\r\n"),
        STOCK.replace(b"\r\n\r\n", b"\r\nOrigin: http://evil\r\nSec-Fetch-Site: x\r\n\r\n"),
        STOCK.replace(b"\r\n\r\n", b"\r\nX-Request-Id: mine\r\n\r\n"),
        NUMBER.replace(b"\r\n\r\n", b"\r\nx-request-ID: \tmine \r\n\r\n"),
        STOCK.replace(b"\r\n\r\n", b"\r\nX-Request-Id: not mine\r\n\r\n"),
        STOCK.replace(b"\r\n\r\n", b"\r\nX-Request-Id: " + b"x" * 129 + b"\r\n\r\n"),
        post(ORDER, b"X-Request-Id: mine"),
        post(b"{}", b"X-Request-Id: mine", b"Idempotency-Key: mine"),
    ],
)
def test_hot_requests_take_the_lane(request_: bytes) -> None:
    """Whole and alone, again and again. If they are split, anywhere, they take the ordinary way."""
    ways = Both()
    assert ways.send(request_, request_) == 2
    ways = Both()
    for cut in range(1, len(request_)):
        assert ways.send(request_[:cut], request_[cut:]) == 0
    # Twisted hands on what follows a request as if it had just come.
    assert ways.send(request_ + request_) <= 1


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /stocks/GOOGL HTTP/1.0\r\n" + HOST + b"\r\n",
        b"HEAD /stocks/GOOGL HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /stocks/GOOGL HTTP/1.1\r\n\r\n",
        b"GET /stocks/GOOGL HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
        b"GET /stocks/GOOG%4C HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /stocks/GOOGL?x HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /orders/01 HTTP/1.1\r\n" + HOST + b"\r\n",
        STOCK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        STOCK.replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"),
        STOCK.replace(b"\r\n\r\n", b"\r\nX-Unknown: 1\r\n\r\n"),
        STOCK.replace(b"\r\n\r\n", b"\r\nX-Request-Id: a\r\nX-Request-Id: b\r\n\r\n"),
        STOCK.replace(b"\r\n\r\n", b"\r\nX-Request-Id:\r\n\r\n"),
        STOCK.replace(b"\r\n\r\n", b'\r\nIf-None-Match: "0"\r\n\r\n'),
        post(b"{}", b"Accept: application/Problem+json"),
        post(b"{}", b"Accept: */*;q=0.1", b"Accept: application/problem+json"),
        STOCK.replace(b"\r\n\r\n", b"\r\n folded\r\n\r\n"),
        STOCK.replace(b"Host: h", b"Host : h"),
        STOCK.replace(b"\r\n\r\n", b"\r\nAccept: \x01\r\n\r\n"),
        STOCK.replace(b"\r\n\r\n", b"\r\nAccept: \xff\r\n\r\n"),
        STOCK.replace(b"\r\n\r\n", b"\r\nAccept: a\nb: c\r\n\r\n"),
        STOCK.replace(b"\r\n", b"\n"),
        post().replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nContent-Length"),
        post().replace(b"Content-Length: ", b"Content-Length: 1\r\nContent-Length: "),
        post().replace(b"Content-Length: 4", b"Content-Length: +4"),
        post().replace(b"Content-Length", b"Expect: 100-continue\r\nContent-Length"),
        post(ORDER, b"Idempotency-Key: a", b"Idempotency-Key: b"),
        post(ORDER, b"Idempotency-Key:"),
        post(ORDER, b"Origin: http://h"),
        post(ORDER, b"Origin: http://evil.example"),
        post(ORDER, b"Sec-Fetch-Site: same-origin"),
        post(ORDER, b"sec-fetch-site: cross-site", b"Origin: null"),
        STOCK.replace(b"\r\n\r\n", b"\r\nOrigin: a\r\nOrigin: b\r\n\r\n"),
        post() + b"GET",
        post(b" " * 201),
        post()[:-1],
    ],
)
def test_everything_else_goes_the_ordinary_way(request_: bytes) -> None:
    """Whatever is malformed, unusual or not alone. So there is no difference that request smuggling
    could use.
    """
    assert Both().send(request_) == 0
    Both().send(STOCK, request_, STOCK)


@pytest.mark.parametrize("path", [b"/orders%2f", b"/%2Forders"])
def test_an_encoded_slash_leads_to_no_order(path: bytes) -> None:
    """The path is as unknown as any other."""
    ways = Both()
    assert ways.send(post(path=path)) == 0
    assert ways.slow.site.traffic.answered("refused", "other") == 1
    assert ways.slow.tiers.placed == []


def get(path: bytes) -> bytes:
    """A request to read."""
    return b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n"


FULL = STOCK.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\nAccept: */*\r\n\r\n")


@pytest.mark.parametrize("request_", [FULL, FULL.replace(b"/stocks/GOOGL", b"/orders/1"), post()])
def test_what_is_known_is_told_from_all_that_resembles_it(request_: bytes) -> None:
    """With one byte more, less or other, anywhere, a known request is never taken for the one it
    resembles.
    """
    ways = Both()
    assert ways.send(request_, request_) == 2
    for at in range(len(request_) + 1):
        before, after = request_[:at], request_[at:]
        for byte in (b"\r", b" ", b"0", after[:1].swapcase()):
            ways.send_anew(before + byte + after)
            ways.send_anew(before + byte + after[1:])
        ways.send_anew(before + after[1:])
        ways.send_anew(before + after + before)
        ways.send_anew(before)
        ways.send(after)
    assert ways.send_anew(request_) == 1


LINES = st.sampled_from(
    [
        HOST,
        b"host: other\r\n",
        b"Connection: keep-alive\r\n",
        b"Connection: close\r\n",
        b"Content-Length: 0\r\n",
        b"Accept: */*\r\n",
        b"Accept: application/problem+json\r\n",
        b"User-Agent: " + b"x" * 500 + b"\r\n",
        b"Cookie: c\r\n" * 31,
        b"X-Request-Id: mine\r\n",
        b"X-Request-Id: yours\r\n",
        b"Idempotency-Key: k\r\n",
        b"Origin: http://h\r\n",
        b"Origin: null\r\n",
        b"Sec-Fetch-Site: cross-site\r\n",
        b"Sec-Fetch-Site: same-origin\r\n",
        b'If-None-Match: "0"\r\n',
        b"X-Unknown: 1\r\n",
    ]
)
GET_STOCK = b"GET /stocks/GOOGL HTTP/1.1\r\n"
FIRST_LINES = st.sampled_from(
    [
        GET_STOCK,
        b"GET /stocks/META HTTP/1.1\r\n",
        b"GET /orders/1 HTTP/1.1\r\n",
        b"POST /orders HTTP/1.1\r\n",
    ]
)


@given(st.lists(st.tuples(FIRST_LINES, st.lists(LINES, max_size=5)), min_size=1, max_size=4))
@example([(GET_STOCK, [HOST]), (GET_STOCK, [HOST, b"X-Request-Id: mine\r\n"])])
@example([(GET_STOCK, [HOST, b"Accept: */*\r\n"]), (GET_STOCK, [b"Accept: */*\r\n", HOST])])
@example([(GET_STOCK, [HOST]), (GET_STOCK, [HOST, b'If-None-Match: "0"\r\n'])])
@example([(GET_STOCK, [HOST, b"Cookie: c\r\n" * 31]), (GET_STOCK, [HOST, b"Accept: a\r\n" * 32])])
def test_requests_that_come_again_are_answered_again(
    requests: list[tuple[bytes, list[bytes]]],
) -> None:
    """In any mixture, each several times: with other headers or in another sequence, with an id, a
    condition, or the wish to close.
    """
    ways = Both()
    for _ in range(3):
        for line, headers in requests:
            ways.send_anew(line + b"".join(headers) + b"\r\n")


def test_what_is_learnt_is_bounded() -> None:
    """In number and in length. What differs each time (an id, a key) is not kept."""
    recognition = Recognition(Limits())
    kept = (recognition._requests, recognition._lines, recognition._headers)
    for line in (b"X-Request-Id: mine\r\n", b"Idempotency-Key: k\r\n", b"X-Unknown: 1\r\n"):
        recognition.of(STOCK.replace(HOST, HOST + line))
        recognition.of(post(ORDER, line[:-2]))
    assert [len(each) for each in kept] == [0, 1, 0]
    for size in (KEPT_BYTES_MAX - 150, KEPT_BYTES_MAX, 3000):
        for number in range(KEPT_MAX // 2 + 100):
            agent = b"User-Agent: %d%b\r\n" % (number, b"x" * size)
            recognition.of(
                b"GET /orders/%d%d HTTP/1.1\r\n" % (size, number) + HOST + agent + b"\r\n"
            )
            assert all(len(each) <= KEPT_MAX for each in kept)
    assert max(map(len, recognition._requests)) <= KEPT_BYTES_MAX
    assert max(map(len, recognition._headers)) <= 2048


MISSES = [
    *(get(b"/stocks/" + name) for name in (b"META", b"NONE", b".", b"..", b"~", b"-")),
    *(get(b"/orders/" + number) for number in (b"1", b"2", b"999999999999999999")),
]
PROBLEMS = [
    Unavailable("the catalog service did not answer in time"),
    OutcomeUnknown("lost"),
    NotLeader(0),
    Overloaded("too many requests are waiting"),
    DiskFull(),
    InvalidRequest("stock_names", "too many"),
]


@pytest.mark.parametrize("cache_size", [0, 10])
@pytest.mark.parametrize("request_", MISSES)
def test_what_has_to_be_asked_for_takes_the_lane(request_: bytes, cache_size: int) -> None:
    """The answer of the catalog or the order service is the same both ways, whether it comes at
    once or later, and what arrives meanwhile is answered after it.
    """
    for known in (stock(3), None, *PROBLEMS):
        ways = Both(cache_size)
        ways.know("META", known)
        for end in ways.ends:
            end.tiers.trade = TRADE if isinstance(known, Stock) else known
        assert ways.send(request_, request_) == 2
        ways = Both(cache_size, hold=True)
        ways.know("META", known)
        assert ways.send(request_) == 1
        ways.send(request_[:20], request_[20:] + STOCK)
        answered = [ways.give() for _ in range(3)]
        assert b"".join(answered).count(b"HTTP/1.1 ") == 3


@pytest.mark.parametrize("request_", MISSES)
def test_what_has_to_be_asked_for_may_arrive_in_pieces(request_: bytes) -> None:
    """Then it takes the ordinary way."""
    ways = Both(cache_size=0)
    for end in ways.ends:
        end.tiers.trade = None
    for cut in range(1, len(request_)):
        assert ways.send(request_[:cut], request_[cut:]) == 0


@pytest.mark.parametrize(
    ("request_", "asks"),
    [
        (STOCK, False),
        (MISSES[0], True),
        (MISSES[1], True),
        (NUMBER, True),
        (post(), True),
        (post(b"{}"), False),
    ],
)
def test_every_answer_names_its_request(request_: bytes, asks: bool) -> None:
    """By the id that the client gave, or by a new one. A call to another service on its behalf
    carries only an id that the client gave.
    """
    end, asked = End(fast=True), []
    end.tiers.answer = lambda value: asked.append(origin.current()) or Deferred()  # type: ignore
    for line in (b"", b"X-Request-Id: mine\r\n"):
        end.client.send(request_.replace(HOST, HOST + line))
        end.client = Connection(end.client.server, end.site.buildProtocol(None))  # type: ignore
    assert asked == ([(), ("mine",)] if asks else [])
    end = End(fast=True)
    for line in (b"", b"X-Request-Id: mine\r\n", b""):
        end.client.send(request_.replace(HOST, HOST + line))
    assert [r[1][b"X-Request-Id"] for r in end.client.replies()] == [b"1", b"mine", b"2"]
    assert end.lane.taken == 3


def test_a_miss_says_so() -> None:
    """X-Cache says "miss", and "hit" for the next request for the same stock."""
    ways = Both()
    ways.know("META", stock(1, "META"))
    end = ways.fast
    end.client.send(MISSES[0])
    assert end.client.replies()[0][1][b"X-Cache"] == b"miss"
    end.client.send(MISSES[0])
    assert [reply[1][b"X-Cache"] for reply in end.client.replies()] == [b"miss", b"hit"]
    assert (end.cache.counters.hits, end.cache.counters.misses) == (1, 1)
    assert [asked.name for asked in end.tiers.looked_up] == ["META"]


def test_an_unavailable_catalog_is_a_503_that_may_be_tried_again() -> None:
    """The lane answers it like the ordinary way."""
    end = End(fast=True, cache_size=0)
    end.tiers.stocks["GOOGL"] = Unavailable("gone")  # type: ignore[assignment]
    end.client.send(STOCK)
    [(status, headers, json)] = end.client.replies()
    assert (status, headers[b"Retry-After"], json["error"]["outcome"]) == (503, b"1", "none")
    assert end.lane.taken == 1


@pytest.mark.logs_failures
def test_an_unexpected_error_is_a_logged_500_both_ways() -> None:
    """An error that is not one of the project's own is logged with the id of its request."""
    ways = Both(cache_size=0)
    ways.know("GOOGL", ZeroDivisionError("oops"))
    with capturedLogs() as logged:
        assert ways.send(STOCK) == 1
    assert [event["request_id"] for event in logged if "log_failure" in event] == ["1", "1"]
    with capturedLogs() as logged:
        assert ways.send(STOCK.replace(b"\r\n\r\n", b"\r\nX-Request-Id: mine\r\n\r\n")) == 1
    assert [event["request_id"] for event in logged if "log_failure" in event] == ["mine"] * 2


@pytest.mark.logs_failures
def test_an_order_whose_answer_cannot_be_made_is_a_logged_500_both_ways() -> None:
    """The order is executed, but its client must not wait for ever."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    for end in Both().ends:
        end.cache.raise_minimum = broken  # type: ignore[method-assign]
        with capturedLogs() as logged:
            end.client.send(post())
        assert end.client.statuses() == [500]
        assert len([event for event in logged if "log_failure" in event]) == 1


PIECES = st.sampled_from(
    [
        STOCK,
        NUMBER,
        MISSES[0],
        MISSES[1],
        post(),
        post(ORDER, b"Idempotency-Key: k"),
        post(b"{"),
        post(ORDER, b"Sec-Fetch-Site: cross-site"),
        post(ORDER, b"Origin: http://h"),
        b"Origin: http://evil.example\r\n",
        b"GET /stocks/GOOGL HTTP/1.1\r\n",
        b"POST /orders HTTP/1.1\r\n",
        HOST,
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Accept: */*\r\n",
        b"Accept: application/problem+json\r\n",
        b"X-Request-Id: mine\r\n",
        b'If-None-Match: W/"0"\r\n',
        b"\r\n",
        b"\n",
        b" ",
        b"hello",
        b"0\r\n\r\n",
        ORDER,
    ]
)


@given(st.lists(st.lists(PIECES, min_size=1, max_size=6), max_size=5))
@example([[STOCK], [STOCK, STOCK], [post()], [NUMBER]])
@example([[b"\r\n"], [STOCK], [b"\r\n"], [STOCK]])
@example([[post()], [b"\r\n"], [post()], [b"\r\n"], [post()]])
def test_no_arrangement_of_bytes_tells_them_apart(chunks: list[list[bytes]]) -> None:
    """Requests and parts of them, in any sequence and any grouping, are answered alike both
    ways.
    """
    Both().send(*(b"".join(chunk) for chunk in chunks))


@given(
    st.lists(st.none() | st.lists(PIECES, min_size=1, max_size=4), max_size=8),
    st.sampled_from([0, 9]),
)
@example([[STOCK], [STOCK, STOCK], None, [post()], None, None, None], 0)
def test_the_time_that_the_tiers_take_makes_no_difference(
    steps: list[list[bytes] | None], cache_size: int
) -> None:
    """Bytes arrive, and the tiers answer, in any sequence."""
    ways = Both(cache_size, hold=True)
    for step in steps:
        if step is None:
            ways.give()
        else:
            ways.send(b"".join(step))


@given(st.lists(st.none() | st.lists(PIECES, min_size=1, max_size=4), max_size=8), st.integers(0))
@example([[post()], None], 1)
@example([[post(), STOCK], None, None, None], 1)
@example([[post()], [STOCK, NUMBER, STOCK[:9]], None, None, None], 2)
@example([[post()], [MISSES[0]], None, None, None], 2)
def test_the_end_of_what_a_client_sends_makes_no_difference(
    steps: list[list[bytes] | None], sent: int
) -> None:
    """Whatever is under way when a client half-closes, and whatever it has sent before."""
    ways = Both(0, hold=True)
    for step in steps[:sent]:
        if step is None:
            ways.give()
        else:
            ways.send(b"".join(step))
    ways.end()
    for _ in range(50):
        ways.give()
    assert not ways.fast.client.open


@pytest.mark.parametrize("request_", [STOCK, MISSES[0], MISSES[6], post()])
def test_who_half_closes_after_a_hot_request_is_answered(request_: bytes) -> None:
    """The lane's own answer, at once or later, and then what came behind it."""
    ways = Both(hold=True)
    ways.send(request_)
    ways.send(STOCK + STOCK[:9])
    seen = ways.end()
    for _ in range(3):
        seen += ways.give()
    assert not ways.fast.client.open
    assert not ways.fast.wire.aborted
    assert ways.fast.lane.taken


@pytest.mark.parametrize("request_", [MISSES[0], MISSES[6], post()])
@pytest.mark.parametrize("end_", ["drained", "lost"])
def test_the_end_of_a_connection_is_the_same_both_ways(request_: bytes, end_: str) -> None:
    """While an answer is still to come: draining sends it with ``Connection: close``, and a client
    that is gone gets nothing.
    """
    ways = Both(hold=True)
    assert ways.send(request_) == 1
    for end in ways.ends:
        if end_ == "drained":
            end.site.drain()
        else:
            end.wire.loseConnection()
    answered = ways.give()
    assert (b"Connection: close" in answered) == (end_ == "drained")
    assert not ways.fast.client.open


@pytest.mark.parametrize("request_", [STOCK, NUMBER, post()])
def test_the_last_answer_of_a_connection_says_so_both_ways(request_: bytes) -> None:
    """While draining, a request that was on its way is answered with ``Connection: close``; the
    lane leaves it to the ordinary way.
    """
    ways = Both()
    assert ways.send(request_, request_) == 2
    for end in ways.ends:
        end.site.drain()
        end.client.send(request_)
    assert b"\r\nConnection: close\r\n" in ways.compare()
    assert ways.fast.lane.taken == 2


def test_what_arrives_during_an_order_is_answered_after_it() -> None:
    """Answers keep the sequence of their requests, and nothing is lost."""
    for fast in (True, False):
        end = End(fast=fast)
        end.tiers.hold = True
        end.client.send(post())
        end.client.send(STOCK)
        end.client.send(STOCK[:10])
        assert end.client.replies() == []
        end.tiers.hold = False
        end.tiers.waiting[0].callback(Placement(7, version=0))
        end.client.send(STOCK[10:])
        assert end.client.statuses() == [200, 200, 200]
        assert end.client.replies()[0][2] == {"data": {"transaction_number": 7}}
        assert end.lane.taken == (1 if fast else 0)


def test_who_sends_on_and_on_during_an_order_is_not_read() -> None:
    """So what is held back is bounded."""
    end = End(fast=True)
    end.tiers.hold = True
    end.client.send(post())
    end.client.send(b"x" * 20_000)
    assert end.wire.producerState == "paused"
    end.tiers.waiting[0].callback(Placement(7, version=1))
    assert end.wire.producerState == "producing"
    assert end.client.statuses() == [200, 414]


def test_an_order_outlives_its_connection() -> None:
    """It cannot be taken back, and its answer goes nowhere."""
    end = End(fast=True)
    end.tiers.hold = True
    end.client.send(post())
    end.wire.loseConnection()
    end.tiers.waiting[0].callback(Placement(7, version=1))
    assert end.wire.value() == b""


def test_an_error_of_an_order_has_its_status() -> None:
    """An error that comes later is answered like one that comes at once."""
    end = End(fast=True)
    end.tiers.hold = True
    end.client.send(post(ORDER, b"Idempotency-Key: k"))
    end.tiers.waiting[0].errback(Unavailable("no leader"))
    assert [(code, json["error"]["outcome"]) for code, _, json in end.client.replies()] == [
        (503, "unknown")
    ]


def test_draining_answers_the_order_under_way_and_closes() -> None:
    """Its answer has ``Connection: close``."""
    end = End(fast=True)
    end.tiers.hold = True
    end.client.send(post())
    drained = end.site.drain()
    end.client.send(STOCK)
    end.tiers.waiting[0].callback(Placement(7, version=1))
    [(status, headers, _)] = end.client.replies()
    assert (status, headers[b"Connection"]) == (200, b"close")
    assert not end.client.open
    end.client.wire.loseConnection()
    assert drained.called


def test_the_idle_timeout_counts_from_the_last_request() -> None:
    """A busy connection stays, an idle one is closed."""
    limits = Limits(idle_timeout_s=10.0)
    end = End(fast=True, limits=limits)
    for _ in range(5):
        end.clock.advance(6.0)
        end.client.send(STOCK)
    assert end.client.statuses() == [200] * 5
    end.clock.advance(9.9)
    assert end.client.open
    end.clock.advance(0.2)
    assert not end.client.open


def test_an_order_may_take_longer_than_the_idle_timeout() -> None:
    """A client that waits for an answer is not idle."""
    end = End(fast=True, limits=Limits(idle_timeout_s=1.0))
    end.tiers.hold = True
    end.client.send(post())
    end.clock.pump([0.5] * 6)
    end.tiers.waiting[0].callback(Placement(7, version=1))
    assert end.client.statuses() == [200]


def test_a_stock_without_a_lease_is_not_shown() -> None:
    """The lane asks the cache each time: it keeps the text of an answer, not the permission to show
    it.
    """
    end = End(fast=True)
    end.client.send(STOCK)
    end.cache.raise_minimum("GOOGL", 1)
    end.tiers.stocks["GOOGL"] = stock(1)
    end.client.send(STOCK)
    end.client.send(STOCK)
    assert [json["data"]["version"] for _, _, json in end.client.replies()] == [0, 1, 1]
    end.cache.end_lease()
    end.client.send(STOCK)
    assert end.client.replies()[-1][1][b"X-Cache"] == b"miss"


class Socket(TcpConnection):
    """A TCP transport whose kernel takes ``room`` bytes at once."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sent = b""
        self.later: list[bytes] = []
        self.dataBuffer = b""
        self._tempDataBuffer: list[bytes] = []
        self.disconnecting = False
        kernel: Any = self
        self.socket = kernel

    def send(self, data: bytes) -> int:
        """As the kernel: as much as there is room for."""
        if self.room < 0:
            raise ConnectionResetError
        if self.room == 0:
            raise BlockingIOError
        self.sent += data[: self.room]
        return min(len(data), self.room)

    def write(self, data: bytes) -> None:
        """What the reactor would write later."""
        self.later.append(data)


@pytest.mark.parametrize(
    ("room", "sent", "later"),
    [(9, b"answer", []), (2, b"an", [b"swer"]), (0, b"", [b"answer"]), (-1, b"", [b"answer"])],
)
def test_an_answer_goes_out_at_once_as_far_as_it_can(
    room: int, sent: bytes, later: list[bytes]
) -> None:
    """The rest is left to the reactor, which also finds out that a connection is gone."""
    transport = Socket(room)
    write_now(transport, b"answer")
    assert (transport.sent, transport.later) == (sent, later)


def test_an_answer_waits_for_what_was_written_before() -> None:
    """Bytes keep their sequence."""
    transport = Socket(99)
    transport._tempDataBuffer = [b"first"]
    write_now(transport, b"second")
    assert (transport.sent, transport.later) == (b"", [b"second"])
