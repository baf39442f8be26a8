"""The checker of histories (tests/ledger.py) finds what is wrong with forged ones."""

from dataclasses import replace

import pytest

from tests.ledger import Administered, Attempt, Look, check, check_changes, check_looks
from twstock.market import ChangeKind, StockChange
from twstock.verify import Line

GOOD = [
    Attempt("a", "X", "buy", 2, 0.0, 1.0, "ok", 1),
    Attempt("b", "X", "sell", 1, 2.0, 3.0, "unknown"),
    Attempt("b", "X", "sell", 1, 3.1, 4.0, "ok", 2),
    Attempt("c", "X", "buy", 99, 5.0, 6.0, "refused"),
    Attempt("d", "X", "buy", 3, 7.0, 8.0, "unknown"),
]
LOG = [Line(1, "X", "buy", 2), Line(2, "X", "sell", 1), Line(3, "X", "buy", 3)]


def found(attempts=GOOD, log=LOG, initial=10, final=6):
    """The rules that a history breaks."""
    return {words[:2] for words in check(attempts, log, {"X": initial}, {"X": final})}


def test_a_good_history_passes():
    """An unknown outcome may have taken effect once, or not at all."""
    assert found() == set()
    assert found(log=LOG[:2], final=9) == set()


@pytest.mark.parametrize(
    ("rule", "history"),
    [
        ("S1", {"final": 7}),
        ("S2", {"initial": 1, "final": -3}),
        ("S3", {"log": [LOG[0], LOG[2]], "final": 5}),
        ("S3", {"log": [replace(LOG[0], quantity=3), *LOG[1:]], "final": 5}),
        ("S4", {"log": [LOG[0], LOG[1], replace(LOG[2], number=4)]}),
        ("S4", {"log": [LOG[0], LOG[1], replace(LOG[1], quantity=1)], "final": 10}),
        ("S4", {"attempts": [*GOOD, Attempt("e", "X", "buy", 2, 0.0, 9.0, "ok", 1)]}),
        ("S5", {"attempts": [*GOOD, replace(GOOD[0], number=2)]}),
        ("S5", {"log": [*LOG, Line(4, "X", "buy", 3)], "final": 3}),
        ("S6", {"attempts": [*GOOD, replace(GOOD[0], outcome="refused", number=0)]}),
        ("S5", {"log": [*LOG[:2], Line(3, "X", "buy", 99)], "final": -90}),
    ],
)
def test_each_rule_is_watched(rule, history):
    """A forged history is reported under the rule that it breaks."""
    assert rule in found(**history)


def test_numbers_follow_real_time():
    """An order that began after another was acknowledged must not have the smaller number."""
    swapped = [
        Attempt("a", "X", "buy", 1, 0.0, 1.0, "ok", 2),
        Attempt("b", "X", "buy", 1, 2.0, 3.0, "ok", 1),
    ]
    log = [Line(1, "X", "buy", 1), Line(2, "X", "buy", 1)]
    assert found(swapped, log, 10, 8) == {"S4"}
    overlapping = [replace(swapped[0], ended=2.5), swapped[1]]
    assert found(overlapping, log, 10, 8) == set()


LOOKS = [
    Look("X", 0.0, 0.1, 7, 10),
    Look("X", 0.5, 0.9, 8, 8),
    Look("X", 4.1, 4.2, 9, 9),
    Look("X", 7.5, 7.6, 10, 6),
]


def looked(*looks, attempts=GOOD):
    """The rules that these lookups break."""
    return {words[:2] for words in check_looks(looks, attempts, LOG, {"X": (7, 10)})}


def test_true_and_fresh_look_ups_pass():
    """Each shows a state that held at some time between its beginning and its end."""
    assert looked(*LOOKS) == set()


@pytest.mark.parametrize(
    ("rule", "forged"),
    [
        ("S7", Look("X", 1.5, 1.6, 7, 10)),  # order 1 was acknowledged at 1.0
        ("S7", Look("X", 7.7, 7.8, 9, 9)),  # version 10 was shown at 7.6, to whomever
        ("S8", Look("X", 5.0, 5.1, 9, 8)),
        ("S8", Look("X", 9.0, 9.1, 11, 6)),
        ("S8", Look("X", 9.0, 9.1, 6, 10)),
        ("S8", Look("X", 1.2, 1.3, 9, 9)),  # order 2 was first asked for at 2.0
    ],
)
def test_a_forged_look_up_is_found(rule, forged):
    """One that is out of date, shows two states mixed, shows a version that never was, or one from
    the future.
    """
    assert rule in looked(*LOOKS, forged)


