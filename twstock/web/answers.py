"""How results and errors become HTTP answers: the only table of the kind.

Errors are ``{"error": {"code", "message"}}``. ``error.outcome`` tells a client whether its order
may have taken effect: ``none``, or ``unknown`` (ask again with the same key).
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import quote

from twstock import errors
from twstock.market import (
    ORDER_NOT_FOUND,
    STOCK_NOT_FOUND,
    ChangeKind,
    Stock,
    StockChange,
    Trade,
    decimal_price,
    refusal_of_words,
)
from twstock.rpc.calls import Changed, Changes, Orders, Placement, PlaceOrder, Stocks

Header = tuple[bytes, bytes]
_encode = json.JSONEncoder(separators=(",", ":")).encode
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}

HEADERS_MAX = 64
"""How many header fields a request may have."""
JSON = b"application/json"
REVALIDATED = b"no-cache"
"""May be stored, but only used once the server has confirmed that it is still current."""
RETRY: tuple[Header, ...] = ((b"Retry-After", b"1"),)
CLOSE: Header = (b"Connection", b"close")
HIT: tuple[Header, ...] = ((b"X-Cache", b"hit"),)
MISS: tuple[Header, ...] = ((b"X-Cache", b"miss"),)
ETAG = b"ETag"
REPLAYED: tuple[Header, ...] = ((b"Idempotency-Replayed", b"true"),)


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; ``media_type`` and ``caching`` are the values of Content-Type and
    Cache-Control.
    """

    status: int
    body: bytes
    headers: tuple[Header, ...] = ()
    media_type: bytes = JSON
    caching: bytes = b"no-store"

    @property
    def reason(self) -> bytes:
        """The reason phrase of the status line."""
        return _REASONS[self.status]

    @property
    def is_plain(self) -> bool:
        """Whether it has just the usual header fields, with their usual values."""
        return not self.headers and self.media_type is JSON and self.caching == b"no-store"

    def etag(self) -> bytes:
        """The entity tag of the body; empty if it has none."""
        return next((value for name, value in self.headers if name == ETAG), b"")

    def not_modified(self) -> "Answer":
        """The same, for a client that has the body already (RFC 9110 section 15.4.5)."""
        return replace(self, status=304, body=b"")

    def fields(self) -> tuple[Header, ...]:
        """All header fields that belong to the answer, in the sequence in which they are sent."""
        if self.status == 304:  # it has no body that the other fields could describe
            return ((b"Cache-Control", self.caching), *self.headers)
        return (
            (b"Content-Type", self.media_type),
            (b"Content-Length", b"%d" % len(self.body)),
            (b"Cache-Control", self.caching),
            (b"X-Content-Type-Options", b"nosniff"),
            *self.headers,
        )

    def tail(self) -> bytes:
        """The bytes of the answer that follow status line, Date and X-Request-Id."""
        if self.is_plain:
            return _PLAIN_TAIL % (len(self.body), self.body)
        return b"".join(b"%b: %b\r\n" % field for field in self.fields()) + b"\r\n" + self.body

    def whole(self, date: bytes, request_id: bytes) -> bytes:
        """All bytes of the answer."""
        about = (self.status, self.reason, date, request_id, self.tail())
        return b"HTTP/1.1 %d %b\r\nDate: %b\r\nX-Request-Id: %b\r\n%b" % about

    def closing(self) -> "Answer":
        """The same, with notice that the connection is closed after it."""
        return replace(self, headers=(*self.headers, CLOSE))


TellAnswer = Callable[[Answer], None]
"""Called with an answer when it is there."""

_PLAIN_TAIL = (
    b"Content-Type: application/json\r\nContent-Length: %d\r\nCache-Control: no-store\r\n"
    b"X-Content-Type-Options: nosniff\r\n\r\n%b"
)
"""``Answer.tail`` of a plain answer, made in one step."""


def plain(value: object, status: int = 200, headers: tuple[Header, ...] = ()) -> Answer:
    """A value as JSON."""
    return Answer(status, _encode(value).encode("ascii"), headers)


def data(value: object, headers: tuple[Header, ...] = ()) -> Answer:
    """200 with ``{"data": value}``."""
    return plain({"data": value}, 200, headers)


