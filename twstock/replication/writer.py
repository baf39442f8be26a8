"""A member's disk, outside of the reactor: one write at a time, while the next is gathered.

Group commit without a timer: while one ``fdatasync`` runs, everything that has to be durable
queues up, and goes to the disk together when it returns.
"""

from collections.abc import Callable
from math import inf

from twisted.python.failure import Failure

from twstock.replication.equipment import Surroundings
from twstock.replication.messages import Persist
from twstock.replication.room import written_bytes
from twstock.replication.spares import Upkeep
from twstock.replication.storage import Space, Storage
from twstock.tally import SIZES, Histogram

SETTLE_AFTER_S = 0.05
"""How long after a write an idle disk flushes the mark (it may be 100 ms behind at most)."""

SPACE_AGAIN_S = 2.0
"""How soon a spare segment is tried again on a full disk. Where a quota does not show, each try
writes up to a segment in vain."""


class Writer:
    """Makes writes durable in order and reports how far it is.

    ``written`` is called in the reactor with the sequence of the last durable write. If the disk
    fails, that is a panic, and nothing more is written. ``durable_s`` counts how long writes took,
    ``entries`` how many entries were written together.
    """

    def __init__(
        self,
        storage: Storage,
        surroundings: Surroundings,
        written: Callable[[int], None],
    ) -> None:
        self._storage = storage
        self._threads = surroundings.disk
        self._deliver = surroundings.deliver
        self._seconds = surroundings.clock.seconds
        self._panic = surroundings.panic
        self._written = written
        self._queue: list[Persist] = []
        self._queued_bytes = self._running_bytes = 0
        self._moved_at: float | None = None  # when it began, or its last flush was noticed
        self._flushes = 0
        # At once, and not after a first write: on a full disk there may never be one.
        self._settle_at = self._space_at = self._seconds()
        self._stopped = False
        self._room_bytes = storage.room_bytes()
        self.space = storage.space()
        self.durable_s, self.entries = Histogram(), Histogram(SIZES)

    def __len__(self) -> int:
        """How many writes wait for the one under way."""
        return len(self._queue)

    @property
    def room_bytes(self) -> int:
        """How many bytes one more write can certainly have, after those queued and under way."""
        return max(0, self._room_bytes - self._queued_bytes - self._running_bytes)

    def write(self, persist: Persist) -> None:
        """Queue one write."""
        self._queue.append(persist)
        self._queued_bytes += written_bytes(persist.entries)
        self._start()

    def stop(self) -> None:
        """Begin nothing more: what is queued was never acknowledged."""
        self._stopped = True

    def waited_s(self) -> float:
        """How long ago the disk was seen to begin a write or a step of upkeep, or to finish one of
        its flushes; 0 when it is idle. Some writes need several flushes, and a disk that is slow
        with them does not hang.
        """
        if self._moved_at is None:
            return 0.0
        now, flushes = self._seconds(), self._storage.flushes
        if flushes != self._flushes:
            self._flushes, self._moved_at = flushes, now
        return now - self._moved_at

    def settle_when_idle(self) -> None:
        """Do a step of upkeep if the disk is idle; called at every tick."""
        now = self._seconds()
        if self._moved_at is None and not self._stopped and now >= self._settle_at:
            grow = now >= self._space_at
            self._moved_at, self._settle_at = now, inf if grow else self._space_at
            self._threads.callInThread(self._settle, grow)

    def _start(self) -> None:
        if self._moved_at is None and self._queue and not self._stopped:
            batch, self._queue = self._queue, []
            self._running_bytes, self._queued_bytes = self._queued_bytes, 0
            self._moved_at = self._seconds()
            self._threads.callInThread(self._write, batch)

    def _write(self, batch: list[Persist]) -> None:
        """In the thread."""
        began = self._seconds()
        try:
            self._storage.write(batch)
            took_s = self._seconds() - began
            room, space = self._storage.room_bytes(), self._storage.space()
        except Exception:
            self._deliver(self._panic, Failure())
        else:
            self._deliver(self._done, batch, took_s, room, space)

    def _done(self, batch: list[Persist], took_s: float, room: int, space: Space) -> None:
        self._room_bytes, self.space = room, space
        self._running_bytes = 0
        self.durable_s.observe(took_s)
        self.entries.observe(sum(len(persist.entries) for persist in batch))
        self._moved_at = None
        self._settle_at = min(self._settle_at, self._seconds() + SETTLE_AFTER_S)
        self._start()
        self._written(batch[-1].sequence)

    def _settle(self, grow: bool) -> None:
        """In the thread."""
        try:
            left = self._storage.settle(grow=grow)
            room, space = self._storage.room_bytes(), self._storage.space()
        except Exception:
            self._deliver(self._panic, Failure())
        else:
            self._deliver(self._settled, left, room, space)

    def _settled(self, left: Upkeep, room: int, space: Space) -> None:
        self._room_bytes, self.space = room, space
        self._moved_at = None
        if left is Upkeep.NO_SPACE:
            self._settle_at = self._space_at = self._seconds() + SPACE_AGAIN_S
        self._start()  # a write goes first
        if left is Upkeep.GOES_ON:
            self._settle_at = self._seconds()
            self.settle_when_idle()
