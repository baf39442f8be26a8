"""Segments made ahead: files full of zeros that the log takes when it needs another segment."""

import errno
import os
from enum import Enum
from typing import NamedTuple

from twstock.errors import DiskFull
from twstock.replication.disk import UNFINISHED, ZEROS, Directory, is_full
from twstock.replication.records import used_end

_SPARE = "spare-"


class Upkeep(Enum):
    """What is left to do after a step of upkeep: nothing, more at once, or a spare segment for
    which there is no space now.
    """

    DONE = "done"
    GOES_ON = "goes on"
    NO_SPACE = "no space"


class Spare(NamedTuple):
    """A file full of zeros, durable, open, and not part of the log yet."""

    fd: int
    name: str
    size: int


class Spares:
    """Makes segments ahead. They are filled with zeros, because a flush of a block that was never
    written has to change metadata (``posix_fallocate`` alone writes nothing).
    """

    def __init__(self, directory: Directory, segment_bytes: int, wanted: int) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._wanted = wanted
        self._ready: list[Spare] = []
        self._making: Spare | None = None
        self._filled = 0
        self._number = 0

    def adopt(self) -> None:
        """Take over the spares of an earlier process; remove what is unfinished or was used.

        A spare is all zeros unless a crash came just before it was renamed to a segment.
        Adopting needs no space, so a restart on a full disk does not lose the room there was.
        """
        self._ready, self._making, self._number = [], None, 0
        for name in self._directory.names():
            if name.endswith(UNFINISHED) or (name.startswith(_SPARE) and not self._adopt(name)):
                self._directory.unlink(name)

    def __len__(self) -> int:
        """How many spares are ready."""
        return len(self._ready)

    def room_bytes(self) -> int:
        """Return the size of the largest spare."""
        return max((spare.size for spare in self._ready), default=0)

    def take(self, size: int) -> Spare | None:
        """Return a spare of at least ``size`` bytes; it no longer counts as one."""
        for spare in self._ready:
            if spare.size >= size:
                self._ready.remove(spare)
                return spare
        return None

    def make(self, size: int) -> Spare:
        """Make a spare of at least ``size`` bytes now. Raises DiskFull."""
        size = max(size, self._segment_bytes)
        if self._making is not None and self._making.size < size:
            self._abandon()
        try:
            while (spare := self._step(size)) is None:
                pass
        except OSError as problem:
            self._give_up(problem)
            raise DiskFull(f"{self._directory.path} has no room for {size} bytes more") from None
        return spare

    def settle(self, pieces: int) -> Upkeep:
        """Do ``pieces`` steps towards the next spare; return whether more is to be done.

        Without space, try again only after a pause: each try may fill what space there is in vain,
        because not every quota shows before it is used up.
        """
        if len(self._ready) >= self._wanted:
            return Upkeep.DONE
        spare = None
        try:
            while spare is None and pieces > 0:
                spare, pieces = self._step(self._segment_bytes), pieces - 1
        except OSError as problem:
            self._give_up(problem)
            return Upkeep.NO_SPACE
        if spare is not None:
            self._ready.append(spare)
        return Upkeep.GOES_ON if len(self._ready) < self._wanted else Upkeep.DONE

    def _adopt(self, name: str) -> bool:
        number = name.removeprefix(_SPARE)
        fd = self._directory.open_file(name)
        content = self._directory.read_from_disk(fd)
        empty = len(content) == self._segment_bytes and used_end(content, 0) == 0
        if not (number.isdecimal() and empty):
            self._directory.close_file(fd)
            return False
        self._number = max(self._number, int(number))
        self._ready.append(Spare(fd, name, len(content)))
        return True

    def _step(self, size: int) -> Spare | None:
        """Fill one more block of the unfinished spare; return it when it is finished."""
        files = self._directory.files
        fd, name, size = self._making or self._begin(size)
        block = ZEROS[: size - self._filled]
        if files.pwrite(fd, block, self._filled) < len(block):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._directory.flush(fd)
        self._filled += len(block)
        if self._filled < size:
            return None
        self._directory.flush_new(fd)
        self._directory.publish(name + UNFINISHED, name)
        self._making = None
        return Spare(fd, name, size)

    def _begin(self, size: int) -> Spare:
        if self._directory.files.free_bytes(self._directory.path) < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        name = f"{_SPARE}{self._number + 1}"
        fd = self._directory.open_file(name + UNFINISHED, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self._making = Spare(fd, name, size)
        self._filled = 0
        self._number += 1
        return self._making

    def _give_up(self, problem: OSError) -> None:
        """Remove the unfinished spare if the disk is full; raise any other problem."""
        if not is_full(problem):
            raise problem
        self._abandon()

    def _abandon(self) -> None:
        if self._making is not None:
            making, self._making = self._making, None
            self._directory.close_file(making.fd)
            for name in {making.name + UNFINISHED, making.name}.intersection(
                self._directory.names()
            ):
                self._directory.unlink(name)
