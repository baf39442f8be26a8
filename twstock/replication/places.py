"""Where on disk each entry of the log is, so that it is found without a scan.

Pure. A *place* is where a run of entries begins: from its offset on they follow one another,
index by index and all of one term, up to the index of the next place. DESIGN.md says when a
place is added and when it is removed.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from twstock.replication.compaction import TermRun
from twstock.replication.records import SPACING_BYTES, Place


class Run(NamedTuple):
    """A place, the segment it is in, and the index of the next place; 0 if it is the last."""

    segment: int
    place: Place
    stop: int


class Places:
    """The places of a whole log: 32 bytes for each, one or more in 64 KiB of log.

    Indices increase along the columns, and segments never decrease, because places of replaced
    entries are removed before the new ones are added.
    """

    def __init__(self) -> None:
        self._firsts = array("Q")
        self._offsets = array("Q")
        self._terms = array("Q")
        self._segments = array("Q")
        self._next = 1

    def find(self, index: int) -> Run | None:
        """The run that contains entry ``index``, None if there is none."""
        at = bisect_right(self._firsts, index) - 1
        if at < 0 or index >= self._next:
            return None
        place = Place(self._firsts[at], self._offsets[at], self._terms[at])
        stop = self._firsts[at + 1] if at + 1 < len(self._firsts) else 0
        return Run(self._segments[at], place, stop)

    def of(self, segment: int) -> tuple[Place, ...]:
        """The places in ``segment``, in order."""
        first = bisect_left(self._segments, segment)
        end = bisect_right(self._segments, segment)
        columns = (self._firsts, self._offsets, self._terms)
        return tuple(map(Place, *(column[first:end] for column in columns)))

    def runs(self, segment: int) -> list[TermRun]:
        """The terms of the entries in segments up to ``segment``; a term may have many runs."""
        end = bisect_right(self._segments, segment)
        return list(map(TermRun, self._firsts[:end], self._terms[:end]))

    def drop(self, segment: int) -> None:
        """Forget all segments up to ``segment``."""
        end = bisect_right(self._segments, segment)
        for column in (self._firsts, self._offsets, self._terms, self._segments):
            del column[:end]

    def add(self, segment: int, places: Sequence[Place], end: int, last_index: int) -> None:
        """``segment`` goes on with entries up to ``last_index``, at ``places`` and up to byte
        ``end``. Each entry replaces the one that had its index, and all that followed that.
        """
        reach = places[1].offset if len(places) > 1 else end
        if places and not self._goes_on(segment, places[0], reach):
            self._append(segment, places[0])
        for place in places[1:]:
            self._append(segment, place)
        self._next = last_index + 1

    def _goes_on(self, segment: int, place: Place, reach: int) -> bool:
        """Whether the entries from ``place`` to byte ``reach`` just continue the last run, without
        making it too long, as most writes do.
        """
        return (
            len(self._firsts) > 0
            and place.first == self._next
            and place.term == self._terms[-1]
            and segment == self._segments[-1]
            and reach - self._offsets[-1] <= SPACING_BYTES
        )

    def _append(self, segment: int, place: Place) -> None:
        if self._firsts and place.first <= self._firsts[-1]:
            at = bisect_left(self._firsts, place.first)
            for column in (self._firsts, self._offsets, self._terms, self._segments):
                del column[at:]
        self._firsts.append(place.first)
        self._offsets.append(place.offset)
        self._terms.append(place.term)
        self._segments.append(segment)
