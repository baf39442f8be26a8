"""Files that must be on disk before anything relies on them, for programs that are not members.

A member's own files go through ``replication.disk.Files``, whose calls can be made to fail.
"""

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

PRIVATE = 0o600
PUBLIC = 0o666
"""The umask takes away from this."""


def flush_path(path: Path) -> None:
    """Flush a file to disk; of a directory, what was created, renamed and removed in it."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def draft(
    path: Path, mode: int = PRIVATE, when_whole: Callable[[], object] = lambda: None
) -> Iterator[BinaryIO]:
    """A new file next to ``path``, which replaces it when the block ends and all is on disk.

    Concurrent writers have a draft each. ``when_whole`` is called just before the replacement.
    After an error, also one of ``when_whole``, ``path`` is as it was and the draft is gone.
    """
    aside = path.with_name(f".{path.name}.{token_hex(4)}.new")
    try:
        file = open(aside, "xb", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115
    except OSError as error:
        error.filename = str(path)  # the name that the caller knows
        raise
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        when_whole()
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    flush_path(path.parent)


def write_csv(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    quoting: int = csv.QUOTE_MINIMAL,
    mode: int = PUBLIC,
) -> Path:
    """Write a CSV file as a draft, and put it in place when it is complete and on disk. ``quoting``
    is a constant of the csv module.
    """
    with draft(path, mode) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, quoting=quoting, lineterminator="\n")  # type: ignore[arg-type]
        writer.writerow(columns)
        writer.writerows(rows)
        text.detach()
    return path
