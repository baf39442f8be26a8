"""Questions that share calls: each is answered, by its own answer, and by none that is older than
the question.
"""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from twstock.errors import OutcomeUnknown, Unavailable
from twstock.web.upstream.gather import Gathering
from twstock.web.upstream.pace import CALLS_MAX, LINGER_MAX_S, LINGER_SHARE, PATIENCE_S

SIZE = 3
NEVER_S = 100.0
TOOK_S = 0.02
"""How long a call takes, so that the next one lingers for ``LINGER_S``."""
LINGER_S = TOOK_S * LINGER_SHARE


@dataclass(eq=False)
class Sent:
    """One call that left."""

    questions: tuple[str, ...]
    deadline: float
    number: int
    answer: "Deferred[list[str]]"

    def bring(self) -> None:
        """The right answers: each names its question and the call."""
        self.answer.callback([f"{question}@{self.number}" for question in self.questions])


class Desk:
    """A gathering, and the calls that it made."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.sent: list[Sent] = []
        self.gathering: Gathering[str, str] = Gathering(self._call, self.clock, SIZE)

    async def _call(self, questions: tuple[str, ...], deadline: float) -> list[str]:
        sent = Sent(questions, deadline, len(self.sent), Deferred())
        self.sent.append(sent)
        return await sent.answer

    def ask(self, question: str, deadline: float = NEVER_S) -> "list[Any]":
        """The list gets the answer, or the error."""
        told: list[Any] = []
        answer = self.gathering.ask(question, deadline)
        answer.addCallbacks(told.append, lambda failure: told.append(failure.value))
        return told

    def turn(self) -> None:
        """The reactor's next turn."""
        self.clock.advance(0)

    def asked(self) -> list[str]:
        """The questions of each call."""
        return ["".join(sent.questions) for sent in self.sent]

    def busy(self) -> None:
        """A call under way, beside which no other begins for a while."""
        self.ask("busy")
        self.turn()
        assert self.asked() == ["busy"]


def test_what_is_asked_in_one_turn_shares_a_call() -> None:
    """Each waiter gets its own answer; what is asked twice is in the call once."""
    desk = Desk()
    told = [desk.ask(question) for question in "ABA"]
    assert desk.sent == [], "the turn is not over"
    desk.turn()
    assert desk.asked() == ["AB"]
    desk.sent[0].bring()
    assert told == [["A@0"], ["B@0"], ["A@0"]]
    assert desk.clock.getDelayedCalls() == []


def test_a_question_of_its_own_leaves_in_the_same_turn() -> None:
    """A single question does not wait for others, however long the last call took."""
    desk = Desk()
    for number in range(3):
        told = desk.ask("A")
        desk.turn()
        assert len(desk.sent) == number + 1
        desk.clock.advance(TOOK_S * number)
        desk.sent[-1].bring()
        assert told == [f"A@{number}"]


def test_those_who_were_answered_together_ask_together_again() -> None:
    """The next call waits a little for all of them, and leaves as soon as they are there."""
    desk = Desk()
    for question in "AB":
        desk.ask(question)
    desk.turn()
    desk.clock.advance(TOOK_S)
    desk.sent[0].bring()
    desk.ask("B")
    desk.clock.advance(LINGER_S / 2)
    assert desk.asked() == ["AB"]
    desk.ask("A")
    desk.turn()
    assert desk.asked() == ["AB", "BA"]


@pytest.mark.parametrize("early", [True, False])
def test_a_question_waits_for_company_no_longer_than_the_linger(early: bool) -> None:
    """If nobody of those who were answered comes back, the call leaves without them, whether the
    question came while their call was under way or after it.
    """
    desk = Desk()
    for question in "AB":
        desk.ask(question)
    desk.turn()
    desk.clock.advance(TOOK_S)
    told = desk.ask("C") if early else []
    desk.sent[0].bring()
    told = told if early else desk.ask("C")
    desk.clock.advance(LINGER_S * 0.9)
    assert desk.asked() == ["AB"]
    desk.clock.advance(LINGER_S * 0.2)
    assert desk.asked() == ["AB", "C"]
    desk.sent[1].bring()
    assert told == ["C@1"]
    assert desk.clock.getDelayedCalls() == []


