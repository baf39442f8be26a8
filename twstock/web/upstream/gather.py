"""Questions that share calls: what arrives together, or while calls are under way, goes together.

A call costs the same for one question or many. So what is asked in one turn of the reactor is
gathered, and what is asked while the calls under way leave no room waits for the next one;
whoever asks the same then shares one question. Nobody joins a call that has left: its answer
may be older than the question.
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
    """One question and everybody who waits for its answer; ``deadline`` is the last of theirs."""

    deadline: float
    waiters: "list[_Waiter[A]]" = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Waiter(Generic[A]):
    """Who asked, until when it waits, and what is told the result."""

    answer: "Deferred[A]"
    timer: DelayedCall
    origin: Ids

    def settle(self, result: "A | Failure") -> None:
        """Tell it, unless its time was up."""
        if not self.answer.called:
            self.timer.cancel()
            self.answer.callback(result)


class Gathering(Generic[Q, A]):
    """Asks by ``call(questions, deadline)``, which brings one answer for each, in their sequence;
    ``questions_max`` bounds a call. All times are seconds of the clock.
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
        """Fires with the answer of a call that left after this moment, or fails as that call
        did; with Unavailable at the deadline. Cancelling it stops the waiting.
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
        """Go on at a time, or at an earlier one that was asked for before."""
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
        # Each waiter's own deadline has a timer; the call may live as long as the last.
        origins = [waiter.origin for each in asked for waiter in each.waiters if waiter.origin]
        with origin.on_behalf_of(origin.together(origins)):
            call = Deferred.fromCoroutine(self._call(questions, deadline))
        call.addBoth(self._ended, began, asked)

    def _ended(
        self, result: "Sequence[A] | Failure", began: float, asked: Sequence[_Question[A]]
    ) -> None:
        """Tell everybody, and make the next call."""
        self._pace.ended(began, self._clock.seconds(), len(asked), len(self._waiting))
        answers: Sequence[A | Failure]
        if isinstance(result, Failure):
            answers = [result] * len(asked)
        elif len(result) != len(asked):
            # Answers are matched by place: too few or too many tell nothing.
            answers = [Failure(OutcomeUnknown("not one answer for each question"))] * len(asked)
        else:
            answers = result
        for question, answer in zip(asked, answers, strict=True):
            for waiter in question.waiters:
                waiter.settle(answer)
        self._pump()
