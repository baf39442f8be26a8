"""Answers that must not be given yet, because a cache may hide what they rest on: pure.

The catalog answers a batch when it is committed, and says which versions of its stocks are not
published: some front-end's cache may still show older ones. The order leader records the batch
meanwhile and asks the catalog to say when that is over. Until then nobody is told an outcome that
rests on such a version, however it became known: by the batch itself, by an order of the same
key that waits as well, or from the records.

Everything is published when a term begins, because the list that it begins with is not
answered earlier. So no cache hides a version that has not been learnt here.
"""

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from twstock.market import CALL_ITEMS_MAX

T = TypeVar("T")
PUBLISHED_MAX = 10_000
"""For about how many stocks the newest published version is remembered. Forgetting is safe: an
answer then waits for a newer version than it rests on."""


class Question(Generic[T]):
    """What the catalog is asked in one call: versions of stocks, by name. ``answers`` are those
    that wait for it.
    """

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        self.answers: list[T] = []


class Unpublished(Generic[T]):
    """The questions of one term, and the answers that wait for them.

    At most ``questions_max`` are asked at the same time; what is learnt beyond that gathers in the
    next ones, of ``names_max`` names each, so that they fit into messages, and no more than every
    catalog takes. The caller bounds the answers.
    """

    def __init__(self, questions_max: int, names_max: int) -> None:
        self._questions_max = max(questions_max, 1)
        self._names_max = min(names_max, CALL_ITEMS_MAX)
        self._asked: list[Question[T]] = []
        self._next: list[Question[T]] = []
        self._published: dict[str, int] = {}

    def learn(self, versions: Mapping[str, int]) -> None:
        """These versions are not published yet."""
        for name, version in versions.items():
            known = self._next[-1].versions if self._next else {}
            if not self._next or (name not in known and len(known) >= self._names_max):
                self._next.append(Question())
                known = self._next[-1].versions
            known[name] = max(version, known.get(name, version))

    def ask(self) -> Question[T] | None:
        """The question to ask now; None: there is none, or enough are under way."""
        if not self._next or len(self._asked) >= self._questions_max:
            return None
        self._asked.append(self._next.pop(0))
        return self._asked[-1]

    def published(self, question: Question[T]) -> list[T]:
        """The catalog has answered: what may be told now."""
        self._asked.remove(question)
        if len(self._published) > PUBLISHED_MAX:
            self._published.clear()
        for name, version in question.versions.items():
            self._published[name] = max(version, self._published.get(name, version))
        return question.answers

    def hold(self, name: str, version: int, answer: T) -> bool:
        """Keep an answer that rests on a version of a stock until no cache hides that version.
        Returns False when none does: it can be given at once.
        """
        if version <= self._published.get(name, -1):
            return False
        for question in (*self._asked, *self._next):
            if question.versions.get(name, -1) >= version:
                question.answers.append(answer)
                return True
        return False

    def held(self) -> Iterator[T]:
        """All answers that wait."""
        for question in (*self._asked, *self._next):
            yield from question.answers
