"""A look that is shared: however many ask for it, no more than one is under way.

For looks that bother other members: one at the whole cluster asks every member, so any number of
askers must not cost the cluster more than one.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twstock.clocks import Clock

A = TypeVar("A")


class Shared(Generic[A]):
    """One answer of ``look`` for all who ask within ``age_s`` of its beginning. Those who ask
    later, while it is under way, share the next one. Nobody may modify an answer.
    """

    def __init__(
        self, look: Callable[[], Coroutine[Any, Any, A]], clock: Clock, age_s: float = 0.0
    ) -> None:
        self._look = look
        self._clock = clock
        self._age_s = age_s
        self._began_at = float("-inf")
        self._under_way: list[Deferred[A]] = []
        self._next: list[Deferred[A]] = []
        self._known: A | None = None

    def answer(self) -> "Deferred[A]":
        """Fires with the look's answer, or fails as the look does; a failure is not kept."""
        answer: Deferred[A] = Deferred()
        is_young = self._clock.seconds() < self._began_at + self._age_s
        if self._under_way:
            (self._under_way if is_young else self._next).append(answer)
        elif is_young and self._known is not None:
            answer.callback(self._known)
        else:
            self._begin([answer])
        return answer

    def _begin(self, askers: "list[Deferred[A]]") -> None:
        self._under_way, self._known = askers, None
        self._began_at = self._clock.seconds()
        Deferred.fromCoroutine(self._look()).addBoth(self._seen)

    def _seen(self, seen: A | Failure) -> None:
        if not isinstance(seen, Failure):
            self._known = seen
        askers, self._under_way = self._under_way, []
        waiting, self._next = self._next, []
        if waiting:  # begins first, because the askers below may ask again at once
            self._begin(waiting)
        for answer in askers:
            answer.callback(seen)