class Fault(NamedTuple):
    """An error as HTTP reports it; an empty ``outcome`` is left out."""

    status: int
    message: str
    outcome: str = ""
    headers: tuple[Header, ...] = ()

    def fields(self) -> dict[str, Any]:
        """The ``error`` object, which has the same form for all errors."""
        fields: dict[str, Any] = {"code": self.status, "message": self.message}
        if self.outcome:
            fields["outcome"] = self.outcome
        return fields


def error(status: int, message: str, outcome: str = "", headers: tuple[Header, ...] = ()) -> Answer:
    """An error in the form that all have."""
    return plain({"error": Fault(status, message, outcome).fields()}, status, headers)


NO_SUCH_STOCK = error(404, STOCK_NOT_FOUND)
NO_SUCH_ORDER = error(404, ORDER_NOT_FOUND)
NO_SUCH_PATH = error(404, "no such path")
FOR_THE_CATALOG_ALONE = error(403, "caches are invalidated through the internal listener alone")
INVALIDATED = plain({"code": 200, "message": "Cache invalidated"})
MALFORMED = error(400, "malformed HTTP request")
NO_HOST = error(400, "Host: expected exactly one")
ADMINISTRATION_OFF = error(403, "administration is off: no admin token is configured")
OF_ANOTHER_ORIGIN = error(403, "a page of another origin may not trade or change stocks")
NO_ADMINISTRATOR = error(
    401, "expected the admin token", headers=((b"WWW-Authenticate", b"Bearer"),)
)
KEY_OF_ANOTHER_CHANGE = error(422, str(errors.KeyReused("change")))
NOT_UTF8 = error(400, "path: not UTF-8")
TOO_SLOW = error(408, "the request took too long to arrive")
TARGET_TOO_LONG = error(414, "the request line is too long")
HEADERS_TOO_LARGE = error(431, "the request's headers are too large")
TOO_MANY_HEADERS = error(431, f"expected at most {HEADERS_MAX} header fields")
INTERNAL = Fault(500, "internal error", "unknown")
BROKEN = error(*INTERNAL)


def body_too_large(limit: int) -> Answer:
    """The body has more bytes than the limit."""
    return error(413, f"body: expected at most {limit} bytes")


def not_allowed(methods: Iterable[str]) -> Answer:
    """The path is known, but does not take this method."""
    allowed = ", ".join(sorted(methods))
    return error(405, f"expected {allowed}", headers=((b"Allow", allowed.encode("ascii")),))


def stock_fields(stock: Stock) -> dict[str, Any]:
    """A stock as the API shows it; ``halted`` only while it is."""
    fields = {
        "name": stock.name,
        "price": decimal_price(stock.price_cents),
        "quantity": stock.quantity,
        "volume": stock.volume,
        "version": stock.version,
    }
    return fields | {"halted": True} if stock.halted else fields


def stock_found(stock: Stock, cached: tuple[Header, ...] = HIT) -> Answer:
    """A stock, from the cache or from the catalog. A client may store it, but has to revalidate
    it by its version before each use.
    """
    body = _encode({"data": stock_fields(stock)}).encode("ascii")
    return Answer(200, body, ((ETAG, b'"%d"' % stock.version), *cached), caching=REVALIDATED)


def order_fields(trade: Trade) -> dict[str, Any]:
    """An executed order as the API shows it; ``time_ms`` is wall time since 1970."""
    return {
        "order_num": trade.number,
        "name": trade.order.name,
        "type": trade.order.side,
        "quantity": trade.order.quantity,
        "price": decimal_price(trade.price_cents),
        "version": trade.version,
        "time_ms": trade.at_ms,
    }


def change_fields(change: StockChange) -> dict[str, Any]:
    """A change as the API shows it, with price and quantity if its kind has them."""
    fields: dict[str, Any] = {
        "change_number": change.number,
        "kind": change.kind,
        "name": change.name,
    }
    if change.kind in (ChangeKind.ADD, ChangeKind.PRICE):
        fields["price"] = decimal_price(change.price_cents)
    if change.kind in (ChangeKind.ADD, ChangeKind.RESTOCK):
        fields["quantity"] = change.quantity
    return fields | {"version": change.version, "timestamp_ms": change.at_ms}


def change_page(page: Changes) -> Answer:
    """A page of changes, the number to continue after, and that of the last change."""
    rows = [change_fields(change) for change in page.changes]
    return plain({"data": rows, "next": page.next or None, "last": page.last})


