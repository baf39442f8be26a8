"""The words of the benchmark: a request, a work, a system that does it, and what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

Address = tuple[str, int]

STOCKS = (
    "GameStart", "FishCo", "BoarCo", "MenhirCo", "RottenFishCo", "AAPL",
    "AMZN", "GOOGL", "META", "NVDA", "NFLX", "ToyStonks",
)  # fmt: skip
"""The stocks of every peer; those that twstock starts with."""
LOOKUP_STOCK = "AAPL"
TRADE_STOCK = "GameStart"
RECENT_ORDERS = 100
BUSY_CONNECTIONS = 64
"""The number of clients where only one number is measured."""
STOCK_UP = 1000
"""Sold before the measurement, so that no trade is ever refused."""


class Work(StrEnum):
    """What a system is asked to do."""

    LOOKUP = "cached lookup"
    ORDER = "recent order"
    TRADE = "trade"
    MISS = "lookup that misses"


class Missing(Exception):
    """A peer is not installed; the message says what to install."""


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, the same bytes whichever generator sends it."""

    method: str
    path: str
    body: bytes = b""

    def wire(self) -> bytes:
        """The request on the wire."""
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: bench\r\n"
        if self.body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(self.body)}\r\n"
        return f"{head}\r\n".encode() + self.body


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of one run; latencies in milliseconds. ``errors``: not 200, or no answer."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    requests: int
    errors: int


@dataclass(frozen=True, slots=True)
class System:
    """A server that is up, and the requests that make it do each work, sent in turn."""

    name: str
    address: Address
    requests: Mapping[Work, Sequence[Request]]


def order(name: str, side: str, quantity: int = 1) -> Request:
    """The request that places an order."""
    body = f'{{"name":"{name}","quantity":{quantity},"type":"{side}"}}'
    return Request("POST", "/orders", body.encode())


def lookups() -> list[Request]:
    """Lookups of one stock, which stays in a cache."""
    return [Request("GET", f"/stocks/{LOOKUP_STOCK}")]


def misses() -> list[Request]:
    """Lookups of all stocks in turn."""
    return [Request("GET", f"/stocks/{name}") for name in STOCKS]


def recent_orders() -> list[Request]:
    """Queries of the orders that were placed first, which are recent enough to be in memory."""
    return [Request("GET", f"/orders/{number}") for number in range(1, RECENT_ORDERS + 1)]


def trades() -> list[Request]:
    """Sell and buy in turn, so that the stock never runs out."""
    return [order(TRADE_STOCK, "sell"), order(TRADE_STOCK, "buy")]


def plural(count: int, noun: str) -> str:
    """A number of things in words."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
