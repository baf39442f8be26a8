"""``stocks.csv``: the stocks as a table for people, current to the second, or to a few with very
many stocks; never read back.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twstock.clocks import Clock
from twstock.csvtext import csv_field, csv_line
from twstock.market import Stock, price_text
from twstock.repeating import repeating

_COLUMNS = ("name", "price", "quantity", "volume")
PIECE = 500
"""How many lines are made without a pause: to keep the interpreter for longer would delay trades,
because Python by itself switches threads only every five milliseconds."""
PAUSE_S = 0.004
"""How long other threads have the interpreter after each piece."""


class Stocks(Protocol):
    """What is shown: the catalog's state."""

    @property
    def digest(self) -> bytes:
        """Changes whenever a stock does."""

    def snapshot(self) -> tuple[Sequence[str], Mapping[str, Stock]]:
        """The names in their sequence, and the stocks by name: a copy that no longer changes."""


class StocksView(Service):
    """Rewrites the file when something has changed: in a thread, as a new file that then replaces
    the old one. Nothing waits for it, and a write that fails (disk full) is tried again.

    ``source`` returns None while there is no state yet; ``in_thread`` calls a function in a
    thread of a separate pool.
    """

    _log = Logger()

    def __init__(
        self,
        path: Path,
        source: Callable[[], Stocks | None],
        clock: Clock,
        every_s: float,
        in_thread: "Callable[..., Deferred[Any]]",
    ) -> None:
        self._path = path
        self._source = source
        self._every_s = every_s
        self._in_thread = in_thread
        self._clock = clock
        self._lines = Lines()
        self._not_before = 0.0
        self._shown: bytes | None = None
        self._is_failing = False
        self._is_stopping = False
        self._loop = repeating(self._refresh, clock, f"keeping {path}")

    def startService(self) -> None:
        """Write now, and from now on every ``every_s`` seconds when something changed."""
        super().startService()
        self._loop.start(self._every_s)

    def stopService(self) -> "Deferred[None]":
        """Write a last time, without pauses: there is not much time to stop."""
        super().stopService()
        self._is_stopping = True
        if self._loop.running:
            self._loop.stop()
        return Deferred.fromCoroutine(self._write())

    async def _refresh(self) -> None:
        began = self._clock.seconds()
        if began >= self._not_before:
            await self._write()
            now = self._clock.seconds()
            # Leave other work as much time as the write took.
            self._not_before = now + (now - began)

    async def _write(self) -> None:
        source = self._source()
        if source is None or source.digest == self._shown:
            return
        digest, (names, stocks) = source.digest, source.snapshot()
        try:
            pieces = self._lines.pieces(names, stocks)
            await self._in_thread(write_stocks, self._path, pieces, self._pause)
        except OSError as error:
            self._complain(error)
        else:
            self._shown, self._is_failing = digest, False

    def _pause(self) -> None:
        """In the thread, between two pieces."""
        if not self._is_stopping:
            time.sleep(PAUSE_S)

    def _complain(self, error: OSError) -> None:
        """Log an error, once until a write succeeds again."""
        if not self._is_failing:
            self._log.warn("cannot write {path}: {error}", path=self._path, error=error)
        self._is_failing = True


class Lines:
    """The lines of the table, made anew only for stocks that have changed: to make all lines of a
    large catalog would keep the interpreter from trades for a while.
    """

    def __init__(self) -> None:
        self._stocks: list[Stock | None] = []
        self._lines: list[str] = []

    def pieces(self, names: Sequence[str], stocks: Mapping[str, Stock]) -> Iterator[bytes]:
        """A line for each stock, some of them at a time."""
        count = len(names)
        if count != len(self._stocks):
            self._stocks, self._lines = [None] * count, [""] * count
        for start in range(0, count, PIECE):
            piece = slice(start, start + PIECE)
            now = [stocks[name] for name in names[piece]]
            shown = zip(self._stocks[piece], self._lines[piece], now, strict=True)
            lines = [line if was is new else stock_line(new) for was, line, new in shown]
            self._stocks[piece], self._lines[piece] = now, lines
            yield "".join(lines).encode()


def write_stocks(path: Path, pieces: Iterable[bytes], pause: Callable[[], None]) -> None:
    """Replace the file as a whole, so that a reader never sees half of it. Blocks. An error leaves
    the old file, and no part of a new one, which on a full disk would take the room of the log.
    """
    aside = path.with_name(f".{path.name}.new")
    try:
        with aside.open("wb") as file:
            file.write(csv_line(_COLUMNS).encode())
            for number, piece in enumerate(pieces):
                if number:
                    pause()
                file.write(piece)
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def stock_line(stock: Stock) -> str:
    """One stock as a line of the table."""
    name, price_cents, quantity, volume, *_ = stock
    return f"{csv_field(name)},{price_text(price_cents)},{quantity},{volume}\n"
