"""The ids of requests: what a client calls its request, or a name made here."""

import re
from collections.abc import Sequence
from itertools import count

from twstock.market import REQUEST_ID_CHARS_MAX

_ID = re.compile(rb"[\x21-\x7e]{1,%d}" % REQUEST_ID_CHARS_MAX)


class RequestIds:
    """Names requests by counting them; ``prefix`` tells the process from all others."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix.encode("ascii")
        self.count = count(1).__next__

    def make(self) -> bytes:
        """A name that no other request has."""
        return b"%b%d" % (self.prefix, self.count())

    def of(self, values: Sequence[bytes] | None) -> bytes:
        """The name that the header X-Request-Id gives if it is one valid name, else a new one."""
        given = values[0] if values is not None and len(values) == 1 else b""
        return given if is_good(given) else self.make()


def is_good(request_id: bytes) -> bool:
    """Whether a client may call its request so: it will be in headers and in the log."""
    return _ID.fullmatch(request_id) is not None
