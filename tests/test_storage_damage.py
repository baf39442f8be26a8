"""What a start does with a damaged directory."""

import os
from pathlib import Path
from random import Random

import pytest

from tests.disks import SimulatedDisk, open_below
from tests.test_storage import FIRST, OWNER, append, entry, held, on_disk, promise, settle
from twstock.errors import CorruptStorage, StorageError
from twstock.replication.messages import HardState
from twstock.replication.promises import META_BYTES, SLOT_BYTES, Owner
from twstock.replication.records import HEADER_BYTES
from twstock.replication.recovery import Ending, Segment, scan
from twstock.replication.storage import FileStorage

SECOND = "log-00000002.seg"


def filled(disk: SimulatedDisk, *, settled: bool = True) -> FileStorage:
    """Return a closed storage with two segments and a vote."""
    storage = on_disk(disk)
    storage.open()
    settle(storage)
    storage.write([promise(1, 2), append(1, 4, payload=b"x" * 300)])
    storage.write([promise(2, 3), append(5, 8, payload=b"y" * 300)])
    storage.write([append(9, 9, term=2)])
    if settled:
        settle(storage)
    storage.close()
    return storage


def flip(disk: SimulatedDisk, name: str, offset: int, bit: int = 0) -> None:
    """Flip one bit."""
    content = bytearray(disk.content(name))
    content[offset] ^= 1 << bit
    disk.set_content(name, bytes(content))


@pytest.mark.parametrize(
    "other",
    [
        Owner("order", "production", 1, (1, 2, 3)),
        Owner("catalog", "test", 1, (1, 2, 3)),
        Owner("order", "test", 2, (1, 2, 3)),
        Owner("order", "test", 1, (1, 2, 3, 4, 5)),
    ],
)
def test_another_owner_is_refused_and_both_are_named(other: Owner) -> None:
    """A directory of another cluster, group, member or membership is refused."""
    disk = SimulatedDisk()
    filled(disk)
    with pytest.raises(StorageError) as problem:
        on_disk(disk, owner=other).open()
    assert str(OWNER) in str(problem.value)
    assert str(other) in str(problem.value)


def test_the_order_of_members_does_not_matter() -> None:
    """The same members in another order are the same owner."""
    disk = SimulatedDisk()
    filled(disk)
    assert on_disk(disk, owner=Owner("order", "test", 1, (3, 1, 2))).open().log.last_index


def test_torn_tail_is_cut_in_silence() -> None:
    """What a crash left of an unacknowledged write is replaced by zeros, and the log goes on."""
    disk = SimulatedDisk()
    storage = filled(disk)
    end = storage._log.position.offset
    content = bytearray(disk.content(SECOND))
    content[end : end + 100] = b"\x01\x00\x00\x00" * 25
    disk.set_content(SECOND, bytes(content))
    assert storage.open().log.last_index == 9
    assert not any(disk.content(SECOND)[end:])
    storage.write([append(10, 10, term=2)])
    storage.close()
    assert storage.open().log.last_index == 10


def test_damage_below_the_mark_is_refused() -> None:
    """A promised entry that cannot be read stops the start; the error names the bytes and the
    entry, and the file stays as it is.
    """
    disk = SimulatedDisk()
    storage = filled(disk)
    flip(disk, SECOND, storage._log.position.offset - 80)
    before = disk.content(SECOND)
    with pytest.raises(CorruptStorage, match=r"log-00000002.seg, bytes \d+ to \d+: .*entry 9"):
        storage.open()
    assert disk.content(SECOND) == before


def test_damage_before_an_intact_batch_is_refused() -> None:
    """Damage in a segment that is followed by another one is never taken for a torn write."""
    disk = SimulatedDisk()
    storage = filled(disk)
    flip(disk, FIRST, HEADER_BYTES + 20)
    with pytest.raises(CorruptStorage, match=r"log-00000001.seg.*entries 1 to 9 "):
        storage.open()


@pytest.mark.parametrize("lost", [[FIRST], [SECOND], [FIRST, SECOND]])
def test_missing_segments_are_refused(lost: list[str]) -> None:
    """The start is refused if the first, the last or all segments are missing."""
    disk = SimulatedDisk()
    storage = filled(disk)
    for name in lost:
        disk.remove(name)
    with pytest.raises(CorruptStorage, match=r"missing|gone"):
        storage.open()


def test_a_missing_last_segment_is_noticed_after_a_power_cut() -> None:
    """The mark is flushed at a rotation, so no power cut hides that a segment was there."""
    for seed in range(10):
        disk = SimulatedDisk()
        storage = filled(disk, settled=False)
        disk.cut_power(Random(seed))
        disk.remove(SECOND)
        with pytest.raises(CorruptStorage, match="missing"):
            storage.open()


def test_a_segment_under_two_names_is_refused() -> None:
    """A file whose name is another spelling of a segment's number is refused."""
    disk = SimulatedDisk()
    storage = filled(disk)
    disk.set_content("log-2.seg", disk.content(SECOND))
    with pytest.raises(CorruptStorage, match="twice"):
        storage.open()


