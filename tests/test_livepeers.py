"""A member whose disk is lost: how it gets its log from the others while they run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_rejoin import make_snapshots
from twstock.errors import StorageError, Unavailable
from twstock.replication.livepeers import PATIENCE_S, LivePeers
from twstock.replication.messages import Committed, Entry, EntryKind, HardState
from twstock.replication.promises import Owner
from twstock.replication.snapshots import Snapshot, name
from twstock.rpc.calls import Fetch, FetchSnapshot, Peer, SnapshotPiece, Status

LOST = 2
PAUSE_S = 0.25
CALL_S = 5.0
"""How long a call takes to a member that hangs."""
ME = Peer("order", "a cluster", LOST, 0)
INCARNATIONS = {1: 11, 2: 22, 3: 33}
PIECE = 4
PIECE_BYTES = 3000


def log_of(*terms: int) -> list[Entry]:
    """A log with entries of these terms."""
    return [Entry(i, term, EntryKind.COMMAND, b"%d" % i) for i, term in enumerate(terms, 1)]


class Time:
    """A clock that the test sets."""

    s = 1000.0

    def now(self) -> float:
        """Seconds."""
        return self.s


class Other:
    """Another member, with a log that the test changes; it answers a few entries at a time."""

    def __init__(self, number: int, log: list[Entry], commit: int, term: int, leader: int) -> None:
        self.number, self.log, self.commit, self.term = number, log, commit, term
        self.leader = leader
        self.group, self.cluster_id, self.role, self.knows = "order", "a cluster", "follower", 22
        self.members: tuple[int, ...] = (1, 2, 3)
        self.is_down = False
        self.time: Time | None = None
        self.asked: list[int] = []
        self.first_index = 1
        self.snapshots: dict[int, bytes] = {}
        self.told: list[tuple[int, int]] = []

    def status(self, asker: Peer) -> Status:
        """What it tells now."""
        assert (asker.group, asker.cluster_id, asker.id) == ("order", "a cluster", LOST)
        self._answer()
        return Status(
            self.group, self.number, self.cluster_id, INCARNATIONS[self.number], self.role,
            self.term, self.leader, len(self.log), self.commit, 0, b"", 0, 0, 0.0, False, "why",
            True, self.knows, self.members, self.first_index,
        )  # fmt: skip

    def fetch(self, fetch: Fetch) -> Committed:
        """Some of its committed entries."""
        assert fetch.peer.incarnation == INCARNATIONS[LOST], "nobody else is told"
        self._answer()
        after = fetch.after_index
        self.asked.append(after)
        if after + 1 < self.first_index:
            raise Unavailable(f"order-{self.number} has dropped it")
        prev = min(after, len(self.log))
        term = self.log[prev - 1].term if prev else 0
        entries = tuple(self.log[after : min(self.commit, after + PIECE)])
        return Committed(self.number, 0, self.term, prev, term, self.commit, entries)

    def fetch_snapshot(self, fetch: FetchSnapshot) -> SnapshotPiece:
        """A part of one of its snapshots."""
        assert fetch.peer.incarnation == INCARNATIONS[LOST], "nobody else is told"
        self._answer()
        index = fetch.index or max(self.snapshots, default=0)
        self.told.append((index, fetch.offset))
        if index not in self.snapshots:
            raise Unavailable(f"order-{self.number} has no snapshot")
        content = self.snapshots[index]
        piece = content[fetch.offset : fetch.offset + PIECE_BYTES]
        return SnapshotPiece(index, len(content), piece)

    def _answer(self) -> None:
        if self.time is not None:
            self.time.s += CALL_S
        if self.is_down or self.time is not None:
            raise Unavailable(f"order-{self.number} is down")


def two(log: list[Entry], term: int) -> tuple[Other, Other]:
    """Both others, which have the same, all of it committed."""
    return Other(1, log, len(log), term, 3), Other(3, log, len(log), term, 3)


def peers(
    *others: Other,
    pause: Callable[[], None] | None = None,
    time: Time | None = None,
    problems: list[str] | None = None,
) -> LivePeers:
    """The source. Without ``pause`` it must not wait; ``problems`` gets the reasons why it
    waits.
    """
    clock = time or Time()

    def wait(problem: str) -> None:
        assert pause is not None, "waits"
        clock.s += PAUSE_S
        if problems is not None:
            problems.append(problem)
        pause()

    found = LivePeers(ME, {other.number: other for other in others}, wait, clock.now)
    assert found.incarnations() == INCARNATIONS
    return found


def test_all_that_is_committed_comes_from_a_follower() -> None:
    """In pieces; the leader has other work."""
    log = log_of(1, 1, 2, 2, 2, 2, 5, 5, 5, 5)
    first, leader = two(log, 5)
    source = peers(first, leader)
    assert list(source.entries()) == log
    assert (first.asked, leader.asked) == ([0, 4, 8], [])
    assert source.state() == HardState(5, LOST)
    assert str(source) == "order-1, order-3"


def test_the_rest_comes_from_the_leader() -> None:
    """The follower is behind, so the leader is asked for what it lacks."""
    log = log_of(*[1] * 10)
    first, leader = two(log, 1)
    first.commit = 6
    source = peers(first, leader, pause=lambda: None)
    assert list(source.entries()) == log
    assert (first.asked, leader.asked) == ([0, 4, 6], [6])


def test_what_only_one_has_is_waited_for() -> None:
    """The lost member may have acknowledged it, and the leader counts on that."""
    log = log_of(1, 1, 1, 1, 1, 1)
    first, leader = two(log, 1)
    first.log = log[:4]
    first.commit = leader.commit = 4

    def pause() -> None:
        first.log, first.commit, leader.commit = log, 6, 6

    source = peers(first, leader, pause=pause)
    assert list(source.entries()) == log


def test_orders_that_never_cease_are_not_waited_for() -> None:
    """Under constant load the leader always has an entry that is not committed yet. What all
    reported in one round is enough.
    """
    first, leader = two(log_of(1, 1, 1, 1), 1)
    first.commit = leader.commit = 3
    pauses: list[int] = []

    def pause() -> None:
        pauses.append(1)
        log = log_of(*[1] * (len(leader.log) + 2))
        first.log = leader.log = log
        first.commit = leader.commit = len(log) - 1
        assert len(pauses) < 100, "waits for ever"

    source = peers(first, leader, pause=pause)
    assert list(source.entries()) == log_of(1, 1, 1, 1, 1)
    assert len(pauses) == 1


def test_a_newer_term_is_waited_for() -> None:
    """The lost member may have voted for the leader of the newest term, so its log may not end
    before what is committed in that term.
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
    """It was never committed: a log whose last term is newer is as up to date without it."""
    long, log = log_of(1, 1, 1, 1, 1, 1), log_of(1, 1, 2)
    first, leader = two(log, 2)
    first.log, first.term, first.commit = long, 1, 2
    source = peers(first, leader)
    assert list(source.entries()) == log
    assert source.state() == HardState(2, LOST)


