"""One gzip stream in pieces that many readers get alike (RFC 1951, RFC 1952). Pure.

A piece refers to nothing before it and ends on a byte, so any sequence of pieces after ``HEADER``
is a stream, and what is compressed once is sent to everybody. The stream has no end of its own,
and so no checksum, which would be another one for each reader: it is cut off where it ends, as a
connection that is lost cuts it off.
"""

import zlib

HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""No name, no time, no particular system."""
_LEVEL = 6
_RAW = -zlib.MAX_WBITS
_STORED_MAX = 0xFFFF
_FLUSHED = b"\0\0\0\xff\xff"


def compressed(body: bytes) -> bytes:
    """Bytes as a piece, smaller than they are if there are enough of them."""
    made = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW)
    return made.compress(body) + made.flush(zlib.Z_FULL_FLUSH)


def stored(body: bytes) -> bytes:
    """Bytes as a piece that costs nothing to make: for one reader it is not worth more. An empty
    block ends it, as zlib ends what it flushes: some readers give out what they have only then.
    """
    pieces = []
    for start in range(0, len(body), _STORED_MAX):
        some = body[start : start + _STORED_MAX]
        size = len(some)
        pieces += [b"\0", size.to_bytes(2, "little"), (size ^ 0xFFFF).to_bytes(2, "little"), some]
    return b"".join((*pieces, _FLUSHED))
