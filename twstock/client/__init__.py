"""The client for Python programs on Twisted; docs/client.md has running examples.

Every call is a coroutine: ``await`` it in an ``async def`` that ``twisted.internet.task.react`` or
``Deferred.fromCoroutine`` runs.
"""

from twstock.client.answers import OrderNotFound, Refused, StockNotFound
from twstock.client.client import Client
from twstock.client.feed import Feed
from twstock.client.values import (
    BadAnswer,
    Change,
    Changes,
    Event,
    Leader,
    Member,
    Order,
    Placed,
    Reset,
    Stock,
    Stocks,
    Ticket,
    Trades,
)
from twstock.errors import (
    InvalidRequest,
    KeyReused,
    OutcomeUnknown,
    TwstockError,
    Unavailable,
    WrongUrl,
)
from twstock.market import Refusal, Side

__all__ = [
    "BadAnswer",
    "Change",
    "Changes",
    "Client",
    "Event",
    "Feed",
    "InvalidRequest",
    "KeyReused",
    "Leader",
    "Member",
    "Order",
    "OrderNotFound",
    "OutcomeUnknown",
    "Placed",
    "Refusal",
    "Refused",
    "Reset",
    "Side",
    "Stock",
    "StockNotFound",
    "Stocks",
    "Ticket",
    "Trades",
    "TwstockError",
    "Unavailable",
    "WrongUrl",
]
