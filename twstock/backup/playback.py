"""Reads a backup from its first line to its last and checks each against those before it."""

from collections.abc import Iterable, Iterator

from twstock.backup.journal import Event, Header, Line, decode
from twstock.backup.ledger import Contradiction, Ledger
from twstock.backup.sealed import Damaged, unsealed
from twstock.market import Stock, StockChange, Trade


class Playback:
    """A backup that is being read. ``ledger`` has the stocks as the events so far made them.

    Only when all events have been read is the backup known to be complete and undamaged.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        """Read the beginning. Raises Damaged or NewerFormat."""
        self._read = 0
        self._lines = self._decoded(chunks)
        header = self._next()
        if not isinstance(header, Header):
            raise self._damaged("it does not begin a backup")
        self.header = header
        self.stocks: list[Stock] = []
        self._line = self._next()
        while isinstance(self._line, Stock):
            self.stocks.append(self._line)
            self._line = self._next()
        if not self.stocks:
            raise self._damaged("it begins without a stock")
        try:
            self.ledger = Ledger(self.stocks)
        except Contradiction as error:
            raise self._damaged(error) from None

    def events(self) -> Iterator[Event]:
        """Every order and change, which the ledger has carried out by then. Raises Damaged."""
        line = self._line
        while isinstance(line, Trade | StockChange):
            try:
                self.ledger.carry_out(line)
            except Contradiction as error:
                raise self._damaged(error) from None
            yield line
            line = self._next()
        end = self.ledger.end
        if line != end or end.orders != self.header.last_transaction:
            raise self._damaged(f"{line} does not end a backup with {end}")
        if next(self._lines, None) is not None:
            raise self._damaged("something follows the end")

    def _decoded(self, chunks: Iterable[bytes]) -> Iterator[Line]:
        for content in unsealed(chunks):
            self._read += 1
            try:
                line = decode(content)
            except Damaged as error:
                raise self._damaged(error) from None
            yield line

    def _next(self) -> Line:
        line = next(self._lines, None)
        if line is None:
            raise Damaged("it has no end")
        return line

    def _damaged(self, problem: object) -> Damaged:
        return Damaged(f"line {self._read}: {problem}")
