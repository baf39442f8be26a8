"""A replica with a clock, a disk and a network: the service that both groups run."""

import os
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from math import inf
from random import Random
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from twstock.clocks import Clock
from twstock.config import Limits
from twstock.errors import (
    CorruptStorage,
    NotLeader,
    Overloaded,
    StorageError,
    StorageUnavailable,
    TwstockError,
    Unavailable,
)
from twstock.replication.chronicle import Chronicle
from twstock.replication.database import Database
from twstock.replication.driver import Driver, StateMachine
from twstock.replication.formation import Formation
from twstock.replication.messages import Committed, Membership, Timings
from twstock.replication.peercalls import PeerCalls
from twstock.replication.replica import Replica
from twstock.replication.room import ROOM_KEPT_BYTES, check_command, check_leader, command_bytes
from twstock.replication.standing import Role
from twstock.replication.storage import Loaded, Storage
from twstock.replication.transport import Transport
from twstock.replication.writer import Writer
from twstock.rpc.calls import Envelope, Fetch, Peer, Status
from twstock.threads import Threads, in_thread

BACKLOG_MAX = 20_000
"""How many applied entries may wait to be saved before proposals are refused."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Time, chance and threads, which everything else gets from here.

    ``disk`` is one thread; ``deliver`` runs a function in the reactor, from any thread;
    ``panic`` ends the process; ``refuse`` ends it with a message for the operator.
    """

    clock: Clock
    random: Random
    disk: Threads
    deliver: Callable[..., None]
    panic: Callable[[Failure], None]
    refuse: Callable[[StorageError | StorageUnavailable], None]


