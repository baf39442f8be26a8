"""``order_log_<id>.csv``: the committed orders as a table for people, never read back as data.

It is written while no trade waits for it, with the same bytes on every replica, and not flushed to
the disk. So a new process continues the file of the last one only if it looks right: it has a line
for each number, and the last line agrees with the order. Otherwise the file is written anew.
"""

import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

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

T = TypeVar("T")
HEADER = "transaction_num,name,type,quantity\n"
ORDERS_PER_WRITE = 1_000
"""How many orders are read at once: that occupies the tables' thread, and most of the time the
interpreter, for a few milliseconds. A rest of the same length follows, in which trades go on."""
FAILED_PAUSE_S = 5.0
"""How long to wait after a write that failed."""
_TAIL_BYTES = 1 << 20
"""How much of the end of a file is looked at. Just after a start the process may not know of the
last orders in it yet; the last one that it does know has to be among these lines."""
_CHUNK_BYTES = 1 << 16


class OrderLogView(Service):
    """Appends newly committed orders every ``every_s`` seconds.

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
        self._is_first = True
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
            if self._is_first:
                await self._resume()
                self._is_first = False
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

    async def _resume(self) -> None:
        """Find out up to which order the file of the last process is right, and continue there. A
        file that is missing, or that this process may not read or change, is written anew.
        """
        with suppress(OSError):
            found = await self._in_thread(partial(_look_at, self._path))
            if not found.last:
                return
            last = min(found.last, self._last_number())
            orders = await self._orders_after(max(last, 1) - 1, 1)
            if last and found.line(last) == order_lines(orders).encode():
                size = found.end(last)
                await self._in_thread(partial(os.truncate, self._path, size))
                self._written, self._size = last, size

    async def _write_page(self) -> None:
        orders = await self._orders_after(max(self._written, 0), ORDERS_PER_WRITE)
        text = order_lines(orders)
        if self._written < 0:
            await self._in_thread(partial(self._begin, text.encode()))
        else:
            await self._in_thread(partial(self._append, text.encode()))
        self._written = orders[-1].number if orders else max(self._written, 0)

    async def _rest(self, seconds: float) -> None:
        """Wait, unless the service has stopped or stops meanwhile."""
        if self.running:
            self._resting = deferLater(self._reactor, seconds)
            with suppress(CancelledError):
                await self._resting

    def _complain(self, error: OSError) -> None:
        """Log an error, once until a write succeeds again."""
        if not self._is_failing:
            self._log.warn("cannot write {path}: {error}", path=self._path, error=error)
        self._is_failing = True
        self._not_before = self._reactor.seconds() + FAILED_PAUSE_S

    def _in_thread(self, function: Callable[[], T]) -> "Deferred[T]":
        return deferToThreadPool(self._reactor, self._threads, function)

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
        """Append all lines or none: on a full disk a part would take the room of the log."""
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


class Found(NamedTuple):
    """What a file has: ``last`` whole lines, which is also its last order if there is a line for
    each. The last of them are ``lines``, which end at byte ``size``.
    """

    last: int
    lines: Sequence[bytes]
    size: int

    def line(self, number: int) -> bytes | None:
        """The line of an order; None if it is not in ``lines``."""
        place = len(self.lines) - 1 - (self.last - number)
        return self.lines[place] if place >= 0 else None

    def end(self, number: int) -> int:
        """At which byte the line of an order ends, which is in ``lines``."""
        return self.size - sum(map(len, self.lines[len(self.lines) - (self.last - number) :]))


def _look_at(path: Path) -> Found:
    """What a file has, which may be torn anywhere; nothing if its header is not ours. Blocks."""
    header, count = HEADER.encode(), 0
    with path.open("rb", buffering=0) as file:
        if file.read(len(header)) != header:
            return Found(0, (), 0)
        while chunk := file.read(_CHUNK_BYTES):
            count += chunk.count(b"\n")
        end = file.tell()
        # What comes before the first line break may be half a line, or is the header: drop it.
        file.seek(max(len(header) - 1, end - _TAIL_BYTES))
        *lines, torn = file.read().split(b"\n")[1:] or [b""]
    return Found(count, [line + b"\n" for line in lines], end - len(torn))


def order_lines(trades: Iterable[Trade]) -> str:
    """Orders as lines of the table."""
    return "".join(
        [
            f"{number},{csv_field(name)},{side},{quantity}\n"
            for number, (_, name, side, quantity), _, _, _ in trades
        ]
    )
