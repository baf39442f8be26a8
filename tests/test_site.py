"""HTTP at the edge, byte by byte: what is accepted, what is refused, and how long a client may
take.
"""

import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.web.server import Request

from twstock.config import Limits
from twstock.web import answers
from twstock.web.answers import Answer
from twstock.web.http.channel import (
    LINGER_S,
    PIPELINED_MAX,
    WRITE_STALLED_S,
    ApiChannel,
)
from twstock.web.http.drain import PART_S, QUIET_S
from twstock.web.http.poll import Poll
from twstock.web.http.respond import add_route, body, new_app
from twstock.web.http.site import ApiSite

LIMITS = Limits(connections_max=3)
GET = b"GET /echo?x=1 HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nhe\r\n3;ext=1\r\nllo\r\n0\r\nTrailer: x\r\n\r\n"
)


class Wire(StringTransport):
    """A transport that remembers how it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.half_closed = False
        self.aborted = False
        self.lost: Any = None

    def loseWriteConnection(self) -> None:
        """Nothing more will be written."""
        self.half_closed = True

    def loseConnection(self) -> None:
        """All was written: the connection is closed."""
        super().loseConnection()
        self._gone()

    def abortConnection(self) -> None:
        """The connection is aborted."""
        self.aborted = True
        super().abortConnection()
        self._gone()

    def _gone(self) -> None:
        if self.lost is not None:
            lost, self.lost = self.lost, None
            lost(Failure(ConnectionDone()))


class Server:
    """A site on a fake clock, with resources that echo, wait or break."""

    def __init__(
        self, limits: Limits = LIMITS, larger_bodies: Mapping[bytes, int] | None = None
    ) -> None:
        self.clock = Clock()
        self.held: list[Deferred[Answer]] = []
        app = new_app()
        for method in ("GET", "POST", "DELETE"):
            add_route(app, "/echo", method, self.echo)
            add_route(app, "/held", method, self.hold)
        add_route(app, "/", "GET", self.echo)
        add_route(app, "/broken", "GET", lambda _: 1 / 0)  # type: ignore[arg-type, return-value]
        usual, larger = limits.body_bytes_max, larger_bodies
        self.site = ApiSite(app.resource(), self.clock, limits, usual, larger_bodies=larger)

    def echo(self, request: Request) -> Answer:
        """Answer with what was asked."""
        return answers.data([request.method.decode(), request.uri.decode(), body(request).decode()])

    async def hold(self, _request: Request) -> Answer:
        """Answer when the test says so."""
        self.held.append(Deferred())
        return await self.held[-1]

    def connect(self) -> "Connection":
        """A new connection."""
        channel = self.site.buildProtocol(None)
        assert channel is not None
        return Connection(self, channel)


class Connection:
    """One client's connection."""

    def __init__(self, server: Server, channel: ApiChannel) -> None:
        self.server = server
        self.channel = channel
        self.wire = Wire()
        self.wire.lost = channel.connectionLost
        channel.makeConnection(self.wire)

    def send(self, data: bytes) -> None:
        """Let bytes arrive, as long as the connection is open."""
        if self.wire.lost is not None:
            self.channel.dataReceived(data)

    def end(self) -> None:
        """The client sends no more, but goes on reading."""
        if self.wire.lost is not None:
            self.channel.readConnectionLost()

    def replies(self) -> "list[tuple[int, dict[bytes, bytes], Any]]":
        """Status, headers and JSON of each answer so far; all have a length."""
        return list(parse(self.wire.value()))

    def statuses(self) -> "list[int]":
        """The status of each answer so far."""
        return [status for status, _, _ in self.replies()]

    @property
    def open(self) -> bool:
        """Whether further requests would be answered."""
        return self.wire.lost is not None and not self.wire.half_closed


def parse(data: bytes) -> Iterator[tuple[int, dict[bytes, bytes], Any]]:
    """The answers in a stream of bytes, by their Content-Length."""
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        assert separator, head
        first, *lines = head.split(b"\r\n")
        version, code, _ = first.split(b" ", 2)
        assert version in (b"HTTP/1.1", b"HTTP/1.0")
        headers = dict(line.split(b": ", 1) for line in lines)
        assert len(headers) == len(lines), "a header appears twice"
        assert headers[b"Content-Type"] == b"application/json"
        length = int(headers[b"Content-Length"])
        content, data = data[:length], data[length:]
        yield int(code), headers, json.loads(content)


@pytest.fixture
def client() -> Connection:
    """A connection to a fresh server."""
    return Server().connect()


def refused(client: Connection, status: int) -> None:
    """The only answer is an error in the usual form, and the connection takes no more requests."""
    ((code, headers, content),) = client.replies()
    assert code == content["error"]["code"] == status
    assert headers[b"Connection"] == b"close"
    assert headers[b"Cache-Control"] == b"no-store"  # a 414 may be kept unless this is said
    assert {b"Date", b"X-Request-Id", b"X-Content-Type-Options"} <= headers.keys()
    assert not client.open


