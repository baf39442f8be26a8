"""Where the feed's news comes from: the order log, the catalog's changes, stocks, and leaders."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import takewhile
from typing import NamedTuple, Protocol

from pylru import lrucache

from twstock.config import Limits
from twstock.market import Stock, StockChange, Trade
from twstock.rpc.calls import Orders, Page
from twstock.web.feed.events import Leadership, Line, line
from twstock.web.feed.recent import Recent
from twstock.web.upstream.leader import Leader

STOCKS_REMEMBERED = 10_000
"""For how many stocks the newest state seen is kept, for clients that reconnect."""


class OrderLog(Protocol):
    """The order service."""

    def last_number(self) -> Awaitable[int]:
        """The number of the last order."""

    def order(self, number: int) -> Awaitable[Trade | None]:
        """An order; None only if there certainly is none."""

    def committed(self, page: Page) -> Awaitable[Orders]:
        """A page of orders as any replica has them."""


class Catalog(Protocol):
    """The catalog service."""

    def lookup_many(self, names: Sequence[str]) -> Awaitable[Sequence[Stock | None]]:
        """The published states of stocks."""

    def everything_published(self) -> Awaitable[None]:
        """Wait until all that is committed now is published."""


class ChangePage(Protocol):
    """Some changes in sequence."""

    @property
    def changes(self) -> Sequence[StockChange]:
        """The changes after the number that was asked for."""

    @property
    def last(self) -> int:
        """The number of the last change that may be shown, 0: there is none."""


class ChangeLog(Protocol):
    """The changes of stocks, as the catalog keeps them."""

    def list_changes(self, page: Page) -> Awaitable[ChangePage]:
        """A page of changes."""


class Watch(Protocol):
    """Knows the leader of a group and calls back when it changes."""

    group: str
    leader: Leader | None

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` whenever the leader changes, also to None."""


class Found(NamedTuple):
    """What was read: trades or changes, and the newest states of the stocks they are about."""

    trades: Sequence[Line] = ()
    changes: Sequence[StockChange] = ()
    stocks: Sequence[Stock] = ()


class Leaders:
    """Who leads each group; ``changed`` is called when that changes."""

    def __init__(self, watches: Sequence[Watch]) -> None:
        self._watches = watches
        self._terms = {watch.group: 0 for watch in watches}
        self.changed: Callable[[], None] | None = None
        for watch in watches:
            watch.subscribe(self._changed)

    def now(self) -> Sequence[Leadership]:
        """One for each group."""
        return [self._of(watch) for watch in self._watches]

    def _of(self, watch: Watch) -> Leadership:
        leader = watch.leader
        if leader is None:
            return Leadership(watch.group, None, self._terms[watch.group])
        self._terms[watch.group] = leader.term
        return Leadership(watch.group, leader.id, leader.term)

    def _changed(self) -> None:
        self.now()  # so that the term of a leader that is gone again is known
        if self.changed is not None:
            self.changed()


class Sources:
    """Reads trades and changes together with the states of their stocks, so that subscribers get
    both or neither. An order can be read a moment before its trade is published: it is held back
    until then. All methods raise errors of ``errors``.
    """

    def __init__(
        self, orders: OrderLog, catalog: Catalog, changes: ChangeLog, limits: Limits
    ) -> None:
        self._orders = orders
        self._catalog = catalog
        self._changes = changes
        self._page_max = limits.page_max
        self._stocks = lrucache(STOCKS_REMEMBERED)
        self._recent_size = limits.feed_recent_trades
        self.recent = Recent(self._recent_size)

    def forget(self) -> None:
        """Forget the recent trades: while the tail is not followed, they would get a gap."""
        self.recent = Recent(self._recent_size)

    async def last_transaction(self) -> int:
        """The number of the last trade; lookups show it, and all before it, when this returns."""
        number = await self._orders.last_number()
        await self._catalog.everything_published()
        return number

    async def last_change(self, known: int = 0) -> int:
        """The number of the last published change; the answer leaves out those up to ``known``."""
        return (await self._changes.list_changes(Page(known, 1))).last

    async def has_transaction(self, number: int) -> bool:
        """Whether there is a trade with this number; the answer is certain either way."""
        return await self._orders.order(number) is not None

    async def trades(self, after: int, count_max: int) -> Found:
        """The trades after a number, as far as lookups show them, ``count_max`` at most; from
        memory as far as possible.
        """
        trades: list[Line] = list(self.recent.after(after, count_max))
        while (left := count_max - len(trades)) > 0:
            last = trades[-1].number if trades else after
            page = await self._orders.committed(Page(last, min(self._page_max, left)))
            trades += map(line, page.orders)
            if not page.next:
                break
        stocks = await self._newest((trade.name, trade.version) for trade in trades)
        shown = {stock.name: stock.version for stock in stocks}
        told = list(takewhile(lambda trade: shown.get(trade.name, -1) >= trade.version, trades))
        names = {trade.name for trade in told}
        return Found(trades=told, stocks=[stock for stock in stocks if stock.name in names])

    async def changes(self, after: int) -> Found:
        """The changes after a number, a page of them."""
        changes = (await self._changes.list_changes(Page(after, self._page_max))).changes
        stocks = await self._newest((c.name, c.version) for c in changes)
        return Found(changes=changes, stocks=stocks)

    async def _newest(self, versions: Iterable[tuple[str, int]]) -> Sequence[Stock]:
        """The published states of stocks that have had these versions, or later ones."""
        wanted = dict(versions)
        found: dict[str, Stock] = {}
        for name, version in wanted.items():
            known: Stock | None = self._stocks.get(name)
            if known is not None and known.version >= version:
                found[name] = known
        unknown = [name for name in wanted if name not in found]
        for stock in await self._catalog.lookup_many(unknown) if unknown else ():
            if stock is not None:
                found[stock.name] = self._stocks[stock.name] = stock
        return list(found.values())
