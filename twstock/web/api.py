"""The public REST API: what each path answers. Klein finds the route, ``respond`` sends."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

from pylru import lrucache
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.server import Request

from twstock.config import Limits
from twstock.errors import TwstockError
from twstock.market import Stock, Trade
from twstock.rpc.calls import Lookup, Orders, Page, Placement, PlaceOrder, StockPage, Stocks
from twstock.web import answers, bodies, operations
from twstock.web.answers import Answer, TellAnswer
from twstock.web.cache import Cache
from twstock.web.http.respond import body, failed, segment
from twstock.web.http.routes import Route
from twstock.web.upstream.orders import Tell

ORDERS_REMEMBERED = 10_000
"""How many answers to queries for orders a front-end keeps: a committed order never changes."""


class Catalog(Protocol):
    """The catalog service."""

    def lookup(self, request: Lookup) -> "Deferred[Stock | None]":
        """The published state of a stock."""

    def list(self, page: StockPage) -> Awaitable[Stocks]:
        """A page of stocks."""


class OrderBook(Protocol):
    """The order service."""

    def place(self, order: PlaceOrder) -> "Deferred[Placement]":
        """Place an order and return its outcome; cancelling does not take the order back."""

    def put(self, order: PlaceOrder, tell: Tell) -> None:
        """The same, but ``tell`` gets the outcome later. Raises TwstockError if not taken."""

    def order(self, number: int) -> Awaitable[Trade | None]:
        """An executed order."""

    def list(self, page: Page) -> Awaitable[Orders]:
        """A page of executed orders."""


class Members(Protocol):
    """The members of the cluster, and whether enough of them serve."""

    def reasons(self) -> list[str]:
        """Why this front-end cannot serve; empty when it can."""

    def rows(self) -> Awaitable[list[dict[str, Any]]]:
        """One row for each member."""


class Api:
    """The handlers. ``session`` names this front-end's cache session to the catalog,
    ``boottime`` reads CLOCK_BOOTTIME in seconds, ``new_key`` makes an idempotency key.
    """

    def __init__(
        self,
        cache: Cache,
        catalog: Catalog,
        orders: OrderBook,
        members: Members,
        session: tuple[int, str],
        boottime: Callable[[], float],
        new_key: Callable[[], str],
        limits: Limits,
    ) -> None:
        self._cache = cache
        self._catalog = catalog
        self._orders = orders
        self._members = members
        self._session = session
        self._boottime = boottime
        self._new_key = new_key
        self._limits = limits
        self._found = lrucache(ORDERS_REMEMBERED)

    def routes(self) -> tuple[Route, ...]:
        """What is served where."""
        return (
            Route("GET", "/stocks", self.list_stocks, operations.LIST_STOCKS),
            Route("GET", "/stocks/<rest:name>", self.stock, operations.GET_STOCK),
            Route("GET", "/orders", self.list_orders, operations.LIST_ORDERS),
            Route("POST", "/orders", self.place, operations.PLACE_ORDER),
            Route("GET", "/orders/", self.list_orders),
            Route("POST", "/orders/", self.place),
            Route("GET", '/orders/<rest("batch"):number>', self.order, operations.GET_ORDER),
            Route("GET", "/cluster", self.cluster, operations.CLUSTER),
            Route("GET", "/cache", self.cache_counters, operations.CACHE),
            Route("GET", "/livez", self.alive, operations.ALIVE),
            Route("GET", "/readyz", self.ready, operations.READY),
            Route("DELETE", "/delete/<rest:name>", self.delete),
        )

    def stock(self, request: Request) -> "Answer | Deferred[Answer]":
        """``GET /stocks/NAME``: from the cache while the lease holds, else from the catalog."""
        encoded = segment(request, 2)
        name = bodies.parse_name(encoded) if encoded is not None else ""
        if not name:
            return answers.NO_SUCH_STOCK
        stock = self.hit(name)
        return self.miss(name) if stock is None else answers.stock_found(stock)

    def hit(self, name: str) -> Stock | None:
        """A stock from the cache, counted as a hit; a miss is not counted."""
        return self._cache.hit(name, self._boottime())

    def miss(self, name: str) -> "Deferred[Answer]":
        """The catalog's answer for a stock, after a cache miss, which is counted."""
        self._cache.missed()
        ticket = self._cache.ticket(self._boottime())
        # Name the session only if the answer will be cached: trades of the stock wait for the
        # invalidation of every session that was named.
        session = (0, "") if ticket is None else self._session
        return self._catalog.lookup(Lookup(name, *session)).addCallback(self._looked_up, ticket)

    def _looked_up(self, stock: Stock | None, ticket: int | None) -> Answer:
        if stock is None:
            return answers.NO_SUCH_STOCK
        self._cache.fill(ticket, stock)
        return answers.stock_found(stock, answers.MISS)

    async def list_stocks(self, request: Request) -> Answer:
        """``GET /stocks?after=&limit=``."""
        page = bodies.parse_stock_page(request.args, self._limits.page_max)
        return answers.stock_page(await self._catalog.list(page), page.limit)

    def place(self, request: Request) -> "Answer | Deferred[Answer]":
        """``POST /orders``."""
        answer: Deferred[Answer] = Deferred()
        keys = request.requestHeaders.getRawHeaders(b"Idempotency-Key")
        request_id = getattr(request, "request_id", b"")
        return self.place_order(body(request), keys, answer.callback, request_id) or answer

    def place_order(
        self,
        content: bytes,
        keys: Sequence[bytes] | None,
        tell: TellAnswer,
        request_id: bytes,
    ) -> Answer | None:
        """Place the order in a request's body under the key that came with it. Returns the answer,
        or None if ``tell`` gets it later; errors are logged with ``request_id``.
        """
        key = bodies.parse_key(keys)
        order = bodies.parse_order(content, key or self._new_key())
        refused = answers.refusal(order)
        if refused is None:
            try:
                told = partial(self._placed, order.name, key is not None, tell, request_id)
                self._orders.put(order, told)
            except TwstockError as problem:
                refused = answers.error(*answers.not_done(problem, key is not None))
        return refused

    def _placed(
        self,
        name: str,
        keyed: bool,
        tell: TellAnswer,
        request_id: bytes,
        became: Placement | TwstockError,
    ) -> None:
        try:
            if not isinstance(became, Placement):
                answer = answers.error(*answers.not_done(became, keyed))
            else:
                if became.number:
                    self._cache.raise_minimum(name, became.version)
                answer = answers.placement(became, keyed)
        except Exception:
            answer = failed(Failure(), request_id)
        tell(answer)

    async def order(self, request: Request) -> Answer:
        """``GET /orders/N``."""
        spelled = segment(request, 2)
        number = bodies.parse_number(spelled) if spelled is not None else None
        if number is None:
            return answers.NO_SUCH_ORDER
        return self.remembered(number) or await self.find(number)

    def remembered(self, number: int) -> Answer | None:
        """The answer for an order that was asked for before: it never changes."""
        known: Answer | None = self._found.get(number)
        return known

    async def find(self, number: int) -> Answer:
        """The order service's answer for an order; if the order exists, it is remembered."""
        trade = await self._orders.order(number)
        if trade is None:
            return answers.NO_SUCH_ORDER
        answer = self._found[number] = answers.data(answers.order_fields(trade))
        return answer

    async def list_orders(self, request: Request) -> Answer:
        """``GET /orders?after=&limit=``."""
        page = bodies.parse_order_page(request.args, self._limits.page_max)
        return answers.order_page(await self._orders.list(page), page.limit)

    async def cluster(self, _request: Request) -> Answer:
        """``GET /cluster``: one row for each member."""
        return answers.data({"services": await self._members.rows()})

    def cache_counters(self, _request: Request) -> Answer:
        """``GET /cache``: this front-end's cache."""
        counters = asdict(self._cache.counters)
        return answers.data({"size": self._cache.size, "entries": len(self._cache)} | counters)

    def alive(self, _request: Request) -> Answer:
        """``GET /livez``: the process runs; nothing else is checked."""
        return answers.data({"alive": True})

    def ready(self, _request: Request) -> Answer:
        """``GET /readyz``: whether ready leaders of both groups are known."""
        return answers.readiness(self._members.reasons())

    def delete(self, _request: Request) -> Answer:
        """``DELETE /delete/NAME``: for the catalog alone, which uses the internal listener."""
        return answers.FOR_THE_CATALOG_ALONE
