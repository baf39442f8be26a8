"""What goes wrong in a simulated world, and what has to be right when it stops."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random

from tests.oracle import Violation, extend, require
from tests.simulation import Node, World
from twstock.errors import TwstockError, Unavailable
from twstock.replication.livepeers import LivePeers
from twstock.replication.messages import Committed, Entry, HardState
from twstock.replication.rejoin import Kept, most_up_to_date, promised
from twstock.replication.replica import Replica
from twstock.replication.standing import Role
from twstock.rpc.calls import Fetch, Peer, Status

GROUP, CLUSTER = "order", "simulated"


class Weather:
    """Injects faults into a world, each with its repair."""

    def __init__(self, world: World, random: Random) -> None:
        self._world = world
        self._random = random
        self._pace_s = random.choice((0.1, 0.2, 0.4))
        self._stormy = True
        self._kinds = [
            self._crash,
            self._crash_leader,
            self._power_cut,
            self._pause,
            self._isolate,
            self._cut_one_way,
            self._cut_link,
            self._bad_network,
            self._slow_disk,
            self._full_disk,
            self._resign,
            self._hand_over,
            self._calm,
        ]
        self._weights = [random.choice((0, 1, 2)) for _ in self._kinds]
        self._weights[-1] = 1
        world.after(0.5, self._strike)
        world.after(0.5, self._pull)

    def stop(self) -> None:
        """No more faults; those that last are undone."""
        world = self._world
        self._stormy = False
        world.loss = world.doubles = world.strays = 0.0
        world.cut.clear()
        for node in world.nodes.values():
            node.disk.slow_until = 0.0
            node.resume()

    def _strike(self) -> None:
        if self._stormy:
            self._world.after(self._random.random() * 2 * self._pace_s, self._strike)
            self._random.choices(self._kinds, self._weights)[0]()

    def _any(self) -> Node:
        return self._random.choice(list(self._world.nodes.values()))

    def _leader(self) -> Node:
        return self._random.choice(self._world.leaders() or [self._any()])

    def _crash(self) -> None:
        node = self._any()
        node.crash()
        self._world.after(self._random.random() ** 2 * 1.5, node.start)

    def _crash_leader(self) -> None:
        """The leader dies; some of the others learn that its host refuses connections."""
        world, node = self._world, self._leader()
        if node.replica is None:
            return
        term = node.replica.term
        node.crash()
        world.after(0.01 + self._random.random(), node.start)
        if self._random.random() < 0.5:
            world.oracle.forget_lease(node)
            for peer in world.nodes.values():
                if self._random.random() < 0.7:
                    delay_s = self._random.random() * 0.05
                    world.after(delay_s, self._tell_lost, peer, node.id, term)

    def _tell_lost(self, peer: Node, leader_id: int, term: int) -> None:
        if peer.replica is not None and peer.replica.leader_id == leader_id:
            peer.run(peer.tell, lambda replica, now: replica.leader_lost(now, term))

    def _power_cut(self) -> None:
        for node in self._world.nodes.values():
            node.crash()
            self._world.after(self._random.random() * 0.6, node.start)

    def _pause(self) -> None:
        node = self._leader() if self._random.random() < 0.5 else self._any()
        node.pause()
        self._world.after(self._random.random() ** 2 * 2, node.resume)

    def _cut(self, pairs: list[tuple[int, int]]) -> None:
        self._world.cut.update(pairs)
        self._world.after(self._random.random() * 1.5, self._world.cut.difference_update, pairs)

    def _isolate(self) -> None:
        node = self._leader() if self._random.random() < 0.5 else self._any()
        others = [member for member in self._world.members if member != node.id]
        self._cut([(node.id, o) for o in others] + [(o, node.id) for o in others])

    def _cut_one_way(self) -> None:
        node = self._any()
        inwards = self._random.random() < 0.5
        others = [member for member in self._world.members if member != node.id]
        self._cut([(o, node.id) if inwards else (node.id, o) for o in others])

    def _cut_link(self) -> None:
        one, other = self._any().id, self._any().id
        self._cut([(one, other), (other, one)][: self._random.randint(1, 2)])

    def _bad_network(self) -> None:
        world, random = self._world, self._random
        world.loss = random.choice((0.0, 0.05, 0.3))
        world.doubles = random.choice((0.0, 0.05, 0.3))
        world.strays = random.choice((0.0, 0.05, 0.3))

    def _calm(self) -> None:
        self._world.loss = self._world.doubles = self._world.strays = 0.0

    def _slow_disk(self) -> None:
        """A disk takes its time; a process that notices that its disk hangs does not lead."""
        node = self._leader() if self._random.random() < 0.5 else self._any()
        node.disk.slow_until = self._world.now + self._random.random() * 1.5
        if self._random.random() < 0.3:
            self._world.after(0.5, self._resign_from, node)

    def _full_disk(self) -> None:
        """A disk has no room for commands for a while; that may outlast the other faults."""
        node = self._any()
        node.has_room = False
        self._world.after(self._random.random() * 5, self._make_room, node)

    def _make_room(self, node: Node) -> None:
        node.has_room = True

    def _resign(self) -> None:
        self._resign_from(self._leader())

    def _resign_from(self, node: Node) -> None:
        node.run(node.tell, lambda replica, now: replica.resign(now))

    def _hand_over(self) -> None:
        node, target = self._leader(), self._any().id
        node.run(node.tell, lambda replica, now: replica.hand_over(target, now))

    def _pull(self) -> None:
        """No fault: a node that is behind asks another one for what is committed."""
        if self._stormy:
            self._world.after(self._random.random() * 0.2, self._pull)
            self._world.pull(self._any(), self._any())


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
        self._lost.crash()
        self._lost.has_disk = False
        self._lost.applied = 0
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


def give_disk(node: Node, state: HardState, entries: list[Entry]) -> None:
    """A node that has lost its disk starts with another one."""
    disk = node.disk
    disk.state, disk.entries, disk.hashes = state, list(entries), []
    extend(disk.hashes, tuple(entries))
    node.has_disk = True
    node.world.oracle.lost_disk(node)
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


class TimeIsOver(Exception):
    """What was to happen did not happen yet."""


class LostDiskPulled:
    """A node's disk is lost for good, and while the others go on it gets a new one, with what they
    have committed. Whoever makes it drives the world.
    """

    def __init__(self, world: World, random: Random) -> None:
        self._world, self._random = world, random
        self._lost = random.choice(list(world.nodes.values()))
        self._others = {n.id: Neighbour(n, self._wait) for n in world.nodes.values()}
        del self._others[self._lost.id]
        self._until = 0.0

    def run(self, seconds: float) -> None:
        """Let so much time pass, in which it happens, if all goes well."""
        until = self._until = self._world.now + seconds
        self._world.run(self._random.uniform(0.5, 0.8 * seconds))
        self._lost.crash()
        self._lost.has_disk = False
        self._lost.applied = 0
        with suppress(Unavailable, TimeIsOver):
            self._pull()
        self._world.run(until - self._world.now)

    def finish(self) -> None:
        """The faults are over, and all others are there: if it has not happened it does now."""
        if not self._lost.has_disk:
            for node in self._world.nodes.values():
                node.start()
            self._until = self._world.now + 10
            self._pull()

    def _pull(self) -> None:
        source = LivePeers(Peer(GROUP, CLUSTER, self._lost.id, 0), self._others, self._pause)
        entries = list(source.entries())
        self._world.run(self._random.random() * 0.5)
        give_disk(self._lost, source.state(), entries)

    def _pause(self) -> None:
        self._wait()
        self._world.run(self._random.random() * 0.5)

    def _wait(self) -> None:
        """Messages and disks are at work meanwhile. Gives up when the time is over."""
        if self._world.now >= self._until:
            raise TimeIsOver
        self._world.run(self._random.choice((0.001, 0.01, 0.1)) * self._random.random())


LOST_DISKS: dict[int, type[LostDisk | LostDiskPulled]] = {
    2: LostDisk,
    4: LostDiskPulled,
    7: LostDiskPulled,
}
"""By the last digit of the seed."""


class Failure(AssertionError):
    """A seed found something."""


def simulate(seed: int, size: int | None = None, *, verbose: bool = False) -> World:
    """Run one seed: a few seconds of faults, then recovery. Raises Failure with the seed."""
    random = Random(seed * 2 + 1)
    world = World(seed, size or random.choice((1, 3, 3, 3, 4, 5)), verbose=verbose)
    try:
        _storm(world, random)
    except (Violation, TwstockError, AssertionError) as error:
        text = f"seed {seed}, {len(world.nodes)} replicas: {type(error).__name__}: {error}"
        raise Failure(f"{text}\n{world.trace()}\n{text}") from error
    return world


def _storm(world: World, random: Random) -> None:
    world.asked_every_s = random.choice((0.01, 0.03, 0.1))
    world.ask()
    weather = Weather(world, random)
    # Chance of its own: the other seeds are what they were.
    loses = LOST_DISKS.get(world.seed % 10) if len(world.nodes) > 2 else None
    lost = loses(world, Random(world.seed)) if loses is not None else None
    seconds = random.uniform(5, 10)
    if lost is not None:
        lost.run(seconds)
    else:
        world.run(seconds)
    weather.stop()
    if lost is not None:
        lost.finish()
    _majority_recovers(world, random)
    _all_recover(world)


def _majority_recovers(world: World, random: Random) -> None:
    """L1, L8: any majority, once it is healthy, serves again."""
    core = random.sample(world.members, len(world.members) // 2 + 1)
    for node in world.nodes.values():
        if node.id in core:
            node.start()
        elif random.random() < 0.7:
            node.crash()
            world.cut.update((node.id, other) for other in world.members)
            world.cut.update((other, node.id) for other in world.members)
    before = world.highest_acknowledged
    done = world.run(3.0, lambda: world.highest_acknowledged > before)
    require(done, "no progress by {} within 3 s", core)


def _all_recover(world: World) -> None:
    """L3: the highest id leads, under load; then everybody has the same, and all of it."""
    highest = world.nodes[max(world.members)]
    world.cut.clear()
    for node in world.nodes.values():
        node.has_room = True
        node.start()
    led = world.run(8.0, lambda: highest.replica.role is Role.LEADER and highest.replica.is_ready)  # type: ignore[union-attr]
    require(led, "{} does not lead in the end", highest)
    world.asked_every_s = 0.0
    require(world.run(5.0, lambda: _agree(world)), "no agreement within 5 s")
    log = {entry.payload: entry.index for entry in world.oracle.entries}
    for payload, index in world.acknowledged.items():
        require(log.get(payload) == index, "{} was acknowledged and is lost", payload)
    require(len(log) >= len(world.acknowledged) > 0, "nothing was acknowledged")


def _agree(world: World) -> bool:
    last = len(world.oracle.committed)
    return all(
        node.applied == last == len(node.hashes) and node.hashes == world.oracle.committed
        for node in world.nodes.values()
    )
