"""What a front-end asks of the other tiers, with a time budget and whoever leads at the moment."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, fail
from twisted.python.failure import Failure

from twstock.config import Limits
from twstock.errors import (
    DiskFull,
    InvalidRequest,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    StaleEpoch,
    TwstockError,
    Unavailable,
)
from twstock.market import ChangeRequest, Stock, Trade
from twstock.process import Clock, DelayedCall
from twstock.rpc.calls import (
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
from twstock.rpc.wire.methods import Method
from twstock.web.gather import Gathering
from twstock.web.leader import Caller, Leader, LeaderWatch
from twstock.web.orders import OrderQueue

Q = TypeVar("Q")
A = TypeVar("A")

LOOKUPS_MAX = 256
"""How many stocks one call asks for."""
_ELSEWHERE = (NotLeader, Unavailable, OutcomeUnknown, StaleEpoch)
"""What may go better with another member, or a moment later: questions have no effects."""


class Tier:
    """Questions to one group: asked again, of whoever may know, until answered or out of time."""

    def __init__(
        self,
        watch: LeaderWatch,
        callers: Mapping[int, Caller],
        clock: Clock,
        limits: Limits,
        random: Random,
    ) -> None:
        self.watch = watch
        self._callers = callers
        self._clock = clock
        self._limits = limits
        self._random = random
        self._asking = 0
        # A member gives a thread to each call: what is too much waits here, not there.
        self._slots = DeferredSemaphore(limits.calls_under_way_max)
        self._under_way: dict[Deferred[None], Leader] = {}
        watch.subscribe(self._leader_changed)

    @property
    def asking(self) -> int:
        """How many questions have no answer yet."""
        return self._asking

    async def ask_leader(self, method: Method[Q, A], request: Q) -> A:
        """The leader's answer; Unavailable when there is none within the budget."""
        return await self._ask(
            lambda _, deadline: self._ask_whoever_leads(method, request, deadline), self._leader
        )

    async def ask_any(self, method: Method[Q, A], request: Q) -> A:
        """The leader's answer, or if it has none that of any other member."""
        return await self._ask(
            partial(self._ask_member, method, request), lambda: self._leader() + self._followers()
        )

    async def _ask(
        self, attempt: Callable[[int, float], Awaitable[A]], whom: Callable[[], list[int]]
    ) -> A:
        """What ``attempt(member, deadline)`` brings, the first time that it does."""
        deadline = self._admit()
        try:
            while (left := deadline - self._clock.seconds()) > 0:
                for number in whom():
                    try:
                        return await attempt(number, deadline)
                    except _ELSEWHERE:
                        left = deadline - self._clock.seconds()
                    if left <= 0:
                        break
                await self._pause(left)
        finally:
            self._asking -= 1
        raise self._too_late()

    def _admit(self) -> float:
        """Count a question until it is answered; its deadline. Overloaded: there are too many."""
        if self._asking >= self._limits.requests_waiting_max:
            raise Overloaded("too many requests are waiting")
        self._asking += 1
        return self._clock.seconds() + self._limits.request_budget_s

    def _pause(self, left: float) -> "Deferred[None]":
        """Fires when it is time to ask again: after a moment, or when another member leads."""
        pause_s = self._limits.retry_s * (0.5 + self._random.random())
        return self.watch.change_within(min(pause_s, max(left, 0.0)))

    def _too_late(self) -> Unavailable:
        return Unavailable(f"the {self.watch.group} service did not answer in time")

    async def _ask_whoever_leads(self, method: Method[Q, A], request: Q, deadline: float) -> A:
        """Wait for a slot and ask the leader; not who led when the waiting began."""
        async with self._slot(deadline):
            leader = self.watch.leader
            if leader is None:
                raise Unavailable(f"no {self.watch.group} replica leads")
            left = deadline - self._clock.seconds()
            return await self._ask_one(leader.id, method, request, left)

    async def _ask_member(
        self, method: Method[Q, A], request: Q, number: int, deadline: float
    ) -> A:
        """Wait for a slot and ask one member, which may keep silent for a moment only."""
        async with self._slot(deadline):
            left = min(self._limits.control_deadline_s, deadline - self._clock.seconds())
            return await self._ask_one(number, method, request, left)

    @asynccontextmanager
    async def _slot(self, deadline: float) -> AsyncIterator[None]:
        """One of the calls that may be under way; Unavailable when none is free in time."""
        waiting = self._slots.acquire()
        if not waiting.called:
            left = max(deadline - self._clock.seconds(), 0.0)
            waiting.addBoth(_without_timer, self._clock.callLater(left, waiting.cancel))
        try:
            await waiting
        except CancelledError:
            raise Unavailable("out of time") from None
        try:
            yield
        finally:
            # Never inside another waiter's stack: hundreds may give up one after the other.
            self._clock.callLater(0, self._slots.release)

    def _leader(self) -> list[int]:
        return [self.watch.leader.id] if self.watch.leader else []

    def _followers(self) -> list[int]:
        """From the highest id down."""
        return [number for number in self.watch.alive() if number not in self._leader()]

    async def _ask_one(self, number: int, method: Method[Q, A], request: Q, deadline_s: float) -> A:
        if deadline_s <= 0:
            raise Unavailable("out of time")
        asked = self.watch.leader
        call = self._callers[number].call(method, request, deadline_s)
        given_up: Deferred[None] = Deferred()
        if asked is not None and asked.id == number:
            self._under_way[given_up] = asked
            given_up.addCallback(lambda _: call.cancel())
        try:
            return await call
        except CancelledError:
            if given_up.called:
                raise OutcomeUnknown("another member leads now") from None
            raise
        except TwstockError as error:
            self._note(number, error)
            raise
        finally:
            self._under_way.pop(given_up, None)

    def _note(self, number: int, error: TwstockError) -> None:
        """What a failure tells about the leader; that others do not lead is no news."""
        if self.watch.leader is None or self.watch.leader.id != number:
            return
        if isinstance(error, NotLeader):
            self.watch.demote(number, error.leader_id)
        elif isinstance(error, OutcomeUnknown):
            self.watch.suspect(number)

    def _leader_changed(self) -> None:
        """A paused leader answers nobody: ask the one of a higher term instead."""
        leader = self.watch.leader
        if leader is None:
            return
        for give_up, asked in list(self._under_way.items()):
            if asked.term < leader.term and asked.id != leader.id:
                give_up.callback(None)


