"""Reads back from the segments the entries that the log no longer has in memory.

The reactor thread reads while the disk thread appends to the last segment: DESIGN.md says why
that is safe. If an entry is not as it was written, the process must end.
"""

import os
from pathlib import Path
from threading import Lock

from twstock.errors import BrokenInvariant, CorruptStorage
from twstock.replication.disk import Files, segment_name
from twstock.replication.messages import Entry
from twstock.replication.places import Places, Run
from twstock.replication.records import (
    SPACING_BYTES,
    decode_run,
    frame_end,
)

CHUNK_BYTES = SPACING_BYTES + 4096
"""How much is read at a time: enough for a run with its last entry, unless that is a large one."""


class Archive:
    """Reads entries by their index. ``lock`` guards ``places``."""

    def __init__(self, path: Path, files: Files, places: Places, lock: Lock) -> None:
        self._path = path
        self._files = files
        self._places = places
        self._lock = lock

    def read(self, first: int, last: int, bytes_max: int) -> list[Entry]:
        """The entries ``first`` to ``last``, or fewer: it stops after the entry with which the
        payloads exceed ``bytes_max``. Always at least one.

        Raises CorruptStorage when an entry is not as it was written.
        """
        entries: list[Entry] = []
        while first <= last and (bytes_max >= 0 or not entries):
            with self._lock:
                run = self._places.find(first)
            if run is None:
                raise BrokenInvariant(f"entry {first} is nowhere on disk")
            stop = last + 1 if run.stop == 0 else min(last + 1, run.stop)
            found = self._read_run(run, first, stop, max(bytes_max, 0))
            bytes_max -= sum([len(entry.payload) for entry in found])
            entries += found
            first = entries[-1].index + 1
        return entries

    def _read_run(self, run: Run, first: int, stop: int, bytes_max: int) -> list[Entry]:
        """The entries of one run from ``first`` on: at least one."""
        path = self._path / segment_name(run.segment)
        entries: list[Entry] = []
        index, offset, term = run.place
        fd = self._files.open(path, os.O_RDONLY)
        try:
            while index < stop and bytes_max >= 0:
                content = self._chunk(fd, offset)
                found = decode_run(content, index, term, first, stop, bytes_max)
                if not found.offset:
                    raise CorruptStorage(
                        f"{path}, byte {offset}: entry {index} is not as it was written, "
                        "although it was durable"
                    )
                bytes_max -= sum([len(entry.payload) for entry in found.entries])
                entries += found.entries
                offset, index = offset + found.offset, found.next_index
        finally:
            self._files.close(fd)
        return entries

    def _chunk(self, fd: int, offset: int) -> bytes:
        """The bytes from ``offset`` on: a chunk, or a larger first frame if that is in the file."""
        content = self._files.pread(fd, CHUNK_BYTES, offset)
        wanted = frame_end(content)
        if CHUNK_BYTES < wanted <= self._files.size(fd) - offset:
            content = self._files.pread(fd, wanted, offset)
        return content
