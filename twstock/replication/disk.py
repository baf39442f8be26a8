"""A data directory: its system calls, its lock, and files that appear whole or not at all.

``Files`` is the seam at which tests fail the k-th system call or cut the power.
"""

import errno
import fcntl
import os
import re
from pathlib import Path
from zlib import crc32

from twstock.errors import DiskFull, StorageError, StorageUnavailable, told

META = "meta"
LOCK = "lock"
UNFINISHED = ".tmp"
PROBE = "probe" + UNFINISHED
ZEROS = bytes(1 << 20)
"""What one step of filling a file writes: little enough not to hold up a write for long."""

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_UNUSABLE = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ELOOP,
        errno.ENOLCK,
    }
)
_SEGMENT = re.compile(r"log-([0-9]+)\.seg")


class Files:
    """The system calls of a storage, nothing else."""

    def open(self, path: Path, flags: int) -> int:
        """Open ``path``; only its owner can use a new file."""
        return os.open(path, flags | os.O_CLOEXEC, 0o600)

    def close(self, fd: int) -> None:
        """Close ``fd``."""
        os.close(fd)

    def size(self, fd: int) -> int:
        """Return the size of the file in bytes."""
        return os.fstat(fd).st_size

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """Read up to ``size`` bytes."""
        return os.pread(fd, size, offset)

    def pwrite(self, fd: int, content: bytes, offset: int) -> int:
        """Write; return how many bytes were written."""
        return os.pwrite(fd, content, offset)

    def fdatasync(self, fd: int) -> None:
        """Flush a file whose metadata has not changed in a way that matters."""
        os.fdatasync(fd)

    def fsync(self, fd: int) -> None:
        """Flush a new file, or a directory."""
        os.fsync(fd)

    def drop_cache(self, fd: int) -> None:
        """Make the next read come from the disk: after a failed flush, cached pages only look
        written (ATC 2020, "Can applications recover from fsync failures?").
        """
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def lock(self, fd: int) -> None:
        """Take an exclusive lock. Raises BlockingIOError when another open file has it."""
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def is_directory(self, path: Path) -> bool:
        """Tell whether ``path`` is a directory."""
        return path.is_dir()

    def make_directory(self, path: Path) -> None:
        """Make the directory ``path``, which only its owner can use."""
        path.mkdir(mode=0o700)

    def protect(self, path: Path) -> None:
        """Take all rights to a directory away from other users."""
        path.chmod(0o700)

    def names(self, path: Path) -> list[str]:
        """Return the names in a directory."""
        return os.listdir(path)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file its name in one step."""
        os.rename(old, new)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        os.unlink(path)

    def free_bytes(self, path: Path) -> int:
        """Return how much space is free for unprivileged users."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize


def is_full(problem: OSError) -> bool:
    """Return whether ``problem`` is only a lack of space, which may pass."""
    return problem.errno in _NO_SPACE


def unusable(path: Path, problem: BaseException) -> StorageError | StorageUnavailable | None:
    """Why the directory ``path`` cannot be opened, in words for the operator; None if the file
    system is not the reason. A directory that another process uses may become free: that may be
    this member's previous process, which was killed but cannot end while the disk hangs.
    """
    if isinstance(problem, BlockingIOError):
        return StorageUnavailable(f"{path} is in use by another process")
    if isinstance(problem, DiskFull) or (isinstance(problem, OSError) and is_full(problem)):
        return StorageUnavailable(f"{path} has no room for a new log")
    if isinstance(problem, OSError) and problem.errno in _UNUSABLE:
        return StorageError(f"{path} cannot be used: {told(problem)}")
    return None


def has_no_room(path: Path, files: Files | None = None) -> bool:
    """Return whether writing into the directory ``path`` fails, and only for lack of space: what
    SQLite calls an I/O error may be a used-up quota. To find out, a file of zeros is made and
    removed, too large to fit into a little space that is left over.
    """
    files, probe = files or Files(), path / PROBE
    try:
        fd = files.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            done = 0
            while done < len(ZEROS):  # only writing the rest shows why a write was short
                done += files.pwrite(fd, ZEROS[done:], done)
            files.fsync(fd)
        finally:
            files.close(fd)
            files.unlink(probe)
    except OSError as problem:
        return is_full(problem)
    return False


def segment_name(sequence: int) -> str:
    """Return the file name of segment ``sequence``."""
    return f"log-{sequence:08d}.seg"


def seal_name(sequence: int) -> str:
    """Return the file name of the seal of segment ``sequence``."""
    return f"log-{sequence:08d}.seal"


