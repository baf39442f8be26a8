"""The cache protocol, explored exhaustively with the real ``Cache`` and ``Sessions``.

One stock, two trades, and one front-end whose messages are lost, delayed, reordered and doubled,
whose lease ends, and whose cache evicts. The catalog crashes and comes back, or another one
leads. All other front-ends are there in two ways: a session that does at the catalog whatever
a session can do, in any sequence, and a reader who sees what the catalog shows. What holds
for the one front-end beside them holds for each.

Time is reduced to what matters: a lease holds or is over, and the front-end's ends first.
In every state that can be reached, a lookup that begins now must not show less than what was
acknowledged or shown to anybody before (S7 and S8 of ``ledger``). A trade is acknowledged when
the catalog's leader says that it is published; the order leader has recorded it meanwhile.
"""

from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar

import pytest

from tests.states import SessionsSnapshot, restored, sessions_snapshot
from twstock.catalog.sessions import Sessions
from twstock.market import Stock
from twstock.rpc.calls import Lease
from twstock.web.cache import Cache

V = TypeVar("V", bound=Hashable)
NOW, LEASE_S, OVER = 1.0, 1.0, 0.0
FRONT, OTHER = 1, 2
"""It is always ``NOW``: a lease ends by being set to end earlier."""


def stock(version: int) -> Stock:
    """The stock at some version."""
    return Stock("A", 1, 1, 0, version, 1)


@dataclass(frozen=True)
class Rules:
    """The protocol, or one with an omission. ``trades``, ``crashes`` and ``lookups`` (how many of
    the front-end are under way at a time) bound the exploration. ``others``: whether there is
    another session.
    """

    cache: type[Cache] = Cache
    sessions: type[Sessions] = Sessions
    waits_for_lease: bool = True
    waits_after_start: bool = True
    trades: int = 2
    crashes: int = 1
    lookups: int = 1
    others: bool = True


class Lookup(NamedTuple):
    """A lookup under way; ``age`` counts how often the cache was emptied since it was sent.
    ``version`` is what the catalog answered, -1 before it did.
    """

    age: int
    version: int = -1


class Grant(NamedTuple):
    """The catalog's answer to a registration, on its way. ``holds``: the lease is not over;
    ``old``: it was granted by a leadership that is over.
    """

    fresh: bool
    missed: int
    holds: bool = True
    old: bool = False


class Call(NamedTuple):
    """An invalidation on its way, or its answer."""

    version: int
    is_answer: bool = False


class Front(NamedTuple):
    """The front-end, and what is on its way to or from it. ``old``: its lease was granted by a
    leadership that is over.
    """

    cache: int
    lookups: tuple[Lookup, ...] = ()
    grant: Grant | None = None
    call: Call | None = None
    old: bool = False


class State(NamedTuple):
    """Everything. ``sessions`` and ``front.cache`` are numbers of snapshots; ``committed`` is
    the version in the catalog's log; ``known`` was acknowledged, or shown to somebody.
    """

    sessions: int
    front: Front
    committed: int = 0
    known: int = 0
    crashes: int = 0

    def at(self, sessions: int) -> "State":
        """The state with another state of the catalog's sessions."""
        return State(sessions, self.front, self.committed, self.known, self.crashes)

    def put(self, front: Front) -> "State":
        """The state with another state of the front-end."""
        return State(self.sessions, front, self.committed, self.known, self.crashes)

    def shown(self, version: int) -> "State":
        """The state in which somebody has been shown a version."""
        known = max(self.known, version)
        return State(self.sessions, self.front, self.committed, known, self.crashes)

    def late(self) -> "State":
        """Time has passed: what is granted by an answer on its way is over."""
        grant = self.front.grant
        if grant is None or not grant.holds:
            return self
        return self.put(self.front._replace(grant=grant._replace(holds=False)))


class Violation(Exception):
    """A lookup showed less than was known before."""


