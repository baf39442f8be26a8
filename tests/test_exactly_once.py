"""The way of an order to the catalog and back, explored exhaustively with the real
``CatalogState``, ``OrderState``, ``Desk`` and ``Unpublished``.

Two order leaders, one after the other, the first of which may not know that it has been
replaced. Batches arrive late, twice, or never; answers are lost; what a leader has proposed
reaches its successor or does not; clients ask either leader again. A crash is a leader, or a
client, that takes no more steps. Administrators change the stock meanwhile, and their requests
arrive late and twice as well. Caches are told of what the catalog has committed at any later time,
before or after the order is recorded. In every state that can be reached, each key has executed at
most once, orders are recorded in the sequence in which they executed, nothing was traded while it
was halted, shares add up, answers are true, and nobody is told what a cache may still hide.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

import pytest

from tests.states import rows_of
from twstock.catalog.changes import CatalogRows, Lost, Stale
from twstock.catalog.state import CatalogState
from twstock.errors import BrokenInvariant, CorruptStorage
from twstock.market import (
    Batch,
    BatchResult,
    BeginEpoch,
    ChangeKind,
    ChangeOutcome,
    ChangeRequest,
    ChangeStock,
    DirectTrade,
    Order,
    Outcome,
    Side,
    Stock,
    Trade,
)
from twstock.order.desk import Admission, Desk, Settled
from twstock.order.state import OrderState
from twstock.order.unpublished import Question, Unpublished
from twstock.replication.messages import Applied
from twstock.rpc.calls import ExecutedTrades
from twstock.rpc.wire.commands import encode_catalog_command, encode_order_record

Command = Batch | BeginEpoch | DirectTrade | ChangeStock
Record = tuple[Trade, ...]

BUY = Order("buy", "S", Side.BUY, 1)
TOO_MUCH = Order("too-much", "S", Side.BUY, 11)
SELL = Order("sell", "S", Side.SELL, 5)
DIRECT = DirectTrade(Order("direct", "S", Side.SELL, 1), 0)
SHARES = 10
HALT = ChangeRequest("halt", ChangeKind.HALT, "S")
RESUME = ChangeRequest("resume", ChangeKind.RESUME, "S")
RESTOCK = ChangeRequest("restock", ChangeKind.RESTOCK, "S", quantity=5)


@dataclass(frozen=True)
class Rules:
    """The protocol, or one with an omission, and how much is explored. ``asks`` are requests of
    clients, each to one of the leaders (0 or 1), ``changes`` those of administrators, ``directs``
    counts direct trades, ``refusals`` batches that the catalog has no room for, and ``questions``
    is how many questions about caches may be open at once. With ``tells`` a leader also sends
    batches without orders. Each other field stands for an omission.
    """

    asks: tuple[tuple[Order, int], ...] = ((BUY, 0), (BUY, 0), (BUY, 1), (BUY, 1))
    changes: tuple[ChangeRequest, ...] = ()
    directs: int = 0
    refusals: int = 0
    withdraws_in_doubt: bool = False
    catalog: type[CatalogState] = CatalogState
    lists_before_fence: bool = False
    records_list: bool = True
    answers_early: bool = False
    looks_up_keys: bool = True
    questions: int = 1
    says_published: bool = False
    lists_unpublished: bool = False
    answers_unpublished: bool = False
    refuses_unpublished: bool = False
    replays_unpublished: bool = False
    tells: bool = False
    tells_after_look_up: bool = False


class Told(NamedTuple):
    """What a client is told of a key; ``version`` is the stock's that it rests on."""

    what: str
    key: str
    number: int
    version: int


class Leader(NamedTuple):
    """An order replica. ``applied`` counts the records that it knows to be committed;
    ``taken`` are orders whose keys it has looked up; ``answer`` is the catalog's, on its way;
    ``unpublished`` are its questions about caches, and the answers that wait for them.
    """

    phase: str = "follower"
    desk: tuple[Any, ...] = ()
    applied: int = 0
    proposed: tuple[Record, ...] = ()
    taken: tuple[Order, ...] = ()
    answer: Any = None
    askers: frozenset[str] = frozenset()
    unpublished: tuple[Any, ...] = ((), ())


