"""Idempotency keys for requests that come without one."""

import os
from collections.abc import Callable, Iterator

from twstock.clocks import wall_ms


def key_maker() -> Callable[[], str]:
    """A function that makes keys, much like UUIDs of version 7 (RFC 9562): the time in
    milliseconds, then 80 random bits, which never repeat and which nobody can guess. Keys made at
    about the same time are neighbours in an index, so the part of it that is in use stays in
    memory however many old keys there are.
    """

    def randoms() -> Iterator[str]:
        while True:
            digits = os.urandom(10 * 256).hex()
            yield from (digits[start : start + 20] for start in range(0, len(digits), 20))

    random = randoms()
    return lambda: f"{wall_ms():012x}{next(random)}"
