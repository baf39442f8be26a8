"""Changes of stocks at the catalog: durable, published, and listed when they are."""

from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.logger import capturedLogs

from tests.test_catalog import LEASE_S, LIMITS, Scene, batch, begun, order, result_of
from twstock.errors import (
    DiskFull,
    InvalidRequest,
    KeyReused,
    NotLeader,
    OutcomeUnknown,
    TwstockError,
    Unavailable,
)
from twstock.market import (
    BeginEpoch,
    ChangeKind,
    ChangeRefusal,
    ChangeRequest,
    Refusal,
    Stock,
    StockChange,
)
from twstock.rpc.calls import Changed, Changes, LookupMany, Page, Placement, StockPage, Verdicts

ADD, RESTOCK, PRICE, HALT, RESUME = ChangeKind
WALL_MS = 1_700_000_000_000


def halt(name: str = "GameStart", key: str = "h") -> ChangeRequest:
    """A request to halt a stock."""
    return ChangeRequest(key, HALT, name)


def change(scene: Scene, request: ChangeRequest) -> Changed:
    """The answer to a change."""
    return result_of(scene.catalog.stock_changes.change_stock(request))


def listed(scene: Scene, after: int = 0, limit: int = 0) -> Changes:
    """A page of changes."""
    return result_of(scene.catalog.stock_changes.list_changes(Page(after, limit)))


@pytest.fixture
def scene() -> Scene:
    """A catalog that serves."""
    made = Scene()
    made.lead()
    return made


def test_a_change_is_answered_with_its_number_and_the_stock(scene: Scene) -> None:
    """A lookup shows the same stock, and asking again has the same answer, marked as replayed."""
    request = ChangeRequest("k", RESTOCK, "GameStart", quantity=5)
    stock = Stock("GameStart", 1599, 105, 0, 1, 105)
    assert change(scene, request) == Changed(1, stock)
    assert scene.lookup("GameStart") == stock
    assert change(scene, request) == Changed(1, stock, replayed=True)


def test_a_stock_that_was_added_is_found_and_listed(scene: Scene) -> None:
    """A stock can be looked up, listed and traded as soon as its addition is answered."""
    assert change(scene, ChangeRequest("k", ADD, "Lemon", 250, 10)).number == 1
    assert scene.lookup("Lemon") == Stock("Lemon", 250, 10, 0, 1, 10)
    [found] = result_of(scene.catalog.lookup_many(LookupMany(("Lemon",)))).stocks
    assert found is not None
    assert found in result_of(scene.catalog.list_stocks(StockPage("", 0))).stocks
    assert scene.trade("buy", 1, "Lemon") == Placement(1, version=2)


def test_refusals_are_answers_and_a_reused_key_is_an_error(scene: Scene) -> None:
    """A refusal is a value, in the words of the API. A key that belongs to another change, and a
    malformed change, raise.
    """
    assert change(scene, ChangeRequest("k", RESUME, "GameStart")).refusal == "not halted"
    again = change(scene, ChangeRequest("k", RESUME, "GameStart"))
    assert again == Changed(refusal="not halted", replayed=True)
    with pytest.raises(KeyReused, match="used with another change"):
        change(scene, halt(key="k"))
    with pytest.raises(InvalidRequest):
        change(scene, ChangeRequest("x", PRICE, "GameStart", price_cents=-1))


def test_a_caller_without_a_key_gets_one(scene: Scene) -> None:
    """Two calls without a key are two changes."""
    assert change(scene, ChangeRequest("", RESTOCK, "GameStart", quantity=1)).number == 1
    assert change(scene, ChangeRequest("", RESTOCK, "GameStart", quantity=1)).number == 2


def test_a_halted_stock_is_refused_to_everybody(scene: Scene) -> None:
    """To the order leader, and to whoever trades at the catalog directly, until trading is
    resumed.
    """
    change(scene, halt())
    result_of(scene.catalog.begin_epoch(BeginEpoch(1, 0)))
    answer = result_of(scene.catalog.trade(batch(1, order("k"))))
    assert isinstance(answer, Verdicts)
    assert [verdict.refusal for verdict in answer.verdicts] == [Refusal.HALTED]
    words = "trading in this stock is halted"
    assert scene.trade("sell", 1) == Placement(refusal=words)
    change(scene, ChangeRequest("r", RESUME, "GameStart"))
    assert scene.trade("sell", 1).number == 1