class State(NamedTuple):
    """Everything. ``mail`` are commands that may reach the catalog, again and again; ``log``
    is the order group's; ``answers`` what clients were told; ``asks`` which are still to come;
    ``shown`` is the version that no cache hides, ``refused_at`` the one of each refused key.
    """

    catalog: CatalogRows
    leaders: tuple[Leader, Leader]
    asks: tuple[tuple[Order, int], ...]
    directs: int
    refusals: int
    log: tuple[Record, ...] = ()
    mail: frozenset[Command] = frozenset()
    listed: frozenset[tuple[int, ExecutedTrades]] = frozenset()
    answers: frozenset[tuple[str, str, int]] = frozenset()
    executed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    shown: int = 0
    refused_at: frozenset[tuple[str, int]] = frozenset()

    @property
    def version(self) -> int:
        """The version that is committed."""
        return self.catalog.stocks[0].version


class Violation(Exception):
    """A promise is broken."""


@cache
def last_number(log: tuple[Record, ...]) -> int:
    """The last number that a log of records holds. Raises Violation."""
    state = OrderState()
    try:
        for index, trades in enumerate(log, 1):
            state.apply(index, encode_order_record(trades))
    except BrokenInvariant as error:
        raise Violation(str(error)) from None
    return state.last_number


@cache
def recorded_keys(log: tuple[Record, ...]) -> dict[str, Trade]:
    """The recorded orders, by key, as the order replica finds them."""
    state = OrderState()
    for index, trades in enumerate(log, 1):
        state.apply(index, encode_order_record(trades))
    keys = [trade.order.key for trades in log for trade in trades]
    return {key: trade for key in keys if (trade := state.by_key(key)) is not None}


def freeze(desk: Desk) -> tuple[Any, ...]:
    """All of a desk, as a value."""
    return (
        desk.epoch,
        desk.known,
        desk._batches,
        desk._under_way,
        tuple(desk._open.items()),
        tuple(desk._queue),
        frozenset(desk._sent),
    )


def thaw(frozen: tuple[Any, ...]) -> Desk:
    """The desk of a value."""
    epoch, known, batches, under_way, opened, queue, sent = frozen
    desk = Desk(epoch, known, 256, 8192)
    desk._batches, desk._under_way = batches, under_way
    desk._open, desk._queue, desk._sent = dict(opened), list(queue), set(sent)
    return desk


def freeze_questions(unpublished: Unpublished[Told]) -> tuple[Any, ...]:
    """All questions about caches, as a value: those that are asked, and those that will be."""
    return tuple(
        tuple((question.versions["S"], tuple(sorted(question.answers))) for question in questions)
        for questions in (unpublished._asked, unpublished._next)
    )


def thaw_questions(frozen: tuple[Any, ...], questions_max: int) -> Unpublished[Told]:
    """The questions of a value."""
    unpublished: Unpublished[Told] = Unpublished(questions_max, 1)
    for questions, values in zip((unpublished._asked, unpublished._next), frozen, strict=True):
        for version, answers in values:
            question: Question[Told] = Question()
            question.versions, question.answers = {"S": version}, list(answers)
            questions.append(question)
    return unpublished


def under_way(leader: Leader) -> Batch | None:
    """The batch whose outcome a leader waits for."""
    batch: Batch | None = leader.desk[3] if leader.desk else None
    return batch


