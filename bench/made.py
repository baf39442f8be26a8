"""Data directories of a cluster with a long history, made without trading it order by order.

``python -m bench.made DIRECTORY --orders N`` makes what ``twstock up --data DIRECTORY`` goes on
with as with data of its own. The logs and tables are written by the project's own storage code
and state machines; only the flushes are left out until the end.
"""

import argparse
import contextlib
import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from bench import history
from bench.history import TERM, History
from bench.processes import Process, running, wait_for
from twstock.catalog.state import CatalogState
from twstock.catalog.tables import CatalogTables
from twstock.config import Cluster, default_cluster, parse
from twstock.order.state import OrderState
from twstock.order.tables import OrderTables
from twstock.plan import to_text
from twstock.replication.database import Database, Tables
from twstock.replication.disk import Files
from twstock.replication.driver import StateMachine
from twstock.replication.messages import Entry, EntryKind, HardState, Persist
from twstock.replication.storage import FileStorage, Owner
from twstock.rpc.wire.commands import encode_catalog_command, encode_order_record

TOML = "cluster.toml"
APPLIED = "applied.sqlite"
LEADER = 3
"""Who led the order group: the highest id, as in a cluster at rest."""
WRITE_ENTRIES = 8
SAVE_ENTRIES = 5_000
SAVED_APART_S = 60.0
"""By the database's clock: more than it ever waits."""
SETTLES_MAX = 10_000
CACHE_KIBIBYTES = 500_000
MAKE_S = 1200.0
BYTES_PER_ORDER = 1000
"""At most, with everything that all members keep."""


class Unflushed(Files):
    """System calls without flushes: one at the end is enough for what nobody was promised."""

    def fdatasync(self, fd: int) -> None:
        """Leave it to the kernel."""

    def fsync(self, fd: int) -> None:
        """Leave it to the kernel."""


class _AtOnce:
    """In place of a pool of threads: everything is done before the call returns."""

    def callInThread(self, function: Callable[..., object], *arguments: object) -> None:
        """Do it."""
        function(*arguments)


class Log:
    """One member's directory while its log is written."""

    def __init__(self, cluster: Cluster, group: str, number: int) -> None:
        members = [replica.id for replica in cluster.replicas(group)]
        peers = {peer: incarnation(group, peer) for peer in members if peer != number}
        self.path = cluster.data_of(group, number)
        owner = Owner(group, cluster.cluster_id, number, tuple(sorted(members)))
        self._storage = FileStorage(
            self.path,
            owner,
            cluster.limits.segment_bytes,
            cluster.limits.spare_segments,
            lambda: incarnation(group, number),
            files=Unflushed(),
        )
        self._storage.open()
        self._storage.form(peers)
        self._state: HardState | None = HardState(TERM, min(LEADER, max(members)))
        self._sequence = 0
        self._waiting: list[Entry] = []

    def append(self, entry: Entry) -> None:
        """Add an entry; a few of them are written together, as under load."""
        self._waiting.append(entry)
        if len(self._waiting) >= WRITE_ENTRIES:
            self._write()

    def close(self) -> None:
        """Write what waits, and everything that an idle member writes."""
        self._write()
        for _ in range(SETTLES_MAX):
            if not self._storage.settle():
                break
        self._storage.close()

    def _write(self) -> None:
        self._sequence += 1
        self._storage.write([Persist(self._sequence, self._state, tuple(self._waiting))])
        self._state, self._waiting = None, []


