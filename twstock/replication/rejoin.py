"""A directory for a member that has lost its own, made from what all other members have.

Such a member has made promises that it no longer knows: entries that it acknowledged, votes that it
gave. But an acknowledgement counts only together with those of others, and each candidate had its
term on disk before it asked for votes. So what the others have, each asked at any time after the
lost one last ran, is enough to keep all of its promises:

- A committed entry is on a majority, so at least one of the others has it, and then so has the one
  whose log is the most up to date (Raft section 5.4: leader completeness, and log matching).
- No term in which it voted for another is higher than the highest of theirs; its vote in that
  term counts as given, and it votes only in newer ones.

What they have dropped from their logs is committed, and a snapshot of any of them stands in for it.
The member need not have any other entries: it catches up like any member that was down. DESIGN.md
has the argument in full, for copies of the others' directories (``copies``) and for others that run
(``livepeers``).
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from twstock.config import Cluster, resolved
from twstock.durable import draft, flush_path
from twstock.errors import StorageError
from twstock.replication.compaction import up_to
from twstock.replication.disk import META
from twstock.replication.messages import Entry, HardState
from twstock.replication.offline import LogWriter, flush
from twstock.replication.promises import Owner
from twstock.replication.snapshots import Snapshot, name, read

FRESH = {"lost+found"}
"""What an empty file system may contain."""
UNFINISHED = ".rejoin"
"""Where the directory is made, inside its target, which may be a disk of its own."""
OURS = {*FRESH, UNFINISHED}
"""What the target may contain until the files are moved there."""


class Kept(NamedTuple):
    """What another member has: its term and vote, and how its log ends."""

    state: HardState
    last_term: int
    last_index: int

    @property
    def end(self) -> tuple[int, int]:
        """What decides which of two logs is more up to date (Raft section 5.4.1)."""
        return self.last_term, self.last_index


def most_up_to_date(others: Sequence[Kept]) -> int:
    """The position of the one whose log the lost member continues."""
    ends = [kept.end for kept in others]
    return ends.index(max(ends))


def promised(member: int, others: Sequence[Kept]) -> HardState:
    """The term that the lost member may have reached, with its vote spent on itself."""
    return HardState(max(kept.state.term for kept in others), member)


class Source(Protocol):
    """All other members of a lost one's group, or copies of their directories."""

    def incarnations(self) -> Mapping[int, int]:
        """The incarnations of all members, the lost one's as the others know it."""

    @property
    def begins_after(self) -> int:
        """The entry after which the others' logs begin; known once ``snapshot`` has returned."""

    def snapshot(self, directory: Path) -> Snapshot | None:
        """Put a snapshot into ``directory`` that stands in for the entries that the others' logs
        have dropped, and perhaps for some later ones; None: they have dropped none.
        """

    def entries(self) -> Iterator[Entry]:
        """The log that the lost member continues, from ``begins_after`` on.

        It includes entries that the snapshot has: a member that is behind may need them from here.
        """

    def state(self) -> HardState:
        """What the lost member may have promised, once all entries were read."""

    def __str__(self) -> str:
        """Whose log it is, once all entries were read."""


@dataclass(frozen=True, slots=True)
class Rejoined:
    """What was made: the member's directory with the log of ``source`` up to ``last_index``."""

    path: Path
    source: str
    last_index: int
    term: int


def rejoin(
    cluster: Cluster,
    group: str,
    member: int,
    source: Source,
    target: Path,
    copied: Callable[[], None] = lambda: None,
) -> Rejoined:
    """Fill the directory ``target`` for a member that has lost its own (blocks); it must be empty,
    and is made if it is not there. ``copied`` is called for each entry.

    Raises StorageError, StorageUnavailable or what the source raises; nothing is filled then.
    """
    real = resolved(target)  # under systemd a member's data is behind a symbolic link
    if real is None:
        raise StorageError(f"{target}: symbolic links that lead in a circle")
    with _directory(real) as path:
        incarnations, snapshot = source.incarnations(), source.snapshot(path)
        last_index = source.begins_after
        begins_after = (last_index, up_to(snapshot.runs, last_index)) if snapshot else None
        writer = LogWriter(cluster, group, member, incarnations, HardState(), path, begins_after)
        try:
            for entry in source.entries():
                writer.append(entry)
                last_index = entry.index
                copied()
            state = source.state()
            writer.promise(state)
            writer.close()
        except BaseException:
            writer.abandon()
            raise
    return Rejoined(real, str(source), last_index, state.term)


def keep_snapshot(
    content: Iterable[bytes], index: int, owner: Owner, directory: Path
) -> Snapshot | None:
    """Write the ``content`` of another member's snapshot into ``directory``. Returns None, and
    leaves nothing, if it is damaged, not at ``index``, or not of ``owner``'s cluster and group.
    """
    path = directory / name(index)
    with draft(path) as file:
        file.writelines(content)
    snapshot = read(path, owner.identity(0).cluster)
    if snapshot is not None and snapshot.index == index and snapshot.is_intact():
        return snapshot
    path.unlink()
    return None


@contextmanager
def _directory(target: Path) -> Iterator[Path]:
    """Where to make the directory; its files appear in ``target`` all together, or not at all."""
    was_there, unfinished = target.exists(), target / UNFINISHED
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_empty(target, "move what is in it away for good")
    try:
        unfinished.mkdir(mode=0o700)
    except FileExistsError:
        words = "rejoin is at work there; if not, it was killed, and this is to be removed"
        raise StorageError(f"{unfinished}: {words}") from None
    try:
        yield unfinished
        _give(unfinished, target.stat())
        flush(unfinished)
        _check_empty(target, "is the member running? stop it and begin again")
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not was_there and not any(target.iterdir()):
            target.rmdir()
        raise
    _move(unfinished, target)


def _check_empty(target: Path, words: str) -> None:
    """Raise StorageError, with the advice ``words``, if ``target`` has anything but ``OURS``."""
    if found := sorted({path.name for path in target.iterdir()} - OURS):
        raise StorageError(f"{target} is not empty ({found[0]}): {words}")


def _give(unfinished: Path, owner: os.stat_result) -> None:
    """Give the files to the ``owner`` of the target: root may make them for a service."""
    for path in unfinished.iterdir():
        os.chown(path, owner.st_uid, owner.st_gid)


def _move(unfinished: Path, target: Path) -> None:
    """Put the files in their place, ``meta`` last: without it they are no member's directory."""
    for path in sorted(unfinished.iterdir(), key=lambda path: path.name == META):
        os.rename(path, target / path.name)
    unfinished.rmdir()
    for changed in (target, target.parent):
        flush_path(changed)