CHANGES = [
    StockChange(1, ChangeKind.RESTOCK, "X", 0, 5, 2, 0),
    StockChange(2, ChangeKind.HALT, "X", 0, 0, 3, 0),
    StockChange(3, ChangeKind.RESUME, "X", 0, 0, 4, 0),
    StockChange(4, ChangeKind.ADD, "Y", 7, 3, 1, 0),
]
"""Between orders 1 and 2 of X: its versions are 1 to 6 then, and its quantities 8, 13, 14, 11."""


def administered(changes=CHANGES, final=11):
    """The rules that the good history breaks with these changes."""
    found = check(GOOD, LOG, {"X": 10}, {"X": final, "Y": 3}, changes)
    return {words[:2] for words in found}


def test_changes_are_taken_into_account():
    """Added shares are counted, and a halt between two orders forbids neither."""
    assert administered() == set()
    earlier = [c._replace(version=c.version + 6) for c in CHANGES[:3]]
    found = check(GOOD, LOG, {"X": 10}, {"X": 11}, earlier, {"X": 6})
    assert found == []


@pytest.mark.parametrize(
    ("rule", "history"),
    [
        ("S1", {"final": 6}),
        ("S1", {"changes": CHANGES[1:]}),
        ("A1", {"changes": [CHANGES[0], CHANGES[1], CHANGES[2]._replace(version=5), CHANGES[3]]}),
        ("S1", {"changes": [*CHANGES[:2], CHANGES[2]._replace(version=9), CHANGES[3]]}),
    ],
)
def test_each_rule_of_changes_is_watched(rule, history):
    """Shares from nowhere, an order during a halt, a version that nobody made."""
    assert rule in administered(**history)


@pytest.mark.parametrize(
    ("rule", "look"),
    [
        (None, Look("X", 9.0, 9.1, 6, 11)),
        (None, Look("X", 1.5, 1.6, 3, 13, halted=True)),
        (None, Look("Y", 1.5, 1.6, 1, 3)),
        ("S8", Look("X", 1.5, 1.6, 3, 13)),
        ("S8", Look("X", 1.5, 1.6, 4, 13, halted=True)),
        ("S8", Look("X", 1.5, 1.6, 2, 8)),
        ("S8", Look("Y", 1.5, 1.6, 2, 3)),
    ],
)
def test_look_ups_between_changes_are_judged(rule, look):
    """What was added is seen from the change on, and a halt as long as it lasts."""
    found = {w[:2] for w in check_looks([look], GOOD, LOG, {"X": (0, 10)}, CHANGES)}
    assert found == ({rule} if rule else set())


TOLD = [
    Administered("p", "restock", "X", 5, 2.0, "unknown"),
    Administered("p", "restock", "X", 5, 3.0, "ok", 1, 2),
    Administered("q", "halt", "X", 0, 4.0, "refused"),
    Administered("r", "halt", "X", 0, 5.0, "ok", 2, 3),
]


def test_true_answers_about_changes_pass():
    """A change with an unknown outcome may have been made, or not."""
    assert check_changes(TOLD, CHANGES) == []


@pytest.mark.parametrize(
    ("told", "changes"),
    [
        (TOLD, CHANGES[:1]),
        (TOLD, [CHANGES[0], CHANGES[0]._replace(number=2), *CHANGES[2:]]),
        (TOLD, [CHANGES[0], CHANGES[1]._replace(number=3)]),
        ([*TOLD, replace(TOLD[1], number=3)], CHANGES),
        ([*TOLD, replace(TOLD[1], key="z")], CHANGES),
        ([*TOLD, replace(TOLD[3], outcome="refused", number=0)], CHANGES),
        ([*TOLD, replace(TOLD[3], quantity=1)], CHANGES),
    ],
)
def test_false_answers_about_changes_are_found(told, changes):
    """A change that is lost, made otherwise, has two numbers, or was made after it was refused."""
    assert {words[:2] for words in check_changes(told, changes)} == {"A2"}


def test_a_change_that_was_answered_is_seen():
    """Every lookup that begins after the answer has to show it."""
    stale, told = Look("X", 3.5, 3.6, 2, 13), [replace(TOLD[3], ended=3.4)]
    looks = check_looks([stale], GOOD, LOG, {"X": (0, 10)}, CHANGES, told)
    assert {words[:2] for words in looks} == {"S7"}
    assert check_looks([stale], GOOD, LOG, {"X": (0, 10)}, CHANGES, TOLD[:3]) == []
