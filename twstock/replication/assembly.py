"""Puts a member together from its parts; used by the ``tap`` of both groups."""

from collections.abc import Callable
from dataclasses import dataclass
from random import SystemRandom
from typing import Any

from twstock.config import Cluster, Limits
from twstock.errors import StorageError, StorageUnavailable
from twstock.observatory import Observatory
from twstock.process import EXIT_NOT_NOW, EXIT_REFUSED, panic, stop_with
from twstock.replication.database import Database
from twstock.replication.equipment import Equipment, Surroundings
from twstock.replication.gauges import replica_families
from twstock.replication.member import Member
from twstock.replication.offline import APPLIED
from twstock.replication.promises import Owner
from twstock.replication.reach import Contacts
from twstock.replication.snapshots import Snapshots
from twstock.replication.storage import FileStorage
from twstock.replication.tier import Tables
from twstock.replication.transport import GROUP_METHODS, GrpcTransport
from twstock.rpc.calls import Envelope, Notified, Notify, Probe, ProbeAnswer
from twstock.rpc.health import Health
from twstock.rpc.security import Security, security_of
from twstock.rpc.server import Endpoint, Server
from twstock.threads import Pool, Worker

CALLS_MAX = 12
"""Threads in the pool for each peer: two for its streams, the rest for unary calls while it takes
no streams. Calls to a peer that hangs hold their threads until the deadline, and must not starve
calls to the other peers."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """A member and its database. ``pools`` have to run before it; the tier adds its own metrics to
    the ``observatory``; ``security`` is for connections to and from others.
    """

    group: str
    number: int
    member: Member
    database: Database
    pools: tuple[Pool | Worker | Observatory, ...]
    observatory: Observatory
    security: Security


def assemble(
    cluster: Cluster,
    group: str,
    number: int,
    tables: Tables,
    reactor: Any,
    *,
    makes_snapshots: bool,
) -> Assembly:
    """Build one member of a group with its real disk, network and clock, without starting it. If it
    ``makes_snapshots``, its log drops entries that these stand in for.
    """
    membership = cluster.membership(group, number)
    limits, deliver = cluster.limits, reactor.callFromThread
    directory = cluster.data_of(group, number)
    disk, sqlite = Worker("log"), Worker("sqlite")
    calls = Pool("replication", CALLS_MAX * len(membership.peers) + 1)
    random = SystemRandom()
    owner = Owner(group, cluster.cluster_id, number, tuple(sorted(membership.members)))
    sizes = limits.segment_bytes, limits.spare_segments
    storage = FileStorage(directory, owner, *sizes, lambda: random.getrandbits(63) | 1)
    snapshots = Snapshots(directory, owner.identity(0).cluster) if makes_snapshots else None
    database = Database(directory / APPLIED, tables, sqlite, deliver, panic, snapshots=snapshots)
    addresses = {r.id: r.grpc for r in cluster.replicas(group) if r.id in membership.peers}
    security = security_of(cluster, f"{group}-{number}")
    transport = GrpcTransport(group, addresses, calls.threads, reactor, deliver, limits, security)

    def refuse(error: StorageError | StorageUnavailable) -> None:
        if isinstance(error, StorageError):
            stop_with(reactor, f"{group}-{number} refuses to start: {error}", EXIT_REFUSED)
        else:
            stop_with(reactor, f"{group}-{number} cannot start now: {error}", EXIT_NOT_NOW)

    equipment = Equipment(
        membership,
        cluster.timings,
        limits,
        storage,
        database,
        transport,
        _contacts(group, limits, reactor.seconds()),
        Surroundings(reactor, random, disk, deliver, panic, refuse),
    )
    member = Member(group, cluster.cluster_id, equipment)
    observatory = Observatory(f"{group}-{number}", reactor)
    observatory.add(lambda: replica_families(group, member, database, membership.peers))
    observatory.add(security.families)
    pools = observatory, disk, sqlite, calls
    return Assembly(group, number, member, database, pools, observatory, security)


def _contacts(group: str, limits: Limits, now: float) -> Contacts:
    """Who calls from outside the group: front-ends all replicas, order replicas the catalogs."""
    contacts = Contacts(limits.out_of_reach_s)
    if group == "catalog":
        contacts.order_replicas = contacts.add("no order replica reaches it", now)
    return contacts


def served(
    cluster: Cluster,
    parts: Assembly,
    endpoints: tuple[Endpoint[Any, Any], ...],
    why_not_serving: Callable[[], str],
    reactor: Any,
) -> Server:
    """The server of a member: the tier's own calls, those for replication, and health checks.

    ``why_not_serving`` returns why a leader's tier does not serve, empty when it does.
    """
    member, group, limits = parts.member, parts.group, cluster.limits
    calls = (
        *replication_endpoints(group, member, why_not_serving),
        parts.observatory.endpoint(),
        *endpoints,
    )
    health = Health(serving(group, member, why_not_serving), reactor, limits.rpc_watches_max)
    address = str(cluster.replica(group, parts.number).grpc)
    deliver = reactor.callFromThread
    return Server(address, calls, reactor, deliver, limits, health, parts.security)


def serving(
    group: str, member: Member, why_not_serving: Callable[[], str]
) -> Callable[[], dict[str, bool]]:
    """A function that returns a member's health, for gRPC health checking.

    The member itself (the empty name) is healthy when it leads or follows a leader. An order
    follower serves ``Order``, too: it has the orders, and refuses new ones without having done
    anything. A catalog follower does not serve: it answers nobody.
    """
    service = f"twstock.{GROUP_METHODS[group].heartbeat.service}"

    def look() -> dict[str, bool]:
        status = member.status(why_not_serving=why_not_serving())
        follows = status.role == "follower" and status.leader_id != 0
        leads = status.ready and not member.is_giving_way()
        return {
            "": status.role == "leader" or follows,
            service: leads or (follows and group == "order"),
        }

    return look


def replication_endpoints(
    group: str, member: Member, why_not_serving: Callable[[], str]
) -> tuple[Endpoint[Any, Any], ...]:
    """The calls with which members replicate, and with which anybody asks for a member's status.

    ``why_not_serving`` returns why a leader's tier does not serve, empty when it does.
    """
    methods = GROUP_METHODS[group]

    async def heartbeat(probe: Probe) -> ProbeAnswer:
        append = None
        if probe.order_id:
            member.heard_order_replica()
        elif probe.front_id:
            member.heard_front_end()
        if probe.append is not None and probe.peer is not None:
            append = await member.receive(Envelope(probe.peer, probe.append))
        return ProbeAnswer(member.status(probe.peer, why_not_serving=why_not_serving()), append)

    async def notify(request: Notify) -> Notified:
        if request.transfer is not None:
            await member.receive(request.transfer)
        else:
            await member.nominate(request.leader_id)
        return Notified(member.leader_id(), member.term())

    return (
        Endpoint(methods.heartbeat, heartbeat, internal=True),
        Endpoint(methods.append, member.receive, internal=True),
        Endpoint(methods.vote, member.receive, internal=True),
        Endpoint(methods.notify, notify, internal=True),
    )