# --- what is taken ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "echo"),
    [
        (GET, ["GET", "/echo?x=1", ""]),
        (POST, ["POST", "/echo", "hello"]),
        (CHUNKED, ["POST", "/echo", "hello"]),
        (b"\r\n" + GET, ["GET", "/echo?x=1", ""]),
        (b"GET http://h:80/echo HTTP/1.1\r\nHost: h\r\n\r\n", ["GET", "http://h:80/echo", ""]),
        (b"GET /echo HTTP/1.1\r\nHost:\r\n\r\n", ["GET", "/echo", ""]),
        (b"GET /%65cho HTTP/1.1\r\nhost: [::1]:8080\r\n\r\n", ["GET", "/%65cho", ""]),
        (
            b"DELETE /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi",
            ["DELETE", "/echo", "hi"],
        ),
        (
            b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n"
            b"Content-Type: multipart/form-data\r\n\r\nx",
            ["POST", "/echo", "x"],
        ),
    ],
)
def test_a_request_may_be_split_anywhere(sent: bytes, echo: list[str]) -> None:
    """However a request is split, it is understood, and so is the next one."""
    server = Server()
    for position in range(len(sent) + 1):
        client = server.connect()
        client.send(sent[:position])
        client.send(sent[position:])
        client.send(GET)
        assert [c for _, _, c in client.replies()] == [
            {"data": echo}, {"data": ["GET", "/echo?x=1", ""]},
        ]  # fmt: skip
        assert client.open
        client.wire.loseConnection()


def test_a_request_may_come_byte_by_byte() -> None:
    """Three requests in a row, of which each byte arrives by itself, are answered."""
    client = Server().connect()
    for byte in POST + CHUNKED + GET:
        client.send(bytes([byte]))
    assert client.statuses() == [200, 200, 200]


def test_pipelined_requests_are_answered_in_order(client: Connection) -> None:
    """Thousands may come in one segment. One that is slow holds up those behind it, and none is
    lost.
    """
    client.send(numbered(1, 2000))
    client.server.clock.advance(0.0)
    assert echoed(client) == [f"/echo?x={n}" for n in range(1, 2001)]
    client.wire.clear()
    client.send(b"GET /held HTTP/1.1\r\nHost: h\r\n\r\n" + POST + GET)
    assert client.replies() == []
    client.server.held[0].callback(answers.data("held"))
    assert [c["data"][0] for _, _, c in client.replies()] == ["h", "POST", "GET"]


def test_head_has_no_body(client: Connection) -> None:
    """Content-Length is what GET would send, and the next answer follows at once."""
    client.send(b"HEAD /echo HTTP/1.1\r\nHost: h\r\n\r\n" + GET)
    head, rest = client.wire.value().split(b"\r\n\r\n", 1)
    expected = b'{"data":["HEAD","/echo",""]}'
    assert b"Content-Length: %d" % len(expected) in head
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n")


def test_http_1_0_is_answered_and_closed(client: Connection) -> None:
    """HTTP/1.0 needs no Host."""
    client.send(b"GET /echo HTTP/1.0\r\n\r\n")
    ((code, headers, _),) = client.replies()
    assert (code, headers[b"Connection"]) == (200, b"close")
    assert not client.open


@pytest.mark.parametrize("value", [b"close", b"keep-alive, Close", b"close\r\nConnection: x"])
def test_a_client_may_close_the_connection(client: Connection, value: bytes) -> None:
    """``close`` counts wherever it is in the list of Connection, and requests after it are not
    answered.
    """
    client.send(b"GET /echo HTTP/1.1\r\nHost: h\r\nConnection: " + value + b"\r\n\r\n" + GET)
    assert client.statuses() == [200]
    assert not client.open


def test_a_client_may_wait_for_100_continue(client: Connection) -> None:
    """The client is told to send its body, unless that would be refused."""
    head = b"POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: "
    client.send(head + b"5\r\n\r\n")
    assert client.wire.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.wire.clear()
    client.send(b"hello")
    assert client.statuses() == [200]
    other = client.server.connect()
    other.send(head + b"99999\r\n\r\n")
    refused(other, 413)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ([], b"1"),
        ([b"mine"], b"mine"),
        ([b"\xff"], b"1"),
        ([b"a b"], b"1"),
        ([b"a", b"b"], b"1"),
        ([b"x" * 128], b"x" * 128),
        ([b"x" * 129], b"1"),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT"])