@dataclass
class World:
    """All steps from a state."""

    rules: Rules
    _applied: dict[tuple[CatalogRows, Command], tuple[CatalogRows, Any, tuple[str, ...], bool]] = (
        field(default_factory=dict)
    )

    def start(self) -> State:
        """Nobody leads yet; the catalog has one stock."""
        stock = Stock("S", 1, SHARES, 0, 0, SHARES)
        leaders, rules = (Leader(), Leader()), self.rules
        return State(CatalogRows((stock,)), leaders, rules.asks, rules.directs, rules.refusals)

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Everything that can happen next. Raises Violation."""
        for command in state.mail:
            yield from self.deliver(state, command)
            if state.refusals and isinstance(command, Batch):
                yield from self.refuse(state, command)
        if state.directs:
            traded, _, _ = self.at_catalog(state._replace(directs=state.directs - 1), DIRECT)
            yield "somebody trades at the catalog directly", traded
        for request in self.rules.changes:
            yield from self.administer(state, request)
        for epoch, listed in state.listed:
            yield from self.raise_fence(state, epoch, listed)
        if state.shown < state.version:
            yield "all caches are told", state._replace(shown=state.version)
        yield from self.elections(state)
        for i, leader in enumerate(state.leaders):
            if leader.phase not in ("follower", "ended"):
                for steps in (self.asks, self.trading, self.recording, self.publishing):
                    for what, after in steps(state, i, leader):
                        yield f"leader {i + 1} {what}", after

    # --- the catalog -------------------------------------------------------------------------

    def at_catalog(self, state: State, command: Command) -> tuple[State, Any, bool]:
        """Apply a command; time and digests are left out, so that equal states are equal."""
        key = (state.catalog, command)
        if key not in self._applied:
            catalog = self.rules.catalog(100, 1e9, state.catalog)
            applied = catalog.apply(1, encode_catalog_command(command))
            executed = getattr(applied.change, "executed", ())
            after = replace(rows_of(catalog), digest=b"")
            keys = tuple(trade.order.key for trade in executed)
            made = applied.change is not None and bool(applied.change.administered.made)
            self._applied[key] = (after, applied.result, keys, made)
        after, result, keys, made = self._applied[key]
        if isinstance(result, Lost):
            raise Violation(f"{command} proves a loss: {result.reason}")
        if keys and state.catalog.stocks[0].halted:
            raise Violation(f"{keys} traded while the stock is halted")
        changed = after != state.catalog
        if made:
            assert isinstance(command, ChangeStock)
            state = state._replace(changed=(*state.changed, command.request.key))
        return state._replace(catalog=after, executed=state.executed + keys), result, changed

    def deliver(self, state: State, command: Command) -> Iterator[tuple[str, State]]:
        """A command arrives, and its answer arrives or is lost."""
        i = command.epoch - 1 if not isinstance(command, DirectTrade) else 0
        leader = state.leaders[i]
        if isinstance(command, BeginEpoch) and self.rules.lists_before_fence:
            listing = CatalogState(100, 1e9, state.catalog).list_trades(command.after)
            assert isinstance(listing, ExecutedTrades)
            listed = state.listed | {(command.epoch, listing)}
            yield "the catalog lists", state._replace(listed=listed, mail=state.mail - {command})
            return
        after, result, changed = self.at_catalog(state, command)
        if isinstance(result, BatchResult):
            result = replace(result, unpublished=self.unpublished(after))
            after = self.refused_at(after, command, result)
        if changed:
            yield f"{type(command).__name__} arrives, its answer is lost", after
        if isinstance(result, ExecutedTrades) and not self.may_list(after):
            return
        if leader.answer is None and self.waits_for(leader, command):
            yield f"{type(command).__name__} arrives", put(after, i, answer=result)

    def unpublished(self, state: State) -> dict[str, int]:
        """What the catalog says of the caches with its answer to a batch."""
        said = state.shown < state.version and not self.rules.says_published
        return {"S": state.version} if said else {}

    def may_list(self, state: State) -> bool:
        """A list is answered when everything is published."""
        return self.rules.lists_unpublished or state.shown == state.version

    def refused_at(self, state: State, command: Command, result: BatchResult) -> State:
        """Note which version a refusal that was made now rests on."""
        assert isinstance(command, Batch)
        known = dict(state.refused_at)
        for order, outcome in zip(command.orders, result.outcomes, strict=True):
            if outcome.refusal is not None:
                known.setdefault(order.key, state.version)
        return state._replace(refused_at=frozenset(known.items()))

    def administer(self, state: State, request: ChangeRequest) -> Iterator[tuple[str, State]]:
        """A change arrives, for the first time or again, and its answer arrives or is lost."""
        after, outcome, changed = self.at_catalog(state, ChangeStock(request, 0))
        assert isinstance(outcome, ChangeOutcome)
        if changed:
            yield f"{request.key} arrives, its answer is lost", after
        made = outcome.change
        told = ("changed", request.key, made.number) if made else ("unchanged", request.key, 0)
        yield f"{request.key} arrives", after._replace(answers=after.answers | {told})

    def refuse(self, state: State, batch: Batch) -> Iterator[tuple[str, State]]:
        """The catalog has no room for a batch, which is taken back unless an attempt before
        this one is on its way or has executed.
        """
        i = batch.epoch - 1
        leader = state.leaders[i]
        executed = state.catalog.fence != batch.epoch or state.catalog.batch.number >= batch.number
        if leader.answer is not None or executed or not self.waits_for(leader, batch):
            return
        desk = thaw(leader.desk)
        keys = frozenset(desk.withdraw())
        desk.close(keys)
        none = {("none", key, 0) for key in keys & leader.askers}
        copies = state.mail if self.rules.withdraws_in_doubt else state.mail - {batch}
        after = state._replace(
            mail=copies, answers=state.answers | none, refusals=state.refusals - 1
        )
        yield "has no room", put(after, i, desk=freeze(desk), askers=leader.askers - keys)

    def waits_for(self, leader: Leader, command: Command) -> bool:
        """Whether a leader still waits for the answer to a command."""
        if isinstance(command, BeginEpoch):
            return leader.phase == "listing"
        return leader.phase == "serving" and under_way(leader) == command

    def raise_fence(
        self, state: State, epoch: int, listed: ExecutedTrades
    ) -> Iterator[tuple[str, State]]:
        """The omission "list before fence": the fence follows, the list is not made again."""
        last = state.catalog.last_number
        raised, _, _ = self.at_catalog(state, BeginEpoch(epoch, last))
        raised = raised._replace(listed=state.listed - {(epoch, listed)})
        yield "the catalog raises its fence", put(raised, epoch - 1, answer=listed)

    # --- leading -----------------------------------------------------------------------------

    def elections(self, state: State) -> Iterator[tuple[str, State]]:
        """A replica is elected; its log holds what was committed, and any first part of what
        the leader before has proposed.
        """
        first, second = state.leaders
        if first.phase == "follower":
            yield "leader 1 is elected", self.elected(state, 0)
        elif second.phase == "follower":
            for kept in range(len(first.proposed) + 1):
                log = state.log + first.proposed[:kept]
                yield f"leader 2 is elected, with {kept}", self.elected(state._replace(log=log), 1)

    def elected(self, state: State, i: int) -> State:
        """A leader begins its epoch."""
        desk = Desk(i + 1, last_number(state.log), 256, 8192)
        begin = BeginEpoch(desk.epoch, desk.known)
        state = state._replace(mail=state.mail | {begin})
        return put(state, i, phase="listing", desk=freeze(desk), applied=len(state.log))

    def is_current(self, state: State, i: int) -> bool:
        """Whether the order group still follows this leader."""
        return i == 1 or state.leaders[1].phase == "follower"

    def asks(self, state: State, i: int, leader: Leader) -> Iterator[tuple[str, State]]:
        """Clients ask; or the leader learns that it leads no more, and tells who waits."""
        if leader.phase == "serving":
            for ask in set(state.asks):
                # The catalog makes the key of a direct trade: nobody knows it before the trade.
                known = ask[0] != DIRECT.order or DIRECT.order.key in state.executed
                if ask[1] == i and known:
                    yield f"is asked to {ask[0].key}", self.asked(state, i, leader, ask)
        if not self.is_current(state, i):
            yield "notices that it leads no more", self.ended(state, i, leader)

    def asked(self, state: State, i: int, leader: Leader, ask: tuple[Order, int]) -> State:
        """An order is put on the desk."""
        desk, order = thaw(leader.desk), ask[0]
        assert desk.place(order) in (Admission.QUEUED, Admission.JOINED)
        rest = list(state.asks)
        rest.remove(ask)
        state = state._replace(asks=tuple(rest))
        return put(state, i, desk=freeze(desk), askers=leader.askers | {order.key})

    def ended(self, state: State, i: int, leader: Leader) -> State:
        """Who waits is told whether anything may have happened."""
        desk = thaw(leader.desk)
        held = {told.key for told in self.questions(leader).held()}
        none = {("none", key, 0) for key in leader.askers - held if not desk.may_have_traded(key)}
        state = state._replace(answers=state.answers | none)
        leaders = list(state.leaders)
        # What it had proposed may not be committed any more: nobody follows it.
        leaders[i] = Leader("ended")
        return state._replace(leaders=(leaders[0], leaders[1]))

    # --- the term's work, as ``twstock.order.leading`` does it ---------------------------------

    def trading(self, state: State, i: int, leader: Leader) -> Iterator[tuple[str, State]]:
        """Take orders, look up their keys, send a batch, learn its outcome."""
        if leader.answer is not None:
            yield "learns the answer", self.learn(state, i, leader)
        elif leader.taken and under_way(leader) is None:
            yield self.send(state, i, leader, leader.taken)
            if self.rules.tells_after_look_up and self.has_news(state, leader):
                yield self.send(state, i, leader, ())
        elif leader.phase == "serving" and under_way(leader) is None:
            if self.rules.tells and self.has_news(state, leader):
                yield self.send(state, i, leader, ())
            if thaw(leader.desk).has_waiting:
                yield "looks up keys", self.take(state, i, leader)
            elif self.rules.directs and self.may_list(state):
                yield "reconciles", self.reconcile(state, i, leader)

    def send(
        self, state: State, i: int, leader: Leader, orders: tuple[Order, ...]
    ) -> tuple[str, State]:
        """A batch of what was looked up, or of no orders; it tells what is recorded."""
        desk = thaw(leader.desk)
        batch = desk.send(orders, last_number(state.log[: leader.applied]), 0)
        sent = state._replace(mail=state.mail | {batch})
        taken = () if orders else leader.taken
        what = f"sends batch {batch.number} of {len(orders)}"
        return what, put(sent, i, desk=freeze(desk), taken=taken)

    def has_news(self, state: State, leader: Leader) -> bool:
        """Whether the catalog keeps trades that this leader knows to be recorded."""
        return last_number(state.log[: leader.applied]) > state.catalog.recorded

    def take(self, state: State, i: int, leader: Leader) -> State:
        """Orders whose keys are recorded are answered from there."""
        desk = thaw(leader.desk)
        recorded = recorded_keys(state.log[: leader.applied]) if self.rules.looks_up_keys else {}
        taken = desk.take()
        new = tuple(order for order in taken if order.key not in recorded)
        leader = leader._replace(desk=freeze(desk), taken=new)
        for order in taken:
            trade = recorded.get(order.key)
            if trade is not None:
                version = None if self.rules.replays_unpublished else trade.version
                state, leader = self.settle(state, leader, traded(trade), version)
        return put(state, i, **leader._asdict())

    def learn(self, state: State, i: int, leader: Leader) -> State:
        """The catalog's answer: a list, outcomes, or that somebody else leads."""
        answer, desk = leader.answer, thaw(leader.desk)
        if isinstance(answer, Stale):
            return self.ended(state, i, leader)
        leader = leader._replace(answer=None, phase="serving")
        try:
            if isinstance(answer, ExecutedTrades):
                desk.check_listed(answer.trades, answer.last_number)
                trades = desk.learn_trades(answer.trades) if self.rules.records_list else ()
                leader = leader._replace(desk=freeze(desk))
            else:
                assert isinstance(answer, BatchResult)
                learnt = desk.learn(answer)
                trades = learnt.trades
                leader = self.ask(leader._replace(desk=freeze(desk)), answer.unpublished)
                state, leader = self.refuse_orders(state, leader, answer, learnt.settled)
        except (BrokenInvariant, CorruptStorage) as error:
            raise Violation(str(error)) from None
        if self.rules.answers_early:
            for trade in trades:
                state, leader = self.settle(state, leader, traded(trade), trade.version)
        proposed = leader.proposed + ((trades,) if trades else ())
        return put(state, i, **leader._replace(proposed=proposed)._asdict())

    def refuse_orders(
        self, state: State, leader: Leader, answer: BatchResult, settled: Iterable[Settled]
    ) -> tuple[State, Leader]:
        """Clients are told of refusals."""
        version = None if self.rules.refuses_unpublished else answer.unpublished.get("S")
        for order, _ in settled:
            told = Told("refused", order.key, 0, dict(state.refused_at)[order.key])
            state, leader = self.settle(state, leader, told, version)
        return state, leader

    def reconcile(self, state: State, i: int, leader: Leader) -> State:
        """Once a second: the trades that were made at the catalog directly."""
        if state.catalog.fence != i + 1:
            return self.ended(state, i, leader)
        catalog = CatalogState(100, 1e9, state.catalog)
        listed = catalog.list_trades(thaw(leader.desk).known)
        return self.learn(state, i, leader._replace(answer=listed))

    def recording(self, state: State, i: int, leader: Leader) -> Iterator[tuple[str, State]]:
        """A majority has the oldest proposal, as long as it follows this leader."""
        if leader.proposed and self.is_current(state, i):
            record, *rest = leader.proposed
            log = (*state.log, record)
            last_number(log)
            state = state._replace(log=log)
            leader = leader._replace(proposed=tuple(rest), applied=len(log))
            for trade in record:
                state, leader = self.settle(state, leader, traded(trade), trade.version)
            yield f"commits order {record[0].number}", put(state, i, **leader._asdict())

    # --- the caches --------------------------------------------------------------------------

    def questions(self, leader: Leader) -> Unpublished[Told]:
        """A leader's questions about caches."""
        return thaw_questions(leader.unpublished, self.rules.questions)

    def ask(self, leader: Leader, versions: Mapping[str, int]) -> Leader:
        """A leader asks about what is unpublished, unless enough of its questions are open."""
        unpublished = self.questions(leader)
        unpublished.learn(versions)
        unpublished.ask()
        return leader._replace(unpublished=freeze_questions(unpublished))

    def publishing(self, state: State, i: int, leader: Leader) -> Iterator[tuple[str, State]]:
        """The catalog, whoever leads it, answers a question when all caches have been told."""
        for place, asked in enumerate(self.questions(leader)._asked):
            version = asked.versions["S"]
            if version <= state.shown:
                unpublished = self.questions(leader)
                answers = unpublished.published(unpublished._asked[place])
                after, told = state, leader._replace(unpublished=freeze_questions(unpublished))
                for answer in answers:
                    after, told = self.tell(after, told, answer)
                yield (
                    f"learns that {version} is published",
                    put(after, i, **self.ask(told, {})._asdict()),
                )

    def settle(
        self, state: State, leader: Leader, told: Told, version: int | None
    ) -> tuple[State, Leader]:
        """A client is told, if one waits, as soon as no cache hides a version (None: any)."""
        unpublished = self.questions(leader)
        if version is None or told.key not in leader.askers or self.rules.answers_unpublished:
            return self.tell(state, leader, told)
        if unpublished.hold("S", version, told):
            return state, leader._replace(unpublished=freeze_questions(unpublished))
        return self.tell(state, leader, told)

    def tell(self, state: State, leader: Leader, told: Told) -> tuple[State, Leader]:
        """A client is told what became of its order, if one waits for it."""
        what, key, number, version = told
        if key in leader.askers:
            if version > state.shown:
                raise Violation(f"{key} was told of version {version}, a cache shows {state.shown}")
            state = state._replace(answers=state.answers | {(what, key, number)})
        desk = thaw(leader.desk)
        desk.close((key,))
        return state, leader._replace(desk=freeze(desk), askers=leader.askers - {key})

    # --- the promises ------------------------------------------------------------------------

    def check(self, state: State) -> None:
        """Raise Violation unless all promises hold in this state."""
        executed = state.executed
        if len(set(executed)) != len(executed):
            raise Violation(f"traded twice: {executed}")
        last_number(state.log)
        recorded = tuple(trade.order.key for record in state.log for trade in record)
        if recorded != executed[: len(recorded)]:
            raise Violation(f"recorded {recorded}, executed {executed}")
        self.check_answers(state, recorded)
        self.check_shares(state)
        leader = state.leaders[0 if self.is_current(state, 0) else 1]
        if self.is_quiet(leader):
            if recorded != executed and not self.rules.directs:
                raise Violation(f"all is quiet, but recorded {recorded}, executed {executed}")
            if leader.askers:
                raise Violation(f"nobody will ever answer {sorted(leader.askers)}")

    def check_answers(self, state: State, recorded: tuple[str, ...]) -> None:
        """What clients were told is true, and stays true."""
        for what, key, number in state.answers:
            if what == "traded" and recorded[number - 1 : number] != (key,):
                raise Violation(f"{key} was told {number}, but {recorded} are recorded")
            if what == "changed" and state.changed[number - 1 : number] != (key,):
                raise Violation(f"{key} was told {number}, but {state.changed} were made")
            if what == "unchanged" and key in state.changed:
                raise Violation(f"{key} was refused, and made")
            if what == "refused" and key in state.executed:
                raise Violation(f"{key} was refused, and executed")
            asked = [k for k in self.rules.asks if k[0].key == key]
            left = [k for k in state.asks if k[0].key == key]
            # Whoever asks with the key of a direct trade has it from that trade.
            if key == DIRECT.order.key:
                continue
            if what == "none" and len(asked) == len(left) + 1 and key in state.executed:
                raise Violation(f"{key} was told that nothing happened, and executed")

    def check_shares(self, state: State) -> None:
        """Each change was made once, and what is left is what changes and trades make of it."""
        if len(set(state.changed)) != len(state.changed):
            raise Violation(f"changed twice: {state.changed}")
        orders = {
            order.key: order for order in (*(ask[0] for ask in self.rules.asks), DIRECT.order)
        }
        added = sum(c.quantity for c in self.rules.changes if c.key in state.changed)
        sold = sum(
            order.quantity if order.side is Side.SELL else -order.quantity
            for order in map(orders.__getitem__, state.executed)
        )
        stock = state.catalog.stocks[0]
        if (stock.quantity, stock.initial_quantity) != (SHARES + added + sold, SHARES + added):
            raise Violation(f"{state.changed} and {state.executed} do not make {stock}")

    def is_quiet(self, leader: Leader) -> bool:
        """Whether a leader has nothing left to do."""
        busy = leader.taken or leader.proposed or leader.answer or under_way(leader)
        busy = busy or any(leader.unpublished)
        return leader.phase == "serving" and not busy and not thaw(leader.desk).has_waiting


