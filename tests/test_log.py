"""The log of a replica: it behaves like a plain list, with little of it in memory."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bench import CALM, START, accept, append, appends, lead
from tests.memory import ListedEntries
from tests.simulation import TIMINGS
from twstock.errors import BrokenInvariant
from twstock.replication.log import ENTRY_MEMORY_BYTES, Log
from twstock.replication.messages import (
    Entry,
    EntryKind,
    HardState,
    Membership,
)
from twstock.replication.replica import Replica


def entry(index: int, term: int = 1, payload: bytes = b"buy") -> Entry:
    """Return a command."""
    return Entry(index, term, EntryKind.COMMAND, payload)


def on_disk(entries: Sequence[Entry], window_bytes: int = 0) -> Log:
    """Return the log that a start finds, with a reader of ``entries``, which may go on."""
    log = Log((), ListedEntries(entries), window_bytes)
    assert log.found([(e.index, e.term) for e in entries], len(entries)) is None
    return log


class PlainList:
    """What a log is compared with: a list of all entries."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def term_at(self, index: int) -> int:
        """The term of an entry."""
        return self.entries[index - 1].term if index else 0

    def slice(self, first: int, entries_max: int, bytes_max: int) -> tuple[Entry, ...]:
        """As many as fit."""
        batch = self.entries[first - 1 : first - 1 + entries_max]
        for count in range(2, len(batch) + 1):
            if sum(len(entry.payload) for entry in batch[:count]) > bytes_max:
                return tuple(batch[: count - 1])
        return tuple(batch)

    def hint(self, index: int, term: int, settled: int) -> int:
        """One index after the other."""
        last = min(index - 1, len(self.entries))
        while last > settled and self.term_at(last) > term:
            last -= 1
        return max(last, 0)


def compare(log: Log, plain: PlainList, random: Random) -> None:
    """Ask both for everything that a replica asks for."""
    size = len(plain.entries)
    assert (log.last_index, log.last_term) == (size, plain.term_at(size))
    for index in range(size + 1):
        term = plain.term_at(index)
        assert log.term_at(index) == term
        assert log.matches(index, term)
        assert not log.matches(index, term + 1)
        assert index == 0 or log.entry(index) == plain.entries[index - 1]
    assert not log.matches(size + 1, plain.term_at(size))
    first, last = random.randint(1, size + 2), random.randint(0, size)
    assert log.between(first, last) == tuple(plain.entries[first - 1 : last])
    limits = random.randint(1, 9), random.randint(0, 60)
    assert log.slice(first, *limits) == plain.slice(first, *limits)
    where = random.randint(0, size + 3), random.randint(0, 9), random.randint(0, size)
    assert log.hint(*where) == plain.hint(*where)


@given(st.integers(0, 2**32), st.sampled_from((0, 200, 900, 1 << 20)))
@settings(max_examples=150, deadline=None, database=None)
def test_like_a_plain_list(seed: int, window_bytes: int) -> None:
    """Whatever is added, replaced, written, handed out and restarted, all answers are those
    of a list; what is neither durable nor handed out is never asked of the disk.
    """
    random, plain, disk = Random(seed), PlainList(), list[Entry]()
    writes: list[list[Entry]] = []  # not done yet
    log, settled, term = on_disk(disk, window_bytes), 0, 1
    for _ in range(30):
        step, size = random.random(), len(plain.entries)
        if step < 0.4:
            payloads = [bytes(random.randrange(30)) for _ in range(random.randint(1, 5))]
            log.extend(term, EntryKind.COMMAND, payloads)
            writes.append([entry(i, term, p) for i, p in enumerate(payloads, size + 1)])
            plain.entries += writes[-1]
        elif step < 0.55:
            term += random.randint(0, 2)
            first = random.randint(settled + 1, size + 1)
            new = [entry(first + i, term, b"new") for i in range(random.randint(1, 4))]
            if merged := log.merge(new, settled):
                writes.append(list(merged))
                plain.entries[merged[0].index - 1 :] = merged
        elif step < 0.8:
            for _ in range(random.randint(0, len(writes))):
                done = writes.pop(0)
                disk[done[0].index - 1 :] = done
            pairs = zip(disk, plain.entries, strict=False)
            durable = next((i for i, (a, b) in enumerate(pairs) if a != b), len(disk))
            settled = random.randint(settled, min(durable, size))
            log.forget(settled)
        elif step < 0.9:
            for done in writes:
                disk[done[0].index - 1 :] = done
            writes.clear()
            log = on_disk(disk, window_bytes)
        compare(log, plain, random)


def test_the_window_is_bounded_and_holds_what_is_not_settled() -> None:
    """Beyond its bytes the window loses the oldest settled entries, never any other."""
    entries = [entry(index, 1, bytes(100)) for index in range(1, 101)]
    log = Log(entries, ListedEntries(entries), 20 * (100 + ENTRY_MEMORY_BYTES))
    log.forget(10)
    assert log.holds(11)
    assert not log.holds(10)
    log.forget(100)
    held = next(index for index in range(1, 102) if log.holds(index))
    assert 100 - 20 < held <= 100 - 20 + 4
    assert log.between(1, 100) == tuple(entries)


def test_a_little_behind_costs_the_disk_nothing() -> None:
    """Inside the window nothing is read back from disk, and entries stay until it is full."""
    entries = [entry(index) for index in range(1, 101)]
    log = Log(entries, ListedEntries([]))
    log.forget(100)
    assert log.between(1, 100) == tuple(entries)


