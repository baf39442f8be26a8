"""The order tier's calls: placing orders as the leader, reading them from any replica."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import inf
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from twstock.clocks import Clock, pause
from twstock.config import Limits
from twstock.errors import InvalidRequest, TwstockError, Unavailable
from twstock.market import (
    CALL_ITEMS_MAX,
    KEY_CHARS_MAX,
    QUANTITY_MAX,
    Refusal,
    Trade,
    parse_order,
)
from twstock.order import tables
from twstock.order.askers import Tell
from twstock.order.counts import OrderCounts
from twstock.order.leading import Leading
from twstock.order.neighbours import Market
from twstock.order.oldkeys import OldKeys
from twstock.order.oldorders import OldOrders
from twstock.order.state import OrderState
from twstock.replication.database import Database
from twstock.replication.leader import LeadingMember
from twstock.rpc.calls import (
    Orders,
    Page,
    Placement,
    Placements,
    PlaceOrder,
    PlaceOrders,
    SyncedUp,
    SyncUp,
    fitting,
    page_limit,
)
from twstock.tally import Family

KEYS_PAGE = 500
KEYS_PAUSE_S = 0.01
"""How many keys of old orders are read at once, and the pause after that, so that nothing else is
held up. A million keys take half a minute."""


class OrderMember(LeadingMember, Protocol):
    """The member of the order group that these calls use; ``machine`` is its OrderState."""

    def check_room(self) -> None:
        """Raise DiskFull or Overloaded when a command would be refused now."""

    def resign(self) -> None:
        """Stop leading."""

    async def fetch(self, fetch: Any) -> Any:
        """Committed log entries."""


class OrderService:
    """What clients and front-ends ask of one order replica."""

    def __init__(
        self,
        member: OrderMember,
        database: Database,
        old_keys: OldKeys,
        market: Market,
        clock: Clock,
        limits: Limits,
        wall_ms: Callable[[], int],
        random_key: Callable[[], str],
        panic: Callable[[Failure], None],
    ) -> None:
        self._member = member
        self._database = database
        self._old_keys = old_keys
        self._old_orders = OldOrders(database, clock)
        self._market = market
        self._clock = clock
        self._limits = limits
        self._wall_ms = wall_ms
        self._random_key = random_key
        self._panic = panic
        self._counts = OrderCounts()
        self._leading: Leading | None = None
        self._reading_keys = False

    @property
    def _state(self) -> OrderState:
        state: OrderState = self._member.machine
        return state

    @property
    def reason(self) -> str:
        """Why a leading replica takes no orders yet; empty otherwise."""
        return self._leading.reason if self._leading is not None else ""

    def families(self) -> Iterable[Family]:
        """What this replica has counted of orders."""
        return self._counts.families(0 if self._leading is None else self._leading.orders_open)

    # --- placing -----------------------------------------------------------------------------

    async def order(self, request: PlaceOrder, until: float = inf) -> Placement:
        """Order: place one and wait until a majority has it on disk."""
        (result,) = (await self.place_orders(PlaceOrders((request,)), until)).results
        if isinstance(result, Exception):
            raise result
        return result

    async def place_orders(self, request: PlaceOrders, until: float = inf) -> Placements:
        """PlaceOrders: each order has its own outcome. One that cannot begin before ``until``, the
        caller's deadline (seconds of the clock), does not begin at all. Raises InvalidRequest for
        more orders than any front-end sends, whatever its settings: they would block the reactor.
        """
        if len(request.orders) > CALL_ITEMS_MAX:
            raise InvalidRequest("orders", f"expected at most {CALL_ITEMS_MAX}")
        leading = self._leading
        if leading is None or self._member.is_giving_way():
            raise self._member.not_leading()
        results = _Results(len(request.orders))
        # A trade has to be recorded: without room for that here, no order goes to the catalog.
        full = self._why_full()
        for position, order in enumerate(request.orders):
            tell = partial(results.take, position)
            try:
                self._place(leading, full, order, tell, until)
            except TwstockError as error:
                self._counts.refused(error)
                tell(error)
        leading.go()
        return Placements(await results.complete)

    def _place(
        self,
        leading: Leading,
        full: TwstockError | None,
        request: PlaceOrder,
        tell: Tell,
        until: float,
    ) -> None:
        _check(request)
        key, name, side, quantity = request
        order = parse_order(key or self._random_key(), name, side, quantity)
        if isinstance(order, Refusal):
            self._counts.refused()
            tell(Placement(refusal=str(order)))
        elif full is not None:
            raise full
        else:
            leading.place(order, tell, until)

    def _why_full(self) -> TwstockError | None:
        try:
            self._member.check_room()
        except TwstockError as error:
            return error
        return None

    # --- reading -----------------------------------------------------------------------------

    async def details(self, number: int, until: float = inf) -> Trade | None:
        """GetOrderDetails: from any replica that has the order; only the leader says there is none.
        An old order is not read after ``until``, the caller's deadline (seconds of the clock).
        Raises Overloaded when too many reads of old orders wait. The other reads do the same.

        A committed order never changes, so any replica that has it may answer.
        """
        if number < 1:  # there is none, whichever replica leads
            return None
        if number <= self._state_or_raise().last_number:
            recent = self._state.order(number)
            if recent is not None:
                return recent
            return await self._old_orders.read(partial(tables.by_number, number=number), 1, until)
        self._check_absence()
        return None

    async def page(self, request: Page, until: float = inf) -> Orders:
        """ListOrders: a page of what is committed, from the leader."""
        limit = page_limit(request.limit, self._limits.page_max)
        if max(request.after, 0) + limit < self.last_number():
            self._member.check_lease()
        else:
            self._check_absence()
        orders = await self.orders_after(request.after, limit, until)
        more = orders and orders[-1].number < self._state.last_number
        return Orders(tuple(orders), orders[-1].number if more else 0)

    async def sync_up(self, request: SyncUp, until: float = inf) -> SyncedUp:
        """SyncUp: from any replica, committed orders after a number, or log entries (``fetch``)."""
        if request.fetch is not None:
            return SyncedUp(fetched=await self._member.fetch(request.fetch))
        limit_max = self._limits.sync_orders_max
        limit = min(request.limit, limit_max) if request.limit > 0 else limit_max
        known = await self.orders_after(request.transaction_number, limit, until)
        orders = fitting(known, self._limits.message_bytes_max)
        more = bool(orders) and orders[-1].number < self.last_number()
        return SyncedUp(tuple(orders), more, whole=request.whole)

    async def orders_after(self, after: int, limit: int, until: float = inf) -> list[Trade]:
        """Committed orders in sequence, from the tables those that are not in memory."""
        after = max(after, 0)
        last = min(after + limit, self._state_or_raise().last_number)
        old: list[Trade] = []
        if after + 1 < self._state.first_recent:
            # What memory lacks is in the tables; they may have some of the rest, too.
            least = min(last, self._state.first_recent - 1) - after
            query = partial(tables.page, after=after, limit=last - after, least=least)
            old = await self._old_orders.read(query, last - after, until)
        first = old[-1].number + 1 if old else after + 1
        return old + self._state.between(first, last)

    def _state_or_raise(self) -> OrderState:
        if self._member.machine is None:
            raise self._member.not_leading()
        return self._state

    def _check_absence(self) -> None:
        """Raise unless this replica can tell that an order does not exist. Only a leader under its
        lease can, and only once the catalog has listed all trades: the order group may have lost
        some that the catalog knows to be recorded.
        """
        self._member.check_lease()
        if self._leading is None or not self._leading.is_serving:
            raise Unavailable(self.reason or "leadership begins")

    def saved(self, index: int) -> None:
        """The tables have everything up to this entry (``Tier``)."""
        self._state.saved(index)

    # --- leading -----------------------------------------------------------------------------

    def begin(self, term: int) -> None:
        """The member leads (``Tier``): orders are taken as soon as the catalog has answered."""
        self._leading = Leading(
            term,
            self,
            self._market,
            self._clock,
            self._limits,
            self._wall_ms,
            self._panic,
            self._counts,
        )
        self._leading.start()
        Deferred.fromCoroutine(self._read_old_keys()).addErrback(self._panic)

    async def _read_old_keys(self) -> None:
        """Read the keys that the filter lacks, in the background: until it has them, the leader
        looks up every key.
        """
        if self._reading_keys:
            return
        self._reading_keys = True
        while not self._old_keys.is_complete and self._leading is not None:
            await self._database.read(partial(self._old_keys.read, limit=KEYS_PAGE))
            await pause(self._clock, KEYS_PAUSE_S)
        self._reading_keys = False

    def end(self) -> None:
        """Leadership is over (``Tier``): the outcome of what is under way is unknown."""
        leading, self._leading = self._leading, None
        if leading is not None:
            leading.end()

    def propose(self, payload: bytes) -> "Deferred[Any]":
        """Record orders (``Ledger``)."""
        return self._member.propose(payload)

    def resign(self) -> None:
        """Stop leading (``Ledger``)."""
        self._member.resign()

    def last_number(self) -> int:
        """The highest recorded number (``Ledger``)."""
        return 0 if self._member.machine is None else self._state.last_number

    def find_keys(self, keys: Sequence[str]) -> "Deferred[dict[str, Trade]]":
        """The recorded orders with these keys (``Ledger``): memory first, then the tables, which
        are asked only for keys that they may have.
        """
        state = self._state
        recent = {key: trade for key in keys if (trade := state.by_key(key)) is not None}
        older = [key for key in keys if key not in recent and state.may_have_forgotten(key)]
        if not older:
            return succeed(recent)
        found = self._database.read(lambda db: tables.by_keys(db, older))
        return found.addCallback(lambda rows: {**rows, **recent})


class _Results:
    """The results of the orders of one request; ``complete`` fires when all are there."""

    def __init__(self, count: int) -> None:
        self.complete: Deferred[tuple[Placement | Exception, ...]] = Deferred()
        self._results: list[Any] = [None] * count
        self._missing = count
        if not count:
            self.complete.callback(())

    def take(self, position: int, result: Placement | TwstockError) -> None:
        """The result of one order."""
        self._results[position] = result
        self._missing -= 1
        if not self._missing:
            self.complete.callback(tuple(self._results))


def _check(request: PlaceOrder) -> None:
    """Refuse what no front-end would send: it must not reach the log."""
    if len(request.key.encode()) > KEY_CHARS_MAX:  # a batch's size is bounded in bytes
        raise InvalidRequest("idempotency_key", f"expected at most {KEY_CHARS_MAX} bytes")
    if request.quantity > QUANTITY_MAX:
        raise InvalidRequest("number_of_items", f"expected at most {QUANTITY_MAX}")
