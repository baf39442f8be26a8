"""Telling front-ends of new versions: what is sent, to which of them, and how long the catalog
waits.
"""

import json
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from twstock.catalog.invalidation import Publisher, request_of
from twstock.catalog.sessions import Call, Sessions
from twstock.config import Limits
from twstock.errors import OutcomeUnknown
from twstock.market import Stock

LIMITS = Limits(cache_lease_s=0.25, invalidate_deadline_s=0.1, retry_s=0.02)


class Answer:
    """A front-end's answer."""

    def __init__(self, code: int) -> None:
        self.code = code

    def content(self) -> "Deferred[bytes]":
        """The body came with the head."""
        return succeed(b"")


class FakeHttp:
    """Front-ends that answer when told to."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, dict[str, int] | None]] = []
        self.open: list[Deferred[Any]] = []

    def request(self, method: str, url: str, **kwargs: Any) -> "Deferred[Any]":
        """Note the request; it stays open until ``answer``."""
        body = None
        if "data" in kwargs:
            written: list[bytes] = []
            kwargs["data"].startProducing(Written(written))
            assert len(written[0]) == kwargs["data"].length
            body = json.loads(written[0])["stocks"]
        self.sent.append((method, url, body))
        self.open.append(Deferred())
        return self.open[-1]

    def answer(self, which: int, code: int = 200) -> None:
        """Answer an open request, the oldest being 0."""
        self.open.pop(which).callback(Answer(code))


class Written:
    """Where a body goes."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    def write(self, content: bytes) -> None:
        """Keep it."""
        self._chunks.append(content)


class Scene:
    """A catalog leader, and ``fronts`` front-ends that hold a lease."""

    def __init__(self, fronts: int = 1) -> None:
        self.clock = Clock()
        self.http = FakeHttp()
        self.sessions = Sessions(LIMITS.cache_lease_s)
        self.panics: list[Failure] = []
        self.publisher = Publisher(self.sessions, self.http, self.clock, LIMITS, self.panics.append)
        self.publisher.start(lambda: [stock("A", 0), stock("B", 0)])
        self.clock.advance(LIMITS.cache_lease_s)
        for front in range(1, fronts + 1):
            self.renew(front)

    def renew(self, front: int) -> float:
        """Register a front-end; returns the lease."""
        now, url = self.clock.seconds(), f"http://front{front}"
        return self.sessions.register(front, url, f"s{front}", now, 1.0).seconds

    def look_up(self, front: int, *names: str) -> None:
        """A front-end fetches stocks into its cache."""
        for name in names:
            self.sessions.looked_up(front, f"s{front}", name, self.clock.seconds())

    def publish(self, **versions: int) -> list[object]:
        """Publish new versions; the list gets an item when that is done."""
        done: list[object] = []
        published = self.publisher.publish(stock(n, v) for n, v in versions.items())
        published.addBoth(done.append)
        return done


def stock(name: str, version: int) -> Stock:
    """A stock of some version."""
    return Stock(name, 100, 10, version, version, 10)


def test_a_stock_that_nobody_holds_is_published_at_once() -> None:
    """A front-end is only told of stocks that it has fetched."""
    scene = Scene()
    scene.look_up(1, "B")
    assert scene.publish(A=1) == [None]
    assert scene.http.sent == []


def test_one_stock_goes_in_the_path() -> None:
    """As ``DELETE /delete/NAME?version=v``; the trade waits for the answer."""
    scene = Scene()
    scene.look_up(1, "A")
    done = scene.publish(A=3)
    assert scene.http.sent == [("DELETE", "http://front1/delete/A?version=3", None)]
    assert done == []
    scene.http.answer(0)
    assert done == [None]
    assert scene.sessions.shown("A") == stock("A", 3)


def test_what_comes_while_a_call_is_under_way_goes_out_together() -> None:
    """One call to a front-end at a time; the next one has everything that came meanwhile."""
    scene = Scene()
    scene.look_up(1, "A", "B")
    first = scene.publish(A=1)
    second = scene.publish(A=2)
    third = scene.publish(B=1)
    assert len(scene.http.sent) == 1
    scene.http.answer(0)
    assert (first, second, third) == ([None], [], [])
    assert scene.http.sent[1] == ("DELETE", "http://front1/delete/", {"A": 2, "B": 1})
    scene.http.answer(0)
    assert (second, third) == ([None], [None])
    assert len(scene.http.sent) == 2


def test_every_holder_is_waited_for() -> None:
    """Front-ends are told in parallel, and the slowest one decides."""
    scene = Scene(fronts=2)
    scene.look_up(1, "A")
    scene.look_up(2, "A")
    done = scene.publish(A=1)
    assert len(scene.http.open) == 2
    scene.http.answer(0)
    assert done == []
    scene.http.answer(0)
    assert done == [None]


@pytest.mark.parametrize("code", [403, 404, 500, 204])
def test_another_status_is_no_answer(code: int) -> None:
    """Only 200 means that the cache was told. After anything else the call is repeated after a
    pause.
    """
    scene = Scene()
    scene.look_up(1, "A")
    done = scene.publish(A=1)
    scene.http.answer(0, code)
    assert (done, len(scene.http.sent)) == ([], 1)
    scene.clock.advance(LIMITS.retry_s)
    assert len(scene.http.sent) == 2
    scene.http.answer(0)
    assert done == [None]


