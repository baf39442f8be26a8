"""``GET /metrics``: what it has of whom, and what it costs; and that whatever names a metric
(the dashboard, the alerts, the document) names one that is there.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from treq.testing import StubTreq
from twisted.internet.task import Clock

from tests.fakes import HANG, FakeMember
from tests.observed import front_end, replicas
from twstock.errors import OutcomeUnknown
from twstock.observatory import AGAIN_S as KNOWN_S
from twstock.observatory import Observatory
from twstock.rpc.calls import Observe, Observed
from twstock.tally import Family, gauge
from twstock.web.metrics import AGAIN_S, DEADLINE_S, Metrics
from twstock.web.routes import mount

ROOT = Path(__file__).resolve().parent.parent
MEMBERS = {"front-1", "catalog-1", "order-1", "order-2", "order-3"}


def told(name: str) -> Observed:
    """What a member tells that counts one thing."""
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
    """Told apart by a label, in the text format and under its content type."""
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
    [HANG, OutcomeUnknown("refused"), told("order-1"), ValueError("surprise")],
    ids=["silent", "gone", "another member", "broken"],
)
@pytest.mark.filterwarnings("ignore")
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
    """Many scrapers cost as much as one."""
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
    """A scraper in a loop does not keep the cluster busy; a little later there is news."""
    scraped.ask()
    scraped.ask()
    assert len(scraped.members["order-1"].calls) == 1
    scraped.wait(max(AGAIN_S, KNOWN_S))
    scraped.ask()
    assert len(scraped.members["order-1"].calls) == 2
    assert scraped.scrapes == 2


def test_a_front_end_can_be_asked_for_itself_alone(scraped: Scraped) -> None:
    """With several front-ends each is scraped, but the replicas once."""
    scraped.ask("/metrics?members=self")
    [(_, body)] = scraped.answers
    assert {m for family in families(body).values() for m in members_of(family)} == {"front-1"}
    assert not scraped.members["order-1"].calls


@pytest.mark.parametrize("query", ["members=all", "members=self&members=self"])
def test_a_query_that_makes_no_sense_is_refused(scraped: Scraped, query: str) -> None:
    """The error names the parameter."""
    scraped.ask(f"/metrics?{query}")
    [(response, body)] = scraped.answers
    assert response.code == 400
    assert json.loads(body)["error"]["message"].startswith("members: ")


class HurriedClock(Clock):
    """Time passes with each look at it; ``turns`` counts who waited for the next turn."""

    turns = 0

    def callLater(self, delay: float, *rest: Any, **named: Any) -> Any:
        """As it is, and counted."""
        self.turns += not delay
        return super().callLater(delay, *rest, **named)

    def seconds(self) -> float:
        """Three milliseconds later than the last time."""
        self.rightNow += 0.003
        return float(super().seconds())


def test_the_text_is_made_in_turns() -> None:
    """The reactor serves others between the families of a long text."""
    clock = HurriedClock()
    scraped = Scraped({"order-1": FakeMember(clock, replies={"Families": told("order-1")})}, clock)
    scraped.ask()
    for _ in range(50):
        scraped.wait(0)
    [(_, body)] = scraped.answers
    assert clock.turns == len(families(body))


def test_a_replica_answers_what_its_observatory_knows() -> None:
    """The call is internal: clients that keep all threads busy cannot hide what is wrong."""
    observatory = Observatory("order-3", Clock())
    endpoint = observatory.endpoint()
    assert endpoint.internal
    coroutine = endpoint.answer(Observe())
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    assert stopped.value.value == Observed("order-3", observatory.families())


# --- what names a metric ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A scrape of a whole cluster."""
    with front_end() as service:
        clock = Clock()
        scraped = Scraped(replicas(tmp_path_factory.mktemp("replicas"), clock), clock)
        scraped.metrics = Metrics(service.observatory, scraped.members, clock)
        scraped.treq = StubTreq(mount(scraped.metrics.routes()).resource())
        scraped.ask()
    [(_, body)] = scraped.answers
    return families(body)


def samples(whole: dict[str, Any]) -> dict[str, dict[str, set[str]]]:
    """The labels and their values of each sample that a query can name."""
    found: dict[str, dict[str, set[str]]] = {"up": {"job": set(), "instance": set()}}
    for family in whole.values():
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


def test_every_member_is_in_a_whole_scrape(whole: dict[str, Any]) -> None:
    """Front-end, catalog and order replicas; every name is this project's."""
    assert set(members_of(whole["twstock_member_up"])) == MEMBERS
    assert all(name.startswith("twstock_") for name in whole)
    assert all(family.documentation.endswith(".") for family in whole.values())


TEMPLATE = re.compile(r"\$\w+|\{\{.*?\}\}")
SELECTOR = re.compile(r"\b(twstock_\w+|up)\b(?:\{([^}]*)\})?")
MATCHER = re.compile(r'\s*(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"\s*')
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")


