"""The keys of orders that are no longer in memory: no key is missed, also by a process that goes on
with another one's tables.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twstock.errors import CorruptTables
from twstock.market import Order, Side, Trade
from twstock.order import oldkeys
from twstock.order.keyfilter import PARTS, KeyFilter
from twstock.order.oldkeys import OldKeys
from twstock.order.state import OrderState
from twstock.order.tables import OrderTables
from twstock.rpc.wire.commands import encode_order_record


def key_of(number: int) -> str:
    """Each order's key is its own."""
    return f"key-{number}"


def trades(first: int, last: int) -> list[Trade]:
    """Orders with these numbers."""
    return [
        Trade(number, Order(key_of(number), "A", Side.BUY, 1), 1, 1, 1)
        for number in range(first, last + 1)
    ]


@given(st.lists(st.text(max_size=30), min_size=1, max_size=200))
def test_no_key_is_missed(keys: Sequence[str]) -> None:
    """The filter says "maybe" to every key that it was given."""
    found = KeyFilter()
    found.add(keys)
    assert all(found.may_have(key) for key in keys)


def test_hardly_any_key_is_taken_for_another() -> None:
    """With 20,000 keys the filter says no to nearly all others; so does one that is made from its
    parts.
    """
    first, second = KeyFilter(), KeyFilter()
    # CRC-32 would spread consecutive numbers too evenly: no two would share a word.
    keys = [
        blake2b(key_of(number).encode(), digest_size=16).hexdigest() for number in range(20_000)
    ]
    first.add(keys)
    for part in range(PARTS):
        second.restore(part, first.part(part))
    for found in (first, second):
        assert all(found.may_have(key) for key in keys)
        assert sum(found.may_have(f"other-{number}") for number in range(20_000)) <= 2


def test_every_process_puts_a_key_in_the_same_place() -> None:
    """A stored filter is read by other processes, perhaps of another version."""
    found, checksum = KeyFilter(), 0
    found.add(["a key", "1", "\xfc\u0378"])
    for part in range(PARTS):
        checksum = crc32(found.part(part), checksum)
    assert checksum == 1811633605


STEPS = st.lists(
    st.tuples(st.sampled_from(["apply", "save", "read", "keep", "restart"]), st.integers(1, 4)),
    max_size=60,
)


class Replica:
    """A state and its tables, of which ``recent`` orders stay in memory."""

    def __init__(self, recent: int) -> None:
        self.recent = recent
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.executescript(OrderTables(recent).schema)
        self.applied = self.saved = 0
        self.load()

    def load(self) -> None:
        """As a new process does: what was not saved is applied again."""
        self.tables = OrderTables(self.recent)
        self.state = self.tables.load(self.connection, b"")
        self.applied = self.saved

    def apply(self, count: int) -> None:
        """Orders come."""
        for trade in trades(self.applied + 1, self.applied + count):
            self.state.apply(trade.number, encode_order_record([trade]))
        self.applied += count

    def save(self, count: int) -> None:
        """Some of them are saved."""
        last = min(self.applied, self.saved + count)
        self.tables.save(self.connection, [tuple(trades(self.saved + 1, last))])
        self.tables.upkeep(self.connection)
        self.saved = last
        self.state.saved(last)

    def read(self, count: int) -> None:
        """Read some of the keys that the filter lacks."""
        self.tables.old_keys.read(self.connection, count)

    def may_have_forgotten(self, key: str) -> bool:
        """Whether it would look in the tables."""
        return self.state.by_key(key) is None and self.state.may_have_forgotten(key)