def test_every_answer_names_its_request(method: bytes, given: list[bytes], named: bytes) -> None:
    """An answer has the client's X-Request-Id. If there is none, or it is not acceptable, it has
    one that was made.
    """
    client = Server().connect()
    lines = b"".join(b"X-Request-Id: %b\r\n" % each for each in given)
    client.send(method + b" /echo HTTP/1.1\r\nHost: h\r\n" + lines + b"\r\n")
    assert client.wire.value().count(b"\r\nX-Request-Id: " + named + b"\r\n") == 1


@pytest.mark.logs_failures
@pytest.mark.parametrize(("path", "named"), [(b"/broken", ["mine"]), (b"/echo/../%ff", [])])
def test_an_error_names_its_request_in_the_log(path: bytes, named: list[str]) -> None:
    """An unexpected error is logged with the id that the answer has; a bad request is not logged as
    an error.
    """
    client = Server().connect()
    with capturedLogs() as logged:
        client.send(b"GET " + path + b" HTTP/1.1\r\nHost: h\r\nX-Request-Id: mine\r\n\r\n")
    [(_, headers, _)] = client.replies()
    assert headers[b"X-Request-Id"] == b"mine"
    assert [event["request_id"] for event in logged if "log_failure" in event] == named


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 99999\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"Host: twice\r\n\r\n",
        b" folded\r\n\r\n",
        b"Content-Length: x\r\n",
    ],
)
def test_a_refusal_has_the_form_and_the_name_that_were_asked_for(rest: bytes) -> None:
    """What the headers before the malformed part ask for counts."""
    client = Server().connect()
    asked = b"Accept: application/problem+json\r\nX-Request-Id: mine\r\nLast: 1\r\n"
    client.send(b"POST /echo HTTP/1.1\r\nHost: h\r\n" + asked + rest + b"A: b\r\n\r\n")
    head, _, content = client.wire.value().partition(b"\r\n\r\n")
    assert b"\r\nX-Request-Id: mine\r\n" in head + b"\r\n"
    assert b"Content-Type: application/problem+json\r\n" in head
    assert json.loads(content)["status"] == int(head.split()[1])


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"\r\n", 400),
        (b"Host: h\r\nContent-Length: 99999\r\n\r\n", 413),
        (b"Host: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"Host: h\r\nX: " + b"x" * 20000, 431),
    ],
)
def test_a_refusal_of_head_has_no_body(rest: bytes, status: int) -> None:
    """Content-Length is what GET would send."""
    client = Server().connect()
    client.send(b"HEAD /echo HTTP/1.1\r\n" + rest)
    head, _, content = client.wire.value().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert int(head.partition(b"\r\nContent-Length: ")[2].split()[0]) > 0
    assert content == b""


def large(server: Server, length: int) -> Connection:
    """A connection on which a client begins to send a body where larger ones are allowed."""
    client = server.connect()
    client.send(b"POST /%%65cho?x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % length)
    return client


def test_a_path_may_take_larger_bodies() -> None:
    """Only that path does, up to its own limit, and only for a few bodies at once."""
    limits = Limits(body_bytes_max=10, batches_max=2, connections_max=9)
    server = Server(limits, {b"/echo": 20})
    refused(large(server, 21), 413)
    clients = [large(server, 11) for _ in range(2)]
    busy = large(server, 11)
    refused(busy, 429)
    assert busy.replies()[0][1][b"Retry-After"] == b"1"
    small = large(server, 10)
    for client, sent in ((clients[0], 11), (small, 10)):
        client.send(b"x" * sent)
        assert client.statuses() == [200]
    again = large(server, 20)
    again.send(b"x" * 20)
    assert again.statuses() == [200]
    clients[1].wire.loseConnection()
    assert not server.site.large_bodies
    held = server.connect()
    held.send(b"POST /held HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n\r\n")
    refused(held, 413)


@pytest.mark.parametrize("target", [b"/echo", b"http://h/echo?y"])
def test_a_larger_body_may_come_in_chunks(target: bytes) -> None:
    """Its size is not known before, so it counts as a large one."""
    server = Server(Limits(body_bytes_max=10), {b"/echo": 20})
    client = server.connect()
    head = b"POST " + target + b" HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    client.send(head + b"14\r\n" + b"x" * 20 + b"\r\n")
    assert len(server.site.large_bodies) == 1
    client.send(b"0\r\n\r\n")
    assert client.statuses() == [200]
    assert not server.site.large_bodies
    client.wire.clear()
    client.send(head + b"15\r\n" + b"x" * 21 + b"\r\n")
    refused(client, 413)


# --- what is refused -------------------------------------------------------------------------

HEAD = b"POST /echo HTTP/1.1\r\nHost: h\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /echo HTTP/1.1\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: a/b\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /echo\r\n\r\n",
        b"GET /echo HTTP/2.0\r\nHost: h\r\n\r\n",
        b"GET /echo HTTP/1.1 \r\nHost: h\r\n\r\n",
        b"GET  /echo HTTP/1.1\r\nHost: h\r\n\r\n",
        b"G=T /echo(HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET /e\x00cho HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: h\r\nnocolon\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: h\r\n: empty\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: h\r\nbad name: x\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: h\r\nX: a\nY: b\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: h\r\nX: a\r\n folded\r\n\r\n",
        b"GET /echo HTTP/1.1\r\n Host: h\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        HEAD + b"Content-Length: 5, 6\r\n\r\nhello",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nhello",
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: +5\r\n\r\nhello",
        HEAD + b"Content-Length: 0x5\r\n\r\nhello",
        HEAD + b"Content-Length: 5 \x0b\r\n\r\nhello",
        HEAD + b"Content-Length:\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nxx\r\nhello\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 2000,
    ],
)
def test_malformed_http_is_a_400_and_the_end(sent: bytes) -> None:
    """It is an error in the usual form, however the request is split; what follows it is not
    answered.
    """
    server = Server()
    for position in {0, 1, len(sent) // 3, len(sent) // 2, len(sent) - 3}:
        client = server.connect()
        client.send(sent[:position])
        client.send(sent[position:])
        client.send(GET)
        refused(client, 400)
        client.wire.loseConnection()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (HEAD + b"Content-Length: 16385\r\n\r\n", 413),
        (HEAD + b"Content-Length: 10000000000\r\n\r\n", 413),
        (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n4001\r\n" + b"x" * 0x4001, 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 16385, 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n4001\r\n", 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffff;ext=1\r\nx", 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 1000 + b"\r\n", 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n4000\r\n", 413),
        (b"GET /" + b"x" * 20000, 414),
        (b"GET /echo HTTP/1.1\r\nHost: h\r\nX: " + b"x" * 20000, 431),
        (b"GET /echo HTTP/1.1\r\nHost: h\r\n" + (b"X: " + b"x" * 2000 + b"\r\n") * 9, 431),
        (b"GET /echo HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 64 + b"\r\n", 431),
    ],
)
def test_what_is_too_large_is_refused_before_it_has_come(sent: bytes, status: int) -> None:
    """It is refused as soon as it is known to be too large, and what still arrives is not kept."""
    client = Server().connect()
    for start in range(0, len(sent), 4096):
        client.send(sent[start : start + 4096])
    refused(client, status)
    client.send(b"x" * 100_000)
    assert len(client.channel._buffer) < 100_000


