"""Which keys may belong to orders that are only in the tables: pure.

Nearly every key is new, and asking the tables is a trip to their thread. A Bloom filter says no
without that trip, and never wrongly; a key that may be there is looked up. All bits of a key
are in one word (Putze, Sanders, Singler, 2007: Cache-, hash- and space-efficient Bloom filters), so
that a key is one access to memory.
"""

from collections.abc import Iterable
from mmap import mmap
from zlib import crc32

_WORDS = 1 << 21
"""16 MiB, which are touched as they fill. Of new keys, one in 650 is looked up in vain with five
million orders, one in 110 with ten million; with many more it is as if there were no filter.
"""
_BITS = 6
"""So many of a word's 64 belong to a key, or fewer, if some fall on each other."""
_IN_WORDS, _IN_MASKS = _WORDS - 1, (1 << 12) - 1
_PART_WORDS = 1 << 15
PARTS = _WORDS // _PART_WORDS
PART_BYTES = 8 * _PART_WORDS


def _mask(number: int) -> int:
    """One way to choose the bits of a key: by the upper bits of a product, which depend on all of
    the number (Fibonacci hashing; Knuth, The Art of Computer Programming, volume 3, 6.4).
    """
    mixed = number * 0x9E3779B97F4A7C15 & (1 << 64) - 1
    mask = 0
    for place in range(64 - 6 * _BITS, 64, 6):
        mask |= 1 << (mixed >> place & 63)
    return mask


_MASKS = tuple(map(_mask, range(_IN_MASKS + 1)))


class KeyFilter:
    """A Bloom filter. Keys are added by one thread at a time; others may ask meanwhile.

    A key's CRC-32 chooses its word, that of the key read backwards its mask: these are the same in
    every process, because a filter outlives them. Whoever chooses keys that collide has only these
    looked up in vain.
    """

    def __init__(self) -> None:
        # Memory that the kernel gives, and clears, as it is touched.
        self._words = memoryview(mmap(-1, 8 * _WORDS)).cast("Q")

    def add(self, keys: Iterable[str]) -> None:
        """From now on it may have these keys."""
        words, masks = self._words, _MASKS
        for key in map(str.encode, keys):
            words[crc32(key) & _IN_WORDS] |= masks[crc32(key[::-1]) & _IN_MASKS]

    def may_have(self, key: str) -> bool:
        """False: this key was never added."""
        coded = key.encode()
        mask = _MASKS[crc32(coded[::-1]) & _IN_MASKS]
        return self._words[crc32(coded) & _IN_WORDS] & mask == mask

    def part(self, number: int) -> bytes:
        """One of its ``PARTS``, of ``PART_BYTES``, as it is now."""
        return bytes(self._part(number))

    def restore(self, number: int, bits: bytes) -> None:
        """Give a part back; nothing was added before."""
        self._part(number)[:] = memoryview(bits).cast("Q")

    def _part(self, number: int) -> memoryview:
        return self._words[number * _PART_WORDS : (number + 1) * _PART_WORDS]
