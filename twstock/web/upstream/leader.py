"""Who leads a group, as far as a front-end can tell, and who else is alive.

The leader is probed by Heartbeat a few times a second, and all others less often, unless the leader
is in doubt. Each answer names the leader that its member knows, so a new leader is found with the
first answer of its term. If a leader cannot be reached, NotifyReplica nominates the highest living
member, which then looks for itself, and campaigns at once if the leader refuses the connection: a
front-end is never believed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twstock.clocks import Clock, DelayedCall
from twstock.config import Limits
from twstock.errors import TwstockError
from twstock.repeating import repeating
from twstock.rpc.calls import Notify, Probe, ProbeAnswer, Status
from twstock.rpc.wire import methods
from twstock.rpc.wire.methods import Method

Q = TypeVar("Q")
A = TypeVar("A")

_HEARTBEAT = {"order": methods.ORDER_HEARTBEAT, "catalog": methods.CATALOG_HEARTBEAT}
_NOTIFY = {"order": methods.ORDER_NOTIFY, "catalog": methods.CATALOG_NOTIFY}
EVERYBODY_EACH = 3
"""In one round of so many all members are probed; in the others only a leader, if it answers."""
_HURRY_S = 2.0
"""How long after a leader is lost members are probed at the pace of retries."""
LATE_SHARE = 0.9
"""A call that failed after this share of its deadline was late; before that, it was cut off."""
_TIMEOUTS_MAX = 3
"""After so many probes in a row without an answer a leader counts as gone: one may just be late."""


class Caller(Protocol):
    """Calls to one member: ``twstock.rpc.client.Client``, or a fake."""

    def call(self, method: Method[Q, A], request: Q, deadline_s: float) -> "Deferred[A]":
        """Fires with the answer or fails with an error of ``twstock.errors``; cancelling the
        Deferred stops the waiting, not the call.
        """

    def close(self) -> None:
        """Fail the calls under way and make no more."""


@dataclass(frozen=True, slots=True, order=True)
class Leader:
    """A leader and its term; of two, the one with the higher term leads."""

    term: int
    id: int


class _Member:
    """What is known of one member."""

    def __init__(self, number: int, caller: Caller) -> None:
        self.id = number
        self.caller = caller
        self.status: Status | None = None
        self.alive = False
        self.suspected = False
        self.timeouts = 0
        self.probe: Deferred[None] | None = None
        self.missed = False

    @property
    def reachable(self) -> bool:
        """Whether calls to the member make sense; a late answer or two do not rule them out."""
        return not self.suspected and self.timeouts < _TIMEOUTS_MAX

    @property
    def answers(self) -> bool:
        """Whether the member's last probe, if any, was answered, and none is under way."""
        return self.probe is None and not self.timeouts

    @property
    def claim(self) -> Leader | None:
        """The leader that the member knows of: itself, or another."""
        if self.status is None or not self.reachable:
            return None
        if self.status.role == "leader":
            return Leader(self.status.term, self.id)
        leader_id = self.status.leader_id
        return Leader(self.status.term, leader_id) if leader_id not in (0, self.id) else None


