"""When a snapshot is made, and which entries the log then drops (log compaction, Raft section 7).

Every member decides for itself, on two conditions: two of its own snapshots stand in for the
entries, and every member has them on disk, so that none will ever need them from another. So no
leader ever sends a snapshot. While a member is down, the logs of the others grow; only a member
that lost its disk begins with a snapshot (``rejoin``).
"""

from twisted.logger import Logger

from twstock.errors import Unavailable
from twstock.replication.equipment import Equipment
from twstock.replication.replica import Replica
from twstock.replication.writer import Writer


class Pruning:
    """Makes a snapshot whenever a segment of the log has ended, and releases old entries. Does
    nothing in a group without snapshots, because its log is what the group is for (the orders).
    """

    _log = Logger()

    def __init__(self, replica: Replica, writer: Writer, equipment: Equipment) -> None:
        self._replica = replica
        self._writer = writer
        self._database = equipment.database
        self._storage = equipment.storage
        self._panic = equipment.surroundings.panic
        self._tried_at = self._safe_index = 0
        self._is_making = False

    def tick(self) -> None:
        """Do what is due."""
        if self._database.snapshots is None or self._is_making:
            return
        ended = self._writer.space.ended_index
        if self._tried_at < ended <= self._database.saved_index:
            self._tried_at, self._is_making = ended, True
            making = self._database.snapshot(ended, self._replica.log.runs())
            # Unavailable: the tables are closed, because the member stops.
            making.addCallbacks(self._made, lambda failure: failure.trap(Unavailable))
            making.addErrback(self._panic)
        self._release()

    def _made(self, safe_index: int) -> None:
        self._is_making = False
        self._safe_index = safe_index

    def _release(self) -> None:
        """Release the entries that no member will ever read again."""
        log, index = self._replica.log, self._safe_index
        if log.first_index <= index <= self._replica.everywhere:
            log.release(index)
            self._storage.release(index)
            self._log.info("entries up to {index} may leave the log", index=index)
