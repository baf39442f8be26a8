"""A member that takes part in its group: what it does once its data is open, until it stops."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from twstock.clocks import pause
from twstock.errors import DiskFull, Overloaded, TwstockError
from twstock.replication.chronicle import Chronicle
from twstock.replication.driver import Driver
from twstock.replication.equipment import Equipment
from twstock.replication.peercalls import PeerCalls
from twstock.replication.pruning import Pruning
from twstock.replication.replica import Replica
from twstock.replication.room import check_command, check_leader, command_bytes, takes_commands
from twstock.replication.standing import Role
from twstock.replication.storage import Loaded
from twstock.replication.tier import StateMachine, Tier
from twstock.replication.writer import Writer
from twstock.rpc.calls import Fetch, Peer

BACKLOG_MAX = 20_000
"""How many applied entries may wait to be saved before proposals are refused."""


class Participant:
    """A running member: it ticks, catches up with the others, and hands over when it stops.

    ``machine`` has applied entries up to ``applied``; ``tier`` is notified of leadership.
    """

    def __init__(
        self,
        me: Peer,
        incarnations: Mapping[int, int],
        equipment: Equipment,
        loaded: Loaded,
        machine: StateMachine,
        applied: int,
        chronicle: Chronicle,
        tier: Tier,
    ) -> None:
        around = equipment.surroundings
        self._me = me
        self._equipment = equipment
        self._limits = equipment.limits
        self._database = equipment.database
        self._clock = around.clock
        self._chronicle = chronicle
        self._tier = tier
        self._stopping = False
        self.replica = Replica(
            equipment.membership,
            equipment.timings,
            loaded.log,
            loaded.hard_state,
            self._clock.seconds(),
            around.random,
            applied,
        )
        self.writer = Writer(equipment.storage, around, self._written)
        self.driver = Driver(
            me,
            self.replica,
            machine,
            applied,
            self.writer,
            equipment,
            self._leads,
            self._leads_no_more,
        )
        self._pruning = Pruning(self.replica, self.writer, equipment)
        self.calls = PeerCalls(me, incarnations, self.driver, self.writer, equipment)
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = cast(Any, around.clock)  # twisted wants to see an IReactorTime

    # --- life --------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to tick: from now on this member votes, follows and may lead."""
        replica, driver, equipment = self.replica, self.driver, self._equipment
        self._chronicle.opened(replica.term, replica.last_index, driver.applied)
        ticking = self._ticking.start(equipment.timings.heartbeat_s / 3)
        ticking.addErrback(equipment.surroundings.panic)

    async def catch_up(self) -> None:
        """Pull what the others committed meanwhile (SyncUp) from the first that answers."""
        for peer in self._equipment.membership.peers:
            try:
                while await self._pull(peer):
                    pass
            except TwstockError:
                continue  # the next peer, or the leader's appends, will do
            else:
                self._chronicle.caught_up(peer, self.replica.commit)
                return

    async def _pull(self, peer: int) -> bool:
        """Pull once; returns whether there is more to pull."""
        replica, before = self.replica, self.replica.commit
        pulled = await self._equipment.transport.fetch(peer, Fetch(self._me, before))
        message = replace(pulled, source=peer, target=self._me.id)
        self.calls.check(message)
        self.driver.run(lambda now: replica.step(message, now))
        return not self._stopping and before < replica.commit < pulled.commit

    async def stop(self) -> None:
        """Hand over if this member leads, then decide and write nothing more."""
        self._stopping = True
        await self._give_way()
        self._chronicle.because("it stops")
        self.driver.run(self.replica.resign)
        self.driver.stop()
        self.writer.stop()
        if self._ticking.running:
            self._ticking.stop()

    async def _give_way(self) -> None:
        """Hand over to a member that is caught up, if there is one, within the drain time."""
        replica, until = self.replica, self._clock.seconds() + self._limits.drain_s
        heir = replica.heir(self._clock.seconds())
        if heir:
            self.driver.run(lambda now: replica.hand_over(heir, now))
        while heir and replica.role is Role.LEADER and self._clock.seconds() < until:
            await pause(self._clock, self._equipment.timings.heartbeat_s / 3)

    def _tick(self) -> None:
        replica, driver, writer = self.replica, self.driver, self.writer
        hangs = writer.waited_s() > self._limits.disk_hung_s
        others = self._equipment.membership.peers  # who could take over
        if replica.role is Role.LEADER and hangs and others:
            self._chronicle.because("its disk hangs")
            driver.run(replica.resign)
        replica.set_takes_commands(takes_commands(writer.room_bytes) and not hangs)
        self._look_outside()
        driver.run(replica.tick)
        self._look()
        writer.settle_when_idle()
        self._database.save(self._clock.seconds())
        self._pruning.tick()

    # --- what the tier asks ------------------------------------------------------------------

    def propose(self, payload: bytes) -> "Deferred[Any]":
        """Replicate a command, as ``Member.propose`` promises."""
        check_command(len(payload), self._limits.piece_bytes_max)
        self.check_room(command_bytes(len(payload)))
        return self.driver.propose(payload)

    def check_room(self, bytes_more: int = 0) -> None:
        """Raise DiskFull or Overloaded when a command of that size would be refused now."""
        check_leader(bytes_more, self.writer.room_bytes)
        if not self.replica.has_room_elsewhere(self._clock.seconds()):
            raise DiskFull("the disks of most replicas are full, or hang")
        if self._database.backlog > BACKLOG_MAX:
            raise Overloaded("applied state is saved too slowly")

    def resign(self) -> None:
        """Stop leading: somebody leads a newer term."""
        self._chronicle.because("a newer leader is at work")
        self.driver.run(self.replica.resign)

    # --- notifications -----------------------------------------------------------------------

    def _leads(self, term: int) -> None:
        self._look()
        self._tier.begin(term)

    def _leads_no_more(self) -> None:
        self._look()
        self._tier.end()

    def _look(self) -> None:
        self._chronicle.look(self.replica, self.writer.room_bytes, self._clock.seconds())

    def _look_outside(self) -> None:
        contacts, now = self._equipment.contacts, self._clock.seconds()
        contacts.awake(now)
        self.replica.set_reach(contacts.reach(now), unheard=contacts.unheard)
        if not self._stopping:  # nobody has to call it any more
            self._chronicle.reach(contacts.lost(now))

    def _written(self, sequence: int) -> None:
        self.driver.written(sequence)