class LeaderWatch:
    """Probes the members of ``group`` and knows the leader; reactor thread only. Probes carry
    ``front_id``.
    """

    _log = Logger()

    def __init__(
        self,
        group: str,
        callers: Mapping[int, Caller],
        clock: Clock,
        limits: Limits,
        random: Random,
        front_id: int = 0,
    ) -> None:
        self.group = group
        self.leader: Leader | None = None
        """The leader; None if none can be reached."""
        self._members = {number: _Member(number, caller) for number, caller in callers.items()}
        self._clock = clock
        self._limits = limits
        self._random = random
        self._asks = Probe(front_id=front_id)
        self._subscribers: list[Callable[[], None]] = []
        self._waiters: dict[Deferred[None], DelayedCall] = {}
        self._last: Leader | None = None
        self._lost_at = 0.0
        self._nominate_from = float("-inf")
        self._nomination_pause_s = limits.retry_s
        self._nominated: tuple[Leader, int] | None = None
        self._hurry: DelayedCall | None = None
        self._loop = repeating(self._next_round, clock, f"probing {group}")
        self._rounds = 0
        self._running = False

    def start(self) -> None:
        """Probe at once and from now on."""
        self._running = True
        self._lost_at = self._clock.seconds()
        self._loop.start(self._limits.probe_every_s)

    def stop(self) -> None:
        """Stop probing, and fire whatever waits for a change."""
        self._running = False
        if self._loop.running:
            self._loop.stop()
        if self._hurry is not None and self._hurry.active():
            self._hurry.cancel()
        for member in self._members.values():
            if member.probe is not None:
                member.probe.cancel()
        self._wake()

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` whenever the leader changes, also to None."""
        self._subscribers.append(changed)

    def change_within(self, seconds: float) -> "Deferred[None]":
        """Fires at the next change of leader, at the latest after ``seconds``."""
        waiter: Deferred[None] = Deferred(self._forget_waiter)
        self._waiters[waiter] = self._clock.callLater(max(seconds, 0.0), self._timed_out, waiter)
        return waiter

    def alive(self) -> list[int]:
        """The members that answered their last probe, from the highest id down."""
        return sorted((m.id for m in self._members.values() if m.alive), reverse=True)

    def statuses(self) -> Mapping[int, Status | None]:
        """Each member's last status; None for one that does not answer."""
        return {m.id: m.status if m.alive else None for m in self._members.values()}

    def leader_status(self) -> Status | None:
        """The leader's last status; None without a leader."""
        return self._members[self.leader.id].status if self.leader else None

    async def refresh(self) -> None:
        """Ask every member now; returns when each has answered or passed its deadline."""
        for probe in [self._probe(member) for member in self._members.values()]:
            await probe

    def suspect(self, number: int) -> None:
        """A call to a member was cut off: do not rely on the member until a probe has ended."""
        member = self._members[number]
        member.suspected = True
        self._judge()
        self._probe(member)

    def demote(self, number: int, leader_id: int) -> None:
        """A member said that it does not lead, but that ``leader_id`` does (0: not known)."""
        member = self._members[number]
        if member.status is not None:
            member.status = replace(member.status, role="follower", leader_id=leader_id)
        self._judge()
        self._probe_all()

    def _next_round(self) -> None:
        """Probe the leader; all members if it is time to, or if another may lead."""
        leader = self._members[self.leader.id] if self.leader else None
        if leader is None or not leader.answers or self._rounds % EVERYBODY_EACH == 0:
            self._probe_all()
        else:
            self._probe(leader)
        self._rounds += 1

    def _probe_all(self) -> None:
        for member in self._members.values():
            self._probe(member)

    def _probe(self, member: _Member) -> "Deferred[None]":
        """Fires when the probe that is under way, or else a new one, has ended."""
        done: Deferred[None] = Deferred()
        self._begin_probe(member)
        if member.probe is None:
            done.callback(None)
        else:
            member.probe.addBoth(lambda _: done.callback(None))
        return done

    def _begin_probe(self, member: _Member) -> None:
        if not self._running or member.probe is not None:
            return
        began = self._clock.seconds()
        asked = member.caller.call(
            _HEARTBEAT[self.group], self._asks, self._limits.probe_deadline_s
        )
        probe = asked.addCallbacks(self._heard, self._lost, (member,), {}, (member, began))
        probe.addErrback(self._unexpected).addBoth(self._ended, member)
        if not probe.called:
            member.probe = probe

    def _heard(self, answer: ProbeAnswer, member: _Member) -> None:
        if member.missed:
            self._log.info("{member} answers again", member=f"{self.group}-{member.id}")
        member.status, member.alive, member.suspected = answer.status, True, False
        member.timeouts, member.missed = 0, False
        self._judge()

    def _lost(self, failure: Failure, member: _Member, began: float) -> None:
        """Distinguish a refused connection from a late answer: a busy member is not a dead one,
        and only a dead leader may be replaced at once.
        """
        if not self._running:
            return
        late = self._clock.seconds() - began >= self._limits.probe_deadline_s * LATE_SHARE
        member.timeouts = member.timeouts + 1 if late else _TIMEOUTS_MAX
        member.alive, member.suspected = False, False
        if member.timeouts >= _TIMEOUTS_MAX and member.status is not None and not member.missed:
            member.missed = True
            name, reason = f"{self.group}-{member.id}", failure.getErrorMessage()
            self._log.warn("{member} does not answer: {reason}", member=name, reason=reason)
        self._judge()
        known = self._last
        if known and known.id == member.id and member.timeouts >= _TIMEOUTS_MAX:
            self._nominate(member.id)
        if not failure.check(TwstockError):
            failure.raiseException()

    def _unexpected(self, failure: Failure) -> None:
        if self._running:
            self._log.failure("probing {group} failed", failure, group=self.group)

    def _ended(self, _: object, member: _Member) -> None:
        member.probe = None

    def _judge(self) -> None:
        """Find the leader with the highest term that any member which answers knows."""
        claims = {claim for m in self._members.values() if (claim := m.claim)}
        best = max((claim for claim in claims if not self._denied(claim)), default=None)
        if best is not None and not (best.id in self._members and self._members[best.id].reachable):
            best = None
        if best is None:
            self._look_closer()
        if best == self.leader:
            return
        if best is None:
            self._lost_at = self._clock.seconds()
            self._log.warn("no {group} leader can be reached", group=self.group)
        else:
            self._last, self._nomination_pause_s = best, self._limits.retry_s
            name = f"{self.group}-{best.id}"
            self._log.info("{leader} leads term {term}", leader=name, term=best.term)
        self.leader = best
        for changed in self._subscribers:
            changed()
        self._wake()

    def _denied(self, claim: Leader) -> bool:
        """Whether the member itself knows better: a follower of a term never leads that term."""
        status = self._members[claim.id].status if claim.id in self._members else None
        return status is not None and status.role == "follower" and status.term >= claim.term

    def _look_closer(self) -> None:
        """Without a leader, probe everybody: at once when it was just lost, then at the pace of
        retries for a while.
        """
        waiting = self._hurry is not None and self._hurry.active()
        is_new = self.leader is not None  # ``_judge`` has not yet recorded that it is lost
        recent = is_new or self._clock.seconds() - self._lost_at < _HURRY_S
        if self._running and recent and not waiting:
            pause = 0.0 if is_new else self._limits.retry_s * (0.5 + self._random.random())
            self._hurry = self._clock.callLater(pause, self._probe_all)

    def _nominate(self, gone: int) -> None:
        """Tell the highest living member that the leader cannot be reached. Again soon, because a
        dying process may close its connections before it stops listening; later less often.
        """
        now = self._clock.seconds()
        nominee = next((n for n in self.alive() if n != gone), None)
        if nominee is None or now < self._nominate_from:
            return
        longest_s = 2 * self._limits.probe_every_s
        self._nomination_pause_s = min(2 * self._nomination_pause_s, longest_s)
        self._nominate_from = now + self._nomination_pause_s
        if self._nominated != (self._last, nominee):
            self._nominated = (self._last, nominee) if self._last else None
            name = f"{self.group}-{nominee}"
            self._log.info("{nominee} is asked to lead", nominee=name, gone=f"{self.group}-{gone}")
        member = self._members[nominee]
        call = member.caller.call(
            _NOTIFY[self.group], Notify(nominee), self._limits.control_deadline_s
        )
        told = call.addCallbacks(lambda _: None, self._not_told)
        told.addCallback(lambda _: self._begin_probe(member)).addErrback(self._unexpected)

    def _not_told(self, failure: Failure) -> None:
        failure.trap(TwstockError)

    def _forget_waiter(self, waiter: "Deferred[None]") -> None:
        timer = self._waiters.pop(waiter)
        if timer.active():
            timer.cancel()

    def _timed_out(self, waiter: "Deferred[None]") -> None:
        del self._waiters[waiter]
        waiter.callback(None)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiter, timer in waiters.items():
            timer.cancel()
            waiter.callback(None)
