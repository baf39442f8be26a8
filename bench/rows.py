"""The rows of the table: what is compared with what, and what is wanted. Pure."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bench import cluster
from bench.peers import chain, etcd, fastapi_dictionary, fastapi_postgres, nginx
from bench.systems import Measured, Work, plural

OURS = cluster.NAME
CURVE = (1, 5, 64, 256)
"""Connections of the plots."""


class Figure(StrEnum):
    """What is compared; a ratio above 1 means that twstock is ahead."""

    THROUGHPUT = "requests/s"
    MEDIAN = "p50 ms"


@dataclass(frozen=True, slots=True)
class Row:
    """twstock compared with one peer; ``target`` is the wanted ratio, None: there is none."""

    work: Work
    connections: int
    peer: str
    figure: Figure
    target: float | None

    @property
    def label(self) -> str:
        """How a row is named, also by ``--only``."""
        connections = plural(self.connections, "connection")
        return f"{self.work}, {connections}, {self.figure}, against {self.peer}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing to measure."""

    system: str
    work: Work
    connections: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row with its figures: medians over the rounds, and the ratio of each round."""

    row: Row
    ours: float
    theirs: float
    ratios: tuple[float, ...]
    errors: int

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios: what drifts between rounds cancels out."""
        return statistics.median(self.ratios)

    @property
    def verdict(self) -> str:
        """Whether the target is met; errors are never a success."""
        if self.row.target is None:
            return "-"
        return "met" if self.ratio >= self.row.target and not self.errors else "short"


Results = Mapping[Cell, Sequence[Measured]]
T, M = Figure.THROUGHPUT, Figure.MEDIAN
FASTAPI, NGINX, ETCD = fastapi_dictionary.NAME, nginx.NAME, etcd.NAME
POSTGRES, FAST_POSTGRES = fastapi_postgres.NAME, fastapi_postgres.FAST_NAME
ROWS = (
    Row(Work.LOOKUP, 5, FASTAPI, T, 5.0),
    Row(Work.LOOKUP, 64, FASTAPI, T, 6.0),
    Row(Work.LOOKUP, 5, NGINX, T, 0.4),
    Row(Work.LOOKUP, 64, NGINX, T, 0.4),
    Row(Work.ORDER, 64, FASTAPI, T, 5.0),
    Row(Work.TRADE, 64, POSTGRES, T, 5.0),
    Row(Work.TRADE, 256, POSTGRES, T, 10.0),
    Row(Work.TRADE, 64, ETCD, T, 1.0),
    Row(Work.TRADE, 1, POSTGRES, M, 1.0),
    Row(Work.TRADE, 5, POSTGRES, M, 1.0),
    Row(Work.TRADE, 64, FAST_POSTGRES, T, None),
    Row(Work.TRADE, 256, FAST_POSTGRES, T, None),
    Row(Work.TRADE, 1, FAST_POSTGRES, M, None),
    Row(Work.TRADE, 1, chain.SOCKETS, M, None),
    Row(Work.TRADE, 1, chain.STREAMS, M, None),
    Row(Work.MISS, 5, POSTGRES, T, 1.0),
    Row(Work.MISS, 64, POSTGRES, T, 1.0),
)
CURVES = (
    (Work.LOOKUP, (OURS, FASTAPI, NGINX)),
    (Work.TRADE, (OURS, POSTGRES, FAST_POSTGRES, ETCD)),
)
"""What the plots show at every number of connections."""


def chosen(words: Sequence[str]) -> list[Row]:
    """The rows whose label contains one of some words; all without words."""
    return [row for row in ROWS if matches(row.label, words)]


def matches(label: str, words: Sequence[str]) -> bool:
    """Whether ``--only WORDS`` names a label."""
    return not words or any(word.lower() in label.lower() for word in words)


def cells(rows: Iterable[Row], with_curves: bool) -> list[Cell]:
    """What has to be measured for rows and, if wanted, the plots; in the order of measuring."""
    wanted = {Cell(system, r.work, r.connections) for r in rows for system in (OURS, r.peer)}
    if with_curves:
        wanted |= {Cell(s, work, n) for work, systems in CURVES for s in systems for n in CURVE}
    order = [OURS, FASTAPI, NGINX, POSTGRES, FAST_POSTGRES, ETCD, chain.SOCKETS, chain.STREAMS]
    works = list(Work)
    return sorted(wanted, key=lambda c: (works.index(c.work), c.connections, order.index(c.system)))


def outcome(row: Row, results: Results) -> Outcome | None:
    """A row with its figures; None if one side was not measured."""
    ours = results.get(Cell(OURS, row.work, row.connections), ())
    theirs = results.get(Cell(row.peer, row.work, row.connections), ())
    if not ours or not theirs:
        return None
    pairs = [(figure(a, row.figure), figure(b, row.figure)) for a, b in zip(ours, theirs)]  # noqa: B905
    ratios = tuple(_ratio(a, b, row.figure) for a, b in pairs)
    return Outcome(
        row,
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        ratios,
        sum(measured.errors for measured in (*ours, *theirs)),
    )


def figure(measured: Measured, which: Figure) -> float:
    """The figure that a row compares."""
    return measured.requests_per_s if which is Figure.THROUGHPUT else measured.p50_ms


def _ratio(ours: float, theirs: float, which: Figure) -> float:
    over, under = (ours, theirs) if which is Figure.THROUGHPUT else (theirs, ours)
    return over / under if under else float("nan")


def as_json(results: Results) -> list[dict[str, Any]]:
    """Every cell with its rounds."""
    return [
        {
            "system": cell.system,
            "work": str(cell.work),
            "connections": cell.connections,
            "rounds": [
                {name: getattr(one, name) for name in Measured.__slots__} for one in measured
            ],
        }
        for cell, measured in results.items()
    ]