class Numbered(Generic[V]):
    """Gives each value a number, so that states are small and quickly compared."""

    def __init__(self) -> None:
        self._numbers: dict[V, int] = {}
        self._values: list[V] = []

    def number(self, value: V) -> int:
        """The value's number."""
        number = self._numbers.setdefault(value, len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number

    def __getitem__(self, number: int) -> V:
        return self._values[number]


Stepped = tuple[int, Any]


class Catalogs:
    """The states of ``Sessions`` and the steps between them, each computed once."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.snapshots: Numbered[SessionsSnapshot] = Numbered()
        self.step = cache(self._step)
        self.newest = cache(self._newest)
        self.shown = cache(self._shown)
        self.owes = cache(self._owes)
        self.published = cache(self._published)
        self.lease_over = cache(self._lease_over)
        sessions = rules.sessions(LEASE_S)
        sessions.started(OVER)
        sessions.opened([stock(0)])
        self.start = self.snapshots.number(sessions_snapshot(sessions))

    def _at(self, number: int) -> Sessions:
        return restored(self._rules.sessions(LEASE_S), self.snapshots[number])

    def _step(self, number: int, method: str, front_or_version: int, version: int = 0) -> Stepped:
        """Call a method; returns the new state's number and the result."""
        sessions, result = self._at(number), None
        match method:
            case "register":
                lease = sessions.register(front_or_version, "u", "s", NOW, LEASE_S)
                result = Grant(lease.fresh, lease.missed.get("A", -1), lease.seconds > 0)
            case "looked_up":
                found = sessions.looked_up(front_or_version, "s", "A", NOW)
                result = found and found.version
            case "answered":
                sessions.answered(front_or_version, "s", {"A": version}, NOW)
            case "traded":
                sessions.traded([stock(front_or_version)], NOW)
            case "opened":
                sessions.opened([stock(front_or_version)])
            case "started":
                sessions.started(NOW)
            case "expired":
                sessions.expired(NOW)
        return self.snapshots.number(sessions_snapshot(sessions)), result

    def _newest(self, number: int) -> int:
        snapshot = self.snapshots[number]
        return max(s.version for s in (*snapshot.published, *sum(snapshot.pending, ())))

    def _shown(self, number: int) -> int:
        snapshot = self.snapshots[number]
        return snapshot.published[0].version if snapshot.is_open else -1

    def _published(self, number: int, committed: int) -> int:
        """The newest of the committed versions that AwaitPublished is answered for; -1: none."""
        sessions = self._at(number)
        versions = range(committed, 0, -1)
        return next((v for v in versions if sessions.is_published({"A": v})), -1)

    def _owes(self, number: int) -> int:
        calls = self._at(number).calls(NOW)
        return max((call.versions["A"] for call in calls if call.front_id == FRONT), default=-1)

    def _lease_over(self, number: int, front: int) -> int:
        """The catalog's lease of a front-end ends; nobody has noticed yet."""
        snapshot = self.snapshots[number]
        sessions = tuple(
            (f, name, url, NOW if f == front else until, *rest)
            for f, name, url, until, *rest in snapshot.sessions
        )
        return self.snapshots.number(replace(snapshot, sessions=sessions))


@dataclass(frozen=True, slots=True)
class CacheSnapshot:
    """All of a cache's state but its counters; ``stocks`` from the last used to the first."""

    stocks: tuple[Stock, ...]
    minimums: tuple[tuple[str, int], ...]
    floor: int
    generation: int
    lease_until: float

    @classmethod
    def of(cls, cache: Cache) -> "CacheSnapshot":
        """The state as a value."""
        return cls(
            tuple(stock for _, stock in cache._stocks.items()),
            tuple(cache._minimums.items()),
            cache._floor,
            cache._generation,
            cache._lease_until,
        )

    def restored(self, kind: type[Cache]) -> Cache:
        """A cache of one stock in this state."""
        made = kind(1)
        for stock in reversed(self.stocks):
            made._stocks[stock.name] = stock
        made._minimums = dict(self.minimums)
        made._floor = self.floor
        made._generation = self.generation
        made._lease_until = self.lease_until
        return made


class Caches:
    """The states of ``Cache`` and the steps between them, each computed once."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.snapshots: Numbered[CacheSnapshot] = Numbered()
        self.step = cache(self._step)
        self.shown = cache(self._shown)
        self.holds = cache(lambda number: self._at(number).holds_lease(NOW))
        self.ticket = cache(lambda number: self._at(number).ticket(NOW))
        self.changed = cache(self._changed)
        self.start = self.snapshots.number(CacheSnapshot.of(rules.cache(1)))

    def _at(self, number: int) -> Cache:
        return self.snapshots[number].restored(self._rules.cache)

    def _step(self, number: int, method: str, *args: Any) -> tuple[int, int]:
        """Call a method; returns the new state and how often the cache was emptied by it.

        The generation starts from 0 again: what counts is how old a lookup's ticket is.
        """
        made = self._at(number)
        if method == "fill":
            made.fill(args[0], stock(args[1]))
        else:
            getattr(made, method)(*args)
        after = CacheSnapshot.of(made)
        until = NOW + LEASE_S if made.holds_lease(NOW) else OVER
        normal = replace(after, generation=0, lease_until=until)
        return self.snapshots.number(normal), after.generation

    def _shown(self, number: int) -> int:
        found = self._at(number).hit("A", NOW)
        return -1 if found is None else found.version

    def _changed(self, number: int, **fields: Any) -> int:
        return self.snapshots.number(replace(self.snapshots[number], **fields))


@dataclass
class World:
    """All steps from a state."""

    rules: Rules
    catalogs: Catalogs = field(init=False)
    caches: Caches = field(init=False)

    def __post_init__(self) -> None:
        self.catalogs = Catalogs(self.rules)
        self.caches = Caches(self.rules)

    def start(self) -> State:
        """An empty cache, no sessions."""
        return State(self.catalogs.start, Front(self.caches.start))

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Everything that can happen next. Raises Violation."""
        yield from self.leader_steps(state)
        yield from self.answer_steps(state)
        if self.catalogs.shown(state.sessions) >= 0:
            yield from self.trade_steps(state)
            if self.rules.others:
                yield from self.other_steps(state)
        for steps in (self.reader_steps, self.lookup_steps, self.lease_steps, self.call_steps):
            yield from steps(state, state.front)

    def leader_steps(self, state: State) -> Iterator[tuple[str, State]]:
        """The end of a leadership, and the beginning of the next."""
        if self.catalogs.shown(state.sessions) < 0:
            if not state.front.old or not self.rules.waits_after_start:
                opened = self.catalogs.step(state.sessions, "opened", state.committed)
                yield "the catalog opens", state.late().at(opened[0])
        elif state.crashes < self.rules.crashes:
            after, _ = self.catalogs.step(state.sessions, "started", 0)
            front, grant = state.front, state.front.grant
            front = front._replace(
                call=None,
                old=self.caches.holds(front.cache),
                grant=grant and grant._replace(old=True),
            )
            yield (
                "the catalog crashes, or another one leads",
                state._replace(sessions=after, front=front, crashes=state.crashes + 1),
            )

    def answer_steps(self, state: State) -> Iterator[tuple[str, State]]:
        """The order leader has recorded a trade meanwhile; when the catalog, whoever leads it by
        now, says that the version is published, it acknowledges the trade.
        """
        version = self.catalogs.published(state.sessions, state.committed)
        if version > 0:
            yield f"{version} is said to be published, and acknowledged", state.shown(version)

    def trade_steps(self, state: State) -> Iterator[tuple[str, State]]:
        """A trade is committed, and noticed; lookups show it as soon as it is published."""
        shown = self.catalogs.shown(state.sessions)
        newest = self.catalogs.newest(state.sessions)
        if state.committed < self.rules.trades:
            committed = state._replace(committed=state.committed + 1)
            yield self.at_catalog(committed, "traded", committed.committed)
            if self.rules.crashes:
                yield "a trade commits, and its call is lost", committed
        if state.committed > newest:
            yield self.at_catalog(state, "traded", state.committed)
        if shown < state.known:
            raise Violation(f"the catalog shows {shown} after {state.known}")
        yield f"{shown} is read by somebody", state.shown(shown)

    def other_steps(self, state: State) -> Iterator[tuple[str, State]]:
        """What another front-end's session does at the catalog, in any sequence."""
        yield self.at_catalog(state, "register", OTHER)
        yield self.at_catalog(state, "looked_up", OTHER)
        for version in range(1, state.committed + 1):
            yield self.at_catalog(state, "answered", OTHER, version)
        over = self.catalogs.lease_over(state.sessions, OTHER)
        yield self.at_catalog(state.at(over), "expired", 0)

    def at_catalog(self, state: State, method: str, *args: int) -> tuple[str, State]:
        """A step of the catalog alone, on behalf of somebody else or nobody."""
        after, _ = self.catalogs.step(state.sessions, method, *args)
        return f"catalog: {method}", state.at(after)

    def reader_steps(self, state: State, front: Front) -> Iterator[tuple[str, State]]:
        """Hits and evictions."""
        shown = self.caches.shown(front.cache)
        if shown >= 0:
            if shown < state.known:
                raise Violation(f"the front-end shows {shown} after {state.known}")
            yield f"the front-end shows {shown} from its cache", state.shown(shown)
        if self.caches.snapshots[front.cache].stocks:
            evicted = self.caches.changed(front.cache, stocks=())
            yield "the stock is evicted", state.put(front._replace(cache=evicted))

    def lookup_steps(self, state: State, front: Front) -> Iterator[tuple[str, State]]:
        """Lookups under way; one that is lost is as good as one that was never sent."""
        has_room = len(front.lookups) < self.rules.lookups
        if has_room and self.caches.ticket(front.cache) is not None:
            asking = put_lookups(front, (*front.lookups, Lookup(0)))
            yield "the front-end asks", state.put(asking)
        for lookup in set(front.lookups):
            rest = list(front.lookups)
            rest.remove(lookup)
            if lookup.version >= 0:
                yield self.filled(state, put_lookups(front, rest), lookup)
            elif self.catalogs.shown(state.sessions) >= 0:
                yield from self.looked_up(state, put_lookups(front, rest), lookup)

    def looked_up(self, state: State, front: Front, asked: Lookup) -> Iterator[tuple[str, State]]:
        """The catalog answers a lookup."""
        after, found = self.catalogs.step(state.sessions, "looked_up", FRONT)
        if found < state.known:
            raise Violation(f"the front-end is told {found} after {state.known}")
        state = state.at(after)
        answered = put_lookups(front, (*front.lookups, asked._replace(version=found)))
        yield f"its lookup finds {found}", state.put(answered)
        yield "the answer to its lookup is lost", state.put(front)

    def filled(self, state: State, front: Front, found: Lookup) -> tuple[str, State]:
        """The answer arrives, is shown to whoever asked, and stored if a rule allows it."""
        after, _ = self.caches.step(front.cache, "fill", -found.age, found.version)
        what = f"the front-end receives {found.version}"
        return what, state.put(front._replace(cache=after)).shown(found.version)

    def lease_steps(self, state: State, front: Front) -> Iterator[tuple[str, State]]:
        """Registrations, and the ends of leases. A registration carries nothing that changes,
        so a late copy is one that the catalog receives at any time.
        """
        after, grant = self.catalogs.step(state.sessions, "register", FRONT)
        registered = state.at(after)
        yield "the front-end registers, the answer is lost", registered
        if front.grant is None:
            if grant.holds:
                yield "the front-end registers", registered.put(front._replace(grant=grant))
        else:
            yield self.granted(state, front._replace(grant=None), front.grant)
        if self.caches.holds(front.cache):
            over = self.caches.changed(front.cache, lease_until=OVER)
            yield "its lease is over", state.put(front._replace(cache=over, old=False))
        if not self.caches.holds(front.cache) or not self.rules.waits_for_lease:
            over = self.catalogs.lease_over(state.sessions, FRONT)
            yield "its lease is over at the catalog, too", state.late().at(over)

    def granted(self, state: State, front: Front, grant: Grant) -> tuple[str, State]:
        """The answer to a registration arrives (``twstock.web.upstream.lease`` does the same)."""
        number, emptied = front.cache, 0
        if grant.missed >= 0:
            number, emptied = self.caches.step(number, "invalidate", "A", grant.missed)
        sent_at = NOW if grant.holds else OVER - LEASE_S
        number, again = self.caches.step(number, "renew", sent_at, LEASE_S, NOW, grant.fresh)
        old = grant.old and grant.holds
        front = aged(front._replace(cache=number, old=old), emptied + again)
        return f"the front-end has a lease, fresh: {grant.fresh}", state.put(front)

    def call_steps(self, state: State, front: Front) -> Iterator[tuple[str, State]]:
        """Invalidations and their answers; a call that is lost is as good as none."""
        call = front.call
        if call is None:
            owed = self.catalogs.owes(state.sessions)
            if owed >= 0:
                yield f"a call for {owed} is sent", state.put(front._replace(call=Call(owed)))
        elif call.is_answer:
            what, answered = self.at_catalog(state, "answered", FRONT, call.version)
            yield what + " (once more)", answered
            yield what, answered.put(front._replace(call=None))
        else:
            number, emptied = self.caches.step(front.cache, "invalidate", "A", call.version)
            told = aged(front._replace(cache=number), emptied)
            answering = told._replace(call=call._replace(is_answer=True))
            yield f"the front-end is told of {call.version}", state.put(answering)
            yield "its answer is lost", state.put(told._replace(call=None))


def put_lookups(front: Front, lookups: Any) -> Front:
    """The front-end with other lookups under way; their sequence does not matter."""
    return front._replace(lookups=tuple(sorted(lookups)))


def aged(front: Front, emptied: int) -> Front:
    """The front-end after its cache was emptied so often. Lookups under way then have an old
    ticket; how old does not matter.
    """
    if not emptied:
        return front
    return put_lookups(front, {lookup._replace(age=1) for lookup in front.lookups})


def explore(rules: Rules) -> tuple[int, list[str]]:
    """Visit every state; returns how many there are and the steps to a violation, if any."""
    world = World(rules)
    start = world.start()
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        try:
            for what, after in world.steps(state):
                if after not in came_from:
                    came_from[after] = (state, what)
                    queue.append(after)
        except Violation as violation:
            return len(came_from), [*_path(came_from, state), str(violation)]
    return len(came_from), []


def _path(came_from: Mapping[State, tuple[State, str] | None], state: State) -> list[str]:
    path: list[str] = []
    while (step := came_from[state]) is not None:
        state, what = step
        path.insert(0, what)
    return path


@pytest.mark.parametrize(
    ("rules", "states_min"),
    [
        (Rules(trades=1, crashes=1), 20_000),
        (Rules(trades=2, crashes=1, others=False), 40_000),
        (Rules(trades=1, crashes=0, lookups=2, others=False), 8_500),
        # Rules(trades=2, crashes=0) holds as well, but its 162,452 states take 15 seconds.
    ],
)
def test_no_lookup_shows_less_than_was_known(rules: Rules, states_min: int) -> None:
    """Neither the front-end's cache, nor its lookups that miss, nor the catalog's answers to others
    show an older version than somebody was shown, or told of, before.
    """
    states, violation = explore(rules)
    assert violation == []
    assert states > states_min


# --- each rule is needed -------------------------------------------------------------------------


class NoMinimum(Cache):
    """Forgets the version that it was told of."""

    def minimum(self, name: str) -> int:
        """Nothing is too old."""
        return 0


class ServesWithoutLease(Cache):
    """Shows what it has at any time."""

    def hit(self, name: str, now: float) -> Stock | None:
        """Break the rule."""
        return super().hit(name, -1e9)


class KeepsStocks(Cache):
    """Does not start empty when its lease ran out or its session was not known."""

    def clear(self) -> None:
        """Break the rule."""


class StoresAnything(Cache):
    """Stores an answer however often it was emptied since it asked."""

    def fill(self, ticket: int | None, stock: Stock) -> bool:
        """Break the rule."""
        return super().fill(self._generation, stock)


class PublishesAtOnce(Sessions):
    """Acknowledges a trade before the caches are told."""

    def _publish(self, name: str) -> None:
        self._published[name] = self._pending.pop(name)[-1]


class SaysWhatIsCommitted(Sessions):
    """Says that a version is published when the caches are about to be told of it."""

    def is_published(self, versions: Mapping[str, int]) -> bool:
        """Break the rule."""
        pending = self.pending()
        return self.is_open and not self.unpublished(
            {n: v for n, v in versions.items() if v > pending.get(n, -1)}
        )


class SaysAllIsPublishedBeforeItOpens(Sessions):
    """Says so as a new leader, because nobody has a session yet."""

    def is_published(self, versions: Mapping[str, int]) -> bool:
        """Break the rule."""
        return not self.is_open or super().is_published(versions)


class ShowsUnpublished(Sessions):
    """Shows what another cache still hides."""

    def looked_up(self, front_id: int, session: str, name: str, now: float) -> Stock | None:
        """Break the rule."""
        shown = super().looked_up(front_id, session, name, now)
        return self._pending[name][-1] if name in self._pending else shown


class ForgetsLateReaders(Sessions):
    """Tells only those who held the stock when it was traded."""

    def looked_up(self, front_id: int, session: str, name: str, now: float) -> Stock | None:
        """Break the rule."""
        owed = {f: dict(s.owed) for f, s in self._sessions.items()}
        shown = super().looked_up(front_id, session, name, now)
        for front, known in self._sessions.items():
            known.owed = owed[front]
        return shown


class TakesAnyAnswer(Sessions):
    """A late answer for an older version counts for the newest."""

    def answered(
        self, front_id: int, session: str, versions: Mapping[str, int], now: float
    ) -> None:
        """Break the rule."""
        super().answered(front_id, session, dict.fromkeys(versions, 99), now)


class GrantsBeforeItOpens(Sessions):
    """Grants a lease while one of the leader before may hold: if the answer that says "fresh" is
    lost, the next one lets the front-end keep its cache.
    """

    def register(
        self, front_id: int, url: str, session: str, now: float, lease_s_cap: float
    ) -> Lease:
        """Break the rule."""
        was_open, self._is_open = self._is_open, True
        lease = super().register(front_id, url, session, now, lease_s_cap)
        self._is_open = was_open
        return lease


ALONE = Rules(trades=2, crashes=0, others=False)


@pytest.mark.parametrize(
    "rules",
    [
        replace(ALONE, cache=NoMinimum),
        replace(ALONE, sessions=PublishesAtOnce),
        replace(ALONE, waits_for_lease=False),
        replace(ALONE, cache=ServesWithoutLease),
        replace(ALONE, cache=KeepsStocks),
        replace(ALONE, cache=StoresAnything),
        replace(ALONE, sessions=ShowsUnpublished),
        replace(ALONE, sessions=SaysWhatIsCommitted),
        replace(ALONE, sessions=SaysAllIsPublishedBeforeItOpens, crashes=1),
        Rules(trades=1, crashes=0, sessions=ForgetsLateReaders),
        replace(ALONE, sessions=TakesAnyAnswer),
        replace(ALONE, waits_after_start=False, crashes=1),
        replace(ALONE, sessions=GrantsBeforeItOpens, crashes=1),
    ],
    ids=lambda rules: ", ".join(
        getattr(value, "__name__", f"{name}={value}")
        for name, value in vars(rules).items()
        if value != getattr(ALONE, name)
    ),
)
def test_each_omission_has_a_counter_example(rules: Rules) -> None:
    """Each rule is needed: without it, some sequence of steps shows an old version."""
    _, violation = explore(rules)
    assert violation != []
