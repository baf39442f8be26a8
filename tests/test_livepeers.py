"""A member whose disk is lost, and the log that it gets from the others while they run."""

from collections.abc import Callable

import pytest

from twstock.errors import StorageError, Unavailable
from twstock.replication.livepeers import PAUSES_MAX, LivePeers
from twstock.replication.messages import Committed, Entry, EntryKind, HardState
from twstock.rpc.calls import Fetch, Peer, Status

LOST = 2
ME = Peer("order", "a cluster", LOST, 0)
INCARNATIONS = {1: 11, 2: 22, 3: 33}
PIECE = 4


def log_of(*terms: int) -> list[Entry]:
    """A log with entries of these terms."""
    return [Entry(i, term, EntryKind.COMMAND, b"%d" % i) for i, term in enumerate(terms, 1)]


class Other:
    """Another member, with a log that the test changes; it answers a few entries at a time."""

    def __init__(self, number: int, log: list[Entry], commit: int, term: int, leader: int) -> None:
        self.number, self.log, self.commit, self.term = number, log, commit, term
        self.leader = leader
        self.group, self.cluster_id, self.role, self.knows = "order", "a cluster", "follower", 22
        self.members: tuple[int, ...] = (1, 2, 3)
        self.is_down = False
        self.asked: list[int] = []

    def status(self, asker: Peer) -> Status:
        """What it tells now."""
        assert (asker.group, asker.cluster_id, asker.id) == ("order", "a cluster", LOST)
        self._answer()
        return Status(
            self.group, self.number, self.cluster_id, INCARNATIONS[self.number], self.role,
            self.term, self.leader, len(self.log), self.commit, 0, b"", 0, 0, 0.0, False, "why",
            True, self.knows, self.members,
        )  # fmt: skip

    def fetch(self, fetch: Fetch) -> Committed:
        """Some of its committed entries."""
        assert fetch.peer.incarnation == INCARNATIONS[LOST], "nobody else is told"
        self._answer()
        after = fetch.after_index
        self.asked.append(after)
        prev = min(after, len(self.log))
        term = self.log[prev - 1].term if prev else 0
        entries = tuple(self.log[after : min(self.commit, after + PIECE)])
        return Committed(self.number, 0, self.term, prev, term, self.commit, entries)

    def _answer(self) -> None:
        if self.is_down:
            raise Unavailable(f"order-{self.number} is down")


def two(log: list[Entry], term: int) -> tuple[Other, Other]:
    """Both others, which have the same, all of it committed."""
    return Other(1, log, len(log), term, 3), Other(3, log, len(log), term, 3)


def peers(*others: Other, pause: Callable[[], None] | None = None) -> LivePeers:
    """The source; without ``pause`` nothing is to be waited for."""

    def never() -> None:
        raise AssertionError("waits")

    found = LivePeers(ME, {other.number: other for other in others}, pause or never)
    assert found.incarnations() == INCARNATIONS
    return found


def test_all_that_is_committed_comes_from_a_follower() -> None:
    """In pieces; the leader has other things to do."""
    log = log_of(1, 1, 2, 2, 2, 2, 5, 5, 5, 5)
    first, leader = two(log, 5)
    source = peers(first, leader)
    assert list(source.entries()) == log
    assert (first.asked, leader.asked) == ([0, 4, 8], [])
    assert source.state() == HardState(5, LOST)
    assert str(source) == "order-1, order-3"


def test_the_rest_comes_from_the_leader() -> None:
    """A follower is a little behind, or a lot."""
    log = log_of(*[1] * 10)
    first, leader = two(log, 1)
    first.commit = 6
    source = peers(first, leader, pause=lambda: None)
    assert list(source.entries()) == log
    assert (first.asked, leader.asked) == ([0, 4, 6], [6])


def test_what_only_one_has_is_waited_for() -> None:
    """The lost one may have acknowledged it, and the leader counts on that."""
    log = log_of(1, 1, 1, 1, 1, 1)
    first, leader = two(log, 1)
    first.log = log[:4]
    first.commit = leader.commit = 4

    def pause() -> None:
        first.log, first.commit, leader.commit = log, 6, 6

    source = peers(first, leader, pause=pause)
    assert list(source.entries()) == log


def test_orders_that_never_cease_are_not_waited_for() -> None:
    """Whenever the others are asked, the leader has one that is not committed yet."""
    first, leader = two(log_of(1, 1, 1, 1), 1)
    first.commit = leader.commit = 3
    pauses: list[int] = []

    def pause() -> None:
        pauses.append(1)
        log = log_of(*[1] * (len(leader.log) + 2))
        first.log = leader.log = log
        first.commit = leader.commit = len(log) - 1
        assert len(pauses) < PAUSES_MAX, "waits for ever"

    source = peers(first, leader, pause=pause)
    assert list(source.entries()) == log_of(1, 1, 1, 1, 1)
    assert len(pauses) == 1


