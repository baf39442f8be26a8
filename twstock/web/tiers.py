"""The order service and the catalog, as a front-end uses them."""

from collections.abc import Mapping, Sequence
from functools import partial
from random import Random
from typing import TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from twstock.clocks import Clock
from twstock.config import Limits
from twstock.errors import (
    DiskFull,
    InvalidRequest,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    TwstockError,
    Unavailable,
)
from twstock.market import ChangeRequest, Stock, Trade
from twstock.rpc.calls import (
    LOOKUPS_MAX,
    AwaitPublished,
    Changed,
    Changes,
    Lease,
    Lookup,
    LookupMany,
    Orders,
    Page,
    Placement,
    PlaceOrder,
    Probe,
    Register,
    StockPage,
    Stocks,
    SyncUp,
)
from twstock.rpc.wire import methods
from twstock.web.upstream.gather import Gathering
from twstock.web.upstream.leader import Caller, Leader, LeaderWatch
from twstock.web.upstream.orders import OrderQueue, Tell
from twstock.web.upstream.tier import ELSEWHERE, Tier

T = TypeVar("T")


class OrderTier(Tier):
    """The order service, as a front-end uses it."""

    def __init__(
        self,
        watch: LeaderWatch,
        callers: Mapping[int, Caller],
        clock: Clock,
        limits: Limits,
        random: Random,
    ) -> None:
        super().__init__(watch, callers, clock, limits, random)
        self.queue = OrderQueue(watch, callers, clock, limits, random)

    def put(self, order: PlaceOrder, tell: Tell) -> None:
        """Place an order, and tell its outcome later; see ``OrderQueue.put``."""
        self.queue.put(order, tell)

    def place(self, order: PlaceOrder) -> "Deferred[Placement]":
        """Place an order and return its outcome; cancelling does not take the order back."""
        answer: Deferred[Placement] = Deferred()

        def tell(became: Placement | TwstockError) -> None:
            if isinstance(became, Placement):
                answer.callback(became)
            else:
                answer.errback(became)

        try:
            self.queue.put(order, tell)
        except TwstockError as refused:
            answer.errback(refused)
        return answer

    async def order(self, number: int) -> Trade | None:
        """The executed order with a number. Only a leader says that there is none; one that
        exists never changes, so any replica may answer with it.
        """
        return await self.ask_any(methods.ORDER_DETAILS, number)

    async def list(self, page: Page) -> Orders:
        """A page of executed orders, from the leader."""
        return await self.ask_leader(methods.LIST_ORDERS, page)

    async def committed(self, page: Page) -> Orders:
        """A page of executed orders from any replica, which may not have the newest. The leader,
        which has the most to do, is asked only if no follower can answer with the page yet.
        """
        return await self._ask(
            partial(self._committed_at, page), lambda: self._followers() + self._leader()
        )

    async def _committed_at(self, page: Page, number: int, deadline: float) -> Orders:
        wanted = SyncUp(page.after, whole=True, limit=page.limit)
        found = await self._ask_member(methods.ORDER_SYNC_UP, wanted, number, deadline)
        if not found.orders and page.after < self._newest_elsewhere(number):
            raise Unavailable(f"order-{number} is behind")
        return Orders(found.orders, found.orders[-1].number if found.more else 0)

    def _newest_elsewhere(self, number: int) -> int:
        """The number of the last order that any other replica has reported."""
        said = [s for n, s in self.watch.statuses().items() if s is not None and n != number]
        return max((status.last_transaction for status in said), default=0)

    async def last_number(self) -> int:
        """The number of the last order. Without a leader nothing trades, so what the replicas
        last reported is good enough; if there are no reports, the leader's error is raised.
        """
        try:
            answer = await self.ask_leader(methods.ORDER_HEARTBEAT, Probe())
        except TwstockError:
            known = [s.last_transaction for s in self.watch.statuses().values() if s is not None]
            if not known:
                raise
            return max(known)
        return answer.status.last_transaction


