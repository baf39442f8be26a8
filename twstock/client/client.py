"""The typed client: look stocks up, trade, read orders, follow events, administer."""

import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from http import HTTPStatus
from random import Random
from typing import Any, Self

from treq.client import HTTPClient
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    wrapClientTLS,
)
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from twstock.client import values
from twstock.client.admin import Administrator
from twstock.client.answers import OrderNotFound, StockNotFound, problem, refused
from twstock.client.attempts import Attempts
from twstock.client.batch import TicketBatch, split
from twstock.client.feed import MESSAGES_WAITING_MAX, SILENCE_S, Feed
from twstock.client.fronts import REQUESTS_UNDER_WAY_MAX, Fronts, Http, Request
from twstock.client.values import BadAnswer, Change, Member, Order, Placed, Stock, Ticket
from twstock.clocks import pause
from twstock.errors import InvalidRequest, OutcomeUnknown, TwstockError, Unavailable, WrongUrl
from twstock.forms import (
    Answer,
    events_path,
    order_headers,
    order_path,
    order_terms,
    page_path,
    split_url,
    stock_path,
)
from twstock.keys import key_maker
from twstock.market import ORDER_NOT_FOUND, STOCK_NOT_FOUND, Side

CONNECT_TIMEOUT_S = 2.0
NEXT_ADDRESS_S = 0.05
"""How long to wait for the first address of a name before the next is tried, too. Also how long
``HostnameEndpoint`` takes to report that none could be reached, however soon that was known.
"""
TIMEOUT_S = 5.0
PATIENCE_S = 10.0
IDLE_CONNECTION_S = 30
"""How long an idle connection is kept, in seconds: less than a front-end keeps it."""


