"""What the commands of the catalog's log result in, and what they change: plain values."""

from dataclasses import dataclass, field
from typing import NamedTuple

from twstock.market import BatchResult, Order, Outcome, Refusal, Stock, Trade
from twstock.rpc.calls import ExecutedTrades


@dataclass(frozen=True, slots=True)
class Seeded:
    """The result of a Seed: how many stocks it added, 0 when there were some already."""

    stocks: int


@dataclass(frozen=True, slots=True)
class Stale:
    """The result of a command of a replaced order leader, or of a batch out of turn: it did
    not execute and changed nothing.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The result of a command which proves that a group has lost what it promised.

    Nothing changed, and nothing can go on before somebody has looked at it.
    """

    reason: str


Result = BatchResult | ExecutedTrades | Outcome | Seeded | Stale | Lost


class RefusedOrder(NamedTuple):
    """A refusal that is remembered, so that a late copy cannot execute after all."""

    order: Order
    refusal: Refusal
    at_ms: int


@dataclass(frozen=True, slots=True)
class AppliedBatch:
    """The last batch of the present epoch; number 0: none yet."""

    number: int = 0
    orders: tuple[Order, ...] = ()
    outcomes: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What one command changed, for the tables: all of it, or nothing, is saved.

    ``stocks`` are as they are now; ``evicted`` are keys of refused orders; trades up to
    ``recorded`` are forgotten. The rest replaces what stood there before.
    """

    stocks: tuple[Stock, ...]
    executed: tuple[Trade, ...]
    refused: tuple[RefusedOrder, ...]
    evicted: tuple[str, ...]
    fence: int
    batch: AppliedBatch
    recorded: int
    last_number: int
    last_at_ms: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole state as one value; ``refused`` from the oldest to the newest."""

    stocks: tuple[Stock, ...] = ()
    kept: tuple[Trade, ...] = ()
    refused: tuple[RefusedOrder, ...] = ()
    fence: int = 0
    batch: AppliedBatch = field(default_factory=AppliedBatch)
    recorded: int = 0
    last_number: int = 0
    last_at_ms: int = 0
    digest: bytes = b""
