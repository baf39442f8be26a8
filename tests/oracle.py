"""What must hold in a group of replicas after every event, whatever happens to them.

The checks know nothing about how a replica works: they look at what it shows, at what it asks
its disk to keep, at what the disk has, and at the messages that it sends. Logs are compared by the
hash of everything up to an index, so that the cost of a check depends only on what is new.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from twstock.replication.messages import (
    AppendEntries,
    AppendReply,
    Committed,
    Entry,
    Message,
    Persist,
    VoteReply,
    VoteRequest,
)
from twstock.replication.standing import Role

if TYPE_CHECKING:
    from tests.simulation import Node


class Violation(AssertionError):
    """Something that must never happen has happened."""


def require(claim: bool, text: str, *values: object) -> None:
    """Raise Violation unless ``claim`` holds."""
    if not claim:
        raise Violation(text.format(*values))


def chained(before: int, entry: Entry) -> int:
    """The hash of a log that continues one of hash ``before`` with ``entry``."""
    return hash((before, entry.index, entry.term, entry.kind, entry.payload))


def extend(hashes: list[int], entries: tuple[Entry, ...]) -> None:
    """Write ``entries`` into the list of hashes of a log, replacing what was there."""
    if entries:
        del hashes[entries[0].index - 1 :]
    for entry in entries:
        hashes.append(chained(hashes[-1] if hashes else 0, entry))


class Oracle:
    """Judges a group of nodes, event by event."""

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        self._majority = len(nodes) // 2 + 1
        self._leaders: dict[int, int] = {}
        self._known: dict[tuple[int, int], int] = {}
        self._votes: dict[tuple[int, int], int] = {}
        self.committed: list[int] = []
        self.entries: list[Entry] = []
        self._commit_terms: list[int] = []
        self.digests: list[int] = [0]
        self._grants: dict[tuple[int, int], float] = {}
        self._needed = 0

    def wrote(self, node: Node, persist: Persist) -> None:
        """Log matching: entries with the same index and term are the same everywhere, and so is the
        log before them. And nothing that is committed is ever replaced.
        """
        entries, hashes = persist.entries, node.hashes
        if not entries:
            return
        first = entries[0].index
        require(first <= len(hashes) + 1, "{} leaves a gap before {}", node, first)
        if first <= len(hashes) and first <= len(self.committed):
            require(
                hashes[first - 1] != self.committed[first - 1],
                "{} replaces {}, which is committed",
                node,
                first,
            )
        extend(hashes, entries)
        for entry in entries:
            prefix = self._known.setdefault((entry.index, entry.term), hashes[entry.index - 1])
            require(prefix == hashes[entry.index - 1], "log matching broken by {}: {}", node, entry)

    def sends(self, node: Node, message: Message) -> None:
        """What a message promises is on the sender's disk when it leaves."""
        disk, term = node.disk, message.term
        match message:
            case VoteRequest(pre_vote=False):
                self._voted(node, term, message.source)
            case VoteReply(granted=True, pre_vote=False):
                self._voted(node, term, message.target)
            case AppendReply(ok=True):
                self._holds(node, message)
            case AppendEntries():
                require(disk.state.term >= term, "{} leads before its term is on disk", node)
            case Committed() | VoteRequest() | VoteReply():
                pass

    def _voted(self, node: Node, term: int, candidate: int) -> None:
        kept = node.disk.state
        promised = kept.term > term or (kept.term, kept.vote) == (term, candidate)
        require(promised, "{} votes for {} in {} before it is on disk", node, candidate, term)
        first = self._votes.setdefault((node.id, term), candidate)
        require(first == candidate, "{} votes for {} and {} in {}", node, first, candidate, term)

    def loses_disk(self) -> None:
        """Everything that is committed now has to be on the new disk, too."""
        self._needed = len(self.committed)

    def has_new_disk(self, node: Node) -> None:
        """A node rejoins without what only its own disk had: votes for itself. Such a vote counts
        only together with that of another node, which has the term on disk.
        """
        kept, needed = node.disk, self._needed
        same = kept.hashes[:needed] == self.committed[:needed]
        require(same, "{} rejoins without what is committed", node)
        for voter, term in [vote for vote in self._votes if vote[0] == node.id]:
            if self._votes[voter, term] == voter:
                del self._votes[voter, term]
            else:
                spent = term < kept.state.term or (term == kept.state.term and kept.state.vote != 0)
                require(spent, "{} forgets its vote in {}", node, term)

    def _holds(self, node: Node, reply: AppendReply) -> None:
        disk = node.disk
        require(disk.state.term >= reply.term, "{} answers before its term is on disk", node)
        if node.replica is not None and node.replica.term > reply.term:
            return  # its entries of then may have been replaced by now, in the same write
        require(len(disk.hashes) >= reply.index, "{} promises {} too early", node, reply.index)
        if reply.index and node.replica is not None:
            same = disk.hashes[reply.index - 1] == node.hashes[reply.index - 1]
            require(same, "{} promises {} but the disk has another", node, reply.index)

    def stands(self, node: Node, now: float) -> None:
        """Check log, commit index and lease after something has happened at ``node``."""
        replica = node.replica
        assert replica is not None
        require(replica.last_index == len(node.hashes), "{} did not write what it holds", node)
        if replica.commit > node.commit_seen:
            self._committed(node, replica.commit, replica.term)
            node.commit_seen = replica.commit
        if replica.role is Role.LEADER:
            self._leads(node, replica.term, now)
            lease_until = replica.lease_until
            if lease_until > -inf and len(self._nodes) > 1:
                self._leases(node, replica.term, node.true_time(lease_until), now)

    def _committed(self, node: Node, commit: int, term: int) -> None:
        require(commit <= len(node.hashes), "{} commits beyond its log", node)
        for index in range(node.commit_seen, min(commit, len(self.committed))):
            same = node.hashes[index] == self.committed[index]
            require(same, "{} commits something else at {}", node, index + 1)
        for index in range(len(self.committed), commit):
            prefix = node.hashes[index]
            holders = sum(
                len(peer.disk.hashes) > index and peer.disk.hashes[index] == prefix
                for peer in self._nodes
            )
            require(holders >= self._majority, "{} is committed on {} disks", index + 1, holders)
            self.committed.append(prefix)
            assert node.replica is not None
            self.entries.append(node.replica.log.entry(index + 1))
            self._commit_terms.append(term)

    def _leads(self, node: Node, term: int, now: float) -> None:
        if term in self._leaders:
            first = self._leaders[term]
            require(first == node.id, "{} and {} lead term {}", first, node, term)
            return
        self._leaders[term] = node.id
        last = len(self.committed)
        while last and self._commit_terms[last - 1] >= term:
            last -= 1
        complete = not last or node.hashes[last - 1 : last] == self.committed[last - 1 : last]
        require(complete, "{} leads {} without the committed entry {}", node, term, last)
        # A late winner of an old term leads no others; a newer one must find no lease.
        self._nobody_else_leases(node, term, now)

    def _leases(self, node: Node, term: int, until: float, now: float) -> None:
        granted = self._grants.get((node.id, term), -inf)
        self._grants[node.id, term] = max(until, granted)
        if until > now:
            self._nobody_else_leases(node, inf, now)
            newest = self._commit_terms[-1] if self._commit_terms else 0
            require(term >= newest, "{} has a lease while {} commits", node, newest)

    def _nobody_else_leases(self, node: Node, below: float, now: float) -> None:
        """All leases of other leaders with a term below ``below`` are over, even if such a leader
        has stepped down, or crashed, in the meantime.
        """
        for (peer, term), until in self._grants.items():
            over = peer == node.id or term >= below or until <= now
            require(over, "{}: node {} had a lease in {} until {}", node, peer, term, until)

    def forget_lease(self, node: Node) -> None:
        """The process is known to be gone, so its lease binds nobody any more."""
        self._grants = {key: until for key, until in self._grants.items() if key[0] != node.id}

    def applied(self, node: Node, entry: Entry) -> None:
        """Each entry is applied once, in order, committed and on the node's own disk; and all
        states are the same.
        """
        require(entry.index == node.applied + 1, "{} applies {} now", node, entry.index)
        index = entry.index - 1
        own = node.disk.hashes[index] if len(node.disk.hashes) > index else 0
        require(own == self.committed[index], "{} applies {}, not on disk", node, entry.index)
        digest = hash((node.digest, entry.kind, entry.payload))
        if len(self.digests) == entry.index:
            self.digests.append(digest)
        require(self.digests[entry.index] == digest, "{} differs at {}", node, entry.index)
        node.applied, node.digest = entry.index, digest
