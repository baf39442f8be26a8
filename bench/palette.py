"""How all plots look: one color for each system, the same in every figure."""

from typing import Any

from bench.rows import FAST_POSTGRES, OURS, POSTGRES
from bench.systems import Work

Found = dict[str, Any]
STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.hashsalt": "twstock",
}
COLORS = {
    OURS: "#c0392b",
    "FastAPI": "#2e86c1",
    "nginx": "#7f8c8d",
    POSTGRES: "#1f618d",
    FAST_POSTGRES: "#85c1e9",
    "etcd": "#27ae60",
}
NAMES = {POSTGRES: "FastAPI + PostgreSQL", FAST_POSTGRES: "the same, one statement, gaps"}
WORKS = {Work.LOOKUP: "#c0392b", Work.TRADE: "#1f618d", Work.MISS: "#b9770e", Work.ORDER: "#27ae60"}
SOFT = "#95a5a6"
WIDE = (9.5, 4.2)
