"""What ``rejoin`` reads from the other members' directories, each as the stopped member left it.

The directory of a running member will not do: a leader may count on an entry that the lost member
has, and that is not yet on the leader's own disk.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from twstock.config import Cluster
from twstock.errors import StorageError
from twstock.replication.disk import META
from twstock.replication.log import Log
from twstock.replication.messages import Entry, HardState
from twstock.replication.promises import Owner, Promise, read_meta
from twstock.replication.rejoin import Kept, keep_snapshot, most_up_to_date, promised
from twstock.replication.snapshots import Snapshot, Snapshots
from twstock.replication.storage import FileStorage

PIECE_ENTRIES = 1024
PIECE_BYTES = 1 << 20
"""How much of a log is in memory while it is copied."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """One directory, open."""

    path: Path
    promise: Promise
    log: Log

    @property
    def kept(self) -> Kept:
        return Kept(self.promise.hard_state, self.log.last_term, self.log.last_index)


class Copies:
    """A ``Source`` that reads the others' directories."""

    def __init__(self, group: str, member: int, others: Sequence[int], found: Sequence[_Copy]):
        self._name = f"{group}-{member}"
        self._group, self._member, self._others = group, member, others
        self._found = found
        self._kept = [copy.kept for copy in found]
        self.begins_after = 0

    def incarnations(self) -> dict[int, int]:
        """The incarnations of all members. Raises StorageError if the others do not agree on the
        lost member's, or have lost directories, too.
        """
        given = [copy.promise.owner.member_id for copy in self._found]
        if not self._others or sorted(given) != sorted(self._others):
            wanted = ", ".join(f"{self._group}-{other}" for other in sorted(self._others))
            wanted = wanted or "other members"
            raise StorageError(f"expected the directories of {wanted}, each once")
        # A member that is not formed has promised nothing, and does not know the lost one yet.
        formed = [copy.promise for copy in self._found if copy.promise.formed]
        if not formed:
            raise StorageError("the group has never been whole: start the member with no directory")
        lost = {promise.peers.get(self._member, 0) for promise in formed}
        if len(lost) > 1 or 0 in lost:
            raise StorageError(f"the others do not agree who {self._name} was")
        own = {copy.promise.owner.member_id: copy.promise.incarnation for copy in self._found}
        known = {member for promise in formed for member in promise.peers.items()}
        for member, incarnation in known:
            if own.get(member, incarnation) != incarnation:
                name = f"{self._group}-{member}"
                raise StorageError(f"{name} has lost its directory, too: what is there is new")
        return own | {self._member: lost.pop()}

    def snapshot(self, directory: Path) -> Snapshot | None:
        """Copy the newest snapshot that belongs to the chosen log; None if that is complete.

        Raises StorageError if there is none that is intact and fits.
        """
        copy, owner = self._chosen, self._chosen.promise.owner
        dropped = copy.log.first_index - 1
        if dropped == 0:
            return None
        found = Snapshots(copy.path, owner.identity(0).cluster).newest()
        if found is None or not dropped <= found.index <= copy.log.last_index:
            has = (
                "none that is intact" if found is None else f"only one of those up to {found.index}"
            )
            raise StorageError(
                f"{copy.path}: the log has entries {dropped + 1} to {copy.log.last_index}, which "
                f"takes a snapshot of those before, and there is {has}"
            )
        kept = keep_snapshot(found.content(), found.index, owner, directory)
        if kept is None:
            raise StorageError(f"{found.path} was not copied as it is")
        self.begins_after = dropped
        return kept

    def entries(self) -> Iterator[Entry]:
        """The log that would win an election among the others."""
        log, index = self._chosen.log, self.begins_after
        while index < log.last_index:
            for entry in log.slice(index + 1, PIECE_ENTRIES, PIECE_BYTES):
                yield entry
                index = entry.index

    def state(self) -> HardState:
        """What the lost member may have promised."""
        return promised(self._member, self._kept)

    def __str__(self) -> str:
        """The directory whose log was chosen."""
        return str(self._chosen.path)

    @property
    def _chosen(self) -> _Copy:
        return self._found[most_up_to_date(self._kept)]


@contextmanager
def opened(cluster: Cluster, group: str, member: int, paths: Sequence[Path]) -> Iterator[Copies]:
    """Open the directories of all other members of the group, or copies of them, each as the
    stopped member left it after the lost one last ran. Raises StorageError or StorageUnavailable.
    """
    others = [replica.id for replica in cluster.replicas(group) if replica.id != member]
    with ExitStack() as stack:
        found = [stack.enter_context(_opened(cluster, group, path)) for path in paths]
        yield Copies(group, member, others, found)


@contextmanager
def _opened(cluster: Cluster, group: str, path: Path) -> Iterator[_Copy]:
    """Open another member's directory. Raises StorageError or StorageUnavailable if it is damaged,
    of another group, or in use.
    """
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
        yield _Copy(path, replace(promise, hard_state=loaded.hard_state), loaded.log)
    finally:
        storage.close()
