"""A group of real members in one process: memory disks, a network of function calls, one clock.

Everything happens when the test advances the clock, so a test is exact and repeatable.
"""

import sqlite3
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.memory import MemoryStorage
from twstock.config import DEFAULT_TIMINGS, Limits
from twstock.errors import OutcomeUnknown
from twstock.replication.database import Database
from twstock.replication.equipment import Equipment, Surroundings
from twstock.replication.member import Member
from twstock.replication.messages import Applied, Membership
from twstock.replication.reach import Contacts
from twstock.replication.snapshots import Snapshots
from twstock.replication.storage import Storage
from twstock.rpc.calls import Envelope, Fetch, Probe, ProbeAnswer

STEP_S = 0.005


class ClockThreads:
    """Threads in which every call runs on the clock, a moment later."""

    def __init__(self, clock: Clock, delay_s: float = 0.0005) -> None:
        self._clock = clock
        self.delay_s = delay_s

    def callInThread(self, func: Callable[..., object], *args: Any) -> None:
        """Run ``func`` after the delay."""
        self._clock.callLater(self.delay_s, func, *args)

    def callInThreadWithCallback(
        self, done: Callable[[bool, Any], None], func: Callable[..., object], *args: Any
    ) -> None:
        """The same; ``done`` is called with whether it succeeded, and its result or a Failure."""

        def run() -> None:
            try:
                result = func(*args)
            except Exception:
                done(False, Failure())
            else:
                done(True, result)

        self.callInThread(run)


class Words:
    """A state machine that remembers its commands."""

    def __init__(self, _connection: object = None, digest: bytes = b"") -> None:
        self.words: list[bytes] = []
        self.digest = digest

    @property
    def last_transaction(self) -> int:
        """How many commands were applied."""
        return len(self.words)

    def apply(self, index: int, payload: bytes) -> Applied:
        """Remember one; the result is how many there are."""
        self.words.append(payload)
        self.digest = blake2b(self.digest + payload, digest_size=16).digest()
        return Applied(len(self.words))


class Seat:
    """A tier that records the calls it gets."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.saved_index = 0

    def begin(self, term: int) -> None:
        """Leadership began."""
        self.told.append(f"leads {term}")

    def end(self) -> None:
        """Leadership is over."""
        self.told.append("leads no more")

    def saved(self, index: int) -> None:
        """The tables have been saved up to ``index``."""
        self.saved_index = index


class NoTables:
    """Tables that keep nothing; ``load`` makes the state."""

    schema = ""

    def __init__(self, load: Callable[[sqlite3.Connection, bytes], Words]) -> None:
        self.load = load

    def save(self, connection: sqlite3.Connection, changes: Sequence[object]) -> None:
        """Nothing to store."""

    def upkeep(self, connection: sqlite3.Connection) -> None:
        """Nothing."""

    def extent(self, connection: sqlite3.Connection) -> tuple[int | str, ...]:
        """They have no extent."""
        return ()


class Network:
    """Which members can reach which, and which are dead."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.members: dict[int, Member] = {}
        self.cut: set[tuple[int, int]] = set()
        self.dead: set[int] = set()
        self.delay_s = 0.001

    def call(self, source: int, target: int, function: Callable[[Member], Any]) -> Deferred[Any]:
        """Call a member, after the network's delay; there and back again."""
        if target in self.dead or target not in self.members:
            return fail(OutcomeUnknown("refused"))
        answer: Deferred[Any] = Deferred()

        def settle(result: Any) -> None:
            if not answer.called:
                answer.callback(result)

        def arrive() -> None:
            if {(source, target), (target, source)} & self.cut or source in self.dead:
                return
            running = Deferred.fromCoroutine(function(self.members[target]))
            running.addBoth(lambda result: self.clock.callLater(self.delay_s, settle, result))

        self.clock.callLater(self.delay_s, arrive)
        self.clock.callLater(0.25, settle, Failure(OutcomeUnknown("deadline")))
        return answer


