"""A log in memory, with the same contract as the one on disk."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from twstock.errors import DiskFull
from twstock.replication.log import WINDOW_BYTES, Log
from twstock.replication.messages import Entry, HardState, Persist
from twstock.replication.records import ENTRY_OVERHEAD_BYTES
from twstock.replication.spares import Upkeep
from twstock.replication.storage import Loaded, Space, gather


class ListedEntries:
    """Reads older entries from a list of all entries, to which new ones are added."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries

    def read(self, first: int, last: int, bytes_max: int) -> list[Entry]:
        """The entries from ``first`` to ``last``, or as many as the bytes allow; at least one."""
        found: list[Entry] = []
        for entry in self._entries[first - 1 : last]:
            if found and bytes_max < 0:
                break
            found.append(entry)
            bytes_max -= len(entry.payload)
        return found


class MemoryStorage:
    """The contract of Storage in memory: what was written survives close and open."""

    def __init__(
        self,
        incarnation: int = 1,
        capacity_bytes: int = 1 << 40,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        self._incarnation = incarnation
        self._window_bytes = window_bytes
        self._room = capacity_bytes
        self._hard_state = HardState()
        self._entries: list[Entry] = []
        self._formed = False
        self._peers: dict[int, int] = {}
        self._released = 0
        self.flushes = 0

    def open(self) -> Loaded:
        """Return copies of what was written so far."""
        peers = MappingProxyType(dict(self._peers))
        log = Log((), ListedEntries(self._entries), self._window_bytes)
        log.found([(entry.index, entry.term) for entry in self._entries], len(self._entries))
        log.release(self._released)
        return Loaded(self._hard_state, log, self._incarnation, self._formed, peers)

    def release(self, index: int) -> None:
        """Drop the entries up to ``index`` from the log that the next ``open`` returns."""
        self._released = index

    def form(self, peers: Mapping[int, int]) -> None:
        """Note that the member has joined its group."""
        self._formed, self._peers = True, dict(peers)

    def write(self, writes: Sequence[Persist]) -> None:
        """Keep ``writes``, in order. Raises DiskFull before touching anything."""
        hard_state, entries = gather(self._hard_state, len(self._entries), writes)
        size = sum(len(entry.payload) + ENTRY_OVERHEAD_BYTES for entry in entries)
        if size > self._room:
            raise DiskFull(f"{size} bytes to write, room for {self._room}")
        self._room -= size
        self._hard_state = hard_state
        for entry in entries:
            self._entries[entry.index - 1 :] = [entry]

    def settle(self, *, grow: bool = True) -> Upkeep:
        """Do nothing: there is never any upkeep to do."""
        return Upkeep.DONE

    def room_bytes(self) -> int:
        """Return what is left of the capacity that the constructor was given."""
        return self._room

    def space(self) -> Space:
        """Return nothing: nothing is on disk."""
        return Space()

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
