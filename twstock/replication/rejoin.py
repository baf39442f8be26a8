"""A directory for a member that has lost its own, made from those of all other members.

Such a member has promised things that it cannot know any more: entries that it acknowledged, votes
that it gave. But what it acknowledged counted only if others had it, too, and whoever it voted for
had the term on disk before it asked. So the others' directories, each as a *stopped* member left
it at any time after the lost one was used last, tell enough to keep all of its promises. (A copy of
one at work may lack what its process counts on: that the lost member has an entry which is not yet
on its own disk.)

- A committed entry is on a majority, so at least one of the others has it, and then so has the one
  whose log is the most up to date (Raft section 5.4: leader completeness, and log matching).
- No term in which it voted for another is higher than the highest of theirs; its vote in that
  term is taken as given, and it votes only in newer ones.

What it never promised it need not have: it catches up like any member that was down.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from twstock.config import Cluster
from twstock.durable import flush_path
from twstock.errors import StorageError
from twstock.replication.disk import META
from twstock.replication.log import Log
from twstock.replication.messages import HardState
from twstock.replication.offline import LogWriter, flush
from twstock.replication.promises import Owner, Promise, read_meta
from twstock.replication.storage import FileStorage

FRESH = {"lost+found"}
"""What an empty disk may hold."""
UNFINISHED = ".rejoin"
"""Where a directory is made, in the place where it is to be: that may be a disk of its own."""
PIECE_ENTRIES = 1024
PIECE_BYTES = 1 << 20
"""How much of a log is in memory while it is copied."""


class Kept(NamedTuple):
    """What another member has on its disk: its term and vote, and how its log ends."""

    state: HardState
    last_term: int
    last_index: int


def most_up_to_date(others: Sequence[Kept]) -> int:
    """The position of the one whose log the lost member continues."""
    ends = [(kept.last_term, kept.last_index) for kept in others]
    return ends.index(max(ends))


def promised(member: int, others: Sequence[Kept]) -> HardState:
    """The term that the lost member may have reached, with its vote given to itself alone."""
    return HardState(max(kept.state.term for kept in others), member)


@dataclass(frozen=True, slots=True)
class Rejoined:
    """What was made: the member's directory with so many entries, those of ``source``."""

    path: Path
    source: Path
    last_index: int
    term: int


@dataclass(frozen=True, slots=True)
class _Source:
    path: Path
    promise: Promise
    log: Log

    @property
    def kept(self) -> Kept:
        return Kept(self.promise.hard_state, self.log.last_term, self.log.last_index)


def rejoin(
    cluster: Cluster,
    group: str,
    member: int,
    sources: Sequence[Path],
    target: Path,
    copied: Callable[[], None] = lambda: None,
) -> Rejoined:
    """Fill the directory ``target`` for a member that has lost its own (blocks); it must be empty,
    and is made if it is not there.

    ``sources`` are the directories of all other members of its group, or copies, each as the
    stopped member left it after the lost one was used last. ``copied`` is called for each entry.
    Raises StorageError or StorageUnavailable, having filled nothing.
    """
    target = target.resolve()  # systemd has a link where a member's data is
    if target.exists() and not (target.is_dir() and {p.name for p in target.iterdir()} <= FRESH):
        raise StorageError(f"{target} is not empty: move what is in it away for good")
    with ExitStack() as stack:
        found = [stack.enter_context(_opened(cluster, group, path)) for path in sources]
        incarnations = _incarnations(cluster, group, member, found)
        others = [source.kept for source in found]
        chosen, state = found[most_up_to_date(others)], promised(member, others)
        was_there, unfinished = target.exists(), target / UNFINISHED
        try:
            unfinished.mkdir(mode=0o700, parents=True)
            writer = LogWriter(cluster, group, member, incarnations, state, unfinished)
            _copy(chosen.log, writer, copied)
            _give(unfinished, target.stat())
            flush(unfinished)
        except BaseException:
            shutil.rmtree(unfinished if was_there else target, ignore_errors=True)
            raise
        _move(unfinished, target)
        return Rejoined(target, chosen.path, chosen.log.last_index, state.term)


def _give(unfinished: Path, owner: os.stat_result) -> None:
    """Let the files belong to the owner of their directory: root may make them for a service."""
    for path in unfinished.iterdir():
        os.chown(path, owner.st_uid, owner.st_gid)


def _move(unfinished: Path, target: Path) -> None:
    """Put the files in their place, ``meta`` last: without it they are no member's directory."""
    for path in sorted(unfinished.iterdir(), key=lambda path: path.name == META):
        os.rename(path, target / path.name)
    unfinished.rmdir()
    for changed in (target, target.parent):
        flush_path(changed)


@contextmanager
def _opened(cluster: Cluster, group: str, path: Path) -> Iterator[_Source]:
    """Another member's directory, whole and not in use."""
    try:
        promise = read_meta((path / META).read_bytes()).promise
    except OSError as error:
        raise StorageError(f"{path} is no directory of a member: {error}") from None
    if promise is None:
        raise StorageError(f"{path / META} cannot be read")
    owner, members = promise.owner, tuple(sorted(r.id for r in cluster.replicas(group)))
    expected = Owner(group, cluster.cluster_id, owner.member_id, members)
    if replace(owner, members=tuple(sorted(owner.members))) != expected:
        raise StorageError(f"{path} belongs to {owner}, expected {expected}")
    limits = cluster.limits
    storage = FileStorage(
        path, owner, limits.segment_bytes, limits.spare_segments, lambda: promise.origin
    )
    loaded = storage.open()
    try:
        yield _Source(path, replace(promise, hard_state=loaded.hard_state), loaded.log)
    finally:
        storage.close()


def _incarnations(
    cluster: Cluster, group: str, member: int, found: Sequence[_Source]
) -> dict[int, int]:
    """Those of all members; the others have to agree on the lost one's."""
    others = {replica.id for replica in cluster.replicas(group)} - {member}
    given = [source.promise.owner.member_id for source in found]
    if not others or sorted(given) != sorted(others):
        wanted = ", ".join(f"{group}-{other}" for other in sorted(others)) or "other members"
        raise StorageError(f"expected the directories of {wanted}, each once")
    if not all(source.promise.formed for source in found):
        raise StorageError("the group has never been whole: start the member with no directory")
    lost = {source.promise.peers.get(member, 0) for source in found}
    if len(lost) > 1 or 0 in lost:
        raise StorageError(f"the others do not agree who {group}-{member} was")
    own = {source.promise.owner.member_id: source.promise.incarnation for source in found}
    return own | {member: lost.pop()}


def _copy(log: Log, writer: LogWriter, copied: Callable[[], None]) -> None:
    index = 0
    try:
        while index < log.last_index:
            for entry in log.slice(index + 1, PIECE_ENTRIES, PIECE_BYTES):
                writer.append(entry)
                index = entry.index
                copied()
        writer.close()
    except BaseException:
        writer.abandon()
        raise
