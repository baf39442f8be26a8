"""The cache protocol, explored exhaustively with the real ``Cache`` and ``Sessions``.

One stock, two front-ends, two trades. Messages are lost, delayed, reordered and doubled,
leases end, entries are evicted, the catalog crashes and comes back, or loses its leadership.
Time is reduced to what matters: a lease holds or is over, and the front-end's ends first.

In every state that can be reached, a lookup that begins now must not show less than what was
acknowledged or shown to anybody before (S7, S8).
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar

import pytest

from twstock.catalog.sessions import Session, Sessions
from twstock.catalog.sessions import Snapshot as SessionsSnapshot
from twstock.market import Stock
from twstock.rpc.calls import Lease
from twstock.web.cache import Cache
from twstock.web.cache import Snapshot as CacheSnapshot

V = TypeVar("V", bound=Hashable)
NOW, LEASE_S, OVER = 1.0, 1.0, 0.0
"""It is always ``NOW``: a lease ends by being set to end earlier."""


def stock(version: int) -> Stock:
    """The stock at some version."""
    return Stock("A", 1, 1, 0, version, 1)


@dataclass(frozen=True)
class Rules:
    """The protocol, or one with an omission; ``trades`` and ``crashes`` bound the exploration,
    and so does ``lookups``, how many of one front-end are under way at a time.
    """

    cache: type[Cache] = Cache
    sessions: type[Sessions] = Sessions
    waits_for_lease: bool = True
    waits_after_start: bool = True
    trades: int = 2
    crashes: int = 1
    lookups: int = 1


class Lookup(NamedTuple):
    """A lookup under way; ``age`` counts how often the cache was emptied since it was sent.
    ``version`` is what the catalog answered, -1 before it did.
    """

    age: int
    version: int = -1


class Grant(NamedTuple):
    """The catalog's answer to a registration, on its way. ``holds``: the lease is not over."""

    fresh: bool
    missed: int
    holds: bool = True


class Call(NamedTuple):
    """An invalidation on its way, or its answer."""

    version: int
    is_answer: bool = False


class Front(NamedTuple):
    """A front-end, and what is on its way to or from it."""

    cache: int
    lookups: tuple[Lookup, ...] = ()
    grant: Grant | None = None
    call: Call | None = None


class State(NamedTuple):
    """Everything. ``sessions`` and ``Front.cache`` are numbers of snapshots; ``committed`` is
    the version in the catalog's log; ``known`` was acknowledged, or shown to somebody.
    """

    sessions: int
    fronts: tuple[Front, ...]
    committed: int = 0
    known: int = 0
    crashes: int = 0


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


class Catalogs:
    """The states of ``Sessions`` and the steps between them, each computed once."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.snapshots: Numbered[SessionsSnapshot] = Numbered()
        self.step = cache(self._step)
        self.newest = cache(self._newest)
        self.shown = cache(self._shown)
        self.owes = cache(self._owes)
        self.lease_over = cache(self._lease_over)
        sessions = rules.sessions(LEASE_S)
        sessions.started(OVER)
        sessions.opened([stock(0)])
        self.start = self.snapshots.number(sessions.snapshot())

    def _at(self, number: int) -> Sessions:
        return self._rules.sessions.restored(LEASE_S, self.snapshots[number])

    def _step(self, number: int, method: str, *args: Any) -> tuple[int, Any]:
        """Call a method; returns the new state's number and the result."""
        sessions = self._at(number)
        result = getattr(sessions, method)(*map(_thawed, args))
        return self.snapshots.number(sessions.snapshot()), _frozen(result)

    def _newest(self, number: int) -> int:
        snapshot = self.snapshots[number]
        return max(s.version for s in (*snapshot.published, *sum(snapshot.pending, ())))

    def _shown(self, number: int) -> int:
        snapshot = self.snapshots[number]
        return snapshot.published[0].version if snapshot.is_open else -1

    def _owes(self, number: int) -> dict[int, int]:
        return {call.front_id: call.versions["A"] for call in self._at(number).calls(NOW)}

    def _lease_over(self, number: int, front: int) -> int:
        """The catalog's lease of a front-end ends; nobody has noticed yet."""
        snapshot = self.snapshots[number]
        sessions = tuple(
            (f, name, url, NOW if f == front else until, *rest)
            for f, name, url, until, *rest in snapshot.sessions
        )
        return self.snapshots.number(replace(snapshot, sessions=sessions))


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
        self.start = self.snapshots.number(rules.cache(1).snapshot())

    def _at(self, number: int) -> Cache:
        return self._rules.cache.restored(1, self.snapshots[number])

    def _step(self, number: int, method: str, *args: Any) -> tuple[int, int]:
        """Call a method; returns the new state and how often the cache was emptied by it.

        The generation starts from 0 again: what counts is how old a lookup's ticket is.
        """
        made = self._at(number)
        getattr(made, method)(*args)
        after = made.snapshot()
        return self.snapshots.number(replace(after, generation=0)), after.generation

    def _shown(self, number: int) -> int:
        found = self._at(number).lookup("A", NOW)
        return -1 if found is None else found.version

    def _changed(self, number: int, **fields: Any) -> int:
        return self.snapshots.number(replace(self.snapshots[number], **fields))