def traded(trade: Trade) -> Told:
    """What a client is told of a trade."""
    return Told("traded", trade.order.key, trade.number, trade.version)


def put(state: State, i: int, **fields: Any) -> State:
    """The state with other fields of one leader."""
    leaders = list(state.leaders)
    leaders[i] = leaders[i]._replace(**fields)
    return state._replace(leaders=(leaders[0], leaders[1]))


def explore(rules: Rules) -> tuple[int, list[str]]:
    """Visit every state; returns how many there are and the steps to a violation, if any."""
    world = World(rules)
    start = world.start()
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        try:
            world.check(state)
            for what, after in world.steps(state):
                if after not in came_from:
                    came_from[after] = (state, what)
                    queue.append(after)
        except Violation as violation:
            path = [str(violation)]
            while (step := came_from[state]) is not None:
                state, what = step
                path.insert(0, what)
            return len(came_from), path
    return len(came_from), []


@pytest.mark.parametrize(
    ("rules", "states_min"),
    [
        (Rules(asks=((BUY, 0),) * 3 + ((BUY, 1),) * 3), 3_000),
        (Rules(asks=((BUY, 0), (BUY, 0), (BUY, 1)), directs=1), 8_000),
        (Rules(asks=((TOO_MUCH, 0), (TOO_MUCH, 1), (SELL, 0), (SELL, 1))), 25_000),
        (Rules(asks=((BUY, 0), (BUY, 0), (SELL, 0), (BUY, 1))), 4_000),
        (Rules(asks=((BUY, 0), (SELL, 0), (BUY, 1)), refusals=2), 1_000),
        (Rules(asks=((BUY, 0), (BUY, 0), (BUY, 1)), changes=(HALT, RESUME)), 8_000),
        (Rules(asks=((TOO_MUCH, 0), (TOO_MUCH, 1)), changes=(RESTOCK, HALT)), 4_000),
        (Rules(asks=((BUY, 0),), directs=1, changes=(HALT,)), 1_000),
        (Rules(asks=((BUY, 0), (DIRECT.order, 0), (DIRECT.order, 1)), directs=1), 15_000),
        (Rules(asks=((BUY, 0), (BUY, 0), (SELL, 0)), questions=2), 4_000),
        (Rules(asks=((BUY, 0), (BUY, 0), (BUY, 1)), directs=1, tells=True), 8_000),
    ],
)
def test_every_order_trades_once_and_is_recorded(rules: Rules, states_min: int) -> None:
    """Whatever is lost, doubled or late, and whoever leads: no state breaks a promise."""
    states, violation = explore(rules)
    assert violation == []
    assert states > states_min


