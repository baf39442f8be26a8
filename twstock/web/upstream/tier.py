"""Questions to a group of replicas: to its leader of the moment, within a time budget."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, TimeoutError

from twstock.clocks import Clock
from twstock.config import Limits
from twstock.errors import (
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    TwstockError,
    Unavailable,
)
from twstock.rpc.wire.methods import Method
from twstock.web.upstream.leader import LATE_SHARE, Caller, Leader, LeaderWatch

Q = TypeVar("Q")
A = TypeVar("A")

ELSEWHERE = (NotLeader, Unavailable, OutcomeUnknown)
"""Errors after which to ask another member, or again later: questions have no effects."""


class Tier:
    """Questions to one group, asked again until a member has answered or time is up."""

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
        # A member spends a thread on each call: those that are too many wait here, not there.
        self._slots = DeferredSemaphore(limits.calls_under_way_max)
        self._under_way: dict[Deferred[None], Leader] = {}
        watch.subscribe(self._leader_changed)

    @property
    def asking(self) -> int:
        """How many questions have no answer yet."""
        return self._asking

    async def ask_leader(self, method: Method[Q, A], request: Q) -> A:
        """The leader's answer; raises Unavailable if there is none within the budget."""
        return await self._ask(
            lambda _, deadline: self._ask_whoever_leads(method, request, deadline), self._leader
        )

    async def ask_any(self, method: Method[Q, A], request: Q) -> A:
        """The leader's answer, or any other member's if the leader does not answer."""
        return await self._ask(
            partial(self._ask_member, method, request), lambda: self._leader() + self._followers()
        )

    async def _ask(
        self, attempt: Callable[[int, float], Awaitable[A]], whom: Callable[[], list[int]]
    ) -> A:
        """The result of the first ``attempt(member, deadline)`` that succeeds; ``whom`` says which
        members to try, one after the other.
        """
        deadline = self._admit()
        try:
            while (left := deadline - self._clock.seconds()) > 0:
                for number in whom():
                    try:
                        return await attempt(number, deadline)
                    except ELSEWHERE:
                        left = deadline - self._clock.seconds()
                    if left <= 0:
                        break
                await self._pause(left)
        finally:
            self._asking -= 1
        raise self._too_late()

    def _admit(self) -> float:
        """Count a question as open, and return its deadline. Raises Overloaded if too many are."""
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
        """Wait for a slot, then ask whoever leads by then."""
        async with self._slot(deadline):
            leader = self.watch.leader
            if leader is None:
                raise Unavailable(f"no {self.watch.group} replica leads")
            left = deadline - self._clock.seconds()
            return await self._ask_one(leader.id, method, request, left)

    async def _ask_member(
        self, method: Method[Q, A], request: Q, number: int, deadline: float
    ) -> A:
        """Wait for a slot and ask one member, which has ``control_deadline_s`` to answer."""
        async with self._slot(deadline):
            left = min(self._limits.control_deadline_s, deadline - self._clock.seconds())
            return await self._ask_one(number, method, request, left)

    @asynccontextmanager
    async def _slot(self, deadline: float) -> AsyncIterator[None]:
        """One of the calls that may be under way; raises Unavailable if none is free in time."""
        waiting = self._slots.acquire()
        if not waiting.called:
            left = max(deadline - self._clock.seconds(), 0.0)
            waiting.addTimeout(left, self._clock)  # type: ignore[arg-type]
        try:
            await waiting
        except TimeoutError:
            raise Unavailable("out of time") from None
        try:
            yield
        finally:
            # Not inside another waiter's stack: if hundreds give up, their stacks would nest.
            self._clock.callLater(0, self._slots.release)

    def _leader(self) -> list[int]:
        return [self.watch.leader.id] if self.watch.leader else []

    def _followers(self) -> list[int]:
        """From the highest id down."""
        return [number for number in self.watch.alive() if number not in self._leader()]

    async def _ask_one(self, number: int, method: Method[Q, A], request: Q, deadline_s: float) -> A:
        if deadline_s <= 0:
            raise Unavailable("out of time")
        asked, began = self.watch.leader, self._clock.seconds()
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
            self._note(number, error, self._clock.seconds() - began >= deadline_s * LATE_SHARE)
            raise
        finally:
            self._under_way.pop(given_up, None)

    def _note(self, number: int, error: TwstockError, is_late: bool) -> None:
        """Learn from a failure of the leader; other members' failures say nothing about it. A
        leader that is slow with one question may answer others: if it is gone, probes find out.
        """
        if self.watch.leader is None or self.watch.leader.id != number:
            return
        if isinstance(error, NotLeader):
            self.watch.demote(number, error.leader_id)
        elif isinstance(error, OutcomeUnknown) and not is_late:
            self.watch.suspect(number)

    def _leader_changed(self) -> None:
        """A paused leader answers nobody: questions to it go to the leader of a higher term."""
        leader = self.watch.leader
        if leader is None:
            return
        for give_up, asked in list(self._under_way.items()):
            if asked.term < leader.term and asked.id != leader.id:
                give_up.callback(None)