class Applied:
    """The applied state while it is saved: the tables of one member."""

    def __init__(self, path: Path, tables: Tables) -> None:
        threads: Any = _AtOnce()
        self.path = path
        self._database = Database(path, tables, threads, lambda f, *a: f(*a), _give_up)
        self._database.open()
        run = self._database.connection.execute
        run("PRAGMA journal_mode=OFF")
        run("PRAGMA synchronous=OFF")
        run(f"PRAGMA cache_size=-{CACHE_KIBIBYTES}")
        self._records = 0
        self._now = 0.0

    def apply(self, machine: StateMachine, entry: Entry) -> object:
        """Have a state machine apply an entry, as a member does; returns what it changed."""
        change = None
        if entry.kind is EntryKind.COMMAND:
            change = machine.apply(entry.index, entry.payload).change
        self._database.record(entry.index, machine.digest, change)
        self._records += 1
        if self._records % SAVE_ENTRIES == 0:
            self.save()
        return change

    def save(self) -> None:
        """One transaction with all that was applied since the last one."""
        self._now += SAVED_APART_S
        self._database.save(self._now)
        if self._database.backlog:
            raise AssertionError(f"{self.path}: {self._database.backlog} entries are not saved")

    def copy(self, directory: Path) -> None:
        """Another member is in the same state."""
        self.save()
        shutil.copyfile(self.path, directory / APPLIED)

    def close(self) -> None:
        """Save the rest."""
        self.save()
        self._database.connection.execute("PRAGMA journal_mode=WAL")
        self._database.close()


def _give_up(failure: Any) -> None:
    failure.raiseException()


def incarnation(group: str, number: int) -> int:
    """The incarnation of one member: known to all others, as after the first start."""
    return Random(f"{group}-{number}").getrandbits(63) | 1


def make_catalog(cluster: Cluster, of: History) -> None:
    """The catalog's directory: filled, then every batch traded."""
    log, limits = Log(cluster, "catalog", 1), cluster.limits
    tables = CatalogTables(limits.refused_keys_max, limits.refused_keys_s)
    machine = CatalogState(limits.refused_keys_max, limits.refused_keys_s)
    applied = Applied(log.path / APPLIED, tables)

    def payloads() -> Iterator[bytes]:
        yield encode_catalog_command(history.seed(of))
        yield encode_catalog_command(history.epoch())
        for batch in history.batches(of):
            yield encode_catalog_command(batch)

    for entry in _entries(payloads()):
        log.append(entry)
        applied.apply(machine, entry)
    if machine.last_number != of.orders:
        raise AssertionError(f"{machine.last_number} of {of.orders} orders were executed")
    log.close()
    applied.close()


def make_orders(cluster: Cluster, of: History) -> None:
    """The directories of all order replicas."""
    logs = [Log(cluster, "order", replica.id) for replica in cluster.orders]
    first, *others = logs
    machine = OrderState(0, b"", cluster.limits.recent_orders)
    applied = Applied(others[0].path / APPLIED, OrderTables(cluster.limits.recent_orders))
    # The last index of the replica that lacks some.
    whole = 1 + (of.orders - of.lacks) // of.batch
    payloads = (
        encode_order_record(history.trades(batch, of.stocks)) for batch in history.batches(of)
    )
    for entry in _entries(payloads):
        for log in logs if entry.index <= whole or not of.lacks else others:
            log.append(entry)
        applied.apply(machine, entry)
        machine.saved(entry.index)
        if of.lacks and entry.index == whole:
            applied.copy(first.path)
    for log in logs:
        log.close()
    applied.close()
    for log in others[1:] if of.lacks else [first, *others[1:]]:
        shutil.copyfile(applied.path, log.path / APPLIED)


def _entries(payloads: Iterator[bytes]) -> Iterator[Entry]:
    """A log of one term: the entry that begins it, then one for each payload."""
    yield Entry(1, TERM, EntryKind.NOOP)
    for index, payload in enumerate(payloads, 2):
        yield Entry(index, TERM, EntryKind.COMMAND, payload)


GROUPS = {"catalog": make_catalog, "order": make_orders}


def settle(directory: Path) -> Cluster:
    """The cluster of a directory; without a ``cluster.toml`` there, a new one."""
    toml = directory / TOML
    if not toml.exists():
        directory.mkdir(parents=True, exist_ok=True)
        toml.write_text(to_text(default_cluster(cluster_id=f"made-{directory.name}")))
    return parse(toml.read_text(), directory)


def flush(directory: Path) -> None:
    """Have everything on the disk, so that no measurement pays for it."""
    for path in directory.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


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
        # Nothing here refers to itself, and looking for what does would take a tenth of the time.
        gc.disable()
        GROUPS[options.group](settle(options.directory), of)
    return 0


if __name__ == "__main__":
    sys.exit(main())
