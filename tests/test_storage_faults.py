"""One system call fails, or the power is cut there: afterwards all that was promised is still
there.
"""

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import pytest

from tests.disks import PowerCut, SimulatedDisk
from tests.test_storage import entry, on_disk, promise, settle
from twstock.errors import DiskFull, StorageUnavailable
from twstock.replication.messages import Entry, HardState, Persist
from twstock.replication.storage import FileStorage, Loaded

STEPS_MAX = 400


@dataclass
class State:
    """What a storage holds, in the view of its caller."""

    hard_state: HardState = field(default_factory=HardState)
    entries: list[Entry] = field(default_factory=list)
    formed: bool = False

    def after(self, writes: list[Persist]) -> "State":
        """Return the state with ``writes``."""
        entries, hard_state = list(self.entries), self.hard_state
        for write in writes:
            hard_state = write.hard_state or hard_state
            for new in write.entries:
                entries[new.index - 1 :] = [new]
        return State(hard_state, entries, self.formed)


class Caller:
    """Drives a storage as a member does, and knows what it may find after a crash.

    Entries up to ``released`` may be gone; their terms are still known.
    """

    def __init__(self, disk: SimulatedDisk, spares: int = 1) -> None:
        self.disk, self.spares = disk, spares
        self.storage: FileStorage
        self.held = State()
        self.wanted = State()
        self.released = 0

    def open(self) -> None:
        """Open as a new process does, check what is found, and release what may be dropped."""
        self.storage = on_disk(self.disk, spares=self.spares)
        loaded = self.storage.open()
        assert loaded.incarnation == 77
        self.held = self.wanted = self.found(loaded)
        self.storage.release(self.released)

    def found(self, loaded: Loaded) -> State:
        """The state that was found: that before the last write, or after it, or its hard state with
        the entries from before it.
        """
        old, new = self.held, self.wanted
        half = State(new.hard_state, old.entries, new.formed)
        assert loaded.log.first_index <= self.released + 1
        return next(state for state in (new, half, old) if shows(loaded, state))

    def release(self, index: int) -> None:
        """Entries up to there are committed, and may go."""
        self.released = max(self.released, index)
        self.storage.release(self.released)

    def write(self, writes: list[Persist]) -> None:
        """Write; a full disk changes nothing."""
        self.wanted = self.held.after(writes)
        try:
            self.storage.write(writes)
        except DiskFull:
            self.wanted = self.held
        self.held = self.wanted

    def form(self) -> None:
        """Form, with the incarnations of the other members."""
        self.wanted = State(self.held.hard_state, self.held.entries, formed=True)
        self.storage.form({2: 22, 3: 33})
        self.held = self.wanted

    def append(self, count: int, back: int = 0, size: int = 50, *, vote: bool = False) -> None:
        """Append ``count`` entries, replacing ``back`` of the old ones; with ``vote``, or if some
        are replaced, in a new term.
        """
        state = self.held.hard_state
        if vote or back:
            state = HardState(state.term + 1, 1)
        first = max(self.released + 1, len(self.held.entries) + 1 - back)
        new = tuple(entry(first + i, state.term, b"x" * size) for i in range(count))
        self.write([Persist(1, state, new)])


def shows(loaded: Loaded, state: State) -> bool:
    """Whether what was found is ``state``, but for entries that were dropped, of which only the
    terms are known.
    """
    log, entries = loaded.log, state.entries
    if (loaded.hard_state, loaded.formed) != (state.hard_state, state.formed):
        return False
    kept = list(log.between(log.first_index, log.last_index))
    terms = [log.term_at(index) for index in range(1, log.last_index + 1)]
    return kept == entries[log.first_index - 1 :] and terms == [e.term for e in entries]


def life(caller: Caller) -> None:
    """Everything a storage does: made, formed, written to, rotated, idle, restarted, pruned."""
    caller.open()
    settle(caller.storage)
    caller.write([promise(1, 1)])
    caller.form()
    caller.append(3)
    caller.append(4, back=2)
    caller.append(4, size=300)
    caller.append(2, size=300, vote=True)
    settle(caller.storage)
    caller.append(2, size=300)
    caller.append(3, size=400)
    caller.append(1, size=3000)
    caller.release(9)
    settle(caller.storage)
    caller.storage.close()
    caller.open()
    caller.release(14)
    caller.append(2)
    settle(caller.storage)
    caller.append(1, vote=True)
    caller.append(6, size=300)
    caller.release(20)
    caller.append(1, size=900)


def lives(failure: int | str) -> Iterator[tuple[int, Caller]]:
    """One life for each system call, which fails; the life may end by that failure or not."""
    for turn in range(1, STEPS_MAX):
        caller = Caller(SimulatedDisk())
        caller.disk.fail_at, caller.disk.failure = turn, failure
        try:
            life(caller)
        except (OSError, DiskFull, StorageUnavailable, PowerCut):
            pass
        else:
            if caller.disk.calls < turn:
                assert turn > 100
                return
        yield turn, caller
    raise AssertionError("the life is longer than expected")


def go_on(caller: Caller) -> None:
    """After the crash: open, check, write, and find it again."""
    caller.open()
    caller.append(1, vote=True)
    settle(caller.storage)
    caller.storage.close()
    caller.open()
    caller.storage.close()


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("failure", [errno.EIO, errno.ENOSPC, "short", "power"])
def test_the_kth_call_fails(failure: int | str, power: bool) -> None:
    """After any failed call a restart finds all that was promised, also if the power is cut
    then.
    """
    for turn, caller in lives(failure):
        if power:
            caller.disk.cut_power(Random(turn))
        else:
            caller.disk.kill()
        go_on(caller)


