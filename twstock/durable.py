"""What is to be on the disk before anybody relies on it, where no member runs.

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
"""Less what the umask takes away."""


def flush_path(path: Path) -> None:
    """Have a file on the disk, or what was created, renamed and removed in a directory."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def draft(
    path: Path, mode: int = PRIVATE, when_whole: Callable[[], object] = lambda: None
) -> Iterator[BinaryIO]:
    """A new file beside ``path``, which takes its place when the block ends and all is on disk.

    Whoever writes the same at the same time has another draft. An error, also one of
    ``when_whole``, which is called just before, leaves ``path`` as it was and no draft.
    """
    aside = path.with_name(f".{path.name}.{token_hex(4)}.new")
    try:
        file = open(aside, "xb", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115
    except OSError as error:
        error.filename = str(path)  # what it is to be is what is known to who asked for it
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
    """Write a CSV file aside and put it in place when it is whole and on disk. ``quoting`` tells
    the fields that are quoted, in the words of the csv module.
    """
    with draft(path, mode) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, quoting=quoting, lineterminator="\n")  # type: ignore[arg-type]
        writer.writerow(columns)
        writer.writerows(rows)
        text.detach()
    return path