# --- caches ---------------------------------------------------------------------------------------


def test_a_change_waits_for_the_caches_and_nothing_runs_ahead(scene: Scene) -> None:
    """Until each front-end that holds the stock was told, or its lease is over, lookups and lists
    show what was before.
    """
    scene.register()
    scene.lookup("GameStart", 1)
    scene.fronts.silent = True
    waiting = begun(scene.catalog.stock_changes.change_stock(halt()))
    assert waiting == []
    assert scene.fronts.told == ["http://front1/delete/GameStart?version=1"]
    shown = scene.lookup("GameStart")
    assert shown is not None
    assert not shown.halted
    assert listed(scene) == Changes((), made=1)
    scene.clock.advance(LEASE_S)
    stock = Stock("GameStart", 1599, 100, 0, 1, 100, halted=True)
    assert waiting == [Changed(1, stock)]
    assert scene.lookup("GameStart") == stock
    assert listed(scene).last == 1


def test_a_refusal_waits_for_the_change_that_caused_it(scene: Scene) -> None:
    """Whoever is told that the stock is halted must not see afterwards that it is not."""
    scene.register()
    scene.lookup("GameStart", 1)
    scene.fronts.silent = True
    halted = begun(scene.catalog.stock_changes.change_stock(halt()))
    again = begun(scene.catalog.stock_changes.change_stock(halt(key="again")))
    assert (halted, again) == ([], [])
    scene.clock.advance(LEASE_S)
    assert again == [Changed(refusal="already halted")]


def test_an_answer_shows_no_version_that_a_cache_hides(scene: Scene) -> None:
    """While a later change waits for a cache, an answer shows the stock as lookups do."""
    answers: list[Deferred[Any]] = []

    def request(method: str, url: str, **_: Any) -> "Deferred[Any]":
        answers.append(Deferred())
        return answers[-1]

    scene.fronts.request = request  # type: ignore[method-assign]
    scene.register()
    scene.lookup("GameStart", 1)
    first = begun(scene.catalog.stock_changes.change_stock(halt()))
    later = begun(scene.catalog.stock_changes.change_stock(ChangeRequest("r", RESUME, "GameStart")))
    answers[0].callback(scene.fronts)
    assert (len(first), len(later)) == (1, 0)
    assert first[0].stock.version == 1
    assert first == [Changed(1, scene.lookup("GameStart"))]


# --- lists ----------------------------------------------------------------------------------------


def test_changes_are_listed_in_pages(scene: Scene) -> None:
    """Each page tells where the next one begins, the last one that there is none."""
    for k in range(5):
        change(scene, ChangeRequest(str(k), RESTOCK, "GameStart", quantity=1))
    first = listed(scene, limit=2)
    assert [c.number for c in first.changes] == [1, 2]
    assert (first.next, first.last) == (2, 5)
    assert first.changes[0] == StockChange(1, RESTOCK, "GameStart", 0, 1, 1, WALL_MS)
    assert [c.number for c in listed(scene, 2, 2).changes] == [3, 4]
    rest = listed(scene, 4, 10**6)
    assert ([c.number for c in rest.changes], rest.next) == ([5], 0)
    assert listed(scene, 99) == Changes((), 0, 5, 5)
    assert listed(scene, -7).changes == listed(scene).changes


def test_pages_are_bounded(scene: Scene) -> None:
    """A page has ``page_max`` changes at most, whatever is asked for."""
    most = scene.catalog.stock_changes._limits = replace(LIMITS, page_max=3)
    for k in range(5):
        change(scene, ChangeRequest(str(k), RESTOCK, "GameStart", quantity=1))
    assert len(listed(scene, limit=9).changes) == most.page_max
    assert listed(scene).next == 3


