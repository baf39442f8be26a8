"""Lookups that miss the cache: how they share calls, which catalog they ask, and what may be
cached.
"""

from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from tests.fakes import HANG, Called, FakeMember, status
from tests.test_cache import stock
from twstock.config import Limits
from twstock.errors import (
    InvalidRequest,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)
from twstock.rpc.calls import LOOKUPS_MAX, LookedUp, LookupMany
from twstock.web import answers
from twstock.web.api import Api
from twstock.web.cache import Cache
from twstock.web.tiers import CatalogTier
from twstock.web.upstream.leader import LeaderWatch
from twstock.web.upstream.pace import CALLS_MAX, PATIENCE_S

LIMITS = Limits(requests_waiting_max=1000, calls_under_way_max=8)
SESSION = (1, "mine")
ASKED = "LookupMany"


def found(version: int) -> Any:
    """A catalog where every stock has this version, but for "NONE"."""
    return lambda request: LookedUp(
        tuple(None if name == "NONE" else stock(version, name) for name in request.names)
    )


class Front:
    """A front-end's cache, API and catalog tier; the catalog of the highest id leads term 1."""

    def __init__(self, members: int = 1, cache_size: int = 10) -> None:
        self.clock = Clock()
        self.now = 1.0
        self.members = {n: FakeMember(self.clock) for n in range(1, members + 1)}
        self.leads(members, 1)
        self.leader = self.members[members]
        self.leader.replies[ASKED] = found(0)
        watch = self.watch = LeaderWatch("catalog", self.members, self.clock, LIMITS, Random(1))
        self.tier = CatalogTier(watch, self.members, self.clock, LIMITS, Random(2))
        self.cache = Cache(cache_size)
        self.cache.renew(0.0, 100.0, 1.0, True)
        others: Any = None
        self.api = Api(
            self.cache, self.tier, others, others, SESSION, lambda: self.now, str, LIMITS
        )
        watch.start()

    def leads(self, leader: int, term: int, *gone: int) -> None:
        """From now on the members say this, except those that say nothing."""
        for number, member in self.members.items():
            role = "leader" if number == leader else "follower"
            said = status(number, role, term, leader_id=leader)
            member.status = None if number in gone else said

    def advance(self, seconds: float, step: float = 0.005) -> None:
        """Let time pass in small steps."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)

    def get(self, *names: str) -> "list[list[Any]]":
        """Look up, as ``GET /stocks/NAME``s that arrive in one turn; each list gets its answer."""
        told: list[list[Any]] = [[] for _ in names]
        for name, answer in zip(names, told, strict=True):
            hit = self.api.hit(name)
            if hit is None:
                miss = self.api.miss(name)
                work: Deferred[Any] = ensureDeferred(miss)
                work.addCallbacks(
                    lambda got, answer=answer: answer.append(got),
                    lambda failure, answer=answer: answer.append(failure.value),
                )
            else:
                answer.append(hit)
        self.clock.advance(0)
        return told

    def hangs(self, member: int = 0) -> None:
        """The catalog keeps its answers back."""
        (self.members[member] if member else self.leader).replies[ASKED] = HANG

    @property
    def asked(self) -> "list[Called]":
        """The calls that the leader of term 1 got."""
        return self.leader.of(ASKED)

    def answer(self, version: int, place: int = -1) -> None:
        """The catalog answers a call that it kept back."""
        called = self.asked[place]
        self.leader.settle(called, found(version)(called.request))


def shown(*results: "list[Any]") -> "list[str]":
    """The versions in answers, "404", or the names of errors."""
    return [_shown(result) for [result] in results]


def _shown(result: Any) -> str:
    if isinstance(result, Exception):
        return type(result).__name__
    if result == answers.NO_SUCH_STOCK:
        return "404"
    return str(result.body).partition('"version":')[2].partition("}")[0]


# --- sharing calls ---------------------------------------------------------------------------


def test_lookups_of_one_turn_share_a_call() -> None:
    """The call names each stock once, and each lookup has its own answer, also a 404."""
    front = Front()
    assert shown(*front.get("A", "NONE", "B", "A")) == ["0", "404", "0", "0"]
    [called] = front.asked
    assert called.request == LookupMany(("A", "NONE", "B"), *SESSION)
    assert len(front.cache) == 2


def test_lookups_gather_while_a_call_is_under_way() -> None:
    """A lookup is only answered by a call that was made after it came, so it shows every trade
    before it.
    """
    front = Front()
    front.hangs()
    first = front.get("A")
    later = front.get("A", "B")
    front.answer(1, 0)
    assert shown(*first) == ["1"]
    assert later == [[], []]
    front.answer(2)
    assert shown(*later) == ["2", "2"]
    assert [called.request.names for called in front.asked] == [("A",), ("A", "B")]


def test_a_call_has_a_limit() -> None:
    """More stocks than that go in several calls."""
    front = Front(cache_size=1000)
    names = [f"S{number}" for number in range(2 * LOOKUPS_MAX + 1)]
    assert set(shown(*front.get(*names))) == {"0"}
    assert [len(called.request.names) for called in front.asked] == [LOOKUPS_MAX, LOOKUPS_MAX, 1]


def test_too_many_lookups_are_refused_at_once() -> None:
    """The front-end has room for a limited number of lookups that wait."""
    front = Front()
    front.hangs()
    waiting = front.get(*["A"] * LIMITS.requests_waiting_max)
    assert shown(*front.get("A")) == ["Overloaded"]
    front.advance(2.0)
    assert set(shown(*waiting)) == {"Unavailable"}
    front.leader.replies[ASKED] = found(0)
    front.advance(0.1)
    assert shown(*front.get("A")) == ["0"]


# --- whom to ask -----------------------------------------------------------------------------


@pytest.mark.parametrize("members", [1, 3])
def test_a_lookup_goes_to_the_leading_catalog_alone(members: int) -> None:
    """Followers may be behind; only the leader's answer counts."""
    front = Front(members)
    assert shown(*front.get("A")) == ["0"]
    others = [member for member in front.members.values() if member is not front.leader]
    assert not any(member.of(ASKED) for member in others)


