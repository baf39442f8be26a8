"""A deterministic world for replicas: one seed gives the same run, to the last event.

Time is virtual. Disks queue writes, gather them, take a while and lose what was not flushed when
the power fails; the network loses, duplicates, delays and reorders messages; processes pause, crash
and come back; clocks start anywhere and differ in rate. After every event the oracle checks
everything that must hold. In the end the faults stop, and the group has to make progress, agree,
and be led by its highest id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from heapq import heappop, heappush
from random import Random
from typing import Any

from tests.memory import ListedEntries
from tests.oracle import Oracle, extend, require
from twstock.errors import NotLeader
from twstock.replication.log import WINDOW_BYTES, Log
from twstock.replication.messages import (
    AppendEntries,
    AppendReply,
    Committed,
    Entry,
    EntryKind,
    HardState,
    Membership,
    Message,
    Persist,
    Reach,
    Ready,
    Timings,
    VoteReply,
    VoteRequest,
)
from twstock.replication.replica import Replica
from twstock.replication.standing import Role

TIMINGS = Timings(
    heartbeat_s=0.06,
    election_s=0.3,
    election_grace_s=0.03,
    stagger_s=0.06,
    jitter_s=0.04,
    append_timeout_s=0.25,
    stable_s=0.4,
    lease_fraction=0.9,
    lease_drain_s=0.05,
    flap_window_s=2.0,
    append_entries_max=8,
    append_bytes_max=40,
    append_window=3,
)
TICK_S = 0.03
PRUNE_CHANCE = 0.1
"""The probability that a node makes a snapshot when it ticks."""
Write = tuple[Persist | None, tuple[Message, ...]]


class Disk:
    """A disk that gathers what is queued into one write at a time.

    ``snapshots`` are the indices of those that it has. Entries up to ``dropped`` are kept here for
    the oracle, but a replica must not read them.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.state = HardState()
        self.entries: list[Entry] = []
        self.hashes: list[int] = []
        self.snapshots: list[int] = []
        self.dropped = 0
        self.slow_until = 0.0
        self._queue: list[Write] = []
        self._batch: list[Write] = []

    def write(self, persist: Persist | None, send_after: tuple[Message, ...]) -> None:
        """Queue a write, with the messages that wait for it."""
        self._queue.append((persist, send_after))
        if not self._batch:
            self._start()

    def _start(self) -> None:
        world = self.node.world
        self._batch, self._queue = self._queue, []
        takes_s = world.flush_s + world.random.random() ** 4 * world.disk_s
        if self.slow_until > world.now:
            takes_s += world.random.random() * (self.slow_until - world.now)
        world.after(takes_s, self._done, self.node.incarnation)

    def _done(self, incarnation: int) -> None:
        if incarnation != self.node.incarnation:
            return
        batch, self._batch = self._batch, []
        for persist, _ in batch:
            if persist is not None:
                self._keep(persist.hard_state, persist.entries)
        self.node.run(self.node.wrote, batch)
        if self._queue:
            self._start()

    def _keep(self, state: HardState | None, entries: tuple[Entry, ...]) -> None:
        self.state = state or self.state
        if entries:
            del self.entries[entries[0].index - 1 :]
            self.entries += entries
            extend(self.hashes, entries)

    def prune(self, applied: int, everywhere: int) -> int:
        """Keep two snapshots, and no entries that the older one has, if all nodes have them."""
        self.snapshots = sorted({*self.snapshots, applied})[-2:]
        if len(self.snapshots) > 1 and self.snapshots[0] <= everywhere:
            self.dropped = self.snapshots[0]
        return self.dropped

    def lose_power(self) -> None:
        """Keep the writes under way up to some point, and tear the next one."""
        random = self.node.world.random
        writes = [persist for persist, _ in self._batch + self._queue if persist is not None]
        whole = random.randint(0, len(writes))
        for persist in writes[:whole]:
            self._keep(persist.hard_state, persist.entries)
        for persist in writes[whole : whole + 1]:
            state = persist.hard_state if random.random() < 0.5 else None
            self._keep(state, persist.entries[: random.randint(0, len(persist.entries))])
        self._batch, self._queue = [], []


