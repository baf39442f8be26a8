"""What the FastAPI peers answer: the same JSON as twstock."""

from typing import Any

from bench.systems import RECENT_ORDERS, STOCKS

PRICE_CENTS = 1599
QUANTITY = 100_000
TIME_MS = 1_767_225_600_000


def stock(name: str) -> dict[str, Any]:
    """A stock that nobody has traded."""
    price = PRICE_CENTS / 100
    return {"name": name, "price": price, "quantity": QUANTITY, "volume": 0, "version": 0}


def order(number: int) -> dict[str, Any]:
    """An order."""
    side = "sell" if number % 2 else "buy"
    return {
        "order_num": number, "name": STOCKS[0], "type": side, "quantity": 1,
        "price": PRICE_CENTS / 100, "version": number, "time_ms": TIME_MS,
    }  # fmt: skip


def dictionaries() -> tuple[dict[str, dict[str, Any]], dict[int, dict[str, Any]]]:
    """Every stock by name, and every order by number."""
    orders = {number: order(number) for number in range(1, RECENT_ORDERS + 1)}
    return {name: stock(name) for name in STOCKS}, orders
