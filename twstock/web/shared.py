"""One look for all who want it: whoever asks while it is under way gets the same answer.

For answers that cost the same for one asker or many, and concern others: a look at the whole
cluster asks every member, so any number of askers must not cost it more than one.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twstock.process import Clock

A = TypeVar("A")

AGAIN_S = 0.1
"""For how long an answer is given again: who asks without end does not keep this busy."""


class Shared(Generic[A]):
    """The answer of ``look``, for all who ask while it is made, and for ``AGAIN_S`` from its
    beginning. They must not change it.
    """

    def __init__(self, look: Callable[[], Coroutine[Any, Any, A]], clock: Clock) -> None:
        self._look = look
        self._clock = clock
        self._waiting: list[Deferred[A]] = []
        self._known: A | None = None
        self._known_until = float("-inf")

    def answer(self) -> "Deferred[A]":
        """What is seen; fails as the look does, and then the next one who asks looks again."""
        answer: Deferred[A] = Deferred()
        if self._known is not None and self._clock.seconds() < self._known_until:
            answer.callback(self._known)
            return answer
        self._waiting.append(answer)
        if len(self._waiting) == 1:
            self._known, self._known_until = None, self._clock.seconds() + AGAIN_S
            Deferred.fromCoroutine(self._look()).addBoth(self._seen)
        return answer

    def _seen(self, seen: A | Failure) -> None:
        if not isinstance(seen, Failure):
            self._known = seen
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            answer.callback(seen)
