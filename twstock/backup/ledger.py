"""What orders and changes make of the stocks, and in which sequence they can be carried out.

The rules are those of the catalog's state machine, which carries the orders and changes out again
when a cluster is restored. No backup is written that would break one, and none is read that does.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from twstock.backup.journal import End, Event
from twstock.catalog.administration import changed
from twstock.catalog.rules import refusal_of, traded
from twstock.errors import TwstockError
from twstock.market import ChangeKind, ChangeRefusal, ChangeRequest, Stock, StockChange, Trade


class Contradiction(TwstockError):
    """An order or a change does not follow from those before it."""


class Ledger:
    """The stocks at the beginning, and as the orders and changes so far have made them."""

    def __init__(self, stocks: Iterable[Stock]) -> None:
        """Raises Contradiction for a name that comes twice."""
        self._stocks: dict[str, Stock] = {}
        self._began = self._orders = self._changes = self._last_at_ms = 0
        for stock in stocks:
            self._add(stock)
            self._began += 1

    @property
    def end(self) -> End:
        """How many orders and changes there were so far, and stocks at the beginning."""
        return End(self._orders, self._changes, self._began)

    def stock(self, name: str) -> Stock | None:
        """A stock as it is now."""
        return self._stocks.get(name)

    def stocks(self) -> list[Stock]:
        """All stocks as they are now, by name."""
        return sorted(self._stocks.values())

    def carry_out(self, event: Event) -> None:
        """Carry out an order or a change. Raises Contradiction; then nothing has changed."""
        if isinstance(event, Trade):
            self._trade(event)
        else:
            self._change(event)

    def why_not(self, change: StockChange) -> str:
        """Why a change cannot be the next; empty: it can."""
        problem = self._changed(change)
        return "" if isinstance(problem, Stock) else problem

    def _trade(self, trade: Trade) -> None:
        number, order, version, price_cents, at_ms = trade
        stock = self._stocks.get(order.name)
        refusal = refusal_of(order, stock)
        if stock is None or refusal is not None:
            raise Contradiction(f"order {number}: {refusal}")
        wanted = (self._orders + 1, stock.version + 1, stock.price_cents)
        if (number, version, price_cents) != wanted or at_ms < self._last_at_ms:
            raise Contradiction(
                f"order {number} at {at_ms} ms makes version {version} of {order.name} for "
                f"{price_cents} cents; number, version and price have to be {wanted}, "
                f"the time not before {self._last_at_ms} ms"
            )
        self._stocks[order.name] = traded(stock, order)
        self._orders, self._last_at_ms = number, at_ms

    def _change(self, change: StockChange) -> None:
        after = self._changed(change)
        if not isinstance(after, Stock):
            raise Contradiction(after)
        self._changes, self._stocks[after.name] = change.number, after

    def _changed(self, change: StockChange) -> Stock | str:
        """The stock that a change makes, or why it cannot be the next."""
        number, kind, name, price_cents, quantity, version, _ = change
        if number != self._changes + 1:
            return f"change {number} cannot follow change {self._changes}"
        request = ChangeRequest("", kind, name, price_cents, quantity)
        after = changed(request, self._stocks.get(name))
        if isinstance(after, ChangeRefusal):
            return f"change {number} of {name}: {after}"
        if version != after.version:
            return f"change {number} makes version {version} of {name}, not {after.version}"
        return after

    def _add(self, stock: Stock) -> None:
        if stock.name in self._stocks:
            raise Contradiction(f"the stock {stock.name} begins twice")
        self._stocks[stock.name] = stock


def merge(
    ledger: Ledger, trades: Iterable[Trade], changes: Sequence[StockChange]
) -> Iterator[Event]:
    """Merge orders, by number, with changes, by number, into one sequence in which the ledger can
    carry them out. It has carried out each one before that is yielded.

    A change comes before an order of a later time, and before one whose stock's version shows that
    it does. Changes that only follow from orders after the last one are left out: they were made
    later than what the backup shows. Raises Contradiction when there is no such sequence.
    """
    waiting = deque(changes)
    for trade in trades:
        while waiting and _comes_first(ledger, waiting[0], trade):
            ledger.carry_out(waiting[0])
            yield waiting.popleft()
        ledger.carry_out(trade)
        yield trade
    while waiting and not ledger.why_not(waiting[0]):
        ledger.carry_out(waiting[0])
        yield waiting.popleft()


def _comes_first(ledger: Ledger, change: StockChange, trade: Trade) -> bool:
    """Whether the next change comes before the next order."""
    stock = ledger.stock(trade.order.name)
    if stock is None or stock.version + 1 < trade.version:
        return True
    return change.at_ms < trade.at_ms and not ledger.why_not(change)


def beginnings(
    stocks: Iterable[Stock],
    changes: Sequence[StockChange],
    first_prices_cents: Mapping[str, int],
) -> list[Stock]:
    """The stocks that a cluster began with, computed from their present state and all changes.

    ``first_prices_cents``: the price of the first order, for the stocks that
    ``traded_before_price`` names.
    """
    found = []
    for stock, made in _histories(stocks, changes):
        if any(change.kind is ChangeKind.ADD for change in made):
            continue
        restocked = sum(c.quantity for c in made if c.kind is ChangeKind.RESTOCK)
        prices = [c.price_cents for c in made if c.kind is ChangeKind.PRICE]
        price = first_prices_cents.get(stock.name, (*prices, stock.price_cents)[0])
        quantity = stock.initial_quantity - restocked
        found.append(Stock(stock.name, price, quantity, initial_quantity=quantity))
    return found


def traded_before_price(stocks: Iterable[Stock], changes: Sequence[StockChange]) -> set[str]:
    """The stocks that were traded before their price changed for the first time.

    Only their first order shows the price at which they began.
    """
    found = set()
    for stock, made in _histories(stocks, changes):
        before = next((k for k, c in enumerate(made) if c.kind is ChangeKind.PRICE), None)
        # A stock begins with version 0, and every order and every change adds one.
        began = before is not None and made[0].kind is not ChangeKind.ADD
        if before is not None and began and made[before].version > before + 1:
            found.add(stock.name)
    return found


def _histories(
    stocks: Iterable[Stock], changes: Iterable[StockChange]
) -> Iterator[tuple[Stock, list[StockChange]]]:
    """Every stock with the changes that made it what it is."""
    of: dict[str, list[StockChange]] = {}
    for change in changes:
        of.setdefault(change.name, []).append(change)
    for stock in stocks:
        yield stock, [c for c in of.get(stock.name, ()) if c.version <= stock.version]