class Client:
    """A client of one cluster, through one or more of its front-ends. For the reactor's thread.

    ``urls`` are base URLs (``http://HOST:PORT``): if one cannot serve, the next is asked. A single
    attempt may take ``timeout_s``, a whole request ``patience_s``. ``reactor`` is the installed
    one by default; ``http`` may be any ``treq.client.HTTPClient``, which is not closed with the
    client.

    Raises WrongUrl. Every request raises Unavailable when there was no answer in time and nothing
    has happened, and BadAnswer when the answer is not a front-end's and no earlier attempt can
    have had an effect. A client that was closed raises RuntimeError.
    """

    def __init__(
        self,
        urls: str | Iterable[str],
        *,
        reactor: Any = None,
        http: Http | None = None,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
        silence_s: float = SILENCE_S,
        messages_max: int = MESSAGES_WAITING_MAX,
        random: Random | None = None,
        new_key: Callable[[], str] | None = None,
    ) -> None:
        clock = _installed_reactor() if reactor is None else reactor
        self._pool = None if http is not None else _pool(clock)
        agent = Agent.usingEndpointFactory(clock, Endpoints(clock), self._pool)
        self._random = Random() if random is None else random
        self._fronts = Fronts(
            _base_urls(urls), http or HTTPClient(agent), clock, self._random, timeout_s
        )
        self._patience_s = patience_s
        self._silence_s = silence_s
        self._messages_max = messages_max
        self._new_key = key_maker() if new_key is None else new_key
        self._feeds: set[Feed] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all feeds and close idle connections; requests under way go on to their end."""
        self._closed = True
        for feed in tuple(self._feeds):
            feed.close()
        if self._pool is not None:
            await self._pool.closeCachedConnections()

    async def lookup(self, name: str, known: Stock | None = None) -> Stock:
        """A stock as it is now; raises StockNotFound. If ``known`` is still its state, ``known`` is
        returned, and the answer need not carry the stock (a conditional request).
        """
        tag = {} if known is None else {"If-None-Match": f'"{known.version}"'}
        try:
            path = stock_path(name)
        except InvalidRequest:
            raise StockNotFound(name) from None
        answer = await self._get(path, tag)
        if _says(answer, STOCK_NOT_FOUND):
            raise StockNotFound(name)
        if known is not None and answer.status == HTTPStatus.NOT_MODIFIED:
            return known
        return values.stock(_data(answer))

    async def stocks(self) -> AsyncIterator[Stock]:
        """Every stock, by name, page by page."""
        async for row in self._rows("/stocks", None):
            yield values.stock(row)

    async def buy(self, name: str, quantity: int, key: str | None = None) -> Placed:
        """Buy shares; see ``place``."""
        return await self.place(Ticket(name, quantity, Side.BUY, key))

    async def sell(self, name: str, quantity: int, key: str | None = None) -> Placed:
        """Sell shares; see ``place``."""
        return await self.place(Ticket(name, quantity, Side.SELL, key))

    async def place(self, ticket: Ticket) -> Placed:
        """Place an order, which is executed at most once however often it has to be sent.

        Raises Refused when it was refused, KeyReused when its key belongs to another order,
        InvalidRequest when it is malformed: such an order never takes effect later. Raises
        Unavailable when nothing has happened, and OutcomeUnknown, with the key, when the outcome
        could not be learnt in time: place it again with that key to learn it. An order whose key
        the caller gave raises neither Unavailable nor BadAnswer: an earlier request with that key
        may have executed it. Cancelling does not take the order back.
        """
        key = self._new_key() if ticket.key is None else ticket.key
        terms = order_terms(ticket.name, ticket.side, ticket.quantity)
        answer = await self._ask(
            Request(
                "POST",
                "/orders",
                order_headers(key),
                json.dumps(terms).encode("ascii"),
                key,
                doubtful=ticket.key is not None,
            )
        )
        if not answer.ok:
            raise refused(answer, key)
        try:
            number = values.placed_number(_data(answer))
        except BadAnswer as error:
            raise OutcomeUnknown(str(error), key) from None
        return Placed(number, answer.replayed, key)

    async def place_many(self, tickets: Iterable[Ticket]) -> "list[Placed | TwstockError]":
        """Place many orders, up to 1,000 in one request. Returns what became of each, in the same
        order: Placed, or the error that ``place`` would have raised. These errors are not raised,
        so none hides the outcome of another order.
        """
        self._assert_open()
        results: list[Placed | TwstockError] = []
        for part in split(tickets):
            keys = [self._new_key() if ticket.key is None else ticket.key for ticket in part]
            results += await self._place_batch(TicketBatch(part, keys))
        return results

    async def order(self, number: int) -> Order:
        """An executed order; raises OrderNotFound."""
        answer = await self._get(order_path(number))
        if _says(answer, ORDER_NOT_FOUND):
            raise OrderNotFound(number)
        return values.order(_data(answer))

    async def orders(self, after: int = 0) -> AsyncIterator[Order]:
        """Every order executed so far whose number is above ``after``, page by page."""
        async for row in self._rows("/orders", after):
            yield values.order(row)

    async def changes(self, after: int = 0) -> AsyncIterator[Change]:
        """Every change that was made so far whose number is above ``after``, page by page."""
        async for row in self._rows("/admin/changes", after):
            yield values.change(row)

    def administrator(self, token: str) -> Administrator:
        """An ``Administrator``, which changes stocks with the cluster's admin token."""
        return Administrator(self._ask, token, self._new_key)

    async def cluster(self) -> list[Member]:
        """Every member of the cluster, as one front-end sees them."""
        found = values.rows(_data(await self._get("/cluster")), "services")
        return [values.member(row) for row in found]

    def events(self, names: str | Iterable[str] = (), after: str | None = None) -> Feed:
        """The events from now on, or ``after`` the cursor of an earlier event; of all stocks, or of
        those with these names. Raises InvalidRequest for a malformed name.
        """
        self._assert_open()
        path = events_path((names,) if isinstance(names, str) else tuple(names))
        feed = Feed(
            self._fronts, path, after, self._silence_s, self._messages_max, self._feeds.discard
        )
        self._feeds.add(feed)
        return feed

    async def _get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return await self._ask(Request("GET", path, headers or {}))

    async def _ask(self, request: Request) -> Answer:
        self._assert_open()
        return await self._fronts.ask(request, self._patience_s)

    def _assert_open(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed")

    async def _rows(self, path: str, after: str | int | None) -> AsyncIterator[Any]:
        """The rows of a list, page by page."""
        while True:
            answer = await self._get(page_path(path, after))
            if not answer.ok:
                raise problem(answer)
            for row in values.rows(answer.body, "data"):
                yield row
            before, after = after, values.member_of(answer.body, "next")
            if after is None:
                return
            if after == before:
                raise BadAnswer(f"{path}: the page after {after!r} is followed by itself")

    async def _place_batch(self, batch: TicketBatch) -> "list[Placed | TwstockError]":
        clock = self._fronts.clock
        deadline = clock.seconds() + self._patience_s
        rounds = Attempts(1, 0, deadline, self._random)
        while batch.open:
            attempt = rounds.next(clock.seconds())
            if attempt is None:
                batch.give_up(Unavailable("no time left"))
                break
            if attempt.wait_s:
                await pause(clock, attempt.wait_s)
            headers = {"Content-Type": "application/json"}
            request = Request("POST", "/orders/batch", headers, batch.body())
            try:
                batch.learn(await self._fronts.ask(request, deadline - clock.seconds()))
            except (OutcomeUnknown, Unavailable) as error:
                batch.give_up(error)
            rounds.failed(clock.seconds())
        return batch.results


@implementer(IAgentEndpointFactory)
class Endpoints:
    """How connections to front-ends are made. One that is down is noticed at once, or if its host
    is a name after ``NEXT_ADDRESS_S``, and the next is asked; Twisted's own endpoints take 0.3 s.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._policy = BrowserLikePolicyForHTTPS()

    def endpointForURI(self, uri: URI) -> Any:
        """The endpoint of a URL's host and port."""
        endpoint = self._endpoint(uri.host.decode("ascii"), uri.port)
        if uri.scheme == b"http":
            return endpoint
        return wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), endpoint)

    def _endpoint(self, host: str, port: int) -> Any:
        if isIPAddress(host):
            return TCP4ClientEndpoint(self._reactor, host, port, CONNECT_TIMEOUT_S)
        if isIPv6Address(host):
            return TCP6ClientEndpoint(self._reactor, host, port, CONNECT_TIMEOUT_S)
        return HostnameEndpoint(
            self._reactor, host, port, CONNECT_TIMEOUT_S, attemptDelay=NEXT_ADDRESS_S
        )


def _installed_reactor() -> Any:
    from twisted.internet import reactor  # noqa: PLC0415 - importing this installs no reactor

    return reactor


def _pool(reactor: Any) -> HTTPConnectionPool:
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = REQUESTS_UNDER_WAY_MAX
    pool.cachedConnectionTimeout = IDLE_CONNECTION_S
    return pool


def _base_urls(urls: str | Iterable[str]) -> list[str]:
    """The base URL of each front-end; raises WrongUrl."""
    given = (urls,) if isinstance(urls, str) else tuple(urls)
    if not given:
        raise WrongUrl("expected the URL of one front-end at least")
    parts = [split_url(url, ("http", "https")) for url in given]
    return [f"{part.scheme}://{part.netloc}{part.path.rstrip('/')}" for part in parts]


def _says(answer: Answer, words: str) -> bool:
    """Whether it is a front-end's 404 with these words; one for another path, or from a proxy,
    says nothing.
    """
    return answer.status == HTTPStatus.NOT_FOUND and answer.message == words


def _data(answer: Answer) -> Any:
    """The data of a 200 answer; raises the error that another answer means."""
    if not answer.ok:
        raise problem(answer)
    return values.member_of(answer.body, "data")
