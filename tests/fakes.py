"""Fakes of what a front-end talks to. They do in memory what the real ones promise."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twstock.errors import OutcomeUnknown
from twstock.rpc.calls import ProbeAnswer, Status

HANG = object()
"""The reply of a stopped member: nothing, until the caller's deadline."""


def status(number: int, role: str = "follower", term: int = 1, **known: Any) -> Status:
    """What a healthy member of a group reports about itself."""
    fields = {
        "group": "order",
        "cluster_id": "test",
        "incarnation": 1,
        "leader_id": number if role == "leader" else 0,
        "last_index": 0,
        "commit": 0,
        "applied": 0,
        "digest": b"",
        "last_transaction": 0,
        "pid": 1000 + number,
        "uptime_s": 1.0,
        "ready": True,
        "reason": "",
        "formed": True,
    }
    return Status(id=number, role=role, term=term, **(fields | known))


@dataclass(eq=False)
class Called:
    """One call that a member received."""

    method: str
    request: Any
    deadline_s: float
    answer: "Deferred[Any]"
    cancelled: bool = False


@dataclass(eq=False)
class FakeMember:
    """A member of a group, as a front-end's ``Caller``.

    ``replies`` maps a method's name to a value, an exception, ``HANG``, or a function of the
    request that returns one of these. Heartbeats are answered with ``status``; None: as if the
    process were gone.
    """

    clock: Clock
    status: Status | None = None
    replies: dict[str, Any] = field(default_factory=dict)
    calls: list[Called] = field(default_factory=list)
    closed: bool = False

    def call(self, method: Any, request: Any, deadline_s: float) -> "Deferred[Any]":
        """Answer at once, or at the deadline with OutcomeUnknown."""
        answer: Deferred[Any] = Deferred(lambda _: self._cancelled(called))
        called = Called(method.name, request, deadline_s, answer)
        self.calls.append(called)
        reply = self._reply(called)
        if reply is HANG:
            late = OutcomeUnknown("deadline passed")
            timer = self.clock.callLater(deadline_s, self.settle, called, late)
            answer.addBoth(lambda result: timer.cancel() or result if timer.active() else result)
        else:
            self.settle(called, reply)
        return answer

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    def settle(self, called: Called, reply: Any) -> None:
        """Answer a call that hangs."""
        if called.answer.called:
            return
        if isinstance(reply, Exception):
            called.answer.errback(Failure(reply))
        else:
            called.answer.callback(reply)

    def of(self, method: str) -> list[Called]:
        """The calls of one method."""
        return [called for called in self.calls if called.method == method]

    def _cancelled(self, called: Called) -> None:
        called.cancelled = True

    def _reply(self, called: Called) -> Any:
        reply = self.replies.get(called.method, OutcomeUnknown("connection refused"))
        if called.method == "Heartbeat" and "Heartbeat" not in self.replies:
            if self.status is not None:
                return ProbeAnswer(self.status)
        elif isinstance(reply, Callable):  # type: ignore[arg-type]
            return reply(called.request)
        return reply
