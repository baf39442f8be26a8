"""Conditional requests (RFC 9110 section 13): whether a client already has what it asks for."""

import re
from collections.abc import Iterator, Sequence

_ELEMENT = re.compile(rb'[ \t]*(?:(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")[ \t]*)?(,|$)')
"""An entity tag, or nothing, and what follows it: lists may have empty elements."""


def is_held(etag: bytes, if_none_match: Sequence[bytes]) -> bool:
    """Whether the fields of If-None-Match name the tag, whose representation then need not be
    sent. They are compared weakly (section 13.1.2): W/"1" is as good as "1". A field that is
    malformed names nothing.
    """
    value = b",".join(if_none_match).strip(b" \t")
    return value == b"*" or etag in _tags(value)


def _tags(value: bytes) -> frozenset[bytes]:
    """The tags of a list, without the marks of weakness; none if it is malformed."""
    try:
        return frozenset(_elements(value))
    except ValueError:
        return frozenset()


def _elements(value: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(value):
        match = _ELEMENT.match(value, position)
        if match is None:
            raise ValueError(value)
        if match[1] is not None:
            yield match[1]
        position = match.end()
