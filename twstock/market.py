"""The words of the domain: stocks, orders, trades, refusals, and changes of the stocks.

Inside, money is always an integer number of cents; it has two decimals only outside. Quantities
count shares. Every value is immutable. Those that are made several times for a trade are tuples:
making a tuple takes less than half the time of a frozen dataclass, and with ``map`` a quarter.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

QUANTITY_MAX = 2**53 - 1
"""The largest quantity of an order, a stock or a volume: the largest integer that every
JSON reader keeps exact (RFC 8259 section 6)."""

PRICE_CENTS_MAX = 10**15 - 1
"""The highest price: thirteen digits and two decimals, exact as a float with two decimals."""

CALL_ITEMS_MAX = 4096
"""The most orders, names or versions of stocks, or log entries in one call; a call with more is
refused. Not a setting: members accept what the others send while settings are changed one member
at a time, so no member's own ``batch_orders_max`` can bind the others."""

KEY_CHARS_MAX = 255
NAME_CHARS_MAX = 255
NAME_RULE = f"1 to {NAME_CHARS_MAX} printable characters, no blanks around them, not . or .."
REQUEST_ID_CHARS_MAX = 128


class Side(StrEnum):
    """Which way an order trades, in the words of the API's ``type``."""

    BUY = "buy"
    SELL = "sell"


SIDES = {str(side): side for side in Side}
"""Every side by its word: looking it up here is ten times as fast as ``Side(word)``."""


_PRICE = re.compile(r"[0-9]{1,13}(\.[0-9]{1,2})?", re.ASCII)


class Refusal(StrEnum):
    """Why an order was refused, in the words of the API. A refusal never takes effect later."""

    UNKNOWN_TYPE = "invalid transaction type"
    UNKNOWN_STOCK = "invalid stock name"
    NOT_POSITIVE = "num stocks traded should be non negative"
    NOT_ENOUGH = "not enough stocks left to buy"
    TOO_MANY = "the quantity or volume of the stock would exceed 9007199254740991"
    HALTED = "trading in this stock is halted"


STOCK_NOT_FOUND = "stock not found"
ORDER_NOT_FOUND = "Transaction number not found"


class Stock(NamedTuple):
    """One stock of the catalog.

    ``volume`` counts the shares traded so far, both ways; ``version`` grows by one with each
    executed trade and each change; ``initial_quantity`` is what it started with and all that
    was added since, so that ``quantity == initial_quantity - bought + sold`` can be checked
    from outside. A ``halted`` stock is not traded.
    """

    name: str
    price_cents: int
    quantity: int
    volume: int = 0
    version: int = 0
    initial_quantity: int = 0
    halted: bool = False


def is_stock_name(name: str) -> bool:
    """Whether a stock may have this name: ``NAME_RULE``. In a URL ``.`` and ``..``, also
    percent-encoded, lead to another path (WHATWG URL, section 4.4): nobody could look them up.
    """
    is_readable = name.isprintable() and name == name.strip()
    return 0 < len(name) <= NAME_CHARS_MAX and is_readable and name not in (".", "..")


class Order(NamedTuple):
    """What a client asks for. The key names the request: it executes at most once."""

    key: str
    name: str
    side: Side
    quantity: int

    def same_body(self, other: "Order") -> bool:
        """Whether both orders are the same but for their keys."""
        return self[1:] == other[1:]


class Trade(NamedTuple):
    """One executed order. ``number`` is its place among all trades and its transaction number.

    ``version`` is the stock's version that the trade made; ``at_ms`` is the log's time, to be
    shown: the latest wall time, in milliseconds since 1970, that a leader had stamped until then.
    """

    number: int
    order: Order
    version: int
    price_cents: int
    at_ms: int


class Outcome(NamedTuple):
    """What became of one order: executed (``trade``), refused, or its key reused.

    Exactly one of the three is set. ``replayed``: it is remembered from an earlier request.
    """

    trade: Trade | None = None
    refusal: Refusal | None = None
    key_reused: bool = False
    replayed: bool = False


class Verdict(NamedTuple):
    """An Outcome without the order, which the caller has: ``number`` 0 and an empty ``refusal``
    for what does not apply.
    """

    number: int = 0
    version: int = 0
    price_cents: int = 0
    at_ms: int = 0
    refusal: str = ""
    key_reused: bool = False
    replayed: bool = False

    @classmethod
    def of(cls, outcome: Outcome) -> "Verdict":
        """The verdict of an outcome."""
        trade = outcome.trade
        if trade is None:
            return cls(0, 0, 0, 0, outcome.refusal or "", outcome.key_reused, outcome.replayed)
        number, _, version, price_cents, at_ms = trade
        return cls(number, version, price_cents, at_ms, "", False, outcome.replayed)

    def on(self, order: Order) -> Outcome:
        """The outcome of the order that this is about. Raises ValueError if nothing is set."""
        if self.number:
            trade = Trade(self.number, order, self.version, self.price_cents, self.at_ms)
            return Outcome(trade, None, False, self.replayed)
        if not self.refusal and not self.key_reused:
            raise ValueError("neither executed nor refused")
        refusal = Refusal(self.refusal) if self.refusal else None
        return Outcome(None, refusal, self.key_reused, self.replayed)


