"""Disks that are lost for good in a simulated world, and the new ones that their nodes get."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random

from tests.oracle import extend
from tests.simulation import Node, World
from twstock.errors import Unavailable
from twstock.replication.livepeers import LivePeers
from twstock.replication.messages import Committed, Entry, HardState
from twstock.replication.rejoin import Kept, most_up_to_date, promised
from twstock.replication.replica import Replica
from twstock.replication.standing import Role
from twstock.rpc.calls import Fetch, Peer, Status

GROUP, CLUSTER = "order", "simulated"
CANDIDATE = Role.CANDIDATE


class LostDisk:
    """A node's disk is lost for good. Each other node is stopped at some time and what its disk
    has is copied; from the copies the lost one gets a new disk, and starts.
    """

    def __init__(self, world: World, random: Random) -> None:
        self._world, self._random = world, random
        self._lost = random.choice(list(world.nodes.values()))
        self._copies: list[tuple[HardState, list[Entry]]] = []
        self._others = [node for node in world.nodes.values() if node is not self._lost]
        random.shuffle(self._others)
        self.is_over = False
        world.after(random.uniform(1, 4), self._lose)

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        self._world.run(seconds)

    def _lose(self) -> None:
        if self.is_over:
            return
        lose_disk(self._lost)
        self._world.after(self._random.random(), self._copy)

    def _copy(self) -> None:
        """The next one stops for a moment; it may have been down."""
        if self.is_over:
            return
        node = self._others[len(self._copies)]
        node.crash()
        self._world.after(self._random.random() * 0.3, node.start)
        self._copies.append((node.disk.state, list(node.disk.entries)))
        if len(self._copies) < len(self._others):
            self._world.after(self._random.random() * 1.5, self._copy)
        else:
            self.finish()

    def finish(self) -> None:
        """Whoever is not copied yet is copied now; then the lost one is back."""
        self.is_over = True
        if self._lost.has_disk:
            return
        for node in self._others[len(self._copies) :]:
            node.crash()
            self._copies.append((node.disk.state, list(node.disk.entries)))
            node.start()
        kept = [
            Kept(state, entries[-1].term if entries else 0, len(entries))
            for state, entries in self._copies
        ]
        state = promised(self._lost.id, kept)
        give_disk(self._lost, state, self._copies[most_up_to_date(kept)][1])


def lose_disk(node: Node) -> None:
    """A node's process and its disk are gone."""
    node.crash()
    node.has_disk = False
    node.applied = 0
    node.asked.clear()
    node.world.oracle.loses_disk()


def give_disk(node: Node, state: HardState, entries: list[Entry]) -> None:
    """A node that has lost its disk starts with another one."""
    disk = node.disk
    disk.state, disk.entries, disk.hashes = state, list(entries), []
    extend(disk.hashes, tuple(entries))
    node.has_disk = True
    node.world.oracle.has_new_disk(node)
    node.start()


class Neighbour:
    """A node, asked by the program that makes a disk for another one. Each answer takes a while, in
    which the world goes on.
    """

    def __init__(self, node: Node, wait: Callable[[], None]) -> None:
        self._node, self._wait = node, wait

    def status(self, asker: Peer) -> Status:
        """What it has; its answer may be on its way when it crashes."""
        replica = self._replica()
        status = Status(
            GROUP, self._node.id, CLUSTER, 1, replica.role.value, replica.term, replica.leader_id,
            replica.last_index, replica.commit, 0, b"", 0, 0, 0.0, False, "", True, asker.id,
            self._node.world.members,
        )  # fmt: skip
        self._wait()
        return status

    def fetch(self, fetch: Fetch) -> Committed:
        """A few of the entries that it knows to be committed."""
        replica, after = self._replica(), fetch.after_index
        prev, last = min(after, replica.last_index), min(replica.commit, after + 7)
        entries = replica.log.between(after + 1, last) if after < last else ()
        pulled = Committed(
            self._node.id, 0, replica.term, prev, replica.log.term_at(prev), replica.commit, entries
        )
        self._wait()
        return pulled

    def _replica(self) -> Replica:
        self._wait()
        replica = self._node.replica
        if replica is None or self._node.paused:
            raise Unavailable("it is down")
        return replica


class TimeIsOver(AssertionError):
    """What was to happen did not happen yet."""


class LostDisksPulled:
    """Up to three disks are lost for good, one after the other, and while the others go on each
    node gets a new one, with what they have committed. Whoever makes it drives the world.

    It is often the disk of a leader that has just acknowledged a command, or one amid an election;
    others may lose their power with it, and what was sent before comes twice, and late.
    """

    def __init__(self, world: World, random: Random) -> None:
        self._world, self._random = world, random
        self._lost: Node | None = None
        self._until = 0.0

    def run(self, seconds: float) -> None:
        """Let so much time pass, in which it happens, if all goes well."""
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
        """The faults are over, and all others are there: if it has not happened it does now."""
        if self._lost is not None and not self._lost.has_disk:
            for node in self._world.nodes.values():
                node.start()
            self._until = self._world.now + 10
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
        source = LivePeers(Peer(GROUP, CLUSTER, lost.id, 0), others, self._pause)
        entries = list(source.entries())
        self._world.run(self._random.random() * 0.5)
        give_disk(lost, source.state(), entries)

    def _pause(self) -> None:
        self._wait()
        self._world.run(self._random.random() * 0.5)

    def _wait(self) -> None:
        """Messages and disks are at work meanwhile. Gives up when the time is over."""
        if self._world.now >= self._until:
            raise TimeIsOver
        self._world.run(self._random.choice((0.001, 0.01, 0.1)) * self._random.random())


LOST_DISKS: dict[int, type[LostDisk | LostDisksPulled]] = {
    2: LostDisk,
    4: LostDisksPulled,
    7: LostDisksPulled,
}
"""By the last digit of the seed."""