def test_the_highest_term_that_was_ever_told_counts() -> None:
    """Also if the entries are of older terms, or if the member that told it was started again and
    knows less.
    """
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
    """For a while it knows less to be committed, and its log may end before what it reported."""
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
    """What is committed is the same everywhere. Where it is not, the operator has to look."""
    first, leader = two(log_of(*[1] * 10), 2)
    leader.log, leader.commit = log_of(*[1] * 10, *[2] * 2), 12
    source = peers(first, leader, pause=lambda: None)
    entries = source.entries()
    assert next(entries)
    leader.log = log_of(*[7] * 12)
    with pytest.raises(StorageError, match="order-3 has committed something else up to 10"):
        list(entries)


def test_one_that_is_down_is_waited_for() -> None:
    """What it has must be known, too."""
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
    """It gives up when no leader commits anything, or when one of the others stays down. Until then
    it says what it waits for.
    """
    log = log_of(1, 1)
    first, leader = two(log, 1)
    leader.commit = first.commit = 1
    problems: list[str] = []
    source = peers(first, leader, pause=lambda: None, problems=problems)
    first.is_down = down
    with pytest.raises(Unavailable, match=words):
        list(source.entries())
    assert len(problems) == PATIENCE_S / PAUSE_S
    assert all(words in problem for problem in problems), "nobody is told what is waited for"


@pytest.mark.parametrize("step", ["snapshot", "entries"])
def test_one_that_hangs_is_waited_for_no_longer(step: str, tmp_path: Path) -> None:
    """Each question takes its whole deadline, so the limit is one of time and not of attempts."""
    first, leader = two(log_of(1, 1), 1)
    time = Time()
    source = peers(first, leader, pause=lambda: None, time=time)
    first.time, began = time, time.s
    with pytest.raises(Unavailable, match="order-1 is down"):
        source.snapshot(tmp_path) if step == "snapshot" else list(source.entries())
    assert PATIENCE_S <= time.s - began <= PATIENCE_S + CALL_S + PAUSE_S


