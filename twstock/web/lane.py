"""The fast lane: hot requests are answered before Twisted makes a request of them.

Only a complete, well-formed request of a kind that is known here (for a stock, for an order,
or with an order), alone on an idle connection, takes it. Everything else, and everything that
the lane is not sure about, goes the ordinary way (``site``, then Klein) and gets the same answer
there: the lane never refuses anything. What it takes a request for is what the ordinary way
takes it for, byte by byte, because it admits only header fields that mean nothing to either,
and one spelling of the rest.
"""

import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

from twstock import origin
from twstock.config import Limits
from twstock.market import Stock
from twstock.web.answers import CLOSE, Answer, stock_found
from twstock.web.requestids import RequestIds, is_good
from twstock.web.respond import Answering, outcome
from twstock.web.site import HOST, ApiChannel
from twstock.web.traffic import LOOKUP, ORDER, TRADE, Traffic

_GET_STOCK = re.compile(rb"GET /stocks/([A-Za-z0-9._~-]{1,64}) HTTP/1\.1")
_GET_ORDER = re.compile(rb"GET /orders/([1-9][0-9]{0,17}) HTTP/1\.1")
_POST_ORDER = frozenset({b"POST /orders HTTP/1.1", b"POST /orders/ HTTP/1.1"})
_FIELD = re.compile(rb"([A-Za-z-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)[ \t]*")
_LENGTH = re.compile(rb"[0-9]{1,6}")
_END = b"\r\n\r\n"
_FIELDS_MAX = 32
_HEADERS_BYTES_MAX = 2048
_KNOWN_MAX = 4096
_HELD_BYTES_MAX = 16 * 1024
_MEANINGLESS = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"cache-control",
        b"content-type",
        b"cookie",
        b"dnt",
        b"origin",
        b"pragma",
        b"priority",
        b"referer",
        b"sec-fetch-dest",
        b"sec-fetch-mode",
        b"sec-fetch-site",
        b"user-agent",
    }
)
"""Fields that change nothing about any answer of this API; Accept does if it names problems."""
REQUEST_ID = b"x-request-id"
_ONCE = frozenset({b"host", b"connection", b"content-length", b"idempotency-key", REQUEST_ID})
_OK = b"HTTP/1.1 200 OK\r\nDate: %b\r\nX-Request-Id: %b\r\n%b"

Reply = bytes | tuple[bytes, Deferred[Answer]]
"""An answer as it is written, or the request's id and the answer that is to come."""
Find = Callable[[Any, bytes], Reply]
"""What answers a request for something, under the id that its client gave it, if any."""


class Hot(Protocol):
    """What the API has in memory, what it asks others, and what it does with an order."""

    def hit(self, name: str) -> Stock | None:
        """A stock from the cache, counted as a hit."""

    def miss(self, name: str) -> "Deferred[Answer]":
        """The catalog's answer for a stock that has just been no ``hit``."""

    def remembered(self, number: int) -> Answer | None:
        """The answer for an order that was asked for before."""

    def find(self, number: int) -> Coroutine[Any, Any, Answer]:
        """The order service's answer for an order."""

    def place_order(self, content: bytes, keys: list[bytes] | None) -> "Answer | Deferred[Answer]":
        """The answer to an order."""


