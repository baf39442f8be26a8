"""Who is to be told what becomes of the orders on an order leader's desk. Pure."""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from math import inf
from typing import NamedTuple

from twstock.errors import KeyReused, OutcomeUnknown, TwstockError
from twstock.market import Order, Outcome
from twstock.rpc.calls import Placement

BEHIND_MAX = 64
"""How many may wait for one key. Each is placed again once for each different order at most."""

Tell = Callable[[Placement | TwstockError], None]
"""How whoever placed an order is told what became of it: called once, with a Placement, KeyReused,
DiskFull, Overloaded, Unavailable (nothing happened) or OutcomeUnknown. A Deferred for each order
would cost more than the order."""


class Asking(NamedTuple):
    """An order, whom to tell, and until when it may begin, in seconds of the clock."""

    order: Order
    tell: Tell
    until: float


class Askers:
    """Those who wait for the open orders, by their keys, and those who asked for another order
    under such a key. The records tell whose key it is, not who came first: so the latter wait until
    the key is off the desk, and are then placed again.
    """

    def __init__(self) -> None:
        self._tells: dict[str, list[Tell]] = {}
        self._until: dict[str, float] = {}
        self._behind: dict[str, list[Asking]] = {}

    def open(self, asking: Asking) -> None:
        """An order comes on the desk."""
        self._tells[asking.order.key] = [asking.tell]
        self._until[asking.order.key] = asking.until

    def join(self, asking: Asking) -> None:
        """Somebody asks again for an order that is on the desk."""
        key = asking.order.key
        self._tells.setdefault(key, []).append(partial(_tell_again, asking.tell))
        if key in self._until:
            self._until[key] = max(self._until[key], asking.until)

    def wait(self, asking: Asking) -> None:
        """Somebody asks for another order under a key that is on the desk. Raises OutcomeUnknown
        when too many do.
        """
        behind = self._behind.setdefault(asking.order.key, [])
        if len(behind) >= BEHIND_MAX:
            raise OutcomeUnknown("too many wait for orders under way")
        behind.append(asking)

    def begin(self, orders: Collection[Order], now: float) -> set[str]:
        """These orders begin unless they are too late; returns the keys of those that are."""
        return {order.key for order in orders if self._until.pop(order.key, inf) <= now}

    def tell(self, key: str, result: Placement | TwstockError) -> Collection[Asking]:
        """The order is off the desk: tell all who wait for it. Returns those who waited for its
        key.
        """
        for tell in self._tells.pop(key, ()):
            tell(result)
        return self._behind.pop(key, ()) if self._behind else ()

    def end(self) -> Iterator[tuple[str, Tell, bool]]:
        """Forget everybody, yielding for each the key, whom to tell, and whether they waited only
        for the key.
        """
        tells, self._tells = self._tells, {}
        behind, self._behind = self._behind, {}
        for key, waiting in tells.items():
            yield from ((key, tell, False) for tell in waiting)
        for key, askings in behind.items():
            yield from ((key, asking.tell, True) for asking in askings)


def answer(outcome: Outcome) -> Placement | TwstockError:
    """What those who placed an order are told of its outcome."""
    return KeyReused() if outcome.key_reused else placement(outcome)


def placement(outcome: Outcome) -> Placement:
    """An executed or refused outcome as the answer to an order."""
    if outcome.trade is None:
        return Placement(refusal=str(outcome.refusal), replayed=outcome.replayed)
    trade = outcome.trade
    return Placement(trade.number, "", outcome.replayed, trade.version)


def _tell_again(tell: Tell, first: Placement | TwstockError) -> None:
    """Pass the answer on to whoever asked again."""
    tell(first._replace(replayed=True) if isinstance(first, Placement) else first)
