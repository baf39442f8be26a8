"""What the typed client takes and returns: stocks, orders, changes, members, events of the feed.

Money is a ``Decimal`` with the digits that the server wrote, never a float. Every value is a
named tuple. Fields that this version does not know are ignored, so that a newer server can send
more; a missing field raises ``BadAnswer``.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple, Self

from twstock.errors import TwstockError
from twstock.market import SIDES, Side


class BadAnswer(TwstockError):
    """The answer is not a front-end's, or is one that this client does not understand."""


class Stock(NamedTuple):
    """A stock. ``volume`` counts the shares traded so far, both ways; ``version`` grows with each
    trade and each change; a ``halted`` one cannot be traded.
    """

    name: str
    price: Decimal
    quantity: int
    volume: int
    version: int
    halted: bool = False


class Order(NamedTuple):
    """An executed order. ``version`` is the stock's version that it made, ``time_ms`` wall time in
    milliseconds since 1970.
    """

    number: int
    name: str
    side: Side
    quantity: int
    price: Decimal
    version: int
    time_ms: int


class Ticket(NamedTuple):
    """An order to be placed. Without a ``key`` the client makes one."""

    name: str
    quantity: int
    side: Side
    key: str | None = None

    @classmethod
    def buy(cls, name: str, quantity: int, key: str | None = None) -> Self:
        """A ticket to buy."""
        return cls(name, quantity, Side.BUY, key)

    @classmethod
    def sell(cls, name: str, quantity: int, key: str | None = None) -> Self:
        """A ticket to sell."""
        return cls(name, quantity, Side.SELL, key)


class Placed(NamedTuple):
    """An order that was executed under a transaction number. ``replayed``: an earlier request with
    the same ``key`` did it, perhaps one of this client's own that was never answered.
    """

    number: int
    replayed: bool
    key: str


class Change(NamedTuple):
    """A change that an administrator made. ``kind`` is ``add``, ``restock``, ``price``, ``halt`` or
    ``resume``; ``price`` and ``quantity`` are set where the kind has them.
    """

    number: int
    kind: str
    name: str
    price: Decimal | None
    quantity: int | None
    version: int
    time_ms: int


class Changed(NamedTuple):
    """A change that was made, and the stock as lookups show it now. ``replayed``: an earlier
    request with the same ``key`` made it.
    """

    number: int
    stock: Stock
    replayed: bool
    key: str


class Member(NamedTuple):
    """A member of the cluster; what is not known of it is None. ``lag`` counts log entries."""

    service: str
    id: int
    address: str
    alive: bool
    role: str | None = None
    term: int | None = None
    last_transaction: int | None = None
    commit: int | None = None
    lag: int | None = None
    pid: int | None = None
    uptime_s: float | None = None


class Trades(NamedTuple):
    """Orders that were executed, in the sequence of their numbers, each exactly once.

    ``cursor`` of this and every other event is where a feed goes on after it.
    """

    cursor: str
    orders: tuple[Order, ...]


class Stocks(NamedTuple):
    """The newest state of each stock that changed."""

    cursor: str
    stocks: tuple[Stock, ...]


class Changes(NamedTuple):
    """What administrators changed, in the sequence of the changes' numbers, each exactly once."""

    cursor: str
    changes: tuple[Change, ...]


class Leader(NamedTuple):
    """Which replica leads a group (``order`` or ``catalog``); None while that is not known."""

    cursor: str
    group: str
    leader_id: int | None
    term: int


class Reset(NamedTuple):
    """The feed cannot continue where this client was: load everything again, then go on."""

    cursor: str


Event = Trades | Stocks | Changes | Leader | Reset


def stock(row: Any) -> Stock:
    """A stock as the API shows it."""
    return Stock(
        _text(row, "name"),
        _number(row, "price"),
        _count(row, "quantity"),
        _count(row, "volume"),
        _count(row, "version"),
        _fields(row).get("halted") is True,
    )


def order(row: Any) -> Order:
    """An executed order as the API shows it."""
    side = SIDES.get(_text(row, "type"))
    if side is None:
        raise BadAnswer(f"type: expected buy or sell, got {row['type']!r}")
    return Order(
        _count(row, "order_num"),
        _text(row, "name"),
        side,
        _count(row, "quantity"),
        _number(row, "price"),
        _count(row, "version"),
        _count(row, "time_ms"),
    )


def change(row: Any) -> Change:
    """A change as the API shows it."""
    fields = _fields(row)
    return Change(
        _count(row, "change_number"),
        _text(row, "kind"),
        _text(row, "name"),
        None if fields.get("price") is None else _number(row, "price"),
        None if fields.get("quantity") is None else _count(row, "quantity"),
        _count(row, "version"),
        _count(row, "timestamp_ms"),
    )


def changed(row: Any, replayed: bool, key: str) -> Changed:
    """The outcome of a change."""
    return Changed(_count(row, "change_number"), stock(member_of(row, "stock")), replayed, key)


def member(row: Any) -> Member:
    """A row of ``GET /cluster``."""
    fields = _fields(row)
    counts = (name for name in Member._fields[5:] if name != "uptime_s")
    known = {name: None if fields.get(name) is None else _count(row, name) for name in counts}
    return Member(
        _text(row, "service"),
        _count(row, "id"),
        _text(row, "address"),
        fields.get("alive") is True,
        None if fields.get("role") is None else _text(row, "role"),
        **known,
        uptime_s=None if fields.get("uptime_s") is None else float(_number(row, "uptime_s")),
    )


def placed_number(row: Any) -> int:
    """The number under which an order was executed."""
    return _count(row, "transaction_number")


def status_of(row: Any) -> int:
    """The status of one order of a batch."""
    return _count(row, "status")


def event(kind: str, data: Any, cursor: str) -> Event | None:
    """An event of the feed from its JSON; None for a kind that this version does not know."""
    match kind:
        case "trades":
            return Trades(cursor, tuple(order(row) for row in rows(data, "trades")))
        case "stocks":
            return Stocks(cursor, tuple(stock(row) for row in rows(data, "stocks")))
        case "changes":
            return Changes(cursor, tuple(change(row) for row in rows(data, "changes")))
        case "leader":
            known = member_of(data, "leader_id") is not None
            leader_id = _count(data, "leader_id") if known else None
            return Leader(cursor, _text(data, "group"), leader_id, _count(data, "term"))
        case "reset":
            return Reset(cursor)
    return None


def rows(body: Any, name: str) -> list[Any]:
    """The list that an object has under a name."""
    value = member_of(body, name)
    if not isinstance(value, list):
        raise BadAnswer(f"{name}: expected a list, got {type(value).__name__}")
    return value


def member_of(body: Any, name: str) -> Any:
    """What an object has under a name."""
    fields = _fields(body)
    if name not in fields:
        raise BadAnswer(f"{name}: missing")
    return fields[name]


def _fields(row: Any) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise BadAnswer(f"expected a JSON object, got {type(row).__name__}")
    return row


def _text(row: Any, name: str) -> str:
    value = member_of(row, name)
    if not isinstance(value, str):
        raise BadAnswer(f"{name}: expected a text, got {type(value).__name__}")
    return value


def _count(row: Any, name: str) -> int:
    value = member_of(row, name)
    if type(value) is not int:
        raise BadAnswer(f"{name}: expected an integer, got {type(value).__name__}")
    return value


def _number(row: Any, name: str) -> Decimal:
    value = member_of(row, name)
    if type(value) not in (int, Decimal):
        raise BadAnswer(f"{name}: expected a number, got {type(value).__name__}")
    return Decimal(value)
