"""Reads the header fields that the fast lane knows.

Only known fields in their usual spelling are accepted, which Twisted understands exactly as they
are understood here; everything else is left to Twisted.
"""

import re

HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
REQUEST_ID = b"x-request-id"
END = b"\r\n\r\n"
_FIELD = re.compile(rb"([A-Za-z-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)[ \t]*")
_LENGTH = re.compile(rb"[0-9]{1,6}")
_FIELDS_MAX = 32
ORIGIN, FETCH_SITE = b"origin", b"sec-fetch-site"
_ONCE = frozenset(
    {
        b"host",
        b"connection",
        b"content-length",
        b"idempotency-key",
        REQUEST_ID,
        ORIGIN,
        FETCH_SITE,
    }
)
_MEANINGLESS = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"cache-control",
        b"content-type",
        b"cookie",
        b"dnt",
        b"pragma",
        b"priority",
        b"referer",
        b"sec-fetch-dest",
        b"sec-fetch-mode",
        b"user-agent",
    }
)
"""Fields that make no difference to any answer of this API, except Accept if it names problems."""


def read_fields(headers: bytes) -> dict[bytes, bytes] | None:
    """The fields that make a difference, by lower-case name; None if the lane must not take them.

    ``headers`` ends with an empty line and has no other.
    """
    if headers.find(END) != len(headers) - len(END):
        return None
    lines = headers[: -len(END)].split(b"\r\n")
    found: dict[bytes, bytes] = {}
    if len(lines) > _FIELDS_MAX:
        return None
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            return None
        name = match[1].lower()
        if name in _ONCE and name not in found:
            found[name] = match[2]
        elif name not in _MEANINGLESS or (name == b"accept" and b"problem" in match[2].lower()):
            return None
    host, connection = found.get(b"host"), found.get(b"connection", b"keep-alive")
    length = found.get(b"content-length", b"0")
    good = host is not None and HOST.fullmatch(host) and _LENGTH.fullmatch(length)
    return found if good and connection.lower() == b"keep-alive" else None
