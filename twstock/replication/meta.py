"""The file ``meta``: the promises, flushed one by one, and the mark, flushed when idle."""

from dataclasses import replace

from twstock.errors import CorruptStorage, StorageError
from twstock.replication.disk import META, Directory
from twstock.replication.promises import (
    META_BYTES,
    Owner,
    Promise,
    encode_mark,
    encode_promise,
    mark_offset,
    promise_offset,
    read_meta,
)
from twstock.replication.records import Identity, Position


class MetaFile:
    """What a member must never forget, in a file that is never moved or resized.

    A new promise goes into the slot that does not hold the present one, so a torn write leaves
    that intact. When idle it is repeated in the other slot, so that one damaged page takes no
    promise back. If the page of a promise is damaged before that, the mark reveals it, because
    it names the newest promise.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._fd = -1
        self._promise: Promise
        self._mark: Position | None = None
        self._mark_sequence = 0
        self._mark_damaged = False
        self._slot = 0
        self._in_both = False
        self._flushed = True

    @property
    def promise(self) -> Promise:
        """The newest promise, durable."""
        return self._promise

    @property
    def mark(self) -> Position | None:
        """How far the log was durable when the mark was written; None: there is no good mark."""
        return self._mark

    @property
    def mark_damaged(self) -> bool:
        """Whether marks were written, but none can be read."""
        return self._mark_damaged

    @property
    def identity(self) -> Identity:
        """The identity in the headers of this directory's segments."""
        return self._promise.owner.identity(self._promise.origin)

    @property
    def is_new(self) -> bool:
        """Whether no promise and no mark was written since the directory was made."""
        return self._promise.sequence == 1 and self._mark is None and not self._mark_damaged

    @property
    def is_settled(self) -> bool:
        """Whether ``settle`` has nothing to do."""
        return self._flushed

    def create(self, owner: Owner, incarnation: int, origin: int) -> None:
        """Make the file with its first promise in both slots; it appears whole or not at all."""
        page = encode_promise(Promise(owner, incarnation, origin))
        self._directory.make_file(META, (page + page).ljust(META_BYTES, b"\0"))
        self.open(owner)

    def open(self, owner: Owner) -> None:
        """Read the file. Raises StorageError when it is not ``owner``'s, or damaged."""
        self._fd = self._directory.open_file(META)
        meta = read_meta(self._directory.read_from_disk(self._fd))
        where = f"{self._directory.path / META}"
        promise, mark = meta.promise, meta.mark
        if promise is None:
            raise CorruptStorage(
                f"{where}, bytes 0 to {META_BYTES // 2}: neither copy of the term and the vote "
                "can be read; this member may have promised things that it cannot keep"
            )
        if promise.owner != owner:
            raise StorageError(f"{where} belongs to {promise.owner}, not to {owner}")
        if mark is not None and mark.origin != promise.origin:
            raise CorruptStorage(f"{where} has a mark of another incarnation of this member")
        if mark is not None and mark.promise > promise.sequence:
            raise CorruptStorage(
                f"{where}, bytes 0 to {META_BYTES // 2}: promise {mark.promise} was durable and "
                f"is gone; the newest that can be read is promise {promise.sequence}"
            )
        self._promise, self._slot = promise, meta.slot
        self._in_both = self._flushed = meta.in_both
        self._mark_damaged = meta.mark_damaged
        self._mark = mark.position if mark else None
        self._mark_sequence = mark.sequence if mark else 0

    def keep(self, promise: Promise) -> None:
        """Make ``promise`` durable in place of the present one."""
        promise = replace(promise, sequence=self._promise.sequence + 1)
        self._slot, self._in_both = 1 - self._slot, False
        self._write_promise(promise, self._slot)
        self._directory.flush(self._fd)
        self._promise = promise

    def note(self, position: Position) -> None:
        """Write a mark: the log is durable up to ``position``. Not flushed."""
        sequence, promise = self._mark_sequence + 1, self._promise
        content = encode_mark(sequence, promise.origin, promise.sequence, position)
        self._directory.pwrite(self._fd, content, mark_offset(sequence))
        self._mark, self._mark_sequence, self._flushed = position, sequence, False

    def settle(self) -> None:
        """Repeat the promise in the other slot, if that is still to be done, and flush."""
        if not self._in_both:
            self._write_promise(self._promise, 1 - self._slot)
        self.flush()
        self._in_both = True

    def flush(self) -> None:
        """Make the mark durable."""
        self._directory.flush(self._fd)
        self._flushed = self._in_both

    def _write_promise(self, promise: Promise, slot: int) -> None:
        self._directory.pwrite(self._fd, encode_promise(promise), promise_offset(slot))
