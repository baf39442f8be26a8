"""Reading entries back from the segments, while others are written and when they are damaged."""

import re
from contextlib import suppress
from pathlib import Path
from random import Random
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.disks import SimulatedDisk, open_below
from tests.members import Group
from tests.test_storage import DATA, OWNER, append, entry, held, on_disk, settle
from twstock.errors import BrokenInvariant, CorruptStorage
from twstock.replication.disk import segment_name
from twstock.replication.messages import Entry, EntryKind, HardState, Persist
from twstock.replication.places import Places
from twstock.replication.records import HEADER_BYTES, SPACING_BYTES, Place, places_of
from twstock.replication.storage import FileStorage


def test_entries_of_any_size_are_found(tmp_path: Path) -> None:
    """In long and short batches, tiny entries and some larger than one read, before and after a
    restart. The places that are kept are neither too far apart nor too many.
    """
    random = Random(3)
    storage = FileStorage(tmp_path / "data", OWNER, 1 << 20, 1, lambda: 77)
    log, model = storage.open().log, list[Entry]()
    for term in range(1, 60):
        for _ in range(random.choice((1, 3, 400))):
            size = random.choice((0, 1, 7, 150, 9_600))
            model.append(entry(len(model) + 1, term, random.randbytes(size)))
        if term % 20 == 0:
            model.append(entry(len(model) + 1, term, random.randbytes(3 * SPACING_BYTES)))
        storage.write([Persist(term, HardState(term), tuple(model[storage._log.position[2] :]))])
    places = storage._log._places
    for _ in range(2):
        log.found(runs(places), len(model))
        assert list(log.between(1, len(model))) == model
        for _ in range(200):
            first, last = sorted(random.sample(range(1, len(model) + 1), 2))
            assert log.slice(first, last - first + 1, 10_000) == bounded(model, first, last)
        storage.close()
        log = storage.open().log
        places = storage._log._places
    gaps = [b - a for a, b in zip(places._offsets, places._offsets[1:], strict=False)]
    assert max(gaps) < SPACING_BYTES + 3 * SPACING_BYTES + 100
    assert len(gaps) < 59 + 3 * storage._log.position.segment + sum(map(len, payloads(model))) / (
        SPACING_BYTES / 2
    )
    storage.close()


def payloads(entries: list[Entry]) -> list[bytes]:
    """What the entries hold."""
    return [entry.payload for entry in entries]


def runs(places: Places) -> list[tuple[int, int]]:
    """First indices and terms."""
    return list(zip(places._firsts, places._terms, strict=True))


def bounded(model: list[Entry], first: int, last: int) -> tuple[Entry, ...]:
    """What a slice of at most 10,000 bytes is."""
    found, room = [], 10_000
    for candidate in model[first - 1 : last]:
        room -= len(candidate.payload)
        if room < 0 and found:
            break
        found.append(candidate)
    return tuple(found)


batches = st.lists(
    st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(0, 3), st.booleans()), max_size=30
)


@given(batches)
@settings(max_examples=150, deadline=None, database=None)
def test_places_are_those_of_the_last_writes(steps: list[tuple[int, int, int, bool]]) -> None:
    """Whatever is replaced, within a batch, a segment or over several, an index leads to the run in
    which it was written last. Places can also be taken from seals, segment by segment.
    """
    places, copy, where = Places(), Places(), list[tuple[int, int, int]]()
    segment, offset, term = 1, HEADER_BYTES, 1
    for back, count, newer, rotate in steps:
        if rotate:
            copy.add(segment, places.of(segment), offset, len(where))
            segment, offset = segment + 1, HEADER_BYTES
        term += newer
        first = max(1, len(where) + 1 - back)
        batch = [entry(first + i, term, b"x" * 25_000) for i in range(count)]
        if newer and count > 2:
            term += 1
            batch += [entry(first + 1, term, b"x")]
        size = 0
        for item in batch:
            where[item.index - 1 :] = [(segment, offset + size, item.term)]
            size += (32 + len(item.payload) + 7) & -8
        places.add(segment, places_of(batch, offset, size), offset + size, len(where))
        offset += size + 64
    copy.add(segment, places.of(segment), offset, len(where))
    assert runs(copy) == runs(places)
    assert places.find(len(where) + 1) is None
    assert places.find(0) is None
    for index, (held_in, at, its_term) in enumerate(where, 1):
        run = places.find(index)
        assert run is not None
        assert (run.segment, run.place.term) == (held_in, its_term)
        assert run.place.first <= index
        assert run.place.offset <= at
        between = range(run.place.first, index)
        assert all(where[i - 1][0] == held_in and where[i - 1][1] < at for i in between)
        assert run.stop == 0 or run.stop > index


def test_a_place_where_a_run_goes_on_is_left_out() -> None:
    """A batch that continues a run adds a place only when the run has become long."""
    places, offset = Places(), HEADER_BYTES
    for index in range(1, 2001):
        places.add(1, [Place(index, offset, 1)], offset + 200, index)
        offset += 264
    assert 8 <= len(places.of(1)) <= 10


