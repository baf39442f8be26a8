"""On a nearly full disk commands are refused for want of room in the log, and no member ends."""

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.disks import SimulatedDisk
from tests.members import Group
from tests.memory import MemoryStorage
from twstock.config import DEFAULT_TIMINGS
from twstock.errors import DiskFull, StorageUnavailable
from twstock.replication.log import Log
from twstock.replication.messages import AppendEntries, Committed, Entry, EntryKind, Persist
from twstock.replication.promises import Owner
from twstock.replication.records import HEADER_BYTES
from twstock.replication.room import (
    FOLLOWER_LEAVES_BYTES,
    LEADER_LEAVES_BYTES,
    ROOM_KEPT_BYTES,
    check_follower,
    written_bytes,
)
from twstock.replication.spares import Upkeep
from twstock.replication.storage import FileStorage
from twstock.rpc.calls import Envelope, Peer

APPEND_BYTES_MAX = DEFAULT_TIMINGS.append_bytes_max
SLACK = 10_000
WORD = b"x" * 100_000


def command(index: int, payload: bytes = b"buy", term: int = 1) -> Entry:
    """One entry of a client."""
    return Entry(index, term, EntryKind.COMMAND, payload)


def started(tmp_path: Path, **capacities: int) -> Group:
    """Three members, of which some have a small disk (``disk_1`` and so on), led by 3."""
    group = Group(tmp_path)
    for name, capacity in capacities.items():
        number = int(name.removeprefix("disk_"))
        group.storages[number] = MemoryStorage(100 + number, capacity, window_bytes=0)
    group.start()
    group.run_until(lambda: group.leader == 3)
    return group


def on_disk(disk: SimulatedDisk) -> FileStorage:
    """The storage of member 1 on a disk: segments of a megabyte, one of them spare."""
    owner = Owner("order", "test", 1, (1, 2, 3))
    return FileStorage(Path("/data"), owner, 1 << 20, 1, lambda: 101, files=disk, window_bytes=0)


def propose(group: Group, payload: bytes) -> list[Any]:
    """Propose at the leader; the result or error is put into the list that is returned."""
    results: list[Any] = []
    try:
        group.member(group.leader).propose(payload).addBoth(results.append)
    except DiskFull as error:
        results.append(error)
    return results


def receive(group: Group, number: int, message: AppendEntries) -> list[Any]:
    """Let a member receive a message from 3; its answer is put into the list that is returned."""
    answers: list[Any] = []
    envelope = Envelope(Peer("order", "test", 3, 103), message)
    Deferred.fromCoroutine(group.member(number).receive(envelope)).addBoth(answers.append)
    group.run(0.05)
    return answers


def test_no_write_takes_more_than_is_said() -> None:
    """Each write takes no more room than ``written_bytes`` says, whether written alone or gathered,
    with others or at the end of a segment; and every write for which there was room succeeds.
    """
    for seed in range(40):
        random = Random(seed)
        segment_bytes, disk = HEADER_BYTES + random.randint(500, 5000), SimulatedDisk()
        owner = Owner("order", "test", 1, (1, 2, 3))
        storage = FileStorage(Path("/data"), owner, segment_bytes, 2, lambda: 77, files=disk)
        storage.open()
        while storage.settle() is Upkeep.GOES_ON:
            pass
        disk.capacity = 0  # no further segment
        index, room = 0, storage.room_bytes()
        while True:
            writes = []
            for _ in range(random.randint(1, 3)):
                sizes = [random.randint(0, 300) for _ in range(random.randint(1, 4))]
                entries = tuple(command(index + k, bytes(s)) for k, s in enumerate(sizes, 1))
                if written_bytes(entries) > room:
                    break
                index, room = index + len(entries), room - written_bytes(entries)
                writes.append(Persist(index, None, entries))
            if not writes:
                break
            storage.write(writes)
            assert storage.room_bytes() >= room
            room = storage.room_bytes()
        storage.close()


def test_proposals_during_one_write_share_the_room(tmp_path: Path) -> None:
    """What is proposed but not written yet counts: a leader takes no more commands than fit,
    refuses the others and stays the leader.
    """
    group = started(tmp_path, disk_3=ROOM_KEPT_BYTES + 3 * len(WORD))
    group.threads[3].delay_s = 0.1
    results = [propose(group, WORD) for _ in range(20)]
    assert [isinstance(r, DiskFull) for (r,) in results[3:]] == [True] * 17
    group.run(0.5)
    assert (results[:3], group.panics) == ([[1], [2], [3]], [])
    assert group.leader == 3


