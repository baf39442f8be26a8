"""The front-end's cache: its four rules, its counters, its bounds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twstock.market import Stock
from twstock.web.cache import Cache


def stock(version: int, name: str = "GOOGL") -> Stock:
    """A stock whose quantity tells its version."""
    return Stock(name, 1000, 100 - version, version, version, 100)


def leased(size: int = 10, until: float = 100.0, **limits: int) -> Cache:
    """A cache that holds a lease until a time."""
    cache = Cache(size, **limits)
    cache.renew(sent_at=0.0, seconds=until / 0.9, now=0.0, fresh=True)
    return cache


def remembered(cache: Cache, version: int, name: str = "GOOGL", now: float = 1.0) -> bool:
    """Whether a lookup that brings this version is stored."""
    return cache.fill(cache.ticket(now), stock(version, name))


def test_hit_only_while_the_lease_holds() -> None:
    """A cached stock is shown until the lease ends, and not at its end."""
    cache = leased(until=9.0)
    assert remembered(cache, 1)
    assert cache.hit("GOOGL", 8.999) == stock(1)
    assert cache.hit("GOOGL", 9.0) is None
    assert cache.counters.hits == 1


def test_a_lease_counts_from_before_it_was_asked_for_less_a_tenth() -> None:
    """A grant of 0.25 s that was asked for at 10.0 ends at 10.225, however late it came."""
    cache = Cache(10)
    cache.renew(sent_at=10.0, seconds=0.25, now=10.2, fresh=True)
    assert cache.holds_lease(10.2249)
    assert not cache.holds_lease(10.2251)


def test_a_late_grant_gives_nothing() -> None:
    """A renewal that arrives after what it grants is over revives nothing."""
    cache = leased(until=9.0)
    remembered(cache, 1)
    cache.renew(sent_at=9.0, seconds=0.25, now=20.0, fresh=False)
    assert not cache.holds_lease(20.0)
    assert len(cache) == 0


def test_a_renewal_never_shortens_a_lease() -> None:
    """A renewal with a shorter grant leaves the lease that was granted before."""
    cache = leased(until=9.0)
    cache.renew(sent_at=1.0, seconds=0.1, now=1.0, fresh=False)
    assert cache.holds_lease(8.9)


@pytest.mark.parametrize(("now", "fresh"), [(1.0, True), (9.0, False)])
def test_a_new_or_lapsed_session_starts_empty(now: float, fresh: bool) -> None:
    """Nothing cached survives a session that the catalog did not know, or a lapse."""
    cache = leased(until=9.0)
    remembered(cache, 1)
    under_way = cache.ticket(0.5)
    cache.renew(sent_at=now, seconds=10.0, now=now, fresh=fresh)
    assert cache.hit("GOOGL", now) is None
    assert not cache.fill(under_way, stock(1))
    assert remembered(cache, 1, now=now)


def test_a_renewal_in_time_keeps_everything() -> None:
    """In the usual case the session goes on: what is cached stays, and lookups under way are still
    stored.
    """
    cache = leased(until=9.0)
    remembered(cache, 1)
    under_way = cache.ticket(8.0)
    cache.renew(sent_at=8.0, seconds=10.0, now=8.1, fresh=False)
    assert cache.hit("GOOGL", 10.0) == stock(1)
    assert cache.fill(under_way, stock(1, "META"))


def test_a_fresh_lease_does_not_inherit_the_time_of_the_old_one() -> None:
    """A new session's lease is as long as the new grant."""
    cache = leased(until=100.0)
    cache.renew(sent_at=1.0, seconds=1.0, now=1.0, fresh=True)
    assert not cache.holds_lease(2.0)


def test_a_stale_fill_is_not_stored() -> None:
    """A race of the original: a lookup is answered from before the trade, and the answer comes
    after the DELETE.
    """
    cache = leased()
    ticket = cache.ticket(1.0)
    cache.invalidate("GOOGL", 2)
    assert not cache.fill(ticket, stock(1))
    assert cache.fill(ticket, stock(2))
    assert cache.hit("GOOGL", 1.0) == stock(2)


def test_an_older_answer_does_not_replace_a_newer() -> None:
    """Two lookups under way may be answered in any order."""
    cache = leased()
    assert remembered(cache, 3)
    assert not remembered(cache, 2)
    assert cache.hit("GOOGL", 1.0) == stock(3)


def test_an_invalidation_spares_what_is_new_enough() -> None:
    """The version that is announced may have been looked up before the announcement."""
    cache = leased()
    remembered(cache, 2)
    cache.invalidate("GOOGL", 2)
    assert cache.hit("GOOGL", 1.0) == stock(2)
    cache.invalidate("GOOGL", 3)
    assert cache.hit("GOOGL", 1.0) is None
    assert cache.counters.invalidations == 2


def test_an_invalidation_without_version_forbids_all_fills_under_way() -> None:
    """The original's DELETE tells no version: nothing asked before it may be stored."""
    cache = leased()
    remembered(cache, 1)
    ticket = cache.ticket(1.0)
    cache.invalidate("GOOGL")
    assert cache.hit("GOOGL", 1.0) is None
    assert not cache.fill(ticket, stock(5))
    assert remembered(cache, 1)


