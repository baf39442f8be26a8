"""Orders on their way to the order leader.

Orders that arrive while a call is under way go together in the next one. An order that got no
definite answer is sent again under the same key, to whoever leads, until it has one or its time
is up. It then fails with ``Unavailable`` only if no attempt can have executed it; if one may have,
because it ended without the leader's answer, with ``OutcomeUnknown``.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from twstock import origin
from twstock.clocks import Clock, DelayedCall
from twstock.config import Limits
from twstock.errors import (
    DiskFull,
    InvalidRequest,
    KeyReused,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    TwstockError,
    Unavailable,
)
from twstock.origin import Ids, OriginLogger
from twstock.rpc.calls import Placement, Placements, PlaceOrder, PlaceOrders
from twstock.rpc.wire.methods import PLACE_ORDERS
from twstock.web.upstream.leader import Caller, Leader, LeaderWatch
from twstock.web.upstream.pace import Pace

Tell = Callable[[Placement | TwstockError], None]
"""Called once for an order, with its placement or with the error that says why it has none."""

_NO_EFFECT = (NotLeader, Unavailable)
_REFUSED_NOW = (Overloaded, DiskFull)
_DEFINITE = (KeyReused, InvalidRequest)


@dataclass(slots=True, eq=False)
class _Pending:
    """One order that somebody waits for; ``doubtful``: an attempt may have executed it."""

    order: PlaceOrder
    deadline: float
    tell: Tell
    origin: Ids
    doubtful: bool = False
    in_call: bool = False
    settled: bool = False


@dataclass(slots=True, eq=False)
class _Attempt:
    """One call under way."""

    leader: Leader
    began: float
    orders: Sequence[_Pending]
    call: "Deferred[None] | None" = None
    abandoned: bool = False


class OrderQueue:
    """Gathers orders, sends them to the leader that ``watch`` knows, and answers each."""

    _log = OriginLogger()

    def __init__(
        self,
        watch: LeaderWatch,
        callers: Mapping[int, Caller],
        clock: Clock,
        limits: Limits,
        random: Random,
    ) -> None:
        self._watch = watch
        self._callers = callers
        self._clock = clock
        self._limits = limits
        self._random = random
        self._waiting: deque[_Pending] = deque()
        self._by_deadline: deque[_Pending] = deque()
        self._attempts: list[_Attempt] = []
        self._pace = Pace(limits.batch_orders_max)
        self._later: list[_Pending] = []
        self._timers: dict[str, tuple[float, DelayedCall]] = {}
        self._not_before = 0.0
        self._failed_with: Leader | None = None
        self._count = 0
        self._gathering = False
        self._stopped = False
        watch.subscribe(self._leader_changed)

    def __len__(self) -> int:
        """How many orders have no answer yet."""
        return self._count

    def put(self, order: PlaceOrder, tell: Tell) -> None:
        """Take an order. Later, within ``request_budget_s``, ``tell`` is called with its placement
        or with KeyReused, InvalidRequest, Overloaded, DiskFull or Unavailable (nothing happened),
        or OutcomeUnknown. Raises Overloaded or Unavailable; then ``tell`` is not called.

        Not a Deferred: that would cost a sixth of a front-end's work for an order.
        """
        if self._stopped:
            raise Unavailable("the front-end is shutting down")
        if self._count >= self._limits.requests_waiting_max:
            raise Overloaded("too many orders are waiting")
        deadline = self._clock.seconds() + self._limits.request_budget_s
        pending = _Pending(order, deadline, tell, origin.current())
        self._count += 1
        self._waiting.append(pending)
        self._by_deadline.append(pending)
        if len(self._by_deadline) == 1:
            self._set_timer("expire", deadline, self._expire)
        if not self._gathering:
            # Whatever arrives in this turn of the reactor goes together.
            self._gathering = True
            self._clock.callLater(0, self._gathered)

    def stop(self) -> None:
        """Answer every order that waits, with what is known of it."""
        self._stopped = True
        for pending in list(self._by_deadline):
            self._give_up(pending)
        for attempt in list(self._attempts):
            self._abandon(attempt)
        for _, timer in self._timers.values():
            if timer.active():
                timer.cancel()

    def _gathered(self) -> None:
        self._gathering = False
        if not self._stopped:
            self._pump()

    def _pump(self) -> None:
        """Send what waits, if there is a leader and the calls under way leave room."""
        leader = self._watch.leader
        while self._waiting and leader is not None:
            start = max(self._not_before, self._pace.next_start(len(self._waiting)))
            if start > self._clock.seconds():
                if start < float("inf"):
                    self._set_timer("pump", start, self._pump)
                return
            self._send(leader, self._next_batch())
            leader = self._watch.leader

    def _next_batch(self) -> list[_Pending]:
        size = min(len(self._waiting), self._limits.batch_orders_max)
        batch = [self._waiting.popleft() for _ in range(size)]
        return [pending for pending in batch if not pending.settled]

    def _send(self, leader: Leader, batch: Sequence[_Pending]) -> None:
        if not batch:
            return
        now = self._clock.seconds()
        attempt = _Attempt(leader, now, batch)
        self._attempts.append(attempt)
        self._pace.began(now)
        for pending in batch:
            pending.in_call = True
        # _expire keeps each order's own deadline; the call may take until the latest of them.
        deadline_s = max(pending.deadline for pending in batch) - now
        request = PlaceOrders(tuple(pending.order for pending in batch))
        caller = self._callers[leader.id]
        with origin.on_behalf_of(_origin_of(batch)):
            call = caller.call(PLACE_ORDERS, request, max(deadline_s, 0.001))
        attempt.call = call.addCallbacks(
            self._answered, self._failed, (attempt,), {}, (attempt,)
        ).addErrback(self._unexpected)

    def _answered(self, answer: Placements, attempt: _Attempt) -> None:
        if not self._end(attempt):
            return
        if len(answer.results) == len(attempt.orders):
            for pending, result in zip(attempt.orders, answer.results, strict=True):
                self._learn(pending, result)
            self._pump()
        else:
            self._again(attempt, OutcomeUnknown("not one result for each order"))

    def _failed(self, failure: Failure, attempt: _Attempt) -> None:
        if not self._end(attempt):
            return
        problem = failure.value or OutcomeUnknown()
        self._again(attempt, problem)
        if isinstance(problem, NotLeader):
            self._watch.demote(attempt.leader.id, problem.leader_id)
        elif not isinstance(problem, (Unavailable, *_REFUSED_NOW, *_DEFINITE)):
            self._watch.suspect(attempt.leader.id)
        if not isinstance(problem, TwstockError):
            with origin.on_behalf_of(_origin_of(attempt.orders)):
                self._log.failure("placing orders failed", failure)

    def _end(self, attempt: _Attempt) -> bool:
        """Take an attempt off the list; False if it was abandoned and its orders went on."""
        if attempt.abandoned:
            return False
        self._attempts.remove(attempt)
        now, orders = self._clock.seconds(), len(attempt.orders)
        self._pace.ended(attempt.began, now, orders, len(self._waiting))
        for pending in attempt.orders:
            pending.in_call = False
        return True

    def _learn(self, pending: _Pending, result: Placement | Exception) -> None:
        """One order's own result: an answer, or a reason to send it again a little later."""
        if isinstance(result, Placement):
            self._settle(pending, result)
        elif not self._final(pending, result):
            self._later.append(pending)
            self._set_timer("later", self._clock.seconds() + self._pause_s(), self._resend_later)

    def _resend_later(self) -> None:
        orders, self._later = self._later, []
        self._requeue(orders)

    def _again(self, attempt: _Attempt, problem: BaseException) -> None:
        """A whole call failed: its orders are the next to be sent, after a pause."""
        self._not_before = self._clock.seconds() + self._pause_s()
        self._failed_with = attempt.leader
        self._requeue([p for p in attempt.orders if not self._final(p, problem)])

    def _final(self, pending: _Pending, problem: BaseException) -> bool:
        """Whether an attempt's failure is the order's answer; notes if it leaves a doubt."""
        if isinstance(problem, _NO_EFFECT):
            return pending.settled
        if not isinstance(problem, _DEFINITE + _REFUSED_NOW):
            pending.doubtful = True
        elif isinstance(problem, KeyReused) or not pending.doubtful:
            self._settle(pending, problem)
        return pending.settled

    def _requeue(self, orders: Sequence[_Pending]) -> None:
        self._waiting.extendleft(p for p in reversed(orders) if not p.settled)
        self._pump()

    def _leader_changed(self) -> None:
        """Calls to a leader of an older term may hang: send their orders to the new one."""
        leader = self._watch.leader
        if leader is None:
            return
        for attempt in list(self._attempts):
            if attempt.leader.term < leader.term and attempt.leader.id != leader.id:
                self._abandon(attempt)
        if leader != self._failed_with:
            # Another leader need not wait for the pause that followed the last one's failure.
            self._not_before = 0.0
        self._pump()

    def _abandon(self, attempt: _Attempt) -> None:
        self._end(attempt)
        attempt.abandoned = True
        for pending in attempt.orders:
            pending.doubtful = True
        self._waiting.extendleft(p for p in reversed(attempt.orders) if not p.settled)
        if attempt.call is not None:
            attempt.call.cancel()

    def _expire(self) -> None:
        """Give up the orders whose time is up."""
        now = self._clock.seconds()
        while self._by_deadline:
            head = self._by_deadline[0]
            if not head.settled and head.deadline > now:
                self._set_timer("expire", head.deadline, self._expire)
                return
            self._by_deadline.popleft()
            self._give_up(head)

    def _give_up(self, pending: _Pending) -> None:
        if pending.settled:
            return
        if pending.doubtful or pending.in_call:
            problem: TwstockError = OutcomeUnknown(
                "the outcome could not be learnt in time: ask again with the same key"
            )
        else:
            problem = Unavailable("no order leader took the order in time")
        self._settle(pending, problem)

    def _settle(self, pending: _Pending, became: Placement | TwstockError) -> None:
        if pending.settled:
            return
        pending.settled = True
        self._count -= 1
        while self._by_deadline and self._by_deadline[0].settled:
            self._by_deadline.popleft()
        try:
            pending.tell(became)
        except Exception:  # the other orders still get their answers
            with origin.on_behalf_of(pending.origin):
                self._log.failure("an order's answer could not be handed over")

    def _pause_s(self) -> float:
        return self._limits.retry_s * (0.5 + self._random.random())

    def _set_timer(self, name: str, at: float, what: Callable[[], None]) -> None:
        """One timer of each name at most, at the earliest time that was asked for."""
        if self._stopped:
            return
        if name in self._timers:
            earlier, timer = self._timers[name]
            if timer.active() and earlier <= at:
                return
            if timer.active():
                timer.cancel()
        delay = max(at - self._clock.seconds(), 0.0)
        self._timers[name] = (at, self._clock.callLater(delay, what))

    def _unexpected(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("an order's answer could not be handled", failure)


def _origin_of(batch: Sequence[_Pending]) -> Ids:
    return origin.together([pending.origin for pending in batch if pending.origin])
