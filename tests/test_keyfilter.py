"""Keys of forgotten orders: what may be one is looked up, and no key is missed."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twstock.errors import BrokenInvariant
from twstock.market import Order, Side, Trade
from twstock.order.keyfilter import KeyFilter
from twstock.order.state import OrderState
from twstock.rpc.wire.commands import encode_order_record


def key_of(number: int) -> str:
    """Each order's key is its own."""
    return f"key-{number}"


def record(number: int) -> bytes:
    """One order."""
    return encode_order_record([Trade(number, Order(key_of(number), "A", Side.BUY, 1), 1, 1, 1)])


@given(st.lists(st.text(max_size=30), min_size=1, max_size=200))
def test_no_key_is_missed(keys: Sequence[str]) -> None:
    """Whatever the keys are."""
    older = KeyFilter()
    older.learn(0, keys)
    assert older.through == len(keys)
    assert all(older.may_have(key) for key in keys)


def test_hardly_any_key_is_taken_for_another() -> None:
    """The filter is worth its memory: with 20,000 keys, all of which it knows, it says no to
    nearly all others.
    """
    older = KeyFilter()
    keys = [key_of(number) for number in range(20_000)]
    older.learn(0, keys)
    assert all(older.may_have(key) for key in keys)
    assert sum(older.may_have(f"other-{number}") for number in range(20_000)) <= 2


@pytest.mark.parametrize(("after", "keys"), [(0, ("c",)), (3, ("c",)), (2, ())])
def test_no_order_is_left_out(after: int, keys: Sequence[str]) -> None:
    """Keys follow those before them without a gap, and there are some."""
    older = KeyFilter()
    older.learn(0, ("a", "b"))
    with pytest.raises(BrokenInvariant):
        older.learn(after, keys)


STEPS = st.lists(
    st.tuples(st.sampled_from(["apply", "save", "keep", "read"]), st.integers(1, 4)), max_size=60
)


@given(st.integers(0, 8), STEPS)
def test_what_is_forgotten_may_be_there_at_any_moment(
    old: int, steps: Sequence[tuple[str, int]]
) -> None:
    """However orders come, are saved and forgotten, and keys are read, from a start with some
    in the tables; read is as far as the tables go, or not.
    """
    state, applied, saved = OrderState(old, recent_max=2), old, old
    for step, size in steps:
        if step == "apply":
            for number in range(applied + 1, applied + size + 1):
                state.apply(number, record(number))
            applied += size
        elif step == "save":
            saved = min(applied, saved + size)
            state.saved(saved)
        elif step == "keep":
            state.keep_older_keys()
        elif state.has_unread_keys:
            older = state.keep_older_keys()
            last = min(saved, older.through + size)
            older.learn(older.through, [key_of(n) for n in range(older.through + 1, last + 1)])
        for number in range(1, applied + 1):
            in_memory = state.by_key(key_of(number)) is not None
            assert in_memory or state.may_have_forgotten(key_of(number))


def test_all_are_read_when_none_has_unread_keys() -> None:
    """Then a new key needs no look at the tables, and it stays so as orders are forgotten."""
    state = OrderState(3, recent_max=2)
    older = state.keep_older_keys()
    assert state.has_unread_keys
    assert state.may_have_forgotten("new")
    older.learn(0, [key_of(number) for number in (1, 2, 3)])
    for number in range(4, 20):
        state.apply(number, record(number))
        state.saved(number)
        assert not state.has_unread_keys
        assert not state.may_have_forgotten("new")
    assert older.through == 17
