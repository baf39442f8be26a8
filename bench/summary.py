"""The figure for the README: how many times as fast as its peers twstock is, and should be.

One bar for each peer and kind of request: to the right of the line twstock is ahead. The figure
has a background of its own, so that it can be read on a light page and on a dark one.
"""

import math
from dataclasses import dataclass
from typing import Any

from bench.palette import NAMES, Found
from bench.rows import ETCD, FAST_POSTGRES, FASTAPI, NGINX, POSTGRES, Figure
from bench.systems import Work
from bench.tables import number

INK, PAPER, QUIET = "#1c2733", "#ffffff", "#5d6d7e"
AHEAD, BEHIND = "#1e8449", "#c0392b"
BAR = 0.62
LEFT, RIGHT = 0.47, 0.745
"""The left and right edge of the bars, in shares of the width; below, where the words begin."""
WORK_AT, COUNT_AT, PEER_AT = 0.012, 0.215, 0.235
SHOWN = (
    (Work.LOOKUP, 64, FASTAPI, Figure.THROUGHPUT),
    (Work.LOOKUP, 64, NGINX, Figure.THROUGHPUT),
    (Work.ORDER, 64, FASTAPI, Figure.THROUGHPUT),
    (Work.MISS, 64, POSTGRES, Figure.THROUGHPUT),
    (Work.TRADE, 256, POSTGRES, Figure.THROUGHPUT),
    (Work.TRADE, 64, POSTGRES, Figure.THROUGHPUT),
    (Work.TRADE, 64, FAST_POSTGRES, Figure.THROUGHPUT),
    (Work.TRADE, 64, ETCD, Figure.THROUGHPUT),
    (Work.TRADE, 1, POSTGRES, Figure.MEDIAN),
)
"""The rows of the table that the figure shows, from the top down."""
WORKS = {
    Work.LOOKUP: "cached lookup",
    Work.ORDER: "recent order",
    Work.MISS: "lookup that misses",
    Work.TRADE: "durable trade",
}
PEERS = {
    NGINX: "nginx, a constant",
    ETCD: "etcd, a put without checks",
    FAST_POSTGRES: "same, numbers with gaps",
}
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


@dataclass(frozen=True, slots=True)
class Bar:
    """One row: the work, the peer, the ratio, the target, and both figures in words."""

    work: str
    connections: int
    peer: str
    ratio: float
    target: float | None
    figures: str


def bars(found: Found) -> list[Bar]:
    """The rows that are shown and were measured."""
    rows = {
        (row["work"], row["connections"], row["peer"], row["figure"]): row
        for row in found["rows"]
        if row.get("ratio")
    }
    return [_bar(rows[key]) for key in SHOWN if key in rows]


def _bar(row: Found) -> Bar:
    ours, theirs = row["twstock"], row["theirs"]
    peer: str = row["peer"]
    if row["figure"] == Figure.MEDIAN:
        figures = f"{number(ours)} ms against {number(theirs)} ms"
    else:
        figures = f"{number(ours)}/s against {number(theirs)}/s"
    return Bar(
        WORKS[Work(row["work"])],
        row["connections"],
        PEERS.get(peer) or NAMES.get(peer, peer),
        row["ratio"],
        row["target"],
        figures,
    )


def beside_peers(drawing: Any, found: Found) -> bool:
    """Every bar, and what the ratio should be."""
    shown = bars(found)
    if not shown:
        return False
    drawing.set_size_inches(9.5, 1.1 + 0.36 * len(shown))
    drawing.set_facecolor(PAPER)
    drawing.set_layout_engine("none")
    height = drawing.get_size_inches()[1]
    axes = drawing.add_axes([LEFT, 0.3 / height, RIGHT - LEFT, 1 - 0.85 / height])
    for place, bar in enumerate(shown):
        _draw(axes, place, bar)
    _scale(axes, shown)
    ahead = sum(bar.ratio >= 1 for bar in shown)
    drawing.suptitle(
        f"twstock is ahead in {ahead} of {len(shown)} comparisons, on one machine "
        f"with {found['cores']} cores",
        color=INK, fontweight="bold", fontsize=12, x=0.012, ha="left",
    )  # fmt: skip
    return True


def _draw(axes: Any, place: int, bar: Bar) -> None:
    color = AHEAD if bar.ratio >= 1 else BEHIND
    axes.barh(place, bar.ratio - 1, BAR, left=1, color=color)
    if bar.target is not None:
        label = "target" if not axes.get_legend_handles_labels()[1] else None
        axes.plot([bar.target], [place], marker="|", markersize=17, markeredgewidth=2.2,
                  linestyle="", color=INK, label=label)  # fmt: skip
    for at, text, style in (
        (WORK_AT, bar.work, {"color": INK}),
        (COUNT_AT, str(bar.connections), {"color": INK, "ha": "right"}),
        (PEER_AT, bar.peer, {"color": INK}),
        (RIGHT + 0.01, f"{number(bar.ratio)}x", {"color": color, "fontweight": "bold"}),
        (RIGHT + 0.065, bar.figures, {"color": QUIET, "fontsize": 9}),
    ):
        _write(axes, at, place, text, **style)


def _write(axes: Any, at: float, place: float, text: str, **style: Any) -> None:
    """Write on the line of a bar, at a share of the figure's width."""
    inside = (at - LEFT) / (RIGHT - LEFT)
    axes.text(inside, place, text, transform=axes.get_yaxis_transform(), va="center", **style)


def _scale(axes: Any, shown: list[Bar]) -> None:
    values = [1.0, *(b.ratio for b in shown), *(b.target for b in shown if b.target is not None)]
    least, most = 0.8 * min(values), 1.25 * max(values)
    axes.set_xscale("log")
    axes.set_xlim(least, most)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xticks(
        [tick for tick in TICKS if least <= tick <= most],
        [f"{tick:g}x" for tick in TICKS if least <= tick <= most],
    )
    axes.xaxis.minorticks_off()
    axes.set_yticks([])
    axes.tick_params(axis="x", colors=QUIET, length=0)
    axes.grid(visible=True, axis="x", color=QUIET, alpha=0.25)
    axes.set_axisbelow(True)
    axes.set_facecolor(PAPER)
    axes.axvline(1, color=INK, linewidth=1)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    middle = math.sqrt(least), math.sqrt(most)
    for at, words in zip(middle, ("slower", "faster"), strict=True):
        axes.text(at, -0.85, words, color=QUIET, ha="center", va="center", fontsize=9)
    for at, words, side in (
        (WORK_AT, "requests", "left"),
        (COUNT_AT, "clients", "right"),
        (PEER_AT, "against", "left"),
        (RIGHT + 0.01, "times as fast", "left"),
    ):
        _write(axes, at, -0.85, words, color=QUIET, ha=side, fontsize=9)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1, 0),
            borderaxespad=0,
            handlelength=0.5,
            labelcolor=INK,
        )