def _frozen(result: Any) -> Any:
    if isinstance(result, Lease):
        return Grant(result.fresh, result.missed.get("A", -1), result.seconds > 0)
    return result


def _thawed(argument: Any) -> Any:
    """``traded`` and ``answered`` take collections, which cannot be arguments of a cache."""
    if isinstance(argument, Stock):
        return [argument]
    return {"A": argument.version} if isinstance(argument, Call) else argument


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
        """Empty caches, no sessions."""
        return State(self.catalogs.start, (Front(self.caches.start),) * 2)

    def steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Everything that can happen next. Raises Violation."""
        yield from self.catalog_steps(state)
        for i, front in enumerate(state.fronts):
            for steps in (self.lookup_steps, self.lease_steps, self.call_steps):
                for what, after in steps(state, i, front):
                    yield f"front {i + 1}: {what}", after

    def catalog_steps(self, state: State) -> Iterator[tuple[str, State]]:
        """Trades, and the end and the beginning of a leadership."""
        step, shown = self.catalogs.step, self.catalogs.shown(state.sessions)
        if state.committed < self.rules.trades:
            yield "a trade commits", state._replace(committed=state.committed + 1)
        if shown < 0:
            leases_over = all(not self.may_serve(front) for front in state.fronts)
            if leases_over or not self.rules.waits_after_start:
                opened, _ = step(state.sessions, "opened", stock(state.committed))
                yield "the catalog opens", state._replace(sessions=opened)
            return
        if state.committed > self.catalogs.newest(state.sessions):
            after, _ = step(state.sessions, "traded", stock(state.committed), NOW)
            yield f"front-ends must learn of {state.committed}", state._replace(sessions=after)
        if shown < state.known:
            raise Violation(f"the catalog shows {shown} after {state.known}")
        yield f"{shown} is acknowledged, or read by somebody", state._replace(known=shown)
        after, _ = step(state.sessions, "expired", NOW)
        yield "the catalog notices that leases are over", state._replace(sessions=after)
        if state.crashes < self.rules.crashes:
            fronts = tuple(front._replace(call=None) for front in state.fronts)
            after, _ = step(state.sessions, "started", NOW)
            yield (
                "the catalog crashes, or another one leads",
                state._replace(sessions=after, fronts=fronts, crashes=state.crashes + 1),
            )

    def may_serve(self, front: Front) -> bool:
        """Whether its lease holds, or one that is on its way will."""
        return self.caches.holds(front.cache) or (front.grant is not None and front.grant.holds)

    def lookup_steps(self, state: State, i: int, front: Front) -> Iterator[tuple[str, State]]:
        """Hits, misses, and evictions."""
        shown = self.caches.shown(front.cache)
        if shown >= 0:
            if shown < state.known:
                raise Violation(f"front {i + 1} shows {shown} after {state.known}")
            yield f"shows {shown} from its cache", state._replace(known=shown)
        if self.caches.snapshots[front.cache].stocks:
            evicted = self.caches.changed(front.cache, stocks=())
            yield "evicts", put(state, i, front._replace(cache=evicted))
        if len(front.lookups) < self.rules.lookups:
            if self.caches.ticket(front.cache) is not None:
                asking = put_lookups(front, (*front.lookups, Lookup(0)))
                yield "asks the catalog", put(state, i, asking)
        for lookup in set(front.lookups):
            rest = list(front.lookups)
            rest.remove(lookup)
            yield "its lookup is lost", put(state, i, put_lookups(front, rest))
            if lookup.version >= 0:
                yield self.filled(state, i, put_lookups(front, rest), lookup)
            elif self.catalogs.shown(state.sessions) >= 0:
                yield self.looked_up(state, i, put_lookups(front, rest), lookup)

    def looked_up(self, state: State, i: int, front: Front, asked: Lookup) -> tuple[str, State]:
        """The catalog answers a lookup."""
        after, found = self.catalogs.step(state.sessions, "looked_up", i, "s", "A", NOW)
        if found.version < state.known:
            raise Violation(f"front {i + 1} is told {found.version} after {state.known}")
        answered = put_lookups(front, (*front.lookups, asked._replace(version=found.version)))
        what = f"its lookup finds {found.version}"
        return what, put(state, i, answered)._replace(sessions=after)

    def filled(self, state: State, i: int, front: Front, found: Lookup) -> tuple[str, State]:
        """The answer arrives, is shown to whoever asked, and stored if a rule allows it."""
        after, _ = self.caches.step(front.cache, "fill", -found.age, stock(found.version))
        known = max(state.known, found.version)
        what = f"receives {found.version}"
        return what, put(state, i, front._replace(cache=after))._replace(known=known)

    def lease_steps(self, state: State, i: int, front: Front) -> Iterator[tuple[str, State]]:
        """Registrations, and the ends of leases. A registration carries nothing that changes,
        so a late copy is one that the catalog receives at any time.
        """
        after, grant = self.catalogs.step(state.sessions, "register", i, f"u{i}", "s", NOW, 1.0)
        registered = state._replace(sessions=after)
        yield "registers, the answer is lost", registered
        if front.grant is None:
            yield "registers", put(registered, i, front._replace(grant=grant))
        else:
            yield "the answer to its registration is lost", put(state, i, front._replace(grant=None))
            yield self.granted(state, i, front._replace(grant=None), front.grant)
            if front.grant.holds:
                late = front.grant._replace(holds=False)
                yield "its next lease is over", put(state, i, front._replace(grant=late))
        if self.caches.holds(front.cache):
            over = self.caches.changed(front.cache, lease_until=OVER)
            yield "its lease is over", put(state, i, front._replace(cache=over))
        if not self.may_serve(front) or not self.rules.waits_for_lease:
            after = self.catalogs.lease_over(state.sessions, i)
            yield "its lease is over at the catalog", state._replace(sessions=after)

    def granted(self, state: State, i: int, front: Front, grant: Grant) -> tuple[str, State]:
        """The answer to a registration arrives (``twstock.web.lease`` does the same)."""
        number, emptied = front.cache, 0
        if grant.missed >= 0:
            number, emptied = self.caches.step(number, "invalidate", "A", grant.missed)
        sent_at = NOW if grant.holds else OVER - LEASE_S
        number, again = self.caches.step(number, "renew", sent_at, LEASE_S, NOW, grant.fresh)
        front = aged(front._replace(cache=number), emptied + again)
        return f"has a lease, fresh: {grant.fresh}", put(state, i, front)

    def call_steps(self, state: State, i: int, front: Front) -> Iterator[tuple[str, State]]:
        """Invalidations and their answers; each may arrive twice."""
        call = front.call
        if call is None:
            owed = self.catalogs.owes(state.sessions).get(i)
            if owed is not None:
                yield f"is called for {owed}", put(state, i, front._replace(call=Call(owed)))
            return
        yield "its call is lost", put(state, i, front._replace(call=None))
        if call.is_answer:
            after, _ = self.catalogs.step(state.sessions, "answered", i, "s", call, NOW)
            answered = state._replace(sessions=after)
            yield f"answers for {call.version} (twice)", answered
            yield f"answers for {call.version}", put(answered, i, front._replace(call=None))
        else:
            number, emptied = self.caches.step(front.cache, "invalidate", "A", call.version)
            told = aged(front._replace(cache=number), emptied)
            yield f"is told of {call.version} (twice)", put(state, i, told)
            told = told._replace(call=call._replace(is_answer=True))
            yield f"is told of {call.version}", put(state, i, told)


def put(state: State, i: int, front: Front) -> State:
    """The state with another front-end."""
    return state._replace(fronts=(*state.fronts[:i], front, *state.fronts[i + 1 :]))


def put_lookups(front: Front, lookups: Any) -> Front:
    """The front-end with other lookups under way; their sequence does not matter."""
    return front._replace(lookups=tuple(sorted(lookups)))


def aged(front: Front, emptied: int) -> Front:
    """The cache was emptied: lookups under way have an old ticket, and old is old."""
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
