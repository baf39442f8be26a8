"""Results of the commands in the catalog's log, and what these change: plain values."""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from twstock.market import (
    ChangeRefusal,
    ChangeRequest,
    Order,
    Outcome,
    Refusal,
    RefusalBounds,
    Stock,
    StockChange,
    Trade,
)

_ESCAPED = re.compile(r"\\(?:x([89a-f].)|u(.{4})|U(.{8})|.)")
"""The escapes of ``ascii``: of a character beyond ASCII, its code in a group, or any other."""


@dataclass(frozen=True, slots=True)
class Seeded:
    """The result of a Seed: how many stocks it added, 0 when there were some already."""

    stocks: int


@dataclass(frozen=True, slots=True)
class Stale:
    """The result of a command of a replaced order leader, or of a batch out of turn: it did not
    execute, and nothing changed.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The result of a command which proves that a group has lost what it promised: the catalogs if
    ``of_catalog``, else the order replicas.

    Nothing changed, and nothing can go on before an operator has looked at it.
    """

    reason: str
    of_catalog: bool = False


class RefusedOrder(NamedTuple):
    """A refusal that is remembered, so that a late copy cannot execute after all."""

    order: Order
    refusal: Refusal
    at_ms: int


class KeyedChange(NamedTuple):
    """A change that was made, and the key of its request, which is remembered for ever."""

    key: str
    change: StockChange


class RefusedChange(NamedTuple):
    """A refusal of a change that is remembered, as that of an order is."""

    request: ChangeRequest
    refusal: ChangeRefusal
    at_ms: int


@dataclass(frozen=True, slots=True)
class Administered:
    """What one command changed in ``Administration``. For most commands that is nothing, and they
    leave it out of the digest, which for them is as it was before there were changes of stocks.
    """

    made: tuple[KeyedChange, ...] = ()
    refused: tuple[RefusedChange, ...] = ()
    evicted: tuple[str, ...] = ()

    def decided(self) -> tuple[object, ...]:
        """What was decided, as numbers and strings."""
        return (
            [(m.key, m.change.number, m.change.kind.value, *m.change[2:]) for m in self.made],
            [(r.request.key, r.refusal.value) for r in self.refused],
            self.evicted,
        )


NOT_ADMINISTERED = Administered()


@dataclass(frozen=True, slots=True)
class AppliedBatch:
    """The last batch of the present epoch; number 0: none yet."""

    number: int = 0
    orders: tuple[Order, ...] = ()
    outcomes: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What one command changed, for the tables: all of it is saved, or nothing.

    ``stocks`` are in their new state; ``evicted`` are the keys of refused orders that are
    forgotten, as are trades up to ``recorded``; ``bounds`` come with the Seed. The other fields
    replace their previous values.
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
    administered: Administered = NOT_ADMINISTERED
    bounds: RefusalBounds | None = None

    def decided(self) -> tuple[object, ...]:
        """What was decided, as numbers and strings, for the digest; the entry has the rest."""
        trading = (
            [(s.name, s.quantity, s.volume, s.version) for s in self.stocks],
            [(t.number, t.order.key) for t in self.executed],
            [(r.order.key, r.refusal.value) for r in self.refused],
            self.evicted,
            (self.fence, self.batch.number, self.recorded),
            (self.last_number, self.last_at_ms),
        )
        if self.administered is NOT_ADMINISTERED:
            return trading
        return (*trading, self.administered.decided())


@dataclass(frozen=True, slots=True)
class CatalogRows:
    """The whole state, as the tables hold it; refusals are from the oldest to the newest."""

    stocks: tuple[Stock, ...] = ()
    kept: tuple[Trade, ...] = ()
    refused: tuple[RefusedOrder, ...] = ()
    fence: int = 0
    batch: AppliedBatch = field(default_factory=AppliedBatch)
    recorded: int = 0
    last_number: int = 0
    last_at_ms: int = 0
    digest: bytes = b""
    changes: tuple[KeyedChange, ...] = ()
    refused_changes: tuple[RefusedChange, ...] = ()
    bounds: RefusalBounds | None = None


@dataclass(slots=True)
class Draft:
    """What a command has changed so far."""

    stocks: dict[str, Stock] = field(default_factory=dict)
    executed: list[Trade] = field(default_factory=list)
    refused: dict[str, RefusedOrder] = field(default_factory=dict)
    evicted: list[str] = field(default_factory=list)
    made: list[KeyedChange] = field(default_factory=list)
    refused_changes: dict[str, RefusedChange] = field(default_factory=dict)
    evicted_changes: list[str] = field(default_factory=list)
    bounds: RefusalBounds | None = None

    def administered(self) -> Administered:
        """What it has changed in ``Administration``."""
        if not self.made and not self.refused_changes and not self.evicted_changes:
            return NOT_ADMINISTERED
        refused = tuple(self.refused_changes.values())
        return Administered(tuple(self.made), refused, tuple(self.evicted_changes))


def spelled(decided: tuple[object, ...]) -> bytes:
    """What was decided as ``repr`` writes it, but with no character beyond ASCII escaped: ``repr``
    escapes those that are not printable, and these differ between versions of Python, so two
    members would come to different digests.
    """
    text = ascii(decided)
    if "\\" in text:
        text = _ESCAPED.sub(_unescaped, text)
    return text.encode()


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[found.lastindex], 16)) if found.lastindex else found[0]