def test_the_patience_begins_anew_with_what_comes() -> None:
    """The limit is for the next entry, not for all of them."""
    log = log_of(*[1] * 4)
    first, leader = two(log, 1)
    first.commit = leader.commit = 1
    time = Time()

    def pause() -> None:
        time.s += PATIENCE_S - 1.0
        first.commit = leader.commit = min(leader.commit + 1, 4)

    source = peers(first, leader, pause=pause, time=time)
    assert list(source.entries()) == log


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
    """Every member is checked before anything is made, and the error says what is wrong."""
    first, leader = two(log_of(1), 1)
    for field, value in change.items():
        setattr(leader, field, value)
    with pytest.raises(error, match=words):
        LivePeers(ME, {1: first, 3: leader}, lambda _problem: None, Time().now).incarnations()


def test_a_member_without_others_has_nobody_to_ask() -> None:
    """A single catalog can only come back from a backup."""
    with pytest.raises(StorageError, match=r"alone in its group.* restore a backup"):
        LivePeers(ME, {}, lambda _problem: None, Time().now).incarnations()


CUT = log_of(1, 1, 2, 2, 2, 2, 5, 5, 5, 5)


@pytest.fixture
def contents(tmp_path: Path) -> dict[int, bytes]:
    """Snapshots of that log, by their indices."""
    made = tmp_path / "made"
    made.mkdir()
    for index in (4, 6, 8):
        make_snapshots(made, Owner("order", "a cluster", 1, (1, 2, 3)), CUT, index)
        (made / name(index)).rename(made / str(index))
    return {index: (made / str(index)).read_bytes() for index in (4, 6, 8)}


def cut(contents: dict[int, bytes]) -> tuple[Other, Other]:
    """Both others, which have dropped three and five entries, and have two snapshots each."""
    first, leader = two(CUT, 5)
    first.first_index, leader.first_index = 6, 4
    first.snapshots = {index: contents[index] for index in (6, 8)}
    leader.snapshots = {index: contents[index] for index in (4, 6)}
    return first, leader


def taken(source: LivePeers, directory: Path) -> int:
    """The index of the snapshot that is put into a directory: it alone is left there."""
    target = directory / "target"
    target.mkdir()
    snapshot = source.snapshot(target)
    assert isinstance(snapshot, Snapshot)
    assert list(target.iterdir()) == [snapshot.path]
    assert snapshot.is_intact()
    return snapshot.index


def test_nothing_is_asked_for_that_nobody_dropped(tmp_path: Path) -> None:
    """No snapshot, if the others have their whole logs. The order group never drops anything."""
    first, leader = two(CUT, 5)
    source = peers(first, leader)
    assert source.snapshot(tmp_path) is None
    assert (first.told, leader.told, list(tmp_path.iterdir())) == ([], [], [])
    assert list(source.entries()) == CUT


def test_what_was_dropped_comes_as_a_snapshot(tmp_path: Path, contents: dict[int, bytes]) -> None:
    """In pieces, from the member that has dropped most. What nobody has dropped is pulled as
    entries: a member that is down may need them from this one.
    """
    first, leader = cut(contents)
    source = peers(first, leader)
    assert taken(source, tmp_path) == 8
    assert [index for index, _ in first.told] == [8] * len(first.told)
    assert [offset for _, offset in first.told] == [*range(0, len(contents[8]), PIECE_BYTES)]
    assert list(source.entries()) == CUT[5:]
    assert (first.asked[0], leader.told, leader.asked) == (5, [], [])
    assert source.state() == HardState(5, LOST)


def test_a_snapshot_of_all_that_there_is_is_enough(
    tmp_path: Path, contents: dict[int, bytes]
) -> None:
    """There are no entries after it, and the term of its last one counts."""
    first, leader = cut(contents)
    first.log = leader.log = CUT[:8]
    first.commit = leader.commit = 8
    first.first_index = 9
    source = peers(first, leader)
    assert taken(source, tmp_path) == 8
    assert list(source.entries()) == []
    assert source.state() == HardState(5, LOST)


