"""What a run found, as JSON and as tables in Markdown."""

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import scale
from bench.evaluation import KINDS, ORIGINAL_MS, Mean
from bench.feed import Fed, fed_table
from bench.growth import Grown, compare
from bench.hitrate import DEMANDS, HitRate
from bench.idle import Idle
from bench.openloop import Offered
from bench.replica import LongLog
from bench.rounds import Found
from bench.rows import Cell, Outcome, Row, as_json, outcome
from bench.systems import Measured, plural
from bench.tables import number, table
from twstock.tally import percentile

FSYNCS = 200
FSYNC_BYTES = 4096
FAILOVER_TARGET_S = {"kill -9": 0.25, "SIGSTOP": 0.5}


@dataclass
class Report:
    """Everything that was measured, filled in part by part."""

    facts: dict[str, Any]
    rows: Sequence[Row] = ()
    found: Found = field(default_factory=Found)
    open_loop: list[Offered] = field(default_factory=list)
    evaluation: list[Mean] = field(default_factory=list)
    hit_rates: list[HitRate] = field(default_factory=list)
    failover: dict[str, list[float]] = field(default_factory=dict)
    grown: list[Grown] = field(default_factory=list)
    long_logs: list[LongLog] = field(default_factory=list)
    idle: list[Idle] = field(default_factory=list)
    fed: list[Fed] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def outcomes(self) -> list[tuple[Row, Outcome | None]]:
        """Every row with its figures, None where a side is missing."""
        return [(row, outcome(row, self.found.results)) for row in self.rows]


def facts(scratch: Path) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "fdatasync_ms": round(fdatasync_s(scratch) * 1000, 3),
    }


def cpu() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def fdatasync_s(directory: Path) -> float:
    """The median time of a small durable write to the disk where all servers keep their data."""
    path = directory / "fdatasync"
    seconds = []
    with path.open("wb", buffering=0) as file:
        for _ in range(FSYNCS):
            file.write(bytes(FSYNC_BYTES))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            seconds.append(time.perf_counter() - began)
    path.unlink()
    return statistics.median(seconds)


def write(report: Report, directory: Path) -> None:
    """``result.json`` and ``table.md``."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "result.json").write_text(json.dumps(to_json(report), indent=1) + "\n")
    (directory / "table.md").write_text(to_markdown(report))


def to_json(report: Report) -> dict[str, Any]:
    """All figures; what is not a number is null."""
    rows = [
        {
            "label": row.label,
            "work": str(row.work),
            "connections": row.connections,
            "figure": str(row.figure),
            "peer": row.peer,
            "target": row.target,
            "missing": report.found.missing.get(row.peer) if result is None else None,
        }
        | ({} if result is None else _figures(result))
        for row, result in report.outcomes()
    ]
    found: dict[str, Any] = _numbers(
        report.facts
        | {
            "rows": rows,
            "measured": as_json(report.found.results),
            "missing": report.found.missing,
            "open_loop": [asdict(offered) for offered in report.open_loop],
            "evaluation": [asdict(mean) for mean in report.evaluation],
            "hit_rates": [asdict(rate) for rate in report.hit_rates],
            "failover_s": report.failover,
            "grown": [asdict(compared) for compared in compare(report.grown)],
            "long_logs": [asdict(found) for found in report.long_logs],
            "idle": [asdict(found) for found in report.idle],
            "fed": [asdict(found) | {"ratio": found.ratio} for found in report.fed],
            "skipped": report.skipped,
        }
    )
    return found


def _figures(result: Outcome) -> dict[str, Any]:
    return {
        "twstock": result.ours,
        "theirs": result.theirs,
        "ratio": result.ratio,
        "ratios": result.ratios,
        "errors": result.errors,
        "verdict": result.verdict,
    }


def _numbers(value: Any) -> Any:
    """The same value with None for NaN and infinities, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _numbers(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(inner) for inner in value]
    return value


def to_markdown(report: Report) -> str:
    """All tables that there is something for."""
    tables: list[tuple[Callable[[Report], str], object]] = [
        (_head, True),
        (_ratios, report.rows),
        (_measured, report.found.results),
        (_open_loop, report.open_loop),
        (_evaluation, report.evaluation),
        (_failover, report.failover),
        (lambda of: scale.long_logs(of.long_logs), report.long_logs),
        (lambda of: scale.grown(of.grown), report.grown),
        (lambda of: scale.idle(of.idle), report.idle),
        (lambda of: fed_table(of.fed), report.fed),
        (_hit_rates, report.hit_rates),
        (_skipped, report.skipped),
    ]
    return "\n".join(text(report) for text, wanted in tables if wanted)


def _head(report: Report) -> str:
    known = report.facts
    note = "" if known.get("complete") else "\n**This run was not complete.**\n"
    return (
        f"# Benchmark of {known.get('at', '?')}\n\n"
        f"{known.get('cores')} cores of {known.get('cpu')}, {known.get('system')}, Python "
        f"{known.get('python')}; fdatasync {known.get('fdatasync_ms')} ms. Load from "
        f"{known.get('generator')}. Medians of {plural(known.get('rounds', 0), 'round')} of "
        f"{known.get('seconds')} s, each system in turn.\n{note}"
    )


