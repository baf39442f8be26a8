"""Entries are dropped from the log when every member has them and two snapshots stand in for
them.
"""

import errno
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from tests.disks import PowerCut, SimulatedDisk
from tests.members import Group
from tests.memory import MemoryStorage
from tests.test_storage import DATA, FIRST, append, entry, on_disk, promise, settle
from tests.test_storage_damage import flip
from twstock.errors import BrokenInvariant, CorruptStorage, DiskFull, StorageUnavailable
from twstock.replication.compaction import (
    DROPPED,
    Dropped,
    TermRun,
    decode_dropped,
    encode_dropped,
    up_to,
)
from twstock.replication.records import Identity, Position
from twstock.replication.segments import DROPPED_MAX
from twstock.replication.snapshots import Snapshot, Snapshots
from twstock.replication.spares import Upkeep
from twstock.replication.storage import FileStorage, Space

CLUSTER = bytes(range(16))
RUNS = (TermRun(1, 1), TermRun(3, 2), TermRun(9, 5))


# The file ``dropped``.


def test_every_bit_of_dropped() -> None:
    """The file is read back as it was written; with any wrong bit, or cut, it is not believed."""
    dropped = Dropped(Identity(CLUSTER, 2, 77), Position(3, 8192, 11, bytes(16)), RUNS)
    content = encode_dropped(dropped)
    assert decode_dropped(content) == dropped
    for offset in range(len(content)):
        for bit in range(8):
            wrong = bytearray(content)
            wrong[offset] ^= 1 << bit
            assert decode_dropped(bytes(wrong)) is None
    for length in range(len(content)):
        assert decode_dropped(content[:length]) is None


def test_runs_up_to_an_entry() -> None:
    """Terms that begin after the entry are left out, and a term that goes on is there once."""
    assert up_to((*RUNS, TermRun(12, 5)), 20) == RUNS
    assert up_to(RUNS, 8) == RUNS[:2]
    assert up_to(RUNS, 0) == ()


# The log on disk.


