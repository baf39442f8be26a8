"""Rows have a checksum: a wrong bit in SQLite's file is refused, wherever the row is read."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.members import ClockThreads
from twstock.catalog.state import CatalogState
from twstock.catalog.tables import CatalogTables
from twstock.errors import CorruptTables
from twstock.market import Batch, BeginEpoch, Order, Seed, Side, Stock, Trade
from twstock.order import tables as orders
from twstock.order.oldkeys import OldKeys
from twstock.order.tables import OrderTables
from twstock.replication.database import SAVE_EVERY_S, Database
from twstock.replication.tier import Tables
from twstock.rows import checked, checksum, to_trade, trade_row
from twstock.rpc.wire.commands import encode_catalog_command

ADVICE = "; it can be deleted, the log rebuilds it"
QUANTITY = 0x2A17C3
SHARES = 0x5B3355D1
TRADE = Trade(1, Order("key", "Fish", Side.SELL, QUANTITY), 7, 1599, 1_700_000_000_000)


class Scene:
    """A database with a clock, whose panics are collected."""

    def __init__(self, path: Path, tables: Tables) -> None:
        self.clock = Clock()
        self.panics: list[Failure] = []
        threads: Any = ClockThreads(self.clock)
        self.database = Database(path, tables, threads, self.deliver, self.panics.append)

    def deliver(self, function: Callable[..., object], *args: Any) -> None:
        """Call it on the clock, as the reactor would."""
        self.clock.callLater(0, function, *args)

    def outcome(self, waited_for: Any) -> Any:
        """The result of a Deferred, or its Failure, after a moment."""
        outcomes: list[Any] = []
        waited_for.addBoth(outcomes.append)
        self.clock.pump([0.001] * 10)
        return outcomes[0]

    def save(self, *changes: object) -> None:
        """Open the database, save these changes, and close it."""
        self.database.open()
        for index, change in enumerate(changes, 1):
            self.database.record(index, b"", change)
        self.database.save(SAVE_EVERY_S)
        self.clock.pump([0.001] * 10)
        self.database.close()


def flip(path: Path, value: int, nth: int = 0) -> None:
    """Flip the lowest bit of an integer at its ``nth`` place in the file."""
    content, wanted = bytearray(path.read_bytes()), value.to_bytes(4, "big").lstrip(b"\0")
    position = -1
    for _ in range(nth + 1):
        position = content.index(wanted, position + 1)
    content[position + len(wanted) - 1] ^= 1
    path.write_bytes(content)


def of_catalog() -> list[object]:
    """The changes of the catalog's first commands: two stocks, and a trade that no order records
    yet.
    """
    state = CatalogState(10, 10.0)
    stocks = Stock("Fish", 1599, SHARES, initial_quantity=SHARES), Stock("Game", 5, 5)
    commands = (
        Seed(stocks),
        BeginEpoch(1, 0),
        Batch(1, 1, 0, 0, 1, (Order("key", "Fish", Side.BUY, QUANTITY),)),
    )
    payloads = enumerate(map(encode_catalog_command, commands), 1)
    return [state.apply(index, payload).change for index, payload in payloads]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the tables are."""
    return tmp_path / "applied.sqlite"


@pytest.fixture
def service(path: Path) -> Iterator[Scene]:
    """An order replica's database with three orders."""
    scene = Scene(path, OrderTables(1))
    scene.save(
        [TRADE._replace(number=n, order=TRADE.order._replace(key=f"k{n}")) for n in (1, 2, 3)]
    )
    yield scene
    scene.database.close()


