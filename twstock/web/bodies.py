"""Parses requests, strictly: bodies of orders and of changes, keys, numbers, names, pages.

Whatever is wrong with a request raises ``InvalidRequest``, whose message names the field.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

from twstock.errors import InvalidRequest
from twstock.market import (
    KEY_CHARS_MAX,
    NAME_CHARS_MAX,
    NAME_RULE,
    QUANTITY_MAX,
    ChangeKind,
    ChangeRequest,
    cents_of,
    is_stock_name,
)
from twstock.rpc.calls import Page, PlaceOrder, StockPage

PAGE_DEFAULT = 100
BATCH_ORDERS_MAX = 1000
"""How many orders a client may send in one request."""
NUMBER_MAX = 2**63 - 1
"""The largest transaction number that the wire can carry (int64)."""
_DIGITS_MAX = 18
_FIELD_SHOWN_MAX = 64
_REMEMBERED_BYTES_MAX = 256
_NUMBER = re.compile(r"[1-9][0-9]{0,18}")
_COUNT = re.compile(rb"[0-9]+")
_KEY_EXPECTED = f"expected one of 1 to {KEY_CHARS_MAX} visible ASCII characters"
_KEY = re.compile(rb"[\x21-\x7e]{1,%d}" % KEY_CHARS_MAX)


class _NoNumber:
    """Stands for NaN and the infinities, which Python's parser accepts and JSON does not have."""


@dataclass(frozen=True, slots=True)
class _Spelled:
    """A number with a fraction or an exponent, as it was written: a float would round it."""

    digits: str