def changed(done: Changed, keyed: bool) -> Answer:
    """The outcome of a change; ``keyed``: under the client's own key. A refusal is 404 if there
    is no such stock, else 409: the change conflicts with what there is.
    """
    headers = REPLAYED if done.replayed and keyed else ()
    if done.stock is None:
        status = 404 if done.refusal == STOCK_NOT_FOUND else 409
        return error(status, done.refusal, headers=headers)
    result = {"change_number": done.number, "stock": stock_fields(done.stock)}
    return data(result, headers)


def stock_page(page: Stocks, limit: int) -> Answer:
    """Up to ``limit`` stocks, and the name to continue after."""
    rows = [stock_fields(stock) for stock in page.stocks]
    return _page("/stocks", rows, page.next, limit)


def order_page(page: Orders, limit: int) -> Answer:
    """Up to ``limit`` orders, and the number to continue after."""
    rows = [order_fields(trade) for trade in page.orders]
    return _page("/orders", rows, page.next, limit)


def _page(path: str, rows: list[dict[str, Any]], after: str | int, limit: int) -> Answer:
    """A page, with a link to the next one, if there is one (RFC 8288)."""
    target = f"{path}?after={quote(str(after), safe='')}&limit={limit}"
    link = ((b"Link", f'<{target}>; rel="next"'.encode("ascii")),) if after else ()
    return plain({"data": rows, "next": after or None}, 200, link)


def placement(placed: Placement, keyed: bool) -> Answer:
    """The outcome of an order; ``keyed``: under the client's own key. Under the front-end's key,
    a replay is not mentioned: the front-end has sent the order again, not the client.
    """
    headers = REPLAYED if placed.replayed and keyed else ()
    if placed.refusal:
        return error(404, placed.refusal, headers=headers)
    return Answer(200, b'{"data":{"transaction_number":%d}}' % placed.number, headers)


def refusal(order: PlaceOrder) -> Answer | None:
    """Why an order can never be executed, whatever the stocks; None if it may be placed."""
    judged = refusal_of_words(order.name, order.type, order.quantity)
    return None if judged is None else error(404, judged)


def placement_row(placed: Placement, keyed: bool) -> dict[str, Any]:
    """The row of an order of a batch that was executed or refused."""
    row: dict[str, Any] = {"status": 200, "transaction_number": placed.number}
    if placed.refusal:
        row = fault_row(Fault(404, placed.refusal))
    return row | {"replayed": True} if placed.replayed and keyed else row


def fault_row(fault: Fault) -> dict[str, Any]:
    """The row of an order of a batch that is malformed, was refused or has failed."""
    return {"status": fault.status, "error": fault.fields()}


def readiness(reasons: list[str]) -> Answer:
    """Whether the front-end can serve, and why not."""
    state = {"ready": not reasons, "reasons": reasons}
    if not reasons:
        return data(state)
    fields = {"code": 503, "message": "; ".join(reasons)}
    return plain({"data": state, "error": fields}, 503, RETRY)


def failure(problem: errors.TwstockError) -> Answer:
    """The answer for an error that was raised on purpose."""
    return error(*fault(problem))


def not_done(
    problem: errors.TwstockError, keyed: bool, doubt: str = "the order may have been executed"
) -> Fault:
    """How HTTP reports an order, or a change, that has failed. Under the client's own key an
    earlier request may have done it, so the outcome is unknown. Without one the client cannot ask
    again: if the outcome is unknown, the message says only ``doubt``.
    """
    if keyed:
        return fault(problem, "unknown")
    told = fault(problem)
    if told.outcome != "unknown":
        return told
    return told._replace(message=f"the outcome could not be learnt in time: {doubt}")


def fault(problem: errors.TwstockError, nothing: str = "none") -> Fault:
    """How HTTP reports an error that was raised on purpose.

    ``nothing`` is the outcome to report if the request itself did nothing.
    """
    match problem:
        case errors.InvalidRequest():
            return Fault(400, str(problem))
        case errors.KeyReused():
            return Fault(422, str(problem))
        case errors.Overloaded():
            return Fault(429, str(problem) or "too many requests", nothing, RETRY)
        case errors.DiskFull():
            return Fault(507, str(problem) or "disk full", nothing, RETRY)
        case errors.NotLeader() | errors.Unavailable():
            return Fault(503, str(problem) or "unavailable", nothing, RETRY)
    return Fault(503, str(problem) or "outcome unknown", "unknown", RETRY)
