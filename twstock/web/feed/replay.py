"""Sends a client what it missed, from the logs, as fast as it reads, until it has caught up."""

from twstock.clocks import Clock, pause
from twstock.config import Limits
from twstock.errors import TwstockError, Unavailable
from twstock.web.feed.cursor import Cursor
from twstock.web.feed.events import (
    EVENT_TRADES_MAX,
    Frame,
    Leadership,
    News,
    led,
    mark,
    reset,
)
from twstock.web.feed.sources import Sources
from twstock.web.feed.stream import Stream
from twstock.web.feed.tail import Tail
from twstock.web.feed.turns import Turns
from twstock.web.upstream.gather import Gathering


class Subscriber:
    """One client of the feed. ``names``: which stocks it wants, None: all; ``has_place``: whether
    the place in the logs from which it is sent events is known, so that its answer may begin;
    ``at``: how far it has been sent them; ``told``: the leaders that it was told of.
    """

    def __init__(self, stream: Stream, names: frozenset[str] | None, has_place: bool) -> None:
        self.stream = stream
        self.names = names
        self.has_place = has_place
        self.at = Cursor()
        self.told: tuple[Leadership, ...] = ()

    def tell(self, news: News) -> None:
        """Write news; if none of it is for this client, only the id that it has reached."""
        self.stream.write(Frame(news.body(self.names) or mark(news.after)))
        self.at = news.after


class Replay:
    """Brings subscribers to the position of ``tail``, and hands them over to it."""

    def __init__(
        self, sources: Sources, tail: Tail, turns: Turns, clock: Clock, limits: Limits
    ) -> None:
        self._sources = sources
        self._tail = tail
        self._turns = turns
        self._clock = clock
        self._limits = limits
        # Subscribers that connect together share one question; none gets an answer older than
        # its own question.
        self._ends: Gathering[None, Cursor] = Gathering(self._find_ends, clock, 1)

    async def run(self, subscriber: Subscriber, after: Cursor | None, opening: bytes) -> bool:
        """Send ``opening``, then everything after the cursor (None: only what is to come), until
        the tail takes over. Returns whether the cursor was of another log, which is a reset.
        """
        stream, tail = subscriber.stream, self._tail
        at = await self._start(stream, after)
        subscriber.has_place = True
        is_reset = after is not None and at != after
        at = led(at, tail.told)
        news = News(at, leaders=tail.told)
        stream.write(Frame(opening + (reset(at) if is_reset else b"") + news.body(None)))
        subscriber.at, subscriber.told = at, tail.told
        while stream.is_open and not self._is_level(subscriber):
            await stream.writable()
            if self._is_behind(subscriber):
                await self._advance(subscriber)
            else:
                await tail.moved()
        # Nothing is awaited from here to ``join``, so nothing can be missed in between.
        if subscriber.told != tail.told:
            subscriber.tell(News(subscriber.at, [x for x in tail.told if x not in subscriber.told]))
        if stream.is_open:
            tail.join(subscriber)
        return is_reset

    async def _start(self, stream: Stream, after: Cursor | None) -> Cursor:
        """The cursor to begin with, once it can be found out."""
        while self._tail.position is None:
            await self._tail.moved()
            if after is None:
                return self._position
        while stream.is_open:
            try:
                if after is not None and await self._exists(after):
                    return after
                return await self._ends.ask(
                    None, self._clock.seconds() + self._limits.request_budget_s
                )
            except TwstockError:
                await pause(self._clock, self._limits.feed_interval_s)
        return self._position

    @property
    def _position(self) -> Cursor:
        assert self._tail.position is not None
        return self._tail.position

    async def _exists(self, cursor: Cursor) -> bool:
        """Whether the logs reach this far: another front-end may have read on beyond this one."""
        number, change = cursor.transaction, cursor.change
        return (
            number <= self._position.transaction or await self._sources.has_transaction(number)
        ) and (change <= self._position.change or await self._sources.last_change(change) >= change)

    async def _find_ends(self, _: tuple[None, ...], _deadline: float) -> list[Cursor]:
        number = await self._sources.last_transaction()
        return [Cursor(number, await self._sources.last_change(self._position.change))]

    def _is_level(self, subscriber: Subscriber) -> bool:
        """Whether the subscriber is exactly at the tail's position."""
        return subscriber.at[:2] == self._position[:2]

    def _is_behind(self, subscriber: Subscriber) -> bool:
        return not subscriber.at.has(self._position)

    async def _advance(self, subscriber: Subscriber) -> None:
        """Replay as much as fits into one turn; wait a moment if the logs cannot be read."""
        try:
            async with self._turns.turn() as until:
                stream = subscriber.stream
                while stream.is_ready and self._is_behind(subscriber):
                    await self._step(subscriber)
                    if self._clock.seconds() >= until:
                        break
        except TwstockError:
            await pause(self._clock, self._limits.feed_interval_s)

    async def _step(self, subscriber: Subscriber) -> None:
        """Replay a page, of trades first; never beyond the tail's position."""
        at, position = subscriber.at, self._position
        missing = position.transaction - at.transaction
        if missing > 0:
            found = await self._sources.trades(at.transaction, min(missing, EVENT_TRADES_MAX))
        else:
            found = await self._sources.changes(at.change)
            known = [change for change in found.changes if change.number <= position.change]
            found = found._replace(changes=known)
        if not found.trades and not found.changes:
            raise Unavailable("the replica that was asked knows less than was sent before")
        subscriber.tell(News(at, (), found.stocks, found.trades, found.changes))