def _integer(digits: str) -> int:
    """An integer literal. If it is too long for any field, this returns a value that no field
    admits either, because Python refuses to convert thousands of digits.
    """
    if len(digits) <= _DIGITS_MAX:
        return int(digits)
    return -QUANTITY_MAX - 1 if digits[0] == "-" else QUANTITY_MAX + 1


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names are all different (RFC 8259 section 4 only recommends it)."""
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidRequest(_shown(name), "appears twice")
            seen.add(name)
    for name, value in pairs:
        if _contains_no_number(value):
            raise InvalidRequest(_shown(name), "NaN and Infinity are not JSON")
    return members


def _contains_no_number(value: object) -> bool:
    if isinstance(value, list):
        return any(_contains_no_number(item) for item in value)
    return isinstance(value, _NoNumber)


def _shown(field: str) -> str:
    return field[:_FIELD_SHOWN_MAX]


_decode = json.JSONDecoder(
    object_pairs_hook=_members,
    parse_int=_integer,
    parse_float=_Spelled,
    parse_constant=lambda _: _NoNumber(),
).decode


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body holds; raises InvalidRequest naming ``body`` or the field."""
    try:
        value = _decode(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidRequest("body", "not UTF-8") from None
    except RecursionError:
        raise InvalidRequest("body", "nested too deeply") from None
    except ValueError as error:
        raise InvalidRequest("body", f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequest("body", "expected a JSON object")
    return value


def parse_order(body: bytes, key: str) -> PlaceOrder:
    """The order in a POST body; its types are checked, but not whether it makes sense."""
    terms = _remembered_terms(body) if len(body) <= _REMEMBERED_BYTES_MAX else _terms(body)
    return PlaceOrder(key, *terms)


def parse_batch(body: bytes) -> Sequence[object]:
    """The orders of a batch, each to be read by ``parse_order_of_batch``."""
    orders = _member(parse_object(body), "orders")
    if not isinstance(orders, list) or not 1 <= len(orders) <= BATCH_ORDERS_MAX:
        raise InvalidRequest("orders", f"expected a list of 1 to {BATCH_ORDERS_MAX} orders")
    return orders


def parse_order_of_batch(fields: object, position: int) -> PlaceOrder:
    """One order of a batch, whose ``key`` is empty if it came without one. Errors name its
    position, counted from 0.
    """
    where = f"orders[{position}]"
    if not isinstance(fields, dict):
        raise InvalidRequest(where, "expected a JSON object")
    key = fields.get("idempotency_key", "")
    if "idempotency_key" in fields and not _is_key(key):
        raise InvalidRequest(f"{where}.idempotency_key", _KEY_EXPECTED)
    return PlaceOrder(key, *_terms_of(fields, f"{where}."))


def _is_key(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and bool(_KEY.fullmatch(value.encode()))


def _terms(body: bytes) -> tuple[str, str, int]:
    return _terms_of(_request(body))


def _request(body: bytes) -> dict[str, Any]:
    """The object that asks for one order or change. A key in it, where the orders of a batch have
    theirs, is refused: it would be ignored, and a client that relies on it would trade twice.
    """
    fields = parse_object(body)
    if "idempotency_key" in fields:
        raise InvalidRequest("idempotency_key", "expected in the header, Idempotency-Key")
    return fields


def _terms_of(fields: Mapping[str, Any], where: str = "") -> tuple[str, str, int]:
    """Name, type and quantity."""
    name, quantity = _text(fields, "name", where), _quantity(fields, where=where)
    return name, _text(fields, "type", where), quantity


# The same few bytes come again and again: few stocks, small quantities.
_remembered_terms = lru_cache(maxsize=4096)(_terms)


def _quantity(fields: Mapping[str, Any], least: int | None = None, where: str = "") -> int:
    quantity = _member(fields, "quantity", where)
    if type(quantity) is not int:
        raise InvalidRequest(f"{where}quantity", "expected an integer")
    if quantity > QUANTITY_MAX:
        raise InvalidRequest(f"{where}quantity", f"expected at most {QUANTITY_MAX}")
    if least is not None and quantity < least:
        raise InvalidRequest(f"{where}quantity", f"expected at least {least}")
    return quantity


def _price_cents(fields: Mapping[str, Any]) -> int:
    """A price in cents, exactly as a number or a text spells it; nothing is rounded."""
    price = _member(fields, "price")
    if isinstance(price, _Spelled):
        price = price.digits
    elif type(price) is int:
        price = str(price)
    price_cents = cents_of(price) if isinstance(price, str) else None
    if price_cents is None:
        problem = "expected a number from 0 up with at most two decimals, like 15.99"
        raise InvalidRequest("price", problem)
    return price_cents


def parse_add(body: bytes, key: str) -> ChangeRequest:
    """The stock that a POST body adds: name, price and quantity, as in a line of catalog.csv."""
    fields = _request(body)
    name = _text(fields, "name")
    if not is_stock_name(name):
        raise InvalidRequest("name", f"expected {NAME_RULE}")
    price_cents, quantity = _price_cents(fields), _quantity(fields, 0)
    return ChangeRequest(key, ChangeKind.ADD, name, price_cents, quantity)


def parse_change(kind: ChangeKind, name: str, body: bytes, key: str) -> ChangeRequest:
    """The change of a stock that a POST body asks for; a halt or a resume needs none."""
    price_cents = _price_cents(_request(body)) if kind is ChangeKind.PRICE else 0
    quantity = _quantity(_request(body), 1) if kind is ChangeKind.RESTOCK else 0
    return ChangeRequest(key, kind, name, price_cents, quantity)


def _member(fields: Mapping[str, Any], name: str, where: str = "") -> Any:
    """A field that has to be there; ``where`` precedes its name in the error's message."""
    if name not in fields:
        raise InvalidRequest(f"{where}{name}", "missing")
    return fields[name]


def _text(fields: Mapping[str, Any], name: str, where: str = "") -> str:
    """A text that UTF-8 can encode; JSON's escapes can spell half of a surrogate pair."""
    value = _member(fields, name, where)
    if not isinstance(value, str):
        raise InvalidRequest(f"{where}{name}", "expected a text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidRequest(f"{where}{name}", "not a Unicode text") from None
    return value


def parse_versions(body: bytes) -> dict[str, int]:
    """The catalog's batch of invalidations, ``{"stocks": {NAME: version, ...}}``."""
    stocks = _member(parse_object(body), "stocks")
    if not isinstance(stocks, dict) or not all(type(v) is int for v in stocks.values()):
        raise InvalidRequest("stocks", "expected versions by name")
    return stocks


def parse_key(values: Sequence[bytes] | None) -> str | None:
    """The request's Idempotency-Key, if it has one: 1 to 255 visible ASCII characters."""
    if not values:
        return None
    if len(values) > 1 or not _KEY.fullmatch(values[0]):
        raise InvalidRequest("Idempotency-Key", _KEY_EXPECTED)
    return values[0].decode("ascii")


def parse_number(segment: bytes) -> int | None:
    """The transaction number that a path segment spells; None: no number from 1 up."""
    text = unquote_to_bytes(segment).decode("utf-8", "replace")
    number = int(text) if _NUMBER.fullmatch(text) else 0
    return number if 1 <= number <= NUMBER_MAX else None


def parse_name(segment: bytes) -> str:
    """The stock name that a percent-encoded path segment spells; empty if no stock can have it."""
    name = _utf8(unquote_to_bytes(segment), "name")
    return name if len(name) <= NAME_CHARS_MAX else ""


def _utf8(text: bytes, field: str) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest(field, "not UTF-8") from None


def parse_version(arguments: Mapping[bytes, Sequence[bytes]]) -> int | None:
    """The ``version`` of an invalidation, if it names one."""
    text = _argument(arguments, "version")
    return None if text is None else _count(text, "version")


def parse_order_page(arguments: Mapping[bytes, Sequence[bytes]], limit_max: int) -> Page:
    """``after`` and ``limit`` of a page of orders, or of changes."""
    text = _argument(arguments, "after")
    after = 0 if text is None else _count(text, "after")
    return Page(after, _limit(arguments, limit_max))


def parse_stock_page(arguments: Mapping[bytes, Sequence[bytes]], limit_max: int) -> StockPage:
    """``after`` and ``limit`` of a page of stocks."""
    after = _utf8(_argument(arguments, "after") or b"", "after")
    if len(after) > NAME_CHARS_MAX:
        raise InvalidRequest("after", f"expected at most {NAME_CHARS_MAX} characters")
    return StockPage(after, _limit(arguments, limit_max))


def parse_self_alone(arguments: Mapping[bytes, Sequence[bytes]]) -> bool:
    """Whether ``members`` asks for this process alone."""
    text = _argument(arguments, "members")
    if text not in (None, b"self"):
        raise InvalidRequest("members", "expected self, or nothing for all")
    return text is not None


def _argument(arguments: Mapping[bytes, Sequence[bytes]], name: str) -> bytes | None:
    """A query parameter; one that is left empty counts as absent."""
    values = arguments.get(name.encode(), ())
    if len(values) > 1:
        raise InvalidRequest(name, "appears twice")
    return values[0] or None if values else None


def _count(text: bytes, field: str, least: int = 0) -> int:
    """A number in digits; one above ``NUMBER_MAX``, however long, becomes ``NUMBER_MAX``. Only
    its first twenty digits are converted, because Python refuses to convert thousands.
    """
    number = int(text.lstrip(b"0")[:20] or b"0") if _COUNT.fullmatch(text) else -1
    if number < least:
        raise InvalidRequest(field, f"expected a number from {least} up")
    return min(number, NUMBER_MAX)


def _limit(arguments: Mapping[bytes, Sequence[bytes]], limit_max: int) -> int:
    """How many rows: at most ``limit_max``, whatever is asked for."""
    text = _argument(arguments, "limit")
    limit = PAGE_DEFAULT if text is None else _count(text, "limit", 1)
    return min(limit, limit_max)
