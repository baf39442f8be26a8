"""Random histories of stocks: orders and changes as a cluster would have carried them out."""

from hypothesis import strategies as st

from twstock.backup.journal import Header, encode
from twstock.backup.ledger import Contradiction, Ledger
from twstock.backup.sealed import sealed
from twstock.market import ChangeKind, Order, Side, Stock, StockChange, Trade

NAMES = ["A", "B", "=C()", "Déjà vu", "new"]
BEGAN = tuple(Stock(name, 100, 20, initial_quantity=20) for name in NAMES[:4])


class History:
    """The ``events`` that happened, in sequence, and the stocks after them: ``ledger``."""

    def __init__(self, began=BEGAN):
        self.began = began
        self.ledger = Ledger(began)
        self.events = []
        self.now_ms = 1_767_225_600_000

    @property
    def trades(self):
        """The orders, by number."""
        return [event for event in self.events if isinstance(event, Trade)]

    @property
    def changes(self):
        """The changes, by number."""
        return [event for event in self.events if isinstance(event, StockChange)]

    def attempt(self, step):
        """Carry out a step, if that is possible."""
        kind, name, number, pause_ms = step
        stock = self.ledger.stock(name)
        version = stock.version + 1 if stock else 1
        self.now_ms += pause_ms
        if kind in (Side.BUY, Side.SELL):
            place = len(self.trades) + 1
            order = Order(f"key {place}", name, kind, number)
            event = Trade(place, order, version, stock.price_cents if stock else 0, self.now_ms)
        else:
            place = len(self.changes) + 1
            price = number if kind in (ChangeKind.ADD, ChangeKind.PRICE) else 0
            quantity = number if kind in (ChangeKind.ADD, ChangeKind.RESTOCK) else 0
            event = StockChange(place, kind, name, price, quantity, version, self.now_ms)
        try:
            self.ledger.carry_out(event)
        except Contradiction:
            return
        self.events.append(event)


def histories(kinds=(*Side, *ChangeKind), began=BEGAN):
    """Any history of steps of some kinds; several may fall into one millisecond."""
    steps = st.tuples(
        st.sampled_from(kinds),
        st.sampled_from(NAMES),
        st.integers(1, 12),
        st.sampled_from([0, 0, 1, 5]),
    )

    def happened(attempts):
        history = History(began)
        for step in attempts:
            history.attempt(step)
        return history

    return st.lists(steps, max_size=40).map(happened)


def lines(history):
    """A backup of a history, line by line."""
    yield encode(Header("of a test", 1, len(history.trades)))
    yield from map(encode, history.began)
    yield from map(encode, history.events)
    yield encode(history.ledger.end)


def backup_of(history):
    """A backup of a history, as the bytes of a file."""
    return b"".join(sealed(lines(history)))
