"""Reads the newest part of both logs once, and writes it to all live subscribers."""

from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twstock.clocks import Clock, DelayedCall, pause
from twstock.config import Limits
from twstock.errors import TwstockError
from twstock.market import Stock
from twstock.web.feed.cursor import Cursor
from twstock.web.feed.events import Frame, Leadership, News, led, mark
from twstock.web.feed.rhythm import Rhythm
from twstock.web.feed.sources import Found, Leaders, Sources

SLICE_S = 0.001
SLICE_WRITES_MIN = 25
"""One slice writes for at least ``SLICE_S`` and to at least so many subscribers, then requests have
their turn: on a busy machine one write alone may take longer than ``SLICE_S``.
"""
REST_FACTOR = 9
"""The pause after a slice, as a multiple of what the slice took."""


class Writable(Protocol):
    """The connection of a subscriber."""

    def write(self, frame: Frame) -> None:
        """Send bytes, or drop a subscriber that does not read."""


class Live(Protocol):
    """A subscriber who has been told everything up to the tail's position."""

    names: frozenset[str] | None

    @property
    def stream(self) -> Writable:
        """Where to write to."""


class Frames:
    """One writing as readers of different stocks get it; each form is made when first needed."""

    def __init__(self, news: News, beat: bool) -> None:
        self._news = news
        self._empty = Frame(mark(news.after) if beat else b"")
        self._made: dict[frozenset[str] | None, Frame] = {}

    def of(self, names: frozenset[str] | None) -> Frame:
        """For readers of these stocks."""
        made = self._made.get(names)
        if made is None:
            body = self._news.body(names)
            made = self._made[names] = Frame(body, names is None) if body else self._empty
        return made