# --- each rule is needed -------------------------------------------------------------------------


class NoKeys(CatalogState):
    """Does not know a key that comes again in a new batch."""

    def __init__(self, *start: Any) -> None:
        super().__init__(*start)
        self._remembered.known = lambda order: None  # type: ignore[method-assign]


class NoFence(CatalogState):
    """Executes a batch of any epoch."""

    def _trade(self, entry: bytes, batch: Batch) -> Any:
        """Break the rule."""
        if batch.epoch != self._fence:
            batch = replace(batch, epoch=self._fence, number=self._batch.number + 1)
        return super()._trade(entry, batch)


class TakesLateQuestionsForLosses(CatalogState):
    """Judges a late copy of an epoch's first BeginEpoch by what is recorded by then, and takes it
    for a loss.
    """

    def _begin_epoch(self, entry: bytes, begin: BeginEpoch) -> Any:
        """Break the rule."""
        if begin.epoch == self._fence and begin.after < self._remembered.recorded:
            return Applied(Lost(f"orders {begin.after + 1} to {self._remembered.recorded}"))
        return super()._begin_epoch(entry, begin)


class NoTurns(CatalogState):
    """Executes a late copy of a batch that was answered long ago."""

    def _trade(self, entry: bytes, batch: Batch) -> Any:
        """Break the rule."""
        if batch.epoch == self._fence and batch.number < self._batch.number:
            batch = replace(batch, number=self._batch.number + 1)
        return super()._trade(entry, batch)


