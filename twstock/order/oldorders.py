"""A queue for reads of old orders, which are no longer in memory.

The tables have one thread, which also saves, and looks up the keys of orders being placed. So these
reads wait here and go to the thread a few at a time: its other work never waits for more than that.
The queue is bounded in rows, and nothing is read for callers that have gone meanwhile.
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twstock.clocks import Clock
from twstock.errors import Overloaded, Unavailable
from twstock.replication.database import Database
from twstock.rpc.streams import WAIT_MAX_S

T = TypeVar("T")
ROWS_MAX = 50_000
"""When this many rows wait, further reads are refused. They take half a second or so."""
ROWS_AT_ONCE = 100
"""Reads go together until they have this many rows: few enough to be answered in one turn of the
reactor. A larger page goes alone, or as the last of some smaller reads."""


class _Read(NamedTuple):
    """A read that waits: it takes at most ``rows`` rows, and after ``until`` (seconds of the clock)
    nobody waits for it any more.
    """

    query: Callable[[sqlite3.Connection], Any]
    rows: int
    until: float
    answer: "Deferred[Any]"


class OldOrders:
    """Reads old orders from the tables, in sequence."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._waiting: deque[_Read] = deque()
        self._rows = 0
        self._is_reading = False

    def read(
        self, query: Callable[[sqlite3.Connection], T], rows: int, until: float = inf
    ) -> "Deferred[T]":
        """What ``query`` finds, in at most ``rows`` rows. Fails with Unavailable when its turn
        comes after ``until``, the caller's deadline (seconds of the clock), or so late that every
        call has ended; else like ``Database.read``. Raises Overloaded when too many rows wait.
        """
        if self._rows >= ROWS_MAX:  # this read's rows do not count, so none is always too large
            raise Overloaded("too many ask for old orders")
        answer: Deferred[T] = Deferred()
        until = min(until, self._clock.seconds() + WAIT_MAX_S)
        self._waiting.append(_Read(query, rows, until, answer))
        self._rows += rows
        if not self._is_reading:
            self._go_on()
        return answer

    def _go_on(self) -> None:
        reads, rows = [], 0
        while self._waiting and rows < ROWS_AT_ONCE:
            read = self._waiting.popleft()
            reads.append(read)
            rows += read.rows
        self._is_reading = bool(reads)
        if reads:
            reading = self._database.read(lambda db: [self._found(db, read) for read in reads])
            reading.addBoth(self._tell, reads)

    def _found(self, connection: sqlite3.Connection, read: _Read) -> Any:
        """In the tables' thread: the answer to a read, or a failure if its caller has gone."""
        if read.answer.called or self._clock.seconds() >= read.until:
            return Failure(Unavailable("the deadline passed before old orders were read"))
        return read.query(connection)

    def _tell(self, found: Sequence[Any] | Failure, reads: Sequence[_Read]) -> None:
        self._rows -= sum(read.rows for read in reads)
        self._go_on()
        for position, read in enumerate(reads):
            read.answer.callback(found if isinstance(found, Failure) else found[position])
