"""Which keys may belong to orders that are only in the tables: pure.

Nearly every key is new, and asking the tables is a trip to their thread. A Bloom filter (Bloom,
1970: Space/time trade-offs in hash coding with allowable errors) says no without it. It never
does so wrongly; what it takes for possible is looked up.
"""

from collections.abc import Sequence

from twstock.errors import BrokenInvariant

_BITS = 27
_MASK = (1 << _BITS) - 1
_PLACES = 4
BYTES = 1 << (_BITS - 3)
"""16 MiB, which are touched as they fill. One key in three thousand is looked up in vain with five
million orders, one in two hundred with ten million; with more it is as if there were no filter.
"""


class OlderKeys:
    """The keys of the orders 1 to ``through``."""

    def __init__(self) -> None:
        self._bits = bytearray(BYTES)
        self.through = 0

    def learn(self, after: int, keys: Sequence[str]) -> None:
        """These are the keys of the orders that follow ``after``, in sequence.

        Raises BrokenInvariant when an order would be left out.
        """
        if after != self.through or not keys:
            raise BrokenInvariant(f"{len(keys)} keys after {after} follow those to {self.through}")
        for key in keys:
            self._add(key)
        self.through += len(keys)

    def _add(self, key: str) -> None:
        bits, (place, step) = self._bits, _start_and_step(key)
        for _ in range(_PLACES):
            bits[(place & _MASK) >> 3] |= 1 << (place & 7)
            place += step

    def may_have(self, key: str) -> bool:
        """False: none of these orders has this key."""
        bits, (place, step) = self._bits, _start_and_step(key)
        for _ in range(_PLACES):
            if not bits[(place & _MASK) >> 3] >> (place & 7) & 1:
                return False
            place += step
        return True


def _start_and_step(key: str) -> tuple[int, int]:
    """Where the bits of a key are: double hashing (Kirsch and Mitzenmacher, 2006) of Python's own
    hash, which is keyed anew in each process, so that nobody can choose keys that collide.
    """
    mixed = hash(key)
    return mixed & _MASK, (mixed >> _BITS & _MASK) | 1