def test_what_is_asked_while_a_call_is_under_way_goes_in_the_next() -> None:
    """As soon as that call has ended, however it ended."""
    for ending in (Sent.bring, lambda sent: sent.answer.errback(Unavailable("no"))):
        desk = Desk()
        desk.busy()
        told = [desk.ask(question) for question in "AB"]
        desk.turn()
        assert desk.asked() == ["busy"]
        ending(desk.sent[0])
        assert desk.asked() == ["busy", "AB"]
        desk.sent[1].bring()
        assert told == [["A@1"], ["B@1"]]


def test_nobody_joins_a_call_that_has_left() -> None:
    """Its answer may be older than a trade that was acknowledged before the question."""
    desk = Desk()
    early = desk.ask("A")
    desk.turn()
    late = desk.ask("A")
    desk.turn()
    desk.sent[0].bring()
    assert (early, late) == (["A@0"], [])
    desk.sent[1].bring()
    assert late == ["A@1"]


def test_a_call_asks_for_no_more_than_the_other_side_takes() -> None:
    """The rest goes in the next calls, in sequence."""
    desk = Desk()
    told = [desk.ask(question) for question in "ABCDEFG"]
    desk.turn()
    assert desk.asked() == ["ABC"]
    desk.sent[0].bring()
    assert desk.asked() == ["ABC", "DEF"]
    desk.sent[1].bring()
    assert desk.asked() == ["ABC", "DEF", "G"]
    desk.sent[2].bring()
    assert [answers[0][0] for answers in told] == list("ABCDEFG")


def test_a_call_that_is_stuck_does_not_hold_up_what_comes_after() -> None:
    """The next one leaves when the first has had its time. The number of calls is bounded."""
    desk = Desk()
    desk.busy()
    told = desk.ask("A")
    desk.clock.advance(PATIENCE_S * 0.9)
    assert desk.asked() == ["busy"]
    desk.clock.advance(PATIENCE_S * 0.2)
    desk.sent[1].bring()
    assert told == ["A@1"]
    for number in range(2 * CALLS_MAX):
        desk.ask(f"{number}")
        desk.clock.advance(PATIENCE_S * 1.1)
    assert len(desk.sent) == CALLS_MAX + 1
    desk.sent[0].bring()
    assert len(desk.sent) == CALLS_MAX + 2


@pytest.mark.parametrize("answers", [[], ["A@0"], ["A@0", "B@0", "C@0"]])
def test_answers_that_do_not_match_tell_nothing(answers: list[str]) -> None:
    """Answers belong to questions by their place, so with too few or too many nobody knows which is
    whose.
    """
    desk = Desk()
    told = [desk.ask(question) for question in "ABB"]
    desk.turn()
    desk.sent[0].answer.callback(answers)
    assert [type(result) for [result] in told] == [OutcomeUnknown] * 3
    again = desk.ask("A")
    desk.turn()
    desk.sent[1].bring()
    assert again == ["A@1"]


def test_a_failed_call_fails_whoever_waits_for_it_and_nobody_else() -> None:
    """Those who came later have a call of their own."""
    desk = Desk()
    told = [desk.ask(question) for question in "AA"]
    desk.turn()
    later = desk.ask("A")
    desk.turn()
    problem = Unavailable("gone")
    desk.sent[0].answer.errback(problem)
    assert told == [[problem], [problem]]
    assert later == []
    desk.sent[1].bring()
    assert later == ["A@1"]


