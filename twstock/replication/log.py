"""A replica's log: the last entries are in memory, all others are read back when needed.

Callers ask by index, wherever an entry is. The terms of all entries are in memory, as runs, so
finding a term never reads the disk.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Protocol

from twstock.errors import BrokenInvariant
from twstock.replication.compaction import TermRun
from twstock.replication.messages import Entry, EntryKind

WINDOW_BYTES = 8 * 1024 * 1024
"""How much memory entries may take that could also be read back: some 25,000 entries of 150 bytes,
so that a follower that is a little behind costs no disk reads."""

ENTRY_MEMORY_BYTES = 160
"""About what an entry takes in memory besides its payload."""


class OlderEntries(Protocol):
    """Where a log reads entries that it no longer holds in memory."""

    def read(self, first: int, last: int, bytes_max: int) -> Sequence[Entry]:
        """The entries ``first`` to ``last``, or fewer: it stops after the entry with which the
        payloads exceed ``bytes_max``. Always at least one. Raises an error that must end the
        process if an entry is not as it was given to the disk.
        """


class Log:
    """Entries with indices 1, 2, 3...; terms never decrease (Raft section 5.3).

    Without ``older`` all entries stay in memory. With it, ``forget`` takes the oldest out when the
    entries in memory exceed ``window_bytes``.
    """

    def __init__(
        self,
        entries: Iterable[Entry] = (),
        older: OlderEntries | None = None,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        self._older = older
        self._window_bytes = window_bytes
        self._bytes = 0
        self._start = self._first = 1
        self._entries: list[Entry] = []
        self._run_starts: list[int] = []
        self._run_terms: list[int] = []
        for entry in entries:
            self._append(entry)

    @property
    def first_index(self) -> int:
        """The first entry that can be read; of those before it only the terms are known."""
        return self._first

    @property
    def last_index(self) -> int:
        """The index of the last entry; 0 while the log is empty."""
        return self._start + len(self._entries) - 1

    @property
    def last_term(self) -> int:
        """The term of the last entry; 0 while the log is empty."""
        return self._run_terms[-1] if self._run_terms else 0

    def holds(self, index: int) -> bool:
        """Whether the entry at ``index``, and all after it, are in memory."""
        return index >= self._start

    def entry(self, index: int) -> Entry:
        """The entry at ``index``. Raises BrokenInvariant if there is none."""
        self._check(index)
        return self.between(index, index)[0]

    def term_at(self, index: int) -> int:
        """The term of the entry at ``index``; 0 at index 0, before the first."""
        if index == 0:
            return 0
        self._check(index)
        return self._run_terms[bisect_right(self._run_starts, index) - 1]

    def matches(self, index: int, term: int) -> bool:
        """Whether the entry at ``index`` is there and of ``term``: then everything up to it
        equals the log that the pair was taken from (Log Matching, Raft section 5.3).
        """
        return 0 <= index <= self.last_index and self.term_at(index) == term

    def is_no_newer_than(self, last_index: int, last_term: int) -> bool:
        """Whether a log with such an end is at least as up to date (Raft section 5.4.1)."""
        return (self.last_term, self.last_index) <= (last_term, last_index)

    def between(self, first: int, last: int) -> tuple[Entry, ...]:
        """The entries ``first`` to ``last``, both included."""
        found: list[Entry] = []
        first, last = max(first, 1), min(last, self.last_index)
        self._check_there(first, last)
        while first + len(found) <= min(last, self._start - 1):
            found += self._read(first + len(found), min(last, self._start - 1), self._window_bytes)
        return (*found, *self._held(first + len(found), last))

    def slice(self, first: int, entries_max: int, bytes_max: int) -> tuple[Entry, ...]:
        """The entries from ``first`` on, as many as both limits allow but at least one, so
        that an entry larger than ``bytes_max`` does not block those behind it.
        """
        last = min(first + entries_max - 1, self.last_index)
        self._check_there(first, last)
        batch: Sequence[Entry] = self._held(first, last)
        if first < self._start:
            older = self._read(first, min(last, self._start - 1), bytes_max)
            batch = older if older[-1].index < self._start - 1 else (*older, *batch)
        room = bytes_max
        for count, entry in enumerate(batch):
            room -= len(entry.payload)
            if room < 0 and count:
                return tuple(batch[:count])
        return tuple(batch)

    def hint(self, index: int, term: int, settled: int) -> int:
        """The last index at which this log may agree with one that has ``term`` at ``index``, where
        this one does not: the other cannot have entries of newer terms before that, and surely has
        those up to ``settled``, the committed ones.
        """
        last = min(index - 1, self.last_index)
        while last > settled and self.term_at(last) > term:
            run = bisect_right(self._run_starts, last) - 1
            last = max(settled, self._run_starts[run] - 1)
        return max(last, 0)

    def extend(self, term: int, kind: EntryKind, payloads: Iterable[bytes]) -> None:
        """Add new entries of ``term`` at the end: what a leader does with a proposal."""
        for payload in payloads:
            self._append(Entry(self.last_index + 1, term, kind, payload))

    def merge(self, entries: Sequence[Entry], settled: int) -> tuple[Entry, ...]:
        """Take over ``entries`` and return those that are new here.

        The caller has checked that they follow an entry of this log. Entries that are here already
        stay, with all that follows them, so that a late duplicate removes nothing; the first one
        that differs replaces everything from its index on. Raises BrokenInvariant if that would
        replace an entry up to ``settled``, the committed ones.
        """
        for position, entry in enumerate(entries):
            if entry.index > self.last_index or self.term_at(entry.index) != entry.term:
                return self._replace(entries[position:], settled)
        return ()

    def forget(self, index: int) -> None:
        """Entries up to ``index`` are committed, and on disk just as they are here: the oldest
        of them leave memory if the window is full.
        """
        if self._older is None or self._bytes <= self._window_bytes:
            return
        count, room = 0, self._bytes - self._window_bytes * 7 // 8
        for entry in self._entries[: max(0, index - self._start + 1)]:
            if room <= 0:
                break
            room -= _memory(entry)
            count += 1
        self._bytes = room + self._window_bytes * 7 // 8
        self._start += count
        del self._entries[:count]

    def found(self, runs: Sequence[tuple[int, int]], last_index: int) -> int | None:
        """A start has found entries up to ``last_index`` on disk, where they stay. ``runs`` are
        pairs of first index and term; each replaces everything from its first index on.

        Returns the first index of a run that cannot follow what was found before; None: all do.
        """
        goes_on = self._run_terms and [*runs] == [(self.last_index + 1, self.last_term)]
        if runs and runs[0][0] > self.last_index + 1:
            return runs[0][0]
        for first, term in () if goes_on else runs:
            self._cut(first)
            if first < 1 or term < self.last_term:
                return first
            self._note_term(first, term)
        self._entries, self._bytes, self._start = [], 0, last_index + 1
        return None

    def begin_after(self, runs: Sequence[tuple[int, int]], last_index: int) -> None:
        """Begin after the entries up to ``last_index``: committed, and no longer on disk."""
        if self.found(runs, last_index) is not None:
            raise BrokenInvariant("the terms of what was dropped do not follow each other")
        self.release(last_index)

    def release(self, index: int) -> None:
        """Nobody may read the entries up to ``index`` any more: they will leave the disk."""
        self._first = max(self._first, index + 1)

    def runs(self) -> tuple[TermRun, ...]:
        """The terms of all entries."""
        return tuple(map(TermRun, self._run_starts, self._run_terms))

    def _replace(self, entries: Sequence[Entry], settled: int) -> tuple[Entry, ...]:
        first = entries[0].index
        if first <= settled:
            raise BrokenInvariant(f"entry {first} is to be replaced, but {settled} are committed")
        self._cut(first)
        for entry in entries:
            self._append(entry)
        return tuple(entries)

    def _append(self, entry: Entry) -> None:
        if entry.index != self.last_index + 1 or entry.term < self.last_term:
            raise BrokenInvariant(f"{entry} cannot follow {self.last_index} of {self.last_term}")
        self._push(entry)

    def _push(self, entry: Entry) -> None:
        if not self._run_terms or entry.term != self._run_terms[-1]:
            self._note_term(entry.index, entry.term)
        self._bytes += _memory(entry)
        self._entries.append(entry)

    def _note_term(self, first: int, term: int) -> None:
        if not self._run_terms or term != self._run_terms[-1]:
            self._run_starts.append(first)
            self._run_terms.append(term)

    def _cut(self, first: int) -> None:
        """Remove every entry from ``first`` on, in memory or not."""
        run = bisect_left(self._run_starts, first)
        del self._run_starts[run:], self._run_terms[run:]
        removed = self._held(first, self.last_index)
        self._bytes -= sum(map(_memory, removed))
        del self._entries[len(self._entries) - len(removed) :]
        self._start = min(self._start, first)

    def _held(self, first: int, last: int) -> Sequence[Entry]:
        """Those of the entries ``first`` to ``last`` that are in memory."""
        return self._entries[max(0, first - self._start) : max(0, last - self._start + 1)]

    def _read(self, first: int, last: int, bytes_max: int) -> Sequence[Entry]:
        if self._older is None:
            raise BrokenInvariant(f"entry {first} is not in memory, and nobody else has it")
        found = self._older.read(first, last, bytes_max)
        starts, stop, term = self._run_starts, first, 0
        for index, entry in enumerate(found, first):
            if index >= stop:  # the next run of terms
                run = bisect_right(starts, index)
                stop, term = starts[run] if run < len(starts) else last + 1, self.term_at(index)
            if entry.index != index or entry.term != term or index > last:
                raise BrokenInvariant(f"{entry} was read back as entry {index}")
        if not found:
            raise BrokenInvariant(f"entry {first} was not read back")
        return found

    def _check_there(self, first: int, last: int) -> None:
        if first < self._first and first <= last:
            raise BrokenInvariant(f"entry {first} is asked for, the log begins at {self._first}")

    def _check(self, index: int) -> None:
        if not 1 <= index <= self.last_index:
            raise BrokenInvariant(f"no entry {index} in a log of {self.last_index}")


def _memory(entry: Entry) -> int:
    return len(entry.payload) + ENTRY_MEMORY_BYTES