def test_a_change_is_listed_however_many_came_since_anybody_asked(scene: Scene) -> None:
    """More changes than fit on a page can become visible at once: nobody asked for them, or a cache
    that hid the first of them is told at last.
    """
    scene.catalog.stock_changes._limits = replace(LIMITS, page_max=2)
    for k in range(7):
        change(scene, ChangeRequest(str(k), RESTOCK, "GameStart", quantity=1))
    assert listed(scene, 7).last == 7
    scene.register()
    scene.lookup("GameStart", 1)
    scene.fronts.silent = True
    begun(scene.catalog.stock_changes.change_stock(halt()))
    for k in range(7, 12):
        change(scene, ChangeRequest(str(k), RESTOCK, "FishCo", quantity=1))
    assert listed(scene, 7).last == 7
    scene.clock.advance(LEASE_S)
    assert [c.number for c in listed(scene, 11, 1).changes] == [12]
    assert listed(scene).last == 13


def test_a_change_is_counted_as_shown_when_it_is_answered(scene: Scene) -> None:
    """Whoever asks for the list first need not go through all changes: there may be a hundred
    thousand.
    """
    for k in range(3):
        change(scene, ChangeRequest(str(k), RESTOCK, "GameStart", quantity=1))
    assert scene.catalog.stock_changes._changes_shown == 3


def test_no_change_is_listed_before_one_with_a_lower_number(scene: Scene) -> None:
    """So whoever has read up to some number has missed none before it."""
    scene.register()
    scene.lookup("GameStart", 1)
    scene.fronts.silent = True
    begun(scene.catalog.stock_changes.change_stock(halt()))
    assert change(scene, halt("FishCo", "f")).number == 2
    assert listed(scene) == Changes((), made=2)
    scene.clock.advance(LEASE_S)
    assert [c.number for c in listed(scene).changes] == [1, 2]


def test_a_new_leader_lists_all_changes_of_the_time_before(scene: Scene) -> None:
    """They count as published, like everything else, once the leases of the leader before are
    over.
    """
    for k in range(3):
        change(scene, ChangeRequest(str(k), RESTOCK, "GameStart", quantity=1))
    other = Scene()
    other.member.machine = scene.member.machine
    other.catalog.begin(2)
    with pytest.raises(Unavailable):
        listed(other)
    other.clock.advance(LEASE_S)
    assert (listed(other).last, other.catalog.stock_changes._changes_shown) == (3, 3)


# --- bounds and errors ----------------------------------------------------------------------------


def test_stocks_and_changes_are_bounded(scene: Scene) -> None:
    """At the bound a change that was made already is still answered, and adding a stock that exists
    is still refused as that.
    """
    scene.catalog.stock_changes._limits = replace(LIMITS, stocks_max=13, changes_max=2)
    first = ChangeRequest("a", ADD, "Lemon", 1, 1)
    assert change(scene, first).number == 1
    full = change(scene, ChangeRequest("b", ADD, "Melon", 1, 1)).refusal
    assert full == ChangeRefusal.TOO_MANY_STOCKS
    assert change(scene, ChangeRequest("c", ADD, "Lemon", 1, 1)).refusal == "stock exists already"
    assert change(scene, halt()).number == 2
    assert change(scene, halt("FishCo", "x")).refusal == ChangeRefusal.TOO_MANY_CHANGES
    assert change(scene, first).number == 1


@pytest.mark.parametrize("limits", [{"changes_max": 1}, {"stocks_max": 13}])
def test_a_change_under_way_is_not_refused_at_the_bound(
    scene: Scene, limits: dict[str, int]
) -> None:
    """Whoever asks again before it is made is told what becomes of it, for it is in the log."""
    scene.catalog.stock_changes._limits = replace(LIMITS, **limits)
    lemon, melon = ChangeRequest("a", ADD, "Lemon", 1, 1), ChangeRequest("b", ADD, "Melon", 1, 1)
    scene.member.holds_back = True
    answers = [
        begun(scene.catalog.stock_changes.change_stock(lemon)),
        begun(scene.catalog.stock_changes.change_stock(melon)),
    ]
    held, scene.member.proposed = scene.member.proposed[1:], scene.member.proposed[:1]
    scene.member.commit()
    answers.append(begun(scene.catalog.stock_changes.change_stock(melon)))
    assert [len(answer) for answer in answers] == [1, 0, 0]
    scene.member.proposed = held + scene.member.proposed
    scene.member.commit()
    assert [answer[0].number for answer in answers] == [1, 2, 2]
    assert [answer[0].replayed for answer in answers] == [False, False, True]


