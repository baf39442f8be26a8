"""When the next call may begin: there are few calls, nobody waits for long, and nobody waits in
vain.
"""

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twstock.web.upstream.pace import CALLS_MAX, LINGER_MAX_S, LINGER_SHARE, PATIENCE_S, Pace

TOOK_S = 0.02
LINGER_S = TOOK_S * LINGER_SHARE
"""How long the call after one that took ``TOOK_S`` lingers: for less than the bound."""


def ended(requests: int, waiting: int = 0, took_s: float = TOOK_S) -> tuple[Pace, float]:
    """A pace after one call, and when it ended."""
    pace = Pace(1000)
    pace.began(1.0)
    now = 1.0 + took_s
    pace.ended(1.0, now, requests, waiting)
    return pace, now


def test_the_first_call_begins_at_once() -> None:
    """Before the first call nobody else is expected."""
    assert Pace(1000).next_start(1) == -inf


@pytest.mark.parametrize("took_s", [0.0, TOOK_S, 1.0, 30.0])
def test_who_is_alone_never_waits(took_s: float) -> None:
    """One request after another begins at once, however long each takes, and although there were
    many before.
    """
    pace, now = ended(100)
    now += LINGER_MAX_S
    for _ in range(3):
        assert pace.next_start(1) <= now
        pace.began(now)
        began, now = now, now + took_s
        pace.ended(began, now, 1, 0)
        assert pace.next_start(1) == -inf


def test_while_a_call_is_under_way_no_other_begins() -> None:
    """However many wait, the next call begins only when the last one has had its time,
    ``PATIENCE_S``.
    """
    pace = Pace(1000)
    pace.began(1.0)
    assert [pace.next_start(waiting) for waiting in (1, 1000)] == [1.0 + PATIENCE_S] * 2
    pace.began(1.2)
    assert pace.next_start(1) == 1.2 + PATIENCE_S


def test_after_a_call_the_next_lingers_until_all_are_there() -> None:
    """After a call the next one waits a while for those whom it answered, besides those that wait
    already.
    """
    pace, now = ended(requests=3, waiting=2)
    assert [pace.next_start(waiting) for waiting in range(1, 5)] == [now + LINGER_S] * 4
    assert [pace.next_start(waiting) for waiting in (5, 6)] == [-inf] * 2


def test_what_is_expected_follows_the_last_call() -> None:
    """Those who did not come back after one call are not expected after the next."""
    pace, now = ended(requests=100)
    pace.began(now)
    pace.ended(now, now + TOOK_S, 2, 1)
    assert pace.next_start(2) == now + TOOK_S + LINGER_S
    assert pace.next_start(3) == -inf


def test_the_linger_is_a_share_of_the_last_call_with_a_bound() -> None:
    """The wait for others is a share of the time that the last call took, but no more than
    ``LINGER_MAX_S``.
    """
    for took_s, linger_s in ((0.0, 0.0), (TOOK_S, LINGER_S), (60.0, LINGER_MAX_S)):
        pace, now = ended(2, took_s=took_s)
        assert pace.next_start(1) == pytest.approx(now + linger_s, abs=1e-12)


def test_beside_a_call_that_is_stuck_nobody_lingers() -> None:
    """When a later call is answered before an earlier one, the next waits neither for the earlier
    one nor for others to come.
    """
    pace = Pace(1000)
    pace.began(1.0)
    pace.began(2.0)
    pace.ended(2.0, 2.0 + TOOK_S, 3, 0)
    assert pace.next_start(1) == 1.0 + PATIENCE_S


def test_the_calls_are_bounded() -> None:
    """With ``CALLS_MAX`` calls under way the next one waits until one of them ends."""
    pace = Pace(1000)
    for number in range(CALLS_MAX):
        assert pace.next_start(1) <= number
        pace.began(float(number))
    assert pace.next_start(1000) == inf
    pace.ended(0.0, 100.0, 1, 0)
    assert pace.next_start(1) == CALLS_MAX - 1 + PATIENCE_S
    pace.began(100.0)
    assert pace.next_start(1) == inf


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([0.001, 0.01, 0.1, 10.0])),
        st.tuples(st.just("begin"), st.just(0)),
        st.tuples(st.just("end"), st.integers(0, CALLS_MAX - 1)),
    ),
    max_size=60,
)


@given(STEPS, st.lists(st.integers(0, 5), min_size=60, max_size=60))
def test_whatever_happens_there_is_a_time_to_begin(steps: list[Any], counts: list[int]) -> None:
    """Calls begin and end in any order, some at the same moment. A request waits for the end of a
    call only if ``CALLS_MAX`` are under way. Otherwise it waits until the last of those under way
    has had its time or, if there is none, for others to come.
    """
    pace, now, last_end = Pace(1000), 0.0, -inf
    under_way: list[float] = []
    for (what, which), count in zip(steps, counts, strict=False):
        if what == "wait":
            now += which
        elif what == "begin" and len(under_way) < CALLS_MAX:
            under_way.append(now)
            pace.began(now)
        elif what == "end" and under_way:
            began = under_way.pop(which % len(under_way))
            pace.ended(began, now, 1 + count, count)
            last_end = now
            if not under_way:
                assert pace.next_start(1 + 2 * count) == -inf, "all are there"
        start = pace.next_start(1)
        if not under_way:
            assert start <= last_end + LINGER_MAX_S
        elif len(under_way) < CALLS_MAX:
            assert start == under_way[-1] + PATIENCE_S
        else:
            assert start == inf
        assert pace.next_start(2) <= start, "more company is no reason to wait for longer"


def test_a_full_call_waits_for_nobody() -> None:
    """When as many wait as one call may take, it begins, however many more are expected."""
    pace = Pace(4)
    pace.began(1.0)
    pace.ended(1.0, 1.0 + TOOK_S, 4, 8)
    assert pace.next_start(3) == 1.0 + TOOK_S + LINGER_S
    assert pace.next_start(4) == -inf