class Lane:
    """Recognizes hot requests. ``date`` gives the Date header's value, ``ids`` the id of a
    request that has none.

    Of the request that was taken last, ``counted_in`` is where it is counted if it was answered
    at once, ``route`` what it counts as if the answer is to come.
    """

    def __init__(
        self,
        api: Hot,
        date: Callable[[], bytes],
        ids: RequestIds,
        limits: Limits,
        traffic: Traffic | None = None,
    ) -> None:
        self._api = api
        self._date = date
        self._ids = ids
        self._count = ids.count
        self.traffic = traffic or Traffic()
        self.route = LOOKUP
        self._lookups, self._queries = (self.traffic.of(route, 200) for route in (LOOKUP, ORDER))
        self.counted_in = self._lookups
        # With the id's constant part in it: formatting it apart costs three times as much.
        self._ok = b"HTTP/1.1 200 OK\r\nDate: %%b\r\nX-Request-Id: %b%%d\r\n%%b" % ids.prefix
        self._body_bytes_max = limits.body_bytes_max
        # Half, because the ordinary way counts the request line as well.
        self._headers_bytes_max = min(_HEADERS_BYTES_MAX, limits.header_bytes_max // 2)
        self._lines: dict[bytes, tuple[Find, Any]] = {}
        self._plain: set[bytes] = set()
        self._orders: dict[bytes, dict[bytes, bytes]] = {}
        self._tails: dict[Any, tuple[object, bytes]] = {}

    def take(self, data: bytes) -> Reply | None:
        """The whole answer, or one that is to come; None when this is not for the lane."""
        end = data.find(b"\r\n")
        if end < 0:
            return None
        line, headers = data[:end], data[end + 2 :]
        known = self._lines.get(line) or self._learn_line(line)
        if known is not None:
            find, what = known
            if headers in self._plain:
                return find(what, b"")
            given = self._learn_headers(headers)
            return None if given is None else find(what, given)
        if line in _POST_ORDER:
            return self._place(headers)
        return None

    def whole(self, answer: Answer, request_id: bytes) -> bytes:
        """An answer as the ordinary way writes it."""
        about = (answer.status, answer.reason, self._date(), request_id, answer.tail())
        return b"HTTP/1.1 %d %b\r\nDate: %b\r\nX-Request-Id: %b\r\n%b" % about

    def _found(self, key: Any, given: bytes, source: object, answer: Callable[[], Answer]) -> bytes:
        """A 200 whose tail is kept as long as ``source`` is the same object."""
        known = self._tails.get(key)
        if known is None or known[0] is not source:
            if len(self._tails) >= _KNOWN_MAX:
                self._tails.clear()
            known = self._tails[key] = (source, answer().tail())
        if given:
            return _OK % (self._date(), given, known[1])
        return self._ok % (self._date(), self._count(), known[1])

    def _stock(self, name: str, given: bytes) -> Reply:
        stock = self._api.hit(name)
        if stock is None:
            return self._asked(LOOKUP, lambda: self._api.miss(name), given)
        self.counted_in = self._lookups
        return self._found(name, given, stock, lambda: stock_found(stock))

    def _order(self, number: int, given: bytes) -> Reply:
        answer = self._api.remembered(number)
        if answer is None:
            return self._asked(ORDER, lambda: self._api.find(number), given)
        self.counted_in = self._queries
        return self._found(number, given, answer, lambda: answer)

    def _asked(self, route: str, respond: Callable[[], Answering], given: bytes) -> Reply:
        """What the API answers, errors included, as on the ordinary way. What it asks others
        tells them the id if the client gave one.
        """
        if not given:
            request_id = self._ids.make()
            answer = outcome(respond, request_id, shield=False)
        else:
            request_id = given
            with origin.on_behalf_of((given.decode("ascii"),)):
                answer = outcome(respond, request_id, shield=False)
        if isinstance(answer, Answer):
            self.counted_in = self.traffic.of(route, answer.status)
            return self.whole(answer, request_id)
        self.route = route
        return request_id, answer

    def _place(self, rest: bytes) -> Reply | None:
        cut = rest.find(_END) + len(_END)
        fields = self._order_fields(rest[:cut])
        length = len(rest) - cut
        if fields is None or int(fields.get(b"content-length", b"-1")) != length:
            return None
        if length > self._body_bytes_max:
            return None
        key = fields.get(b"idempotency-key")
        keys = None if key is None else [key]
        return self._asked(TRADE, lambda: self._api.place_order(rest[cut:], keys), _given(fields))

    def _learn_line(self, line: bytes) -> tuple[Find, Any] | None:
        known: tuple[Find, Any]
        if match := _GET_STOCK.fullmatch(line):
            known = (self._stock, match[1].decode())
        elif match := _GET_ORDER.fullmatch(line):
            known = (self._order, int(match[1]))
        else:
            return None
        if len(self._lines) >= _KNOWN_MAX:
            self._lines.clear()
        self._lines[line] = known
        return known

    def _learn_headers(self, headers: bytes) -> bytes | None:
        """The id that these headers of a request without a body give it, if any; None if they
        are not for the lane. Those without an id come again and again, and are kept.
        """
        fields = self._read(headers)
        if fields is None or fields.keys() & {b"content-length", b"idempotency-key"}:
            return None
        if REQUEST_ID not in fields:
            if len(self._plain) >= _KNOWN_MAX:
                self._plain.clear()
            self._plain.add(headers)
        return _given(fields)

    def _order_fields(self, headers: bytes) -> dict[bytes, bytes] | None:
        """As ``_read``; those without key and id come again and again, and are kept."""
        fields = self._orders.get(headers)
        if fields is None:
            fields = self._read(headers)
            if fields is not None and not fields.keys() & {b"idempotency-key", REQUEST_ID}:
                if len(self._orders) >= _KNOWN_MAX:
                    self._orders.clear()
                self._orders[headers] = fields
        return fields

    def _read(self, headers: bytes) -> dict[bytes, bytes] | None:
        return read_fields(headers) if len(headers) <= self._headers_bytes_max else None


def _given(fields: Mapping[bytes, bytes]) -> bytes:
    """The id that the client gave its request; empty if there is none, or none that is good."""
    given = fields.get(REQUEST_ID, b"")
    return given if is_good(given) else b""


def read_fields(headers: bytes) -> dict[bytes, bytes] | None:
    """The fields that mean something, by lower-case name; None unless every line is plain.

    ``headers`` ends with an empty line and has no other.
    """
    if headers.find(_END) != len(headers) - len(_END):
        return None
    lines = headers[: -len(_END)].split(b"\r\n")
    found: dict[bytes, bytes] = {}
    if len(lines) > _FIELDS_MAX:
        return None
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            return None
        name = match[1].lower()
        if name in _ONCE and name not in found:
            found[name] = match[2]
        elif name not in _MEANINGLESS or (name == b"accept" and b"problem" in match[2].lower()):
            return None
    host, connection = found.get(b"host"), found.get(b"connection", b"keep-alive")
    length = found.get(b"content-length", b"0")
    good = host is not None and HOST.fullmatch(host) and _LENGTH.fullmatch(length)
    return found if good and connection.lower() == b"keep-alive" else None


def write_now(transport: Any, data: bytes) -> None:
    """Write; at once, if nothing waits to be written before it. ``transport.write`` alone waits
    for the reactor to find that the socket is writable, which costs two turns of epoll.
    """
    sent = 0
    # Twisted gathers what was written in this turn apart from what did not fit in the last.
    if isinstance(transport, Connection) and not (
        transport.dataBuffer or transport._tempDataBuffer or transport.disconnecting
    ):
        done = transport.writeSomeData(data)
        sent = done if isinstance(done, int) else 0  # a lost connection is found by the next write
    if sent < len(data):
        transport.write(data[sent:])


class LaneChannel(ApiChannel):
    """A connection with a fast lane.

    While an answer of the lane is to come, what arrives is held back; everything else stays
    as it is on the ordinary way, time-outs included.
    """

    _HTTPChannel__first_line: int
    _lane: Lane
    _is_waiting = False
    _request_id = b""
    _is_lost = False
    _held = b""
    _quick_at = float("-inf")
    _began = 0.0
    _route = LOOKUP

    def __init__(self, limits: Limits, lane: Lane) -> None:
        super().__init__(limits)
        self._lane = lane

    def dataReceived(self, data: bytes) -> None:
        """Take bytes in, by the lane if it can have them."""
        if self._is_waiting:
            self._held += data
            if len(self._held) > _HELD_BYTES_MAX:
                self.transport.pauseProducing()
            return
        lane, seconds = self._lane, self.site.clock.seconds
        began = seconds()
        answer = lane.take(data) if self._is_idle() else None
        if answer is None:
            super().dataReceived(data)
        elif isinstance(answer, bytes):
            write_now(self.transport, answer)
            self._quick_at = now = seconds()
            lane.counted_in.observe(now - began)
        else:
            self._is_waiting = True
            self._began, self._route = began, lane.route
            self._request_id, coming = answer
            coming.addCallback(self._answered)

    def _is_idle(self) -> bool:
        """Whether a request that comes now is the only one, and all of the connection's state
        is that between two requests.
        """
        return not (
            self.requests
            or self._buffer
            or self._arriving
            or self._refused
            or self._waitingForTransport
            or self.site.draining
            or self.transport.disconnecting
            or not self.line_mode
            # Twisted forgives one empty line before a request, and counts.
            or self._HTTPChannel__first_line != 1
            or not self.persistent
        )

    def _answered(self, answer: Answer) -> None:
        self._is_waiting = False
        if self._is_lost:
            return
        self._quick_at = now = self.site.clock.seconds()
        self._lane.traffic.of(self._route, answer.status).observe(now - self._began)
        if not self.persistent:
            last = replace(answer, headers=(*answer.headers, CLOSE))
            self.transport.write(self._lane.whole(last, self._request_id))
            self.loseConnection()
            return
        write_now(self.transport, self._lane.whole(answer, self._request_id))
        held, self._held = self._held, b""
        if held:
            if not self._waitingForTransport:
                self.transport.resumeProducing()
            self.dataReceived(held)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """An order that is under way goes on without its client."""
        self._is_lost = True
        super().connectionLost(reason)

    def timeoutConnection(self) -> None:
        """The lane does not move the timer with each request: it looks when it has run out."""
        idle_s, now = self._limits.idle_timeout_s, self.site.clock.seconds()
        if self._is_waiting:
            self.setTimeout(idle_s)
        elif not self._arriving and now < self._quick_at + idle_s:
            self.setTimeout(self._quick_at + idle_s - now)
        else:
            super().timeoutConnection()

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way or has begun to come."""
        return not self._is_waiting and super().is_idle

    @property
    def is_asked(self) -> bool:
        """Whether a request has come whole and is not answered."""
        return self._is_waiting or super().is_asked

    def drain(self) -> None:
        """Answer what is under way, and close."""
        if self._is_waiting:
            self.persistent = False
        else:
            super().drain()
