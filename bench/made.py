"""Data directories of a cluster with a long history, made without trading it order by order.

``python -m bench.made DIRECTORY --orders N`` makes a directory with which ``twstock up --data
DIRECTORY`` goes on as with its own data. The logs and tables are written by the project's own
storage code and state machines; only the flushes are put off until the end.
"""

import argparse
import contextlib
import gc
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from bench import history
from bench.history import History
from bench.processes import Process, running, wait_for
from twstock.catalog.state import CatalogState
from twstock.catalog.tables import CatalogTables
from twstock.config import Cluster, default_cluster, parse
from twstock.market import RefusalBounds
from twstock.order.state import OrderState
from twstock.order.tables import OrderTables
from twstock.order.views import HEADER, order_lines
from twstock.plan import TOML, to_text
from twstock.replication.offline import APPLIED, AppliedState, LogWriter, entries, flush
from twstock.rpc.wire.commands import encode_catalog_command, encode_order_record

CACHE_KIBIBYTES = 500_000
MAKE_S = 1200.0
BYTES_PER_ORDER = 1000
"""An upper bound, with everything that all members keep."""


def incarnation(group: str, number: int) -> int:
    """The incarnation of one member, which all others know, as after the first start."""
    return Random(f"{group}-{number}").getrandbits(63) | 1


def open_log(cluster: Cluster, group: str, number: int) -> LogWriter:
    """The log of one member, open for writing."""
    members = [replica.id for replica in cluster.replicas(group)]
    return LogWriter(
        cluster, group, number, {member: incarnation(group, member) for member in members}
    )


def make_catalog(cluster: Cluster, of: History) -> None:
    """The catalog's directory: filled, then every batch traded."""
    log, limits = open_log(cluster, "catalog", 1), cluster.limits
    bounds = limits.refused_keys_max, limits.refused_keys_s
    tables, machine = CatalogTables(*bounds), CatalogState(*bounds)
    seed = replace(history.seed(of), bounds=RefusalBounds.of(*bounds))
    applied = AppliedState(log.path / APPLIED, tables, CACHE_KIBIBYTES)

    def payloads() -> Iterator[bytes]:
        yield encode_catalog_command(seed)
        yield encode_catalog_command(history.epoch())
        for batch in history.batches(of):
            yield encode_catalog_command(batch)

    for entry in entries(payloads()):
        log.append(entry)
        applied.apply(machine, entry)
    if machine.last_transaction != of.orders:
        raise AssertionError(f"{machine.last_transaction} of {of.orders} orders were executed")
    log.close()
    applied.close()


def view_of(cluster: Cluster, number: int) -> Path:
    """The table of orders that a replica keeps for people."""
    return cluster.data_of("order", number) / f"order_log_{number}.csv"


def make_orders(cluster: Cluster, of: History) -> None:
    """The directories of all order replicas."""
    logs = [open_log(cluster, "order", replica.id) for replica in cluster.orders]
    first, *others = logs
    *views, last_view = [view_of(cluster, replica.id) for replica in cluster.orders]
    machine = OrderState(0, b"", cluster.limits.recent_orders)
    tables = OrderTables(cluster.limits.recent_orders)
    applied = AppliedState(others[0].path / APPLIED, tables, CACHE_KIBIBYTES)
    # The last index in the log of the replica that lacks some orders.
    whole = 1 + (of.orders - of.lacks) // of.batch
    payloads = (
        encode_order_record(history.trades(batch, of.stocks)) for batch in history.batches(of)
    )
    with last_view.open("w") as view:
        view.write(HEADER)
        for entry in entries(payloads):
            for log in logs if entry.index <= whole or not of.lacks else others:
                log.append(entry)
            view.write(order_lines(applied.apply(machine, entry) or ()))
            machine.saved(entry.index)
            if of.lacks and entry.index == whole:
                applied.copy(first.path)
    for log in logs:
        log.close()
    applied.close()
    for log in others[1:] if of.lacks else [first, *others[1:]]:
        shutil.copyfile(applied.path, log.path / APPLIED)
    for path in views[1:] if of.lacks else views:
        shutil.copyfile(last_view, path)


GROUPS = {"catalog": make_catalog, "order": make_orders}


def settle(directory: Path) -> Cluster:
    """The cluster of a directory; without a ``cluster.toml`` there, a new one."""
    toml = directory / TOML
    if not toml.exists():
        directory.mkdir(parents=True, exist_ok=True)
        toml.write_text(to_text(default_cluster(cluster_id=f"made-{directory.name}")))
    return parse(toml.read_text(), directory)


def make(directory: Path, of: History, seconds: float = MAKE_S) -> None:
    """Make both groups at the same time, each in a process of its own."""
    settle(directory)
    with contextlib.ExitStack() as stack:
        making: list[Process] = []
        for group in GROUPS:
            command = [sys.executable, "-m", "bench.made", str(directory), "--group", group]
            command += [
                f"--{name}={getattr(of, name)}" for name in ("orders", "stocks", "batch", "lacks")
            ]
            making.append(stack.enter_context(running(command, directory / f"made-{group}.log")))
        wait_for(lambda: _ended(making), "the made data", (), seconds)
    flush(directory)


def _ended(processes: Sequence[Process]) -> bool:
    """Whether all have done their work; raises NotStarted if one has failed."""
    for process in processes:
        process.check()
    return not any(process.is_running for process in processes)


def main() -> int:
    """Make the data directories that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m bench.made", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="DIRECTORY")
    parser.add_argument("--orders", type=int, default=1_000_000)
    parser.add_argument("--stocks", type=int, default=History(0).stocks)
    parser.add_argument("--batch", type=int, default=History(0).batch, help="orders in an entry")
    parser.add_argument("--lacks", type=int, default=0, help="orders that order-1 lacks")
    parser.add_argument("--group", choices=list(GROUPS), help="make this group alone")
    options = parser.parse_args()
    of = History(options.orders, options.stocks, options.batch, options.lacks)
    if options.group is None:
        make(options.directory, of)
    else:
        # There are no reference cycles here, and looking for them would take a tenth of the time.
        gc.disable()
        GROUPS[options.group](settle(options.directory), of)
    return 0


if __name__ == "__main__":
    sys.exit(main())
