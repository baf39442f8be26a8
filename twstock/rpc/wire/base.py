"""What every codec uses."""

from collections.abc import Callable, Sized
from typing import Any, TypeVar

from twstock.errors import InvalidRequest
from twstock.market import CALL_ITEMS_MAX

A = TypeVar("A")
OK = 200
NOT_FOUND = 404


def to_bytes(pb: Any) -> bytes:
    data: bytes = pb.SerializeToString()
    return data


def check_count(field: str, *columns: Sized) -> None:
    """Refuse a request with more items than one call may bring. To be called before any item is
    made a value: two bytes are enough for an item, and a value takes many times as much memory.
    """
    if max(map(len, columns)) > CALL_ITEMS_MAX:
        raise InvalidRequest(field, f"expected at most {CALL_ITEMS_MAX}")


def decoder(pb: Any, convert: Callable[[Any], A]) -> Callable[[bytes], A]:
    return lambda data: convert(pb.FromString(data))


def encoder(convert: Callable[[A], Any]) -> Callable[[A], bytes]:
    return lambda value: to_bytes(convert(value))
