"""The events of the feed as bytes (WHATWG HTML, section 9.2: server-sent events). Pure."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from twstock.market import Stock, StockChange, Trade, decimal_price
from twstock.web.answers import change_fields, stock_fields
from twstock.web.feed import gzipstream
from twstock.web.feed.cursor import Cursor

EVENT_TRADES_MAX = 1000
"""How many trades one event has at most: a line of about 120 kB."""
_encode = json.JSONEncoder(separators=(",", ":")).encode
_quoted = lru_cache(maxsize=4096)(_encode)
COMMENT = b": \n\n"
"""Says nothing, but keeps proxies from closing the connection."""


class Leadership(NamedTuple):
    """Who leads a group (None: nobody that can be reached); the term is the last known one."""

    group: str
    leader_id: int | None
    term: int


@dataclass(frozen=True)
class Frame:
    """Bytes of a stream, in the forms in which readers get them; each form is made once. Only
    bytes for many readers (``is_shared``) are worth compressing.
    """

    body: bytes
    is_shared: bool = False

    @cached_property
    def chunk(self) -> bytes:
        """As a chunk of HTTP/1.1 (RFC 9112 section 7.1)."""
        return chunk(self.body)

    @cached_property
    def packed(self) -> bytes:
        """As a chunk with a piece of a gzip stream."""
        return chunk((gzipstream.compressed if self.is_shared else gzipstream.stored)(self.body))


@lru_cache(maxsize=4096)
def _priced(price_cents: int) -> str:
    return repr(decimal_price(price_cents))


class Line(NamedTuple):
    """A trade with its JSON, which is made once for all readers."""

    number: int
    name: str
    version: int
    text: str


def line(trade: Trade) -> Line:
    """A trade as a ``Line``."""
    number, (_, name, side, quantity), version, price_cents, at_ms = trade
    # As ``answers.order_fields``, in a third of the time: all trades pass through here.
    text = (
        f'{{"order_num":{number},"name":{_quoted(name)},"type":"{side}","quantity":{quantity},'
        f'"price":{_priced(price_cents)},"version":{version},"time_ms":{at_ms}}}'
    )
    return Line(number, name, version, text)


def chunk(body: bytes) -> bytes:
    """Bytes as a chunk; no bytes make no chunk, because an empty one would end the body."""
    return b"%x\r\n%b\r\n" % (len(body), body) if body else b""


def event(kind: str, at: Cursor, content: str) -> bytes:
    """One event; ``content`` is JSON without line breaks."""
    return f"event: {kind}\nid: {at}\ndata: {content}\n\n".encode("ascii")


def rows(kind: str, at: Cursor, texts: Iterable[str]) -> bytes:
    """One event with several things, each of which is JSON already."""
    return event(kind, at, f'{{"{kind}":[{",".join(texts)}]}}')


def mark(at: Cursor) -> bytes:
    """Not an event, but the client remembers the id."""
    return f": \nid: {at}\n\n".encode("ascii")


def retry(milliseconds: int) -> bytes:
    """How long the client waits before it connects again."""
    return b"retry: %d\n\n" % milliseconds


def reset(at: Cursor) -> bytes:
    """The event that says that the client's id is not of this log."""
    return event("reset", at, "{}")


def led(at: Cursor, leaders: Iterable[Leadership]) -> Cursor:
    """The cursor with the terms of these leaders."""
    terms = {f"{leader.group}_term": leader.term for leader in leaders}
    return at._replace(**terms)


@dataclass(frozen=True)
class News:
    """What is written at one time: everything after the cursor ``before``, up to ``after``.

    Stocks come before the trades and changes that led to their state, under the previous id: a
    client that is cut off between the two asks for those trades again, and gets the stocks with
    them. The id of each later event says what the client knows once it has that event.
    """

    before: Cursor
    leaders: Sequence[Leadership] = ()
    stocks: Sequence[Stock] = ()
    trades: Sequence[Line] = ()
    changes: Sequence[StockChange] = ()

    @cached_property
    def after(self) -> Cursor:
        """The cursor of a reader that has read all of it."""
        at = led(self.before, self.leaders)
        if self.trades:
            at = at._replace(transaction=self.trades[-1].number)
        return at._replace(change=self.changes[-1].number) if self.changes else at

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write to any reader."""
        return not (self.leaders or self.stocks or self.trades or self.changes)

    def body(self, names: frozenset[str] | None) -> bytes:
        """The events for a reader that wants these stocks; empty when there are none."""
        at = led(self.before, self.leaders)
        told = [event("leader", at, _encode(leader._asdict())) for leader in self.leaders]
        if stocks := [_encode(stock_fields(s)) for s in self.stocks if _wanted(s.name, names)]:
            told.append(rows("stocks", at, stocks))
        trades = self._trades_of(names)
        for first in range(0, len(trades), EVENT_TRADES_MAX):
            some = trades[first : first + EVENT_TRADES_MAX]
            is_last = first + len(some) == len(trades)
            # Trades of stocks that this reader does not want count as read.
            number = self.after.transaction if is_last else some[-1].number
            at = at._replace(transaction=number)
            told.append(rows("trades", at, [one.text for one in some]))
        if changes := [_encode(change_fields(c)) for c in self.changes if _wanted(c.name, names)]:
            told.append(rows("changes", self.after, changes))
        return b"".join(told)

    def _trades_of(self, names: frozenset[str] | None) -> Sequence[Line]:
        if names is None:
            return self.trades
        return sorted(one for name in names & self._by_name.keys() for one in self._by_name[name])

    @cached_property
    def _by_name(self) -> Mapping[str, Sequence[Line]]:
        found = defaultdict(list)
        for one in self.trades:
            found[one.name].append(one)
        return found


def _wanted(name: str, names: frozenset[str] | None) -> bool:
    return names is None or name in names