class ForgetsTooEarly(CatalogState):
    """Forgets recorded keys before it looks at a batch's orders. The leader looks keys up first and
    tells only then how far orders are recorded, so a key may have been recorded in between.
    """

    def _trade(self, entry: bytes, batch: Batch) -> Any:
        """Break the rule."""
        if batch.epoch == self._fence and batch.number == self._batch.number + 1:
            self._remembered.forget(batch.recorded)
        return super()._trade(entry, batch)


class ForgetsRefusals(CatalogState):
    """Remembers only what executed."""

    def _decide(self, order: Order, draft: Any) -> Outcome:
        """Break the rule."""
        outcome = super()._decide(order, draft)
        self._remembered.refused.clear()
        draft.refused.clear()
        return outcome


class IgnoresHalts(CatalogState):
    """Trades what nobody may trade now."""

    def _decide(self, order: Order, draft: Any) -> Outcome:
        """Break the rule."""
        stock = self._stocks.get(order.name)
        if stock is not None:
            self._stocks[order.name] = stock._replace(halted=False)
        return super()._decide(order, draft)


class ForgetsChanges(CatalogState):
    """Does not know the key of a change that was made."""

    def _change(self, entry: bytes, request: ChangeRequest, at_ms: int) -> Any:
        """Break the rule."""
        again = f"{request.key} {self.last_change}"
        return super()._change(entry, request._replace(key=again), at_ms)


