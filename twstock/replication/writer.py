"""The disk of a member, off the reactor: one write at a time, the next one gathers meanwhile.

Group commit without a timer: while one ``fdatasync`` runs, everything that has to be durable
queues up, and goes to the disk together when it returns.
"""

from collections.abc import Callable

from twisted.python.failure import Failure

from twstock.replication.equipment import Surroundings
from twstock.replication.messages import Persist
from twstock.replication.room import written_bytes
from twstock.replication.storage import Space, Storage
from twstock.tally import SIZES, Histogram

SETTLE_AFTER_S = 0.05
"""An idle disk flushes its high-water mark after this long (it may lag 100 ms at most)."""

SETTLE_AGAIN_S = 0.1
"""How soon what is left to do goes on; a full disk is asked again as often, which is cheap."""


class Writer:
    """Makes writes durable in order and reports how far it is.

    ``written`` is called in the reactor with the sequence of the last durable write; a disk that
    failed is a panic, after which nothing is written any more. ``durable_s`` counts how long
    writes took, ``entries`` how many entries went together.
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
        self._busy_since: float | None = None
        self._settle_at: float | None = self._seconds()  # on a full disk no write may come
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
        """How long the write under way has taken so far; 0 when the disk is idle."""
        return 0.0 if self._busy_since is None else self._seconds() - self._busy_since

    def settle_when_idle(self) -> None:
        """Do what can wait, if nothing else is to be done; called now and then."""
        idle = self._busy_since is None and not self._stopped
        if idle and self._settle_at is not None and self._seconds() >= self._settle_at:
            self._busy_since = self._seconds()
            self._settle_at = None
            self._threads.callInThread(self._settle)

    def _start(self) -> None:
        if self._busy_since is None and self._queue and not self._stopped:
            batch, self._queue = self._queue, []
            self._running_bytes, self._queued_bytes = self._queued_bytes, 0
            self._busy_since = self._seconds()
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
        self._busy_since = None
        if self._settle_at is None:
            self._settle_at = self._seconds() + SETTLE_AFTER_S
        self._start()
        self._written(batch[-1].sequence)

    def _settle(self) -> None:
        """In the thread."""
        try:
            more = self._storage.settle()
            room, space = self._storage.room_bytes(), self._storage.space()
        except Exception:
            self._deliver(self._panic, Failure())
        else:
            self._deliver(self._settled, more, room, space)

    def _settled(self, more: bool, room: int, space: Space) -> None:
        self._room_bytes, self.space = room, space
        self._busy_since = None
        if more:
            self._settle_at = self._seconds() + SETTLE_AGAIN_S
        self._start()
