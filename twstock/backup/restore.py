"""A new cluster from a backup: every order and change is carried out again, offline.

The directories are made by the members' own code: their logs, their state machines, their
tables. Members find them as if they had written them. But it is a new cluster, whose members have
new incarnations: none can be mistaken for a member of the old cluster.

Before the backup is read, the file ``restore-unfinished`` is made in the directory, and until it
is removed neither ``twstock up`` nor a member starts there; ``cluster.toml`` is written last.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import SystemRandom
from uuid import uuid4

from twstock.backup.files import Contents, Exists, check, write_text
from twstock.backup.journal import Event
from twstock.backup.ledger import Ledger
from twstock.backup.playback import Playback
from twstock.backup.replay import EPOCH, batch_of, steps
from twstock.backup.sealed import CHUNK_BYTES, Damaged
from twstock.catalog.changes import Change, KeyedChange
from twstock.catalog.state import CatalogState
from twstock.catalog.tables import CatalogTables
from twstock.config import Cluster
from twstock.durable import flush_path
from twstock.errors import BrokenInvariant, TwstockError
from twstock.market import (
    BeginEpoch,
    CatalogCommand,
    ChangeRequest,
    ChangeStock,
    RefusalBounds,
    Seed,
    Stock,
    StockChange,
    Trade,
)
from twstock.order.state import OrderState
from twstock.order.tables import OrderTables
from twstock.plan import TOML, to_text
from twstock.process import UNFINISHED_RESTORE
from twstock.replication.offline import Group, flush
from twstock.replication.tier import StateMachine, Tables
from twstock.rpc.wire.commands import encode_catalog_command, encode_order_record


class CannotRestore(TwstockError):
    """A backup is undamaged, and yet this program cannot carry out again what is in it."""


def restore(path: Path, cluster: Cluster, done: Callable[[], None] = lambda: None) -> Contents:
    """Make the data of a new cluster in ``cluster.data``, calling ``done`` after each order and
    change twice: when it was checked, and when it was carried out.

    Raises Exists when the directory is not empty, Damaged, NewerFormat, CannotRestore, OSError.
    Until the backup has been read to its end, only ``restore-unfinished`` is written.
    """
    directory = cluster.data
    with _claimed(directory):
        found = check(path, done)
    with path.open("rb") as file:
        playback = Playback(iter(lambda: file.read(CHUNK_BYTES), b""))
        _make(cluster, playback, done)
    if Contents.of(playback.header, playback.ledger) != found:
        raise Damaged(f"{path}: it was changed while it was read")
    flush(directory)
    write_text(directory / TOML, to_text(cluster))
    (directory / UNFINISHED_RESTORE).unlink()
    flush_path(directory)
    return found


@contextmanager
def _claimed(directory: Path) -> Iterator[None]:
    """Mark a new or empty directory as that of a restore, then check again that it is empty: what
    begins to use it after that sees the mark. After an error the mark is removed, and the directory
    if it is new. Raises Exists.
    """
    _refuse_used(directory)
    is_new = not directory.exists()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark = directory / UNFINISHED_RESTORE
    try:
        write_text(
            mark, "Unless a restore is under way, remove this directory, and restore again.\n"
        )
    except FileExistsError:
        raise Exists(f"another backup is being restored into {directory}") from None
    try:
        _refuse_used(directory, mark)
        yield
    except BaseException:
        mark.unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):  # a cluster that has seen the mark left its lock
                directory.rmdir()
        raise


def _refuse_used(directory: Path, mark: Path | None = None) -> None:
    if directory.exists() and (not directory.is_dir() or {*directory.iterdir()} - {mark}):
        raise Exists(f"{directory} is not empty; a backup is restored into a new directory")


class _Groups:
    """Both groups of a cluster while they are made."""

    def __init__(self, cluster: Cluster, stack: ExitStack) -> None:
        limits, random = cluster.limits, SystemRandom()
        bounds = limits.refused_keys_max, limits.refused_keys_s
        self._bounds = RefusalBounds.of(*bounds)
        self._catalog_state = CatalogState(*bounds)
        self._order_state = OrderState(0, b"", limits.recent_orders)

        def made(group: str, machine: StateMachine, tables: Tables) -> Group:
            one = Group(cluster, group, machine, tables, lambda: random.getrandbits(63) | 1)
            stack.callback(one.abandon)
            return one

        self._catalogs = made("catalog", self._catalog_state, CatalogTables(*bounds))
        self._orders = made("order", self._order_state, OrderTables(limits.recent_orders))
        self._batches = 0

    def begin(self, stocks: Iterable[Stock]) -> None:
        """Begin with these stocks, and with the epoch of the only order leader."""
        self._command(Seed(tuple(stocks), self._bounds))
        self._command(BeginEpoch(EPOCH, 0))

    def trade(self, trades: tuple[Trade, ...]) -> None:
        """Execute and record orders. Raises CannotRestore when the resulting trades differ."""
        self._batches += 1
        made = self._command(batch_of(self._batches, trades))
        if made is None or made.executed != trades:
            raise CannotRestore(f"orders {trades[0].number} to {trades[-1].number} cannot execute")
        self._orders.append(encode_order_record(trades))
        self._order_state.saved(self._orders.last_index)

    def change(self, change: StockChange) -> None:
        """Carry out a change that is no trade, with a random key: backups do not have its key."""
        request = ChangeRequest(f"restored-{uuid4().hex}", *change[1:5])
        made = self._command(ChangeStock(request, change.at_ms))
        if made is None or made.administered.made != (KeyedChange(request.key, change),):
            raise CannotRestore(f"change {change.number} cannot be carried out again")

    def close(self, wanted: Ledger) -> None:
        """Write the rest. Raises CannotRestore when the stocks are not what they should be."""
        if list(self._catalog_state.stocks()) != wanted.stocks():
            raise CannotRestore("the orders do not make the stocks what they were")
        self._catalogs.close()
        self._orders.close()

    def _command(self, command: CatalogCommand) -> Change | None:
        """Have the catalog apply a command; returns what it changed."""
        made: Change | None = self._catalogs.append(encode_catalog_command(command))
        return made


def _make(cluster: Cluster, playback: Playback, done: Callable[[], None]) -> None:
    """The directories of all members."""
    with ExitStack() as stack:
        groups = _Groups(cluster, stack)
        groups.begin(playback.stocks)
        events = _counted(playback.events(), done)
        try:
            for step in steps(events, cluster.limits.batch_orders_max):
                if isinstance(step, StockChange):
                    groups.change(step)
                else:
                    groups.trade(step)
            groups.close(playback.ledger)
        except (sqlite3.IntegrityError, BrokenInvariant) as error:
            raise CannotRestore(f"it cannot be carried out again: {error}") from None


def _counted(events: Iterable[Event], done: Callable[[], None]) -> Iterator[Event]:
    for event in events:
        done()
        yield event