def test_as_many_header_fields_as_the_limit_are_taken(client: Connection) -> None:
    """The limit is for each request."""
    for _ in range(2):
        client.send(b"GET /echo HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 63 + b"\r\n")
    assert client.statuses() == [200, 200]


def test_a_body_of_exactly_the_limit_is_taken(client: Connection) -> None:
    """This holds with Content-Length and in chunks."""
    text = b"x" * LIMITS.body_bytes_max
    client.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(text) + text)
    client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n4000\r\n" + text + b"\r\n0\r\n\r\n")
    chunked = b"1\r\nx\r\n%b3fff\r\n" % (b"0" * 20) + text[1:] + b"\r\n0\r\n\r\n"
    client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    for start in range(0, len(chunked), 5):
        client.send(chunked[start : start + 5])
    assert client.statuses() == [200, 200, 200]


def test_a_path_that_is_not_utf8_is_a_400_that_keeps_the_connection(client: Connection) -> None:
    """The request is well-formed HTTP, so the next one is answered."""
    client.send(b"GET /%ff HTTP/1.1\r\nHost: h\r\n\r\n" + GET)
    assert client.statuses() == [400, 200]


def test_methods_are_told_by_their_case_and_paths_by_every_slash(client: Connection) -> None:
    """``get`` is an unknown method (RFC 9110 section 9.1), and ``//echo`` another path: a proxy
    that guards a path cannot be bypassed.
    """
    lower = GET.replace(b"GET", b"get", 1)
    client.send(lower + lower.replace(b"/echo", b"/%65cho") + GET.replace(b" /", b" //", 1) + GET)
    assert client.statuses() == [405, 405, 404, 200]
    for _, headers, _ in client.replies()[:2]:
        assert headers[b"Allow"] == b"DELETE, GET, HEAD, POST"


@pytest.mark.parametrize("path", [b"/%2fecho", b"/%2F"])
def test_an_encoded_slash_separates_nothing(client: Connection, path: bytes) -> None:
    """It belongs to a name (RFC 3986 section 2.2), so such a path is another one."""
    client.send(GET.replace(b"/echo", path, 1))
    assert client.statuses() == [404]


SAME = b"Sec-Fetch-Site: same-origin"
HERE = b"Origin: http://h"
ELSEWHERE = b"Origin: http://evil.example"


