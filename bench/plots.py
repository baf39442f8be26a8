"""The plots of a run, drawn from its ``result.json``: ``python -m bench.plots DIRECTORY``.

A title says what the figure shows of this very run; axes have units.
"""

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import growthplots, summary
from bench.evaluation import KINDS, ORIGINAL_MS
from bench.palette import COLORS, NAMES, SOFT, STYLE, WIDE, Found
from bench.report import FAILOVER_TARGET_S
from bench.rows import CURVE, FAST_POSTGRES, OURS
from bench.systems import BUSY_CONNECTIONS, Work, plural
from bench.tables import number


def draw(directory: Path, tell: Callable[[str], None]) -> None:
    """Every plot that there are figures for; without matplotlib, none."""
    try:
        import matplotlib as mpl  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415
        from matplotlib.figure import (  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415
            Figure,
        )
    except ImportError:
        tell("no plots: .venv/bin/pip install -r requirements-bench.txt")
        return
    found = json.loads((directory / "result.json").read_text())
    for name, key, plot in PLOTS:
        if not found.get(key):
            continue
        with mpl.rc_context(STYLE):
            drawing = Figure(figsize=WIDE, layout="constrained")
            if plot(drawing, found):
                drawing.savefig(directory / f"{name}.svg", metadata={"Date": None})


def curve(found: Found, work: Work) -> dict[str, dict[int, dict[str, float]]]:
    """Median figures of a work, by system and connections, where every number was measured."""
    curves: dict[str, dict[int, dict[str, float]]] = {}
    for cell in found["measured"]:
        if cell["work"] == work:
            figures = {
                name: statistics.median(one[name] for one in cell["rounds"])
                for name in ("requests_per_s", "p50_ms", "p99_ms")
            }
            curves.setdefault(cell["system"], {})[cell["connections"]] = figures
    return {name: points for name, points in curves.items() if set(CURVE) <= points.keys()}


def _curves(drawing: Any, found: Found, work: Work, title: str) -> bool:
    curves = curve(found, work)
    if OURS not in curves:
        return False
    left, right = drawing.subplots(1, 2)
    for name, points in curves.items():
        at = sorted(set(points) & set(CURVE))
        style = {"color": COLORS[name], "linewidth": 2.5 if name == OURS else 1.5}
        rates = [points[n]["requests_per_s"] for n in at]
        left.plot(at, rates, marker="o", label=NAMES.get(name, name), **style)
        right.plot(at, [points[n]["p50_ms"] for n in at], marker="o", **style)
        right.plot(at, [points[n]["p99_ms"] for n in at], linestyle=":", **style)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(CURVE, [str(n) for n in CURVE])
        axes.xaxis.minorticks_off()
        axes.set_yscale("log", subs=[2, 5])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:,g}")
        axes.set_xlabel("connections")
    left.set_ylabel("requests per second")
    right.set_ylabel("latency (ms)")
    left.set_title("throughput: higher is better")
    right.set_title("latency, p50 solid and p99 dotted: lower is better")
    drawing.legend(loc="outside lower center", ncols=len(curves))
    best = curves[OURS][BUSY_CONNECTIONS]["requests_per_s"]
    beside = [
        f"{number(best / points[BUSY_CONNECTIONS]['requests_per_s'])}x {NAMES.get(name, name)}"
        for name, points in curves.items()
        if name not in (OURS, FAST_POSTGRES)
    ]
    comparison = f" ({', '.join(beside)})" if beside else ""
    drawing.suptitle(
        f"{title}: {number(best)} per second at {BUSY_CONNECTIONS} connections{comparison}",
        fontweight="bold",
    )
    return True


def trade_curves(drawing: Any, found: Found) -> bool:
    """Trades against connections."""
    return _curves(drawing, found, Work.TRADE, "Durable trades")


def lookup_curves(drawing: Any, found: Found) -> bool:
    """Lookups against connections."""
    return _curves(drawing, found, Work.LOOKUP, "Cached lookups")


def original_evaluation(drawing: Any, found: Found) -> bool:
    """Mean latencies of five clients, compared with what the original design reported."""
    titles = {"lookup": "lookup", "trade": "trade", "order": "order query"}
    panels = drawing.subplots(1, len(KINDS))
    for axes, kind in zip(panels, KINDS, strict=True):
        for cache, color in ((True, COLORS[OURS]), (False, COLORS["FastAPI"])):
            label = f"cache {'on' if cache else 'off'}"
            points = [
                (mean["trade_probability"] * 100, mean["mean_ms"][kind])
                for mean in found["evaluation"]
                if mean["cache"] == cache and mean["mean_ms"][kind] is not None
            ]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", color=color, label=label)
            if (span := ORIGINAL_MS[cache].get(kind)) is not None:
                label += ": the original design's own figures"
                axes.axhspan(*span, color=color, alpha=0.2, label=label)
        axes.set_ylim(bottom=0)
        axes.set_title(titles[kind])
        axes.set_xlabel("trade probability (%)")
    panels[0].set_ylabel("mean latency (ms)")
    drawing.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    drawing.suptitle(
        f"Five clients, cache on: lookup {_span(found, 'lookup')} ms, "
        f"trade {_span(found, 'trade')} ms, order query {_span(found, 'order')} ms",
        fontweight="bold",
    )
    return True


