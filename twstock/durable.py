"""What is to be on the disk before anybody relies on it, where no member runs.

A member's own files go through ``replication.disk.Files``, whose calls can be made to fail.
"""

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path


def flush_path(path: Path) -> None:
    """Have a file on the disk, or what was created, renamed and removed in a directory."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_csv(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    quoting: int = csv.QUOTE_MINIMAL,
) -> Path:
    """Write a CSV file aside and put it in place when it is whole and on disk. ``quoting`` tells
    the fields that are quoted, in the words of the csv module.
    """
    draft = path.with_name(f".{path.name}.new")
    with draft.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=quoting, lineterminator="\n")  # type: ignore[arg-type]
        writer.writerow(columns)
        writer.writerows(rows)
        file.flush()
        os.fsync(file.fileno())
    return draft.replace(path)
