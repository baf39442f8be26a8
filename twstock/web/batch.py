"""Many orders in one request: each is placed, refused or fails by itself."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.server import Request

from twstock import origin
from twstock.config import Limits
from twstock.errors import InvalidRequest, TwstockError
from twstock.market import refusal_of_words
from twstock.origin import Ids, OriginLogger
from twstock.rpc.calls import Placement
from twstock.web import answers, bodies, operations
from twstock.web.answers import Answer, Fault
from twstock.web.api import OrderBook
from twstock.web.cache import Cache
from twstock.web.http.respond import body
from twstock.web.http.routes import Route
from twstock.web.traffic import Traffic

Row = dict[str, Any]


class Batches:
    """The handler. Only an order with a key can be sent again: ``new_key`` makes one, which the
    client never learns, for each that came without; ``traffic`` counts the orders.
    """

    _log = OriginLogger()

    def __init__(
        self,
        cache: Cache,
        orders: OrderBook,
        new_key: Callable[[], str],
        limits: Limits,
        traffic: Traffic,
    ) -> None:
        self._cache = cache
        self._orders = orders
        self._new_key = new_key
        self._limits = limits
        self._traffic = traffic

    def routes(self) -> tuple[Route, ...]:
        """What is served where."""
        limit = self._limits.batch_body_bytes_max
        return (Route("POST", "/orders/batch", self.place, operations.PLACE_BATCH, limit),)

    async def place(self, request: Request) -> Answer:
        """``POST /orders/batch``: one row for each order, in their sequence."""
        if request.requestHeaders.hasHeader(b"Idempotency-Key"):
            problem = "each order of a batch has a key of its own, idempotency_key"
            raise InvalidRequest("Idempotency-Key", problem)
        orders = bodies.parse_batch(body(request))
        rows = [self._begin(fields, position) for position, fields in enumerate(orders)]
        self._traffic.batched += len(rows)
        return answers.data([row if isinstance(row, dict) else await row for row in rows])

    def _begin(self, fields: object, position: int) -> "Row | Deferred[Row]":
        """An order's row, at once if it is refused here. The queue gathers the others by itself."""
        try:
            order = bodies.parse_order_of_batch(fields, position)
        except InvalidRequest as error:
            return answers.fault_row(answers.fault(error))
        refused = refusal_of_words(order.name, order.type, order.quantity)
        if refused is not None:
            return answers.fault_row(Fault(404, refused))
        keyed = bool(order.key)
        placing = self._orders.place(order if keyed else order._replace(key=self._new_key()))
        return placing.addCallbacks(
            self._placed, self._not_placed, (order.name, keyed), {}, (keyed, origin.current())
        )

    def _placed(self, placed: Placement, name: str, keyed: bool) -> Row:
        if placed.number:
            self._cache.raise_minimum(name, placed.version)
        return answers.placement_row(placed, keyed)

    def _not_placed(self, failure: Failure, keyed: bool, ids: Ids) -> Row:
        if isinstance(failure.value, TwstockError):
            return answers.fault_row(answers.not_done(failure.value, keyed))
        with origin.on_behalf_of(ids):
            self._log.failure("an order of a batch failed", failure)
        return answers.fault_row(answers.INTERNAL)