@pytest.mark.parametrize("method", [b"POST", b"DELETE", b"PUT"])
@pytest.mark.parametrize(
    ("fields", "is_foreign"),
    [
        ([], False),
        ([HERE], False),
        ([b"Origin: HTTPS://H"], False),
        ([SAME], False),
        ([SAME, ELSEWHERE], False),
        ([b"Sec-Fetch-Site: none"], False),
        ([ELSEWHERE], True),
        ([b"Origin: http://h:81"], True),
        ([b"Origin: null"], True),
        ([b"Origin: h"], True),
        ([b"Origin:"], True),
        ([HERE, ELSEWHERE], True),
        ([b"Sec-Fetch-Site: cross-site"], True),
        ([b"Sec-Fetch-Site: same-site", HERE], True),
        ([b"Sec-Fetch-Site: Same-Origin"], True),
        ([b"Sec-Fetch-Site:"], True),
        ([SAME, b"Sec-Fetch-Site: cross-site"], True),
    ],
)
def test_a_page_of_another_origin_changes_nothing(
    client: Connection, method: bytes, fields: list[bytes], is_foreign: bool
) -> None:
    """What a browser says of where a request comes from counts. Whoever says nothing is no browser.
    Reading is free to all.
    """
    lines = b"".join(field + b"\r\n" for field in fields)
    sent = GET.replace(b"Host: h\r\n", b"Host: h\r\n" + lines)
    client.send(sent.replace(b"GET", method, 1) + sent)
    usual = 405 if method == b"PUT" else 200
    assert client.statuses() == [403 if is_foreign else usual, 200]


def test_without_a_host_every_origin_is_another(client: Connection) -> None:
    """HTTP/1.0 may leave Host out; then a request with an Origin is refused."""
    client.send(b"POST /echo HTTP/1.0\r\nOrigin: http://h\r\n\r\n")
    refused(client, 403)