def _ratios(report: Report) -> str:
    lines = []
    for row, result in report.outcomes():
        names = [str(row.work), str(row.connections), row.peer, str(row.figure)]
        target = "-" if row.target is None else f"{row.target:g}x"
        if result is None:
            why = report.found.missing.get(row.peer, "not measured")
            lines.append([*names, "-", "-", "-", target, why])
            continue
        spread = f"{number(min(result.ratios))}-{number(max(result.ratios))}"
        verdict = result.verdict + (f", {result.errors} errors" if result.errors else "")
        ratio = f"**{number(result.ratio)}x** ({spread})"
        lines.append([*names, number(result.ours), number(result.theirs), ratio, target, verdict])
    columns = ["work", "connections", "against", "figure", "twstock", "peer", "ratio (over rounds)"]
    return "## Against its peers\n\nA ratio above 1: twstock is ahead.\n\n" + table(
        [*columns, "target", ""], lines
    )


def _measured(report: Report) -> str:
    columns = ["work", "system", "connections", "requests/s", "p50 ms", "p99 ms", "p99.9 ms"]
    lines = []
    for cell, rounds in sorted(report.found.results.items(), key=lambda item: _place(item[0])):
        figures = [median(rounds, name) for name in FIGURES]
        errors = str(sum(one.errors for one in rounds))
        cells = [str(cell.work), cell.system, str(cell.connections)]
        lines.append([*cells, *map(number, figures), errors])
    return "## Everything measured\n\n" + table([*columns, "errors"], lines)


FIGURES = ("requests_per_s", "p50_ms", "p99_ms", "p999_ms")


def median(rounds: Sequence[Measured], name: str) -> float:
    """The median of one figure over the rounds."""
    return float(statistics.median(getattr(one, name) for one in rounds))


def _place(cell: Cell) -> tuple[str, str, int]:
    return str(cell.work), cell.system, cell.connections


def _open_loop(report: Report) -> str:
    columns = ["offered/s", "of closed loop", "answered/s", "p50 ms", "p99 ms", "p99.9 ms"]
    lines = [
        [
            number(o.rate_per_s),
            f"{o.share:.0%}",
            *map(number, (o.answered_per_s, o.p50_ms, o.p99_ms, o.p999_ms, o.sent_late_p99_ms)),
            str(o.errors),
        ]
        for o in report.open_loop
    ]
    return "## Trades at a constant rate\n\nLatency from the intended start.\n\n" + table(
        [*columns, "sent late, p99 ms", "errors"], lines
    )


def _evaluation(report: Report) -> str:
    columns = ["cache", "trade probability", *(f"{kind}, mean ms" for kind in KINDS)]
    lines = []
    for mean in report.evaluation:
        values = [mean.mean_ms[kind] for kind in KINDS]
        cells = ["-" if value is None else number(value) for value in values]
        lines.append([_on(mean.cache), f"{mean.trade_probability:.0%}", *cells])
    for cache, spans in ORIGINAL_MS.items():
        cells = [f"{spans[k][0]}-{spans[k][1]}" if k in spans else "-" for k in KINDS]
        lines.append([f"{_on(cache)}, the original design, as published", "0-80%", *cells])
    return "## The evaluation of the original design, again\n\n5 clients.\n\n" + table(
        columns, lines
    )


def _on(cache: bool) -> str:
    return "on" if cache else "off"


def _failover(report: Report) -> str:
    lines = []
    for fault, seconds in report.failover.items():
        ranked = sorted(seconds)
        figures = (ranked[0], percentile(ranked, 0.5), percentile(ranked, 0.9), ranked[-1])
        target = FAILOVER_TARGET_S[fault]
        verdict = "met" if figures[1] < target else "short"
        cells = [number(figure * 1000) for figure in figures]
        lines.append([fault, str(len(ranked)), *cells, f"{target * 1000:.0f}", verdict])
    columns = ["order leader", "trials", "least ms", "p50 ms", "p90 ms", "most ms"]
    return (
        "## Fail-over, seen by a client\n\nFrom the signal to the first acknowledged order that "
        "was begun after it.\n\n" + table([*columns, "target p50 ms", ""], lines)
    )


def _skipped(report: Report) -> str:
    return "## Left out\n\n" + "".join(f"- {what}\n" for what in report.skipped)


def _hit_rates(report: Report) -> str:
    by_size: dict[int, dict[str, HitRate]] = {}
    for rate in report.hit_rates:
        by_size.setdefault(rate.size, {})[rate.demand] = rate
    lines = [
        [f"{size:,}", *(f"{rates[d].rate:.1%} ({rates[d].best:.1%})" for d in DEMANDS)]
        for size, rates in sorted(by_size.items())
    ]
    return (
        "## Hit rate of the cache\n\nOf 10,000 stocks; in brackets: always holding the most "
        "wanted.\n\n" + table(["stocks cached", *DEMANDS], lines)
    )
