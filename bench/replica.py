"""One order replica with a long log: how soon it serves, how much memory it takes, and how fast it
sends orders.

The replica is alone: no other member competes for the cores, and what it holds is committed.
"""

import contextlib
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench.history import History
from bench.made import incarnation, settle, view_of
from bench.processes import NotStarted, Process, free_ports, rss_mb, running, wait_for
from bench.rounds import Tell
from twstock.config import Address, Cluster, default_cluster
from twstock.pb import order_pb2, order_pb2_grpc
from twstock.plan import TOML, to_text
from twstock.rest import Unreachable
from twstock.rpc.calls import Fetch, Peer, Probe, SyncUp
from twstock.rpc.wire.methods import ORDER_HEARTBEAT, ORDER_SYNC_UP
from twstock.verify import Remote

WHOLE, LACKING = 2, 1
"""The replica that has all orders, and the one that lacks some."""
SERVE_S = 120.0
VIEW_S = 300.0
CATCH_UP_S = 120.0
SYNC_UP_S = 10.0
POLL_S = 0.005
CALL_S = 10.0
TARGET_ORDERS = 1_000_000
"""The number of orders for which the targets hold."""
SERVES_TARGET_S = 2.0
RSS_TARGET_MB = 150.0
SYNC_UP_TARGET_PER_S = 50_000.0


@dataclass(frozen=True, slots=True)
class LongLog:
    """What a log of so many orders, ``batch`` of them in an entry, costs one replica.

    ``serves_s`` counts from the start of its process to its answer that it has all orders;
    ``rss_mb`` is its memory then, ``later_mb`` after another start and everything below.
    ``view_s``: how long it takes to write its table of orders anew. ``sync_up_per_s`` are the
    orders that a client gets, ``fetch_per_s`` those in the log entries that another replica gets,
    ``catch_up_per_s`` those with which one that ``lacked`` some caught up. None: not measured,
    because the log is too short.
    """

    orders: int
    batch: int
    serves_s: float
    rss_mb: float
    view_s: float | None
    later_mb: float | None
    sync_up_per_s: float | None
    fetch_per_s: float | None
    lacked: int
    catch_up_per_s: float | None


def has_view(cluster: Cluster, number: int, orders: int) -> bool:
    """Whether a replica's table of orders has that many."""
    path = view_of(cluster, number)
    if not path.exists():
        return False
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 300))
        lines = file.read().decode(errors="replace").splitlines()
    first = lines[-1].partition(",")[0] if lines else ""
    return first.isdigit() and int(first) >= orders


@contextlib.contextmanager
def member(cluster: Cluster, number: int) -> Iterator[Process]:
    """One order replica, by itself."""
    directory = cluster.data_of("order", number)
    twistd = [sys.executable, "-c", "from twisted.scripts import twistd as t; t.run()", "-n"]
    name = ["--config", str(cluster.data / TOML), "--name", f"order-{number}"]
    with running(
        [*twistd, "--pidfile=", "stock-order", *name], directory / "service.log"
    ) as process:
        yield process


def accepts(address: Address) -> bool:
    """Whether a process listens; a gRPC channel would back off after the first refusal."""
    try:
        with socket.create_connection((address.host, address.port), CALL_S):
            return True
    except OSError:
        return False


def last_number(remote: Remote) -> int:
    """The number of the last order that a replica reports; -1 while it does not take part."""
    try:
        status = remote.call(ORDER_HEARTBEAT, Probe()).status
    except Unreachable:
        return -1
    return -1 if status.role == "joining" else int(status.last_transaction)


def poll(condition: Callable[[], bool], what: str, process: Process, seconds: float) -> None:
    """Wait with short pauses, to know the time precisely."""
    wait_for(condition, what, [process], seconds, POLL_S)


@contextlib.contextmanager
def serving(cluster: Cluster, number: int, least: int) -> Iterator[tuple[Process, Remote, float]]:
    """One replica from its start on; yields the seconds until it reports ``least`` orders."""
    address = cluster.replica("order", number).grpc
    began = time.monotonic()
    with member(cluster, number) as process:
        poll(lambda: accepts(address), f"order-{number}", process, SERVE_S)
        with Remote(f"order-{number}", str(address)) as remote:
            poll(lambda: last_number(remote) >= least, f"order-{number}", process, SERVE_S)
            yield process, remote, time.monotonic() - began


