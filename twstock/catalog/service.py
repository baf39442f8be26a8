"""The catalog's calls: lookups and leases as the leader, trades through the log. Changes of stocks
are in ``stockchanges``.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twstock.catalog import requests
from twstock.catalog.invalidation import Publisher
from twstock.catalog.proposals import Proposals
from twstock.catalog.sessions import Sessions
from twstock.catalog.state import CatalogState
from twstock.catalog.stockchanges import StockChanges
from twstock.clocks import Clock, pause
from twstock.config import Limits
from twstock.errors import (
    InvalidRequest,
    OutcomeUnknown,
    Overloaded,
    TwstockError,
    Unavailable,
)
from twstock.market import (
    Batch,
    BatchResult,
    BeginEpoch,
    DirectTrade,
    Outcome,
    Refusal,
    Seed,
    Stock,
    Verdict,
    parse_order,
)
from twstock.origin import OriginLogger
from twstock.replication.leader import LeadingMember
from twstock.rpc.calls import (
    LOOKUPS_MAX,
    AtOnce,
    AwaitPublished,
    ExecutedTrades,
    Lease,
    LookedUp,
    Lookup,
    LookupMany,
    Placement,
    PlaceOrder,
    Published,
    Register,
    StockPage,
    Stocks,
    TradeCall,
    Verdicts,
    fitting,
    page_limit,
)


class Catalog:
    """The calls of front-ends and order leaders to one catalog replica.

    ``fronts`` are the ids that may register; ``seed()`` is the Seed for an empty catalog when this
    replica leads it first, and raises ConfigError if there is none. The member's ``machine`` is a
    CatalogState.
    """

    _log = OriginLogger()

    def __init__(
        self,
        member: LeadingMember,
        sessions: Sessions,
        publisher: Publisher,
        seed: Callable[[], Seed],
        fronts: Collection[int],
        clock: Clock,
        limits: Limits,
        wall_ms: Callable[[], int],
        random_key: Callable[[], str],
        panic: Callable[[Failure], None],
    ) -> None:
        self._member = member
        self._sessions = sessions
        self._publisher = publisher
        self._seed = seed
        self._fronts = frozenset(fronts)
        self._clock = clock
        self._limits = limits
        self._wall_ms = wall_ms
        self._random_key = random_key
        self._panic = panic
        self._term = 0
        self._proposals = Proposals(member)
        self.stock_changes = StockChanges(
            member,
            self,
            self._proposals,
            sessions,
            publisher,
            limits,
            wall_ms,
            random_key,
        )

    @property
    def _state(self) -> CatalogState:
        state: CatalogState = self._member.machine
        return state

    @property
    def reason(self) -> str:
        """Why a leading replica answers no lookups yet; empty otherwise."""
        if not self._sessions.is_open:
            return "leases granted by the previous leader may not be over"
        return self._unusable

    @property
    def _unusable(self) -> str:
        """Why nothing can be done with the stocks as they are; empty otherwise."""
        return "the catalog is being filled" if self._state.is_empty else self._proposals.loss

    # --- reading -----------------------------------------------------------------------------

    async def lookup(self, request: Lookup) -> Stock | None:
        """Lookup: the published stock; None if there is none of that name."""
        self.check_reads()
        now = self._clock.seconds()
        return self._sessions.looked_up(request.front_id, request.session, request.name, now)

    async def lookup_many(self, request: LookupMany) -> LookedUp:
        """LookupMany: many lookups at the same moment, in one answer."""
        names_max = max(self._limits.page_max, LOOKUPS_MAX)
        if len(request.names) > names_max:
            raise InvalidRequest("stock_names", f"expected at most {names_max}")
        self.check_reads()
        now = self._clock.seconds()
        front_id, session, look_up = request.front_id, request.session, self._sessions.looked_up
        return LookedUp(tuple(look_up(front_id, session, name, now) for name in request.names))

    async def list_stocks(self, request: StockPage) -> Stocks:
        """ListStocks: a page of published stocks."""
        self.check_reads()
        limit = page_limit(request.limit, self._limits.page_max)
        page = self._state.page(request.after, limit + 1)
        published = (self._sessions.shown(stock.name) for stock in page[:limit])
        stocks = tuple(stock for stock in published if stock is not None)
        return Stocks(stocks, page[limit - 1].name if len(page) > limit else "")

    async def register(self, request: Register) -> Lease:
        """Register: a lease for a front-end's cache, never longer than the leader's own."""
        requests.check_register(request, self._fronts)
        self._member.check_leads()
        now = self._clock.seconds()
        # A leader that is giving way lets all leases run out first.
        ends = self._member.is_giving_way() or self._proposals.loss
        cap = 0.0 if ends else self._member.lease_until() - now
        lease = self._sessions.register(request.front_id, request.url, request.session, now, cap)
        self._publisher.proceed()
        if lease.fresh and lease.seconds > 0:
            self._log.info("front-{front} has a cache lease", front=request.front_id)
        return lease

    # --- trading -----------------------------------------------------------------------------

    async def trade(self, request: TradeCall) -> Verdicts | Placement:
        """Trade: a batch of the order leader, or the original's single trade. Answers when the
        trades are durable and no cache hides them; for ``AtOnce`` as soon as they are durable.
        """
        if isinstance(request, PlaceOrder):
            return await self._trade_directly(request)
        if isinstance(request, AtOnce):
            return await self._trade_batch(request.batch, at_once=True)
        return await self._trade_batch(request)

    async def await_published(self, request: AwaitPublished) -> Published:
        """AwaitPublished: answers when no cache hides these versions. Without any it is about all
        that is committed now, which only a leader under its lease knows.
        """
        self._member.check_leads()
        requests.check_committed(request, self._state.stock)
        if request.versions:
            await self._publisher.published(request.versions)
        else:
            self._member.check_lease()
            await self._publisher.everything()
        return Published()

    async def begin_epoch(self, request: BeginEpoch) -> ExecutedTrades:
        """BeginEpoch: raise the fence, list the trades that no order is known to record.

        All that was committed is published before the answer. The order leader may acknowledge a
        listed trade as soon as it has recorded it, and at any time one that is not listed because
        an earlier leader has recorded it.
        """
        self._member.check_leads()
        requests.check_epoch(request, self._state.fence)
        listed = self._listed(request) or await self._proposals.propose(request)
        assert isinstance(listed, ExecutedTrades)
        await self._publisher.everything()
        return replace(listed, trades=tuple(fitting(listed.trades, self._limits.message_bytes_max)))

    def _listed(self, request: BeginEpoch) -> ExecutedTrades | None:
        """The list without a log entry, if this leader is under its lease and this epoch is the
        fence's already, or trades are missing: so neither reconciling once a second nor asking
        again after a loss makes the log grow.
        """
        if self._clock.seconds() >= self._member.lease_until():
            return None
        is_lost = request.after > self._state.last_transaction
        if request.epoch != self._state.fence and not is_lost:
            return None
        listed = self._proposals.accepted(self._state.list_trades(request.after))
        assert isinstance(listed, ExecutedTrades)
        return listed

    async def _trade_batch(self, batch: Batch, at_once: bool = False) -> Verdicts:
        requests.check_batch(batch)
        self._member.check_leads()
        result = await self._proposals.propose(batch)
        assert isinstance(result, BatchResult)
        # Refusals, too, reveal the state in which they were decided.
        names = {order.name for order in batch.orders}
        stocks = self._found(names | {trade.order.name for trade in result.others})
        published = self._publisher.publish(stocks)
        if at_once and not published.called:
            # The caller will ask about the versions listed below, and so learn of lost leadership.
            published.addErrback(lambda failure: failure.trap(OutcomeUnknown))
        else:
            await published
        unpublished = self._publisher.unpublished(stocks)
        return Verdicts(tuple(map(Verdict.of, result.outcomes)), result.others, unpublished)

    async def _trade_directly(self, request: PlaceOrder) -> Placement:
        requests.check_direct(request)
        self.check_writes()
        order = parse_order(self._random_key(), request.name, request.type, request.quantity)
        if isinstance(order, Refusal):
            return Placement(refusal=str(order))
        unrecorded = self._state.last_transaction - self._state.recorded
        if unrecorded >= self._limits.unrecorded_trades_max:
            # They are kept until they are recorded, and the next order leader has to list them.
            raise Overloaded("too many trades wait to be recorded as orders")
        outcome = await self._proposals.propose(DirectTrade(order, self._wall_ms()))
        assert isinstance(outcome, Outcome)
        await self._publish([order.name])
        if outcome.trade is None:
            return Placement(refusal=str(outcome.refusal))
        return Placement(outcome.trade.number, version=outcome.trade.version)

    async def _publish(self, names: Iterable[str]) -> None:
        """Wait until lookups show these stocks as they are now, or newer."""
        await self._publisher.publish(self._found(names))

    def _found(self, names: Iterable[str]) -> list[Stock]:
        return [stock for name in names if (stock := self._state.stock(name)) is not None]

    # --- leading -----------------------------------------------------------------------------

    def begin(self, term: int) -> None:
        """The member leads (``Tier``): nothing is shown until earlier leaders' leases are over."""
        self._term = term
        self._publisher.start(self._published_at_first)
        filling = Deferred.fromCoroutine(self._fill(term))
        filling.addErrback(lambda failure: failure.trap(OutcomeUnknown)).addErrback(self._panic)

    def end(self) -> None:
        """Leadership is over (``Tier``)."""
        self._term = 0
        self._publisher.stop()

    def saved(self, index: int) -> None:
        """The tables have everything up to this entry (``Tier``); all stocks stay in memory."""

    def _published_at_first(self) -> Iterable[Stock]:
        """What no cache hides once the leases of earlier leaders are over: everything."""
        self.stock_changes.all_shown()
        return self._state.stocks()

    async def _fill(self, term: int) -> None:
        """Give an empty catalog its first stocks."""
        told = ""
        while self._state.is_empty and self._term == term:
            try:
                seed = self._seed()
                await self._proposals.propose(seed)
            except TwstockError as error:
                if str(error) != told:
                    self._log.warn("cannot fill the catalog yet: {reason}", reason=str(error))
                told = str(error)
                await pause(self._clock, self._limits.retry_s)
            else:
                self._log.info("is filled with {stocks} stocks", stocks=len(seed.stocks))
                await self._publish(stock.name for stock in seed.stocks)

    def check_reads(self) -> None:
        """Raise NotLeader or Unavailable, unless this leader is under its lease and may answer."""
        self._member.check_lease()
        if self.reason:
            raise Unavailable(self.reason)

    def check_writes(self) -> None:
        """Raise NotLeader or Unavailable, unless this leader may trade and change stocks."""
        self._member.check_leads()
        if self._unusable:
            raise Unavailable(self._unusable)
