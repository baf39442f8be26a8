"""Answers that are held back, because a cache may hide the version that they rest on: pure.

The catalog answers a batch when it is committed, and says which versions of its stocks are not
published: some front-end's cache may still show older ones. Meanwhile the order leader records the
batch, and asks the catalog, which answers once they are published. Until then no outcome that rests
on such a version is given to anybody, wherever it comes from: from the batch itself, from an order
with the same key that waits as well, or from the records.

When a term begins, everything is published, because the catalog does not list its trades earlier.
So every version that a cache may hide has been learnt here.
"""

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from twstock.market import CALL_ITEMS_MAX

T = TypeVar("T")
PUBLISHED_MAX = 10_000
"""For about how many stocks the newest published version is remembered. Forgetting is safe: at
worst an answer waits for a newer version than it rests on."""


class Question(Generic[T]):
    """What one call asks the catalog: whether these versions of stocks, by name, are published.
    ``answers`` wait for that.
    """

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        self.answers: list[T] = []


class Unpublished(Generic[T]):
    """The questions of one term, and the answers that wait for them.

    At most ``questions_max`` are under way at a time; further versions gather in the next ones. A
    question has at most ``names_max`` names, so that it fits into a message, and never more than
    every catalog accepts. The caller bounds the number of answers.
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
        """The catalog has answered: returns the answers that may be given now."""
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