def test_a_copy_that_fails_leaves_another_under_way(scene: Scene) -> None:
    """Of two requests for the same change the second fails. A third is not refused at the bound,
    because the first will be made.
    """
    scene.catalog.stock_changes._limits = replace(LIMITS, changes_max=1)
    scene.member.holds_back = True
    answers = [begun(scene.catalog.stock_changes.change_stock(halt(key=key))) for key in ("a", "b")]
    scene.member.error = DiskFull("full")
    with pytest.raises(DiskFull):
        change(scene, halt(key="b"))
    scene.member.error = None
    held, scene.member.proposed = scene.member.proposed[1:], scene.member.proposed[:1]
    scene.member.commit()
    answers.append(begun(scene.catalog.stock_changes.change_stock(halt(key="b"))))
    assert [len(answer) for answer in answers] == [1, 0, 0]
    scene.member.proposed = held + scene.member.proposed
    scene.member.commit()
    assert len({answer[0].number for answer in answers[1:]}) == 1


def test_a_change_whose_proposal_failed_is_not_under_way(scene: Scene) -> None:
    """At the bound it is refused like any other."""
    scene.catalog.stock_changes._limits = replace(LIMITS, changes_max=1)
    scene.member.error = DiskFull("full")
    with pytest.raises(DiskFull):
        change(scene, halt())
    scene.member.error = None
    assert change(scene, halt("FishCo", "x")).number == 1
    assert change(scene, halt()).refusal == ChangeRefusal.TOO_MANY_CHANGES


def test_only_a_leader_that_nobody_can_have_replaced_refuses_at_a_bound(scene: Scene) -> None:
    """Another one may have made this very change. Only the log would tell, so without a lease there
    is no answer.
    """
    scene.catalog.stock_changes._limits = replace(LIMITS, changes_max=1)
    assert change(scene, halt()).number == 1
    scene.member.lease = scene.clock.seconds()
    with pytest.raises(Unavailable):
        change(scene, halt("FishCo", "x"))


@pytest.mark.parametrize("error", [DiskFull("full"), NotLeader(2), OutcomeUnknown("lost")])
def test_the_member_s_errors_reach_the_caller(scene: Scene, error: TwstockError) -> None:
    """The caller is told whether nothing happened or the outcome is unknown."""
    scene.member.error = error
    with pytest.raises(type(error)):
        change(scene, halt())


def test_a_proposal_that_was_lost_is_unknown(scene: Scene) -> None:
    """The next leader may find the change in its log, or not."""
    lost = OutcomeUnknown("leadership was lost")
    scene.member.propose = lambda payload: fail(lost)  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknown):
        change(scene, halt())


def test_only_the_leader_answers(scene: Scene) -> None:
    """Any other member refuses with NotLeader."""
    scene.member.leads = False
    with pytest.raises(NotLeader):
        change(scene, halt())
    with pytest.raises(NotLeader):
        listed(scene)


def test_a_leader_without_a_lease_lists_nothing(scene: Scene) -> None:
    """Another one may lead by now, and may have made changes."""
    scene.member.lease = scene.clock.seconds()
    with pytest.raises(Unavailable):
        listed(scene)


def test_an_empty_catalog_takes_no_changes() -> None:
    """A catalog with a stock in it would never be filled with the first stocks."""
    scene = Scene()
    scene.member.error = DiskFull("full")
    scene.lead()
    with pytest.raises(Unavailable, match="being filled"):
        change(scene, ChangeRequest("k", ADD, "Lemon", 1, 1))


def test_each_change_is_one_line_in_the_log(scene: Scene) -> None:
    """A change that is asked for again is not logged again."""
    with capturedLogs() as logged:
        change(scene, halt())
        change(scene, halt())
    assert [(e["number"], e["kind"], e["name"]) for e in logged] == [(1, "halt", "GameStart")]
