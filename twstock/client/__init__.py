"""The client for Python programs on Twisted; docs/client.md has running examples.

Every call is a coroutine: ``await`` it in an ``async def`` that ``twisted.internet.task.react`` or
``Deferred.fromCoroutine`` runs.
"""

from twstock.client.admin import Administrator
from twstock.client.answers import (
    ChangeRefused,
    NotAdministrator,
    OrderNotFound,
    Refused,
    StockNotFound,
)
from twstock.client.client import Client
from twstock.client.feed import Feed
from twstock.client.values import (
    BadAnswer,
    Change,
    Changed,
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
    "Administrator",
    "BadAnswer",
    "Change",
    "ChangeRefused",
    "Changed",
    "Changes",
    "Client",
    "Event",
    "Feed",
    "InvalidRequest",
    "KeyReused",
    "Leader",
    "Member",
    "NotAdministrator",
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
