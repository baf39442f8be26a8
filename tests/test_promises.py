"""The bytes of ``meta``: promises and marks, and what is read of it when it is damaged."""

from zlib import crc32

import pytest

from tests.disks import SECTOR
from twstock.errors import StorageError
from twstock.replication.messages import HardState
from twstock.replication.promises import (
    META_BYTES,
    SLOT_BYTES,
    Owner,
    Promise,
    encode_mark,
    encode_promise,
    mark_offset,
    read_meta,
)
from twstock.replication.records import Position

OWNER = Owner("order", "test", 2, (1, 2, 3))


def meta_page(*promises: Promise | None, marks: tuple[bytes, ...] = ()) -> bytes:
    """A meta file with these promises and marks."""
    pages = [encode_promise(p) if p else bytes(SLOT_BYTES) for p in promises]
    return b"".join(pages + [m.ljust(SLOT_BYTES, b"\0") for m in marks]).ljust(META_BYTES, b"\0")


def test_promises_round_trip() -> None:
    """The newest promise is read back with all its fields, from whichever slot it is in."""
    old = Promise(OWNER, 5, 5)
    new = Promise(OWNER, 6, 5, HardState(9, 3), True, {1: 11, 3: 2**63 - 1}, 2)
    meta = read_meta(meta_page(old, new))
    assert (meta.promise, meta.slot, meta.in_both) == (new, 1, False)
    assert read_meta(meta_page(new, old)).slot == 0
    assert read_meta(meta_page(new, new)).in_both


def test_marks_round_trip_and_the_newest_counts() -> None:
    """Marks are written in turn, so if the newest cannot be read the one before is used; only if
    both are damaged none is known.
    """
    position = Position(3, 8192, 17, b"h" * 16)
    promise = Promise(OWNER, 5, 5)
    marks = [encode_mark(sequence, 5, 1, position) for sequence in (4, 5)]
    assert mark_offset(4) != mark_offset(5)
    meta = read_meta(meta_page(promise, promise, marks=(marks[0], marks[1])))
    assert meta.mark is not None
    assert (meta.mark.sequence, meta.mark.position) == (5, position)
    meta = read_meta(meta_page(promise, promise, marks=(marks[0], marks[1][:-1] + b"?")))
    assert meta.mark is not None
    assert meta.mark.sequence == 4
    assert not meta.mark_damaged
    assert read_meta(meta_page(promise, promise, marks=(b"?", b"?"))).mark_damaged
    assert not read_meta(meta_page(promise, promise)).mark_damaged


def test_a_mark_fits_into_a_sector() -> None:
    """A mark is no larger than what a disk writes as a whole."""
    assert len(encode_mark(2**63, 2**63, 2**63, Position(1, 2, 3, b"x" * 16))) <= SECTOR


def test_meta_of_another_format_is_named() -> None:
    """Another format is refused in words, and not taken for damage."""
    page = bytearray(meta_page(Promise(OWNER, 5, 5), None))
    page[16] = 9
    length = int.from_bytes(page[12:16], "little")
    crc = crc32(bytes(page[16 : 16 + length]), length)
    page[8:12] = crc.to_bytes(4, "little")
    with pytest.raises(StorageError, match="format 9"):
        read_meta(bytes(page))


def test_too_many_members_for_a_page() -> None:
    """A promise that does not fit into its slot is refused when it is encoded."""
    owner = Owner("order", "c", 1, tuple(range(1, 600)))
    with pytest.raises(StorageError, match="does not fit"):
        encode_promise(Promise(owner, 1, 1))