def test_without_a_reader_nothing_leaves() -> None:
    """A log that cannot read back from disk keeps everything."""
    log = Log([entry(1), entry(2)], None, 0)
    log.forget(2)
    assert log.entry(1) == entry(1)


@pytest.mark.parametrize(
    "wrong", [[], [entry(2)], [entry(1, 2)], [entry(1), entry(3)], [entry(1), entry(2), entry(3)]]
)
def test_what_is_read_back_has_to_be_what_was_asked_for(wrong: list[Entry]) -> None:
    """Nothing, another index, another term or too much is a broken invariant."""

    class Wrong:
        def read(self, first: int, last: int, bytes_max: int) -> list[Entry]:
            return wrong

    log = Log((), Wrong(), 0)
    log.found([(1, 1)], 5)
    with pytest.raises(BrokenInvariant):
        log.between(1, 2)


def test_what_a_start_finds_has_to_follow() -> None:
    """A gap or an older term is reported by its index. A run of entries replaces what was there."""
    log = Log((), ListedEntries([]))
    assert log.found([(1, 1), (4, 3)], 6) is None
    assert log.found([(8, 3)], 8) == 8
    assert log.found([(5, 2)], 5) == 5
    log = Log((), ListedEntries([]))
    assert log.found([(1, 1), (4, 3)], 6) is None
    assert log.found([(3, 4)], 3) is None
    assert (log.last_index, [log.term_at(i) for i in range(4)]) == (3, [0, 1, 1, 4])
    assert log.found([(0, 4)], 1) == 0


def started(disk: list[Entry], applied: int = 0, *, of: int = 3, window: int = 0) -> Replica:
    """A replica that has just started with what ``disk`` holds, ``applied`` of it."""
    state = HardState(max((e.term for e in disk), default=0), 0)
    members = Membership(1, tuple(range(1, of + 1)))
    log = on_disk(disk, window)
    return Replica(members, TIMINGS, log, state, START, Random(1), applied)


def test_what_was_not_applied_before_a_restart_is_handed_out_piece_by_piece() -> None:
    """Entries that are only on disk are handed out one message's worth at a time, each once."""
    disk = [entry(index) for index in range(1, 31)]
    subject = started(disk, applied=5)
    request = append(3, 1, 1, (30, 1), commit=27)
    pieces = [subject.step(request, CALM).apply]
    while piece := subject.tick(CALM).apply:
        pieces.append(piece)
    assert [e.index for piece in pieces for e in piece] == list(range(6, 28))
    assert max(map(len, pieces)) == TIMINGS.append_entries_max
    assert subject.commit == 27


def test_an_uncommitted_suffix_on_disk_is_replaced_after_a_restart() -> None:
    """What a start finds may not be committed: another leader's entries take its place, and
    what is before them still comes from disk.
    """
    disk = [*(entry(i) for i in range(1, 8)), entry(8, 2), entry(9, 2)]
    subject = started(disk, applied=2)
    new = [entry(8, 3, b"new"), entry(9, 3, b"new"), entry(10, 3, b"new")]
    first = subject.step(append(3, 1, 3, (7, 1), new, commit=10), CALM)
    assert first.persist is not None
    assert first.persist.entries == tuple(new)
    assert [e.index for e in first.apply] == [3, 4, 5, 6, 7]
    assert subject.log.between(1, 10) == (*disk[:7], *new)
    disk[7:] = new
    assert subject.persisted(first.persist.sequence, CALM).apply == tuple(new)
    assert subject.log.between(1, 10) == tuple(disk)


def test_entries_leave_memory_when_they_are_handed_out() -> None:
    """That is when they are both durable and committed; one of the two is not enough."""
    disk: list[Entry] = []
    subject = started(disk)
    new = [entry(1), entry(2), entry(3)]
    ready = subject.step(append(3, 1, 1, new=new, commit=2), CALM)
    assert subject.log.holds(1)
    assert ready.persist is not None
    disk += new
    assert subject.persisted(ready.persist.sequence, CALM).apply == tuple(new[:2])
    assert not subject.log.holds(2)
    assert subject.log.holds(3)


def test_a_follower_far_behind_gets_what_is_only_on_disk() -> None:
    """A leader goes back to where the follower is, and sends from disk, then from memory."""
    disk = [*(entry(i) for i in range(1, 20)), *(entry(i, 2) for i in range(20, 31))]
    subject = started(disk, applied=30, window=1 << 20)
    lead(subject, voters=(1, 2))
    whole = (*disk, subject.log.entry(31))
    late = START + 1 + TIMINGS.append_timeout_s
    (request,) = [m for m in appends(subject.tick(late)) if m.target == 3]
    assert request.prev_index == 30
    empty = replace(accept(request), ok=False, index=30, hint=0)
    (request,) = [m for m in appends(subject.step(empty, late)) if m.target == 3]
    assert (request.prev_index, request.entries) == (0, tuple(disk[:8]))
    ready = subject.step(accept(request), late)
    sent = [m for m in appends(ready) if m.target == 3]
    assert [m.entries for m in sent] == [whole[8:16], whole[16:24], whole[24:]]
    assert [(m.prev_index, m.prev_term) for m in sent] == [(8, 1), (16, 1), (24, 2)]
