"""Backups as files: written as drafts and put in place when complete, read in chunks."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twstock.backup.journal import Event, Header, NewerFormat, encode
from twstock.backup.ledger import Ledger, merge
from twstock.backup.playback import Playback
from twstock.backup.sealed import CHUNK_BYTES, Damaged, sealed
from twstock.backup.source import Picture
from twstock.durable import draft, flush_path
from twstock.errors import TwstockError


class Exists(TwstockError):
    """The file or directory that was to be written exists already."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a complete backup holds; ``stocks`` counts those that there are in the end."""

    cluster_id: str
    at_ms: int
    last_transaction: int
    changes: int
    stocks: int

    @classmethod
    def of(cls, header: Header, ledger: Ledger) -> "Contents":
        """The contents according to a header, and to a ledger after the last event."""
        return cls(*header, ledger.end.changes, len(ledger.stocks()))

    def __str__(self) -> str:
        return f"{self.last_transaction} orders, {self.stocks} stocks, {self.changes} changes"

    def as_json(self) -> dict[str, Any]:
        """The contents in the words of JSON."""
        return asdict(self)


def write(
    path: Path,
    picture: Picture,
    at_ms: int,
    force: bool = False,
    done: Callable[[], None] = lambda: None,
) -> Contents:
    """Write a backup of what a picture shows, readable by its owner only, calling ``done`` after
    each order and change.

    Raises Exists, for a regular file unless ``force``, Unreachable, OSError, and Contradiction when
    the cluster does not agree with itself.
    """
    refuse_existing(path, force)
    header, ledger = Header(picture.cluster_id, at_ms, picture.last), Ledger(picture.began)
    events = merge(ledger, picture.trades(), picture.changes)
    with draft(path, when_whole=lambda: refuse_existing(path, force)) as file:
        file.writelines(sealed(_lines(header, picture, events, ledger, done)))
    return Contents.of(header, ledger)


def _lines(
    header: Header,
    picture: Picture,
    events: Iterable[Event],
    ledger: Ledger,
    done: Callable[[], None],
) -> Iterator[bytes]:
    yield encode(header)
    yield from map(encode, picture.began)
    for event in events:
        yield encode(event)
        done()
    yield encode(ledger.end)


def check(path: Path, done: Callable[[], None] = lambda: None) -> Contents:
    """Read a backup to its end, calling ``done`` after each order and change.

    Raises Damaged or NewerFormat, which name the file, and OSError.
    """
    with path.open("rb") as file:
        try:
            playback = Playback(iter(lambda: file.read(CHUNK_BYTES), b""))
            for _ in playback.events():
                done()
        except (Damaged, NewerFormat) as error:
            raise type(error)(f"{path}: {error}") from None
    return Contents.of(playback.header, playback.ledger)


def refuse_existing(path: Path, force: bool) -> None:
    """Raise Exists if there is a regular file, unless ``force``, or in any case if there is
    anything else: a backup would replace a device (``/dev/null``) or a link (``/dev/stdout``).
    """
    if not os.path.lexists(path):
        return
    if not stat.S_ISREG(path.lstat().st_mode):
        raise Exists(f"{path} is no regular file, and a backup would take its place")
    if not force:
        raise Exists(f"{path} exists; --force overwrites it")


def write_text(path: Path, text: str) -> None:
    """Write a small file; durable on return."""
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    flush_path(path.parent)
