"""A replica with a clock, a disk and a network: the service that both groups run."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from math import inf
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twstock.clocks import pause
from twstock.errors import (
    CorruptStorage,
    NotLeader,
    StorageError,
    StorageUnavailable,
    TwstockError,
    Unavailable,
    told,
)
from twstock.replication.chronicle import Chronicle
from twstock.replication.driver import Driver
from twstock.replication.equipment import Equipment
from twstock.replication.formation import Formation
from twstock.replication.messages import Committed
from twstock.replication.participant import Participant
from twstock.replication.reach import Contact
from twstock.replication.room import ROOM_KEPT_BYTES
from twstock.replication.standing import Role
from twstock.replication.storage import Loaded
from twstock.replication.tier import Tier
from twstock.replication.writer import Writer
from twstock.rpc.calls import Envelope, Fetch, FetchSnapshot, Peer, SnapshotPiece, Status
from twstock.threads import in_thread


class Member(Service):
    """One member of a group: its life, what its tier asks of it, and what its peers ask.

    ``machine`` is the tier's state machine, None before it is loaded.
    """

    def __init__(self, group: str, cluster_id: str, equipment: Equipment) -> None:
        membership, timings = equipment.membership, equipment.timings
        self._name = f"{group}-{membership.id}"
        self._me = Peer(group, cluster_id, membership.id, 0)
        self._membership = membership
        self._equipment = equipment
        self._around = equipment.surroundings
        self._clock = equipment.surroundings.clock
        self._chronicle = Chronicle(group, membership, timings, ROOM_KEPT_BYTES)
        self._incarnations: dict[int, int] = {}
        self._formed = False
        self._reason = "starting"
        self._started_at = self._clock.seconds()
        self._tier: Tier | None = None
        self._part: Participant | None = None
        self.machine: Any = None

    def serve(self, tier: Tier) -> None:
        """Notify ``tier`` when this member begins or ceases to lead, and when entries are saved. To
        be called before the start.
        """
        self._tier = tier
        self._equipment.database.on_saved = tier.saved

    # --- life ------------------------------------------------------------------------------

    def startService(self) -> None:
        """Open the disk, join the group, and take part in it."""
        super().startService()
        Deferred.fromCoroutine(self._start()).addErrback(self._failed)

    def stopService(self) -> "Deferred[None]":
        """Hand over if this member leads, then close the network and the disk."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _start(self) -> None:
        loaded: Loaded = await self._in_thread(self._equipment.storage.open)
        if not self.running:  # it was stopped meanwhile: the disk is about to be closed
            return
        applied, machine = await self._equipment.database.load()
        if applied < loaded.log.first_index - 1:
            raise self._cannot_begin(loaded.log.first_index, applied)
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
            await self._take_part(loaded, applied)

    def _cannot_begin(self, first: int, applied: int) -> CorruptStorage | StorageUnavailable:
        ends = f"{self._name}: the log begins with entry {first}, the tables end with {applied}"
        unread = self._equipment.database.unread_snapshot
        if unread is not None:  # it may be intact, so nothing is known to be lost
            return StorageUnavailable(f"{ends}, and a snapshot cannot be read: {told(unread)}")
        words = "and no snapshot is intact: make its directory anew (rejoin)"
        return CorruptStorage(f"{ends}, {words}")

    async def _form(self) -> None:
        equipment = self._equipment
        formation = Formation(self._me, self._membership.peers, equipment.transport)
        while self.running and not await formation.ask():
            self._reason = self._chronicle.waits(formation.missing)
            await pause(self._clock, equipment.timings.heartbeat_s)
        if self.running:
            await self._in_thread(lambda: equipment.storage.form(formation.learnt))
            self._incarnations, self._formed = dict(formation.learnt), True
            self._chronicle.formed()

    async def _take_part(self, loaded: Loaded, applied: int) -> None:
        assert self._tier is not None, "a member serves a tier"
        part = self._part = Participant(
            self._me,
            self._incarnations,
            self._equipment,
            loaded,
            self.machine,
            applied,
            self._chronicle,
            self._tier,
        )
        self._reason = "no leader"
        part.start()
        await part.catch_up()

    async def _stop(self) -> None:
        if self._part is not None:
            await self._part.stop()
        self._equipment.transport.close()
        await self._equipment.database.stop()
        await self._in_thread(self._equipment.storage.close)

    # --- what the tier asks ------------------------------------------------------------------

    def propose(self, payload: bytes) -> "Deferred[Any]":
        """Replicate a command; fires with its result when it is committed and applied here.

        Raises NotLeader, Unavailable, DiskFull, Overloaded, or InvalidRequest if it is too large to
        be sent, and has then done nothing. Fails with OutcomeUnknown when leadership is lost.
        """
        return self._taking_part().propose(payload)

    def check_room(self) -> None:
        """Raise DiskFull or Overloaded when a command would be refused now."""
        self._taking_part().check_room()

    def has_started(self) -> bool:
        """Whether its data is open. From then on it takes part, or, on the first start of its
        group, waits for the others, which may have to be started after it.
        """
        return self.machine is not None

    def is_ready(self) -> bool:
        """Whether this member leads and has applied all that any earlier leader acknowledged."""
        return self._part is not None and self._part.replica.is_ready

    def is_giving_way(self) -> bool:
        """Whether this leader is handing over and takes no more commands."""
        return self._part is not None and self._part.replica.handing_over_to != 0

    def lease_until(self) -> float:
        """Until when (seconds of the clock) no other member can lead; -inf: not known."""
        return -inf if self._part is None else self._part.replica.lease_until

    def leader_id(self) -> int:
        """Who leads, as far as this member knows; 0: nobody."""
        return 0 if self._part is None else self._part.replica.leader_id

    def term(self) -> int:
        """The newest term that this member knows."""
        return 0 if self._part is None else self._part.replica.term

    def resign(self) -> None:
        """Stop leading: somebody leads a newer term."""
        self._taking_part().resign()

    def not_leading(self) -> TwstockError:
        """The error for a request that only the ready leader answers."""
        leader, own = self.leader_id(), self._membership.id
        if self._part is None or leader == own:
            return Unavailable("the leader is not ready" if leader else self._reason)
        return NotLeader(leader)

    def check_leads(self) -> None:
        """Raise ``not_leading`` unless this member leads and is ready."""
        if not self.is_ready():
            raise self.not_leading()

    def check_lease(self) -> None:
        """Raise ``not_leading``, or Unavailable, unless this member leads and nobody can have
        replaced it.
        """
        self.check_leads()
        if self._clock.seconds() >= self.lease_until():
            raise Unavailable("the leader has not heard a majority for a while")

    def status(self, asker: Peer | None = None, *, why_not_serving: str = "") -> Status:
        """This member's status. A formed member includes the incarnation by which it knows a peer
        that asks.

        ``why_not_serving``: why its tier does not serve although it leads; empty: it does.
        """
        knows = self._incarnations.get(asker.id, 0) if asker is not None and self._formed else 0
        part = self._part
        replica, driver = (part.replica, part.driver) if part is not None else (None, None)
        reason = "" if self.leader_id() else self._reason
        if self.is_ready():
            reason = why_not_serving
        elif replica is not None and replica.role is Role.LEADER:
            reason = "what it found in its log is not committed yet"
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
            members=self._membership.members,
            first_index=replica.log.first_index if replica else 1,
        )

    def working(self) -> tuple[Driver, Writer] | None:
        """The driver and the writer, for metrics; None before this member takes part."""
        part = self._part
        return None if part is None else (part.driver, part.writer)

    # --- contact with the outside of the group ------------------------------------------------

    def heard_front_end(self) -> None:
        """A front-end has called."""
        self._equipment.contacts.front_ends.heard(self._clock.seconds())

    def heard_order_replica(self) -> None:
        """An order replica has called; only a catalog keeps track of that."""
        if contact := self._equipment.contacts.order_replicas:
            contact.heard(self._clock.seconds())

    def needs_contact(self, loss: str) -> Contact:
        """Add a contact that the tier needs when it leads, and misses soon after the start.
        ``loss`` says in words that it is lost. To be called before the start.
        """
        return self._equipment.contacts.add(loss, self._clock.seconds())

    # --- what peers ask ----------------------------------------------------------------------

    async def receive(self, envelope: Envelope) -> Any:
        """Step a peer's request; answers with the replica's reply to it."""
        return await self._taking_part().calls.receive(envelope)

    async def nominate(self, nominee: int) -> None:
        """A front-end wants ``nominee`` to lead."""
        await self._taking_part().calls.nominate(nominee)

    async def fetch(self, fetch: Fetch) -> Committed:
        """Committed entries after an index, as many as one message takes."""
        return self._taking_part().calls.fetch(fetch)

    async def fetch_snapshot(self, fetch: FetchSnapshot) -> SnapshotPiece:
        """A piece of a snapshot. Raises Unavailable if there is none."""
        return await self._taking_part().calls.fetch_snapshot(fetch)

    def _taking_part(self) -> Participant:
        if self._part is None:
            raise Unavailable(self._reason)
        return self._part

    def _failed(self, failure: Failure) -> None:
        """The start failed: say why, to the operator or in a traceback, and end."""
        if isinstance(failure.value, StorageError | StorageUnavailable):
            self._around.refuse(failure.value)
        else:
            self._around.panic(failure)

    def _in_thread(self, function: Callable[[], Any]) -> Awaitable[Any]:
        return in_thread(self._around.disk, self._around.deliver, function)