class Node:
    """A process with a replica, a disk and a clock of its own."""

    def __init__(self, world: World, node_id: int) -> None:
        self.world = world
        self.id = node_id
        self.disk = Disk(self)
        self.replica: Replica | None = None
        self.incarnation = 0
        self.paused = False
        self.has_disk = self.has_room = True
        self.reach = Reach.GOOD
        self.asked: set[int] = set()
        self.hashes: list[int] = []
        self.commit_seen = 0
        self.applied = 0
        self.digest = 0
        self._rate = world.random.uniform(0.996, 1.004)
        self._offset = world.random.uniform(0, 1000)
        self._chance = Random(world.seed * 8 + node_id)  # its own: seeds' runs stay what they were
        self._waiting: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._proposed: dict[int, tuple[int, bytes, int]] = {}

    def __repr__(self) -> str:
        if self.replica is None:
            return f"node {self.id} (down)"
        replica = self.replica
        return f"node {self.id} ({replica.role.value} {replica.term}, commit {replica.commit})"

    def clock(self) -> float:
        """What this node's monotonic clock shows."""
        return self._offset + self._rate * self.world.now

    def true_time(self, local: float) -> float:
        """The world's time when this node's clock shows ``local``."""
        return (local - self._offset) / self._rate

    # The life of the process.

    def start(self) -> None:
        """Start, or restart after a crash, with what the disk has."""
        if self.replica is not None or not self.has_disk:
            return
        random = self.world.random
        if random.random() < 0.3:  # the state machine's own file may be behind
            self.applied = random.randint(0, self.applied)
        self.applied = max(self.applied, *self.disk.snapshots, 0)
        self.digest = self.world.oracle.digests[self.applied]
        self.hashes = list(self.disk.hashes)
        self.commit_seen = self.applied
        log = self._log()
        self.replica = Replica(
            Membership(self.id, self.world.members),
            self.world.timings,
            log,
            self.disk.state,
            self.clock(),
            Random(random.getrandbits(32)),
            self.applied,
        )
        self.paused = False
        self.tick(self.incarnation)

    def _log(self) -> Log:
        """The log on the disk: with all of it in memory, or next to nothing."""
        entries, window_bytes = self.disk.entries, self.world.window_bytes
        log = Log(entries)
        if window_bytes != WINDOW_BYTES:
            log = Log((), ListedEntries(entries), window_bytes)
            log.found([(entry.index, entry.term) for entry in entries], len(entries))
        log.release(self.disk.dropped)
        return log

    def crash(self) -> None:
        """Stop at once; what is not on disk is gone."""
        if self.replica is not None:
            self.replica = None
            self.incarnation += 1
            self.disk.lose_power()
            self._waiting.clear()
            self._proposed.clear()

    def pause(self) -> None:
        """Freeze: what happens from now on waits, but the disk finishes its write."""
        self.paused = self.replica is not None

    def resume(self) -> None:
        """Go on, and process what has happened meanwhile; whether a tick comes first is random."""
        if not self.paused:
            return
        self.paused = False
        waiting, self._waiting = self._waiting, []
        if self.world.random.random() < 0.5:
            self.run(self._ticked)
        for action, args in waiting:
            self.run(action, *args)

    def run(self, action: Callable[..., None], *args: Any) -> None:
        """Do something in this process: later if it is paused, never if it is down."""
        if self.paused:
            self._waiting.append((action, args))
        elif self.replica is not None:
            action(*args)
            if self.replica is not None:
                self.world.oracle.stands(self, self.world.now)

    # What happens to it.

    def tick(self, incarnation: int) -> None:
        """The timer of the process; ticks missed in a pause are not made up for."""
        if incarnation == self.incarnation:
            self.world.after(TICK_S, self.tick, incarnation)
            if not self.paused:
                self.run(self._ticked)

    def _ticked(self) -> None:
        assert self.replica is not None
        self.replica.set_takes_commands(self.has_room)
        self.replica.set_reach(self.reach)
        self.tell(lambda replica, now: replica.tick(now))
        if self.world.prunes and self._chance.random() < PRUNE_CHANCE:
            self.replica.log.release(self.disk.prune(self.applied, self.replica.everywhere))

    def receive(self, message: Message) -> None:
        """A message arrives."""
        if isinstance(message, AppendEntries) and message.applied == self.applied:
            same = message.digest == self.digest.to_bytes(8, "big", signed=True)
            require(same or not message.digest, "{} and {} differ", self, message.source)
        self.tell(lambda replica, now: replica.step(message, now))

    def wrote(self, batch: list[Write]) -> None:
        """A batch of writes is on disk: send what waited, then tell the replica."""
        for _, send_after in batch:
            for message in send_after:
                self.world.send(self, message)
        done = max((persist.sequence for persist, _ in batch if persist is not None), default=0)
        if done:
            self.tell(lambda replica, now: replica.persisted(done, now))

    def propose(self, payloads: list[bytes], floor: int) -> None:
        """A client's commands; ``floor`` is the last index acknowledged before it asked."""
        assert self.replica is not None
        first, term = self.replica.last_index + 1, self.replica.term
        for index, payload in enumerate(payloads, first):
            self._proposed[index] = (term, payload, floor)
        try:
            self.tell(lambda replica, now: replica.propose(payloads, now))
        except NotLeader:
            for index in range(first, first + len(payloads)):
                self._proposed.pop(index)

    def tell(self, what: Callable[[Replica, float], Ready]) -> None:
        """Tell the replica something, and carry out the ``Ready`` that it returns."""
        assert self.replica is not None
        ready = what(self.replica, self.clock())
        if ready.persist is not None:
            self.world.oracle.wrote(self, ready.persist)
        self.world.oracle.stands(self, self.world.now)
        for message in ready.send_now:
            self.world.send(self, message)
        if ready.persist is not None or ready.send_after:
            self.disk.write(ready.persist, ready.send_after)
        for entry in ready.apply:
            self._apply(entry)
        if ready.apply:
            self.replica.set_digest(self.applied, self.digest.to_bytes(8, "big", signed=True))

    def _apply(self, entry: Entry) -> None:
        self.world.oracle.applied(self, entry)
        term, payload, floor = self._proposed.pop(entry.index, (0, b"", 0))
        replica = self.replica
        assert replica is not None
        if term == entry.term == replica.term and replica.role is Role.LEADER:
            self.world.acknowledge(entry, payload, floor)