class Directory:
    """A locked data directory and its open files. ``flushes`` counts finished flushes; any thread
    may read it.
    """

    def __init__(self, path: Path, files: Files) -> None:
        self.path = path
        self.files = files
        self.flushes = 0
        self._fds: set[int] = set()
        self._fd = -1

    def open(self) -> None:
        """Make the directory if it is missing, and lock it. ``unusable`` explains the errors."""
        self._make(self.path)
        self.files.protect(self.path)
        self._fd = self.open_file(".", os.O_RDONLY | os.O_DIRECTORY)
        self.files.lock(self.open_file(LOCK, os.O_RDWR | os.O_CREAT))
        self.flush_names()

    def close(self) -> None:
        """Close all open files, which also releases the lock."""
        while self._fds:
            self.files.close(self._fds.pop())

    def open_file(self, name: str, flags: int = os.O_RDWR) -> int:
        """Open a file of this directory; it is closed with the directory at the latest."""
        fd = self.files.open(self.path / name, flags)
        self._fds.add(fd)
        return fd

    def close_file(self, fd: int) -> None:
        """Close a file early."""
        self._fds.discard(fd)
        self.files.close(fd)

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted(self.files.names(self.path))

    def segments(self) -> list[tuple[int, str]]:
        """Return number and name of every segment, lowest number first."""
        found = [(_SEGMENT.fullmatch(name), name) for name in self.names()]
        return sorted((int(match[1]), name) for match, name in found if match)

    def unlink_segments(self, last: int) -> None:
        """Remove the segments up to number ``last``, each after its seal, which would not be found
        without it. A segment that reappears after a crash is removed again at the next start.
        """
        names = set(self.names())
        for number, name in self.segments():
            if number <= last:
                if seal_name(number) in names:
                    self.unlink(seal_name(number))
                self.unlink(name)

    def flush_names(self) -> None:
        """Make creations and renames durable."""
        self.flush_new(self._fd)

    def flush(self, fd: int) -> None:
        """Make what was written into a file durable."""
        self.files.fdatasync(fd)
        self.flushes += 1

    def flush_new(self, fd: int) -> None:
        """Make a new file or a directory durable."""
        self.files.fsync(fd)
        self.flushes += 1

    def publish(self, old: str, new: str) -> None:
        """Give a finished file its name, durably: otherwise a crash may lose it (etcd #6368)."""
        self.files.rename(self.path / old, self.path / new)
        self.flush_names()

    def unlink(self, name: str) -> None:
        """Remove a file that is not needed; after a crash it may be there again."""
        self.files.unlink(self.path / name)

    def pwrite(self, fd: int, content: bytes, offset: int) -> None:
        """Write all of ``content``. Raises OSError when less was written."""
        written = self.files.pwrite(fd, content, offset)
        if written != len(content):
            raise OSError(errno.EIO, f"only {written} of {len(content)} bytes were written")

    def renew(self, fd: int) -> None:
        """Make the next reads return what is on the disk, not what is in the page cache.

        What an earlier process wrote but never flushed is flushed first: it must be durable
        before it is believed (etcd #14143).
        """
        self.files.fdatasync(fd)
        self.files.drop_cache(fd)

    def read_from_disk(self, fd: int) -> bytes:
        """Return all of a file, as it is on the disk (``renew``)."""
        self.renew(fd)
        size = self.files.size(fd)
        content = self.files.pread(fd, size, 0)
        if len(content) != size:
            raise OSError(errno.EIO, f"only {len(content)} of {size} bytes could be read")
        return content

    def read_optional(self, name: str, size: int = 0) -> bytes:
        """Return the first ``size`` bytes of a file (0: all); empty if it cannot be read."""
        try:
            fd = self.open_file(name, os.O_RDONLY)
            try:
                return self.files.pread(fd, size or self.files.size(fd), 0)
            finally:
                self.close_file(fd)
        except OSError:
            return b""

    def checksum(self, fd: int, size: int) -> int:
        """Return the CRC-32 of the first ``size`` bytes, or of all if there are fewer."""
        checksum = offset = 0
        while offset < size:
            content = self.files.pread(fd, min(len(ZEROS), size - offset), offset)
            if not content:
                break
            checksum = crc32(content, checksum)
            offset += len(content)
        return checksum

    def make_file(self, name: str, content: bytes) -> None:
        """Make a file with ``content``, whole or not at all."""
        fd = self.open_file(name + UNFINISHED, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.pwrite(fd, content, 0)
        self.flush_new(fd)
        self.close_file(fd)
        self.publish(name + UNFINISHED, name)

    def make_optional(self, name: str, content: bytes) -> bool:
        """Make a file that can be done without, if there is space; return whether there was."""
        unfinished = name + UNFINISHED
        try:
            fd = self.open_file(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            try:
                whole = self.files.pwrite(fd, content, 0) == len(content)
                if whole:
                    self.flush_new(fd)
            finally:
                self.close_file(fd)
            if whole:
                self.publish(unfinished, name)
                return True
        except OSError as problem:
            if not is_full(problem):
                raise
        if unfinished in self.names():
            self.unlink(unfinished)
        return False

    def _make(self, path: Path) -> None:
        if not self.files.is_directory(path):
            self._make(path.parent)
            self.files.make_directory(path)
            self._flush_directory(path.parent)

    def _flush_directory(self, path: Path) -> None:
        fd = self.files.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.files.fsync(fd)
        finally:
            self.files.close(fd)
