"""Lines of text in a gzip file that shows whether it is intact. Pure: bytes in, bytes out.

The file is two gzip members (RFC 1952), which every gzip reads as one. The second one has no
content, only an extra field in its header: the SHA-256 of all bytes before it. gzip's own CRC-32
is not enough: it covers neither the header nor the bits that fill the last byte.
"""

import zlib
from collections.abc import Iterable, Iterator
from hashlib import sha256
from struct import pack

from twstock.errors import TwstockError

LEVEL = 6
GZIP = 31
"""zlib's wbits for the gzip format with the largest window."""
CHUNK_BYTES = 128 * 1024
LINE_BYTES_MAX = 64 * 1024
"""Names and keys of 255 characters make a tenth of it."""
_SEAL_HEAD = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + pack("<H2sH", 36, b"TS", 32)
_SEAL_TAIL = b"\x03\x00" + bytes(8)
SEAL_BYTES = len(_SEAL_HEAD) + 32 + len(_SEAL_TAIL)


class Damaged(TwstockError):
    """A backup is not as it was written; the message says what is wrong."""


def sealed(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of a file that holds these lines, each with its newline."""
    packing, digest = zlib.compressobj(LEVEL, zlib.DEFLATED, GZIP), sha256()
    for content in _gathered(lines):
        chunk = packing.compress(content)
        digest.update(chunk)
        yield chunk
    last = packing.flush()
    digest.update(last)
    yield last + _SEAL_HEAD + digest.digest() + _SEAL_TAIL


def unsealed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of such a file, without their newlines, from its bytes in chunks.

    Raises Damaged, possibly only at the end, so no line may be relied on before the end.
    """
    unpacking, digest = zlib.decompressobj(GZIP), sha256()
    seal, rest = b"", b""
    for chunk in chunks:
        both = seal + chunk
        content, seal = both[:-SEAL_BYTES], both[-SEAL_BYTES:]
        digest.update(content)
        for text in _unpacked(unpacking, content):
            *lines, rest = (rest + text).split(b"\n")
            yield from lines
            if len(rest) > LINE_BYTES_MAX:
                raise Damaged(f"a line has more than {LINE_BYTES_MAX} bytes")
    if seal != _SEAL_HEAD + digest.digest() + _SEAL_TAIL:
        raise Damaged("it is cut short or was changed: the SHA-256 at its end is not its own")
    if not unpacking.eof or unpacking.unused_data or rest:
        raise Damaged("it is not one whole gzip file")


def _gathered(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in fewer pieces."""
    waiting: list[bytes] = []
    size = 0
    for line in lines:
        waiting.append(line)
        size += len(line)
        if size >= CHUNK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting)


def _unpacked(unpacking: "zlib._Decompress", content: bytes) -> Iterator[bytes]:
    """Decompressed bytes, in pieces of a bounded size."""
    while content and not unpacking.eof:
        try:
            yield unpacking.decompress(content, CHUNK_BYTES)
        except zlib.error as error:
            raise Damaged(f"it is not a gzip file, or was changed: {error}") from None
        content = unpacking.unconsumed_tail