def _without_timer(result: A, timer: DelayedCall) -> A:
    if timer.active():
        timer.cancel()
    return result


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

    def place(self, order: PlaceOrder) -> "Deferred[Placement]":
        """What became of an order; see ``OrderQueue.place``."""
        return self.queue.place(order)

    async def order(self, number: int) -> Trade | None:
        """The executed order of a number. Only a leader says that there is none; one that
        exists never changes, so anybody's word will do.
        """
        return await self.ask_any(methods.ORDER_DETAILS, number)

    async def list(self, page: Page) -> Orders:
        """A page of executed orders."""
        return await self.ask_any(methods.LIST_ORDERS, page)

    async def log(self, page: Page) -> Orders:
        """A page of executed orders as any replica has it: nothing tells that it is the newest. The
        leader, which has most to do, is asked only for what the others have not heard of yet.
        """
        return await self._ask(
            partial(self._log_of, page), lambda: self._followers() + self._leader()
        )

    async def _log_of(self, page: Page, number: int, deadline: float) -> Orders:
        wanted = SyncUp(page.after, whole=True, limit=page.limit)
        found = await self._ask_member(methods.ORDER_SYNC_UP, wanted, number, deadline)
        leader = self.watch.leader_status()
        newest = leader.last_transaction if leader and leader.id != number else 0
        if not found.orders and newest > page.after:
            raise Unavailable(f"order-{number} is behind")
        return Orders(found.orders, found.orders[-1].number if found.more else 0)

    async def last_number(self) -> int:
        """The number of the last order. Without a leader nothing trades, so what the others
        said last is good enough; Unavailable when there are no others.
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

        Lookups share calls, but never with those of another session: what the catalog answers
        a session, it remembers that this session holds.
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
        failure.trap(*_ELSEWHERE)
        return Deferred.fromCoroutine(self._ask_again(gathering, name, deadline))

    async def _ask_again(
        self, gathering: Gathering[str, Stock | None], name: str, deadline: float
    ) -> Stock | None:
        while (left := deadline - self._clock.seconds()) > 0:
            await self._pause(left)
            try:
                return await gathering.ask(name, deadline)
            except _ELSEWHERE:
                pass
        raise self._too_late()

    def _answered(self, result: A) -> A:
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
        """The published states of many stocks, for somebody who does not keep them."""
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
        """What became of a change of a stock. It is asked for again under its key, so it is
        done once, until there is an answer or no time left.

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
                    # Of this attempt it tells that nothing happened, not of one before.
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
        """Take or renew a cache lease, in one attempt: its rhythm is the session's. Answers
        who granted it; raises Unavailable when nobody leads.
        """
        leader = self.watch.leader
        if leader is None:
            raise Unavailable("no catalog leads")
        deadline_s = self._limits.control_deadline_s
        return leader, await self._ask_one(leader.id, methods.REGISTER, request, deadline_s)