def check_query(query: str, known: dict[str, dict[str, set[str]]]) -> None:
    """Every metric of a query exists, with the labels that the query names, and an equality
    asks for a value that is there.
    """
    selectors = SELECTOR.findall(query)
    assert selectors, query
    labels: set[str] = {"le", "job", "instance"}
    for name, inside in selectors:
        assert name in known, f"{name} in {query}"
        labels |= known[name].keys()
        for matcher in filter(None, inside.split(",")):
            match = MATCHER.fullmatch(matcher)
            assert match, f"{matcher} in {query}"
            label, operator, value = match.groups()
            assert label in known[name].keys() | {"job", "instance"}, f"{label} in {query}"
            values = known[name].get(label)
            if values and "$" not in value:
                wanted = [v for v in values if re.fullmatch(value, v)]
                assert wanted, f'{label}{operator}"{value}" in {query}'
    for group in GROUPING.findall(query):
        for label in filter(None, (part.strip() for part in group.split(","))):
            assert label in labels, f"{label} in {query}"


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels that show something, those in collapsed rows too."""
    for panel in dashboard["panels"]:
        yield from panel.get("panels", ())
        if panel["type"] != "row":
            yield panel


LEGENDS = {"member", "group", "route", "outcome", "reason", "follower", "role", "version", "python"}
DASHBOARD = json.loads((ROOT / "deploy/grafana/twstock.json").read_text())
ALERTS = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("panel", list(panels(DASHBOARD)), ids=lambda panel: panel["title"])
def test_the_dashboard_asks_for_what_there_is(panel: dict[str, Any], whole: dict[str, Any]) -> None:
    """Each query of each panel names metrics and labels of a real scrape."""
    assert panel["targets"], panel["title"]
    assert panel["description"]
    for target in panel["targets"]:
        check_query(target["expr"], samples(whole))
        for label in re.findall(r"\{\{\s*(\w+)\s*\}\}", target.get("legendFormat", "")):
            assert label in LEGENDS


def test_the_dashboard_has_its_rows() -> None:
    """From the overview down to the disks; each panel has an id and a place of its own."""
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Overview", "Trades", "Lookups", "Cluster", "Disk", "Feed", "Processes"]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    places = [tuple(p["gridPos"][k] for k in "xyhw") for p in DASHBOARD["panels"]]
    assert len({place[:2] for place in places}) == len(places)
    assert all(x + w <= 24 for x, _, _, w in places)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_the_alerts_watch_what_there_is(rule: dict[str, Any], whole: dict[str, Any]) -> None:
    """Each names metrics of a real scrape, how bad it is, and what to do."""
    check_query(rule["expr"], samples(whole))
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert re.fullmatch(r"\d+[sm]", rule["for"])
    assert rule["annotations"].keys() == {"summary", "what_to_do"}
    metrics = (ROOT / "docs/metrics.md").read_text()
    assert f"| `{rule['alert']}` |" in metrics


def test_the_alerts_are_those_that_an_operator_needs() -> None:
    """What stops trading, what soon will, and what makes it slow."""
    assert {rule["alert"] for rule in RULES} == {
        "TwstockNoLeader", "TwstockQuorumAtRisk", "TwstockMemberDown", "TwstockFollowerLags",
        "TwstockDiskSlow", "TwstockDiskFull", "TwstockNoFreeSegment", "TwstockErrors",
        "TwstockElectionStorm", "TwstockFrontNotReady", "TwstockReactorLags", "TwstockNotScraped",
    }  # fmt: skip


def test_the_example_of_a_scrape_is_complete() -> None:
    """It reads the alerts, and scrapes the replicas through one front-end."""
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    assert config["rule_files"] == ["alerts.yml"]
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert jobs.keys() == {"twstock", "twstock-fronts"}
    assert jobs["twstock-fronts"]["params"] == {"members": ["self"]}
    assert len(jobs["twstock"]["static_configs"][0]["targets"]) == 1


DOCUMENT = (ROOT / "docs/metrics.md").read_text()
ROW = re.compile(r"^\| `(twstock_\w+)` \| (\w+) \|([^|]*)\|([^|]*)\|[^|]+\|[^|]+\|$", re.M)


def test_every_metric_is_documented_as_it_is(whole: dict[str, Any]) -> None:
    """Name, type and labels of each row of the tables, and no metric without a row."""
    rows = {name: (kind, labels.strip()) for name, kind, labels, _ in ROW.findall(DOCUMENT)}
    found = {}
    for name, family in whole.items():
        labels = {label for sample in family.samples for label in sample.labels}
        said = ", ".join(f"`{label}`" for label in sorted(labels - {"member", "le"}))
        total = "_total" if family.type == "counter" else ""
        found[f"{name}{total}"] = (family.type, said)
    assert rows == found
