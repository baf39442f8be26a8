"""``GET /metrics``: what it tells of which member, and how much it asks of them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from treq.testing import StubTreq
from twisted.internet.task import Clock

from tests.fakes import HANG, FakeMember
from twstock.errors import OutcomeUnknown
from twstock.observatory import AGAIN_S, Observatory
from twstock.rpc.calls import Observe, Observed
from twstock.tally import Family, gauge
from twstock.web.http.routes import mount
from twstock.web.metrics import DEADLINE_S, Metrics


def told(name: str) -> Observed:
    """What a member answers that counts one thing."""
    return Observed(name, (gauge("twstock_thing", "A thing.", [({}, 1)]),))


class Scraped:
    """A front-end's metrics, asked over treq; ``scrapes`` counts how often it looked at itself."""

    def __init__(self, members: dict[str, FakeMember], clock: Clock) -> None:
        self.clock = clock
        self.members = members
        self.scrapes = 0
        own = Observatory("front-1", clock)
        own.add(self._own)
        self.metrics = Metrics(own, members, clock)
        self.treq = StubTreq(mount(self.metrics.routes()).resource())
        self.answers: list[Any] = []

    def _own(self) -> Iterator[Family]:
        self.scrapes += 1
        yield gauge("twstock_own", "Its own.", [({}, 1)])

    def ask(self, path: str = "/metrics") -> None:
        """Begin a request; its answer comes to ``answers``."""
        asked = self.treq.get(f"http://h{path}")
        asked.addCallback(lambda r: r.content().addCallback(lambda body: (r, body)))
        asked.addCallback(self.answers.append)
        self.treq.flush()

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)
        self.treq.flush()


@pytest.fixture
def scraped() -> Scraped:
    """Two order replicas."""
    clock = Clock()
    names = ("order-1", "order-2")
    members = {n: FakeMember(clock, replies={"Families": told(n)}) for n in names}
    return Scraped(members, clock)


def families(body: bytes) -> dict[str, Any]:
    """A scrape as Prometheus' own parser reads it, by name."""
    return {family.name: family for family in text_string_to_metric_families(body.decode())}


def members_of(family: Any) -> list[str]:
    """Which members have a family."""
    return [sample.labels["member"] for sample in family.samples]


def test_a_scrape_has_the_numbers_of_all_members(scraped: Scraped) -> None:
    """Members are told apart by a label; the answer has Prometheus' text format and content
    type.
    """
    scraped.ask()
    [(response, body)] = scraped.answers
    assert response.headers.getRawHeaders("Content-Type") == [
        "text/plain; version=0.0.4; charset=utf-8"
    ]
    assert response.headers.getRawHeaders("Cache-Control") == ["no-store"]
    found = families(body)
    assert members_of(found["twstock_own"]) == ["front-1"]
    assert members_of(found["twstock_thing"]) == ["order-1", "order-2"]
    up = found["twstock_member_up"].samples
    assert {sample.labels["member"]: sample.value for sample in up} == {
        "front-1": 1, "order-1": 1, "order-2": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "reply",
    [
        HANG,
        OutcomeUnknown("refused"),
        told("order-1"),
        pytest.param(ValueError("surprise"), marks=pytest.mark.logs_failures),
    ],
    ids=["silent", "gone", "another member", "broken"],
)
def test_a_member_that_does_not_answer_is_down_and_delays_nobody_for_long(
    scraped: Scraped, reply: Any
) -> None:
    """The others' numbers come after the deadline at the latest."""
    scraped.members["order-2"].replies["Families"] = reply
    scraped.ask()
    scraped.wait(DEADLINE_S)
    [(_, body)] = scraped.answers
    found = families(body)
    assert members_of(found["twstock_thing"]) == ["order-1"]
    up = {s.labels["member"]: s.value for s in found["twstock_member_up"].samples}
    assert up == {"front-1": 1, "order-1": 1, "order-2": 0}


def test_one_scrape_serves_all_who_ask_meanwhile(scraped: Scraped) -> None:
    """While a scrape is under way all who ask wait for it, so many scrapers cost as much as one."""
    scraped.members["order-2"].replies["Families"] = HANG
    for _ in range(5):
        scraped.ask()
    assert not scraped.answers
    scraped.wait(DEADLINE_S)
    assert len({body for _, body in scraped.answers}) == 1
    assert len(scraped.answers) == 5
    assert scraped.scrapes == 1
    assert len(scraped.members["order-1"].calls) == 1


def test_whoever_asks_again_at_once_gets_the_same_answer(scraped: Scraped) -> None:
    """A scraper in a loop does not keep the cluster busy; after ``AGAIN_S`` members are asked
    again.
    """
    scraped.ask()
    scraped.ask()
    assert len(scraped.members["order-1"].calls) == 1
    scraped.wait(AGAIN_S)
    scraped.ask()
    assert len(scraped.members["order-1"].calls) == 2
    assert scraped.scrapes == 2


def test_a_front_end_can_be_asked_for_itself_alone(scraped: Scraped) -> None:
    """With ``members=self`` no replica is asked, so that with several front-ends the replicas are
    scraped once.
    """
    scraped.ask("/metrics?members=self")
    [(_, body)] = scraped.answers
    assert {m for family in families(body).values() for m in members_of(family)} == {"front-1"}
    assert not scraped.members["order-1"].calls


@pytest.mark.parametrize("query", ["members=all", "members=self&members=self"])
def test_a_query_that_makes_no_sense_is_refused(scraped: Scraped, query: str) -> None:
    """It is a 400 that names the parameter."""
    scraped.ask(f"/metrics?{query}")
    [(response, body)] = scraped.answers
    assert response.code == 400
    assert json.loads(body)["error"]["message"].startswith("members: ")


class HurriedClock(Clock):
    """A clock that goes on each time it is read; ``turns`` counts the calls without delay, which
    wait for the reactor's next turn.
    """

    turns = 0

    def callLater(self, delay: float, *rest: Any, **named: Any) -> Any:
        """As usual, but counted."""
        self.turns += not delay
        return super().callLater(delay, *rest, **named)

    def seconds(self) -> float:
        """Three milliseconds later than the last time."""
        self.rightNow += 0.003
        return float(super().seconds())


def test_the_text_is_made_in_turns() -> None:
    """The reactor can serve others after each family of a long text."""
    clock = HurriedClock()
    scraped = Scraped({"order-1": FakeMember(clock, replies={"Families": told("order-1")})}, clock)
    scraped.ask()
    for _ in range(50):
        scraped.wait(0)
    [(_, body)] = scraped.answers
    assert clock.turns == len(families(body))


def test_a_replica_answers_what_its_observatory_knows() -> None:
    """The call is internal, so clients that keep all other threads busy cannot keep it from being
    answered.
    """
    observatory = Observatory("order-3", Clock())
    endpoint = observatory.endpoint()
    assert endpoint.internal
    coroutine = endpoint.answer(Observe())
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    assert stopped.value.value == Observed("order-3", observatory.families())