def sync_up_rate(address: str) -> float:
    """Orders per second that one client gets from one replica, from the first order on."""
    import grpc  # noqa: PLC0415 - it starts threads, which only this part needs

    number, more, began = 0, True, time.monotonic()
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = order_pb2_grpc.OrderStub(channel)
        while more and time.monotonic() - began < SYNC_UP_S:
            request = order_pb2.SyncUpRequest(transaction_num=number)
            page = stub.SyncUp(request, timeout=CALL_S)
            if page.orders and page.orders[0].transaction_num != number + 1:
                raise NotStarted(f"SyncUp after {number} began at the wrong order")
            number = page.orders[-1].transaction_num if page.orders else number
            more = page.more
    return number / (time.monotonic() - began)


def fetch_rate(cluster: Cluster, remote: Remote, batch: int) -> float:
    """Orders per second in the log entries that another replica gets."""
    asker = Peer("order", cluster.cluster_id, LACKING, incarnation("order", LACKING))
    index, began = 0, time.monotonic()
    while time.monotonic() - began < SYNC_UP_S:
        fetched = remote.call(ORDER_SYNC_UP, SyncUp(fetch=Fetch(asker, index))).fetched
        if not fetched.entries:
            break
        index = fetched.entries[-1].index
    return max(0, index - 1) * batch / (time.monotonic() - began)


def catch_up_rate(cluster: Cluster, orders: int) -> float:
    """Orders per second that a replica which lacks some gets from one that has all of them."""
    with serving(cluster, LACKING, 0) as (process, remote, _):
        before, began = last_number(remote), time.monotonic()
        poll(lambda: last_number(remote) >= orders, "catching up", process, CATCH_UP_S)
        return (orders - before) / (time.monotonic() - began)


def on_free_ports(data: Path) -> Cluster:
    """The cluster of a directory, moved to ports that nobody uses."""
    http, base, *_ = free_ports(6)
    shape = default_cluster(http=Address("127.0.0.1", http), base_port=base)
    cluster = replace(
        settle(data), fronts=shape.fronts, catalogs=shape.catalogs, orders=shape.orders
    )
    (data / TOML).write_text(to_text(cluster))
    return cluster


def start_alone(data: Path, of: History, tell: Tell) -> LongLog:
    """Measure only how soon it serves, and its memory then."""
    with serving(on_free_ports(data), WHOLE, of.orders) as (process, _, serves_s):
        found = LongLog(
            of.orders,
            of.batch,
            serves_s,
            rss_mb(process.pid),
            None,
            None,
            None,
            None,
            of.lacks,
            None,
        )
    tell(f"{of.orders:,} orders: serves after {serves_s:.1f} s, {found.rss_mb:.0f} MB")
    return found


def measure(data: Path, of: History, tell: Tell) -> LongLog:
    """Measure everything, with made data in which one replica lacks some orders."""
    found = start_alone(data, of, tell)
    cluster = on_free_ports(data)
    view_of(cluster, WHOLE).unlink()
    with serving(cluster, WHOLE, of.orders) as (process, remote, _):
        began = time.monotonic()
        wait_for(lambda: has_view(cluster, WHOLE, of.orders), "the table", [process], VIEW_S)
        view_s = time.monotonic() - began
        sync_up = sync_up_rate(str(cluster.replica("order", WHOLE).grpc))
        fetch = fetch_rate(cluster, remote, of.batch)
        caught = catch_up_rate(cluster, of.orders)
        tell(
            f"{of.orders:,} orders: SyncUp gives {sync_up:,.0f} orders/s, as entries {fetch:,.0f}; "
            f"one that lacks {of.lacks:,} catches up with {caught:,.0f}/s"
        )
        later = rss_mb(process.pid)
    return replace(
        found,
        view_s=view_s,
        later_mb=later,
        sync_up_per_s=sync_up,
        fetch_per_s=fetch,
        catch_up_per_s=caught,
    )