@given(st.integers(0, 8), STEPS)
def test_what_is_forgotten_may_be_there_at_any_moment(
    old: int, steps: Sequence[tuple[str, int]]
) -> None:
    """Every order is in memory, or may be in the tables, however orders come, are saved and
    forgotten, keys are read back, and processes end. The filter is stored now and then.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oldkeys, "STORE_EVERY", 5)
        patch.setattr(oldkeys, "PARTS_AT_ONCE", PARTS // 2)
        replica = Replica(recent=2)
        replica.apply(old)
        for step, size in steps:
            if step == "restart":
                replica.load()
            elif step != "keep":
                getattr(replica, step)(size)
            else:
                replica.save(10)
            for number in range(1, replica.applied + 1):
                key = key_of(number)
                assert replica.state.by_key(key) or replica.may_have_forgotten(key)


@pytest.fixture
def replica(monkeypatch: pytest.MonkeyPatch) -> Iterator[Replica]:
    """Six orders, of which memory has two; the filter is stored every seven orders, all of it."""
    monkeypatch.setattr(oldkeys, "STORE_EVERY", 7)
    monkeypatch.setattr(oldkeys, "PARTS_AT_ONCE", PARTS)
    replica = Replica(recent=2)
    replica.apply(6)
    replica.save(6)
    yield replica
    replica.connection.close()


def test_a_new_key_is_looked_up_until_all_old_ones_are_read(replica: Replica) -> None:
    """After that it never is."""
    assert not replica.may_have_forgotten("new")
    replica.load()
    old_keys = replica.tables.old_keys
    for _ in range(3):
        assert not old_keys.is_complete
        assert replica.may_have_forgotten("new")
        replica.read(2)
    assert old_keys.is_complete
    for _ in range(20):
        replica.apply(1)
        replica.save(1)
        assert not replica.may_have_forgotten("new")


def test_the_next_process_has_the_keys_at_once(replica: Replica) -> None:
    """From the stored filter. It only has to read those of the orders that came after that."""
    replica.apply(3)
    replica.save(3)
    assert stored(replica) == {9: PARTS}
    replica.load()
    assert replica.tables.old_keys.is_complete
    assert not replica.may_have_forgotten("new")
    replica.apply(2)
    replica.save(2)
    replica.load()
    assert replica.may_have_forgotten("new")
    assert not replica.tables.old_keys.is_complete
    replica.read(1)
    assert not replica.tables.old_keys.is_complete
    replica.read(100)
    assert replica.tables.old_keys.is_complete
    assert all(replica.may_have_forgotten(key_of(number)) for number in range(1, 12))


def stored(replica: Replica) -> dict[int, int]:
    """How many parts of the stored filter have the keys up to which order."""
    query = "SELECT through, count(*) FROM key_filter GROUP BY through"
    return dict(replica.connection.execute(query).fetchall())


def test_the_filter_is_stored_when_it_has_all_keys(replica: Replica) -> None:
    """Not sooner, or the next process would miss the older ones; and not after every order."""
    replica.load()
    replica.apply(2)
    replica.save(2)
    assert stored(replica) == {}
    replica.read(100)
    replica.save(0)
    assert stored(replica) == {8: PARTS}
    for number, expected in ((9, 8), (14, 8), (15, 15), (16, 15)):
        replica.apply(number - replica.applied)
        replica.save(10)
        assert (replica.saved, stored(replica)) == (number, {expected: PARTS})


def test_a_few_parts_at_a_time_are_stored(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In turn, also after a restart in between. What any part lacks is read again."""
    monkeypatch.setattr(oldkeys, "PARTS_AT_ONCE", PARTS // 2)
    for number, expected in ((7, {7: PARTS // 2}), (8, {7: PARTS // 2, 8: PARTS // 2})):
        replica.apply(1)
        replica.save(1)
        assert (replica.saved, stored(replica)) == (number, expected)
    replica.apply(6)
    replica.save(6)
    assert stored(replica) == {14: PARTS // 2, 8: PARTS // 2}
    replica.load()
    assert not replica.tables.old_keys.is_complete
    replica.read(6)
    assert replica.tables.old_keys.is_complete
    replica.apply(1)
    replica.save(1)
    assert stored(replica) == {14: PARTS // 2, 15: PARTS // 2}


def test_what_a_missing_part_had_is_read_again(replica: Replica) -> None:
    """Any key may have been in it, so all of them are."""
    replica.apply(3)
    replica.save(3)
    replica.connection.execute("DELETE FROM key_filter WHERE part = 7")
    replica.load()
    replica.read(8)
    assert not replica.tables.old_keys.is_complete
    replica.read(1)
    assert replica.tables.old_keys.is_complete


DAMAGES = {
    "it has no keys": "UPDATE key_filter SET bits = zeroblob(length(bits))",
    "a checksum": "UPDATE key_filter SET crc = crc + 1 WHERE part = 7",
    "another order": "UPDATE key_filter SET through = through - 1 WHERE part = 7",
    "another part": "UPDATE key_filter SET part = part + 1000 WHERE part = 7",
    "the part before": "UPDATE key_filter SET part = -1 WHERE part = 0",
    "a part is too short": "UPDATE key_filter SET bits = substr(bits, 2) WHERE part = 7",
    "orders are missing": "DELETE FROM orders WHERE number > 7",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_filter_is_not_believed(replica: Replica, damage: str) -> None:
    """With it, an order that is sent again could be taken for a new one."""
    replica.apply(3)
    replica.save(3)
    assert stored(replica) == {9: PARTS}
    replica.connection.execute(damage)
    with pytest.raises(CorruptTables, match="of the key filter is damaged"):
        OrderTables(2).load(replica.connection, b"")


def test_a_missing_order_is_noticed_when_keys_are_read(replica: Replica) -> None:
    """It is noticed in the middle as well as at the end."""
    for number in (2, 6):
        old_keys = OldKeys()
        old_keys.load(replica.connection, 6)
        replica.connection.execute("BEGIN")
        replica.connection.execute("DELETE FROM orders WHERE number = ?", (number,))
        with pytest.raises(CorruptTables, match="missing"):
            old_keys.read(replica.connection, 100)
        replica.connection.execute("ROLLBACK")


def test_a_state_without_tables_asks_for_what_it_forgot() -> None:
    """Without tables it cannot know that a key is new."""
    state = OrderState(recent_max=2)
    assert not state.may_have_forgotten("new")
    for trade in trades(1, 3):
        state.apply(trade.number, encode_order_record([trade]))
    state.saved(3)
    assert state.may_have_forgotten("new")