def test_lookups_move_to_a_new_leader_at_once() -> None:
    """A paused catalog is left as soon as another one leads a higher term, also by lookups that
    waited behind the calls that it never answered.
    """
    front = Front(3)
    front.leader.replies |= {ASKED: HANG, "Heartbeat": HANG}
    front.members[2].replies[ASKED] = found(2)
    told = [front.get("A", "B") for _ in range(2 * CALLS_MAX)]
    front.advance(0.2)
    front.leads(2, 2)
    front.advance(0.15)
    assert {version for results in told for version in shown(*results)} == {"2"}
    assert all(called.cancelled for called in front.asked)
    assert len(front.members[2].of(ASKED)) < len(told)


def test_the_leader_that_a_refusal_names_is_asked_next() -> None:
    """Within one pause."""
    front = Front(3)
    front.leader.replies[ASKED] = NotLeader(2)
    front.leads(2, 2)
    front.members[2].replies[ASKED] = found(2)
    told = front.get("A")
    front.advance(2 * LIMITS.retry_s)
    assert shown(*told) == ["2"]


def test_a_lookup_survives_a_restart_of_the_only_catalog() -> None:
    """It is asked again until its time is up; then it is Unavailable."""
    front = Front()
    front.leads(1, 1, 1)
    del front.leader.replies[ASKED]
    early = front.get("A", "A")
    front.advance(1.0)
    late = front.get("A")
    assert early == [[], []]
    front.advance(LIMITS.request_budget_s - 0.9)
    assert shown(*early) == ["Unavailable"] * 2
    assert late == [[]], "its own budget is not over"
    front.leads(1, 2)
    front.leader.replies[ASKED] = found(3)
    front.advance(0.15)
    assert shown(*late) == ["3"]


@pytest.mark.parametrize(
    "problem",
    [NotLeader(0), Unavailable("no"), OutcomeUnknown("lost"), LookedUp(())],
)
def test_what_may_go_better_a_moment_later_is_asked_again(problem: Any) -> None:
    """For all lookups that share the call. An answer with the wrong number of stocks counts as
    none.
    """
    front = Front()
    problems = [problem]
    front.leader.replies[ASKED] = lambda q: problems.pop() if problems else found(4)(q)
    told = front.get("A", "NONE", "A")
    front.advance(0.2)
    assert shown(*told) == ["4", "404", "4"]


