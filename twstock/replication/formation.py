"""Joining a group for the first time, or learning that this member may not.

A new directory has a random incarnation, durable before any other member learns it. The member
must not promise anything (vote, acknowledge) before it is *formed*: it has learnt the incarnation
of every other member, and none of them knows it by another one. So any peer that was formed before
detects a member whose directory was wiped (TigerBeetle 2767, etcd 10254: a wiped disk forgets
promises). The first start of a group needs all its members.
"""

from collections.abc import Iterable

from twisted.internet.defer import DeferredList

from twstock.errors import StorageError, WipedStorage
from twstock.replication.transport import Transport
from twstock.rpc.calls import Peer, Probe, ProbeAnswer


class Formation:
    """What a member has learnt of its peers on the way to being formed."""

    def __init__(self, me: Peer, peers: Iterable[int], transport: Transport) -> None:
        self._me = me
        self._transport = transport
        self._missing = set(peers)
        self._members = {me.id, *self._missing}
        self.learnt: dict[int, int] = {}

    @property
    def missing(self) -> tuple[int, ...]:
        """The peers that have not answered yet."""
        return tuple(sorted(self._missing))

    async def ask(self) -> bool:
        """Ask every peer that is missing; return whether all have answered now.

        Raises WipedStorage if a peer knows this member by another incarnation, StorageError if it
        is configured with other members: there would be two groups, and each would elect a leader.
        """
        asked = self.missing
        probe = Probe(self._me)
        answers = await DeferredList(
            [self._transport.probe(peer, probe) for peer in asked], consumeErrors=True
        )
        for peer, (answered, answer) in zip(asked, answers, strict=True):
            if answered:
                self._learn(peer, answer)
        return not self._missing

    def _learn(self, peer: int, answer: ProbeAnswer) -> None:
        status, me = answer.status, self._me
        if (status.group, status.cluster_id, status.id) != (me.group, me.cluster_id, peer):
            return
        if not status.incarnation:
            return  # it answers already, but has not opened its directory yet
        if status.knows_asker_as not in (0, me.incarnation):
            raise WipedStorage(
                f"{me.group}-{me.id}: this data directory is new, but {me.group}-{peer} knows "
                f"this member by another incarnation ({status.knows_asker_as:x}): its data and "
                "all that it had promised (votes, acknowledged entries) are gone; "
                "put back the directory that was here, or see twstock rejoin"
            )
        if set(status.members) != self._members:
            raise StorageError(
                f"{me.group}-{peer} is in a group of {sorted(status.members)}, {me.group}-{me.id} "
                f"in one of {sorted(self._members)}: have the same cluster.toml on all hosts"
            )
        self.learnt[peer] = status.incarnation
        self._missing.discard(peer)
