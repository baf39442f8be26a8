"""A whole cluster's metrics without processes: a real front-end, real replicas on one clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock

from tests.fakes import FakeMember
from tests.members import Group
from tests.test_front import FullReactor
from tests.test_invalidation import Scene
from twstock.config import default_cluster
from twstock.observatory import Observatory
from twstock.order.counts import OrderCounts
from twstock.replication.gauges import replica_families
from twstock.rpc.calls import Observed
from twstock.threads import Pool
from twstock.web.front import FrontEnd


class Replicas:
    """A group of replicas whose leader has committed an entry, and the metrics of each."""

    def __init__(self, directory: Path, group: str, size: int) -> None:
        directory.mkdir()
        self.name = group
        self.group = Group(directory, size)
        self.group.start()
        self.group.run_until(lambda: self.group.leader == size)
        self.group.member(size).propose(b"x")
        self.group.run(0.3)

    def observatories(self) -> Iterator[Observatory]:
        """The observatory of each."""
        for number in self.group.ids:
            peers = [peer for peer in self.group.ids if peer != number]
            told = Observatory(f"{self.name}-{number}", self.group.clock)
            member: Any = self.group.member(number)
            families = replica_families(self.name, member, member._equipment.database, peers)
            told.add(lambda families=tuple(families): families)
            yield told


def tell(told: Observatory, clock: Clock) -> FakeMember:
    """A member that reports these metrics when asked."""
    replies = {"Families": Observed(told.member, told.families())}
    return FakeMember(clock, replies=replies)


def replicas(directory: Path, clock: Clock) -> dict[str, FakeMember]:
    """One catalog and three order replicas, by name."""
    found = {}
    for told in Replicas(directory / "catalog", "catalog", 1).observatories():
        told.add(Scene().publisher.families)
        found[told.member] = tell(told, clock)
    for told in Replicas(directory / "order", "order", 3).observatories():
        counts = OrderCounts()
        told.add(lambda counts=counts: counts.families(0))
        found[told.member] = tell(told, clock)
    return found


@contextmanager
def front_end(tls: Path | None = None) -> Iterator[FrontEnd]:
    """A front-end of the default cluster, which reaches no other member."""
    cluster = replace(default_cluster(), tls=tls)
    pools = {name: Pool(name) for name in ("control", "calls")}
    service = FrontEnd(FullReactor(0), cluster, cluster.fronts[0], pools)
    service.startService()
    try:
        yield service
    finally:
        service.stopService()
