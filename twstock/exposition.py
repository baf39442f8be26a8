"""What processes count, in the form that Prometheus reads, made with prometheus_client.

prometheus_client's own counters take a lock and microseconds for each observation, so they are
not used: when somebody asks, a collector passes on the plain numbers of ``tally``. What describes
the process itself (CPU time, memory, open files) is prometheus_client's.
"""

import platform
import time
from collections.abc import Iterable, Iterator, Mapping

import prometheus_client
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from twstock import __version__
from twstock.tally import Family, Sample, gauge

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4.encode("ascii")
"""The Content-Type of ``pieces``: version 0.0.4 of the format, which every reader supports."""


class OwnProcess(prometheus_client.ProcessCollector):
    """What the process uses of the machine. prometheus_client takes the machine's boot time from
    ``/proc/stat``, which is missing under systemd's ``ProcSubset=pid``, and without it reports
    nothing; so the boot time is taken from the clocks.
    """

    def __init__(self, proc: str = "/proc") -> None:
        super().__init__(namespace="twstock", proc=proc, registry=None)

    def _boot_time(self) -> float:
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


_process = OwnProcess()


def process_families(process: Collector = _process) -> Iterator[Family]:
    """Which program this process runs, and what it uses of the machine."""
    labels = {"version": __version__, "python": platform.python_version()}
    yield gauge("twstock_build_info", "Which program runs, and on which Python.", [(labels, 1)])
    for metric in process.collect():
        samples = tuple(Sample(name, labels, value) for name, labels, value, *_ in metric.samples)
        yield Family(metric.name, metric.type, metric.documentation, samples)


class MembersCollector(Collector):
    """The families of many members, merged: each sample is labelled with its member's name, and
    each family has one head.

    If a member has a family as another kind than the members before it, because it runs another
    version, its samples are left out: they would make the whole text unreadable.
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
    """The text that Prometheus reads, one family at a time: a thousand samples cost tens of
    milliseconds, for which nothing else should have to wait.
    """
    for metric in collector.collect():
        yield prometheus_client.generate_latest(_Single(metric))


class _Single(Collector):
    """One metric."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return (self._metric,)
