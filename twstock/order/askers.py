"""The callers that wait for the orders on an order leader's desk. Pure."""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from math import inf
from typing import NamedTuple

from twstock.errors import KeyReused, OutcomeUnknown, TwstockError
from twstock.market import Order, Outcome
from twstock.rpc.calls import Placement

BEHIND_MAX = 64
"""How many callers may wait behind the order that has their key. Each time the key becomes free all
are placed again: at most once for each different order among them."""

Tell = Callable[[Placement | TwstockError], None]
"""Called once with the result of an order: a Placement, or KeyReused, DiskFull, Overloaded,
Unavailable (nothing happened) or OutcomeUnknown. A Deferred for each order would cost more than the
order itself."""


class Asking(NamedTuple):
    """An order, what takes its result, and until when it may begin, in seconds of the clock."""

    order: Order
    tell: Tell
    until: float


class Askers:
    """The callers that wait for each open order, by its key, and those that asked for a different
    order under the same key. Which order owns a key is decided by the records, not by which came
    first; so the latter wait until the key is off the desk, and are then placed again.
    """

    def __init__(self) -> None:
        self._tells: dict[str, list[Tell]] = {}
        self._until: dict[str, float] = {}
        self._behind: dict[str, list[Asking]] = {}

    def open(self, asking: Asking) -> None:
        """Its order is new on the desk."""
        self._tells[asking.order.key] = [asking.tell]
        self._until[asking.order.key] = asking.until

    def join(self, asking: Asking) -> None:
        """Its order is on the desk already."""
        key = asking.order.key
        self._tells.setdefault(key, []).append(partial(_tell_again, asking.tell))
        if key in self._until:
            self._until[key] = max(self._until[key], asking.until)

    def wait(self, asking: Asking) -> None:
        """A different order is on the desk under its key. Raises OutcomeUnknown when too many wait
        behind that one.
        """
        behind = self._behind.setdefault(asking.order.key, [])
        if len(behind) >= BEHIND_MAX:
            raise OutcomeUnknown("too many wait for orders under way")
        behind.append(asking)

    def begin(self, orders: Collection[Order], now: float) -> set[str]:
        """Begin these orders; returns the keys of those that are too late to begin."""
        return {order.key for order in orders if self._until.pop(order.key, inf) <= now}

    def tell(self, key: str, result: Placement | TwstockError) -> Collection[Asking]:
        """The order is off the desk: give its result to all that wait for it. Returns those that
        waited behind it for its key.
        """
        self._until.pop(key, None)  # there is one still if it was answered before it began
        for tell in self._tells.pop(key, ()):
            tell(result)
        return self._behind.pop(key, ()) if self._behind else ()

    def end(self) -> Iterator[tuple[str, Tell, bool]]:
        """Forget all callers. Yields for each the key, the function that takes the result, and
        whether it only waited behind another order for the key.
        """
        tells, self._tells = self._tells, {}
        behind, self._behind = self._behind, {}
        for key, waiting in tells.items():
            yield from ((key, tell, False) for tell in waiting)
        for key, askings in behind.items():
            yield from ((key, asking.tell, True) for asking in askings)


def answer(outcome: Outcome) -> Placement | TwstockError:
    """The result of an order, from its outcome."""
    return KeyReused() if outcome.key_reused else placement(outcome)


def placement(outcome: Outcome) -> Placement:
    """The result of an executed or refused order."""
    if outcome.trade is None:
        return Placement(refusal=str(outcome.refusal), replayed=outcome.replayed)
    trade = outcome.trade
    return Placement(trade.number, "", outcome.replayed, trade.version)


def _tell_again(tell: Tell, first: Placement | TwstockError) -> None:
    """Pass the result on to a caller that joined an order."""
    tell(first._replace(replayed=True) if isinstance(first, Placement) else first)
