"""Answers that must not be given yet, because a cache may hide what they tell of: pure.

The catalog answers a batch when it is committed, and says which versions of its stocks are not
published: some front-end's cache may still show older ones. The order leader records the batch
meanwhile and asks the catalog to be told when that is over. Nobody is told an outcome that rests
on such a version before, however it became known: by the batch itself, by an order of the same
key that waits as well, or from the records.

Everything is published when a term begins, because the list that it begins with is not
answered before. So what has not been learnt here hides nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from twstock.market import CALL_ITEMS_MAX

T = TypeVar("T")
PUBLISHED_MAX = 10_000
"""For about how many stocks the newest published version is remembered. Forgetting is safe: an
answer then waits for a newer version than it rests on."""


class Question(Generic[T]):
    """What the catalog is asked at once: versions of stocks, by name. ``answers`` are those
    that wait for it.
    """

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        self.answers: list[T] = []


class Unpublished(Generic[T]):
    """The questions of one term, and the answers that wait for them.

    So many are asked at the same time as ``questions_max`` says; what is learnt beyond that
    gathers in the next ones, of ``names_max`` names each, so that they fit into messages, and no
    more than any catalog takes. The caller bounds the answers.
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
        """Keep an answer that rests on a version of a stock until no cache hides that version;
        False: none does.
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
