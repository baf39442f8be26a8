"""Where prometheus_client is spoken: what processes count, in the form that Prometheus reads.

prometheus_client's own counters take a lock and microseconds for each observation, so they are
not used: a collector hands the plain numbers of ``tally`` over when somebody asks. What describes
the process itself (CPU time, memory, open files) is prometheus_client's.
"""

import platform
from collections.abc import Iterable, Iterator, Mapping

import prometheus_client
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from twstock import __version__
from twstock.tally import Family, Sample, gauge

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4.encode("ascii")
"""What Content-Type says of ``text``: version 0.0.4 of the format, which everybody reads."""

_process = prometheus_client.ProcessCollector(namespace="twstock", registry=None)


def process_families() -> Iterator[Family]:
    """Which program this process runs, and what it uses of the machine."""
    labels = {"version": __version__, "python": platform.python_version()}
    yield gauge("twstock_build_info", "Which program runs, and on which Python.", [(labels, 1)])
    for metric in _process.collect():
        samples = tuple(Sample(name, labels, value) for name, labels, value, *_ in metric.samples)
        yield Family(metric.name, metric.type, metric.documentation, samples)


class MembersCollector(Collector):
    """The families of many members as one: each sample is labelled with its member's name, and
    each family has one head.

    A family that is of another kind with a member than with those before it, because the member
    runs another version, is left out there: it would make the whole text unreadable.
    """

    def __init__(self, members: Mapping[str, Iterable[Family]]) -> None:
        self._families: dict[str, list[tuple[str, Family]]] = {}
        for member, families in members.items():
            for family in families:
                self._families.setdefault(family.name, []).append((member, family))

    def collect(self) -> Iterator[Metric]:
        """One metric for each family, by name."""
        for _, parts in sorted(self._families.items()):
            head = parts[0][1]
            metric = Metric(head.name, head.help, head.kind)
            for member, family in parts:
                for name, labels, value in family.samples if family.kind == head.kind else ():
                    metric.add_sample(name, {"member": member, **labels}, value)
            yield metric


def pieces(collector: Collector) -> Iterator[bytes]:
    """Prometheus' text of what a collector has, a family at a time: a thousand samples cost
    tens of milliseconds, which nobody else should have to wait for.
    """
    for metric in collector.collect():
        yield prometheus_client.generate_latest(_Single(metric))


class _Single(Collector):
    """One metric."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return (self._metric,)
