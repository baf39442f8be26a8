"""The contract of a storage, in memory and in files."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.disks import SimulatedDisk
from tests.memory import MemoryStorage
from twstock.errors import BrokenInvariant, DiskFull, StorageError, StorageUnavailable
from twstock.replication.messages import Entry, EntryKind, HardState, Persist
from twstock.replication.promises import META_BYTES, Owner
from twstock.replication.records import ENTRY_OVERHEAD_BYTES, HEADER_BYTES, decode_header
from twstock.replication.spares import Upkeep
from twstock.replication.storage import FileStorage, Loaded, Storage

OWNER = Owner("order", "test", 1, (1, 2, 3))
SEGMENT_BYTES = HEADER_BYTES + 2048
DATA = Path("/simulated/data")
FIRST = "log-00000001.seg"


def entry(index: int, term: int = 1, payload: bytes = b"buy") -> Entry:
    """Return a command."""
    return Entry(index, term, EntryKind.COMMAND, payload)


def append(first: int, last: int, term: int = 1, payload: bytes = b"buy") -> Persist:
    """Return a write of entries."""
    return Persist(last, None, tuple(entry(i, term, payload) for i in range(first, last + 1)))


def promise(term: int, vote: int = 0) -> Persist:
    """Return a write of a hard state."""
    return Persist(0, HardState(term, vote))


def on_disk(
    disk: SimulatedDisk | None = None,
    *,
    owner: Owner = OWNER,
    spares: int = 1,
    incarnation: int = 77,
    path: Path = DATA,
    window_bytes: int = 700,
) -> FileStorage:
    """Return a storage with small segments, and next to nothing in memory."""
    return FileStorage(
        path,
        owner,
        SEGMENT_BYTES,
        spares,
        lambda: incarnation,
        files=disk,
        window_bytes=window_bytes,
    )


def held(loaded: Loaded) -> list[Entry]:
    """Return every entry of a log, those in memory and those on disk."""
    return list(loaded.log.between(1, loaded.log.last_index))


def settle(storage: Storage) -> None:
    """Do all upkeep that waits for an idle disk."""
    for _ in range(20):
        if storage.settle() is not Upkeep.GOES_ON:
            return


@pytest.fixture(params=["memory", "simulated", "files"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """Each implementation of the contract in turn, with limited room."""
    made: Storage
    if request.param == "memory":
        made = MemoryStorage(incarnation=77, capacity_bytes=1 << 20, window_bytes=700)
    elif request.param == "simulated":
        made = on_disk(SimulatedDisk())
    else:
        made = on_disk(path=tmp_path / "data")
    yield made
    made.close()


# the contract


def test_a_new_storage_is_empty(storage: Storage) -> None:
    """Nothing is promised, there are no entries, the member is not formed, and the incarnation is
    the one drawn.
    """
    loaded = storage.open()
    assert loaded.hard_state == HardState()
    assert held(loaded) == []
    assert (loaded.incarnation, loaded.formed, dict(loaded.peers)) == (77, False, {})


def test_what_others_are_told_of_a_directory_does_not_tell_its_markers() -> None:
    """The incarnation is told to whoever asks, so segments carry another number, the origin.
    Otherwise a client could put into a payload what a start takes for a later write.
    """
    disk, numbers = SimulatedDisk(), iter((77, 88))
    storage = FileStorage(DATA, OWNER, SEGMENT_BYTES, 1, numbers.__next__, files=disk)
    assert storage.open().incarnation == 77
    header = decode_header(disk.content(FIRST))
    assert header is not None
    assert header.identity.origin == 88


def test_what_was_written_is_there_after_reopening(storage: Storage) -> None:
    """Hard state and entries of several gathered writes survive close and open, in order."""
    storage.open()
    storage.write([promise(1, 2), append(1, 3), append(4, 4), Persist(9, HardState(2, 3))])
    storage.write([append(5, 6, term=2)])
    storage.close()
    loaded = storage.open()
    assert loaded.hard_state == HardState(2, 3)
    assert held(loaded) == [*map(entry, range(1, 5)), entry(5, 2), entry(6, 2)]


def test_a_vote_in_the_same_term_is_kept(storage: Storage) -> None:
    """A vote is durable although the term does not change; otherwise a restarted member could vote
    twice.
    """
    storage.open()
    storage.write([promise(4)])
    storage.write([promise(4, 2)])
    storage.close()
    assert storage.open().hard_state == HardState(4, 2)


def test_a_lower_index_replaces_what_follows(storage: Storage) -> None:
    """An entry at or before the last index replaces everything from there on."""
    storage.open()
    storage.write([append(1, 9)])
    storage.write([append(4, 5, term=2), append(5, 6, term=3)])
    storage.close()
    expected = [*map(entry, range(1, 4)), entry(4, 2), entry(5, 3), entry(6, 3)]
    assert held(storage.open()) == expected


def test_formed_for_good(storage: Storage) -> None:
    """Forming keeps the incarnations of the peers, through later promises, too."""
    storage.open()
    storage.form({2: 22, 3: 2**63 - 1})
    storage.write([promise(5, 1)])
    storage.close()
    loaded = storage.open()
    assert (loaded.formed, dict(loaded.peers)) == (True, {2: 22, 3: 2**63 - 1})
    assert loaded.hard_state == HardState(5, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        [append(3, 3)],
        [append(0, 0)],
        [append(1, 2), append(4, 4)],
        [promise(1, 1)],
        [promise(2, 3)],
    ],
)
def test_what_no_replica_may_ask_for(storage: Storage, wrong: list[Persist]) -> None:
    """A gap, an index 0, a lower term or a second vote in a term is a broken invariant; nothing
    changes.
    """
    storage.open()
    storage.write([promise(2, 1), append(1, 1)])
    with pytest.raises(BrokenInvariant):
        storage.write(wrong)
    storage.write([promise(2, 1)])
    storage.close()
    loaded = storage.open()
    assert (loaded.hard_state, held(loaded)) == (HardState(2, 1), [entry(1)])


def test_writes_within_the_room_succeed(storage: Storage) -> None:
    """Three writes of a third of the room each succeed."""
    storage.open()
    settle(storage)
    for index in range(1, 4):
        room = storage.room_bytes()
        assert room > ENTRY_OVERHEAD_BYTES
        storage.write([append(index, index, payload=b"x" * (room // 3 - ENTRY_OVERHEAD_BYTES))])
        settle(storage)
    storage.close()
    assert storage.open().log.last_index == 3


def test_a_write_beyond_the_room_is_refused(tmp_path: Path) -> None:
    """DiskFull is raised and nothing changes, the hard state included; a smaller write, and a
    promise, are still possible.
    """
    for made in (MemoryStorage(77, 3000), on_disk(SimulatedDisk(META_BYTES + SEGMENT_BYTES + 9))):
        made.open()
        made.write([append(1, 2)])
        room = made.room_bytes()
        with pytest.raises(DiskFull):
            made.write([promise(3, 1), append(3, 3, payload=b"x" * (room + 1))])
        assert made.room_bytes() == room
        made.write([append(3, 3, payload=b"x" * (room - ENTRY_OVERHEAD_BYTES))])
        with pytest.raises(DiskFull):
            made.write([append(4, 4, payload=b"x" * 200)])
        made.write([promise(3, 2)])
        made.close()
        loaded = made.open()
        assert (loaded.hard_state, loaded.log.last_index) == (HardState(3, 2), 3)


writes = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 6), st.integers(0, 3), st.integers(0, 700)),
        st.tuples(st.just("reopen")),
        st.tuples(st.just("settle")),
    ),
    max_size=25,
)


@given(writes)
@settings(max_examples=80, deadline=None, database=None)
def test_like_a_plain_list(steps: list[tuple[object, ...]]) -> None:
    """Any writes with conflicts, over any number of segments, reopened anywhere, leave what a plain
    list would have.
    """
    disk = SimulatedDisk()
    storage, model, term = on_disk(disk), list[Entry](), 0
    storage.open()
    for step in steps:
        if step[0] == "reopen":
            storage.close()
            assert held(storage.open()) == model
        elif step[0] == "settle":
            settle(storage)
        else:
            _, count, back, size = step
            term += 1
            first = max(1, len(model) + 1 - int(str(back)))
            new = [entry(first + i, term, b"p" * int(str(size))) for i in range(int(str(count)))]
            storage.write([Persist(term, HardState(term), tuple(new))])
            model[first - 1 :] = new
    storage.close()
    loaded = storage.open()
    assert (held(loaded), loaded.hard_state) == (model, HardState(term))


# files


def test_rights_and_sizes(tmp_path: Path) -> None:
    """Only the owner can read the directory, and files are filled to their full size at once."""
    path = tmp_path / "deep" / "data"
    storage = on_disk(path=path)
    storage.open()
    settle(storage)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    sizes = {file.name: file.stat().st_size for file in path.iterdir()}
    assert sizes == {
        "lock": 0,
        "meta": META_BYTES,
        FIRST: SEGMENT_BYTES,
        "spare-2": SEGMENT_BYTES,
    }
    for file in path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.stat().st_blocks * 512 >= sizes[file.name]
    storage.close()


def test_calls_of_a_write() -> None:
    """A write is one pwrite and one fdatasync, then a pwrite for the mark. Promises, however many,
    are one pwrite and one fdatasync before it.
    """
    disk = SimulatedDisk()
    storage = on_disk(disk)
    storage.open()
    storage.write([promise(1)])
    disk.log.clear()
    storage.write([append(1, 5), append(6, 8)])
    assert disk.log == ["pwrite", "fdatasync", "pwrite"]
    disk.log.clear()
    storage.write([append(9, 9), promise(2), promise(3)])
    assert disk.log == ["pwrite", "fdatasync", "pwrite", "fdatasync", "pwrite"]


def test_rotation_and_spares() -> None:
    """A full segment is followed by a spare, a large batch fits into a segment, and idle moments
    make new spares.
    """
    disk = SimulatedDisk()
    storage = on_disk(disk, spares=2)
    storage.open()
    settle(storage)
    model = []
    for index in range(1, 40):
        payload = bytes([index]) * (5000 if index == 20 else 300)
        model.append(entry(index, 1, payload))
        storage.write([Persist(index, None, (model[-1],))])
        if index % 9 == 0:
            settle(storage)
    names = [name for name in disk.names(DATA) if name.startswith("log-")]
    assert len(names) > 5
    storage.close()
    assert held(storage.open()) == model
    settle(storage)
    assert sum(name.startswith("spare-") for name in disk.names(DATA)) == 2


def test_constant_load_never_runs_out_of_spares(tmp_path: Path) -> None:
    """Without an idle moment the next segment is ready before it is needed, so the room never runs
    out.
    """
    storage = FileStorage(tmp_path / "data", OWNER, 3 << 20, 1, lambda: 77)
    storage.open()
    rooms, segments = [], set()
    for index in range(1, 150):
        storage.write([append(index, index, payload=b"x" * 100_000)])
        rooms.append(storage.room_bytes())
        segments.add(storage._log.position.segment)
    storage.close()
    assert len(segments) > 4
    assert min(rooms[30:]) > 1 << 19
    assert storage.open().log.last_index == 149
    storage.close()


def test_spares_are_adopted_at_a_restart() -> None:
    """A restart on a full disk keeps the spare, and so the room, that there was. It removes spares
    that are unfinished or not all zeros.
    """
    disk = SimulatedDisk()
    storage = on_disk(disk)
    storage.open()
    settle(storage)
    storage.close()
    disk.capacity = 0
    disk.set_content("spare-9.tmp", b"")
    disk.set_content("spare-8", b"\0" * (SEGMENT_BYTES - 1) + b"1")
    disk.set_content("spare-x", bytes(SEGMENT_BYTES))
    storage.open()
    assert storage.room_bytes() >= SEGMENT_BYTES - HEADER_BYTES - 64
    assert sorted(disk.names(DATA)) == ["lock", FIRST, "meta", "spare-2"]


def test_a_new_spare_takes_no_adopted_ones_name() -> None:
    """Numbers of spares count as numbers, though the name of the tenth sorts before that of the
    ninth.
    """
    disk = SimulatedDisk()
    storage = on_disk(disk, spares=4)
    storage.open()
    storage.close()
    for number in (9, 10):
        disk.set_content(f"spare-{number}", bytes(SEGMENT_BYTES))
    storage.open()
    settle(storage)
    spares = {f"spare-{number}" for number in (9, 10, 11, 12)}
    assert spares <= set(disk.names(DATA))
    for first in range(1, 26, 5):
        storage.write([append(first, first + 4, payload=b"x" * 300)])
    storage.close()
    assert storage.open().log.last_index == 25


def test_a_full_disk_clears_by_itself() -> None:
    """Without space upkeep says so, promises are still written and entries refused. As soon as
    there is space, upkeep makes room.
    """
    disk = SimulatedDisk()
    storage = on_disk(disk)
    storage.open()
    settle(storage)
    disk.capacity = META_BYTES + 2 * SEGMENT_BYTES + 100
    index = 1
    while storage.room_bytes() >= 400:
        storage.write([append(index, index, payload=b"x" * 300)])
        index += 1
    with pytest.raises(DiskFull):
        storage.write([append(index, index, payload=b"x" * 400)])
    assert storage.settle() is Upkeep.NO_SPACE
    assert storage.room_bytes() < 400
    storage.write([promise(7)])
    disk.capacity *= 2
    settle(storage)
    assert storage.room_bytes() > 1500
    storage.write([append(index, index, payload=b"x" * 300)])
    storage.close()
    assert storage.open().log.last_index == index


def test_a_new_log_needs_room() -> None:
    """Without space for the first files opening fails in words, and succeeds as soon as there is
    space.
    """
    for capacity in (100, META_BYTES + 100):
        disk = SimulatedDisk(capacity)
        storage = on_disk(disk)
        with pytest.raises(StorageUnavailable, match="has no room for a new log"):
            storage.open()
        disk.capacity = 1 << 30
        assert held(storage.open()) == []


def test_second_process_is_refused(tmp_path: Path) -> None:
    """Two processes, or two storages of one process, never share a directory. A later try succeeds
    when the first has closed.
    """
    path = tmp_path / "data"
    storage = on_disk(path=path)
    storage.open()
    with pytest.raises(StorageUnavailable, match="in use"):
        on_disk(path=path).open()
    program = (
        "import sys; from tests.test_storage import on_disk; from pathlib import Path\n"
        "on_disk(path=Path(sys.argv[1])).open()"
    )
    command = [sys.executable, "-c", program, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "in use by another process" in run.stderr
    storage.close()
    assert subprocess.run(command, check=False, timeout=60).returncode == 0


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    """A file in the place of the directory is refused in words."""
    (tmp_path / "data").write_text("")
    with pytest.raises(StorageError, match="cannot be used"):
        on_disk(path=tmp_path / "data").open()


@pytest.mark.parametrize("name", ["lock", "meta", "log-00000001.seg"])
def test_a_file_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    """A directory in place of a file is refused in words, which name it, and is left alone."""
    storage = on_disk(path=tmp_path)
    storage.open()
    storage.close()
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(StorageError, match=f"cannot be used: .*/{name}: Is a directory"):
        on_disk(path=tmp_path).open()
    assert (tmp_path / name).is_dir()


def test_a_file_of_somebody_else_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that may not be opened, since root copied it there, say, is refused in words, which
    name it.
    """
    storage = on_disk(path=tmp_path)
    storage.open()
    storage.close()
    system_open = os.open

    def opened(path: Path, *arguments: int) -> int:
        if path == tmp_path / "meta":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return system_open(path, *arguments)

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(StorageError, match=r"cannot be used: .*/meta: Permission denied"):
        on_disk(path=tmp_path).open()


def test_a_closed_storage_takes_nothing() -> None:
    """After close every write, upkeep or forming is a broken invariant."""
    storage = on_disk(SimulatedDisk())
    storage.open()
    storage.close()
    for call in (lambda: storage.write([promise(1)]), storage.settle, lambda: storage.form({})):
        with pytest.raises(BrokenInvariant):
            call()