class World:
    """Time, chance, the network, the nodes and their clients."""

    def __init__(self, seed: int, size: int, *, verbose: bool = False) -> None:
        self.random, self.seed = Random(seed), seed
        self.now = 0.0
        self.members = tuple(range(1, size + 1))
        self.disk_s = self.random.choice((0.002, 0.01, 0.05))
        self.flush_s = 0.0002
        self.loss = self.doubles = self.strays = 0.0
        self.window_bytes = (0, 600, WINDOW_BYTES)[seed % 3]
        # The services allow one append under way at a time; more find more mistakes.
        window = (1, TIMINGS.append_window, TIMINGS.append_window)[seed // 3 % 3]
        self.timings = replace(TIMINGS, append_window=window)
        self.prunes = seed // 9 % 2 == 0
        self.cut: set[tuple[int, int]] = set()
        self.asked_every_s = 0.0
        self.acknowledged: dict[bytes, int] = {}
        self.highest_acknowledged = 0
        self.events = 0
        self._verbose = verbose
        self._requests = 0
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._trace: deque[tuple[float, Callable[..., None], tuple[Any, ...]]] = deque(maxlen=50)
        self.nodes = {member: Node(self, member) for member in self.members}
        self.oracle = Oracle(list(self.nodes.values()))
        for node in self.nodes.values():
            self.after(self.random.random() * 0.1, node.start)

    # Time.

    def after(self, delay_s: float, action: Callable[..., None], *args: Any) -> None:
        """Let something happen later."""
        self.events += 1
        heappush(self._agenda, (self.now + delay_s, self.events, action, args))

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; stops early, and returns True, when ``until`` holds."""
        end = self.now + seconds
        while self._agenda[0][0] <= end:
            self.now, _, action, args = heappop(self._agenda)
            self._trace.append((self.now, action, args))
            if self._verbose:
                print(self.describe(self._trace[-1]))
            action(*args)
            if until is not None and until():
                return True
        self.now = end
        return until is None

    def describe(self, event: tuple[float, Callable[..., None], tuple[Any, ...]]) -> str:
        """One event as a line of text."""
        time, action, args = event
        owner = getattr(action, "__self__", "")
        node = owner.node if isinstance(owner, Disk) else owner
        where = f"{node} " if isinstance(node, Node) else ""
        return f"{time:9.4f} {where}{action.__name__} {' '.join(map(repr, args))}"

    def trace(self) -> str:
        """The last events, one per line."""
        return "\n".join(map(self.describe, self._trace))

    # The network.

    def send(self, source: Node, message: Message) -> None:
        """Take a message from a node; it may arrive once, twice, late or never."""
        self.oracle.sends(source, message)
        if isinstance(message, AppendEntries | VoteRequest):
            source.asked.add(message.sequence)
        chance = self.random.random
        if chance() >= self.loss:
            self.after(self._delay_s(), self._deliver, source.incarnation, message)
        if self.doubles and chance() < self.doubles:
            self.after(chance() * 1.5, self._deliver, source.incarnation, message)

    def _delay_s(self) -> float:
        chance = self.random.random
        stray_s = chance() * 0.4 if self.strays and chance() < self.strays else 0.0
        return 0.0003 + chance() * 0.0012 + stray_s

    def _deliver(self, incarnation: int, message: Message) -> None:
        target = self.nodes[message.target]
        if (message.source, message.target) in self.cut:
            return
        if isinstance(message, AppendReply | VoteReply) and message.sequence not in target.asked:
            return  # the answer to a call, whose caller has lost its disk since
        if target.replica is not None:
            target.run(target.receive, message)
        elif isinstance(message, AppendEntries):
            source = self.nodes[message.source]
            if source.incarnation == incarnation and self.random.random() < 0.7:
                source.run(self._refused, source, target.id)

    def _refused(self, source: Node, peer: int) -> None:
        source.tell(lambda replica, now: replica.unreachable(peer, now))

    def pull(self, source: Node, target: Node) -> None:
        """A node gets committed entries from any other (the SyncUp call)."""
        if source.replica is None or target.replica is None or source.paused:
            return
        first, last = target.replica.commit + 1, source.replica.commit
        if first < source.replica.log.first_index:
            return
        entries = source.replica.log.between(first, min(last, first + 7))
        if entries:
            term_before = target.replica.log.term_at(first - 1)
            self.send(
                source,
                Committed(
                    source.id, target.id, source.replica.term, first - 1, term_before, last, entries
                ),
            )

    # The clients.

    def leaders(self) -> list[Node]:
        """The nodes that believe that they lead."""
        return [n for n in self.nodes.values() if n.replica and n.replica.role is Role.LEADER]

    def ask(self) -> None:
        """A client sends one or three commands to a node that believes that it leads."""
        if self.asked_every_s:
            self.after(self.random.random() * 2 * self.asked_every_s, self.ask)
        leaders = self.leaders()
        if leaders:
            self._requests += 1
            payloads = [
                b"%d.%d" % (self._requests, part) for part in range(self.random.choice((1, 1, 3)))
            ]
            node = self.random.choice(leaders)
            node.run(node.propose, payloads, self.highest_acknowledged)

    def acknowledge(self, entry: Entry, payload: bytes, floor: int) -> None:
        """A leader tells a client that its command is done."""
        require(entry.payload == payload, "{} is acknowledged as {}", entry, payload)
        require(entry.kind is EntryKind.COMMAND, "a no-op is acknowledged")
        require(entry.index > floor, "{} is acknowledged after {}", entry, floor)
        require(payload not in self.acknowledged, "{} is acknowledged twice", payload)
        self.acknowledged[payload] = entry.index
        self.highest_acknowledged = max(self.highest_acknowledged, entry.index)
