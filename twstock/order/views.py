"""``order_log_<id>.csv``: the committed orders as a table for people, never read back.

It is written off the trade path, and anew at each start, so that it is right whatever became
of the last process; the bytes are the same on every replica.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from twstock.csvtext import csv_field
from twstock.errors import TwstockError
from twstock.market import Trade
from twstock.repeating import repeating

HEADER = "transaction_num,name,type,quantity\n"
ORDERS_PER_WRITE = 1_000
"""How many orders are read at once: that takes the tables' thread, and most of the time the
interpreter, for a few milliseconds. A rest of the same length follows, for whoever trades."""
FAILED_PAUSE_S = 5.0
"""How long a disk that took nothing is left alone."""


class OrderLogView(Service):
    """Appends what is committed, every so often.

    ``orders_after(number, limit)`` gives committed orders; ``last_number()`` says how many
    there are.
    """

    _log = Logger()

    def __init__(
        self,
        path: Path,
        last_number: Callable[[], int],
        orders_after: Callable[[int, int], Awaitable[Sequence[Trade]]],
        reactor: Any,
        threads: ThreadPool,
        every_s: float,
    ) -> None:
        self._path = path
        self._last_number = last_number
        self._orders_after = orders_after
        self._reactor = reactor
        self._threads = threads
        self._every_s = every_s
        self._written = -1
        self._size = 0
        self._not_before = 0.0
        self._is_failing = False
        self._resting: Deferred[None] = succeed(None)
        self._looping = repeating(self._refresh, reactor, f"keeping {path}")

    def startService(self) -> None:
        """Begin to write."""
        super().startService()
        self._looping.start(self._every_s, now=False)

    def stopService(self) -> None:
        """Write no more."""
        super().stopService()
        self._resting.cancel()
        if self._looping.running:
            self._looping.stop()

    async def _refresh(self) -> None:
        """Write what is missing; without a file, everything."""
        if self._reactor.seconds() < self._not_before:
            return
        try:
            while self.running and self._written < self._last_number():
                began = self._reactor.seconds()
                await self._write_page()
                self._is_failing = False
                if self._written < self._last_number():
                    await self._rest(self._reactor.seconds() - began)
        except TwstockError as error:
            self._log.debug("nothing to write yet: {error}", error=error)
        except OSError as error:
            if self._written >= 0 and isinstance(error, FileNotFoundError):
                self._written = -1  # somebody has removed it: it is written anew, next time
            else:
                self._complain(error)

    async def _write_page(self) -> None:
        orders = await self._orders_after(max(self._written, 0), ORDERS_PER_WRITE)
        text = order_lines(orders)
        if self._written < 0:
            await self._in_thread(self._begin, text)
        else:
            await self._in_thread(self._append, text)
        self._written = orders[-1].number if orders else max(self._written, 0)

    async def _rest(self, seconds: float) -> None:
        """Wait, unless the service has stopped or stops meanwhile."""
        if self.running:
            self._resting = deferLater(self._reactor, seconds)
            with suppress(CancelledError):
                await self._resting

    def _complain(self, error: OSError) -> None:
        """Once, until it works again."""
        if not self._is_failing:
            self._log.warn("cannot write {path}: {error}", path=self._path, error=error)
        self._is_failing = True
        self._not_before = self._reactor.seconds() + FAILED_PAUSE_S

    def _in_thread(self, function: Callable[[bytes], None], text: str) -> Awaitable[None]:
        return deferToThreadPool(self._reactor, self._threads, function, text.encode())

    def _begin(self, lines: bytes) -> None:
        aside, content = self._path.with_suffix(".tmp"), HEADER.encode() + lines
        try:
            aside.write_bytes(content)
            aside.replace(self._path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise
        self._size = len(content)

    def _append(self, lines: bytes) -> None:
        """All of it or nothing: on a full disk half a line would be in the way of the log."""
        with self._path.open("r+b", buffering=0) as file:
            file.seek(self._size)
            left = memoryview(lines)
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:
                file.truncate(self._size)
                raise
        self._size += len(lines)


def order_lines(trades: Iterable[Trade]) -> str:
    """Orders as lines of the table."""
    return "".join(
        [
            f"{number},{csv_field(name)},{side},{quantity}\n"
            for number, (_, name, side, quantity), _, _, _ in trades
        ]
    )