def test_a_follower_is_asked_for_its_snapshot(tmp_path: Path, contents: dict[int, bytes]) -> None:
    """The leader has other work, so it is not asked unless it has dropped more."""
    for leading, asked in ((1, 3), (3, 1)):
        others = cut(contents)
        for other in others:
            other.leader, other.first_index = leading, 5
        assert taken(peers(*others), tmp_path) == (8 if asked == 1 else 6)
        assert [other.number for other in others if other.told] == [asked]
        for path in (tmp_path / "target").iterdir():
            path.unlink()
        (tmp_path / "target").rmdir()


@pytest.mark.parametrize("kind", ["none", "damaged", "too short"])
def test_a_snapshot_that_is_not_whole_is_not_taken(
    tmp_path: Path, contents: dict[int, bytes], kind: str
) -> None:
    """Another member's is, if it has everything that was dropped."""
    first, leader = cut(contents)
    rotten = bytearray(contents[8])
    rotten[-200] ^= 1
    first.snapshots = {"none": {}, "damaged": {8: bytes(rotten)}, "too short": {8: b""}}[kind]
    source = peers(first, leader)
    assert taken(source, tmp_path) == 6
    assert leader.told[0] == (6, 0)
    assert list(source.entries()) == CUT[5:]


def test_a_snapshot_that_is_too_old_is_not_taken(
    tmp_path: Path, contents: dict[int, bytes]
) -> None:
    """Nobody has the entries between it and the others' logs. A newer one is waited for."""
    first, leader = cut(contents)
    first.first_index = leader.first_index = 8
    first.snapshots = leader.snapshots = {6: contents[6]}
    pauses: list[int] = []

    def pause() -> None:
        pauses.append(1)
        leader.snapshots = {8: contents[8]}

    source = peers(first, leader, pause=pause)
    assert taken(source, tmp_path) == 8
    assert len(pauses) == 1
    assert list(source.entries()) == CUT[7:]


@pytest.mark.parametrize("gone", [True, False], ids=["newer", "restarted"])
def test_a_snapshot_that_breaks_off_is_begun_again(
    tmp_path: Path, contents: dict[int, bytes], gone: bool
) -> None:
    """Pieces of two snapshots are not mixed. The first one is taken as long as it can be had,
    though there may be a newer one.
    """
    first, leader = cut(contents)
    first.snapshots, leader.snapshots = {6: contents[6]}, {}
    pauses: list[int] = []
    answer = first.fetch_snapshot

    def fetch_snapshot(fetch: FetchSnapshot) -> SnapshotPiece:
        found = answer(fetch)
        if not pauses and fetch.offset == PIECE_BYTES:
            first.snapshots = {8: contents[8]} if gone else first.snapshots
            first.is_down = not gone
        elif fetch.offset == PIECE_BYTES:
            first.snapshots = contents
        return found

    def pause() -> None:
        pauses.append(1)
        first.is_down = False

    first.fetch_snapshot = fetch_snapshot  # type: ignore[method-assign]
    source = peers(first, leader, pause=pause)
    assert taken(source, tmp_path) == (8 if gone else 6)
    assert len(pauses) == 1
    assert [index for index, offset in first.told if offset == 0] == [6, 8 if gone else 6]


def test_no_snapshot_is_waited_for_for_ever(tmp_path: Path, contents: dict[int, bytes]) -> None:
    """The error says what each of the others lacks."""
    first, leader = cut(contents)
    first.snapshots, leader.snapshots = {}, {4: contents[4]}
    pauses: list[int] = []
    source = peers(first, leader, pause=lambda: pauses.append(1))
    words = "order-1 has no snapshot; order-3 has a snapshot up to 4, and entries up to 5 were"
    with pytest.raises(Unavailable, match=words):
        source.snapshot(tmp_path)
    assert len(pauses) == PATIENCE_S / PAUSE_S


def test_what_one_drops_meanwhile_comes_from_another(
    tmp_path: Path, contents: dict[int, bytes]
) -> None:
    """Each member drops entries when it has snapshots of its own. If all have dropped an entry, the
    command fails and says so.
    """
    first, leader = cut(contents)
    source = peers(first, leader, pause=lambda: None)
    assert taken(source, tmp_path) == 8
    first.first_index = 10
    entries = source.entries()
    assert next(entries) == CUT[5]
    assert (first.asked, leader.asked) == ([], [5])
    late = peers(first, leader, pause=lambda: None)
    leader.first_index = 10
    with pytest.raises(Unavailable, match="has dropped it"):
        list(late.entries())
