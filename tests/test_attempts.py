"""Which front-end is asked next, and when: decisions alone, on a clock that the test holds."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from twstock.client.attempts import PAUSE_MAX_S, PAUSE_S, Attempts


def test_the_list_is_gone_round_without_a_pause_and_round_again_with_one():
    """The next front-end is asked at once, the same one again only after a pause."""
    attempts = Attempts(3, 1, 100.0, Random(1))
    asked = []
    for _ in range(6):
        attempt = attempts.next(0.0)
        asked.append(attempt)
        attempts.failed(0.0)
    assert [attempt.front for attempt in asked[:3]] == [1, 2, 0]
    assert [attempt.wait_s for attempt in asked[:3]] == [0.0, 0.0, 0.0]
    assert all(PAUSE_S / 2 <= attempt.wait_s <= PAUSE_S for attempt in asked[3:])
    assert {attempt.front for attempt in asked[3:]} == {0, 1, 2}


def test_pauses_double_up_to_a_limit():
    """For one front-end that fails again and again; after an answer they begin anew."""
    attempts = Attempts(1, 0, float("inf"), Random(1))
    now, pauses = 0.0, []
    for _ in range(20):
        now += attempts.next(now).wait_s
        attempts.failed(now)
        pauses.append(attempts.next(now).wait_s)
    for k, pause in enumerate(pauses):
        whole = min(PAUSE_S * 2**k, PAUSE_MAX_S)
        assert whole / 2 <= pause <= whole
    attempts.served()
    attempts.failed(now)
    assert attempts.next(now).wait_s <= PAUSE_S


def test_a_front_end_is_left_alone_as_long_as_it_wants():
    """Others are asked meanwhile."""
    attempts = Attempts(2, 0, 100.0, Random(1))
    attempts.next(0.0)
    attempts.failed(0.0, 3.0)
    assert attempts.next(0.0) == (1, 0.0)
    attempts.failed(0.0, 7.0)
    assert attempts.next(1.0) == (0, 2.0)


def test_nobody_is_asked_after_the_deadline():
    """A pause that ends exactly at the deadline is too long."""
    attempts = Attempts(1, 0, 10.0, Random(1))
    attempts.failed(0.0, 9.9)
    assert attempts.next(0.0) == (0, 9.9)
    attempts.failed(0.0, 10.0)
    assert attempts.next(0.0) is None
    assert Attempts(1, 0, 10.0, Random(1)).next(10.0) is None


PASSED = st.tuples(st.none() | st.floats(0, 5), st.floats(0, 1))


@given(st.integers(1, 5), st.lists(PASSED, min_size=1, max_size=60))
def test_no_front_end_is_asked_before_it_wants_to_be(fronts, data):
    """In any sequence of failures; no attempt waits longer than the longest pause."""
    attempts = Attempts(fronts, 0, float("inf"), Random(1))
    ready, now = [0.0] * fronts, 0.0
    for pause_s, passes_s in data:
        attempt = attempts.next(now)
        now += attempt.wait_s
        assert now >= ready[attempt.front] - 1e-9
        assert attempt.wait_s <= 5.0
        attempts.failed(now, pause_s)
        if pause_s is not None:
            ready[attempt.front] = now + pause_s
        now += passes_s
