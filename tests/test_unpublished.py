"""Which answers the order leader holds back until caches were told, and which question releases
them.
"""

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from twstock.order.unpublished import Question, Unpublished

NAMES = st.sampled_from("AB")
STEPS = st.lists(
    st.tuples(st.just("learn"), NAMES)
    | st.tuples(st.just("hold"), NAMES, st.integers(1, 20))
    | st.tuples(st.just("publish"), st.integers(0, 3)),
    max_size=40,
)


def test_what_was_never_learnt_holds_nothing() -> None:
    """Only a version that is known to be unpublished holds an answer back; nothing is unpublished
    when the term begins.
    """
    unpublished: Unpublished[str] = Unpublished(1, 9)
    assert not unpublished.hold("A", 0, "a")
    unpublished.learn({"A": 3})
    assert not unpublished.hold("B", 3, "b")
    assert not unpublished.hold("A", 4, "c")
    assert unpublished.hold("A", 3, "d")
    assert list(unpublished.held()) == ["d"]


def test_nothing_is_asked_twice() -> None:
    """No version is asked for twice, no more questions are open than allowed, and none is made
    without need.
    """
    unpublished: Unpublished[str] = Unpublished(0, 9)  # which would never ask
    assert unpublished.ask() is None
    unpublished.learn({"A": 1})
    unpublished.learn({"A": 1, "B": 5})
    question = unpublished.ask()
    assert question is not None
    assert question.versions == {"A": 1, "B": 5}
    unpublished.learn({"B": 6})
    assert unpublished.ask() is None
    assert unpublished.published(question) == []
    again = unpublished.ask()
    assert again is not None
    assert again.versions == {"B": 6}
    assert unpublished.ask() is None


def test_a_question_has_so_many_names_and_no_more() -> None:
    """It has to fit into a message; the other names are in the next one, each with its highest
    version.
    """
    unpublished: Unpublished[str] = Unpublished(9, 2)
    unpublished.learn({"A": 1, "B": 1, "C": 1})
    unpublished.learn({"A": 2, "C": 2})
    unpublished.learn({"A": 1})
    asked = [unpublished.ask() for _ in range(3)]
    assert [question and question.versions for question in asked] == [
        {"A": 1, "B": 1},
        {"C": 2, "A": 2},
        None,
    ]


def test_a_published_version_holds_nothing_while_a_newer_one_is_asked_for() -> None:
    """An answer for a version that is already published is not held back, although a newer one is
    still asked for.
    """
    unpublished: Unpublished[str] = Unpublished(2, 9)
    unpublished.learn({"A": 3})
    first = unpublished.ask()
    unpublished.learn({"A": 5})
    second = unpublished.ask()
    assert first is not None
    assert second is not None
    unpublished.published(first)
    assert not unpublished.hold("A", 3, "a")
    assert unpublished.hold("A", 4, "b")
    assert unpublished.published(second) == ["b"]


@given(STEPS, st.integers(1, 3), st.integers(0, 2))
def test_an_answer_waits_exactly_as_long_as_it_has_to(
    steps: list[Any], bound: int, names_max: int
) -> None:
    """Whatever happens in between, an answer is released once: when the first question that covers
    it is answered, and at once if there is nothing to wait for.
    """
    unpublished: Unpublished[tuple[int, str, int]] = Unpublished(bound, names_max)
    newest, published = Counter[str](), {"A": 0, "B": 0}
    asked: list[Question[tuple[int, str, int]]] = []
    waiting: set[tuple[int, str, int]] = set()
    for place, step in enumerate(steps):
        if step[0] == "learn":
            newest[step[1]] += 1
            unpublished.learn({step[1]: newest[step[1]]})
        elif step[0] == "hold":
            answer = (place, step[1], min(step[2], newest[step[1]]))
            holds = unpublished.hold(step[1], answer[2], answer)
            assert holds == (answer[2] > published[step[1]])
            if holds:
                waiting.add(answer)
        elif step[1] < len(asked):
            question = asked.pop(step[1])
            for name, version in question.versions.items():
                published[name] = max(published[name], version)
            told = set(unpublished.published(question))
            assert told <= waiting
            assert all(version <= published[name] for _, name, version in told)
            waiting -= told
        while (question := unpublished.ask()) is not None:
            asked.append(question)
        assert len(asked) <= bound
        assert set(unpublished.held()) == waiting
    while asked:
        waiting -= set(unpublished.published(asked.pop(0)))
        while (question := unpublished.ask()) is not None:
            asked.append(question)
    assert not waiting
