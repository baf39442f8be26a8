"""The lines of a backup: one JSON object each, whose first key says what it is.

``backup`` begins the file, then one ``stock`` for each that the cluster began with, then orders
and changes in a sequence in which they can be carried out again, then ``end``. Old formats will
always be read; a reader refuses formats newer than its own.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from twstock.backup.sealed import Damaged
from twstock.errors import TwstockError
from twstock.market import SIDES, ChangeKind, Order, Stock, StockChange, Trade

FORMAT = 1
_INTEGER_MAX = 2**63 - 1
"""The largest integer that the tables' columns hold."""


class NewerFormat(TwstockError):
    """A backup was made by a newer version."""


class Header(NamedTuple):
    """The first line: which cluster's backup it is, when it was made, and its last transaction."""

    cluster_id: str
    at_ms: int
    last_transaction: int


class End(NamedTuple):
    """The last line: how many orders, changes and stocks there are."""

    orders: int
    changes: int
    stocks: int


Event = Trade | StockChange
Line = Header | Stock | Event | End
_FIELDS: dict[str, dict[str, type]] = {
    "backup": {"backup": int, "cluster_id": str, "time_ms": int, "last_transaction": int},
    "stock": {"stock": str, "price_cents": int, "quantity": int},
    "order": {
        "order": int,
        "key": str,
        "name": str,
        "type": str,
        "quantity": int,
        "version": int,
        "price_cents": int,
        "time_ms": int,
    },
    "change": {
        "change": int,
        "kind": str,
        "name": str,
        "price_cents": int,
        "quantity": int,
        "version": int,
        "time_ms": int,
    },
    "end": {"end": int, "changes": int, "stocks": int},
}
_NAMES = {kind: tuple(fields) for kind, fields in _FIELDS.items()}
_TYPES = {kind: tuple(fields.values()) for kind, fields in _FIELDS.items()}
_KINDS = {str(kind): kind for kind in ChangeKind}
_to_json = json.JSONEncoder(separators=(",", ":")).encode
_quote = json.JSONEncoder().encode
_parse = json.JSONDecoder().raw_decode


def encode(line: Line) -> bytes:
    """A line with its newline; plain ASCII."""
    if isinstance(line, Trade):
        return _order(line)
    kind, *values = _values(line)
    return _to_json(dict(zip(_NAMES[kind], values, strict=True))).encode() + b"\n"


def decode(content: bytes) -> Line:
    """The line that some bytes hold. Raises Damaged or NewerFormat."""
    try:
        text = content.decode("ascii")
        fields, end = _parse(text)
    except ValueError:
        raise Damaged("it is not JSON in ASCII") from None
    if end != len(text):
        raise Damaged("something follows the JSON")
    kind = next(iter(fields), "") if isinstance(fields, dict) else ""
    if kind == "backup":
        _check_format(fields["backup"])
    values = tuple(fields.values()) if kind in _FIELDS else ()
    if tuple(map(type, values)) != _TYPES.get(kind) or tuple(fields) != _NAMES[kind]:
        raise Damaged("it does not have the fields of a line of a backup")
    for value in values:
        if type(value) is int:
            if not 0 <= value <= _INTEGER_MAX:
                raise Damaged(f"{value} is below 0 or too large")
        elif not value or not value.isascii():
            _check_text(value)
    return _MAKERS[kind](*values)


def _check_format(found: object) -> None:
    if type(found) is int and found > FORMAT:
        raise NewerFormat(f"it has format {found}; this program reads format {FORMAT}")
    if found != FORMAT:
        raise Damaged(f"{found!r} is not a format")


def _check_text(text: str) -> None:
    """Refuse an empty text, and one with lone surrogates, which no message can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Damaged(f"{text!r} is not text") from None
    if not text:
        raise Damaged("a text is empty")


def _order(trade: Trade) -> bytes:
    """As JSON's encoder makes it, in a third of the time: there are millions of these."""
    number, (key, name, side, quantity), version, price_cents, at_ms = trade
    return (
        f'{{"order":{number},"key":{_quote(key)},"name":{_quote(name)},"type":"{side}",'
        f'"quantity":{quantity},"version":{version},"price_cents":{price_cents},'
        f'"time_ms":{at_ms}}}\n'
    ).encode("ascii")


def _values(line: Header | Stock | StockChange | End) -> tuple[Any, ...]:
    """The kind of a line and the values of its fields."""
    match line:
        case StockChange():
            return "change", *line
        case Stock():
            return "stock", line.name, line.price_cents, line.initial_quantity
        case Header():
            return "backup", FORMAT, *line
        case End():
            return "end", *line


def _header(_format: int, *values: Any) -> Header:
    return Header(*values)


def _stock(name: str, price_cents: int, quantity: int) -> Stock:
    return Stock(name, price_cents, quantity, initial_quantity=quantity)


def _trade(
    number: int,
    key: str,
    name: str,
    side: str,
    quantity: int,
    version: int,
    price_cents: int,
    at_ms: int,
) -> Trade:
    if side not in SIDES:
        raise Damaged(f"{side!r} is not a type of order")
    return Trade(number, Order(key, name, SIDES[side], quantity), version, price_cents, at_ms)


def _change(number: int, kind: str, *values: Any) -> StockChange:
    if kind not in _KINDS:
        raise Damaged(f"{kind!r} is not a kind of change")
    return StockChange(number, _KINDS[kind], *values)


_MAKERS: dict[str, Callable[..., Line]] = {
    "backup": _header,
    "stock": _stock,
    "order": _trade,
    "change": _change,
    "end": End,
}