def test_a_failed_storage_is_not_tried_again() -> None:
    """After a failed flush every further call is refused without touching the disk: another flush
    might succeed although data is lost.
    """
    caller = Caller(SimulatedDisk())
    caller.open()
    caller.write([promise(1)])
    caller.disk.fail_at, caller.disk.failure = caller.disk.calls + 2, errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        caller.append(1)
    calls = caller.disk.calls
    for call in (caller.storage.settle, lambda: caller.storage.write([promise(2)])):
        with pytest.raises(Exception, match="earlier write failed"):
            call()
    assert caller.disk.calls == calls


def test_what_only_looks_written_is_not_believed() -> None:
    """A failed flush leaves pages that look written. A start believes only what the disk holds, so
    a power cut after it takes nothing back.
    """
    disk = SimulatedDisk()
    caller = Caller(disk)
    caller.open()
    caller.append(2, vote=True)
    disk.fail_at, disk.failure = disk.calls + 2, errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        caller.append(1)
    disk.kill()
    caller.open()
    believed = list(caller.held.entries)
    disk.cut_power(Random(1))
    caller.open()
    assert caller.held.entries == believed


def test_what_was_never_flushed_is_flushed_before_it_is_believed() -> None:
    """A write of a killed process is only in the page cache. The next start flushes it, so no power
    cut takes it back.
    """
    disk = SimulatedDisk()
    caller = Caller(disk)
    caller.open()
    caller.append(2, vote=True)
    disk.fail_at, disk.failure = disk.calls + 2, "power"  # here: killed before the fdatasync
    with pytest.raises(PowerCut):
        caller.append(1)
    disk.kill()
    caller.open()
    assert len(caller.held.entries) == 3
    for seed in range(5):
        disk.cut_power(Random(seed))
        caller.open()
        assert len(caller.held.entries) == 3


def test_a_torn_promise_leaves_the_present_one() -> None:
    """Even if every byte that a promise changes is written wrong, the promise before it is
    intact.
    """
    for promises in range(1, 4):
        disk = SimulatedDisk()
        caller = Caller(disk)
        caller.open()
        for term in range(1, promises + 1):
            caller.write([promise(term, 1)])
        before = disk.content("meta")
        disk.fail_at, disk.failure = disk.calls + 2, "power"
        with pytest.raises(PowerCut):
            caller.write([promise(9, 1)])
        after = disk.content("meta")
        torn = bytes(b if a == b else 0xAA for a, b in zip(before, after, strict=True))
        assert torn not in (before, after)
        disk.kill()
        disk.set_content("meta", torn)
        caller.open()
        assert caller.held.hard_state == HardState(promises, 1)


def random_step(caller: Caller, random: Random) -> None:
    """One thing that a member may do next."""
    step = random.random()
    if step < 0.25:
        settle(caller.storage)
    elif step < 0.35:
        state = caller.held.hard_state
        caller.write([promise(state.term + 1, random.randrange(3))])
    elif step < 0.4:
        caller.form()
    elif step < 0.45:
        caller.release(random.randint(0, len(caller.held.entries)))
    else:
        back = random.randrange(4) if random.random() < 0.2 else 0
        caller.append(random.randrange(1, 6), back, random.choice((0, 40, 300, 900)))


def random_lives(seed: int) -> int:
    """Live through eight starts, most of them ended by a crash; return how many were."""
    random, crashes = Random(seed), 0
    caller = Caller(SimulatedDisk(), spares=random.randrange(3))
    for _ in range(8):
        caller.disk.fail_at, caller.disk.failure = random.randrange(90), "power"
        caller.disk.calls = 0
        try:
            caller.open()
            for _ in range(random.randrange(16)):
                random_step(caller, random)
        except PowerCut:
            crashes += 1
        if random.random() < 0.8:
            caller.disk.cut_power(random)
        else:
            caller.disk.kill()
    caller.open()
    return crashes


@pytest.mark.parametrize("first", range(0, 250, 50))
def test_power_cuts(first: int) -> None:
    """Crashed anywhere, again and again, a storage takes back no promise and refuses no good
    log.
    """
    crashes = sum(random_lives(seed) for seed in range(first, first + 50))
    assert crashes > 100


def test_crash_points_of_a_new_directory() -> None:
    """A crash at each call while a directory is made, by a power cut or a kill: the next start
    finishes it.
    """
    whole = Caller(SimulatedDisk())
    whole.open()
    for turn in range(1, whole.disk.calls + 1):
        for seed in range(8):
            caller = Caller(SimulatedDisk())
            caller.disk.fail_at, caller.disk.failure = turn, "power"
            with pytest.raises(PowerCut):
                caller.open()
            if seed:
                caller.disk.cut_power(Random(seed))
            else:
                caller.disk.kill()
            go_on(caller)


def test_a_made_directory_keeps_its_incarnation() -> None:
    """Once ``open`` has returned, the incarnation is durable, and no other is used after a power
    cut.
    """
    for seed in range(20):
        disk = SimulatedDisk()
        assert on_disk(disk, incarnation=41).open().incarnation == 41
        disk.cut_power(Random(seed))
        again: FileStorage = on_disk(disk, incarnation=42)
        assert again.open().incarnation == 41