def test_a_command_that_does_not_fit_is_refused_whatever_is_free(tmp_path: Path) -> None:
    """A large command that would use the room that is kept for elections is refused; a small one is
    taken afterwards.
    """
    group = started(tmp_path, disk_3=ROOM_KEPT_BYTES + SLACK)
    (refused,) = propose(group, bytes(ROOM_KEPT_BYTES - LEADER_LEAVES_BYTES + SLACK))
    assert isinstance(refused, DiskFull)
    taken = propose(group, bytes(100))
    group.run(0.1)
    assert (taken, group.panics) == ([1], [])


def test_a_follower_refuses_what_does_not_fit_and_takes_what_does(tmp_path: Path) -> None:
    """An append that does not fit is refused and changes nothing; a smaller one is taken."""
    group = started(tmp_path, disk_1=FOLLOWER_LEAVES_BYTES + APPEND_BYTES_MAX)
    replica = group.member(1)._taking_part().replica
    last, term = replica.last_index, replica.term
    message = AppendEntries(3, 1, term, last, term, last, sequence=7)
    large = replace(message, entries=(command(last + 1, bytes(APPEND_BYTES_MAX), term),))
    (answer,) = receive(group, 1, large)
    assert isinstance(answer, Failure)
    assert answer.check(DiskFull)
    assert replica.last_index == last
    assert not group.panics
    (answer,) = receive(group, 1, replace(message, entries=(command(last + 1, term=term),)))
    assert answer.ok
    assert replica.last_index == last + 1


def test_no_ops_take_the_room_that_commands_leave() -> None:
    """A no-op is taken as long as it fits, so that elections go on; a command has to leave room."""
    noop = Entry(1, 1, EntryKind.NOOP)
    check_follower([noop], Log(), written_bytes([noop]))
    with pytest.raises(DiskFull):
        check_follower([noop], Log(), written_bytes([noop]) - 1)
    with pytest.raises(DiskFull):
        check_follower([command(1)], Log(), FOLLOWER_LEAVES_BYTES)


def test_what_the_log_has_needs_no_room() -> None:
    """An append comes again if its answer was lost. It is accepted on a full disk if the log has
    all its entries, and refused if one is new or replaced.
    """
    log = Log([command(1), command(2)])
    check_follower([command(1), command(2)], log, 0)
    with pytest.raises(DiskFull):
        check_follower([command(2), command(3)], log, FOLLOWER_LEAVES_BYTES)
    with pytest.raises(DiskFull):
        check_follower([command(2, term=2)], log, FOLLOWER_LEAVES_BYTES)


def test_a_member_without_room_for_what_it_missed_goes_on_without(tmp_path: Path) -> None:
    """A pull of missed entries that do not fit ends the catching up, and not the process."""
    group = started(tmp_path, disk_1=FOLLOWER_LEAVES_BYTES + SLACK)
    group.kill(1)
    done = [propose(group, WORD) for _ in range(4)]
    group.run_until(lambda: all(done))
    pulled: list[Committed] = []
    real = group.member(2).fetch

    async def fetch(asked: Any) -> Committed:
        pulled.append(await real(asked))
        return pulled[-1]

    group.member(2).fetch = fetch  # type: ignore[method-assign]
    group.start(1)
    group.run(1.0)
    assert pulled[0].entries
    assert group.panics == []
    assert group.member(1).machine.words == []
    assert group.member(1).leader_id() == 3


def test_a_new_member_on_a_full_disk_tells_the_operator(tmp_path: Path) -> None:
    """A new member that has no room for its log is refused a start in words; it is no panic."""
    group = Group(tmp_path)
    group.storages[1] = on_disk(SimulatedDisk(capacity=1 << 19))
    group.start(1)
    group.run(0.1)
    ((number, refused),) = group.refusals
    assert (number, type(refused), group.panics) == (1, StorageUnavailable, [])
    assert str(refused) == "/data has no room for a new log"


def test_a_member_started_on_a_full_disk_takes_entries_when_there_is_space(tmp_path: Path) -> None:
    """A member that starts on a full disk can write nothing. When there is space it makes room by
    itself, and takes what it missed.
    """
    group, disk = Group(tmp_path), SimulatedDisk()
    group.storages[1] = on_disk(disk)
    group.start()
    group.run_until(lambda: group.leader == 3)
    group.run(0.5)
    disk.capacity = 0
    for _ in range(30):
        propose(group, WORD)
        group.run(0.05)
    assert len(group.member(1).machine.words) < 30
    group.kill(1)
    disk.kill()
    group.storages[1] = on_disk(disk)
    group.start(1)
    group.run(2.0)
    assert len(group.member(1).machine.words) < 30
    disk.capacity = 1 << 30
    group.run_until(lambda: len(group.member(1).machine.words) == 30, 10.0)
    assert group.panics == []