class NetworkTransport:
    """One member's way into the network."""

    def __init__(self, own: int, network: Network) -> None:
        self._own = own
        self._network = network

    def send(self, peer: int, envelope: Envelope) -> Deferred[Any]:
        """Deliver a request."""
        return self._network.call(self._own, peer, lambda member: member.receive(envelope))

    def probe(self, peer: int, probe: Probe) -> Deferred[Any]:
        """Ask for the status."""

        async def ask(member: Member) -> ProbeAnswer:
            return ProbeAnswer(member.status(probe.peer))

        return self._network.call(self._own, peer, ask)

    def is_gone(self, peer: int) -> Deferred[bool]:
        """Whether it is dead."""
        answer: Deferred[bool] = Deferred()
        self._network.clock.callLater(0.001, answer.callback, peer in self._network.dead)
        return answer

    def fetch(self, peer: int, fetch: Fetch) -> Deferred[Any]:
        """Pull committed entries."""
        return self._network.call(self._own, peer, lambda member: member.fetch(fetch))

    def close(self) -> None:
        """Nothing to close."""


class Group:
    """Members 1..n on one clock; ``panics`` and ``refusals`` collect what ends a process."""

    def __init__(self, directory: Path, size: int = 3, limits: Limits | None = None) -> None:
        self.clock = Clock()
        self.network = Network(self.clock)
        self.directory = directory
        self.limits = limits or Limits()
        self.ids = tuple(range(1, size + 1))
        self.configured = dict.fromkeys(self.ids, self.ids)
        self.snapshots: dict[int, Snapshots] = {}
        self.storages: dict[int, Storage] = {
            i: MemoryStorage(incarnation=100 + i, window_bytes=0) for i in self.ids
        }
        self.threads = {i: ClockThreads(self.clock) for i in self.ids}
        self.load: Callable[[sqlite3.Connection, bytes], Words] = Words
        self.seats = {i: Seat() for i in self.ids}
        self.contacts: dict[int, Contacts] = {}
        self.panics: list[tuple[int, Failure]] = []
        self.refusals: list[tuple[int, Exception]] = []

    def start(self, *ids: int) -> None:
        """Start members: all, unless some are named."""
        for number in ids or self.ids:
            self.network.dead.discard(number)
            member = self.network.members[number] = self._member(number)
            member.startService()

    def kill(self, number: int) -> None:
        """End a member at once; what its disk had stays."""
        self.network.dead.add(number)
        member = self.network.members.pop(number)
        member.running = False
        if (part := member._part) is not None:
            if part._ticking.running:
                part._ticking.stop()
            part.driver._stopped = True

    def run(self, seconds: float) -> None:
        """Let time pass."""
        steps = round(seconds / STEP_S)
        self.clock.pump([STEP_S] * steps)

    def run_until(self, condition: Callable[[], bool], seconds: float = 5.0) -> float:
        """Let time pass until something holds; returns how long it took."""
        start = self.clock.seconds()
        while not condition():
            assert self.clock.seconds() - start < seconds, "it never happened"
            self.clock.advance(STEP_S)
        return self.clock.seconds() - start

    @property
    def leader(self) -> int:
        """The ready leader; 0 while there is none."""
        ready = [i for i, m in self.network.members.items() if m.is_ready()]
        return max(ready, default=0)

    def member(self, number: int) -> Member:
        """One member."""
        return self.network.members[number]

    def _member(self, number: int) -> Member:
        def deliver(function: Callable[..., object], *args: Any) -> None:
            self.clock.callLater(0, function, *args)

        def panic(failure: Failure) -> None:
            self.panics.append((number, failure))

        def refuse(error: Exception) -> None:
            self.refusals.append((number, error))

        path = self.directory / f"{number}-{len(self.network.dead)}-{self.clock.seconds()}.sqlite"
        threads: Any = self.threads[number]
        equipment = Equipment(
            Membership(number, self.configured[number]),
            DEFAULT_TIMINGS,
            self.limits,
            self.storages[number],
            Database(
                path,
                NoTables(self.load),
                threads,
                deliver,
                panic,
                snapshots=self.snapshots.get(number),
            ),
            NetworkTransport(number, self.network),
            self.contacts.setdefault(number, Contacts(self.limits.out_of_reach_s)),
            Surroundings(self.clock, Random(number), threads, deliver, panic, refuse),
        )
        member = Member("order", "test", equipment)
        member.serve(self.seats[number])
        return member
