"""The ids of requests: given by the client, or made here."""

import re
from collections.abc import Sequence
from itertools import count

from twstock.market import REQUEST_ID_CHARS_MAX

_ID = re.compile(rb"[\x21-\x7e]{1,%d}" % REQUEST_ID_CHARS_MAX)


class RequestIds:
    """Makes ids by counting; ``prefix`` distinguishes the process from all others."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix.encode("ascii")
        self.count = count(1).__next__

    def make(self) -> bytes:
        """An id that no other request has."""
        return b"%b%d" % (self.prefix, self.count())

    def of(self, values: Sequence[bytes] | None) -> bytes:
        """The id in the header X-Request-Id if there is one and it is valid, else a new one."""
        given = values[0] if values is not None and len(values) == 1 else b""
        return given if is_good(given) else self.make()


def is_good(request_id: bytes) -> bool:
    """Whether a client's id is valid: it will be in headers and in the log."""
    return _ID.fullmatch(request_id) is not None
