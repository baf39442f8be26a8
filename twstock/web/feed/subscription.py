"""Parses what a subscriber asks for: which stocks, and from which place. Strict, as ``bodies``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from twstock.errors import InvalidRequest
from twstock.market import NAME_CHARS_MAX
from twstock.web.feed import cursor
from twstock.web.feed.cursor import Cursor

LAST_EVENT_ID = "Last-Event-ID"
_PARAMETER = "last_event_id"


@dataclass(frozen=True, slots=True)
class Subscription:
    """``names`` are the stocks that are wanted, None: all; ``after`` is how far the reader has
    read, None: it has read nothing and starts now.
    """

    names: frozenset[str] | None = None
    after: Cursor | None = None


def parse(uri: bytes, last_event_ids: Sequence[bytes], names_max: int) -> Subscription:
    """The subscription that a request's target and Last-Event-ID headers ask for.

    Raises InvalidRequest naming what is wrong.
    """
    query = uri.partition(b"?")[2]
    return Subscription(_names(query, names_max), _after(query, last_event_ids))


def _values(query: bytes, name: bytes) -> Iterator[bytes]:
    """The values of a parameter that are not empty, still encoded."""
    for pair in query.split(b"&"):
        key, _, value = pair.partition(b"=")
        if key == name and value:
            yield value


def _names(query: bytes, names_max: int) -> frozenset[str] | None:
    """A comma between names is not encoded, one within a name is."""
    spelled = [name for value in _values(query, b"names") for name in value.split(b",")]
    if len(spelled) > names_max:
        raise InvalidRequest("names", f"expected at most {names_max}")
    return frozenset(map(_name, spelled)) or None


def _name(spelled: bytes) -> str:
    try:
        name = unquote_to_bytes(spelled.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest("names", "not UTF-8") from None
    if not 1 <= len(name) <= NAME_CHARS_MAX:
        raise InvalidRequest("names", f"expected names of 1 to {NAME_CHARS_MAX} characters")
    return name


def _after(query: bytes, headers: Sequence[bytes]) -> Cursor | None:
    """The header wins: a browser reconnects to the same URL, and its header is newer."""
    for field, values in (
        (LAST_EVENT_ID, [value for value in headers if value]),
        (_PARAMETER, [unquote_to_bytes(v) for v in _values(query, _PARAMETER.encode())]),
    ):
        if len(values) > 1:
            raise InvalidRequest(field, "appears twice")
        if values:
            return cursor.parse(values[0].decode("latin-1"), field)
    return None
