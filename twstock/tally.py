"""What a process counts: plain numbers on the hot path, families of samples on request.

An observation costs a fraction of a microsecond, and takes no lock: everything here belongs to
the reactor thread. ``Family`` and ``Sample`` have the form of Prometheus' data model, so that
``exposition`` and the wire only have to pass them on.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from math import ceil
from typing import NamedTuple

LATENCY_S = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5,
)  # fmt: skip
"""The upper bounds of a histogram of durations, in seconds."""
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""The upper bounds of a histogram of how many things go together."""

Labels = Mapping[str, str]


class Histogram:
    """Counts observations by ``bounds``: each is counted for the first bound that is not below it;
    the last count is of those above all bounds.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = LATENCY_S) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)


def quantile(counts: Sequence[int], bounds: Sequence[float], q: float) -> float | None:
    """The value below which the fraction ``q`` of the observations lies, as if those of a bucket
    were spread evenly over it; the last bound if it is above all. None without observations.
    """
    wanted = q * sum(counts)
    below, lower = 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and below + count >= wanted:
            return lower + (bound - lower) * (wanted - below) / count
        below, lower = below + count, bound
    return lower if sum(counts) else None


def percentile(ranked: Sequence[float], share: float) -> float:
    """The percentile by nearest rank: the least of these sorted values that at least ``share`` of
    them do not exceed. NaN when there are none.
    """
    if not ranked:
        return float("nan")
    return ranked[max(ceil(share * len(ranked)) - 1, 0)]


class Sample(NamedTuple):
    """One value; ``name`` is its family's, perhaps with a suffix (``_bucket``, ``_total``)."""

    name: str
    labels: Labels
    value: float


class Family(NamedTuple):
    """All samples of one metric. ``kind`` is counter, gauge or histogram; a counter's name has
    no ``_total``, its samples' names do.
    """

    name: str
    kind: str
    help: str
    samples: tuple[Sample, ...]


Rows = Iterable[tuple[Labels, float]]


def gauge(name: str, text: str, rows: Rows) -> Family:
    """A value that goes up and down, by labels."""
    return Family(name, "gauge", text, tuple(Sample(name, *row) for row in rows))


def counter(name: str, text: str, rows: Rows) -> Family:
    """A value that only grows while the process lives, by labels; ``name`` ends with ``_total``."""
    samples = tuple(Sample(name, *row) for row in rows)
    return Family(name.removesuffix("_total"), "counter", text, samples)


def histogram(name: str, text: str, rows: Iterable[tuple[Labels, Histogram]]) -> Family:
    """How values are distributed, by labels."""
    samples: list[Sample] = []
    for labels, values in rows:
        bounds = [*map(_spelled, values.bounds), "+Inf"]
        for bound, below in zip(bounds, accumulate(values.counts), strict=True):
            samples.append(Sample(f"{name}_bucket", {**labels, "le": bound}, below))
        samples.append(Sample(f"{name}_count", labels, values.count))
        samples.append(Sample(f"{name}_sum", labels, values.total))
    return Family(name, "histogram", text, tuple(samples))


def _spelled(bound: float) -> str:
    """A bound as Prometheus writes numbers; never with an exponent."""
    return f"{bound:.9f}".rstrip("0").rstrip(".") if bound % 1 else f"{bound:.1f}"