def test_a_lost_connection_is_no_answer() -> None:
    """The call is repeated while the lease lasts."""
    scene = Scene()
    scene.look_up(1, "A")
    done = scene.publish(A=1)
    scene.http.open.pop().errback(ConnectionError("reset"))
    assert done == []
    scene.clock.advance(LIMITS.retry_s)
    assert len(scene.http.sent) == 2


def test_a_silent_front_end_is_waited_for_until_its_lease_is_over() -> None:
    """After that it shows nothing from its cache. So it delays one trade, and not every trade."""
    scene = Scene()
    scene.look_up(1, "A")
    done = scene.publish(A=1)
    scene.clock.pump([0.01] * 24)
    assert done == []
    scene.clock.pump([0.01] * 2)
    assert done == [None]
    assert len(scene.http.sent) >= 2
    assert scene.publish(A=2) == [None]


def test_a_call_has_a_deadline() -> None:
    """A front-end that never answers a call is called again."""
    scene = Scene()
    scene.look_up(1, "A")
    scene.publish(A=1)
    scene.clock.advance(LIMITS.invalidate_deadline_s)
    scene.clock.advance(LIMITS.retry_s)
    assert len(scene.http.sent) == 2


def test_an_unanswered_invalidation_bounds_the_renewals() -> None:
    """A front-end that renews its lease but cannot be told delays a trade by one lease at most."""
    scene = Scene()
    scene.look_up(1, "A")
    scene.clock.advance(0.2)
    scene.renew(1)
    done = scene.publish(A=1)
    for _ in range(4):
        scene.clock.advance(0.05)
        scene.renew(1)
    assert done == []
    assert scene.renew(1) < 0.06
    scene.clock.advance(0.06)
    assert done == [None]


def test_a_front_end_that_renews_and_cannot_be_told_delays_trades_once() -> None:
    """It can reach the catalog, but not the other way round. It is called again as long as it asks
    for a lease, and gets one when it answers.
    """
    scene = Scene()
    scene.look_up(1, "A")
    done = scene.publish(A=1)
    for _ in range(30):
        scene.clock.advance(0.05)
        assert scene.renew(1) == 0.0 or done == []
        scene.publisher.proceed()
        scene.look_up(1, "A")
    assert scene.publish(A=2) == [None]
    told = len(scene.http.sent)
    while len(scene.http.sent) == told:
        scene.clock.advance(0.01)
    scene.http.answer(-1)
    assert scene.renew(1) == LIMITS.cache_lease_s
    scene.clock.advance(0.2)
    assert len(scene.http.sent) == told + 1


def test_nothing_is_published_before_old_leases_are_over() -> None:
    """After an election the first trade waits for one lease, because of caches that nobody knows
    of.
    """
    clock, http = Clock(), FakeHttp()
    sessions = Sessions(LIMITS.cache_lease_s)
    publisher = Publisher(sessions, http, clock, LIMITS, Failure.raiseException)
    publisher.start(lambda: [stock("A", 1)])
    done: list[object] = []
    publisher.publish([stock("A", 1)]).addBoth(done.append)
    clock.advance(0.24)
    assert done == []
    clock.advance(0.02)
    assert done == [None]


def test_the_end_of_leadership_leaves_the_outcome_open() -> None:
    """Whoever waits is told that the trade may have been executed, and no timer is left."""
    scene = Scene()
    scene.look_up(1, "A")
    done = scene.publish(A=1)
    scene.publisher.stop()
    (failure,) = done
    assert isinstance(failure, Failure)
    assert failure.check(OutcomeUnknown)
    assert scene.clock.getDelayedCalls() == []
    (late,) = scene.publish(A=2)
    assert isinstance(late, Failure)
    assert late.check(OutcomeUnknown)


def test_each_leader_tells_which_front_end_does_not_answer() -> None:
    """A front-end that did not answer is named once, and once more when this member leads again: it
    may have answered other leaders meanwhile.
    """
    scene = Scene()
    for _ in range(2):
        scene.look_up(1, "A")
        scene.publish(A=1)
        with capturedLogs() as events:
            for _ in range(2):
                scene.http.answer(-1, 500)
                scene.clock.advance(LIMITS.retry_s)
        assert [formatEvent(event) for event in events] == [
            "front-1 does not answer invalidations: status 500"
        ]
        scene.publisher.stop()
        scene.publisher.start(lambda: [stock("A", 0)])
        scene.clock.advance(LIMITS.cache_lease_s)
        scene.renew(1)


def test_a_broken_invariant_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it went on, it might publish what a cache hides, or never publish anything again."""
    scene = Scene()
    scene.look_up(1, "A")
    scene.publish(A=1)
    monkeypatch.setattr(scene.sessions, "answered", lambda *_: 1 // 0)
    scene.http.answer(-1)
    (failure,) = scene.panics
    assert failure.check(ZeroDivisionError)


def test_names_are_quoted() -> None:
    """Whatever a name contains, it is one segment of the path."""
    call = Call(1, "s", "http://front1/", {"a/b ?ü": 7})
    url, versions, body = request_of(call, 1000)
    assert url == "http://front1/delete/a%2Fb%20%3F%C3%BC?version=7"
    assert (versions, body) == ({"a/b ?ü": 7}, b"")


def test_a_body_is_bounded() -> None:
    """What does not fit goes with the next call; at least one stock always goes."""
    call = Call(1, "s", "http://front1", {f"name{n}": n for n in range(100)})
    url, versions, body = request_of(call, 200)
    assert url == "http://front1/delete/"
    assert 1 < len(versions) < 20
    assert len(body) <= 200
    assert json.loads(body) == {"stocks": versions}
    _, versions, _ = request_of(call, 1)
    assert len(versions) == 1
