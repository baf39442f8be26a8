"""Changes of stocks by administrators: add, restock, set the price, halt, resume. Pure.

A part of the catalog's state machine. A change needs no fence, because only the catalog numbers
changes: it takes effect at its place in the log. **Why it is made once**, however often it is asked
for: its key is remembered for ever. **Why a refusal is final**, although its reason may pass: its
key is remembered as long as that of a refused order, within the same bounds, so that no late copy
of the request takes effect.
"""

from collections.abc import Iterable, Sequence

from twstock.catalog.changes import KeyedChange, RefusedChange
from twstock.errors import CorruptStorage
from twstock.market import (
    QUANTITY_MAX,
    ChangeKind,
    ChangeOutcome,
    ChangeRefusal,
    ChangeRequest,
    Stock,
    StockChange,
)


class Administration:
    """The changes that were made, in the sequence of their numbers, and the refused ones."""

    def __init__(self, changes: Sequence[KeyedChange], refused: Iterable[RefusedChange]) -> None:
        """Raises CorruptStorage when a number is missing."""
        if [keyed.change.number for keyed in changes] != list(range(1, len(changes) + 1)):
            raise CorruptStorage("the changes of stocks have gaps")
        self._made = [keyed.change for keyed in changes]
        self._keys = {keyed.key: keyed.change for keyed in changes}
        self.refused = {refused.request.key: refused for refused in refused}

    @property
    def last_number(self) -> int:
        """How many changes were made: the number of the last one."""
        return len(self._made)

    def page(self, after: int, limit: int) -> tuple[StockChange, ...]:
        """Up to ``limit`` changes after a number."""
        return tuple(self._made[after : after + limit])

    def known(self, request: ChangeRequest) -> ChangeOutcome | None:
        """The earlier outcome of a request's key; None if the key is new."""
        change = self._keys.get(request.key)
        if change is not None:
            same, outcome = change.is_of(request), ChangeOutcome(change=change, replayed=True)
            return outcome if same else ChangeOutcome(key_reused=True)
        before = self.refused.get(request.key)
        if before is None:
            return None
        same = before.request == request
        outcome = ChangeOutcome(refusal=before.refusal, replayed=True)
        return outcome if same else ChangeOutcome(key_reused=True)

    def make(self, request: ChangeRequest, version: int, at_ms: int) -> KeyedChange:
        """Number and remember a change, which makes this version of its stock."""
        number = len(self._made) + 1
        change = StockChange(number, *request[1:], version, at_ms)
        self._made.append(change)
        self._keys[request.key] = change
        return KeyedChange(request.key, change)

    def refuse(self, request: ChangeRequest, refusal: ChangeRefusal, at_ms: int) -> RefusedChange:
        """Remember that a change was refused."""
        refused = self.refused[request.key] = RefusedChange(request, refusal, at_ms)
        return refused


def changed(request: ChangeRequest, stock: Stock | None) -> Stock | ChangeRefusal:
    """The stock after a change, with the next version; or why the change is refused."""
    if request.kind is ChangeKind.ADD:
        if stock is not None:
            return ChangeRefusal.EXISTS
        shares = request.quantity
        return Stock(request.name, request.price_cents, shares, 0, 1, initial_quantity=shares)
    if stock is None:
        return ChangeRefusal.UNKNOWN_STOCK
    after = stock._replace(version=stock.version + 1)
    match request.kind:
        case ChangeKind.RESTOCK:
            return _restocked(after, request.quantity)
        case ChangeKind.PRICE:
            return after._replace(price_cents=request.price_cents)
        case ChangeKind.HALT:
            return ChangeRefusal.HALTED if stock.halted else after._replace(halted=True)
        case ChangeKind.RESUME:
            return after._replace(halted=False) if stock.halted else ChangeRefusal.NOT_HALTED


def _restocked(stock: Stock, shares: int) -> Stock | ChangeRefusal:
    """Add shares, which were neither bought nor sold: they count as if there from the start."""
    quantity, initial = stock.quantity + shares, stock.initial_quantity + shares
    if max(quantity, initial) > QUANTITY_MAX:
        return ChangeRefusal.TOO_MANY
    return stock._replace(quantity=quantity, initial_quantity=initial)


def halted_names(changes: Iterable[StockChange]) -> set[str]:
    """The stocks that are halted after these changes. ``changes`` must begin with the first ever
    made.
    """
    halted: set[str] = set()
    for change in changes:
        if change.kind is ChangeKind.HALT:
            halted.add(change.name)
        elif change.kind is ChangeKind.RESUME:
            halted.discard(change.name)
    return halted