def filled(disk: SimulatedDisk, *, release: int = 0) -> FileStorage:
    """A closed storage of four segments, 17 entries and two terms."""
    storage = on_disk(disk)
    storage.open()
    settle(storage)
    storage.write([promise(1, 2)])
    for first in (1, 5, 9, 13):
        storage.write([append(first, first + 3, 1 + first // 9, b"x" * 300)])
        settle(storage)
    storage.write([append(17, 17, term=2)])
    storage.release(release)
    settle(storage)
    storage.close()
    return storage


def segments(disk: SimulatedDisk) -> list[str]:
    """The log's segments and seals."""
    return [found for found in sorted(disk.names(DATA)) if found.startswith("log-")]


@pytest.mark.parametrize(("release", "first"), [(0, 1), (3, 1), (4, 5), (11, 9), (17, 13)])
def test_segments_that_end_before_are_dropped(release: int, first: int) -> None:
    """Only whole segments are dropped, and never the last one. What is left can be read, and the
    log goes on.
    """
    disk = SimulatedDisk()
    storage = filled(disk, release=release)
    for _ in range(2):
        log = storage.open().log
        assert (log.first_index, log.last_index) == (first, 17)
        assert [e.index for e in log.between(first, 17)] == list(range(first, 18))
        assert [log.term_at(index) for index in (1, 8, 9, 17)] == [1, 1, 2, 2]
        found = [name for name in segments(disk) if name.endswith(".seg")]
        assert storage.space().segments == len(found)
        assert storage.space().ended_index == (12 if first < 13 else 0)
        assert (FIRST in found) == (first == 1)
        storage.close()
    storage.open()
    storage.write([append(18, 18, term=2)])
    storage.close()
    assert storage.open().log.last_index == 18


def test_dropping_goes_on_after_dropping() -> None:
    """When more is dropped later, the terms of all that was dropped are still known."""
    disk = SimulatedDisk()
    storage = filled(disk, release=4)
    storage.open()
    storage.release(12)
    settle(storage)
    storage.close()
    log = storage.open().log
    assert (log.first_index, log.runs()) == (13, (TermRun(1, 1), TermRun(9, 2)))


def test_who_asks_for_what_was_dropped_is_in_error() -> None:
    """Asking for it is a broken invariant, also for entries that were released and are still there:
    nobody gets a part in place of the whole.
    """
    storage = filled(SimulatedDisk(), release=4)
    log = storage.open().log
    for ask in (lambda: log.between(4, 6), lambda: log.slice(4, 9, 999), lambda: log.entry(4)):
        with pytest.raises(BrokenInvariant, match="entry 4 is asked for, the log begins at 5"):
            ask()
    log.release(10)
    with pytest.raises(BrokenInvariant, match="the log begins at 11"):
        log.between(5, 17)
    assert log.between(5, 4) == ()


@pytest.mark.parametrize("damage", ["a bit", "another log's", "gone"])
def test_a_log_whose_beginning_is_not_known_is_refused(damage: str) -> None:
    """If ``dropped`` is damaged, missing or of another log, the start is refused: what was dropped
    could not be told from what was lost.
    """
    disk = SimulatedDisk()
    storage = filled(disk, release=8)
    if damage == "a bit":
        flip(disk, DROPPED, 40)
    elif damage == "gone":
        disk.remove(DROPPED)
    else:
        found = decode_dropped(disk.content(DROPPED))
        assert found is not None
        other = Dropped(Identity(CLUSTER, 1, 78), found.end, found.runs)
        disk.set_content(DROPPED, encode_dropped(other))
    before = segments(disk)
    with pytest.raises(CorruptStorage, match=r"where the log begins is lost|segment 1 is missing"):
        storage.open()
    assert segments(disk) == before


@pytest.mark.parametrize("lost", [0, 1, -1])
def test_what_is_lost_is_told_from_what_was_dropped(lost: int) -> None:
    """A segment that is missing after those that were dropped stops the start."""
    disk = SimulatedDisk()
    storage = filled(disk, release=8)
    disk.remove([found for found in segments(disk) if found.endswith(".seg")][lost])
    with pytest.raises(CorruptStorage, match=r"missing|gone"):
        storage.open()


def test_a_log_without_any_segment_is_refused() -> None:
    """If all segments are missing the start is refused, and the entries after those that were
    dropped are named as lost.
    """
    disk = SimulatedDisk()
    storage = filled(disk, release=8)
    for found in segments(disk):
        disk.remove(found)
    with pytest.raises(CorruptStorage, match="is gone; entries 9 to 17 are lost"):
        storage.open()


def test_segments_that_come_back_are_removed_again() -> None:
    """A segment that was dropped, but whose removal a power cut took back, is removed by the next
    start.
    """
    disk = SimulatedDisk()
    storage = filled(disk)
    content = disk.content(FIRST)
    storage.open()
    storage.release(8)
    settle(storage)
    storage.close()
    disk.set_content(FIRST, content)
    assert storage.open().log.first_index == 9
    assert FIRST not in disk.names(DATA)


def test_an_old_mark_says_less_than_what_was_dropped() -> None:
    """A power cut may take the mark back to before what was dropped; the start succeeds."""
    disk = SimulatedDisk()
    storage = on_disk(disk)
    storage.open()
    settle(storage)
    storage.write([promise(1, 2)])
    for first in (1, 5, 9, 13, 17):
        if first == 9:
            settle(storage)
            old = disk.content("meta")
        storage.write([append(first, first + 3, 1, b"x" * 300)])
    storage.release(12)
    settle(storage)
    storage.close()
    disk.set_content("meta", old)
    assert storage.open().log.first_index == 13


def test_many_segments_are_dropped_a_few_at_a_time() -> None:
    """A step of upkeep drops only a few segments, as a write may have to wait for it; the next step
    follows at once.
    """
    disk = SimulatedDisk()
    storage = on_disk(disk)
    storage.open()
    last = 0
    while storage.space().segments < 3 * DROPPED_MAX:
        storage.write([append(last + 1, last + 4, 1, b"x" * 300)])
        last += 4
    settle(storage)
    storage.release(last)
    before = storage.space().segments
    assert storage.settle() is Upkeep.GOES_ON
    assert storage.space().segments == before - DROPPED_MAX
    settle(storage)
    assert storage.space().segments == 1
    assert storage.settle() is Upkeep.DONE
    storage.close()
    assert storage.open().log.last_index == last


def test_a_full_disk_drops_nothing_and_refuses_nothing() -> None:
    """``dropped`` needs a few bytes. Without space for it nothing is dropped and no descriptor
    leaks; with space the segments are dropped.
    """
    disk = SimulatedDisk()
    storage = filled(disk)
    disk.capacity = disk._used()
    storage.open()
    storage.release(12)
    opened = len(disk._fds)
    for _ in range(3):
        storage.settle(grow=False)
    assert storage.space().segments == 4
    assert len(disk._fds) == opened
    disk.capacity += 8192
    storage.settle(grow=False)
    assert storage.space().segments == 1
    found = decode_dropped(disk.content(DROPPED))
    assert found is not None
    assert found.runs == (TermRun(1, 1), TermRun(9, 2))


def test_a_log_that_is_never_idle_drops_too() -> None:
    """Under constant load there are no steps of upkeep: the write that begins a segment drops."""
    disk = SimulatedDisk()
    storage = filled(disk)
    storage.open()
    before = storage.space().segments
    storage.release(8)
    storage.write([append(18, 22, 2, b"x" * 300)])
    assert storage.space().segments == before + 1 - 2
    assert FIRST not in disk.names(DATA)


def test_a_log_that_begins_later() -> None:
    """The log of a new directory may begin after entries that a snapshot stands in for."""
    disk = SimulatedDisk()

    def storage() -> FileStorage:
        made = on_disk(disk)
        made._begins_after = (11, RUNS)
        return made

    made = storage()
    log = made.open().log
    assert (log.first_index, log.last_index, log.runs()) == (12, 11, RUNS)
    made.write([append(12, 13, term=5)])
    made.close()
    again = on_disk(disk)
    log = again.open().log
    assert (log.first_index, log.last_index, log.term_at(2)) == (12, 13, 1)
    assert log.between(12, 13) == (entry(12, 5), entry(13, 5))


# A group.


class Segmented(MemoryStorage):
    """A log in memory that says that a segment ends after every ten entries."""

    released = 0

    def space(self) -> Space:
        """The last index of the last segment that has ended."""
        return Space(ended_index=(len(self._entries) - 1) // 10 * 10)

    def release(self, index: int) -> None:
        """Release, and note the index."""
        super().release(index)
        self.released = index


def pruned(tmp_path: Path, size: int = 3) -> Group:
    """A started group that makes snapshots."""
    group = Group(tmp_path, size)
    for number in group.ids:
        path = tmp_path / f"snapshots-{number}"
        path.mkdir()
        group.snapshots[number] = Snapshots(path, CLUSTER)
        group.storages[number] = Segmented(100 + number, window_bytes=0)
    group.start()
    group.run_until(lambda: group.leader == size)
    return group


def propose(group: Group, count: int) -> None:
    """Have so many commands committed one after the other, and let time pass for what follows."""
    for _ in range(count):
        group.run_until(lambda: bool(group.leader))
        done = group.member(group.leader).propose(b"word")
        group.run_until(lambda done=done: done.called)
    group.run(1.0)


def released(group: Group) -> list[int]:
    """The index up to which each member has released its log."""
    return [storage.released for storage in group.storages.values()]  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [1, 3])
def test_members_let_go_of_what_all_have(tmp_path: Path, size: int) -> None:
    """When they have a second snapshot, members release their logs up to the first one."""
    group = pruned(tmp_path, size)
    propose(group, 15)
    assert released(group) == [0] * size
    propose(group, 15)
    firsts = [snapshots.indices()[0] for snapshots in group.snapshots.values()]
    assert released(group) == firsts
    assert [group.member(i).status().first_index - 1 for i in group.ids] == firsts
    assert min(firsts) >= 10
    assert not group.panics


def test_what_a_full_disk_refused_is_tried_again_with_the_next_segment(tmp_path: Path) -> None:
    """A snapshot for which there was no space is not tried again before another segment ends: each
    try looks at every row, and writes until nothing is left.
    """
    group = pruned(tmp_path, 1)
    snapshots, tried = group.snapshots[1], []
    make = snapshots.make

    def full(_: object, index: int, runs: object) -> Snapshot:
        tried.append(index)
        raise OSError(errno.ENOSPC, "No space left on device")

    snapshots.make = full  # type: ignore[method-assign, assignment]
    propose(group, 15)
    group.run(3.0)
    assert len(tried) == 1
    snapshots.make = make  # type: ignore[method-assign]
    for _ in range(2):
        propose(group, 15)
    assert released(group) == snapshots.indices()[:1]
    assert not group.panics


def test_a_directory_that_cannot_be_read_ends_the_process(tmp_path: Path) -> None:
    """If the snapshots cannot be looked at, it is a panic; otherwise nobody would hear of it."""
    group = pruned(tmp_path, 1)

    def broken() -> int:
        raise OSError(errno.EIO, "Input/output error")

    group.snapshots[1].safe_index = broken  # type: ignore[method-assign]
    propose(group, 15)
    assert [str(failure.value) for _, failure in group.panics] == ["[Errno 5] Input/output error"]


def test_one_that_is_down_keeps_the_logs_of_the_others(tmp_path: Path) -> None:
    """When it comes back it gets all that it has missed; then the logs are cut."""
    group = pruned(tmp_path)
    group.kill(1)
    propose(group, 45)
    assert released(group) == [0, 0, 0]
    group.start(1)
    group.run(3.0)
    assert released(group)[1] >= 10
    propose(group, 15)
    assert min(released(group)) >= 10
    assert group.member(1).status().applied == group.member(3).status().applied
    assert not group.panics


def test_a_member_starts_with_what_is_left(tmp_path: Path) -> None:
    """A member whose tables are gone, and whose log has lost its beginning, starts from a
    snapshot.
    """
    group = pruned(tmp_path)
    propose(group, 30)
    for number in (3, 1):
        group.kill(number)
        group.start(number)
    propose(group, 5)
    assert {group.member(i).status().applied for i in group.ids} == {
        group.member(group.leader).status().commit
    }
    assert not group.panics
    assert not group.refusals


def test_a_member_with_neither_is_refused(tmp_path: Path) -> None:
    """If no snapshot is intact, and the tables do not reach to where the log begins, the start is
    refused.
    """
    group = pruned(tmp_path)
    propose(group, 30)
    group.kill(1)
    for snapshot in (tmp_path / "snapshots-1").iterdir():
        snapshot.write_bytes(b"rotten")
    group.start(1)
    group.run(1.0)
    (number, refusal) = group.refusals[0]
    assert number == 1
    assert "no snapshot is intact" in str(refusal)


def test_a_snapshot_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A member that needs a snapshot which cannot be read is told which. It may be intact, so this
    is no loss, and a later start may succeed.
    """
    group = pruned(tmp_path)
    propose(group, 30)
    group.kill(1)
    paths = sorted((tmp_path / "snapshots-1").iterdir())
    paths[0].write_bytes(b"rotten")
    paths[1].unlink()
    paths[1].mkdir()
    group.start(1)
    group.run(1.0)
    (_, refusal) = group.refusals[0]
    assert isinstance(refusal, StorageUnavailable)
    assert str(refusal).endswith(f"a snapshot cannot be read: {paths[1]}: Is a directory")


def must_rejoin(group: Group) -> list[int]:
    """The members that have lost what they promised, as the leader sees it."""
    working = group.member(group.leader).working()
    assert working is not None
    return [peer for peer in (1, 2, 3) if working[0].replica.must_rejoin(peer)]


def test_followers_that_promised_and_lost_it_are_left_alone(tmp_path: Path) -> None:
    """A copy from yesterday is put in place of a member's directory. The leader cannot send what
    was dropped, finds that the member has lost what it had confirmed, and goes on with the others;
    so does the next leader.
    """
    group = pruned(tmp_path)
    propose(group, 3)
    group.kill(1)
    storage = group.storages[1]
    assert isinstance(storage, Segmented)
    yesterday = list(storage._entries)
    group.start(1)
    propose(group, 30)
    group.kill(1)
    storage._entries[:] = yesterday
    storage.release(0)
    for snapshot in (tmp_path / "snapshots-1").iterdir():
        snapshot.unlink()
    group.start(1)
    propose(group, 5)
    assert group.member(1).status().last_index < group.member(3).status().last_index - 20
    assert must_rejoin(group) == [1]
    group.kill(3)  # the next leader finds out how far its followers are
    group.start(3)
    propose(group, 5)
    assert must_rejoin(group) == [1]
    assert not group.panics


def test_power_cuts_while_dropping() -> None:
    """After a power cut at any call of the dropping, the log begins where it did or where it
    should, and has all entries from there on.
    """
    for turn in range(1, 40):
        disk = SimulatedDisk()
        storage = filled(disk)
        storage.open()
        storage.release(12)
        disk.fail_at, disk.failure = disk.calls + turn, "power"
        with suppress(PowerCut):
            settle(storage)
        disk.cut_power(Random(turn))
        log = on_disk(disk).open().log
        assert log.first_index in (1, 13)
        found = segments(disk)
        assert {Path(name).stem for name in found if name.endswith(".seal")} <= {
            Path(name).stem for name in found if name.endswith(".seg")
        }
        assert [e.index for e in log.between(log.first_index, 17)] == list(
            range(log.first_index, 18)
        )


def test_room_is_not_taken_by_what_was_dropped() -> None:
    """On a disk that is nearly full, dropping makes room for spare segments, so writes go on."""
    disk = SimulatedDisk()
    storage = filled(disk)
    storage.open()
    disk.capacity = disk._used() + 600
    storage.write([append(18, 22, 2, b"x" * 300)])
    with pytest.raises(DiskFull):
        storage.write([append(23, 27, 2, b"x" * 300), append(28, 32, 2, b"x" * 300)])
    storage.release(17)
    settle(storage)
    storage.write([append(23, 27, 2, b"x" * 300)])
