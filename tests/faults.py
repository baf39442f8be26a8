"""The faults in a simulated world, and what has to be true when they stop."""

from __future__ import annotations

from random import Random

from tests.lost_disks import LOST_DISKS
from tests.oracle import Violation, require
from tests.simulation import Node, World
from twstock.errors import TwstockError
from twstock.replication.messages import Reach
from twstock.replication.standing import Role


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
            self._out_of_reach,
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
        """A disk is slow; a process that notices that its disk hangs does not lead."""
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

    def _out_of_reach(self) -> None:
        """No outside caller reaches a replica for a while; that may outlast the other faults."""
        node = self._leader() if self._random.random() < 0.5 else self._any()
        node.reach = Reach.LOST
        self._world.after(self._random.random() * 5, self._reach, node)

    def _reach(self, node: Node) -> None:
        node.reach = Reach.GOOD

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


class Failure(AssertionError):
    """A seed has found a mistake."""


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
    # A random generator of its own, so that the runs of other seeds stay what they were.
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


APPEND_S = 0.05
"""How long an append takes at most, with its answer: two messages and a slow disk's flush."""


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
    # Appends have few entries here, so what a leader took without a majority takes a while to send.
    lengths = [len(world.nodes[member].disk.entries) for member in core]
    limit_s = 3.0 + (max(lengths) - min(lengths)) / world.timings.append_entries_max * APPEND_S
    done = world.run(limit_s, lambda: world.highest_acknowledged > before)
    require(done, "no progress by {} within {} s", core, limit_s)


def _all_recover(world: World) -> None:
    """L3: the highest id leads, under load; then all nodes have the same log, with nothing lost."""
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
