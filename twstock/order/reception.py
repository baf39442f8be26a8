"""What an order leader answers, to whom, and when: pure, without a clock or a network.

An order is answered as soon as its outcome is final and no front-end's cache hides the version that
the answer rests on. Until then it stays on the desk: a caller that asks for it again joins it, and
one that asks for another order under its key waits until it is known which of them owns the key.
"""

from collections.abc import Iterable, Mapping, Sequence

from twstock.config import Limits
from twstock.errors import KeyReused, OutcomeUnknown, Overloaded, TwstockError, Unavailable
from twstock.market import Order, Outcome, Trade
from twstock.order.askers import Askers, Asking, Tell, answer
from twstock.order.counts import OrderCounts
from twstock.order.desk import Admission, Desk, Settled
from twstock.order.unpublished import Question, Unpublished
from twstock.rpc.calls import Placement


class Reception:
    """The callers that placed the orders on the desk of one term, and the answers to them.

    A caller may place an order from inside its ``Tell``. A method that returns a bool says whether
    an order that had waited for its key was placed: then there may be a new order to begin.
    """

    def __init__(self, desk: Desk, limits: Limits, counts: OrderCounts) -> None:
        self._desk = desk
        self._counts = counts
        self._askers = Askers()
        self._unpublished: Unpublished[Settled] = Unpublished(
            limits.publication_questions_max, limits.page_max
        )

    def place(self, order: Order, tell: Tell, until: float) -> None:
        """Put an order on the desk, or join it. Raises Overloaded when too many orders wait, or
        OutcomeUnknown when too many callers do. It does not begin after ``until`` (seconds of the
        clock), when nobody waits for it any more.
        """
        asking = Asking(order, tell, until)
        match self._desk.place(order):
            case Admission.BEHIND:
                self._wait(asking)
            case Admission.FULL:
                raise Overloaded("too many orders wait")
            case Admission.CROWDED:
                raise OutcomeUnknown("too many wait for orders under way")
            case Admission.JOINED:
                self._askers.join(asking)
            case Admission.QUEUED:
                self._askers.open(asking)

    def take(self, now: float) -> Sequence[Order]:
        """Take up to a batch of orders from the desk. Those that nobody waits for any more are
        refused instead: they have had no effect, and never will.
        """
        taken = self._desk.take()
        late = self._askers.begin(taken, now)
        if not late:
            return taken
        # Orders that waited for one of their keys are in the queue now: the next call takes them.
        self._refuse(late, Unavailable("the deadline passed before the order was begun"))
        return [order for order in taken if order.key not in late]

    def replay(self, taken: Iterable[Order], recorded: Mapping[str, Trade]) -> bool:
        """Answer those of these orders whose keys are recorded, from the records."""
        placed = False
        for order in taken:
            trade = recorded.get(order.key)
            if trade is not None:
                same = trade.order.same_body(order)
                outcome = Outcome(trade=trade, replayed=True) if same else Outcome(key_reused=True)
                if not same:
                    self._counts.refused(KeyReused())
                # It may have been recorded only a moment ago, and a cache may still hide its trade.
                placed |= self._settle(order, outcome, trade.order.name, trade.version)
        return placed

    def settle(self, settled: Iterable[Settled], unpublished: Mapping[str, int]) -> bool:
        """Answer what has not traded. A refusal, too, reveals the state in which it was decided."""
        placed = False
        for order, outcome in settled:
            self._counts.refused(KeyReused() if outcome.key_reused else None)
            placed |= self._settle(order, outcome, order.name, unpublished.get(order.name))
        return placed

    def recorded(self, trades: Iterable[Trade]) -> None:
        """Answer the orders of these trades. They own their keys, so other orders that waited for
        one are refused and not placed.
        """
        for trade in trades:
            order = self._desk.traded(trade)
            if order is not None:
                self._settle(order, self._desk.outcome_of(trade), order.name, trade.version)

    def withdraw(self, error: TwstockError) -> bool:
        """Take back the batch under way, and refuse its orders."""
        return self._refuse(self._desk.withdraw(), error)

    def end(self) -> None:
        """The term is over: all who wait get an error, which says whether they may have traded."""
        held = {order.key for order, _ in self._unpublished.held()}
        for key, tell, is_behind in self._askers.end():
            in_doubt = not is_behind and (key in held or self._desk.may_have_traded(key))
            tell((OutcomeUnknown if in_doubt else Unavailable)("leadership was lost"))

    # --- the caches --------------------------------------------------------------------------

    def learn_unpublished(self, versions: Mapping[str, int]) -> None:
        """Caches may hide these versions of stocks, by name."""
        self._unpublished.learn(versions)

    def question(self) -> Question[Settled] | None:
        """What to ask the catalog now about caches; None: nothing, or enough is under way."""
        return self._unpublished.ask()

    def published(self, question: Question[Settled]) -> bool:
        """No cache hides these versions any more: answer what waited for that."""
        placed = False
        for order, outcome in self._unpublished.published(question):
            placed |= self._answer(order, outcome)
        return placed

    # --- who waits ---------------------------------------------------------------------------

    def _settle(self, order: Order, outcome: Outcome, name: str, version: int | None) -> bool:
        """Answer an order whose outcome is final as soon as no cache hides this version of the
        stock, on which the answer rests; None: at once.
        """
        if version is not None and self._unpublished.hold(name, version, (order, outcome)):
            return False
        return self._answer(order, outcome)

    def _answer(self, order: Order, outcome: Outcome) -> bool:
        """Answer an order, unless that was done while it was in the queue (see ``Desk.traded``):
        then another order may be on the desk under its key.
        """
        if not self._desk.holds(order):
            return False
        self._desk.close((order.key,))
        return self._tell(order.key, answer(outcome))

    def _wait(self, asking: Asking) -> None:
        try:
            self._askers.wait(asking)
        except OutcomeUnknown:
            self._desk.leave(asking.order.key)
            raise

    def _refuse(self, keys: Iterable[str], error: TwstockError) -> bool:
        """Answer the orders with these keys. Each stays on the desk until its turn, so that whoever
        asks for it meanwhile joins it.
        """
        placed = False
        for key in keys:
            self._counts.refused(error)
            self._desk.close((key,))
            placed |= self._tell(key, error)
        return placed

    def _tell(self, key: str, result: Placement | TwstockError) -> bool:
        """Give the result to all who wait for an order that is off the desk. Other orders that
        waited for its key are placed next, unless this order owns the key.
        """
        placed = False
        for order, tell, until in self._askers.tell(key, result):
            try:
                if isinstance(result, Placement):
                    raise KeyReused
                self.place(order, tell, until)
                placed = True
            except TwstockError as error:
                self._counts.refused(error)
                tell(error)
        return placed
