"""An order leader's work in one term: raise the fence, record what is listed, then send batches."""

from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twstock import origin
from twstock.clocks import Clock, pause
from twstock.config import Limits
from twstock.errors import (
    DiskFull,
    InvalidRequest,
    OutcomeUnknown,
    Overloaded,
    StaleEpoch,
    TwstockError,
    Unavailable,
)
from twstock.market import Batch, BatchResult, BeginEpoch, Order, Trade
from twstock.order.askers import Tell
from twstock.order.counts import OrderCounts
from twstock.order.desk import Desk, Settled
from twstock.order.neighbours import Ledger, Market
from twstock.order.reception import Reception
from twstock.order.unpublished import Question
from twstock.order.watermark import RecordedWatermark
from twstock.origin import Ids, OriginLogger
from twstock.rpc.calls import ExecutedTrades
from twstock.rpc.wire.commands import encode_order_record

T = TypeVar("T")


class Leading:
    """The leader's work of one term. ``end`` is final: the next term gets a new object."""

    _log = OriginLogger()

    def __init__(
        self,
        epoch: int,
        ledger: Ledger,
        market: Market,
        clock: Clock,
        limits: Limits,
        wall_ms: Callable[[], int],
        panic: Callable[[Failure], None],
        counts: OrderCounts | None = None,
    ) -> None:
        self._counts = counts or OrderCounts()
        self._ledger = ledger
        self._market = market
        self._clock = clock
        self._limits = limits
        self._wall_ms = wall_ms
        self._panic = panic
        self._desk = Desk(
            epoch, ledger.last_number(), limits.batch_orders_max, limits.orders_waiting_max
        )
        self._reception = Reception(self._desk, limits, self._counts)
        self._watermark = RecordedWatermark(limits.unrecorded_trades_max, clock.seconds())
        self._origin: Ids = ()
        self._woken: Deferred[None] | None = None
        self._is_idle = False
        self._reconcile_at = 0.0
        self._ended = False
        self.reason = "the catalog's trades are being listed"

    def start(self) -> None:
        """Begin to work, until ``end``."""
        Deferred.fromCoroutine(self._work()).addErrback(self._panic)

    def end(self) -> None:
        """Stop. Those who wait get an error that says whether their order may have traded."""
        self._ended = True
        self._wake()
        self._reception.end()

    @property
    def is_serving(self) -> bool:
        """Whether orders are taken: every earlier trade is known and being recorded."""
        return not self._ended and not self.reason

    @property
    def orders_open(self) -> int:
        """How many orders have no answer yet."""
        return len(self._desk)

    def place(self, order: Order, tell: Tell, until: float = inf) -> None:
        """Put an order on the desk (see ``Reception.place``), where it waits until ``go`` is
        called, so that the orders of one request go together. Raises Unavailable when no orders
        are taken.
        """
        if self._ended or self.reason:  # ``is_serving``, without a call for each order
            raise Unavailable(self.reason or "leadership was lost")
        self._reception.place(order, tell, until)

    def go(self) -> None:
        """Begin with what waits on the desk, unless a batch is under way. This does not cut a pause
        after a failure short, or the more orders came, the more often the catalog would be asked.
        """
        if not self._desk.has_waiting:
            return
        if ids := origin.current():
            self._origin = origin.together((self._origin, ids))
        if self._is_idle:
            self._wake()

    # --- the work of the term, one step after the other --------------------------------------

    async def _work(self) -> None:
        await self._begin()
        while not self._ended:
            now = self._clock.seconds()
            if now < self._reconcile_at and not self._desk.has_waiting:
                self._is_idle = True
                await self._sleep(self._reconcile_at - now)
                self._is_idle = False
                continue
            origin.work_for(self._origin)
            # Reconcile first, or orders that the records answer would put it off for ever.
            if now >= self._reconcile_at:
                await self._reconcile()
            else:
                await self._trade()

    async def _begin(self) -> None:
        """Fence off older leaders, and record everything that they left."""
        left, is_all = 0, False
        while not is_all:
            listed = await self._until_done(self._list)
            if listed is None:
                return
            trades = self._desk.learn_trades(listed.trades)
            left += len(trades)
            await self._record(trades)
            is_all = self._desk.known >= listed.last_number
        self._put_off_reconciling()
        if not self._ended:
            self.reason = ""
            self._log.info("takes orders", epoch=self._desk.epoch, trades_left=left)

    async def _reconcile(self) -> None:
        """Record trades that were made at the catalog directly."""
        try:
            listed = await self._list()
        except StaleEpoch:
            self._ledger.resign()
        except TwstockError:
            return  # nothing is lost: the next batch or reconciliation lists them again
        else:
            await self._record(self._desk.learn_trades(listed.trades))
            if self._watermark.is_due(self._ledger.last_number(), self._clock.seconds()):
                await self._send(())
        finally:
            self._put_off_reconciling()

    def _put_off_reconciling(self) -> None:
        """The catalog has listed its trades, or could not: it is not asked again for a while."""
        self._reconcile_at = self._clock.seconds() + self._limits.reconcile_every_s

    async def _trade(self) -> None:
        """One batch, from the queue to the proposal of its orders."""
        taken = self._reception.take(self._clock.seconds())
        if not self._desk.has_waiting:
            self._origin = ()
        new = await self._new_orders(taken)
        if new:
            await self._send(new)

    async def _send(self, new: Sequence[Order]) -> None:
        """Send a batch of these orders, or an empty one that only reports what is recorded."""
        if self._ended:
            return
        # The number may be newer than the lookup of the keys. The catalog decides this batch before
        # it forgets keys up to there, and earlier batches named only what the lookup has seen.
        batch = self._desk.send(new, self._ledger.last_number(), self._wall_ms())
        began = self._clock.seconds()
        result = await self._execute(batch)
        if result is None:
            return
        now = self._clock.seconds()
        if new:
            self._counts.batch_orders.observe(len(new))
            self._counts.batch_s.observe(now - began)
        self._watermark.told(batch.recorded, now)
        self._reconcile_at = now + self._limits.reconcile_every_s  # direct trades came with it
        learnt = self._desk.learn(result)
        # The caches are asked while a majority records the trades and the next batch goes out.
        self._reception.learn_unpublished(result.unpublished)
        self._ask_caches()
        if self._reception.settle(learnt.settled, result.unpublished):
            self.go()
        await self._record(learnt.trades)

    async def _execute(self, batch: Batch) -> BatchResult | None:
        """Send a batch until its outcome is known; None when it was taken back, or the term is
        over. It is taken back when the catalog's disk is full, or the batch is too large for it,
        and no earlier attempt can have got through. If the catalog is only busy, it is asked again.
        """
        doubtful = False

        async def attempt() -> BatchResult | None:
            nonlocal doubtful
            try:
                return await self._market.execute(batch)
            except (DiskFull, InvalidRequest) as error:
                if doubtful:
                    raise
                full = error if isinstance(error, DiskFull) else Overloaded(str(error))
                if self._reception.withdraw(full):
                    self.go()
                return None
            except OutcomeUnknown:
                doubtful = True
                raise

        return await self._until_done(attempt)

    async def _new_orders(self, taken: Sequence[Order]) -> list[Order]:
        """The orders whose keys no recorded order has; the others are answered from the records.
        Some were answered during the lookup, because their trades were recorded then.
        """
        recorded = await self._ledger.find_keys([order.key for order in taken])
        if self._reception.replay(taken, recorded):
            self.go()
        holds = self._desk.holds
        return [order for order in taken if order.key not in recorded and holds(order)]

    async def _record(self, trades: tuple[Trade, ...]) -> None:
        """Propose trades as orders, in sequence, and retry as long as the term lasts.

        This does not wait until they are committed: the next batch goes out meanwhile.
        """
        size = self._limits.batch_orders_max
        for start in range(0, len(trades), size):
            await self._propose(trades[start : start + size])

    async def _propose(self, trades: tuple[Trade, ...]) -> None:
        payload = encode_order_record(trades)
        while not self._ended:
            try:
                recording = self._ledger.propose(payload)
            except TwstockError:  # no room on the disk, or giving way: nothing was proposed
                await self._sleep(self._limits.retry_s)
            else:
                answered = recording.addCallbacks(self._reception.recorded, self._lost)
                answered.addErrback(self._panic)
                return

    def _lost(self, failure: Failure) -> None:
        failure.trap(TwstockError)  # the term is over; ``end`` answers those who wait

    async def _list(self) -> ExecutedTrades:
        begin = BeginEpoch(self._desk.epoch, self._desk.known)
        listed = await self._market.begin_epoch(begin)
        self._desk.check_listed(listed.trades, listed.last_number)
        return listed

    async def _until_done(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """Repeat a call to the catalog until its outcome is known; None when the term is over."""
        while not self._ended:
            try:
                result = await call()
            except StaleEpoch:
                self._ledger.resign()
                return None
            except TwstockError as error:
                self._note(error)
                await self._sleep(self._limits.retry_s)
            else:
                return None if self._ended else result
        return None

    def _note(self, error: TwstockError) -> None:
        """Log why no orders are taken yet, once for each reason."""
        if self.reason and self.reason != str(error):
            self.reason = str(error)
            self._log.warn("waits for the catalog: {reason}", reason=self.reason)

    # --- the caches --------------------------------------------------------------------------

    def _ask_caches(self) -> None:
        """Ask the catalog to answer once the unpublished versions are published."""
        while (question := self._reception.question()) is not None:
            asking = Deferred.fromCoroutine(self._await_published(question))
            asking.addErrback(self._panic)

    async def _await_published(self, question: Question[Settled]) -> None:
        """Ask until they are published, whichever catalog leads, and give the answers that wait."""
        while not self._ended:
            try:
                await self._market.await_published(question.versions)
            except TwstockError:
                await pause(self._clock, self._limits.retry_s)
                continue
            if not self._ended:
                if self._reception.published(question):
                    self.go()
                self._ask_caches()
            return

    # --- time --------------------------------------------------------------------------------

    async def _sleep(self, seconds: float) -> None:
        """Wait for this time, or until ``_wake`` is called."""
        woken: Deferred[None] = Deferred()
        self._woken = woken
        timer = self._clock.callLater(seconds, self._wake)
        await woken
        if timer.active():
            timer.cancel()

    def _wake(self) -> None:
        woken, self._woken = self._woken, None
        if woken is not None:
            woken.callback(None)
