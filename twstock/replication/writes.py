"""What a replica has given its disk to write, and how much of that is durable."""

from collections import deque
from collections.abc import Sequence

from twstock.errors import BrokenInvariant
from twstock.replication.log import Log
from twstock.replication.messages import AppendReply, Entry, HardState, Message, Persist


class Writes:
    """The writes under way, in the order in which they complete, and what the next one holds.

    Each claims the log up to an index. When entries are replaced before their write is done, the
    claim shrinks to what precedes them: at their indices the disk will have other entries than
    the log.
    """

    def __init__(self, durable_index: int) -> None:
        self.durable_index = durable_index
        self._unsaved_from = durable_index + 1
        self._unsaved_state = False
        self._started = 0
        self._finished = 0
        self._state_write = 0
        self._claims: deque[tuple[int, int]] = deque()

    @property
    def state_is_durable(self) -> bool:
        """Whether the disk has the newest term and vote."""
        return self._finished >= self._state_write and not self._unsaved_state

    def state_changed(self) -> None:
        """The term or the vote is new: the next write has to include both."""
        self._unsaved_state = True

    def replaced(self, new: Sequence[Entry]) -> None:
        """The log has taken over ``new``, in place of whatever was there."""
        if new:
            before = new[0].index - 1
            self._unsaved_from = min(self._unsaved_from, before + 1)
            self.durable_index = min(self.durable_index, before)
            self._claims = deque((write, min(claim, before)) for write, claim in self._claims)

    def start(self, log: Log, hard_state: HardState) -> Persist | None:
        """The next write, with all that is new; None if nothing is."""
        first, last = self._unsaved_from, log.last_index
        if first > last and not self._unsaved_state:
            return None
        self._started += 1
        self._claims.append((self._started, last))
        state = hard_state if self._unsaved_state else None
        if state is not None:
            self._state_write = self._started
        self._unsaved_from, self._unsaved_state = last + 1, False
        return Persist(self._started, state, log.between(first, last))

    def finish(self, sequence: int) -> None:
        """All writes up to ``sequence`` are done."""
        if sequence > self._started:
            raise BrokenInvariant(f"write {sequence} is done, but only {self._started} were begun")
        self._finished = max(self._finished, sequence)
        while self._claims and self._claims[0][0] <= sequence:
            _, claim = self._claims.popleft()
            self.durable_index = max(self.durable_index, claim)

    def cover(self, message: Message) -> bool:
        """Whether all that ``message`` promises is on disk. Appends promise only the term:
        a leader's own disk works in parallel with its followers' (thesis 10.2.1).
        """
        if isinstance(message, AppendReply) and message.ok and message.index > self.durable_index:
            return False
        return self.state_is_durable