def test_every_bit_of_a_row_counts() -> None:
    """A row in which one bit of any value differs is refused."""
    row = trade_row(TRADE)
    assert to_trade(row) == TRADE
    for place, value in enumerate(row):
        others: list[Any] = []
        if isinstance(value, int):
            others = [value ^ (1 << bit) for bit in range(63)]
        else:
            content = value.encode()
            for bit in range(7 * len(content)):
                flipped = bytearray(content)
                flipped[bit // 7] ^= 1 << bit % 7
                others.append(flipped.decode())
        for other in others:
            with pytest.raises(CorruptTables):
                to_trade((*row[:place], other, *row[place + 1 :]))


def test_a_value_does_not_pass_for_its_neighbour() -> None:
    """Rows with the same characters, split between two columns in another way, have other
    checksums.
    """
    assert checksum((1, 23)) != checksum((12, 3))
    assert checked((1, "a", None)) == (1, "a")


def test_checksums_are_what_files_have() -> None:
    """Checksums never change, because rows that an older version stored must be found intact."""
    assert trade_row(TRADE)[-1] == 53125349
    assert checksum(("Gr\xf6\xdfe\u0378\n'", 1)) == 219079780


def read_keys(connection: sqlite3.Connection, last: int) -> None:
    """Read the keys of all orders."""
    keys = OldKeys()
    keys.load(connection, last)
    keys.read(connection, last)


READS: dict[str, Callable[[sqlite3.Connection], object]] = {
    "number": lambda connection: orders.by_number(connection, 2),
    "page": lambda connection: orders.page(connection, 0, 3),
    "keys": lambda connection: read_keys(connection, 3),
    "key": lambda connection: orders.by_keys(connection, ["k2"]),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_an_order_with_a_wrong_bit_ends_the_process(
    service: Scene, path: Path, read: Callable[[sqlite3.Connection], object]
) -> None:
    """Whoever asks gets an error, and the process ends with the row, the file and the advice,
    whichever way the order is read.
    """
    flip(path, QUANTITY, 1)
    assert service.outcome(service.database.load())[0] == 1
    failure = service.outcome(service.database.read(read))
    assert failure.check(CorruptTables)
    (panic,) = service.panics
    assert panic.check(CorruptTables)
    assert panic.getErrorMessage() == f"{path}: the row of 2 is damaged{ADVICE}"


def test_the_last_order_is_looked_at_when_it_is_loaded(path: Path) -> None:
    """The number of orders is taken from the last row, so its damage prevents loading."""
    Scene(path, OrderTables(1)).save([TRADE])
    flip(path, QUANTITY)
    scene = Scene(path, OrderTables(1))
    failure = scene.outcome(scene.database.load())
    assert failure.check(CorruptTables)
    assert failure.getErrorMessage() == f"{path}: the row of 1 is damaged{ADVICE}"
    scene.database.close()


def test_an_order_that_is_gone_is_damage(service: Scene, path: Path) -> None:
    """Order numbers have no gaps: a number that is missing is damage, not an unknown order."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM orders WHERE number = 2")
    service.database.open()
    assert service.outcome(service.database.read(READS["number"])).check(CorruptTables)
    assert len(service.panics) == 1


@pytest.mark.parametrize(
    ("value", "nth"), [(QUANTITY, 0), (SHARES - QUANTITY, 0), (SHARES, 0)], ids=["kept", "s", "i"]
)
def test_a_catalog_with_a_wrong_bit_does_not_start(path: Path, value: int, nth: int) -> None:
    """The wrong bit is in a stock, or in a trade that no order records yet."""
    tables = CatalogTables(10, 10.0)
    Scene(path, tables).save(*of_catalog())
    scene = Scene(path, tables)
    assert not isinstance(scene.outcome(scene.database.load()), Failure)
    scene.database.close()
    flip(path, value, nth)
    failure = scene.outcome(scene.database.load())
    assert failure.check(CorruptTables)
    assert f"is damaged{ADVICE}" in failure.getErrorMessage()
    scene.database.close()


def test_tables_of_before_are_read_and_get_checksums(path: Path) -> None:
    """Tables of a version without checksums get the column. Their rows are read unchecked, and new
    rows have a checksum.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for name, table in (("orders", OrderTables(1)), ("catalog", CatalogTables(10, 10.0))):
            without = table.schema.replace(",\n        crc INTEGER", "")
            assert without != table.schema, name
            connection.executescript(without)
        columns = "number, key, name, side, quantity, version, price_cents, at_ms"
        row = trade_row(TRADE)[:-1]
        connection.execute(f"INSERT INTO orders ({columns}) VALUES (?,?,?,?,?,?,?,?)", row)
        connection.execute("INSERT INTO stocks VALUES ('Fish', 1, 1, 0, 0, 1)")
        assert CatalogTables(10, 10.0).load(connection, b"").stock("Fish") is not None
        for last in (1, 2):  # the second time there is nothing to add
            assert OrderTables(1).load(connection, b"").last_number == last
            new = TRADE._replace(number=last + 1, order=TRADE.order._replace(key=f"k{last}"))
            OrderTables(1).save(connection, [[new]])
        sums = connection.execute("SELECT crc IS NULL FROM orders ORDER BY number")
        assert sums.fetchall() == [(1,), (0,), (0,)]
        assert orders.by_number(connection, 1) == TRADE
        connection.execute("UPDATE orders SET quantity = 5 WHERE number = 2")
        with pytest.raises(CorruptTables):
            orders.by_number(connection, 2)


def test_damage_that_saving_comes_across_ends_the_process(service: Scene, path: Path) -> None:
    """SQLite finds a damaged page when it saves: the process ends with the same advice."""
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))
    with pytest.raises(CorruptTables):
        service.database.open()
    service.database.record(9, b"", [TRADE._replace(number=4)])
    service.database.save(SAVE_EVERY_S * 2)
    service.clock.pump([0.001] * 10)
    (panic,) = service.panics
    assert panic.getErrorMessage().endswith(ADVICE)