def test_each_waiter_has_its_own_deadline() -> None:
    """One whose time is up is told so; the others still get an answer that comes late."""
    desk = Desk()
    soon, later = desk.ask("A", 1.0), desk.ask("A", 2.0)
    other = desk.ask("B", 1.5)
    desk.turn()
    assert desk.sent[0].deadline == 2.0, "the call may live as long as the last of them"
    desk.clock.advance(1.1)
    assert [type(result) for result in soon] == [Unavailable]
    assert later == other == []
    desk.clock.advance(0.3)
    desk.sent[0].bring()
    assert len(soon) == 1
    assert (later, other) == (["A@0"], ["B@0"])
    assert desk.clock.getDelayedCalls() == []


def test_what_nobody_waits_for_any_more_is_not_asked() -> None:
    """Questions whose time was up before a call was free leave nothing behind."""
    desk = Desk()
    for number in range(CALLS_MAX):
        desk.ask(f"{number}")
        desk.clock.advance(PATIENCE_S * 1.1)
    assert len(desk.sent) == CALLS_MAX
    gone, also_gone, here = desk.ask("A", 1.0), desk.ask("A", 1.0), desk.ask("B", 9.0)
    desk.clock.advance(1.0)
    assert [type(result) for result in (*gone, *also_gone)] == [Unavailable] * 2
    desk.sent[0].bring()
    assert desk.asked()[-1] == "B"
    desk.sent[-1].bring()
    assert here == [f"B@{CALLS_MAX}"]


def test_a_waiter_that_gives_up_does_not_take_the_others_along() -> None:
    """Before the call leaves, or while it is under way."""
    desk = Desk()
    answers = [desk.gathering.ask("A", NEVER_S) for _ in range(3)]
    told: list[Any] = []
    for answer in answers:
        answer.addBoth(told.append)
    answers[0].cancel()
    desk.turn()
    answers[1].cancel()
    desk.sent[0].bring()
    assert told[2:] == ["A@0"]
    assert desk.clock.getDelayedCalls() == []


def test_who_asks_again_at_once_is_heard() -> None:
    """An answer may bring the next question before the others have got theirs."""
    desk = Desk()
    second: list[Any] = []
    first = desk.gathering.ask("A", NEVER_S)
    first.addCallback(lambda _: second.append(desk.ask("A")))
    other = desk.ask("B")
    desk.turn()
    desk.sent[0].bring()
    desk.turn()
    desk.sent[1].bring()
    assert (second, other) == ([["A@1"]], ["B@0"])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from("ABCDEFGH")),
        st.tuples(st.just("turn"), st.just("")),
        st.tuples(st.just("wait"), st.sampled_from([0.001, LINGER_MAX_S, TOOK_S, PATIENCE_S])),
        st.tuples(st.just("answer"), st.integers(0, 9)),
        st.tuples(st.just("fail"), st.integers(0, 9)),
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_everybody_gets_the_answer_to_a_later_call(steps: list[Any]) -> None:
    """For any sequence of questions, answers and failures: no question is forgotten, no answer goes
    to another question or is older than its own, and no call is too large.
    """
    desk = Desk()
    waiting: list[tuple[str, int, list[Any]]] = []
    for what, which in steps:
        under_way = [sent for sent in desk.sent if not sent.answer.called]
        if what == "ask":
            waiting.append((which, len(desk.sent), desk.ask(which)))
        elif what == "turn":
            desk.turn()
        elif what == "wait":
            desk.clock.advance(which)
        elif under_way and what == "answer":
            under_way[which % len(under_way)].bring()
        elif under_way:
            under_way[which % len(under_way)].answer.errback(Unavailable("planted"))
        assert sum(not sent.answer.called for sent in desk.sent) <= CALLS_MAX
    desk.clock.advance(2 * LINGER_MAX_S)
    while under_way := [sent for sent in desk.sent if not sent.answer.called]:
        under_way[-1].bring()
        desk.clock.advance(2 * LINGER_MAX_S)
    for question, left_before, told in waiting:
        assert len(told) == 1
        if not isinstance(told[0], Unavailable):
            name, _, number = told[0].partition("@")
            assert name == question
            assert int(number) >= left_before
    assert all(len(set(sent.questions)) == len(sent.questions) <= SIZE for sent in desk.sent)
    assert desk.clock.getDelayedCalls() == []
