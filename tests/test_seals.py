"""Seals of finished segments: they save a scan at the start, and change nothing else."""

import errno
from collections.abc import Iterator
from random import Random

import pytest

from tests.disks import PowerCut, SimulatedDisk
from tests.test_storage import DATA, FIRST, SEGMENT_BYTES, append, entry, held, on_disk, settle
from twstock.errors import CorruptStorage
from twstock.replication.disk import seal_name, segment_name
from twstock.replication.messages import Entry, HardState, Persist
from twstock.replication.records import (
    HEADER_BYTES,
    Identity,
    Place,
    Position,
    SegmentHeader,
)
from twstock.replication.seals import Seal, decode_seal, encode_seal
from twstock.replication.storage import FileStorage

IDENTITY = Identity(b"c" * 16, 2, 77)
SEAL = Seal(IDENTITY, Position(3, 9000, 40, b"h" * 16), 123456, [Place(30, 4096, 2)])
HEADER = SegmentHeader(IDENTITY, 3, 8888, 29, b"g" * 16)
FOLLOWING = SegmentHeader.after(IDENTITY, SEAL.end)
LAST = 24


def filled(disk: SimulatedDisk) -> FileStorage:
    """Return a closed storage of four or more segments; entries were replaced across a boundary."""
    storage = on_disk(disk)
    storage.open()
    settle(storage)
    for index in range(1, LAST + 1, 2):
        payload = bytes([index]) * 290
        storage.write([append(index, index + 1, term=1 + index // 9, payload=payload)])
        if index == 15:
            replaced = [entry(i, 2, b"replaced") for i in range(10, 15)]
            storage.write([Persist(1, HardState(5), tuple(replaced)), append(15, 16, term=2)])
        settle(storage)
    storage.close()
    assert sum(name.endswith(".seg") for name in disk.names(DATA)) >= 4
    return storage


def seals(disk: SimulatedDisk) -> dict[str, bytes]:
    """The seals that a directory holds."""
    names = (name for name in disk.names(DATA) if name.endswith(".seal"))
    return {name: disk.content(name) for name in sorted(names)}


def flipped(content: bytes, offset: int, bit: int) -> bytes:
    """Return ``content`` with one bit flipped."""
    return content[:offset] + bytes([content[offset] ^ 1 << bit]) + content[offset + 1 :]


def reads_of(disk: SimulatedDisk, storage: FileStorage) -> int:
    """Open and close; return how many segments were read whole, for a scan."""
    reads: list[int] = []
    real = disk.pread

    def pread(fd: int, size: int, offset: int) -> bytes:
        segments = [node for name, node in disk._shown.items() if name.endswith(".seg")]
        if size == SEGMENT_BYTES and disk._fds[fd] in segments:
            reads.append(fd)
        return real(fd, size, offset)

    disk.pread = pread  # type: ignore[method-assign]
    storage.open()
    storage.close()
    disk.pread = real  # type: ignore[method-assign]
    return len(reads)


# the bytes of a seal


def test_what_is_sealed_is_read_back() -> None:
    """A seal is read back as it was written; one with a wrong bit, cut or longer, and zeros, are
    not taken for a seal.
    """
    content = encode_seal(SEAL)
    assert decode_seal(content) == SEAL
    assert decode_seal(encode_seal(Seal(IDENTITY, SEAL.end, 0, []))) is not None
    for offset in range(len(content)):
        for bit in range(8):
            assert decode_seal(flipped(content, offset, bit)) is None
        assert decode_seal(content[:offset]) is None
    assert decode_seal(content + b"\0") is None
    assert decode_seal(bytes(200)) is None


@pytest.mark.parametrize(
    ("header", "following", "mark", "believed"),
    [
        (HEADER, FOLLOWING, None, True),
        (HEADER, FOLLOWING, Position(4, 5000, 41, b"x" * 16), True),
        (HEADER, FOLLOWING, Position(2, 5000, 20, b"x" * 16), True),
        (HEADER, FOLLOWING, SEAL.end, True),
        (HEADER, FOLLOWING, Position(3, 8000, 39, b"x" * 16), False),
        (HEADER, FOLLOWING, SEAL.end._replace(chain=b"x" * 16), False),
        (None, FOLLOWING, None, False),
        (HEADER, None, None, False),
        (SegmentHeader(IDENTITY, 4, 8888, 29, b"g" * 16), FOLLOWING, None, False),
        (SegmentHeader(Identity(b"c" * 16, 2, 78), 3, 0, 1, b"g" * 16), FOLLOWING, None, False),
        (HEADER, SegmentHeader.after(IDENTITY, SEAL.end._replace(offset=9064)), None, False),
        (HEADER, SegmentHeader.after(IDENTITY, SEAL.end._replace(last_index=41)), None, False),
        (HEADER, SegmentHeader.after(IDENTITY, SEAL.end._replace(chain=b"x" * 16)), None, False),
        (HEADER, SegmentHeader.after(Identity(b"x" * 16, 2, 77), SEAL.end), None, False),
    ],
)
def test_when_a_seal_is_believed(
    header: SegmentHeader | None,
    following: SegmentHeader | None,
    mark: Position | None,
    believed: bool,
) -> None:
    """A seal is believed only if it is of this very segment, the next segment's header gives the
    same end, and the mark is not inside.
    """
    assert SEAL.vouches(header, following, mark) is believed


# seals in a directory


def test_a_seal_saves_the_scan() -> None:
    """With seals only the last segment is read whole; without them all are, and are sealed
    again.
    """
    disk = SimulatedDisk()
    storage = filled(disk)
    count = len(seals(disk))
    assert count >= 3
    assert reads_of(disk, storage) == 1
    for name in seals(disk):
        disk.remove(name)
    assert reads_of(disk, storage) == 1 + count
    assert reads_of(disk, storage) == 1


def test_an_old_directory_opens_and_is_sealed() -> None:
    """A directory without seals opens with the same entries, and a start makes the very seals that
    writing made.
    """
    disk = SimulatedDisk()
    storage = filled(disk)
    written, entries = seals(disk), held(storage.open())
    storage.close()
    for name in written:
        disk.remove(name)
    assert held(storage.open()) == entries
    assert seals(disk) == written
    storage.close()
    assert held(storage.open()) == entries


def test_every_byte_of_a_sealed_segment() -> None:
    """A damaged sealed segment gets the same verdict as without its seal."""
    disk = SimulatedDisk()
    storage = filled(disk)
    written, entries = seals(disk), held(storage.open())
    storage.close()
    whole, meta = disk.content(segment_name(2)), disk.content("meta")
    spots = [*range(0, 110), *range(HEADER_BYTES - 9, SEGMENT_BYTES, 3)]
    for offset in spots:
        found: list[object] = []
        for sealed in (True, False):
            disk.set_content("meta", meta)
            disk.set_content(segment_name(2), flipped(whole, offset, offset % 8))
            for name, content in written.items():
                disk.set_content(name, content)
                if not sealed:
                    disk.remove(name)
            try:
                found.append(held(storage.open()))
            except CorruptStorage as problem:
                found.append(str(problem))
            storage.close()
        assert found[0] == found[1]
        assert found[0] == entries or "log-0000000" in str(found[0])


def test_every_byte_of_a_seal() -> None:
    """A damaged seal is not believed: the entries are found by a scan, and the seal is made
    anew.
    """
    disk = SimulatedDisk()
    storage = filled(disk)
    written, entries = seals(disk), held(storage.open())
    storage.close()
    name = seal_name(2)
    for offset in range(len(written[name])):
        disk.set_content(name, flipped(written[name], offset, offset % 8))
        assert held(storage.open()) == entries
        storage.close()
        assert seals(disk) == written


@pytest.mark.parametrize("change", ["swapped", "empty", "unreadable", "foreign"])
def test_seals_that_do_not_belong(change: str) -> None:
    """A seal under another's name, of another directory, empty or unreadable is not believed: all
    entries are found without it.
    """
    disk = SimulatedDisk()
    storage = filled(disk)
    written, entries = seals(disk), held(storage.open())
    storage.close()
    if change == "foreign":
        other = SimulatedDisk()
        on_disk(other, incarnation=78).open()
        foreign = decode_seal(written[seal_name(2)])
        assert foreign is not None
        origin = Identity(foreign.identity.cluster, 1, 78)
        wrong = Seal(origin, foreign.end, foreign.checksum, foreign.places)
        disk.set_content(seal_name(2), encode_seal(wrong))
    elif change == "swapped":
        disk.set_content(seal_name(1), written[seal_name(2)])
        disk.set_content(seal_name(2), written[seal_name(1)])
    elif change == "empty":
        disk.set_content(seal_name(2), b"")
    else:
        real = disk.open

        def broken(path: object, flags: int) -> int:
            if str(path).endswith(".seal"):
                raise OSError(errno.EIO, "a bad sector")
            return real(path, flags)  # type: ignore[arg-type]

        disk.open = broken  # type: ignore[method-assign]
        assert held(storage.open()) == entries
        return
    assert held(storage.open()) == entries
    assert seals(disk) == written


def test_a_seal_older_than_the_last_batch_is_not_believed() -> None:
    """A good seal of only the first part of a segment hides nothing of the rest, and is
    replaced.
    """
    disk = SimulatedDisk()
    storage = on_disk(disk)
    storage.open()
    settle(storage)
    storage.write([append(1, 2, payload=b"x" * 290)])
    log = storage._log
    early = Seal(log._identity, log.position, log._checksum, log._places.of(1))
    for index in range(3, 12):
        storage.write([append(index, index, payload=b"x" * 290)])
    storage.close()
    disk.set_content(seal_name(1), encode_seal(early))
    assert storage.open().log.last_index == 11
    assert disk.content(seal_name(1)) != encode_seal(early)


def test_a_wrong_mark_inside_a_sealed_segment_is_still_noticed() -> None:
    """If the mark is inside a sealed segment, that segment is scanned all the same; a mark at which
    no batch ends is refused.
    """
    disk = SimulatedDisk()
    storage = on_disk(disk)
    storage.open()
    settle(storage)
    storage.write([append(1, 2, payload=b"x" * 290)])
    inside = storage._log.position
    for index in range(3, 12):
        storage.write([append(index, index, payload=b"x" * 290)])
    assert seal_name(1) in seals(disk)
    for mark in (inside, inside._replace(offset=inside.offset + 8)):
        storage._meta.note(mark)
        storage._meta.note(mark)
        storage.close()
        if mark == inside:
            assert storage.open().log.last_index == 11
        else:
            with pytest.raises(CorruptStorage, match="no write ends"):
                storage.open()


def test_a_full_disk_writes_no_seal_and_refuses_nothing() -> None:
    """Without space for a seal writes and starts succeed, and a later start with space makes it."""
    disk = SimulatedDisk()
    storage = on_disk(disk, spares=2)
    storage.open()
    settle(storage)
    disk.capacity = sum(len(disk.content(name)) for name in disk.names(DATA)) + 20
    for index in range(1, 12):
        storage.write([append(index, index, payload=b"x" * 290)])
    assert seals(disk) == {}
    assert not any(name.endswith(".tmp") for name in disk.names(DATA))
    storage.close()
    assert storage.open().log.last_index == 11
    assert seals(disk) == {}
    disk.capacity *= 2
    storage.close()
    assert storage.open().log.last_index == 11
    assert seal_name(1) in seals(disk)


# crashes


def crashes_while_sealing(power: bool) -> Iterator[tuple[SimulatedDisk, list[Entry]]]:
    """Crash at each system call of a write that begins the second segment, and of a start that
    makes a seal; yields the disk and the entries that must be found.
    """
    for starting in (False, True):
        for turn in range(1, 60):
            disk = SimulatedDisk()
            storage = on_disk(disk)
            storage.open()
            settle(storage)
            for index in range(1, 6):
                storage.write([append(index, index, payload=b"x" * 290)])
            settle(storage)
            if starting:
                storage.write([append(6, 6, payload=b"x" * 290)])
                storage.close()
                disk.remove(seal_name(1))
            disk.fail_at, disk.failure = disk.calls + turn, "power"
            try:
                if starting:
                    storage.open()
                else:
                    storage.write([append(6, 6, payload=b"x" * 290)])
            except PowerCut:
                if power:
                    disk.cut_power(Random(turn))
                else:
                    disk.kill()
                yield disk, [entry(i, 1, b"x" * 290) for i in range(1, 7 if starting else 6)]
            else:
                assert turn > 8
                break


@pytest.mark.parametrize("power", [False, True])
def test_a_crash_while_sealing(power: bool) -> None:
    """After a crash between any two calls of a rotation, or of a start that seals, nothing is lost,
    nothing is refused, no unfinished file is left, and the segment is sealed in the end.
    """
    for disk, least in crashes_while_sealing(power):
        storage = on_disk(disk)
        entries = held(storage.open())
        assert entries[: len(least)] == least
        assert len(entries) <= 6
        assert not any(name.endswith(".tmp") for name in disk.names(DATA))
        if segment_name(2) in disk.names(DATA):
            assert seal_name(1) in seals(disk)
            storage.close()
            assert reads_of(disk, storage) == 1
        else:
            assert FIRST in disk.names(DATA)
            assert seals(disk) == {}
