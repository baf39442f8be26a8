"""What every codec uses."""

from collections.abc import Callable
from typing import Any, TypeVar

A = TypeVar("A")
OK = 200
NOT_FOUND = 404


def to_bytes(pb: Any) -> bytes:
    data: bytes = pb.SerializeToString()
    return data


def decoder(pb: Any, convert: Callable[[Any], A]) -> Callable[[bytes], A]:
    return lambda data: convert(pb.FromString(data))


def encoder(convert: Callable[[A], Any]) -> Callable[[A], bytes]:
    return lambda value: to_bytes(convert(value))