def test_meta_lost_or_unreadable() -> None:
    """Without ``meta``, or with both promises unreadable, the start is refused."""
    disk = SimulatedDisk()
    storage = filled(disk)
    disk.remove("meta")
    with pytest.raises(CorruptStorage, match="meta is gone"):
        storage.open()
    disk.set_content("meta", bytes(META_BYTES))
    with pytest.raises(CorruptStorage, match="neither copy"):
        storage.open()


def test_one_damaged_promise() -> None:
    """If one copy of a repeated promise is damaged the other is used, and the copy is repaired. If
    the newest promise was not repeated yet, its damage stops the start.
    """
    for slot in (0, SLOT_BYTES):
        disk = SimulatedDisk()
        storage = filled(disk)
        flip(disk, "meta", slot + 50)
        assert storage.open().hard_state == HardState(2, 3)
        settle(storage)
        storage.close()
        flip(disk, "meta", (SLOT_BYTES - slot) + 50)
        assert storage.open().hard_state == HardState(2, 3)
    disk = SimulatedDisk()
    storage = filled(disk, settled=False)
    newest = storage._meta._slot
    flip(disk, "meta", (1 - newest) * SLOT_BYTES + 50)
    assert storage.open().hard_state == HardState(2, 3)
    storage.close()
    flip(disk, "meta", (1 - newest) * SLOT_BYTES + 50)
    flip(disk, "meta", newest * SLOT_BYTES + 50)
    with pytest.raises(CorruptStorage, match="was durable and is gone"):
        storage.open()


def test_damaged_marks() -> None:
    """If one mark is damaged the older one is used. If both are, the log opens only without a torn
    tail, which could not be told from a loss.
    """
    disk = SimulatedDisk()
    storage = filled(disk)
    end = storage._log.position.offset
    flip(disk, "meta", 2 * SLOT_BYTES + 20)
    assert storage.open().log.last_index == 9
    storage.close()
    flip(disk, "meta", 2 * SLOT_BYTES + 20)
    flip(disk, "meta", 3 * SLOT_BYTES + 20)
    flip(disk, SECOND, end + 8)
    with pytest.raises(CorruptStorage):
        storage.open()
    flip(disk, SECOND, end + 8)
    assert storage.open().log.last_index == 9


def test_every_byte_of_meta() -> None:
    """With any wrong bit in ``meta`` the start finds all promises and entries, and leaves the log
    alone, or is refused.
    """
    for settled in (True, False):
        disk = SimulatedDisk()
        storage = filled(disk, settled=settled)
        content = disk.content("meta")
        names = {n: disk.content(n) for n in (FIRST, SECOND)}
        used = [i for i, byte in enumerate(content) if byte or i % SLOT_BYTES < 120]
        for offset in used:
            changed = bytearray(content)
            changed[offset] ^= 1 << offset % 8
            disk.set_content("meta", bytes(changed))
            try:
                loaded = storage.open()
            except StorageError:
                continue
            finally:
                storage.close()
            assert (loaded.hard_state, loaded.log.last_index) == (HardState(2, 3), 9)
            assert {n: disk.content(n) for n in names} == names


def test_files_say_what_the_scanner_says(tmp_path: Path) -> None:
    """On a real disk a sample of damaged bytes gets the verdict of the pure scanner."""
    path = tmp_path / "data"
    storage = on_disk(path=path)
    storage.open()
    for first in (1, 5, 9):
        storage.write([append(first, first + 3)])
    settle(storage)
    whole = [entry(index) for index in range(1, 13)]
    storage.close()
    original, meta = (path / FIRST).read_bytes(), (path / "meta").read_bytes()
    identity, mark = storage._meta.identity, storage._meta.mark
    for offset in range(0, storage._log.position.offset + 200, 37):
        damaged = bytearray(original)
        damaged[offset] ^= 0x10
        (path / FIRST).write_bytes(damaged)
        (path / "meta").write_bytes(meta)
        verdict = scan([Segment(FIRST, 1, bytes(damaged))], identity, mark)
        try:
            loaded = storage.open()
        except CorruptStorage:
            assert verdict.ending is Ending.CORRUPT
            assert (path / FIRST).read_bytes() == damaged
        else:
            assert loaded.log.last_index == verdict.log.last_index
            assert held(loaded) == whole[: loaded.log.last_index]
            torn = verdict.ending is Ending.TORN
            assert (path / FIRST).read_bytes() == (original if torn else damaged)
        finally:
            storage.close()


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    """Opening, refusing and closing leave no descriptor open."""
    path = tmp_path / "data"
    storage = on_disk(path=path)
    for _ in range(3):
        storage.open()
        assert open_below(path)
        settle(storage)
        storage.close()
    os.remove(path / FIRST)
    with pytest.raises(CorruptStorage):
        storage.open()
    assert not open_below(path)
