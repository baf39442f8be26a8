"""The entries that a replica holds.

A list today, from index 1 on. Everything outside asks by index and never sees the list, so
that a later change may keep only a window in memory and fetch the rest: what such a change
has to provide is ``entry``, ``term_at`` and the two ways of reading a range.
"""

from collections.abc import Iterable, Sequence

from twstock.errors import BrokenInvariant
from twstock.replication.messages import Entry, EntryKind


class Log:
    """Entries with indices 1, 2, 3...; terms never decrease (Raft section 5.3)."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries: list[Entry] = []
        for entry in entries:
            self._append(entry)

    @property
    def last_index(self) -> int:
        """The index of the last entry; 0 while the log is empty."""
        return len(self._entries)

    @property
    def last_term(self) -> int:
        """The term of the last entry; 0 while the log is empty."""
        return self._entries[-1].term if self._entries else 0

    def entry(self, index: int) -> Entry:
        """The entry at ``index``; BrokenInvariant if there is none."""
        if not 1 <= index <= len(self._entries):
            raise BrokenInvariant(f"no entry {index} in a log of {len(self._entries)}")
        return self._entries[index - 1]

    def term_at(self, index: int) -> int:
        """The term of the entry at ``index``; 0 at index 0, before the first."""
        return self.entry(index).term if index else 0

    def matches(self, index: int, term: int) -> bool:
        """Whether the entry at ``index`` is there and of ``term``: then everything up to it
        equals the log that the pair was taken from (Log Matching, Raft section 5.3).
        """
        return 0 <= index <= len(self._entries) and self.term_at(index) == term

    def is_older_than(self, last_index: int, last_term: int) -> bool:
        """Whether a log with such an end is at least as up to date (Raft section 5.4.1)."""
        return (self.last_term, self.last_index) <= (last_term, last_index)

    def between(self, first: int, last: int) -> tuple[Entry, ...]:
        """The entries ``first`` to ``last``, both included."""
        return tuple(self._entries[first - 1 : last])

    def slice(self, first: int, entries_max: int, bytes_max: int) -> tuple[Entry, ...]:
        """The entries from ``first`` on, as many as both limits allow but at least one, so
        that an entry larger than ``bytes_max`` does not block those behind it.
        """
        batch = self._entries[first - 1 : first - 1 + entries_max]
        room = bytes_max
        for count, entry in enumerate(batch):
            room -= len(entry.payload)
            if room < 0 and count:
                return tuple(batch[:count])
        return tuple(batch)

    def hint(self, index: int, term: int, settled: int) -> int:
        """How far a log that has ``term`` at ``index``, where this one does not, may still
        agree with this one: entries of newer terms than that cannot be in it, those up to
        ``settled``, the committed ones, surely are.
        """
        last = min(index - 1, self.last_index)
        while last > settled and self.term_at(last) > term:
            last -= 1
        return max(last, 0)

    def extend(self, term: int, kind: EntryKind, payloads: Iterable[bytes]) -> None:
        """Add new entries of ``term`` at the end: what a leader does with a proposal."""
        for payload in payloads:
            self._append(Entry(self.last_index + 1, term, kind, payload))

    def merge(self, entries: Sequence[Entry], settled: int) -> tuple[Entry, ...]:
        """Take over ``entries`` and return those that are new here.

        The caller has checked that they connect. Entries that are here already stay, with
        all that follows them, so that a late duplicate removes nothing; the first one that
        differs replaces everything from its index on. BrokenInvariant if that would touch
        an entry up to ``settled``, the committed ones.
        """
        for position, entry in enumerate(entries):
            if entry.index > self.last_index or self.term_at(entry.index) != entry.term:
                return self._replace(entries[position:], settled)
        return ()

    def _replace(self, entries: Sequence[Entry], settled: int) -> tuple[Entry, ...]:
        first = entries[0].index
        if first <= settled:
            raise BrokenInvariant(f"entry {first} is to be replaced, but {settled} are committed")
        del self._entries[first - 1 :]
        for entry in entries:
            self._append(entry)
        return tuple(entries)

    def _append(self, entry: Entry) -> None:
        if entry.index != self.last_index + 1 or entry.term < self.last_term:
            raise BrokenInvariant(f"{entry} cannot follow {self.last_index} of {self.last_term}")
        self._entries.append(entry)
