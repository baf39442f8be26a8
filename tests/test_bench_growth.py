"""The tables and verdicts of the benchmark about growth, long logs and idle connections."""

import json

import pytest

from bench import growth, summary
from bench.feed import Came, Fed
from bench.growth import Grown, Size, compare
from bench.idle import Idle
from bench.parts import LONG_LOGS, PARTS, Job
from bench.processes import rss_mb
from bench.replica import LongLog, has_view
from bench.report import Report, to_json, to_markdown
from bench.rounds import Effort
from bench.rows import matches
from bench.scale import verdict
from bench.systems import Measured, Work
from twstock.config import default_cluster

FEW, MANY = Size("stocks", 10), Size("stocks", 100_000)


def rounds(*figures, errors=0):
    """Runs with these rates and p99."""
    return [Measured(rate, p99 / 2, p99, 2 * p99, 1000, errors) for rate, p99 in figures]


def long_log(orders, serves_s=1.0, rss=100.0, sync_up=None):
    """A replica that was measured."""
    return LongLog(orders, 20, serves_s, rss, None, None, sync_up, None, orders // 10, None)


def test_growth_is_compared_round_by_round_with_the_smallest():
    """A slow round of both sizes counts as much as another. The smallest size has no verdict."""
    few = Grown(FEW, Work.TRADE, rounds((100, 10), (10, 100), (80, 10)))
    many = Grown(MANY, Work.TRADE, rounds((90, 11), (9, 110), (40, 50)))
    alone, beside = compare([many, few])[::-1]
    assert (alone.grown, alone.verdict) == (few, "-")
    assert (beside.rate_ratio, beside.p99_ratio, beside.verdict) == (0.9, 1.1, "met")


@pytest.mark.parametrize(
    ("figures", "errors", "expected"),
    [((81, 11), 0, "met"), ((79, 10), 0, "short"), ((99, 13), 0, "short"), ((99, 10), 1, "short")],
)
def test_growth_is_short_beyond_a_fifth_and_with_errors(figures, errors, expected):
    """Neither throughput nor p99 may get worse by more than a fifth."""
    few = Grown(FEW, Work.MISS, rounds((100, 10)))
    found = compare([few, Grown(MANY, Work.MISS, rounds(figures, errors=errors))])
    assert found[1].verdict == expected


def test_a_round_that_a_larger_size_lacks_is_not_compared():
    """If a run was stopped, the rounds that there are are compared."""
    few = Grown(FEW, Work.TRADE, rounds((100, 10), (50, 10)))
    assert compare([few, Grown(MANY, Work.TRADE, rounds((100, 10)))])[1].rate_ratio == 1


def test_what_is_asked_is_spread_over_all_stocks():
    """A thousand names at most, the last of them near the end."""
    names = growth.stocks_asked(100_000)
    assert len(names) == len(set(names)) == growth.NAMES_MAX
    assert names[-1] == "Stock099901"
    assert len(growth.stocks_asked(10)) == 10
    assert len(growth.cached_works(1000)[Work.TRADE]) == 2000


def fed(alone, with_them, kept=1000, errors=0):
    """A round of the feed with so many trades in a second."""
    rates = [Measured(rate, 3.0, 9.0, 12.0, 100, errors) for rate in (alone, with_them)]
    came = Came(2.0, kept, 100_000_000, 90_000, 110_000, 8_000)
    return Fed(1000, rates[:1], rates[1:], [came])


def test_all_parts_are_in_the_report():
    """The tables and the JSON have all figures and targets, and what was left out."""
    report = Report({"rounds": 1}, skipped=["5,000,000 orders: needs 10 GB free"])
    report.grown += [Grown(FEW, Work.TRADE, rounds((100, 10)))]
    report.grown += [Grown(MANY, Work.TRADE, rounds((50, 30)))]
    report.long_logs += [long_log(1000), long_log(1_000_000, 3.0, 100.0, 60_000.0)]
    report.idle += [Idle(1000, 1000, 80.0, 90.0)]
    report.fed += [fed(1000, 950)]
    text = to_markdown(report)
    assert "| 100,000 stocks | trade | 50.0 | **0.50x** | 30.0 | **3.00x** | short |" in text
    assert "| from the start of its process to serving, s | 1.00 | 3.00 | < 2 | short |" in text
    assert "| orders/s that a client gets by SyncUp | - | 60,000 | >= 50,000 | met |" in text
    assert "| 1,000 | 1,000 | 80.0 | 90.0 | **10.0** | < 20 | met |" in text
    assert "| 1,000 | 1,000 | 950 | **0.95x** | 9.00 | 9.00 | 50.0 | 4.00 | >= 0.9x | met |" in text
    assert "needs 10 GB free" in text
    found = json.loads(json.dumps(to_json(report), allow_nan=False))
    assert found["grown"][1]["verdict"] == "short"
    assert found["grown"][1]["grown"]["size"] == {"of": "stocks", "count": 100_000}
    assert found["long_logs"][1]["sync_up_per_s"] == 60_000
    assert found["idle"][0]["with_mb"] == 90
    assert found["fed"][0]["ratio"] == 0.95
    assert found["fed"][0]["came"][0]["least_bytes"] == 90_000


def test_a_verdict_compares_a_figure_with_its_target():
    """The target is the least or the most. Without a target or a figure there is no verdict."""
    assert verdict(50_000, 50_000, at_least=True) == "met"
    assert verdict(150, 150, at_least=False) == "short"
    assert verdict(None, 1, at_least=True) == verdict(1, None, at_least=False) == "-"


def test_unanswered_connections_are_never_a_success():
    """A connection that was refused costs nothing."""
    assert Idle(1000, 999, 80, 81).verdict == "short"
    assert Idle(1000, 1000, 80, 81).verdict == "met"
    assert Idle(1000, 1000, 80, 100).verdict == "short"


def test_subscribers_that_were_dropped_are_never_a_success():
    """They would cost nothing. Failed trades are no success either."""
    assert fed(1000, 900).verdict == "met"
    assert fed(1000, 899).verdict == "short"
    assert fed(1000, 1000, kept=999).verdict == "short"
    assert fed(1000, 1000, errors=1).verdict == "short"


def test_every_part_can_be_chosen_and_says_how_long_it_takes(tmp_path):
    """``--only`` finds each part; without ``--quick`` it takes at least as long."""
    quick = Job(tmp_path, Effort(1, 1), 1, True, print)
    full = Job(tmp_path, Effort(3, 5), 20, False, print)
    for words in ("growth in stocks", "growth in orders", "long log", "idle", "fail-over", "feed"):
        [part] = [part for part in PARTS if matches(part.name, [words])]
        assert 0 < part.takes_s(quick) <= part.takes_s(full) < 3600
    assert max(LONG_LOGS) == 1_000_000
    assert max(growth.ORDERS) == 5_000_000


def test_a_table_of_orders_is_there_when_its_last_line_is(tmp_path):
    """A replica is at rest when its CSV file has every order."""
    cluster = default_cluster(tmp_path)
    path = cluster.data_of("order", 2) / "order_log_2.csv"
    assert not has_view(cluster, 2, 0)
    path.parent.mkdir()
    path.write_text("transaction_num,name,type,quantity\n")
    assert not has_view(cluster, 2, 1)
    path.write_text("transaction_num,name,type,quantity\n1,FishCo,buy,1\n2,FishCo,buy,1\n")
    assert has_view(cluster, 2, 2)
    assert not has_view(cluster, 2, 3)


def test_the_memory_of_a_process_is_read():
    """The figure is in millions of bytes."""
    import os

    assert 5 < rss_mb(os.getpid()) < 5000


def row(work, connections, peer, figure="requests/s", ratio=2.0):
    """A row of ``result.json``."""
    sides = {"twstock": 20.0, "theirs": 10.0, "ratio": ratio, "target": 1.0}
    return {"work": work, "connections": connections, "peer": peer, "figure": figure} | sides


def test_the_summary_shows_what_was_measured():
    """A row that was not measured is left out; a median is in milliseconds."""
    rows = [
        row("trade", 1, "PostgreSQL", "p50 ms", 0.5),
        row("cached lookup", 64, "FastAPI"),
        {"work": "trade", "connections": 64, "peer": "etcd", "figure": "requests/s"},
    ]
    lookup, trade = summary.bars({"rows": rows})
    assert (lookup.work, lookup.connections, lookup.peer) == ("cached lookup", 64, "FastAPI")
    assert (lookup.ratio, lookup.figures) == (2.0, "20.0/s against 10.0/s")
    assert (trade.peer, trade.figures) == ("FastAPI + PostgreSQL", "20.0 ms against 10.0 ms")


def test_plots_of_growth_and_the_summary_are_drawn(tmp_path):
    """Into the directory of the results, if matplotlib is installed."""
    pytest.importorskip("matplotlib")
    from bench import plots

    report = Report({"cores": 2})
    report.grown += [Grown(FEW, Work.TRADE, rounds((100, 10)))]
    report.grown += [Grown(MANY, Work.TRADE, rounds((50, 30)))]
    found = to_json(report) | {"rows": [row("cached lookup", 64, "FastAPI")]}
    (tmp_path / "result.json").write_text(json.dumps(found))
    plots.draw(tmp_path, print)
    assert {path.name for path in tmp_path.glob("*.svg")} == {"growth_stocks.svg", "summary.svg"}
