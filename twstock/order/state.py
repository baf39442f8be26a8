"""The order group's state machine: which orders there are, in the sequence of their numbers.

It keeps the newest orders in memory and forgets older ones only when the tables have them,
so that every order and every key is always found in one place or the other.
"""

from collections import deque
from collections.abc import Callable
from hashlib import blake2b

from twstock.errors import BrokenInvariant
from twstock.market import Trade
from twstock.replication.messages import Applied
from twstock.rpc.wire.commands import decode_order_record


class OrderState:
    """The orders of all applied entries.

    ``last_number`` and ``digest`` are what the tables had; ``recent_max`` bounds how many saved
    orders stay in memory. ``may_be_saved`` says whether an order in the tables may have a key;
    False is certain.
    """

    def __init__(
        self,
        last_number: int = 0,
        digest: bytes = b"",
        recent_max: int = 10_000,
        may_be_saved: Callable[[str], bool] = lambda _key: True,
    ) -> None:
        self.last_number = last_number
        self.digest = digest
        self._recent_max = recent_max
        self._by_number: dict[int, Trade] = {}
        self._by_key: dict[str, Trade] = {}
        self._unsaved: deque[tuple[int, int]] = deque()
        self._saved_number = last_number
        self._first_recent = last_number + 1
        self._may_be_saved = may_be_saved

    @property
    def last_transaction(self) -> int:
        """The highest transaction number."""
        return self.last_number

    @property
    def first_recent(self) -> int:
        """The lowest number in memory; one above the last when there is none."""
        return self._first_recent

    def apply(self, index: int, payload: bytes) -> Applied:
        """Add the orders of one entry, which are the result and the change.

        Raises BrokenInvariant when a number is not the next one, or a key is not new: numbers are
        1..N without a gap, and every order leader records what is missing before it takes orders.
        """
        trades = decode_order_record(payload)
        for trade in trades:
            self._take(trade)
        # The payload alone decides what the entry does, so it stands for that in the digest.
        self.digest = blake2b(self.digest + payload, digest_size=16).digest()
        self._unsaved.append((index, self.last_number))
        return Applied(trades, trades)

    def saved(self, index: int) -> None:
        """The tables hold everything up to this log index: older orders may be forgotten."""
        while self._unsaved and self._unsaved[0][0] <= index:
            self._saved_number = self._unsaved.popleft()[1]
        excess = len(self._by_number) - self._recent_max
        last = min(self._first_recent - 1 + excess, self._saved_number)
        if last >= self._first_recent:
            self._forget(last)

    def _forget(self, last: int) -> None:
        """Drop the orders up to a number from memory; the tables have them."""
        numbers = range(self._first_recent, last + 1)
        for number in numbers:
            self._by_key.pop(self._by_number.pop(number).order.key, None)
        self._first_recent = last + 1

    def order(self, number: int) -> Trade | None:
        """The order of a number, if it is in memory."""
        return self._by_number.get(number)

    def by_key(self, key: str) -> Trade | None:
        """The order of an idempotency key, if it is in memory."""
        return self._by_key.get(key)

    def may_have_forgotten(self, key: str) -> bool:
        """Whether an order that is no longer in memory may have this key; False is certain."""
        return self._first_recent > 1 and self._may_be_saved(key)

    def between(self, first: int, last: int) -> list[Trade]:
        """The orders in memory with numbers from ``first`` to ``last``."""
        return [self._by_number[n] for n in range(max(first, self.first_recent), last + 1)]

    def _take(self, trade: Trade) -> None:
        if trade.number != self.last_number + 1:
            raise BrokenInvariant(f"order {trade.number} cannot follow order {self.last_number}")
        if trade.order.key in self._by_key:
            raise BrokenInvariant(f"the key of order {trade.number} was recorded before")
        self.last_number = trade.number
        self._by_number[trade.number] = trade
        self._by_key[trade.order.key] = trade
