"""A gzip stream in pieces that are the same for many readers (RFC 1951, RFC 1952). Pure.

A piece refers to nothing before it and ends on a byte boundary, so any sequence of pieces after
``HEADER`` is a stream, and a piece is compressed once for everybody. The stream lacks gzip's final
checksum, which would differ for each reader: it simply stops, as if its connection were lost.
"""

import zlib

HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""No name, no time, unknown operating system (RFC 1952 section 2.3.1)."""
_LEVEL = 6
_RAW = -zlib.MAX_WBITS
_STORED_MAX = 0xFFFF
_FLUSHED = b"\0\0\0\xff\xff"


def compressed(body: bytes) -> bytes:
    """Bytes as a compressed piece, which is smaller if there are enough of them."""
    made = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW)
    return made.compress(body) + made.flush(zlib.Z_FULL_FLUSH)


def stored(body: bytes) -> bytes:
    """Bytes as an uncompressed piece, which costs nothing to make: for one reader, compressing is
    not worth it. An empty block ends it, as after zlib's flush: some readers pass on what they
    have only then.
    """
    pieces = []
    for start in range(0, len(body), _STORED_MAX):
        some = body[start : start + _STORED_MAX]
        size = len(some)
        pieces += [b"\0", size.to_bytes(2, "little"), (size ^ 0xFFFF).to_bytes(2, "little"), some]
    return b"".join((*pieces, _FLUSHED))
