"""A Bloom filter of the keys of orders that may be only in the tables: pure.

Nearly every key is new, and asking the tables is a round trip to their thread. The filter saves the
trip when it says no, which is never wrong; a key that may be there is looked up. All bits of a key
are in one word (Putze, Sanders, Singler, 2007: Cache-, hash- and space-efficient Bloom filters), so
that testing a key is one memory access.
"""

from collections.abc import Iterable
from mmap import mmap
from zlib import crc32

_WORDS = 1 << 21
"""16 MiB, which take up memory only as they fill. With five million orders one new key in 650 is
looked up in vain, with ten million one in 110; with many more the filter is of no use.
"""
_BITS = 6
"""How many of a word's 64 bits belong to a key; fewer if some coincide."""
_IN_WORDS, _IN_MASKS = _WORDS - 1, (1 << 12) - 1
_PART_WORDS = 1 << 15
PARTS = _WORDS // _PART_WORDS
PART_BYTES = 8 * _PART_WORDS


def _mask(number: int) -> int:
    """One of the masks that a key may have: the upper bits of a product choose its bits, because
    they depend on all bits of the number (Fibonacci hashing; Knuth, The Art of Computer
    Programming, volume 3, 6.4).
    """
    mixed = number * 0x9E3779B97F4A7C15 & (1 << 64) - 1
    mask = 0
    for place in range(64 - 6 * _BITS, 64, 6):
        mask |= 1 << (mixed >> place & 63)
    return mask


_MASKS = tuple(map(_mask, range(_IN_MASKS + 1)))


class KeyFilter:
    """A Bloom filter. One thread at a time may add keys; others may ask meanwhile.

    A key's CRC-32 chooses its word, and the CRC-32 of the reversed key its mask. Unlike ``hash``
    they are the same in every process, because a stored filter outlives its process. A client that
    makes keys collide only has these looked up in vain.
    """

    def __init__(self) -> None:
        # The kernel allocates and zeroes this memory when it is first touched.
        self._words = memoryview(mmap(-1, 8 * _WORDS)).cast("Q")

    def add(self, keys: Iterable[str]) -> None:
        """Add these keys."""
        words, masks = self._words, _MASKS
        for key in map(str.encode, keys):
            words[crc32(key) & _IN_WORDS] |= masks[crc32(key[::-1]) & _IN_MASKS]

    def may_have(self, key: str) -> bool:
        """Whether this key may have been added; False is certain."""
        coded = key.encode()
        mask = _MASKS[crc32(coded[::-1]) & _IN_MASKS]
        return self._words[crc32(coded) & _IN_WORDS] & mask == mask

    def part(self, number: int) -> bytes:
        """A copy of one of its ``PARTS`` parts, which have ``PART_BYTES`` each."""
        return bytes(self._part(number))

    def restore(self, number: int, bits: bytes) -> None:
        """Load a stored part, before any key is added."""
        self._part(number)[:] = memoryview(bits).cast("Q")

    def _part(self, number: int) -> memoryview:
        return self._words[number * _PART_WORDS : (number + 1) * _PART_WORDS]