@pytest.mark.parametrize("problem", [Overloaded("full"), InvalidRequest("stock_names", "odd")])
def test_a_refusal_is_everybodys_answer(problem: Exception) -> None:
    """It answers all lookups that share the call, for asking again would not help."""
    front = Front()
    front.leader.replies[ASKED] = problem
    assert set(shown(*front.get("A", "B", "A"))) == {type(problem).__name__}
    assert len(front.asked) == 1


# --- what may be kept ------------------------------------------------------------------------


def kept(front: Front, *names: str) -> "list[int | None]":
    """The versions that the cache would show now."""
    hits = [front.cache.hit(name, front.now) for name in names]
    return [None if hit is None else hit.version for hit in hits]


def test_an_answer_that_an_invalidation_overtook_is_not_kept() -> None:
    """The trade was made between question and answer. The lookup may show the state before it, the
    cache may not. Other stocks of the same call are not concerned.
    """
    front = Front()
    front.hangs()
    told = front.get("A", "B")
    front.cache.invalidate("A", 5)
    front.answer(4)
    assert shown(*told) == ["4", "4"]
    assert kept(front, "A", "B") == [None, 4]
    again = front.get("A")
    front.answer(5)
    assert shown(*again) == ["5"]
    assert kept(front, "A") == [5]


def test_an_invalidation_before_the_call_leaves_counts_as_well() -> None:
    """A lookup that waits for a call is judged by what is known when it is answered."""
    front = Front()
    front.hangs()
    front.get("A", "B")
    waiting = front.get("D")
    front.cache.invalidate("D", 7)
    front.answer(6, 0)
    front.answer(6, 1)
    assert shown(*waiting) == ["6"]
    assert kept(front, "D") == [None]


def test_an_invalidation_without_version_forbids_all_that_was_asked_before() -> None:
    """Of two lookups that share a call, one came before it and one after. Both may show the answer,
    but it is cached for the later one only.
    """
    front = Front()
    front.hangs()
    front.get("X")
    before = front.get("A", "B")
    front.cache.invalidate("A")
    after = front.get("A")
    front.answer(3, 0)
    front.answer(3, 1)
    assert shown(*before, *after) == ["3", "3", "3"]
    assert kept(front, "A", "B", "X") == [3, None, None]


@pytest.mark.parametrize("renewed", [True, False])
def test_an_answer_for_a_session_that_ended_meanwhile_is_not_kept(renewed: bool) -> None:
    """The catalog no longer tells this front-end of trades in what it asked for in that session."""
    front = Front()
    front.hangs()
    told = front.get("A", "B")
    front.cache.end_lease()
    if renewed:
        front.cache.renew(1.0, 100.0, 1.0, True)
    front.answer(4)
    assert shown(*told) == ["4", "4"]
    front.cache.renew(1.0, 100.0, 1.0, False)
    assert kept(front, "A", "B") == [None, None]


def test_lookups_with_and_without_a_session_never_share_a_call() -> None:
    """Only what the catalog notes for this session may be cached, and no trade should wait for what
    will not be cached.
    """
    front = Front()
    front.hangs()
    with_session = ensureDeferred(front.api.miss("A"))
    front.cache.end_lease()
    without = front.get("A")
    sessions = [(called.request.front_id, called.request.session) for called in front.asked]
    assert sorted(sessions) == [(0, ""), SESSION]
    for place in range(2):
        front.answer(4, place)
    assert shown(*without) == ["4"]
    assert with_session.called
    front.cache.renew(1.0, 100.0, 1.0, True)
    assert kept(front, "A") == [None]


def test_without_room_nothing_is_kept_and_no_session_is_named() -> None:
    """With a cache of size 0 no trade waits for this front-end."""
    front = Front(cache_size=0)
    assert shown(*front.get("A", "A", "NONE")) == ["0", "0", "404"]
    assert [called.request for called in front.asked] == [LookupMany(("A", "NONE"))]
    assert len(front.cache) == 0
    assert (front.cache.counters.hits, front.cache.counters.misses) == (0, 3)


def test_an_older_answer_does_not_replace_a_newer_one() -> None:
    """When a call takes long, a second one leaves, and their answers may come in either order."""
    front = Front()
    front.hangs()
    told = [front.get("A")[0] for _ in range(2)]
    front.advance(2 * PATIENCE_S)
    front.answer(2, 1)
    front.answer(1, 0)
    assert shown(*told) == ["1", "2"]
    assert kept(front, "A") == [2]
