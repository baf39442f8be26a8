"""A front-end's feed on a fake clock, over a fake market, with clients on fake connections."""

import json
import zlib
from random import Random
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.sse import Reader
from twstock.config import Limits
from twstock.errors import Unavailable
from twstock.market import ChangeKind, Order, Side, Stock, StockChange, Trade
from twstock.rpc.calls import Orders, Page
from twstock.web.feed.feed import Feed
from twstock.web.feed.sources import Leaders, Sources
from twstock.web.http.routes import mount
from twstock.web.http.site import ApiSite
from twstock.web.upstream.leader import Leader

NAMES = ("AAPL", "GOOGL", "a,b&c=ü +%")


class Changes(NamedTuple):
    """A page of changes."""

    changes: tuple[StockChange, ...]
    last: int


class Watch:
    """Knows a leader, which the test can change."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.leader: Leader | None = Leader(1, 3)
        self._subscribers: list[Any] = []

    def subscribe(self, changed: Any) -> None:
        """As ``LeaderWatch``."""
        self._subscribers.append(changed)

    def lead(self, leader: Leader | None) -> None:
        """Change the leader, and tell the subscribers."""
        self.leader = leader
        for changed in self._subscribers:
            changed()


class Market:
    """Both services in memory. ``down`` names the services that raise Unavailable; with ``held``
    set to a list, pages of orders wait in it until the test fires them. After ``hide`` lookups do
    not show what is new, until ``publish``.
    """

    def __init__(self, names: tuple[str, ...] = NAMES) -> None:
        self.trades: list[Trade] = []
        self.changed: list[StockChange] = []
        self.stocks = {name: Stock(name, 1000, 10**6) for name in names}
        self.down: set[str] = set()
        self.held: list[Deferred[None]] | None = None
        self.pages: list[Page] = []
        self.looked_up: list[tuple[str, ...]] = []
        self.shown: dict[str, Stock] | None = None
        self.waiting: list[Deferred[None]] = []

    def trade(self, name: str = "AAPL", count: int = 1) -> None:
        """Execute trades."""
        for _ in range(count):
            old = self.stocks[name]
            new = old._replace(quantity=old.quantity - 1, version=old.version + 1)
            self.stocks[name] = new
            number = len(self.trades) + 1
            order = Order(f"key-{number}", name, Side.BUY, 1)
            self.trades.append(Trade(number, order, new.version, new.price_cents, 5))

    def change(self, name: str = "AAPL", kind: str = "restock") -> None:
        """Change a stock."""
        old = self.stocks[name]
        new = old._replace(quantity=old.quantity + 5, version=old.version + 1)
        self.stocks[name] = new
        number = len(self.changed) + 1
        self.changed.append(
            StockChange(number, ChangeKind(kind), name, new.price_cents, 5, new.version, 6)
        )

    def hide(self) -> None:
        """From now on lookups show the present state, whatever follows."""
        self.shown = dict(self.stocks)

    def publish(self) -> None:
        """From now on lookups show everything."""
        self.shown = None
        waiting, self.waiting = self.waiting, []
        for published in waiting:
            published.callback(None)

    def _check(self, what: str) -> None:
        if what in self.down:
            raise Unavailable(f"{what} is away")

    async def last_number(self) -> int:
        """As the order service."""
        self._check("orders")
        return len(self.trades)

    async def order(self, number: int) -> Trade | None:
        """As the order service."""
        self._check("orders")
        return self.trades[number - 1] if number <= len(self.trades) else None

    async def committed(self, page: Page) -> Orders:
        """As the order service."""
        self.pages.append(page)
        if self.held is not None:
            self.held.append(Deferred())
            await self.held[-1]
        self._check("orders")
        assert 1 <= page.limit <= 1000
        rows = tuple(self.trades[page.after : page.after + page.limit])
        more = rows and rows[-1].number < len(self.trades)
        return Orders(rows, rows[-1].number if more else 0)

    async def lookup_many(self, names: tuple[str, ...]) -> list[Stock | None]:
        """As the catalog."""
        self.looked_up.append(tuple(names))
        self._check("catalog")
        return [(self.shown or self.stocks).get(name) for name in names]

    async def everything_published(self) -> None:
        """As the catalog."""
        self._check("catalog")
        if self.shown is not None and self.shown != self.stocks:
            self.waiting.append(Deferred())
            await self.waiting[-1]

    async def list_changes(self, page: Page) -> Changes:
        """As the catalog."""
        self._check("catalog")
        shown = self.shown or self.stocks
        hidden = (c.number for c in self.changed if shown[c.name].version < c.version)
        last = next(hidden, len(self.changed) + 1) - 1
        return Changes(tuple(self.changed[page.after : last][: page.limit]), last)


class Wire(StringTransport):
    """A connection. While ``full``, everything that is written waits; ``drain`` sends it."""

    HOLDS_BYTES = 65536

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.waiting = b""
        self.aborted = False
        self.open = True
        self.lost: Any = None

    def write(self, data: bytes) -> None:
        """Like a transport with a small buffer."""
        if not self.full:
            super().write(data)
            return
        self.waiting += data
        if self.producer is not None and len(self.waiting) > self.HOLDS_BYTES:
            self.producer.pauseProducing()

    def drain(self) -> None:
        """The client reads all there is."""
        self.full = False
        waiting, self.waiting = self.waiting, b""
        super().write(waiting)
        if self.producer is not None:
            self.producer.resumeProducing()

    def loseConnection(self) -> None:
        """Close the connection; everything has been written."""
        super().loseConnection()
        self.gone()

    def abortConnection(self) -> None:
        """Close the connection at once."""
        self.aborted = True
        super().abortConnection()
        self.gone()

    def gone(self) -> None:
        """Tell the server that the connection is lost."""
        if self.open:
            self.open = False
            self.lost(Failure(ConnectionDone()))


class Client:
    """One connection to the feed, and what came over it."""

    def __init__(self, front: "FrontEnd", query: str, last_event_id: str, version: str) -> None:
        channel = front.site.buildProtocol(None)
        assert channel is not None
        self.channel = channel
        self.wire = Wire()
        self.wire.lost = channel.connectionLost
        channel.makeConnection(self.wire)
        self.reader = Reader(last_event_id)
        head = f"GET /events{query} HTTP/{version}\r\nHost: h\r\n"
        if front.coding:
            head += f"Accept-Encoding: {front.coding}\r\n"
        if last_event_id:
            head += f"Last-Event-ID: {last_event_id}\r\n"
        channel.dataReceived(f"{head}\r\n".encode())

    @property
    def head(self) -> bytes:
        """Status line and header fields of the answer, empty before they come."""
        return self.wire.value().partition(b"\r\n\r\n")[0]

    def body(self) -> bytes:
        """The body so far, out of its chunks, and unpacked if it is packed."""
        raw = self.wire.value().partition(b"\r\n\r\n")[2]
        body = unchunked(raw)[0] if b"chunked" in self.head else raw
        return unpacked(body) if b"Content-Encoding: gzip" in self.head else body

    def read(self) -> Reader:
        """Everything that came, as a client reads it."""
        reader = Reader(self.reader.last_event_id)
        reader.feed(self.body())
        return reader

    def close(self) -> None:
        """The client goes away."""
        self.wire.gone()


def unchunked(raw: bytes) -> tuple[bytes, bytes | None]:
    """The content of chunks, and what follows the last one, None before it has come."""
    content = b""
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            assert raw.startswith(b"\r\n")
            return content, raw[2:]
        content += raw[:length]
        assert raw[length : length + 2] == b"\r\n"
        raw = raw[length + 2 :]
    return content, None


def unpacked(raw: bytes) -> bytes:
    """The content of a gzip stream, as far as it has come."""
    return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(raw)


class FrontEnd:
    """A feed behind a site. Several can share a market and a clock. ``coding`` is the
    Accept-Encoding of its clients.
    """

    def __init__(
        self,
        market: Market | None = None,
        clock: Clock | None = None,
        coding: str = "",
        **limits: Any,
    ) -> None:
        self.coding = coding
        self.clock = clock or Clock()
        self.market = market or Market()
        self.limits = Limits(**limits)
        self.orders, self.catalog = Watch("order"), Watch("catalog")
        sources = Sources(self.market, self.market, self.market, self.limits)
        leaders = Leaders((self.orders, self.catalog))
        self.feed = Feed(sources, leaders, self.clock, self.limits, Random(1))
        app = mount(self.feed.routes())
        self.site = ApiSite(app.resource(), self.clock, self.limits, 1024)

    def connect(self, query: str = "", last_event_id: str = "", version: str = "1.1") -> Client:
        """A client asks for events."""
        client = Client(self, query, last_event_id, version)
        self.clock.advance(0)
        return client

    def advance(self, seconds: float = 0.3, step: float = 0.01) -> None:
        """Let time pass in small steps."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)


def error_of(client: Client) -> tuple[int, str]:
    """Status and message of a refusal."""
    head, _, content = client.wire.value().partition(b"\r\n\r\n")
    error = json.loads(content)["error"]
    assert int(head.split(b" ")[1]) == error["code"]
    return error["code"], error["message"]