class Member(Service):
    """One member of a group: its life, what its tier asks of it, and what its peers ask.

    ``on_leading`` is called with the term when this member leads and has applied all that any
    earlier leader acknowledged; ``on_leading_ended`` when that is over.
    """

    def __init__(
        self,
        group: str,
        cluster_id: str,
        membership: Membership,
        timings: Timings,
        limits: Limits,
        storage: Storage,
        database: Database,
        load: Callable[[sqlite3.Connection, bytes], StateMachine],
        transport: Transport,
        surroundings: Surroundings,
    ) -> None:
        self._name = f"{group}-{membership.id}"
        self._me = Peer(group, cluster_id, membership.id, 0)
        self._membership = membership
        self._timings = timings
        self._limits = limits
        self._storage = storage
        self._database = database
        self._load = load
        self._transport = transport
        self._around = surroundings
        self._clock = cast(Any, surroundings.clock)  # twisted wants to see an IReactorTime
        self._chronicle = Chronicle(group, membership, timings, ROOM_KEPT_BYTES)
        self._incarnations: dict[int, int] = {}
        self._formed = False
        self._reason = "starting"
        self._started_at = self._clock.seconds()
        self._driver: Driver | None = None
        self._calls: PeerCalls | None = None
        self._writer: Writer | None = None
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = self._clock
        self.machine: Any = None
        self.on_leading: Callable[[int], None] = lambda _term: None
        self.on_leading_ended: Callable[[], None] = lambda: None

    # --- life ------------------------------------------------------------------------------

    def startService(self) -> None:
        """Open the disk, join the group, and take part in it."""
        super().startService()
        Deferred.fromCoroutine(self._start()).addErrback(self._failed)

    def stopService(self) -> "Deferred[None]":
        """Hand over if this member leads, then let go of the network and the disk."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _start(self) -> None:
        loaded: Loaded = await self._in_thread(self._storage.open)
        if not self.running:  # it was stopped meanwhile: the disk is about to be closed
            return
        applied, machine = await self._database.load(self._load)
        if applied > loaded.log.last_index:
            raise CorruptStorage(
                f"{self._name}: entries {loaded.log.last_index + 1} to {applied} were applied, "
                "but the log ends before them: its data is lost"
            )
        self.machine = machine
        self._me = replace(self._me, incarnation=loaded.incarnation)
        self._incarnations, self._formed = dict(loaded.peers), loaded.formed
        if not loaded.formed:
            await self._form()
        if self.running:  # it may have been stopped meanwhile
            self._take_part(loaded, applied)
            await self._catch_up()

    async def _form(self) -> None:
        formation = Formation(self._me, self._membership.peers, self._transport)
        while self.running and not await formation.ask():
            self._reason = self._chronicle.waits(formation.missing)
            await deferLater(self._clock, self._timings.heartbeat_s)
        if self.running:
            await self._in_thread(lambda: self._storage.form(formation.learnt))
            self._incarnations, self._formed = dict(formation.learnt), True
            self._chronicle.formed()

    def _take_part(self, loaded: Loaded, applied: int) -> None:
        around, clock = self._around, self._clock
        replica = Replica(
            self._membership,
            self._timings,
            loaded.log,
            loaded.hard_state,
            clock.seconds(),
            around.random,
            applied,
        )
        writer = self._writer = Writer(
            self._storage,
            around.disk,
            around.deliver,
            clock.seconds,
            self._written,
            around.panic,
        )
        driver = self._driver = Driver(
            self._me,
            replica,
            self.machine,
            applied,
            self._database,
            self._transport,
            writer,
            clock.seconds,
            around.panic,
        )
        self._calls = PeerCalls(
            self._me,
            self._incarnations,
            driver,
            self._transport,
            self._limits,
            self._timings,
            self._room_bytes,
            around.panic,
        )
        driver.on_leading = self._leads
        driver.on_leading_ended = self._leads_no_more
        self._reason = "no leader"
        self._chronicle.opened(replica.term, replica.last_index, applied)
        self._ticking.start(self._timings.heartbeat_s / 3).addErrback(around.panic)

    async def _catch_up(self) -> None:
        """Pull what the others committed meanwhile (SyncUp) from the first that answers."""
        for peer in self._membership.peers:
            try:
                while await self._pull(peer):
                    pass
            except TwstockError:
                continue  # the next peer, or the leader's appends, will do
            else:
                self._chronicle.caught_up(peer, self._running().replica.commit)
                return

    async def _pull(self, peer: int) -> bool:
        """One pull; tells whether there is more to have."""
        driver = self._running()
        before = driver.replica.commit
        pulled = await self._transport.fetch(peer, Fetch(self._me, before))
        message = replace(pulled, source=peer, target=self._membership.id)
        self._peer_calls().check(message)
        driver.run(lambda now: driver.replica.step(message, now))
        return bool(self.running) and before < driver.replica.commit < pulled.commit

    async def _stop(self) -> None:
        if self._driver is not None:
            await self._give_way(self._driver)
            self._chronicle.because("it stops")
            self._driver.run(self._driver.replica.resign)
            self._driver.stop()
        if self._writer is not None:
            self._writer.stop()
        if self._ticking.running:
            self._ticking.stop()
        self._transport.close()
        await self._database.stop()
        await self._in_thread(self._storage.close)

    async def _give_way(self, driver: Driver) -> None:
        """Hand over to a member that is caught up, if there is one, within the drain time."""
        replica, until = driver.replica, self._clock.seconds() + self._limits.drain_s
        heir = replica.heir(self._clock.seconds())
        if heir:
            driver.run(lambda now: replica.hand_over(heir, now))
        while heir and replica.role is Role.LEADER and self._clock.seconds() < until:
            await deferLater(self._clock, self._timings.heartbeat_s / 3)

    def _tick(self) -> None:
        driver, writer = self._running(), self._writer
        assert writer is not None
        replica = driver.replica
        if replica.role is Role.LEADER and writer.waited_s() > self._limits.disk_hung_s:
            self._chronicle.because("its disk hangs")
            driver.run(replica.resign)
        driver.run(replica.tick)
        self._look()
        writer.settle_when_idle()
        self._database.save(self._clock.seconds())

    # --- what the tier asks ------------------------------------------------------------------

    def propose(self, payload: bytes) -> "Deferred[Any]":
        """Replicate a command; fires with its result when it is committed and applied here.

        Raises NotLeader, Unavailable, DiskFull, Overloaded, or InvalidRequest for what is too large
        to be sent, and has then done nothing; fails with OutcomeUnknown when leadership is lost.
        """
        driver = self._running()
        check_command(len(payload), self._limits.piece_bytes_max)
        self.check_room(command_bytes(len(payload)))
        return driver.propose(payload)

    def check_room(self, bytes_more: int = 0) -> None:
        """Raise DiskFull or Overloaded when a command would be refused now."""
        check_leader(bytes_more, self._room_bytes())
        if self._database.backlog > BACKLOG_MAX:
            raise Overloaded("applied state is saved too slowly")

    def has_started(self) -> bool:
        """Whether its data is open. From then on it takes part, or, on the first start of its
        group, waits for the others, which may have to be started after it.
        """
        return self.machine is not None

    def is_ready(self) -> bool:
        """Whether this member leads and has applied all that any earlier leader acknowledged."""
        return self._driver is not None and self._driver.replica.is_ready

    def is_giving_way(self) -> bool:
        """Whether this leader is handing over and takes no more commands."""
        return self._driver is not None and self._driver.replica.handing_over_to != 0

    def lease_until(self) -> float:
        """Until when (seconds of the clock) no other member can lead; -inf: not known."""
        return -inf if self._driver is None else self._driver.replica.lease_until

    def leader_id(self) -> int:
        """Who leads, as far as this member knows; 0: nobody."""
        return 0 if self._driver is None else self._driver.replica.leader_id

    def term(self) -> int:
        """The newest term that this member knows."""
        return 0 if self._driver is None else self._driver.replica.term

    def resign(self) -> None:
        """Stop leading: somebody leads a newer term."""
        driver = self._running()
        self._chronicle.because("a newer leader is at work")
        driver.run(driver.replica.resign)

    def not_leading(self) -> TwstockError:
        """The error for a request that only the ready leader answers."""
        leader, own = self.leader_id(), self._membership.id
        if self._driver is None or leader == own:
            return Unavailable("the leader is not ready" if leader else self._reason)
        return NotLeader(leader)

    def status(self, asker: Peer | None = None, *, serving: str | None = None) -> Status:
        """What this member tells of itself; a formed one tells a peer how it knows that one.

        ``serving`` is why its tier does not serve although it leads, empty when it does.
        """
        knows = self._incarnations.get(asker.id, 0) if asker is not None and self._formed else 0
        driver = self._driver
        replica = driver.replica if driver else None
        reason = "" if self.leader_id() else self._reason
        if self.is_ready():
            reason = serving or ""
        return Status(
            group=self._me.group,
            id=self._me.id,
            cluster_id=self._me.cluster_id,
            incarnation=self._me.incarnation,
            role=replica.role.value if replica else "joining",
            term=self.term(),
            leader_id=self.leader_id(),
            last_index=replica.last_index if replica else 0,
            commit=replica.commit if replica else 0,
            applied=driver.applied if driver else 0,
            digest=driver.digest_at(driver.applied) if driver else b"",
            last_transaction=self.machine.last_transaction if self.machine else 0,
            pid=os.getpid(),
            uptime_s=self._clock.seconds() - self._started_at,
            ready=self.is_ready() and not reason,
            reason=reason,
            formed=self._formed,
            knows_asker_as=knows,
        )

    def working(self) -> tuple[Driver, Writer] | None:
        """What does the work, for whoever counts it; None before this member takes part."""
        if self._driver is None or self._writer is None:
            return None
        return self._driver, self._writer

    # --- what peers ask ----------------------------------------------------------------------

    async def receive(self, envelope: Envelope) -> Any:
        """Step a peer's request; answers with the replica's reply to it."""
        return await self._peer_calls().receive(envelope)

    async def nominate(self, nominee: int) -> None:
        """A front-end wants ``nominee`` to lead."""
        await self._peer_calls().nominate(nominee)

    async def fetch(self, fetch: Fetch) -> Committed:
        """Committed entries after an index, as many as one message takes."""
        return self._peer_calls().fetch(fetch)

    def _peer_calls(self) -> PeerCalls:
        if self._calls is None:
            raise Unavailable(self._reason)
        return self._calls

    # --- odds --------------------------------------------------------------------------------

    def _leads(self, term: int) -> None:
        self._look()
        self.on_leading(term)

    def _leads_no_more(self) -> None:
        self._look()
        self.on_leading_ended()

    def _look(self) -> None:
        self._chronicle.look(self._running().replica, self._room_bytes(), self._clock.seconds())

    def _written(self, sequence: int) -> None:
        self._running().written(sequence)

    def _running(self) -> Driver:
        if self._driver is None:
            raise Unavailable(self._reason)
        return self._driver

    def _room_bytes(self) -> int:
        return 0 if self._writer is None else self._writer.room_bytes

    def _failed(self, failure: Failure) -> None:
        """The start failed: say why, to the operator or in a traceback, and end."""
        if isinstance(failure.value, StorageError | StorageUnavailable):
            self._around.refuse(failure.value)
        else:
            self._around.panic(failure)

    def _in_thread(self, function: Callable[[], Any]) -> Awaitable[Any]:
        return in_thread(self._around.disk, self._around.deliver, function)
