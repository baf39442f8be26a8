"""Plots of growth: throughput and p99, relative to those of the smallest size."""

from typing import Any

from bench.growth import P99_TARGET, RATE_TARGET
from bench.palette import SOFT, WORKS, Found
from bench.systems import Work
from bench.tables import number

PANELS = (
    ("rate_ratio", "requests_per_s", "/s", "throughput, against the smallest: higher is better"),
    ("p99_ratio", "p99_ms", " ms", "p99, against the smallest: lower is better"),
)

LABEL_SHARE = 0.055
"""The height of a label as a share of its panel, which is how far apart labels are."""


def in_stocks(drawing: Any, found: Found) -> bool:
    """Against the number of stocks."""
    return _grown(drawing, found, "stocks")


def in_orders(drawing: Any, found: Found) -> bool:
    """Against the number of orders in the log."""
    return _grown(drawing, found, "orders")


def _grown(drawing: Any, found: Found, of: str) -> bool:
    ours = [one for one in found["grown"] if one["grown"]["size"]["of"] == of]
    sizes = sorted({one["grown"]["size"]["count"] for one in ours})
    if len(sizes) < 2:
        return False
    for axes, panel in zip(drawing.subplots(1, 2), PANELS, strict=True):
        _panel(axes, ours, sizes, panel)
        axes.set_xlabel("stocks in the catalog" if of == "stocks" else "orders in the log")
    handles = drawing.axes[0].get_legend_handles_labels()
    drawing.legend(*handles, loc="outside lower center", ncols=len(handles[0]))
    drawing.suptitle(_title(ours, sizes, of), fontweight="bold", fontsize=11)
    return True


def _panel(axes: Any, ours: list[Found], sizes: list[int], panel: tuple[str, ...]) -> None:
    ratio, figure, unit, title = panel
    wanted = (RATE_TARGET, 1e3) if ratio == "rate_ratio" else (0, P99_TARGET)
    axes.axhspan(*wanted, color=SOFT, alpha=0.18, linewidth=0, label="target")
    highest, labels = 1.3, []
    for work in Work:
        points = sorted(
            (one["grown"]["size"]["count"], one[ratio], one[figure])
            for one in ours
            if one["grown"]["work"] == work
        )
        if not points:
            continue
        at, ratios, figures = zip(*points, strict=True)
        axes.plot(at, ratios, marker="o", color=WORKS[work], linewidth=2, label=str(work))
        labels.append((ratios[-1], f"{number(figures[-1])}{unit}", WORKS[work]))
        highest = max(highest, 1.1 * max(ratios))
    free_from = 0.0
    for last, text, color in sorted(labels):
        height = max(last, free_from)
        axes.annotate(
            text, (sizes[-1], height), (6, 0), textcoords="offset points", va="center", color=color
        )
        free_from = height + LABEL_SHARE * highest
    axes.set_xscale("log")
    axes.set_xticks(sizes, [_short(size) for size in sizes])
    axes.xaxis.minorticks_off()
    axes.set_xlim(sizes[0] / 1.5, sizes[-1] * (sizes[-1] / sizes[0]) ** 0.22)
    axes.set_ylim(0, highest)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.set_title(title)


def _title(ours: list[Found], sizes: list[int], of: str) -> str:
    """A title that says how much throughput each work has left at the largest size."""
    largest = {
        one["grown"]["work"]: one["rate_ratio"]
        for one in ours
        if one["grown"]["size"]["count"] == sizes[-1]
    }
    kept = ", ".join(f"{work} {ratio:.0%}" for work, ratio in largest.items())
    return f"Throughput left with {sizes[-1]:,} {of}: {kept}"


def _short(size: int) -> str:
    """A number, short enough for the axis: 5 M."""
    millions, rest = divmod(size, 1_000_000)
    return f"{millions} M" if millions and not rest else f"{size:,}"