def test_minimum_versions_survive_a_new_session() -> None:
    """A version that was announced stays the lowest that may be stored, through a new session and
    after the end of a lease.
    """
    cache = leased()
    cache.invalidate("GOOGL", 4)
    cache.renew(sent_at=1.0, seconds=10.0, now=1.0, fresh=True)
    cache.end_lease()
    cache.renew(sent_at=2.0, seconds=10.0, now=2.0, fresh=True)
    assert not remembered(cache, 3, now=2.0)
    assert remembered(cache, 4, now=2.0)


def test_nothing_is_stored_that_was_asked_without_a_lease() -> None:
    """The catalog sends no invalidations to a front-end without a lease, so what it looked up may
    be out of date.
    """
    cache = Cache(10)
    assert cache.ticket(0.0) is None
    assert not cache.fill(None, stock(1))


def test_an_own_trade_is_never_hidden() -> None:
    """A client that has traded through this front-end is not shown an older version (read your
    writes); this counts as no invalidation.
    """
    cache = leased()
    remembered(cache, 1)
    cache.raise_minimum("GOOGL", 2)
    assert cache.hit("GOOGL", 1.0) is None
    assert not remembered(cache, 1)
    assert cache.counters.invalidations == 0


def test_a_minimum_never_falls() -> None:
    """Invalidations may arrive out of order: the highest version counts."""
    cache = leased()
    cache.invalidate("GOOGL", 5)
    cache.invalidate("GOOGL", 3)
    assert cache.minimum("GOOGL") == 5


def test_forgotten_minimums_become_a_floor() -> None:
    """The table of minimums is bounded. Whatever it forgets raises the minimum of all stocks that
    are not in it, so this only ever keeps things out.
    """
    cache = leased(minimums_max=2)
    cache.invalidate("A", 7)
    cache.invalidate("B", 3)
    cache.invalidate("A", 8)
    cache.invalidate("C", 4)
    assert len(cache._minimums) == 2
    assert cache.minimum("B") == 3
    assert not remembered(cache, 2, "B")
    assert cache.minimum("unheard of") == 3
    assert cache.minimum("A") == 8


def test_the_least_recently_used_stock_is_evicted() -> None:
    """The cache holds ``size`` stocks and counts what it drops."""
    cache = leased(2)
    for name in ("A", "B"):
        remembered(cache, 1, name)
    cache.hit("A", 1.0)
    remembered(cache, 1, "C")
    assert cache.hit("B", 1.0) is None
    assert cache.hit("A", 1.0) is not None
    assert (len(cache), cache.counters.evictions) == (2, 1)


def test_size_zero_is_off_and_one_is_not() -> None:
    """A size of 0, which pylru refuses, means that nothing is ever stored."""
    cache = leased(0)
    assert not cache.enabled
    assert cache.ticket(1.0) is None
    assert not remembered(cache, 1)
    assert cache.hit("GOOGL", 1.0) is None
    cache.invalidate("GOOGL", 2)
    assert len(cache) == 0
    assert leased(1).enabled
    assert remembered(leased(1), 1)


NAMES = st.sampled_from(["A", "B", "C"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ticket")),
        st.tuples(st.just("fill"), NAMES, st.integers(0, 5), st.integers(0, 3)),
        st.tuples(st.just("invalidate"), NAMES, st.one_of(st.none(), st.integers(1, 5))),
        st.tuples(st.just("raise"), NAMES, st.integers(1, 5)),
        st.tuples(st.just("renew"), st.booleans()),
        st.tuples(st.just("lookup"), NAMES),
        st.tuples(st.just("wait"), st.floats(0.0, 0.3)),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(STEPS, st.integers(1, 3), st.integers(1, 3))
def test_no_sequence_of_steps_shows_less_than_was_announced(
    steps: list[tuple[object, ...]], size: int, minimums_max: int
) -> None:
    """Whatever happens: no version below an announced one is shown, nothing outlives the
    lease, and all tables stay in their bounds.
    """
    cache = Cache(size, minimums_max)
    announced = dict.fromkeys("ABC", 0)
    tickets: list[int | None] = [None]
    now = granted_until = 0.0
    for step in steps:
        match step:
            case ("ticket",):
                tickets = [cache.ticket(now), *tickets][:4]
            case ("fill", str(name), int(version), int(which)):
                cache.fill(tickets[which % len(tickets)], stock(version, name))
            case ("invalidate", str(name), version):
                assert version is None or isinstance(version, int)
                cache.invalidate(name, version)
                announced[name] = max(announced[name], version or 0)
            case ("raise", str(name), int(version)):
                cache.raise_minimum(name, version)
                announced[name] = max(announced[name], version)
            case ("renew", bool(fresh)):
                cache.renew(now, 0.25, now, fresh)
                granted_until = now + 0.25
            case ("lookup", str(name)):
                shown = cache.hit(name, now)
                assert shown is None or shown.version >= announced[name]
                assert shown is None or now < granted_until
            case ("wait", float(seconds)):
                now += seconds
        assert len(cache) <= size
        assert len(cache._minimums) <= minimums_max
