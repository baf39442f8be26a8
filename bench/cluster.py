"""The cluster under test: ``twstock up`` with fresh data on ports of its own."""

import contextlib
import http.client
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.processes import NotStarted, Process, ask, free_ports, running, wait_for
from bench.systems import (
    RECENT_ORDERS,
    STOCK_UP,
    STOCKS,
    TRADE_STOCK,
    Address,
    Request,
    System,
    Work,
    lookups,
    misses,
    order,
    recent_orders,
    trades,
)

NAME = "twstock"
PREPARE_S = 20.0
SETTLE_S = 180.0
"""A log of millions of orders takes its time."""
_CLUSTER = Request("GET", "/cluster")


class Cluster:
    """A running cluster, as its first front-end reports it."""

    def __init__(self, address: Address, process: Process) -> None:
        self.address = address
        self.process = process

    def services(self) -> list[Mapping[str, Any]]:
        """The rows of ``GET /cluster``; none while there is no answer."""
        try:
            status, body = ask(self.address, _CLUSTER)
        except (OSError, http.client.HTTPException):
            return []
        rows: list[Mapping[str, Any]] = (
            json.loads(body)["data"]["services"] if status == 200 else []
        )
        return rows

    def pid_of(self, service: str, number: int) -> int:
        """The process of one member; raises NotStarted if it is not known."""
        for row in self.services():
            if (row["service"], row["id"]) == (service, number) and row["alive"]:
                return int(row["pid"])
        raise NotStarted(f"{service}-{number} is not known")

    def order_leader(self) -> tuple[int, int] | None:
        """Id and process of the order leader, if it is known."""
        for row in self.services():
            if row["service"] == "order" and row["alive"] and row["role"] == "leader":
                return row["id"], row["pid"]
        return None

    def is_whole(self) -> bool:
        """Whether every member serves, and all order replicas have the same orders."""
        rows = self.services()
        orders = [row for row in rows if row["service"] == "order"]
        serving = all(r["alive"] and r["role"] in ("serving", "leader", "follower") for r in rows)
        leaders = [row for row in orders if row["role"] == "leader"]
        return serving and len(leaders) == 1 and len({r["last_transaction"] for r in orders}) == 1

    def is_settled(self) -> bool:
        """The same, and no hand-over is to come: the order replica with the highest id leads."""
        leader = self.order_leader()
        highest = max((r["id"] for r in self.services() if r["service"] == "order"), default=0)
        return self.is_whole() and leader is not None and leader[0] == highest

    def member_pids(self) -> list[int]:
        """The processes of all members, from the process table."""
        pid = self.process.pid
        try:
            return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except OSError:
            return []

    def place(self, request: Request) -> None:
        """Place an order, however long it takes the cluster to accept it."""

        def accepted() -> bool:
            try:
                return ask(self.address, request)[0] == http.client.OK
            except (OSError, http.client.HTTPException):
                return False

        wait_for(accepted, "an order", [self.process], PREPARE_S)


@contextlib.contextmanager
def running_cluster(scratch: Path, *flags: str) -> Iterator[Cluster]:
    """A cluster of one front-end, one catalog and three order replicas, new and stocked up."""
    ports = free_ports(6)
    data = scratch / f"twstock-{ports[0]}"
    data.mkdir()
    with resumed(data, *flags, ports=ports) as cluster:
        for name in STOCKS:
            cluster.place(order(name, "sell", STOCK_UP))
        for _ in range(RECENT_ORDERS):
            cluster.place(order(TRADE_STOCK, "sell"))
        yield cluster


@contextlib.contextmanager
def resumed(data: Path, *flags: str, ports: Sequence[int] = ()) -> Iterator[Cluster]:
    """A cluster that goes on with the data in a directory, settled."""
    http, base = (ports or free_ports(6))[:2]
    where = ["--data", str(data), "--http", f"127.0.0.1:{http}", "--base-port", str(base)]
    twstock = [sys.executable, "-c", "import sys; from twstock.cli import main; sys.exit(main())"]
    with running([*twstock, "up", *where, *flags], data / "up.log") as process:
        cluster = Cluster(("127.0.0.1", http), process)
        try:
            wait_for(cluster.is_settled, "the cluster", [process], SETTLE_S)
            yield cluster
        finally:
            # A stopped member would not end with the others.
            for pid in cluster.member_pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def start(scratch: Path) -> Iterator[list[System]]:
    """The system under test, up."""
    with running_cluster(scratch) as cluster:
        works = {Work.LOOKUP: lookups(), Work.ORDER: recent_orders(), Work.TRADE: trades()}
        yield [System(NAME, cluster.address, works)]


@contextlib.contextmanager
def start_without_cache(scratch: Path) -> Iterator[list[System]]:
    """The same with a front-end that caches nothing."""
    with running_cluster(scratch, "--cache-size", "0") as cluster:
        yield [System(NAME, cluster.address, {Work.MISS: misses()})]