@dataclass(frozen=True, slots=True)
class Batch:
    """Orders that an order leader asks the catalog to execute, in order, as one log entry.

    ``epoch`` is the order leader's term; ``number`` counts the batches of that epoch from 1;
    ``recorded`` is the highest transaction number that the order log has committed, up to
    which the catalog may forget trades; ``known`` the highest whose trade the leader has learnt;
    ``at_ms`` the leader's wall time, which the log's time follows, but never backwards.
    """

    epoch: int
    number: int
    recorded: int
    known: int
    at_ms: int
    orders: tuple[Order, ...]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One outcome for each order of a batch, in order.

    ``others`` are executed trades after the batch's ``known`` that are not of the batch: direct
    trades, which take transaction numbers too. ``unpublished`` are the versions, by the stock's
    name, that a cache may still hide. That is no part of what was decided, but no outcome for
    these stocks may be answered before it is over.
    """

    outcomes: tuple[Outcome, ...]
    others: tuple[Trade, ...] = ()
    unpublished: Mapping[str, int] = field(default_factory=dict, hash=False)


def decimal_price(price_cents: int) -> float:
    """The price as the API shows it: the float nearest to two decimals."""
    return round(price_cents / 100, 2)


def price_text(price_cents: int) -> str:
    """The price with two decimals, exactly."""
    return f"{price_cents // 100}.{price_cents % 100:02}"


def cents_of(text: str) -> int | None:
    """The cents of a price in digits, two decimals at most; None if the text is not a price."""
    return int(Decimal(text) * 100) if _PRICE.fullmatch(text) else None


class RefusalBounds(NamedTuple):
    """How many refused requests the catalog remembers by their keys, and for how long (by the
    log's time).
    """

    keys_max: int
    age_ms: int

    @classmethod
    def of(cls, keys_max: int, age_s: float) -> "RefusalBounds":
        """With the age in seconds, as it is configured."""
        return cls(keys_max, round(age_s * 1000))


@dataclass(frozen=True, slots=True)
class Seed:
    """The command that fills an empty catalog; it changes nothing in any other.

    ``bounds`` hold for the whole life of the catalog, because what is remembered decides what
    executes: every replica has to forget the same. None in logs older than this field.
    """

    stocks: tuple[Stock, ...]
    bounds: RefusalBounds | None = None


@dataclass(frozen=True, slots=True)
class BeginEpoch:
    """The command that raises the catalog's fence, so that no batch of an older epoch executes.

    ``after`` is the highest transaction number that the new order leader knows; the answer
    lists every executed trade after it.
    """

    epoch: int
    after: int


@dataclass(frozen=True, slots=True)
class DirectTrade:
    """The command for a trade made at the catalog itself, outside any epoch."""

    order: Order
    at_ms: int


class ChangeKind(StrEnum):
    """What an administrator does to a stock, in the words of the API."""

    ADD = "add"
    RESTOCK = "restock"
    PRICE = "price"
    HALT = "halt"
    RESUME = "resume"


class ChangeRefusal(StrEnum):
    """Why a change was refused, in the words of the API. It never takes effect later."""

    UNKNOWN_STOCK = "stock not found"
    EXISTS = "stock exists already"
    HALTED = "already halted"
    NOT_HALTED = "not halted"
    TOO_MANY = "the quantity of the stock would exceed 9007199254740991"
    TOO_MANY_STOCKS = "there are as many stocks as there may be (limits.stocks_max)"
    TOO_MANY_CHANGES = "as many changes are kept as may be (limits.changes_max)"


class ChangeRequest(NamedTuple):
    """What an administrator asks for. The key names the request: it is done at most once.

    ``price_cents`` is set for ADD and PRICE, ``quantity`` (how many shares there are, or how
    many more) for ADD and RESTOCK; otherwise they are 0.
    """

    key: str
    kind: ChangeKind
    name: str
    price_cents: int = 0
    quantity: int = 0


class StockChange(NamedTuple):
    """One change that was made. ``number`` is its place among all changes, 1, 2, 3, ...;
    ``version`` is the stock's version that it made; ``at_ms`` is the log's time, as in a Trade.
    """

    number: int
    kind: ChangeKind
    name: str
    price_cents: int
    quantity: int
    version: int
    at_ms: int

    def is_of(self, request: ChangeRequest) -> bool:
        """Whether this change is what a request asks for, whatever its key."""
        return self[1:5] == request[1:]


class ChangeOutcome(NamedTuple):
    """What became of a ChangeRequest: made (``change``), refused, or its key reused.

    Exactly one of the three is set. ``replayed``: it is remembered from an earlier request.
    """

    change: StockChange | None = None
    refusal: ChangeRefusal | None = None
    key_reused: bool = False
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class ChangeStock:
    """The command for a change of one stock, outside any epoch."""

    request: ChangeRequest
    at_ms: int


CatalogCommand = Seed | Batch | BeginEpoch | DirectTrade | ChangeStock


def parse_order(key: str, name: str, side: str, quantity: int) -> Order | Refusal:
    """The order that the fields of a request describe, or why they describe none.

    The checks and their sequence are the original's: type, quantity, name. Whether a stock of that
    name exists is for the catalog to decide.
    """
    return refusal_of_words(name, side, quantity) or Order(key, name, SIDES[side], quantity)


def refusal_of_words(name: str, side: str, quantity: int) -> Refusal | None:
    """Why the fields of a request describe no order; None if they do describe one."""
    if side not in SIDES:
        return Refusal.UNKNOWN_TYPE
    if quantity < 1:
        return Refusal.NOT_POSITIVE
    return None if 0 < len(name) <= NAME_CHARS_MAX else Refusal.UNKNOWN_STOCK
