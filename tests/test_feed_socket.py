"""The feed over real connections on this machine: bytes arrive whole, and buffers stay small."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone

from tests.feed_fixture import FrontEnd, unchunked
from tests.sse import Reader
from twstock.web.http.poll import Poll

TRADES = 20_000
PIECES_BYTES = 2 * 70_000
"""More than the last two pieces that are read."""


class Served:
    """A feed that listens."""

    def __init__(self) -> None:
        clock: Any = reactor
        self.front = FrontEnd(clock=clock, feed_unsent_bytes_max=64 * 1024)
        self.port = clock.listenTCP(0, self.front.site, interface="127.0.0.1")
        Poll(clock).serve(self.port)
        self.address = ("127.0.0.1", self.port.getHost().port)
        self.url = f"http://127.0.0.1:{self.address[1]}/events"

    def socket(self, last_event_id: str = "", buffer_bytes: int = 4096) -> socket.socket:
        """A connection that asks for events, with a small buffer of its own."""
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        made.settimeout(20)
        made.connect(self.address)
        last = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else ""
        made.sendall(f"GET /events HTTP/1.1\r\nHost: h\r\n{last}\r\n".encode())
        return made


@pytest.fixture
def served() -> Iterator[Served]:
    """Listens while the test runs."""
    made = Served()
    yield made
    pytest_twisted.blockon(made.port.stopListening())
    made.front.feed.stop()
    pytest_twisted.blockon(made.front.site.drain())


async def until(condition: Any) -> None:
    """Let the reactor work until a condition holds."""
    for _ in range(2000):
        if condition():
            return
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    raise AssertionError("it did not come to pass")


def row(number: int) -> bytes:
    """How the row of a trade begins."""
    return b'"order_num":%d,' % number


def read_slowly(connection: socket.socket, last: bytes, raw: bytearray | None = None) -> Reader:
    """Read in odd pieces until something has come, or the end; ``raw`` has what came so far."""
    raw = bytearray() if raw is None else raw
    size = 1
    while last not in raw[-PIECES_BYTES:]:
        size = size % 65_521 + 4_099
        data = connection.recv(size)
        if not data:
            break
        raw += data
    reader = Reader()
    reader.feed(unchunked(_whole_chunks(bytes(raw).partition(b"\r\n\r\n")[2]))[0])
    return reader


def _whole_chunks(raw: bytes) -> bytes:
    """Without the last chunk, if it has not come whole."""
    position = 0
    while (end := raw.find(b"\r\n", position)) >= 0:
        following = end + 2 + int(raw[position:end], 16) + 2
        if following > len(raw):
            break
        position = following
    return raw[:position]


@pytest_twisted.ensureDeferred
async def test_a_long_replay_comes_whole_through_small_buffers(served: Served) -> None:
    """However little the kernel takes at once, nothing is lost, doubled or out of sequence."""
    served.front.market.trade("AAPL", TRADES)
    connection = served.socket("0.0.1.1")
    reader = await deferToThread(read_slowly, connection, row(TRADES))
    connection.close()
    numbers = reader.numbers()
    assert numbers == list(range(1, len(numbers) + 1))
    assert TRADES - len(numbers) <= 1000, "all but the chunk that was under way"
    assert served.front.feed.counters.dropped == 0


@pytest_twisted.ensureDeferred
async def test_who_does_not_read_is_dropped_and_the_others_go_on(served: Served) -> None:
    """Its connection is reset when the buffers of both kernels and the limit are full."""
    front = served.front
    lazy = served.socket()
    busy = served.socket(buffer_bytes=1024 * 1024)
    await until(lambda: front.feed.counters.opened == 2)
    await deferLater(reactor, 0.05)  # type: ignore[arg-type]
    raw, trades = bytearray(), front.market.trades
    reading = deferToThread(read_slowly, busy, b"event: changes", raw)
    while not front.feed.counters.dropped:
        assert len(trades) < TRADES * 5
        front.market.trade("AAPL", 2000)
        # Who reads gets the time for it, on any machine.
        await until(lambda: front.feed.counters.dropped or row(len(trades)) in raw[-PIECES_BYTES:])
    front.market.change("AAPL")
    numbers = (await reading).numbers()
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    busy.close()
    with pytest.raises(ConnectionResetError):
        await deferToThread(lambda: [None for _ in iter(lambda: lazy.recv(65536), b"")])
    lazy.close()
    await until(lambda: not front.feed.counters.subscribers)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("before", [b"", b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n"])
async def test_who_closes_its_half_of_a_feed_is_let_go(served: Served, before: bytes) -> None:
    """It cannot be told from a client that is gone, and such a client must not keep its place."""
    feed = served.front.feed
    connection = served.socket()
    await until(lambda: feed.counters.subscribers)
    connection.sendall(before)
    connection.shutdown(socket.SHUT_WR)
    await until(lambda: not feed.counters.subscribers)
    raw = await deferToThread(lambda: b"".join(iter(lambda: connection.recv(9999), b"")))
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
    connection.close()
    await until(lambda: not served.front.site.channels)
    assert feed.counters.dropped == 0


@pytest_twisted.ensureDeferred
async def test_a_feed_that_is_asked_for_together_with_the_end_is_let_go(served: Served) -> None:
    """Request and half-close come in one turn of the reactor, when the stream has hardly begun."""
    with socket.create_connection(served.address, 5) as connection:
        connection.sendall(b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        await until(lambda: served.front.feed.counters.opened)
        await until(lambda: not served.front.site.channels)
    assert not served.front.feed.counters.subscribers


class Body(Protocol):
    """Reads events from a body as it comes."""

    def __init__(self) -> None:
        self.reader = Reader()
        self.over: Deferred[Any] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """Some more bytes."""
        self.reader.feed(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The end."""
        self.over.callback(reason.type)


@pytest_twisted.ensureDeferred
async def test_an_http_client_reads_events_until_the_front_end_stops(served: Served) -> None:
    """Then the body ends in order; the client does not see it as cut off."""
    pool = HTTPConnectionPool(reactor, persistent=False)
    client = HTTPClient(Agent(reactor, pool=pool))
    response = await client.get(served.url, unbuffered=True)
    assert response.headers.getRawHeaders("Content-Type") == ["text/event-stream"]
    body = Body()
    response.original.deliverBody(body)
    served.front.market.trade("AAPL")
    served.front.market.change("AAPL")
    await until(lambda: body.reader.numbers() and body.reader.change_numbers())
    served.front.feed.stop()
    assert await body.over is ResponseDone
    assert body.reader.numbers() == [1]
    assert body.reader.stocks()["AAPL"]["version"] == 2
