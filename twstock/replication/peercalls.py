"""What peers ask of a member that takes part: who may ask, and what is checked first."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from twstock.errors import BrokenInvariant, InvalidRequest, Unavailable
from twstock.replication.driver import Driver
from twstock.replication.equipment import Equipment
from twstock.replication.messages import (
    AppendEntries,
    Committed,
    Entry,
    Request,
    Transfer,
    VoteRequest,
)
from twstock.replication.room import check_follower
from twstock.replication.snapshots import Snapshots
from twstock.replication.standing import Role
from twstock.replication.writer import Writer
from twstock.rpc.calls import Envelope, Fetch, FetchSnapshot, Peer, SnapshotPiece

STRANGERS_MAX = 100
"""How many peers of other clusters or incarnations are remembered, so that each is logged once."""
STRANGER_CHARS_MAX = 100
"""How many characters of their groups' and clusters' names are kept: a name may fill a message."""


class PeerCalls:
    """Answers the requests of the peers whose ``incarnations`` are known."""

    _log = Logger()

    def __init__(
        self,
        me: Peer,
        incarnations: Mapping[int, int],
        driver: Driver,
        writer: Writer,
        equipment: Equipment,
    ) -> None:
        self._me = me
        self._incarnations = incarnations
        self._driver = driver
        self._writer = writer
        self._database = equipment.database
        self._transport = equipment.transport
        self._limits = equipment.limits
        self._timings = equipment.timings
        self._panic = equipment.surroundings.panic
        self._strangers: set[Peer] = set()

    async def receive(self, envelope: Envelope) -> Any:
        """Step a peer's request; answers with the replica's reply to it, None for a Transfer."""
        driver, message = self._driver, envelope.message
        self._check(envelope)
        self.check(message)
        if isinstance(message, Transfer):
            driver.run(lambda now: driver.replica.step(message, now))
            return None
        if isinstance(message, AppendEntries):
            self._compare_digest(message)
        elif isinstance(message, VoteRequest) and message.pre_vote:
            # Before refusing out of loyalty, see whether that leader is still there.
            await self._check_leader(but=message.source)
        return await driver.answer(message)

    def check(self, message: Request | Committed) -> None:
        """Raise an error for a message that must not be stepped: InvalidRequest if its term is too
        far ahead, Unavailable while the disk hangs, DiskFull if its entries may not fit.

        What is accepted while the disk hangs stays in memory until that is over. So this refuses
        entries, which a leader sends again and again as long as its heartbeats are answered, and
        every message when no answer may leave before a new term or vote is on disk.
        """
        replica = self._driver.replica
        self._driver.check_term(message, message.source)
        entries = message.entries if isinstance(message, AppendEntries | Committed) else ()
        hangs = self._writer.waited_s() > self._limits.disk_hung_s
        if hangs and (entries or replica.is_mute):
            raise Unavailable("the disk hangs")
        if entries:
            check_follower(entries, replica.log, self._writer.room_bytes)

    async def nominate(self, nominee: int) -> None:
        """A front-end wants ``nominee`` to lead: campaign if the leader is certainly gone.

        The front-end is not believed: this member itself tries to connect to its leader's host. If
        this member leads, it gives way only to a higher id that is caught up.
        """
        driver = self._driver
        if driver.replica.role is Role.LEADER:
            if nominee > self._me.id:
                driver.run(lambda now: driver.replica.hand_over(nominee, now))
        elif nominee == self._me.id:
            await self._check_leader()

    def fetch(self, fetch: Fetch) -> Committed:
        """Committed entries after an index, as many as one message takes. Raises Unavailable if the
        first of them was dropped.
        """
        self._check_peer(fetch.peer)
        begins = self._driver.replica.log.first_index
        if fetch.after_index + 1 < begins:
            raise Unavailable(f"the entries before {begins} are no longer in the log")
        try:
            return self._committed(fetch.after_index)
        except Exception:  # an entry could not be read back as it was written
            self._panic(Failure())
            raise

    async def fetch_snapshot(self, fetch: FetchSnapshot) -> SnapshotPiece:
        """A piece of a snapshot, as large as a batch of entries may be. It is read in the thread
        that makes and removes snapshots. Raises Unavailable if there is none.
        """
        self._check_peer(fetch.peer)
        snapshots, bytes_max = self._database.snapshots, self._timings.append_bytes_max
        if snapshots is None:
            raise Unavailable("nobody makes snapshots here")
        return await self._database.read(lambda _: _piece(snapshots, fetch, bytes_max))

    def _committed(self, after: int) -> Committed:
        replica, first = self._driver.replica, after + 1
        entries: tuple[Entry, ...] = ()
        if 1 <= first <= replica.commit:
            found = replica.log.slice(
                first, self._limits.fetch_entries_max, self._timings.append_bytes_max
            )
            entries = tuple(entry for entry in found if entry.index <= replica.commit)
        prev = max(0, min(after, replica.last_index))
        term = replica.log.term_at(prev)
        return Committed(self._me.id, 0, replica.term, prev, term, replica.commit, entries)

    def _check(self, envelope: Envelope) -> None:
        peer, message = envelope.peer, envelope.message
        self._check_peer(peer)
        if message.source != peer.id or message.target != self._me.id:
            raise InvalidRequest("target", "the message is for another member")

    def _check_peer(self, peer: Peer) -> None:
        """Raise InvalidRequest if ``peer`` is not a known peer of this very group."""
        known = replace(self._me, id=peer.id, incarnation=self._incarnations.get(peer.id, -1))
        if peer != known:
            self._warn_of(peer)
            raise InvalidRequest("peer", "another cluster, group or incarnation")

    def _warn_of(self, stranger: Peer) -> None:
        """Log each stranger once: it may go on for ever, under any name."""
        names = stranger.group, stranger.cluster_id
        group, cluster_id = (name[:STRANGER_CHARS_MAX] for name in names)
        stranger = replace(stranger, group=group, cluster_id=cluster_id)
        if stranger not in self._strangers and len(self._strangers) < STRANGERS_MAX:
            self._strangers.add(stranger)
            self._log.warn("refuses messages of {peer}: it is not in this group", peer=stranger)

    def _compare_digest(self, message: AppendEntries) -> None:
        """End the process if the leader's state at the same index differs from this member's."""
        own = self._driver.digest_at(message.applied)
        if own and message.digest and own != message.digest:
            text = f"state at {message.applied} differs from that of {message.source}"
            self._panic(Failure(BrokenInvariant(text)))

    async def _check_leader(self, but: int = 0) -> None:
        """Forget the leader if its process is certainly gone: its host refuses connections now,
        and it can only lead again in a newer term. The member ``but`` is not checked.
        """
        replica = self._driver.replica
        leader, term = replica.leader_id, replica.term
        if leader in (0, self._me.id, but):
            return
        if await self._transport.is_gone(leader):
            self._driver.run(lambda now: replica.leader_lost(now, term))


def _piece(snapshots: Snapshots, fetch: FetchSnapshot, bytes_max: int) -> SnapshotPiece:
    """In a thread. Only the newest is verified, when its first piece is wanted. Further pieces are
    asked for by its index, and the receiver verifies what has arrived.
    """
    try:
        found = snapshots.at(fetch.index) if fetch.index else snapshots.newest()
        if found is None:
            raise Unavailable(f"there is no snapshot {fetch.index or 'that is intact'}")
        content = b"".join(found.content(fetch.offset, bytes_max))
        return SnapshotPiece(found.index, found.path.stat().st_size, content)
    except OSError as error:
        raise Unavailable(f"a snapshot cannot be read: {error}") from error