class Tail:
    """Runs from ``start`` to ``stop``, once. ``position`` is how far all live subscribers have
    been told, None before it is known; times are seconds of the clock.

    A log is read again only once its last reading is written, so no more than one reading of
    each log waits here. Both are written together, so that nobody is written to more often than
    the rhythm allows.
    """

    _log = Logger()

    def __init__(self, sources: Sources, leaders: Leaders, clock: Clock, limits: Limits) -> None:
        self.position: Cursor | None = None
        self.told: tuple[Leadership, ...] = ()
        self.rhythm = Rhythm(limits.feed_interval_s)
        self._sources = sources
        self._leaders = leaders
        self._clock = clock
        self._limits = limits
        self._live: dict[Live, None] = {}
        self._waiting: list[Deferred[None]] = []
        self._found: list[tuple[Found, Deferred[None]]] = []
        self._beat = False
        self._writing = False
        self._began_at = 0.0
        self._cost_s = 0.0
        self._next_at = float("-inf")
        self._timer: DelayedCall | None = None
        self._tasks: list[Deferred[None]] = []
        self._stopped = False

    def start(self) -> None:
        """Find the ends of the logs and follow them."""
        self._leaders.changed = self._wake
        self._begin(self._run())

    def stop(self) -> None:
        """Stop reading: there are no subscribers any more."""
        self._stopped = True
        self._leaders.changed = None
        self._sources.forget()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    def moved(self) -> "Deferred[None]":
        """Fires at the next change of the position."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def join(self, subscriber: Live) -> None:
        """Write to a subscriber who has been told everything up to the position."""
        self._live[subscriber] = None

    def leave(self, subscriber: Live) -> None:
        """Stop writing to a subscriber."""
        self._live.pop(subscriber, None)

    def has(self, subscriber: Live) -> bool:
        """Whether a subscriber is written to."""
        return subscriber in self._live

    def beat(self) -> None:
        """Write to everybody soon, even if nothing happens: it keeps connections open, and readers
        of few stocks learn how far they have read.
        """
        self._beat = True
        self._wake()

    # --- reading -----------------------------------------------------------------------------

    async def _run(self) -> None:
        """Find the position, then follow both logs."""
        while self.position is None:
            try:
                number = await self._sources.last_transaction()
                change = await self._sources.last_change()
            except TwstockError:
                await pause(self._clock, self._limits.feed_interval_s)
                continue
            self.told = tuple(self._leaders.now())
            self.position = led(Cursor(number, change), self.told)
        self._begin(self._follow(self._new_trades))
        self._begin(self._follow(self._new_changes))
        self._tell_moved()

    async def _follow(self, read: Callable[[Cursor], Coroutine[Any, Any, Found]]) -> None:
        """Read what is new again and again."""
        while not self._stopped:
            found = await self._try(read)
            if found.trades or found.changes:
                written: Deferred[None] = Deferred()
                self._found.append((found, written))
                self._wake()
                await written
            await pause(self._clock, self.rhythm.interval_s)

    async def _try(self, read: Callable[[Cursor], Coroutine[Any, Any, Found]]) -> Found:
        """What was read; nothing after an error, because it can be read later."""
        assert self.position is not None
        try:
            return await read(self.position)
        except CancelledError:
            raise
        except TwstockError:
            pass
        except Exception:
            self._log.failure("reading for the feed failed")
        return Found()

    async def _new_trades(self, position: Cursor) -> Found:
        return await self._sources.trades(
            position.transaction, max(self._limits.feed_trades_max, 1)
        )

    async def _new_changes(self, position: Cursor) -> Found:
        return await self._sources.changes(position.change)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = Deferred.fromCoroutine(work)
        self._tasks.append(task.addErrback(self._ended))

    def _ended(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("the feed has stopped", failure)

    # --- writing -----------------------------------------------------------------------------

    def _wake(self) -> None:
        """Write as soon as the rhythm allows."""
        waiting = self._timer is not None and self._timer.active()
        if self.position is None or self._stopped or self._writing or waiting:
            return
        left = self._next_at - self._clock.seconds()
        if left > 0:
            self._timer = self._clock.callLater(left, self._write)
        else:
            self._write()

    def _write(self) -> None:
        """Write what was read, and who leads, to all live subscribers; set the new position."""
        found, self._found = self._found, []
        beat, self._beat = self._beat, False
        leaders = tuple(self._leaders.now())
        news = self._news([one for one, _ in found], leaders)
        if news.is_empty and not beat:
            return
        self.told, self.position = leaders, news.after
        self._sources.recent.add(news.trades)
        self._cost_s, self._began_at = 0.0, self._clock.seconds()
        self._writing = True
        # Whoever joins from now on has been told all this, and is not written to below.
        live = iter(list(self._live))
        for _, written in found:
            written.callback(None)
        self._tell_moved()
        self._write_some(live, Frames(news, beat))

    def _news(self, found: Sequence[Found], leaders: Sequence[Leadership]) -> News:
        assert self.position is not None
        stocks: dict[str, Stock] = {}
        for stock in (stock for one in found for stock in one.stocks):
            known = stocks.setdefault(stock.name, stock)
            if known.version < stock.version:
                stocks[stock.name] = stock
        return News(
            self.position,
            [leader for leader in leaders if leader not in self.told],
            list(stocks.values()),
            [trade for one in found for trade in one.trades],
            [change for one in found for change in one.changes],
        )

    def _write_some(self, live: Iterator[Live], frames: Frames) -> None:
        """Write to the next subscribers, until requests should have their turn."""
        began, seconds = self._clock.seconds(), self._clock.seconds
        for count, subscriber in enumerate(live, 1):
            subscriber.stream.write(frames.of(subscriber.names))
            if count >= SLICE_WRITES_MIN and seconds() - began >= SLICE_S:
                spent_s = seconds() - began
                self._cost_s += spent_s
                self._timer = self._clock.callLater(
                    spent_s * REST_FACTOR, self._write_some, live, frames
                )
                return
        self.rhythm.wrote(self._cost_s + self._clock.seconds() - began)
        self._next_at = self._began_at + self.rhythm.interval_s
        self._writing = False
        if self._found or self._beat or tuple(self._leaders.now()) != self.told:
            self._wake()

    def _tell_moved(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.called:  # a client that is gone waits no more
                one.callback(None)