def test_a_newer_term_is_waited_for() -> None:
    """Whoever knows it may have been elected by the lost one: a log of the term before may end
    before what was committed in it.
    """
    log = log_of(1, 1, 1, 7)
    first, leader = two(log, 7)
    first.log, first.term, first.commit, first.leader = log[:3], 3, 3, 0
    leader.commit = 3

    def pause() -> None:
        first.log, first.term, first.commit, leader.commit = log, 7, 4, 4

    source = peers(first, leader, pause=pause)
    assert list(source.entries()) == log
    assert source.state() == HardState(7, LOST)


def test_a_tail_that_was_replaced_is_waited_for_no_more() -> None:
    """It was never committed: the log of a newer term is as up to date without it."""
    long, log = log_of(1, 1, 1, 1, 1, 1), log_of(1, 1, 2)
    first, leader = two(log, 2)
    first.log, first.term, first.commit = long, 1, 2
    source = peers(first, leader)
    assert list(source.entries()) == log
    assert source.state() == HardState(2, LOST)


def test_the_highest_term_that_was_ever_told_counts() -> None:
    """Also that of an answer with entries of older ones, and of who was started again since."""
    log = log_of(1, 1, 1)
    first, leader = two(log, 4)
    leader.term = 6

    def pause() -> None:
        first.log, leader.log = log_of(1, 1, 1, 5), log_of(1, 1, 1, 5)
        first.term = leader.term = 5
        first.commit = leader.commit = 4

    source = peers(first, leader, pause=pause)
    assert [entry.term for entry in source.entries()] == [1, 1, 1, 5]
    assert source.state() == HardState(6, LOST)


def test_one_that_restarts_is_asked_again_or_another_one() -> None:
    """It knows less to be committed for a while, and its log may end before what it told."""
    log = log_of(*[1] * 10)
    first, leader = two(log, 1)
    source = peers(first, leader, pause=lambda: None)
    entries = source.entries()
    got = [next(entries) for _ in range(PIECE)]
    first.log, first.commit = log[:2], 0
    got += entries
    assert got == log
    assert first.asked == [0, 4]


def test_logs_that_differ_are_not_mixed() -> None:
    """What is committed is the same everywhere; where it is not, the operator has to look."""
    first, leader = two(log_of(*[1] * 10), 2)
    leader.log, leader.commit = log_of(*[1] * 10, *[2] * 2), 12
    source = peers(first, leader, pause=lambda: None)
    entries = source.entries()
    assert next(entries)
    leader.log = log_of(*[7] * 12)
    with pytest.raises(StorageError, match="order-3 has committed something else up to 10"):
        list(entries)


def test_one_that_is_down_is_waited_for() -> None:
    """What it has has to be known, too."""
    log = log_of(1, 1)
    first, leader = two(log, 1)
    pauses = []

    def pause() -> None:
        pauses.append(1)
        first.is_down = len(pauses) < 3

    source = peers(first, leader, pause=pause)
    first.is_down = True
    assert list(source.entries()) == log
    assert len(pauses) == 3


@pytest.mark.parametrize(("down", "words"), [(False, "have they a leader"), (True, "1 is down")])
def test_it_does_not_wait_for_ever(down: bool, words: str) -> None:
    """Without a leader nothing is committed."""
    log = log_of(1, 1)
    first, leader = two(log, 1)
    leader.commit = first.commit = 1
    pauses: list[int] = []
    source = peers(first, leader, pause=lambda: pauses.append(1))
    first.is_down = down
    with pytest.raises(Unavailable, match=words):
        list(source.entries())
    assert len(pauses) == PAUSES_MAX


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"group": "catalog"}, StorageError, "address of order-3 .* answers catalog-3"),
        ({"cluster_id": "other"}, StorageError, "of cluster a cluster answers .*of cluster other"),
        ({"number": 1}, StorageError, "address of order-3 .* answers order-1"),
        ({"members": (1, 2, 3, 4)}, StorageError, r"order-3 is in a group of \[1, 2, 3, 4\]"),
        ({"role": "joining"}, Unavailable, "order-3 does not take part in its group: why"),
        ({"knows": 0}, StorageError, "order-3 does not know order-2"),
        ({"knows": 23}, StorageError, "do not agree who order-2 was"),
        ({"is_down": True}, Unavailable, "order-3 is down"),
    ],
)
def test_nothing_comes_from_what_does_not_belong_together(
    change: dict[str, object], error: type[Exception], words: str
) -> None:
    """Each is looked at before anything is made, and what is wrong is said."""
    first, leader = two(log_of(1), 1)
    for name, value in change.items():
        setattr(leader, name, value)
    with pytest.raises(error, match=words):
        LivePeers(ME, {1: first, 3: leader}, lambda: None).incarnations()


def test_a_member_without_others_has_nobody_to_ask() -> None:
    """A single catalog comes back from a backup alone."""
    with pytest.raises(StorageError, match=r"alone in its group.* restore a backup"):
        LivePeers(ME, {}, lambda: None).incarnations()