def test_damage_is_noticed_when_an_entry_is_read_back() -> None:
    """One wrong bit in the entry raises an error with the file and the byte. It never yields
    another entry.
    """
    disk = SimulatedDisk()
    storage = on_disk(disk)
    storage.open()
    settle(storage)
    for index in range(1, 12):
        storage.write([append(index, index, payload=bytes([index]) * 290)])
    storage.close()
    log = storage.open().log
    whole = disk.content(segment_name(1))
    right = log.entry(3)
    start = whole.index(right.payload) - 32
    end, padding = start + 32 + 290, -290 % 8
    where = re.escape(f"{DATA / segment_name(1)}, byte ")
    for offset in range(HEADER_BYTES, end + padding):
        content = bytearray(whole)
        content[offset] ^= 1 << offset % 8
        disk._shown[segment_name(1)].cached = content
        if start <= offset < end:
            with pytest.raises(CorruptStorage, match=where):
                log.entry(3)
        else:
            with suppress(CorruptStorage):  # it is not found if a length before it is wrong
                assert log.entry(3) == right


def test_a_segment_that_ends_early_is_noticed() -> None:
    """A file that was cut short raises, and so does an index that was never written."""
    disk = SimulatedDisk()
    storage = on_disk(disk)
    storage.open()
    for index in range(1, 12):
        storage.write([append(index, index, payload=bytes([index]) * 290)])
    storage.close()
    log = storage.open().log
    archive = log._older
    assert archive is not None
    with pytest.raises(BrokenInvariant):
        archive.read(12, 12, 100)
    node = disk._shown[segment_name(1)]
    for size in (0, HEADER_BYTES, HEADER_BYTES + 10, HEADER_BYTES + 100):
        node.cached = bytearray(disk.content(segment_name(1))[:size])
        with pytest.raises(CorruptStorage):
            archive.read(1, 1, 100)


def test_reading_while_another_thread_writes(tmp_path: Path) -> None:
    """What is durable and settled is read back correctly while another thread writes batches,
    replaces later entries and begins segments.
    """
    storage = FileStorage(tmp_path / "data", OWNER, 1 << 16, 1, lambda: 77)
    older = storage.open().log._older
    assert older is not None
    durable = [0]
    problems: list[BaseException] = []

    def payload(index: int) -> bytes:
        return index.to_bytes(8, "little") * 9

    def write() -> None:
        try:
            last = 0
            for term in range(1, 700):
                first = last + 1
                extra = tuple(
                    Entry(first + i, term, EntryKind.COMMAND, b"replaced" * 9) for i in range(4)
                )
                new = tuple(
                    Entry(first + i, term, EntryKind.COMMAND, payload(first + i)) for i in range(9)
                )
                storage.write([Persist(term, HardState(term), extra)])
                storage.write([Persist(term, None, new)])
                last += 9
                durable[0] = last
        except BaseException as problem:
            problems.append(problem)
        finally:
            durable.append(0)

    thread = Thread(target=write)
    thread.start()
    random, reads = Random(1), 0
    while not problems and (len(durable) == 1 or reads <= 100):
        if last := durable[0]:
            first = random.randint(1, last)
            for found in older.read(first, min(last, first + 30), 1500):
                assert found.payload == payload(found.index)
                reads += 1
    thread.join()
    assert problems == []
    storage.close()
    assert storage.open().log.last_index == 699 * 9
    storage.close()


def test_reading_leaves_no_descriptor_open(tmp_path: Path) -> None:
    """The file is closed again, also when reading fails."""
    storage = on_disk(path=tmp_path / "data")
    storage.open()
    for index in range(1, 12):
        storage.write([append(index, index, payload=b"x" * 290)])
    storage.close()
    loaded = storage.open()
    before = open_below(tmp_path)
    assert before
    assert len(held(loaded)) == 11
    (tmp_path / "data" / segment_name(1)).write_bytes(b"")
    with pytest.raises(CorruptStorage):
        loaded.log.entry(1)
    assert open_below(tmp_path) == before
    storage.close()


def test_damage_that_is_read_back_ends_the_process(tmp_path: Path) -> None:
    """An entry that is not as it was written is never sent, to a follower or to whoever pulls
    entries: the member panics.
    """
    group = Group(tmp_path)
    group.start()
    group.run_until(lambda: bool(group.leader))
    group.kill(1)
    for _ in range(3):
        group.member(3).propose(b"buy")
    group.run(1.0)
    entries = group.storages[3]._entries
    entries[2] = Entry(3, 9, EntryKind.COMMAND, b"wrong")
    group.start(1)
    group.run(2.0)
    assert any(number == 3 and f.check(BrokenInvariant) for number, f in group.panics)
    assert b"wrong" not in group.member(1).machine.words