class ForgetsRefusedChanges(CatalogState):
    """Remembers only what was made."""

    def _change(self, entry: bytes, request: ChangeRequest, at_ms: int) -> Any:
        """Break the rule."""
        applied = super()._change(entry, request, at_ms)
        self._administration.refused.clear()
        return applied


RETRIES = Rules(asks=((BUY, 0), (BUY, 0), (BUY, 1), (BUY, 1)))


@pytest.mark.parametrize(
    "rules",
    [
        replace(RETRIES, catalog=NoKeys),
        replace(RETRIES, catalog=NoFence),
        replace(RETRIES, lists_before_fence=True),
        replace(RETRIES, records_list=False),
        replace(RETRIES, answers_early=True),
        replace(RETRIES, answers_unpublished=True),
        replace(RETRIES, says_published=True),
        replace(RETRIES, lists_unpublished=True),
        Rules(asks=((TOO_MUCH, 0), (BUY, 0)), refuses_unpublished=True),
        Rules(asks=((DIRECT.order, 0), (BUY, 0)), directs=1, replays_unpublished=True),
        replace(RETRIES, looks_up_keys=False),
        Rules(asks=((BUY, 0),) * 2 + ((SELL, 0),), catalog=NoTurns),
        Rules(asks=((BUY, 0), (SELL, 0)), catalog=TakesLateQuestionsForLosses),
        replace(RETRIES, catalog=ForgetsTooEarly),
        replace(RETRIES, tells_after_look_up=True),
        Rules(asks=((TOO_MUCH, 0), (TOO_MUCH, 0), (SELL, 0)), catalog=ForgetsRefusals),
        Rules(asks=((BUY, 0), (SELL, 0)), refusals=1, withdraws_in_doubt=True),
        Rules(asks=((BUY, 0),), changes=(HALT,), catalog=IgnoresHalts),
        Rules(asks=(), changes=(RESTOCK,), catalog=ForgetsChanges),
        Rules(asks=(), changes=(HALT, RESUME), catalog=ForgetsRefusedChanges),
    ],
    ids=lambda rules: ", ".join(
        getattr(value, "__name__", name)
        for name, value in vars(rules).items()
        if name != "asks" and value != getattr(RETRIES, name)
    ),
)
def test_each_omission_has_a_counter_example(rules: Rules) -> None:
    """Each rule is needed: without it, some sequence of steps breaks a promise."""
    _, violation = explore(rules)
    assert violation != []
