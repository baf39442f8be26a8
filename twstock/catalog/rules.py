"""The rules by which orders execute or are refused, and what must be true of any stock. Pure."""

from itertools import takewhile
from typing import Protocol, TypeVar

from twstock.errors import BrokenInvariant
from twstock.market import QUANTITY_MAX, Order, Outcome, Refusal, Side, Stock


class Dated(Protocol):
    """Something that is remembered for a time."""

    @property
    def at_ms(self) -> int:
        """Since when, in milliseconds of the log's own time."""


R = TypeVar("R", bound=Dated)


def refusal_of(order: Order, stock: Stock | None) -> Refusal | None:
    """Why an order with a new key cannot execute; None: it can."""
    if order.quantity < 1:
        return Refusal.NOT_POSITIVE
    if stock is None:
        return Refusal.UNKNOWN_STOCK
    if stock.halted:
        return Refusal.HALTED
    if order.side is Side.BUY and order.quantity > stock.quantity:
        return Refusal.NOT_ENOUGH
    sold_to = stock.quantity + order.quantity if order.side is Side.SELL else stock.quantity
    if max(sold_to, stock.volume + order.quantity) > QUANTITY_MAX:
        return Refusal.TOO_MANY
    return None


def traded(stock: Stock, order: Order) -> Stock:
    """The stock after an order that nothing refuses, with the next version."""
    change = order.quantity if order.side is Side.SELL else -order.quantity
    return Stock(
        stock.name,
        stock.price_cents,
        stock.quantity + change,
        stock.volume + order.quantity,
        stock.version + 1,
        stock.initial_quantity,
    )


def check_conserved(stock: Stock) -> None:
    """Raise BrokenInvariant if shares have appeared or vanished. The numbers of shares bought and
    sold, which follow from quantity and volume, must both be whole and not negative.
    """
    net_sold = stock.quantity - stock.initial_quantity
    odd = (stock.volume + net_sold) % 2
    if stock.quantity < 0 or abs(net_sold) > stock.volume or odd:
        raise BrokenInvariant(f"shares are not conserved: {stock}")


def again(order: Order, before: Order, outcome: Outcome) -> Outcome:
    """The outcome of a key that was seen before."""
    return outcome if order.same_body(before) else Outcome(key_reused=True)


def evict(refused: dict[str, R], keys_max: int, oldest_ms: int) -> list[str]:
    """Forget the oldest refusals beyond a number, and all from before a time. Returns the keys."""
    surplus = len(refused) - keys_max
    if surplus <= 0 and (not refused or next(iter(refused.values())).at_ms >= oldest_ms):
        return []
    by_age = enumerate(refused.items())
    old = takewhile(lambda row: row[0] < surplus or row[1][1].at_ms < oldest_ms, by_age)
    keys = [key for _, (key, _) in old]
    for key in keys:
        del refused[key]
    return keys
