"""A disk in memory that loses what was not flushed, fails the k-th call, and runs full."""

import errno
import os
from contextlib import suppress
from pathlib import Path
from random import Random

from twstock.replication.disk import Files

SECTOR = 512


class PowerCut(Exception):
    """The machine is off."""


class _Node:
    """A file: its content in the page cache and on the disk, and the writes in between."""

    def __init__(self) -> None:
        self.cached = bytearray()
        self.durable = bytearray()
        self.pending: list[tuple[int, bytes]] = []

    def write(self, content: bytes, offset: int) -> None:
        _put(self.cached, content, offset)
        for start in range(offset - offset % SECTOR, offset + len(content), SECTOR):
            first = max(start, offset)
            piece = content[first - offset : start + SECTOR - offset]
            self.pending.append((first, piece))

    def flush(self) -> None:
        for offset, piece in self.pending:
            _put(self.durable, piece, offset)
        self.pending = []

    def lose(self, random: Random) -> None:
        """Keep, of each sector, the writes up to a random one."""
        keep: dict[int, int] = {}
        chance = random.choice((0.1, 0.5, 0.9))
        for offset, piece in self.pending:
            sector = offset // SECTOR
            if keep.setdefault(sector, random.random() < chance):
                _put(self.durable, piece, offset)
                keep[sector] = random.random() < chance
        self.cached, self.pending = bytearray(self.durable), []


def _put(target: bytearray, content: bytes, offset: int) -> None:
    target.extend(bytes(max(0, offset + len(content) - len(target))))
    target[offset : offset + len(content)] = content


class SimulatedDisk(Files):
    """One directory. Of the calls that may fail, the one with the number ``fail_at`` does, with
    ``failure``: an errno, "short" for a short write, or "power" for a power cut.
    """

    def __init__(self, capacity: int = 1 << 40) -> None:
        self.capacity = capacity
        self.fail_at: int | None = None
        self.failure: int | str = errno.EIO
        self.calls = 0
        self.log: list[str] = []
        self._made = False
        self._shown: dict[str, _Node] = {}
        self._kept: list[dict[str, _Node]] = [{}]
        self._fds: dict[int, _Node | None] = {}
        self._locked: set[int] = set()
        self._next_fd = 3

    # what a test does to it

    def kill(self) -> None:
        """Kill the process: what was written stays in the page cache."""
        self._fds, self._locked, self.fail_at = {}, set(), None

    def cut_power(self, random: Random) -> None:
        """Lose any part of what was not flushed, sector by sector; renames in their order."""
        self.kill()
        self._shown = dict(random.choice(self._kept))
        self._kept = [dict(self._shown)]
        for node in self._shown.values():
            node.lose(random)

    def content(self, name: str) -> bytes:
        """Return what a file holds."""
        return bytes(self._shown[name].cached)

    def set_content(self, name: str, content: bytes) -> None:
        """Put ``content`` on the disk, behind the storage's back."""
        node = _Node()
        node.cached, node.durable = bytearray(content), bytearray(content)
        self._shown[name] = node

    def remove(self, name: str) -> None:
        """Remove a file for good."""
        del self._shown[name]
        self._kept = [dict(self._shown)]

    # what the storage calls

    def open(self, path: Path, flags: int) -> int:
        """Open or make a file, or open the directory."""
        self._count("open")
        node = None
        if not flags & os.O_DIRECTORY:
            if path.name not in self._shown:
                if not flags & os.O_CREAT:
                    raise FileNotFoundError(errno.ENOENT, path.name)
                self._shown[path.name] = _Node()
                self._renamed()
            node = self._shown[path.name]
            if flags & os.O_TRUNC:
                node.__init__()  # type: ignore[misc]
        self._next_fd += 1
        self._fds[self._next_fd] = node
        return self._next_fd

    def close(self, fd: int) -> None:
        """Close a descriptor, and release its lock."""
        del self._fds[fd]
        self._locked.discard(fd)

    def size(self, fd: int) -> int:
        """Return what the page cache shows."""
        return len(self._node(fd).cached)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """Read from the page cache."""
        self._count("pread")
        return bytes(self._node(fd).cached[offset : offset + size])

    def pwrite(self, fd: int, content: bytes, offset: int) -> int:
        """Write into the page cache."""
        node = self._node(fd)
        if self._count("pwrite", lambda: node.write(content, offset)):
            node.write(content[:-1], offset)
            return len(content) - 1
        grown = offset + len(content) - len(node.cached)
        if grown > 0 and self._used() + grown > self.capacity:
            raise OSError(errno.ENOSPC, "the simulated disk is full")
        node.write(content, offset)
        return len(content)

    def fdatasync(self, fd: int) -> None:
        """Make a file's writes durable."""
        node = self._node(fd)
        self._count("fdatasync", node.pending.clear)
        node.flush()

    def fsync(self, fd: int) -> None:
        """Make a file's writes, or the directory's names, durable."""
        node = self._fds[fd]
        if node is None:
            self._count("fsync directory")
            self._kept = [dict(self._shown)]
        else:
            self._count("fsync", node.pending.clear)
            node.flush()

    def drop_cache(self, fd: int) -> None:
        """Show what the disk holds, unless there are writes to flush."""
        node = self._node(fd)
        if not node.pending:
            node.cached = bytearray(node.durable)

    def lock(self, fd: int) -> None:
        """Lock per descriptor."""
        self._count("lock")
        if any(self._fds[other] is self._fds[fd] for other in self._locked):
            raise BlockingIOError(errno.EAGAIN, "locked")
        self._locked.add(fd)

    def is_directory(self, path: Path) -> bool:
        """Everything but the data directory is there from the start."""
        return self._made or path.name != "data"

    def make_directory(self, path: Path) -> None:
        """Make the data directory."""
        self._count("mkdir")
        self._made = True

    def protect(self, path: Path) -> None:
        """Change nothing."""
        self._count("chmod")

    def names(self, path: Path) -> list[str]:
        """Return the names that are shown."""
        return list(self._shown)

    def rename(self, old: Path, new: Path) -> None:
        """Rename in one step."""
        self._count("rename")
        self._shown[new.name] = self._shown.pop(old.name)
        self._renamed()

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        self._count("unlink")
        del self._shown[path.name]
        self._renamed()

    def free_bytes(self, path: Path) -> int:
        """Return what is left of the capacity."""
        return self.capacity - self._used()

    def _node(self, fd: int) -> _Node:
        node = self._fds[fd]
        assert node is not None
        return node

    def _renamed(self) -> None:
        self._kept.append(dict(self._shown))

    def _used(self) -> int:
        return sum(len(node.cached) for node in self._shown.values())

    def _count(self, call: str, half_done=lambda: None) -> bool:
        """Count a call, and fail it if it is its turn; returns whether to cut it short."""
        self.calls += 1
        self.log.append(call)
        if self.fail_at is None or self.calls != self.fail_at:
            return False
        if self.failure == "short":
            return call == "pwrite"
        if self.failure == "power":
            if call == "pwrite":
                half_done()
            raise PowerCut
        if call in ("fdatasync", "fsync") and self.failure == errno.EIO:
            half_done()  # the kernel marks the pages clean (fsyncgate)
        raise OSError(self.failure, os.strerror(int(self.failure)))


def open_below(path: Path) -> int:
    """How many descriptors this process has of ``path`` and what is below it. Others come and go
    by themselves: those of threads, and of what the garbage collector finds.
    """
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found += Path(os.readlink(f"/proc/self/fd/{number}")).is_relative_to(path)
    return found