def _span(found: Found, kind: str) -> str:
    """The least and the most mean latency of a kind with the cache on."""
    means = [mean["mean_ms"][kind] for mean in found["evaluation"] if mean["cache"]]
    known = [mean for mean in means if mean is not None]
    return f"{number(min(known))}-{number(max(known))}" if known else "-"


def hit_rates(drawing: Any, found: Found) -> bool:
    """Hit rate against cache size."""
    axes = drawing.subplots()
    for demand, color in (("Zipf", COLORS[OURS]), ("uniform", COLORS["FastAPI"])):
        rates = [rate for rate in found["hit_rates"] if rate["demand"] == demand]
        sizes = [rate["size"] for rate in rates]
        axes.plot(sizes, [r["rate"] * 100 for r in rates], marker="o", color=color, label=demand)
        best = [r["best"] * 100 for r in rates]
        axes.plot(sizes, best, linestyle=":", color=color, label=f"{demand}, best possible")
    axes.set_xscale("log")
    axes.set_ylim(0, 100)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("stocks cached, of 10,000")
    axes.set_ylabel("lookups answered from the cache (%)")
    axes.legend()
    at = {r["demand"]: r["rate"] for r in found["hit_rates"] if r["size"] == 1000}
    drawing.suptitle(
        f"Caching 10% of the stocks answers {at['Zipf']:.0%} of Zipf demand, "
        f"{at['uniform']:.0%} of uniform demand",
        fontweight="bold",
    )
    return True


def failover_times(drawing: Any, found: Found) -> bool:
    """How long a client waited for its first order after the leader was gone."""
    axes = drawing.subplots()
    medians = []
    colors = {"kill -9": COLORS[OURS], "SIGSTOP": COLORS["FastAPI"]}
    for fault, seconds in found["failover_s"].items():
        ranked = [s * 1000 for s in sorted(seconds)]
        shares = [100 * (k + 1) / len(ranked) for k in range(len(ranked))]
        label = f"{fault} ({plural(len(ranked), 'trial')})"
        axes.step([0, *ranked], [0, *shares], where="post", color=colors[fault], label=label)
        target = FAILOVER_TARGET_S[fault] * 1000
        axes.plot([target], [50], marker="x", markersize=9, linestyle="", color=colors[fault],
                  label=f"target: half of them before {target:.0f} ms")  # fmt: skip
        medians.append(f"{statistics.median(ranked):.0f} ms after {fault}")
    axes.set_ylim(0, 101)
    axes.set_xlim(left=0)
    axes.axhline(50, color=SOFT, linewidth=0.8)
    axes.set_xlabel("from the signal to the first acknowledged order begun after it (ms)")
    axes.set_ylabel("fail-overs done (%)")
    axes.legend()
    drawing.suptitle(f"Orders go on, median {' and '.join(medians)} of the leader",
                     fontweight="bold")  # fmt: skip
    return True


def open_loop(drawing: Any, found: Found) -> bool:
    """Latency against an offered rate."""
    axes = drawing.subplots()
    offers = found["open_loop"]
    places = range(len(offers))
    names = (("p99.9", "p999_ms", 0.25), ("p99", "p99_ms", 0.5), ("p50", "p50_ms", 1.0))
    for k, (label, name, alpha) in enumerate(reversed(names)):
        heights = [offer[name] for offer in offers]
        bars = axes.bar([at + (k - 1) * 0.27 for at in places], heights, 0.25,
                        color=COLORS[OURS], alpha=alpha, label=label)  # fmt: skip
        axes.bar_label(bars, [number(height) for height in heights], padding=2)
    axes.set_xticks(list(places), [f"{o['rate_per_s']:,.0f}/s\n({o['share']:.0%})" for o in offers])
    axes.set_xlabel("offered trades per second (share of the closed loop's throughput)")
    axes.set_ylabel("latency from the intended start (ms)")
    axes.margins(y=0.15)
    axes.grid(visible=False, axis="x")
    axes.legend()
    half = min(offers, key=lambda offer: abs(offer["share"] - 0.5))
    drawing.suptitle(
        f"At {half['share']:.0%} of the closed loop's throughput 99% of trades are durable "
        f"within {number(half['p99_ms'])} ms",
        fontweight="bold",
    )
    return True


Plot = Callable[[Any, Found], bool]
PLOTS: Sequence[tuple[str, str, Plot]] = (
    ("trade", "measured", trade_curves),
    ("lookup", "measured", lookup_curves),
    ("evaluation", "evaluation", original_evaluation),
    ("hit_rate", "hit_rates", hit_rates),
    ("failover", "failover_s", failover_times),
    ("open_loop", "open_loop", open_loop),
    ("growth_stocks", "grown", growthplots.in_stocks),
    ("growth_orders", "grown", growthplots.in_orders),
    ("summary", "rows", summary.beside_peers),
)

if __name__ == "__main__":
    draw(Path(sys.argv[1]), print)