class CatalogTier(Tier):
    """The catalog, as a front-end uses it."""

    def __init__(
        self,
        watch: LeaderWatch,
        callers: Mapping[int, Caller],
        clock: Clock,
        limits: Limits,
        random: Random,
    ) -> None:
        super().__init__(watch, callers, clock, limits, random)
        self._gatherings: dict[tuple[int, str], Gathering[str, Stock | None]] = {}

    def lookup(self, request: Lookup) -> "Deferred[Stock | None]":
        """The published state of a stock, None if there is none of that name.

        Lookups share calls, but only within a session: the catalog notes for each session which
        stocks it was answered.
        """
        session = (request.front_id, request.session)
        gathering = self._gatherings.get(session) or self._gathering(session)
        try:
            deadline = self._admit()
        except Overloaded:
            return fail()
        answer = gathering.ask(request.name, deadline)
        answer.addErrback(self._not_yet, gathering, request.name, deadline)
        return answer.addBoth(self._answered)

    def _not_yet(
        self,
        failure: Failure,
        gathering: Gathering[str, Stock | None],
        name: str,
        deadline: float,
    ) -> "Deferred[Stock | None]":
        failure.trap(*ELSEWHERE)
        return Deferred.fromCoroutine(self._ask_again(gathering, name, deadline))

    async def _ask_again(
        self, gathering: Gathering[str, Stock | None], name: str, deadline: float
    ) -> Stock | None:
        while (left := deadline - self._clock.seconds()) > 0:
            await self._pause(left)
            try:
                return await gathering.ask(name, deadline)
            except ELSEWHERE:
                pass
        raise self._too_late()

    def _answered(self, result: T) -> T:
        self._asking -= 1
        return result

    def _gathering(self, session: tuple[int, str]) -> Gathering[str, Stock | None]:
        """For a session's lookups; a front-end has one session, and lookups without one."""

        async def look_up(names: tuple[str, ...], deadline: float) -> Sequence[Stock | None]:
            request = LookupMany(names, *session)
            answer = await self._ask_whoever_leads(methods.LOOKUP_MANY, request, deadline)
            return answer.stocks

        names_max = min(LOOKUPS_MAX, self._limits.page_max)
        made = self._gatherings[session] = Gathering(look_up, self._clock, names_max)
        return made

    async def lookup_many(self, names: Sequence[str]) -> list[Stock | None]:
        """The published states of many stocks, for a caller that does not cache them."""
        found: list[Stock | None] = []
        names_max = min(LOOKUPS_MAX, self._limits.page_max)
        for first in range(0, len(names), names_max):
            request = LookupMany(tuple(names[first : first + names_max]))
            found += (await self.ask_leader(methods.LOOKUP_MANY, request)).stocks
        return found

    async def everything_published(self) -> None:
        """Wait until no cache hides anything that is committed now."""
        await self.ask_leader(methods.AWAIT_PUBLISHED, AwaitPublished())

    async def list(self, page: StockPage) -> Stocks:
        """A page of stocks."""
        return await self.ask_leader(methods.LIST_STOCKS, page)

    async def change(self, request: ChangeRequest) -> Changed:
        """Make a change of a stock and return its outcome. It is sent again, under its key and so
        without being made twice, until there is an answer or no time is left.

        Fails with KeyReused, InvalidRequest, Overloaded, DiskFull or Unavailable (nothing
        happened), or with OutcomeUnknown.
        """
        deadline, doubtful = self._admit(), False
        try:
            while deadline - self._clock.seconds() > 0:
                try:
                    return await self._ask_whoever_leads(methods.CHANGE_STOCK, request, deadline)
                except (NotLeader, Unavailable):
                    pass
                except OutcomeUnknown:
                    doubtful = True
                except (DiskFull, InvalidRequest, Overloaded):
                    # This attempt did nothing, but an earlier one may have.
                    if not doubtful:
                        raise
                await self._pause(deadline - self._clock.seconds())
        finally:
            self._asking -= 1
        if doubtful:
            raise OutcomeUnknown("the outcome could not be learnt in time")
        raise self._too_late()

    async def list_changes(self, page: Page) -> Changes:
        """A page of the changes that were made."""
        return await self.ask_leader(methods.LIST_CHANGES, page)

    async def register(self, request: Register) -> tuple[Leader, Lease]:
        """Take or renew a cache lease, in one attempt: the session repeats it in its own rhythm.
        Returns also who granted it; raises Unavailable if nobody leads.
        """
        leader = self.watch.leader
        if leader is None:
            raise Unavailable("no catalog leads")
        deadline_s = self._limits.control_deadline_s
        return leader, await self._ask_one(leader.id, methods.REGISTER, request, deadline_s)
