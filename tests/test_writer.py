"""A member's disk, seen from the reactor: what waits for what, and for how long."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.disks import SimulatedDisk
from tests.members import STEP_S, ClockThreads
from twstock.config import Limits
from twstock.replication.equipment import Surroundings
from twstock.replication.messages import HardState, Persist
from twstock.replication.promises import Owner
from twstock.replication.storage import FileStorage
from twstock.replication.writer import SPACE_AGAIN_S, Writer

MEBIBYTE = 1 << 20
SEGMENT_BYTES = 16 * MEBIBYTE


class SlowDisk(SimulatedDisk):
    """A disk whose flushes take time; ``took_s`` is how much since it was last reset. With
    ``hidden_quota``, statvfs tells of space that is not there.
    """

    def __init__(self, bytes_per_s: float) -> None:
        super().__init__()
        self.bytes_per_s = bytes_per_s
        self.took_s = 0.0
        self.written = self.unflushed = 0
        self.hidden_quota = False

    def pwrite(self, fd: int, content: bytes, offset: int) -> int:
        """Count what is written."""
        done = super().pwrite(fd, content, offset)
        self.unflushed += done
        self.written += done
        return done

    def fdatasync(self, fd: int) -> None:
        """Take the time that the bytes need."""
        super().fdatasync(fd)
        self.took_s += self.unflushed / self.bytes_per_s
        self.unflushed = 0

    def free_bytes(self, path: Path) -> int:
        """What statvfs says."""
        return 1 << 40 if self.hidden_quota else super().free_bytes(path)


class Stuck:
    """Threads in which no call ends."""

    def callInThread(self, func: Callable[..., object], *args: Any) -> None:
        """Begin, and never end."""


class Scene:
    """A writer on a disk, and a clock that ticks, a little faster than a member does."""

    def __init__(self, bytes_per_s: float = 1 << 40) -> None:
        self.clock, self.disk = Clock(), SlowDisk(bytes_per_s)
        owner = Owner("order", "test", 1, (1,))
        self.storage = FileStorage(
            Path("/data"), owner, SEGMENT_BYTES, 2, lambda: 101, files=self.disk
        )
        self.storage.open()
        self.disk.took_s = 0.0
        self.panics: list[Failure] = []
        self.durable: list[int] = []
        threads: Any = ClockThreads(self.clock)
        around = Surroundings(
            self.clock, Random(1), threads, self.deliver, self.panics.append, lambda _: None
        )
        self.writer = Writer(self.storage, around, self.durable.append)

    def deliver(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call it in the reactor, once the disk has had its time."""
        took_s, self.disk.took_s = self.disk.took_s, 0.0
        self.clock.callLater(took_s, function, *arguments)

    def run(self, seconds: float) -> float:
        """Let time pass; returns the longest time that the writer waited for the disk."""
        longest = 0.0
        for _ in range(round(seconds / STEP_S)):
            self.clock.advance(STEP_S)
            self.writer.settle_when_idle()
            longest = max(longest, self.writer.waited_s())
        assert self.panics == []
        return longest

    def promise(self, term: int) -> None:
        """Write something small."""
        self.writer.write(Persist(term, HardState(term, 1), ()))


def test_upkeep_on_a_slow_disk_does_not_look_like_a_hanging_one() -> None:
    """A leader steps down when its disk takes longer than ``disk_hung_s``: a disk of 4 MiB/s fills
    its spare segments without that, and without a pause.
    """
    scene = Scene(4 * MEBIBYTE)
    assert scene.run(0.9 * 2 * SEGMENT_BYTES / (4 * MEBIBYTE)) < Limits().disk_hung_s
    assert scene.writer.space.spares == 1
    scene.run(2.0)
    assert scene.writer.space.spares == 2


def test_a_write_of_several_flushes_is_as_old_as_the_last_of_them() -> None:
    """A write may rotate segments and seal them, with seven flushes. The disk hangs only if a
    single one takes too long.
    """
    scene = Scene()
    scene.run(0.2)
    scene.writer._threads = Stuck()
    scene.promise(1)
    for _ in range(7):
        assert scene.run(0.3) < Limits().disk_hung_s
        scene.storage._directory.flushes += 1
    assert scene.run(0.6) > Limits().disk_hung_s


def test_a_write_comes_between_two_steps_of_upkeep() -> None:
    """A write waits for one step of upkeep at most, however much is to be done."""
    scene = Scene(4 * MEBIBYTE)
    scene.run(0.3)
    for term in range(1, 6):
        scene.promise(term)
        began = scene.clock.seconds()
        while scene.durable[-1:] != [term]:
            scene.run(STEP_S)
        assert scene.clock.seconds() - began < 0.3
    assert scene.writer.space.spares == 0


def test_a_quota_that_does_not_show_is_not_written_into_without_end() -> None:
    """Each attempt to make a spare fills all space that is left, and removes it again. So it is
    tried only every ``SPACE_AGAIN_S``, whether the disk is idle or written to.
    """
    scene = Scene()
    left = 10 * MEBIBYTE
    scene.disk.hidden_quota = True
    scene.disk.capacity = SEGMENT_BYTES + left
    scene.run(10.0)
    for term in range(1, 51):
        scene.promise(term)
        scene.run(0.2)
    assert scene.writer.space.spares == 0
    assert scene.disk.written <= SEGMENT_BYTES + (20.0 / SPACE_AGAIN_S + 2) * left
    scene.disk.capacity += 2 * SEGMENT_BYTES
    scene.run(SPACE_AGAIN_S + 1.0)
    assert scene.writer.space.spares == 2


def test_the_mark_is_flushed_although_there_is_no_space() -> None:
    """Upkeep that needs no space does not wait for it."""
    scene = Scene()
    scene.disk.capacity = 0
    scene.run(0.5)
    for term in range(1, 5):
        scene.promise(term)
        scene.run(0.2)
        assert scene.disk.unflushed == 0
