"""Recognizes hot requests by their bytes alone: for a stock, for an order, or with a new order.

A client sends the same bytes again and again, and what they mean depends on nothing else. So the
meaning is kept and looked up: of a whole request if it is short, otherwise of the request line and
of the headers. What may be different each time (an id, a key, a body) is not kept.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from twstock.config import Limits
from twstock.web.http.fields import END, FETCH_SITE, ORIGIN, REQUEST_ID, read_fields
from twstock.web.http.requestids import is_good
from twstock.web.traffic import LOOKUP, ORDER, TRADE

KEPT_MAX = 4096
"""How many whole requests are kept, and how many request lines, and how many blocks of headers."""
KEPT_BYTES_MAX = 512
"""How long a request may be that is kept as a whole."""
_HEADERS_BYTES_MAX = 2048
_GET_STOCK = re.compile(rb"GET /stocks/([A-Za-z0-9._~-]{1,64}) HTTP/1\.1")
_GET_ORDER = re.compile(rb"GET /orders/([1-9][0-9]{0,17}) HTTP/1\.1")
_POST_ORDER = frozenset({b"POST /orders HTTP/1.1", b"POST /orders/ HTTP/1.1"})


class Wanted(NamedTuple):
    """What a request wants. ``what`` is the name of a stock (``route`` is LOOKUP), the number of
    an order (ORDER), or the body of a new one and the keys that came with it (TRADE).
    """

    route: str
    what: Any
    request_id: bytes = b""
    """The id that the client gave it; empty if it gave none, or one that is not valid."""


class Recognition:
    """Reads bytes that are exactly one request."""

    def __init__(self, limits: Limits) -> None:
        self._body_bytes_max = limits.body_bytes_max
        # Half, because the ordinary path counts the request line as well.
        self._headers_bytes_max = min(_HEADERS_BYTES_MAX, limits.header_bytes_max // 2)
        self._requests: dict[bytes, Wanted] = {}
        self._lines: dict[bytes, Wanted] = {}
        self._headers: dict[bytes, dict[bytes, bytes]] = {}

    def of(self, received: bytes) -> Wanted | None:
        """What a request wants; None when it is not for the lane."""
        return self._requests.get(received) or self._read(received)

    def _read(self, received: bytes) -> Wanted | None:
        end = received.find(b"\r\n")
        if end < 0:
            return None
        line, rest = received[:end], received[end + 2 :]
        wanted = self._lines.get(line) or self._learn_line(line)
        if wanted is None:
            return self._read_order(rest) if line in _POST_ORDER else None
        fields = self._fields(rest)
        if fields is None or fields.keys() & {b"content-length", b"idempotency-key"}:
            return None
        if REQUEST_ID in fields:
            return Wanted(wanted.route, wanted.what, _given(fields))
        if len(received) <= KEPT_BYTES_MAX:
            _keep(self._requests, received, wanted)
        return wanted

    def _read_order(self, rest: bytes) -> Wanted | None:
        cut = rest.find(END) + len(END)
        fields = self._fields(rest[:cut])
        length = len(rest) - cut
        if fields is None or int(fields.get(b"content-length", b"-1")) != length:
            return None
        if length > self._body_bytes_max:
            return None
        if ORIGIN in fields or FETCH_SITE in fields:
            # A web page asks: the ordinary path finds out of which origin.
            return None
        key = fields.get(b"idempotency-key")
        return Wanted(TRADE, (rest[cut:], None if key is None else [key]), _given(fields))

    def _learn_line(self, line: bytes) -> Wanted | None:
        if match := _GET_STOCK.fullmatch(line):
            wanted = Wanted(LOOKUP, match[1].decode())
        elif match := _GET_ORDER.fullmatch(line):
            wanted = Wanted(ORDER, int(match[1]))
        else:
            return None
        _keep(self._lines, line, wanted)
        return wanted

    def _fields(self, headers: bytes) -> Mapping[bytes, bytes] | None:
        """As ``read_fields``; headers without key and id are kept: they come again and again."""
        fields = self._headers.get(headers)
        if fields is None and len(headers) <= self._headers_bytes_max:
            fields = read_fields(headers)
            if fields is not None and not fields.keys() & {b"idempotency-key", REQUEST_ID}:
                _keep(self._headers, headers, fields)
        return fields


def _keep(kept: dict[bytes, Any], received: bytes, meaning: object) -> None:
    """Keep what bytes mean; if that is too many, forget all and begin anew."""
    if len(kept) >= KEPT_MAX:
        kept.clear()
    kept[received] = meaning


def _given(fields: Mapping[bytes, bytes]) -> bytes:
    given = fields.get(REQUEST_ID, b"")
    return given if is_good(given) else b""
