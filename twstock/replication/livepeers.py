"""What ``rejoin`` reads from the other members of a lost one's group while they run.

Only committed entries are pulled, which never change, whoever leads meanwhile. They are enough
once they are at least as up to date as the log of each of the others was when it was asked, after
the lost member last ran: then they include all that it acknowledged and that is, or may still be,
committed.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Protocol

from twstock.errors import StorageError, Unavailable
from twstock.replication.compaction import up_to
from twstock.replication.messages import Committed, Entry, EntryKind, HardState
from twstock.replication.promises import Owner
from twstock.replication.rejoin import Kept, keep_snapshot, promised
from twstock.replication.snapshots import Snapshot
from twstock.rpc.calls import Fetch, FetchSnapshot, Peer, SnapshotPiece, Status

PATIENCE_S = 30.0
"""After this long without a new entry there is no hope. Each call to a member that hangs takes its
whole deadline, so time counts, not the number of calls.
"""
JOINING = "joining"


class LivePeer(Protocol):
    """Another member, asked with calls that block and raise Unavailable."""

    def status(self, asker: Peer) -> Status:
        """Its status, with the incarnation by which it knows the asker."""

    def fetch(self, fetch: Fetch) -> Committed:
        """Committed entries after an index, as many as one message takes."""

    def fetch_snapshot(self, fetch: FetchSnapshot) -> SnapshotPiece:
        """A piece of a snapshot, as much as one message takes."""


def at_most(term: int, last_index: int) -> Kept:
    """The most that a member in ``term`` can have: the last entry of its log may be older."""
    return Kept(HardState(term), term, last_index)


class LivePeers:
    """A ``Source`` that asks ``others``: all other members, by id.

    ``pause`` waits a moment, for the others to elect a leader or for one of them to come back; it
    is given the reason in words. ``now`` returns the seconds of a clock that never goes back.
    """

    def __init__(
        self,
        me: Peer,
        others: Mapping[int, LivePeer],
        pause: Callable[[str], None],
        now: Callable[[], float],
    ) -> None:
        self._me = me
        self._others = others
        self._pause = pause
        self._now = now
        self._told: list[Kept] = []
        self.begins_after = 0
        self._enough: tuple[float, float] = (inf, inf)
        self._last = Entry(0, 0, EntryKind.NOOP)

    def incarnations(self) -> dict[int, int]:
        """The incarnations of all members. Raises StorageError if the others do not agree on the
        lost member's.
        """
        if not self._others:
            alone = f"{self._name(self._me.id)} is alone in its group, so nobody is to be asked"
            raise StorageError(f"{alone}: put its directory back, or restore a backup")
        statuses = self._ask()
        lost = {status.knows_asker_as for status in statuses}
        if len(lost) > 1:
            raise StorageError(f"the others do not agree who {self._name(self._me.id)} was")
        self._me = replace(self._me, incarnation=lost.pop())
        return {s.id: s.incarnation for s in statuses} | {self._me.id: self._me.incarnation}

    def snapshot(self, directory: Path) -> Snapshot | None:
        """Fetch a snapshot that has what any of them dropped; None if none dropped anything.
        Entries are pulled from where the logs of all of them begin. Raises Unavailable, after a
        while, when no snapshot arrives whole, or one of them does not answer.
        """
        began = self._now()
        while True:
            try:
                snapshot = self._snapshot(directory)
            except Unavailable as error:
                self._wait(began, str(error))
                continue
            if snapshot is not None:
                term = up_to(snapshot.runs, self.begins_after)[-1].term
                self._last = Entry(self.begins_after, term, EntryKind.NOOP)
            return snapshot

    def entries(self) -> Iterator[Entry]:
        """Pull what they have committed, until that is enough. Raises Unavailable, after a while,
        when they have no leader, or one of them does not answer.
        """
        advanced = self._now()
        while True:
            before = self._last
            problem = "the others commit nothing more: have they a leader?"
            try:
                statuses = self._ask()
                told = [at_most(status.term, status.last_index) for status in statuses]
                self._told += told
                # What once was enough still is. Under load they have more each time.
                self._enough = min(self._enough, max(kept.end for kept in told))
                yield from self._pull(statuses)
            except Unavailable as error:
                problem = str(error)
            else:
                if self._has_enough:
                    return
            if self._last is before:
                self._wait(advanced, problem)
            else:
                advanced = self._now()

    def state(self) -> HardState:
        """What the lost member may have promised."""
        return promised(self._me.id, self._told)

    def __str__(self) -> str:
        """The names of the others."""
        return ", ".join(map(self._name, sorted(self._others)))

    def _wait(self, since: float, problem: str) -> None:
        """Pause. Raises Unavailable if nothing has arrived for too long."""
        if self._now() - since >= PATIENCE_S:
            raise Unavailable(problem)
        self._pause(problem)

    def _ask(self) -> list[Status]:
        """The status of each of them, now."""
        return [self._checked(i, peer.status(self._me)) for i, peer in self._others.items()]

    def _checked(self, number: int, status: Status) -> Status:
        me, name = self._me, self._name(number)
        if (status.group, status.cluster_id, status.id) != (me.group, me.cluster_id, number):
            found = f"{status.group}-{status.id} of cluster {status.cluster_id}"
            raise StorageError(
                f"at the address of {name} of cluster {me.cluster_id} answers {found}: "
                "the configuration is wrong"
            )
        # A member that is not asked may be the only one with what the lost one acknowledged.
        if set(status.members) != {me.id, *self._others}:
            raise StorageError(
                f"{name} is in a group of {sorted(status.members)}, the configuration has "
                f"{sorted({me.id, *self._others})}: take the one that {name} has"
            )
        if status.role == JOINING:
            raise Unavailable(f"{name} does not take part in its group: {status.reason}")
        if not status.knows_asker_as:
            raise StorageError(f"{name} does not know {self._name(me.id)}")
        return status

    def _snapshot(self, directory: Path) -> Snapshot | None:
        """The first snapshot that arrives whole and has what each of them dropped. The member that
        dropped most is asked first, a follower before the leader.
        """
        statuses = self._ask()
        dropped = self.begins_after = max(status.first_index for status in statuses) - 1
        if dropped == 0:
            return None
        problems = []
        for status in sorted(statuses, key=lambda s: (-s.first_index, s.id == s.leader_id)):
            try:
                return self._pull_snapshot(status.id, dropped, directory)
            except Unavailable as error:  # another one may have one, too
                problems.append(str(error))
        raise Unavailable("; ".join(problems))

    def _pull_snapshot(self, number: int, dropped: int, directory: Path) -> Snapshot:
        first = self._others[number].fetch_snapshot(FetchSnapshot(self._me))
        if first.index < dropped:
            up_to = f"up to {first.index}, and entries up to {dropped} were dropped"
            raise Unavailable(f"{self._name(number)} has a snapshot {up_to}")
        owner = Owner(self._me.group, self._me.cluster_id, self._me.id, ())
        snapshot = keep_snapshot(self._pieces(number, first), first.index, owner, directory)
        if snapshot is None:
            raise Unavailable(f"the snapshot of {self._name(number)} has not come as it was made")
        return snapshot

    def _pieces(self, number: int, piece: SnapshotPiece) -> Iterator[bytes]:
        """All pieces of the snapshot that begins with ``piece``, even if there is a newer one."""
        index, size, offset = piece.index, piece.size, len(piece.content)
        yield piece.content
        while offset < size:
            piece = self._others[number].fetch_snapshot(FetchSnapshot(self._me, index, offset))
            if not piece.content:
                raise Unavailable(f"the snapshot of {self._name(number)} ends before its end")
            offset += len(piece.content)
            yield piece.content

    def _pull(self, statuses: list[Status]) -> Iterator[Entry]:
        """Pull what one of them has committed, until that is enough or there is no more. Members
        that have not dropped the next entry come first, then followers, because the leader has
        other things to do.
        """
        last = self._last
        more = [status for status in statuses if status.commit > last.index]
        if not more:
            return
        most = max(
            more, key=lambda s: (s.first_index <= last.index + 1, s.id != s.leader_id, s.commit)
        )
        while not self._has_enough:
            last = self._last
            pulled = self._others[most.id].fetch(Fetch(self._me, last.index))
            # The sender has reached the term that committed these, and so must the lost one.
            self._told.append(at_most(pulled.term, 0))
            if not pulled.entries:
                return  # there is no more, or it was restarted and knows less for a while
            if (pulled.prev_index, pulled.prev_term) != (last.index, last.term):
                name = self._name(most.id)
                raise StorageError(f"{name} has committed something else up to {last.index}")
            for entry in pulled.entries:
                self._last = entry
                yield entry

    @property
    def _has_enough(self) -> bool:
        """Whether what was pulled is as up to date as all of them were in one of the rounds."""
        return (self._last.term, self._last.index) >= self._enough

    def _name(self, number: int) -> str:
        return f"{self._me.group}-{number}"
