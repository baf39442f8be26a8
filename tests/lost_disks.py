"""Disks that are permanently lost in a simulated world, and the new ones that their nodes get."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.oracle import extend
from tests.simulation import Node, World
from twstock.errors import Unavailable
from twstock.replication.compaction import TermRun, up_to
from twstock.replication.livepeers import LivePeers
from twstock.replication.log import Log
from twstock.replication.messages import Committed, Entry, HardState
from twstock.replication.rejoin import Kept, most_up_to_date, promised
from twstock.replication.replica import Replica
from twstock.replication.snapshots import Snapshot
from twstock.replication.standing import Role
from twstock.rpc.calls import Fetch, FetchSnapshot, Peer, SnapshotPiece, Status

GROUP, CLUSTER = "order", "simulated"
CANDIDATE = Role.CANDIDATE


class LostDisk:
    """A node's disk is permanently lost. Each other node is stopped at some time, and its disk is
    copied; from the copies a new disk is made for the lost node, which then starts.
    """

    def __init__(self, world: World, random: Random) -> None:
        self._world, self._random = world, random
        self._lost = random.choice(list(world.nodes.values()))
        self._copies: list[Copied] = []
        self._others = [node for node in world.nodes.values() if node is not self._lost]
        random.shuffle(self._others)
        self.is_over = False
        world.after(random.uniform(1, 4), self._lose)

    def run(self, seconds: float) -> None:
        """Let this much time pass."""
        self._world.run(seconds)

    def _lose(self) -> None:
        if self.is_over:
            return
        lose_disk(self._lost)
        self._world.after(self._random.random(), self._copy)

    def _copy(self) -> None:
        """Stop the next node for a moment, if it is not down, and copy its disk."""
        if self.is_over:
            return
        node = self._others[len(self._copies)]
        node.crash()
        self._world.after(self._random.random() * 0.3, node.start)
        self._copies.append(copied(node))
        if len(self._copies) < len(self._others):
            self._world.after(self._random.random() * 1.5, self._copy)
        else:
            self.finish()

    def finish(self) -> None:
        """Copy the disks that are not copied yet, and give the lost node a new one."""
        self.is_over = True
        if self._lost.has_disk:
            return
        for node in self._others[len(self._copies) :]:
            node.crash()
            self._copies.append(copied(node))
            node.start()
        kept = [
            Kept(copy.state, copy.entries[-1].term if copy.entries else 0, len(copy.entries))
            for copy in self._copies
        ]
        state = promised(self._lost.id, kept)
        chosen = self._copies[most_up_to_date(kept)]
        give_disk(self._lost, chosen._replace(state=state))


class Copied(NamedTuple):
    """What is on a disk: a log that begins after an entry, and the index of the newest snapshot."""

    state: HardState
    entries: list[Entry]
    begins_after: int
    snapshot: int


def copied(node: Node) -> Copied:
    """A copy of a stopped node's disk."""
    disk = node.disk
    snapshot = disk.snapshots[-1] if disk.dropped else 0
    return Copied(disk.state, list(disk.entries), disk.dropped, snapshot)


def lose_disk(node: Node) -> None:
    """A node loses its process and its disk."""
    node.crash()
    node.has_disk = False
    node.applied = node.disk.dropped = 0
    node.disk.snapshots = []
    node.asked.clear()
    node.world.oracle.loses_disk()


def give_disk(node: Node, made: Copied) -> None:
    """Start a node that has lost its disk with another one, and with a snapshot if its log does not
    begin with the first entry.
    """
    disk = node.disk
    disk.dropped, disk.snapshots = made.begins_after, [made.snapshot] if made.snapshot else []
    disk.state, disk.entries, disk.hashes = made.state, list(made.entries), []
    extend(disk.hashes, tuple(made.entries))
    node.has_disk = True
    node.world.oracle.has_new_disk(node)
    node.start()


DROPPED = "it was dropped"


class Neighbour:
    """A node, as the program that makes a disk for another node asks it. Each answer takes a while,
    and meanwhile the world goes on.
    """

    def __init__(self, node: Node, wait: Callable[[], None]) -> None:
        self._node, self._wait = node, wait

    def status(self, asker: Peer) -> Status:
        """Its status. It may crash while the answer is on its way."""
        replica = self._replica()
        status = Status(
            GROUP, self._node.id, CLUSTER, 1, replica.role.value, replica.term, replica.leader_id,
            replica.last_index, replica.commit, 0, b"", 0, 0, 0.0, False, "", True, asker.id,
            self._node.world.members, replica.log.first_index,
        )  # fmt: skip
        self._wait()
        return status

    def fetch(self, fetch: Fetch) -> Committed:
        """A few of the entries that it knows to be committed."""
        replica, after = self._replica(), fetch.after_index
        if after + 1 < replica.log.first_index:
            raise Unavailable(DROPPED)
        prev, last = min(after, replica.last_index), min(replica.commit, after + 7)
        entries = replica.log.between(after + 1, last) if after < last else ()
        pulled = Committed(
            self._node.id, 0, replica.term, prev, replica.log.term_at(prev), replica.commit, entries
        )
        self._wait()
        return pulled

    def fetch_snapshot(self, fetch: FetchSnapshot) -> SnapshotPiece:
        """The index of its newest snapshot, whose content only the oracle knows."""
        self._replica()
        snapshots = self._node.disk.snapshots
        self._wait()
        if not snapshots:
            raise Unavailable("it has made none")
        return SnapshotPiece(snapshots[-1], 0, b"")

    def runs(self) -> tuple[TermRun, ...]:
        """The terms of the entries on its disk."""
        return Log(self._node.disk.entries).runs()

    def _replica(self) -> Replica:
        self._wait()
        replica = self._node.replica
        if replica is None or self._node.paused:
            raise Unavailable("it is down")
        return replica


