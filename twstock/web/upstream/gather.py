"""Questions that share calls.

A call costs the same for one question or many. So questions that are asked in one turn of the
reactor go together, and so do those that are asked while the calls under way leave no room for
another. Equal questions that wait are asked once. None joins a call that has left, because the
answer may be older than the question.
"""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twstock import origin
from twstock.clocks import Clock, DelayedCall
from twstock.errors import OutcomeUnknown, Unavailable
from twstock.origin import Ids
from twstock.web.upstream.pace import Pace

Q = TypeVar("Q")
A = TypeVar("A")


@dataclass(slots=True, eq=False)
class _Question(Generic[A]):
    """One question and all who wait for its answer; ``deadline`` is the latest of theirs."""

    deadline: float
    waiters: "list[_Waiter[A]]" = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Waiter(Generic[A]):
    """One asker: the Deferred for its answer, the timer of its deadline, its requests' ids."""

    answer: "Deferred[A]"
    timer: DelayedCall
    origin: Ids

    def settle(self, result: "A | Failure") -> None:
        """Hand the result over, unless the deadline has passed."""
        if not self.answer.called:
            self.timer.cancel()
            self.answer.callback(result)


class Gathering(Generic[Q, A]):
    """Asks by ``call(questions, deadline)``, which returns one answer for each, in the same
    sequence; a call has up to ``questions_max``. All times are seconds of the clock.
    """

    def __init__(
        self,
        call: Callable[[tuple[Q, ...], float], Coroutine[Any, Any, Sequence[A]]],
        clock: Clock,
        questions_max: int,
    ) -> None:
        self._call = call
        self._clock = clock
        self._questions_max = questions_max
        self._waiting: dict[Q, _Question[A]] = {}
        self._pace = Pace(questions_max)
        self._next: tuple[float, DelayedCall] | None = None

    def ask(self, question: Q, deadline: float) -> "Deferred[A]":
        """Fires with the answer of a call that leaves after this moment, or fails as that call
        does, or with Unavailable at the deadline. Cancelling it stops the waiting.
        """
        answer: Deferred[A] = Deferred(lambda _: self._leave(question, waiter))
        left = max(deadline - self._clock.seconds(), 0.0)
        waiter = _Waiter(answer, self._clock.callLater(left, answer.cancel), origin.current())
        asked = self._waiting.get(question)
        if asked is None:
            asked = self._waiting[question] = _Question(deadline)
        asked.waiters.append(waiter)
        asked.deadline = max(asked.deadline, deadline)
        self._wake_at(max(self._pace.next_start(len(self._waiting)), self._clock.seconds()))
        return answer

    def _leave(self, question: Q, waiter: _Waiter[A]) -> None:
        """A waiter gives up: a question that nobody waits for is not asked."""
        if waiter.timer.active():
            waiter.timer.cancel()
        asked = self._waiting.get(question)
        if asked is not None and waiter in asked.waiters:
            asked.waiters.remove(waiter)
            if not asked.waiters:
                del self._waiting[question]
        waiter.answer.errback(Unavailable("out of time"))

    def _wake_at(self, at: float) -> None:
        """Wake up at a time, or at an earlier one that is set already."""
        if at == inf:
            return
        if self._next is not None:
            earlier, timer = self._next
            if earlier <= at:
                return
            timer.cancel()
        delay = max(at - self._clock.seconds(), 0.0)
        self._next = (at, self._clock.callLater(delay, self._woken))

    def _woken(self) -> None:
        self._next = None
        self._pump()

    def _pump(self) -> None:
        """Send what waits, if the calls under way leave room."""
        while self._waiting:
            start = self._pace.next_start(len(self._waiting))
            if start > self._clock.seconds():
                self._wake_at(start)
                return
            self._send()
        if self._next is not None:
            self._next[1].cancel()
            self._next = None

    def _send(self) -> None:
        """One call with the questions that have waited longest."""
        questions = tuple(islice(self._waiting, self._questions_max))
        asked = [self._waiting.pop(question) for question in questions]
        began = self._clock.seconds()
        self._pace.began(began)
        deadline = max(question.deadline for question in asked)
        # Each waiter has a timer for its own deadline; the call may take until the latest.
        origins = [waiter.origin for each in asked for waiter in each.waiters if waiter.origin]
        with origin.on_behalf_of(origin.together(origins)):
            call = Deferred.fromCoroutine(self._call(questions, deadline))
        call.addBoth(self._ended, began, asked)

    def _ended(
        self, result: "Sequence[A] | Failure", began: float, asked: Sequence[_Question[A]]
    ) -> None:
        """Hand the answers over, and make the next call."""
        self._pace.ended(began, self._clock.seconds(), len(asked), len(self._waiting))
        answers: Sequence[A | Failure]
        if isinstance(result, Failure):
            answers = [result] * len(asked)
        elif len(result) != len(asked):
            # Answers are matched by position: if there are too few or too many, none can be.
            answers = [Failure(OutcomeUnknown("not one answer for each question"))] * len(asked)
        else:
            answers = result
        for question, answer in zip(asked, answers, strict=True):
            for waiter in question.waiters:
                waiter.settle(answer)
        self._pump()