@pytest.mark.parametrize("target", [b"*", b"xecho", b"echo", b"h:80", b"ftp://h/echo", b"?x"])
def test_a_target_that_is_no_path_is_404(client: Connection, target: bytes) -> None:
    """Nothing is served for it, whatever there is at a path that resembles it."""
    for method in (b"GET", b"HEAD", b"PUT"):
        client.send(method + b" " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n")
        assert client.wire.value().startswith(b"HTTP/1.1 404 Not Found\r\n")
        client.wire.clear()
    client.send(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n" + GET)
    assert client.statuses() == [405, 200]


def test_an_unread_body_does_not_break_the_next_request(client: Connection) -> None:
    """The body is skipped also when the answer did not need it: for an unknown path or method, or
    an unexpected error.
    """
    for path in (b"/nope", b"/broken", b"*"):
        sent = b"PUT " + path + b" HTTP/1.1\r\nHost: h\r\nContent-Length: 21\r\n\r\n"
        client.send(sent + b"GET /x HTTP/1.1\r\n\r\n\r\n" + GET)
    assert client.statuses() == [404, 200, 405, 200, 404, 200]


@pytest.mark.logs_failures
def test_an_unexpected_error_is_json(client: Connection) -> None:
    """The answer is never the HTML of Klein or Twisted."""
    client.send(b"GET /broken HTTP/1.1\r\nHost: h\r\n\r\n" + GET)
    assert client.statuses() == [500, 200]


def test_the_answer_to_a_refused_request_is_not_lost(client: Connection) -> None:
    """The server closes its half, reads a moment longer, then closes for good."""
    client.send(b"GET\r\n\r\n")
    assert client.wire.half_closed
    assert not client.wire.disconnecting
    client.send(b"more of the same")
    client.server.clock.advance(LINGER_S + 0.1)
    assert client.wire.aborted
    assert client.server.clock.getDelayedCalls() == []


@settings(deadline=None)
@given(st.lists(st.one_of(
    st.sampled_from([GET, POST, CHUNKED, b"\r\n", b"Host: h\r\n", b"Content-Length: 3\r\n",
                     b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\n"]),
    st.binary(max_size=30),
), max_size=8))  # fmt: skip
def test_no_bytes_break_the_server(parts: list[bytes]) -> None:
    """Whatever arrives is answered in the usual form, or waited for, but not for ever."""
    client = Server().connect()
    for part in parts:
        client.send(part)
    client.server.clock.pump([1.0] * 90)
    assert set(client.statuses()) <= {200, 400, 404, 405, 408, 413, 414, 431}
    assert client.wire.lost is None
    assert client.server.clock.getDelayedCalls() == []


# --- how long anybody may take ---------------------------------------------------------------


def test_dripping_headers_are_cut_off(client: Connection) -> None:
    """All headers have to arrive within 5 s; each further byte gives no more time."""
    client.send(b"GET /echo HTTP/1.1\r\n")
    for _ in range(9):
        client.server.clock.advance(0.5)
        client.send(b"X: y\r\n")
        assert client.open
    client.server.clock.advance(0.51)
    refused(client, 408)


@pytest.mark.parametrize("before", [b"", GET, b"GET /held HTTP/1.1\r\nHost: h\r\n\r\n"])
def test_a_pipelined_beginning_counts_too(client: Connection, before: bytes) -> None:
    """The time for the headers of a request that arrived with the one before begins when that one
    is answered.
    """
    client.send(before + b"GET /ec")
    for held in client.server.held:
        held.callback(answers.data("held"))
    client.server.clock.advance(LIMITS.header_timeout_s + 0.1)
    assert client.statuses()[-1] == 408
    assert not client.open


@pytest.mark.parametrize("framing", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
def test_a_dripping_body_is_cut_off(client: Connection, framing: bytes) -> None:
    """All of the body has to arrive within 10 s from the end of the headers."""
    client.server.clock.advance(4.0)
    client.send(HEAD + framing + b"\r\n\r\n1\r\n")
    client.server.clock.advance(9.9)
    assert client.open
    client.send(b"x")
    client.server.clock.advance(0.2)
    refused(client, 408)


def test_an_idle_connection_is_closed_without_a_word(client: Connection) -> None:
    """Between requests there is nothing to answer. The time begins again with each answer."""
    client.server.clock.advance(50.0)
    client.send(POST)
    client.server.clock.advance(50.0)
    assert client.open
    client.server.clock.advance(10.1)
    assert client.statuses() == [200]
    assert not client.open
    client.server.clock.advance(10.0)
    assert client.server.clock.getDelayedCalls() == []


def test_a_slow_answer_is_not_cut_off(client: Connection) -> None:
    """The time that the server takes does not count against the client."""
    client.send(b"GET /held HTTP/1.1\r\nHost: h\r\n\r\n")
    client.server.clock.advance(100.0)
    client.server.held[0].callback(answers.data("held"))
    assert client.statuses() == [200]


def test_a_client_that_does_not_read_is_dropped(client: Connection) -> None:
    """When all buffers are full the client has ``WRITE_STALLED_S``; if it reads in between the time
    begins again.
    """
    client.channel.pauseProducing()
    client.server.clock.advance(WRITE_STALLED_S - 0.1)
    client.channel.resumeProducing()
    client.server.clock.advance(WRITE_STALLED_S)
    assert client.open
    client.channel.pauseProducing()
    client.server.clock.advance(WRITE_STALLED_S + 0.1)
    assert client.wire.aborted


def numbered(first: int, last: int) -> bytes:
    """Requests with these numbers, one behind the other."""
    return b"".join(GET.replace(b"x=1", b"x=%d" % n) for n in range(first, last + 1))


def echoed(client: Connection) -> list[str]:
    """The targets that were echoed so far."""
    return [content["data"][1] for _, _, content in client.replies()]


def test_nothing_is_begun_for_a_client_that_does_not_read(client: Connection) -> None:
    """Its requests wait, as their answers would fill the memory. When it reads again they are
    answered in order.
    """
    client.channel.pauseProducing()
    client.send(numbered(1, 3) + numbered(4, 4)[:9])
    assert client.wire.producerState == "paused"
    client.server.clock.advance(LIMITS.header_timeout_s + 1.0)
    assert client.replies() == []
    assert not client.channel.is_idle
    client.channel.resumeProducing()
    assert client.wire.producerState == "producing"
    assert echoed(client) == [f"/echo?x={n}" for n in (1, 2, 3)]
    client.send(numbered(4, 4)[9:])
    assert echoed(client)[-1] == "/echo?x=4"
    assert client.channel.is_idle


def test_pipelined_requests_leave_others_their_turn(client: Connection) -> None:
    """Only ``PIPELINED_MAX`` are begun in one turn of the reactor. While others wait the connection
    stays open.
    """
    client.send(numbered(1, 2 * PIPELINED_MAX + 1) + numbered(2, 2)[:9])
    client.end()
    assert len(echoed(client)) == PIPELINED_MAX
    assert client.open
    client.server.clock.advance(0.0)
    assert echoed(client) == [f"/echo?x={n}" for n in range(1, 2 * PIPELINED_MAX + 2)]
    assert client.wire.lost is None
    assert client.server.clock.getDelayedCalls() == []


def test_a_turn_does_not_begin_what_nobody_reads(client: Connection) -> None:
    """If the client stops reading while requests wait for the next turn, they go on waiting."""
    client.send(numbered(1, PIPELINED_MAX + 1))
    client.channel.pauseProducing()
    client.server.clock.advance(0.0)
    assert len(echoed(client)) == PIPELINED_MAX
    client.channel.resumeProducing()
    assert len(echoed(client)) == PIPELINED_MAX + 1


def test_an_answer_that_fills_the_buffers_holds_up_those_behind_it() -> None:
    """The transport pauses in the middle of writing an answer: the next request is begun only when
    it resumes.
    """
    client = Server().connect()
    write = client.wire.write

    def full(data: bytes) -> None:
        write(data)
        client.channel.pauseProducing()

    client.wire.write = full  # type: ignore[method-assign]
    client.send(numbered(1, 3))
    for count in (1, 2, 3):
        assert len(echoed(client)) == count
        client.channel.resumeProducing()
    assert echoed(client) == [f"/echo?x={n}" for n in (1, 2, 3)]


def test_what_came_before_a_pause_is_answered_before_what_came_in_it(client: Connection) -> None:
    """Requests wait behind a slow one; some arrived before the pause, and some during it."""
    client.send(b"GET /held HTTP/1.1\r\nHost: h\r\n\r\n" + numbered(1, 2)[:-5])
    client.channel.pauseProducing()
    assert client.wire.producerState == "paused"
    client.send(numbered(2, 2)[-5:] + numbered(3, 3))
    client.server.held[0].callback(answers.data(["", "held"]))
    assert echoed(client) == ["held"]
    client.channel.resumeProducing()
    assert echoed(client) == ["held", *(f"/echo?x={n}" for n in (1, 2, 3))]


def test_reading_goes_on_behind_a_request_that_takes_its_time(client: Connection) -> None:
    """After a pause the connection is read again although a request is under way, so that a
    subscriber of the feed is noticed when it leaves.
    """
    client.send(b"GET /held HTTP/1.1\r\nHost: h\r\n\r\n")
    client.channel.pauseProducing()
    assert client.wire.producerState == "paused"
    client.channel.resumeProducing()
    assert client.wire.producerState == "producing"


def test_who_half_closes_and_reads_late_gets_all_answers(client: Connection) -> None:
    """Requests that arrived whole are answered when the client reads; only then is the connection
    closed.
    """
    client.channel.pauseProducing()
    client.send(numbered(1, 2))
    client.end()
    assert client.open
    client.channel.resumeProducing()
    assert echoed(client) == ["/echo?x=1", "/echo?x=2"]
    assert client.wire.lost is None


def test_a_path_is_utf8_in_each_of_its_segments(client: Connection) -> None:
    """Two halves of a character, one on each side of a slash, are not valid."""
    client.send(b"GET /echo/%C2/%A9 HTTP/1.1\r\nHost: h\r\n\r\n")
    assert client.statuses() == [400]


# --- a client that has sent all it wants ------------------------------------------------------

HELD = b"GET /held HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize("before", [b"", GET, POST + GET])
@pytest.mark.parametrize("cut", [b"", b"\r\n", GET[:9], GET[:-2], POST[:-1], CHUNKED[:-3]])
def test_who_half_closes_with_nothing_under_way_is_let_go(before: bytes, cut: bytes) -> None:
    """The connection is closed at once; a request that did not arrive whole is dropped without an
    answer.
    """
    client = Server().connect()
    client.send(before + cut)
    client.end()
    assert client.statuses() == [200] * before.count(b"HTTP")
    assert client.wire.lost is None
    assert client.server.clock.getDelayedCalls() == []


@pytest.mark.parametrize("cut", [b"", GET[:-2], POST[:-1]])
def test_what_came_whole_before_a_half_close_is_answered(cut: bytes) -> None:
    """All is answered in order, however long it takes; then the connection is closed."""
    client = Server().connect()
    client.send(HELD + GET + POST + HELD + GET + cut)
    client.end()
    client.server.clock.advance(100.0)
    client.server.held[0].callback(answers.data("held"))
    assert client.statuses() == [200] * 3
    assert client.open
    client.server.held[1].callback(answers.data("held"))
    assert client.statuses() == [200] * 5
    assert client.wire.lost is None
    assert not client.wire.aborted
    assert client.server.clock.getDelayedCalls() == []


def test_what_is_malformed_before_a_half_close_is_refused() -> None:
    """The refusal is the last answer, as usual."""
    client = Server().connect()
    client.send(HELD + b"GET\r\n\r\n" + GET)
    client.end()
    client.server.held[0].callback(answers.data("held"))
    assert client.statuses() == [200, 400]
    assert client.wire.lost is None
    assert client.server.clock.getDelayedCalls() == []


def test_who_closes_in_turn_is_waited_for_no_longer(client: Connection) -> None:
    """After a refusal the connection ends as soon as the client has closed its half, too."""
    client.send(b"GET\r\n\r\n")
    client.end()
    assert client.wire.lost is None
    assert client.server.clock.getDelayedCalls() == []


def test_draining_answers_who_has_half_closed() -> None:
    """Draining waits only for the answer, since the client can send nothing more."""
    server = Server()
    client = server.connect()
    client.send(HELD)
    client.end()
    done: list[None] = []
    server.site.drain().addCallback(done.append)
    server.held[0].callback(answers.data("held"))
    ((code, headers, _),) = client.replies()
    assert (code, headers[b"Connection"]) == (200, b"close")
    assert done == [None]
    assert server.site.given_up == 0
    assert server.clock.getDelayedCalls() == []


def test_who_half_closes_and_does_not_read_is_dropped(client: Connection) -> None:
    """The connection waits until its last answers were read, but not longer than
    ``WRITE_STALLED_S``.
    """
    gone, client.wire.lost = client.wire.lost, lambda _: None
    client.end()
    assert client.wire.disconnecting
    client.wire.lost = gone
    client.server.clock.advance(WRITE_STALLED_S + 0.1)
    assert client.wire.aborted
    assert client.server.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("polled", [True, False])
async def test_a_socket_that_is_shut_for_writing_is_read_from(polled: bool) -> None:
    """On real sockets, which the reactor or a poll reads, a client that shuts its writing side
    down, as ``nc`` does, gets its answers.
    """
    real: Any = reactor
    server = Server()
    port = real.listenTCP(0, server.site, interface="127.0.0.1")
    if polled:
        Poll(reactor).serve(port)

    def talk(sent: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port.getHost().port), 5) as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            told = b""
            while more := client.recv(9999):
                told += more
            return told

    for sent, answered in ((GET, 1), (POST + GET, 2), (GET + POST[:-1], 1), (b"", 0)):
        told = await deferToThread(talk, sent)
        assert [status for status, _, _ in parse(told)] == [200] * answered
    talking = deferToThread(talk, HELD + GET)
    while not (server.held and all(channel._has_ended for channel in server.site.channels)):
        await task.deferLater(real, 0.001)
    server.held[0].callback(answers.data("held"))
    assert [status for status, _, _ in parse(await talking)] == [200, 200]
    await port.stopListening()


# --- how many, and the end -------------------------------------------------------------------


def test_connections_are_bounded() -> None:
    """A connection beyond the limit is refused; when one ends there is room for another."""
    server = Server()
    clients = [server.connect() for _ in range(3)]
    assert server.site.buildProtocol(None) is None
    clients[0].wire.loseConnection()
    assert server.site.buildProtocol(None) is not None


def test_draining_answers_what_has_come_and_closes() -> None:
    """A request that is under way, arriving, or sent a moment later is answered, as the last one of
    its connection.
    """
    server = Server(replace(LIMITS, connections_max=5))
    idle, busy, arriving, beginning, late = (server.connect() for _ in range(5))
    idle.send(GET)
    beginning.send(GET[:9])
    busy.send(b"GET /held HTTP/1.1\r\nHost: h\r\n\r\n" + GET)
    arriving.send(POST[:-2])
    done: list[None] = []
    server.site.drain().addCallback(done.append)
    late.send(GET)
    arriving.send(POST[-2:])
    server.clock.advance(QUIET_S)
    assert not idle.open
    assert not idle.wire.aborted
    assert idle.statuses() == [200]
    beginning.send(GET[9:])
    server.held[0].callback(answers.data("held"))
    for client in (busy, arriving, beginning, late):
        ((code, headers, _),) = client.replies()
        assert (code, headers[b"Connection"]) == (200, b"close")
        assert not client.open
    assert done == []
    for client in (idle, busy, arriving):
        client.wire.loseConnection()
    assert done == []
    server.clock.advance(PART_S)
    assert done == [None]
    assert server.site.given_up == 0
    assert server.site.buildProtocol(None) is None
    assert server.clock.getDelayedCalls() == []


def test_draining_ends_in_time() -> None:
    """Each request has its whole budget. What is not answered by then is given up and counted."""
    server = Server()
    client = server.connect()
    client.send(b"GET /held HTTP/1.1\r\nHost: h\r\n\r\n")
    done: list[None] = []
    server.site.drain().addCallback(done.append)
    server.clock.advance(QUIET_S + LIMITS.request_budget_s)
    assert done == []
    server.clock.advance(PART_S)
    assert done == [None]
    assert client.wire.aborted
    assert server.site.given_up == 1


def test_what_comes_behind_the_last_answer_destroys_nothing() -> None:
    """A pipelined request after the last answer is read and dropped. If the connection were closed
    instead, it would be reset, and the answer might be lost on its way.
    """
    server = Server()
    client = server.connect()
    client.send(b"GET /held HTTP/1.1\r\nHost: h\r\n\r\n")
    server.site.drain()
    server.held[0].callback(answers.data("held"))
    assert client.wire.half_closed
    client.channel.dataReceived(GET)
    assert client.statuses() == [200]
    assert not client.wire.aborted
    client.wire.loseConnection()
    assert server.clock.getDelayedCalls() == []


def test_draining_nothing_is_done_at_once() -> None:
    """Without connections there is nothing to wait for."""
    server = Server()
    done: list[None] = []
    server.site.drain().addCallback(done.append)
    assert done == [None]
    assert server.clock.getDelayedCalls() == []