class Pulled(LivePeers):
    """Pulls from others that may have dropped entries; snapshots have no content here."""

    def _pull_snapshot(self, number: int, dropped: int, directory: Path) -> Snapshot:
        index = self._others[number].fetch_snapshot(FetchSnapshot(self._me)).index
        if index < dropped:
            raise Unavailable("it has only an older one")
        neighbour = self._others[number]
        assert isinstance(neighbour, Neighbour)
        return Snapshot(directory, index, up_to(neighbour.runs(), index), 0)


class TimeIsOver(AssertionError):
    """The time is over before the disk was made."""


class LostDisksPulled:
    """Up to three disks are permanently lost, one after the other. While the others go on, each
    lost node gets a new disk with what they have committed; making it drives the world.

    It is often the disk of a leader that has just acknowledged a command, or one lost amid an
    election. Others may lose power with it, and earlier messages may come late and twice.
    """

    def __init__(self, world: World, random: Random) -> None:
        self._world, self._random = world, random
        self._lost: Node | None = None
        self._until = 0.0
        self._is_given_again = False

    def run(self, seconds: float) -> None:
        """Let this much time pass, in which it happens, if all goes well."""
        world, random = self._world, self._random
        self._until = world.now + seconds
        world.run(random.uniform(0.5, 0.6 * seconds))
        with suppress(Unavailable, TimeIsOver):
            for _ in range(random.randint(1, 3)):
                self._lost = self._lose()
                self._pull(self._lost)
                world.run(random.choice((0.0, random.random())))
        world.run(max(0.0, self._until - world.now))

    def finish(self) -> None:
        """The faults are over: if the last lost node has no disk yet, make it one now."""
        if self._lost is not None and not self._lost.has_disk:
            for node in self._world.nodes.values():
                node.start()
            self._until = self._world.now + 10
            self._is_given_again = True
            while not self._lost.has_disk:
                with suppress(Unavailable):
                    self._pull(self._lost)

    def _lose(self) -> Node:
        world, random = self._world, self._random
        nodes = list(world.nodes.values())
        world.doubles = random.choice((world.doubles, 0.5))
        before, kind = world.highest_acknowledged, random.randrange(3)
        if kind == 0:
            world.run(1.0, lambda: world.highest_acknowledged > before)
        elif kind == 1:
            world.run(1.0, lambda: any(n.replica and n.replica.role is CANDIDATE for n in nodes))
        lost = random.choice((kind == 0 and world.leaders()) or nodes)
        lose_disk(lost)
        if random.random() < 0.3:
            for node in random.sample(nodes, random.randint(1, len(nodes) - 1)):
                node.crash()
                world.after(random.random() * 0.3, node.start)
        return lost

    def _pull(self, lost: Node) -> None:
        others = {n.id: Neighbour(n, self._wait) for n in self._world.nodes.values() if n != lost}
        source = Pulled(
            Peer(GROUP, CLUSTER, lost.id, 0), others, self._pause, lambda: self._world.now
        )
        snapshot = source.snapshot(Path())
        dropped = self._world.oracle.entries[: source.begins_after]
        entries = [*dropped, *source.entries()]
        self._world.run(self._random.random() * 0.5)
        index = snapshot.index if snapshot else 0
        give_disk(lost, Copied(source.state(), entries, source.begins_after, index))

    def _pause(self, problem: str) -> None:
        self._wait()
        if self._is_given_again and problem == DROPPED:  # all have dropped what it had
            raise Unavailable(problem)
        self._world.run(self._random.random() * 0.5)

    def _wait(self) -> None:
        """Let a little time pass. Raises TimeIsOver."""
        if self._world.now >= self._until:
            raise TimeIsOver
        self._world.run(self._random.choice((0.001, 0.01, 0.1)) * self._random.random())


LOST_DISKS: dict[int, type[LostDisk | LostDisksPulled]] = {
    2: LostDisk,
    4: LostDisksPulled,
    7: LostDisksPulled,
}
"""By the last digit of the seed."""
