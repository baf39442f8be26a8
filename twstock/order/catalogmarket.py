"""The order leader's calls to the catalog: over gRPC, to whichever catalog leads."""

from collections.abc import Mapping

from twisted.application.service import Service

from twstock.clocks import Clock
from twstock.errors import NotLeader, OutcomeUnknown, TwstockError
from twstock.market import Batch, BatchResult, BeginEpoch
from twstock.replication.reach import Contact
from twstock.rpc.calls import AtOnce, AwaitPublished, ExecutedTrades, Verdicts
from twstock.rpc.client import Client
from twstock.rpc.wire import methods
from twstock.rpc.wire.methods import A, Method, Q


class CatalogMarket(Service):
    """Implements ``Market``: calls go to the catalog that answered last.

    After a failure the next call goes to the leader that the answer names, or else to the next
    catalog in turn; the caller repeats the call. ``clients`` has a client for each catalog's id,
    ``contact`` hears of each call that succeeds, and ``deadline_s`` is how long a call may take.
    """

    def __init__(
        self, clients: Mapping[int, Client], contact: Contact, clock: Clock, deadline_s: float
    ) -> None:
        self._clients = clients
        self._contact = contact
        self._clock = clock
        self._ids = sorted(clients, reverse=True)
        self._leader = self._ids[0]
        self._deadline_s = deadline_s

    async def execute(self, batch: Batch) -> BatchResult:
        """Send a batch to the catalog's leader."""
        answer = await self._call(methods.TRADE, AtOnce(batch))
        if not isinstance(answer, Verdicts):
            raise OutcomeUnknown("the catalog answered a batch as a single trade")
        try:
            pairs = zip(answer.verdicts, batch.orders, strict=True)
            outcomes = tuple(verdict.on(order) for verdict, order in pairs)
        except ValueError as error:  # the peer speaks another protocol, or a newer version
            raise OutcomeUnknown(f"the catalog's answer cannot be understood: {error}") from None
        return BatchResult(outcomes, answer.others, answer.unpublished)

    async def await_published(self, versions: Mapping[str, int]) -> None:
        """Ask the catalog's leader, which answers once they are published."""
        await self._call(methods.AWAIT_PUBLISHED, AwaitPublished(versions))

    async def begin_epoch(self, epoch: BeginEpoch) -> ExecutedTrades:
        """Ask the catalog's leader to raise the fence and to list the trades."""
        return await self._call(methods.BEGIN_EPOCH, epoch)

    def stopService(self) -> None:
        """Close all channels: a call under way would keep its thread from ending."""
        super().stopService()
        for client in self._clients.values():
            client.close()

    async def _call(self, method: Method[Q, A], request: Q) -> A:
        asked = self._leader
        try:
            answer = await self._clients[asked].call(method, request, self._deadline_s)
        except TwstockError as error:
            if asked == self._leader:  # no other call has found a better one meanwhile
                self._leader = self._instead(asked, error)
            raise
        self._contact.heard(self._clock.seconds())
        return answer

    def _instead(self, asked: int, error: TwstockError) -> int:
        if isinstance(error, NotLeader) and error.leader_id in self._clients:
            return error.leader_id
        return self._ids[(self._ids.index(asked) + 1) % len(self._ids)]
