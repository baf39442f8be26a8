"""The dashboard, the alerts and docs/metrics.md name only metrics that exist."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from treq.testing import StubTreq
from twisted.internet.task import Clock

from tests.observed import front_end, replicas
from tests.test_metrics import Scraped, families, members_of
from twstock.web.http.routes import mount
from twstock.web.metrics import Metrics

ROOT = Path(__file__).resolve().parent.parent
MEMBERS = {"front-1", "catalog-1", "order-1", "order-2", "order-3"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> dict[str, Any]:
    """A scrape of a whole cluster."""
    with front_end(certificates) as service:
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
    """The front-end, the catalog and all order replicas. Every metric has this project's prefix and
    a sentence that explains it.
    """
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
    """About what stops trading, what soon will, and what makes it slow."""
    assert {rule["alert"] for rule in RULES} == {
        "TwstockNoLeader", "TwstockQuorumAtRisk", "TwstockMemberDown", "TwstockFollowerLags",
        "TwstockDiskSlow", "TwstockDiskFull", "TwstockNoFreeSegment", "TwstockErrors",
        "TwstockElectionStorm", "TwstockFrontNotReady", "TwstockReactorLags", "TwstockNotScraped",
        "TwstockCertificateEnds",
    }  # fmt: skip


def test_the_example_configuration_scrapes_every_member() -> None:
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
    """Each metric has one row in the tables, with its type and labels, and there is no row without
    a metric.
    """
    rows = {name: (kind, labels.strip()) for name, kind, labels, _ in ROW.findall(DOCUMENT)}
    found = {}
    for name, family in whole.items():
        labels = {label for sample in family.samples for label in sample.labels}
        said = ", ".join(f"`{label}`" for label in sorted(labels - {"member", "le"}))
        total = "_total" if family.type == "counter" else ""
        found[f"{name}{total}"] = (family.type, said)
    assert rows == found
