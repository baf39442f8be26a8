"""Histories that the benchmark makes without trading: every part of the project accepts them as its
own.
"""

import sqlite3

import pytest

from bench import history, made
from bench.history import History, long
from tests.cluster_fixture import Cluster
from tests.states import rows_of
from twstock.catalog.state import CatalogState
from twstock.catalog.tables import CatalogTables
from twstock.config import Limits
from twstock.market import RefusalBounds, Side
from twstock.order.tables import OrderTables, by_keys, page
from twstock.order.views import HEADER
from twstock.replication.messages import HardState
from twstock.replication.promises import Owner
from twstock.replication.storage import FileStorage
from twstock.rpc.wire.commands import encode_catalog_command

LIMITS = Limits()
ORDERS = 1000


def machine():
    """A catalog without stocks."""
    return CatalogState(LIMITS.refused_keys_max, LIMITS.refused_keys_s)


@pytest.mark.parametrize(("orders", "stocks", "batch"), [(100, 12, 20), (101, 7, 10), (30, 40, 1)])
def test_the_trades_are_what_the_catalog_makes_of_the_batches(orders, stocks, batch):
    """The logs of the two groups are made separately, and agree."""
    of, catalog = History(orders, stocks, batch), machine()
    commands = [history.seed(of), history.epoch(), *history.batches(of)]
    for index, command in enumerate(commands, 2):
        change = catalog.apply(index, encode_catalog_command(command)).change
        if index > 3:
            assert change.executed == history.trades(command, stocks)
    assert (catalog.last_transaction, of.batches) == (orders, len(commands) - 2)
    assert catalog.stock(history.names(stocks)[0]).version == -(-orders // stocks)


def test_a_history_is_the_same_every_time():
    """So two processes can make it without telling each other anything."""
    assert list(history.batches(History(50))) == list(history.batches(History(50)))
    first, *others = (order for batch in history.batches(History(50)) for order in batch.orders)
    assert first.side is Side.SELL
    assert len({order.key for order in (first, *others)}) == 50


def test_names_begin_with_those_of_every_cluster():
    """The stocks that the benchmark asks for exist at every size."""
    assert history.names(10) == list(history.STOCKS[:10])
    assert len(set(history.names(1000))) == 1000
    assert history.names(1000)[:12] == list(history.STOCKS)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster with a thousand orders, of which its first order replica lacks a tenth."""
    found = Cluster(tmp_path_factory.mktemp("made"))
    config = made.settle(found.directory)
    made.make_catalog(config, long(ORDERS))
    made.make_orders(config, long(ORDERS))
    return found


def opened(config, group, number):
    """What the storage of one member says: promises and the log's last entry."""
    members = tuple(replica.id for replica in config.replicas(group))
    owner = Owner(group, config.cluster_id, number, members)
    limits = config.limits
    storage = FileStorage(
        config.data_of(group, number), owner, limits.segment_bytes, limits.spare_segments, lambda: 1
    )
    try:
        loaded = storage.open()
        return loaded, loaded.log.last_index
    finally:
        storage.close()


def test_the_storage_opens_what_was_made(cluster):
    """Every member is formed and knows the others; only the one that was down has less."""
    last = {}
    for number in (1, 2, 3):
        loaded, last[number] = opened(cluster.config, "order", number)
        assert loaded.formed
        assert loaded.incarnation == made.incarnation("order", number)
        assert loaded.hard_state == HardState(1, 3)
        others = {1, 2, 3} - {number}
        assert loaded.peers == {peer: made.incarnation("order", peer) for peer in others}
    assert last == {1: 1 + 45, 2: 1 + 50, 3: 1 + 50}
    loaded, index = opened(cluster.config, "catalog", 1)
    assert (loaded.formed, loaded.hard_state, index) == (True, HardState(1, 1), 3 + 50)


def test_the_csv_files_are_there(cluster):
    """Except for that of the replica that was down, which writes its own."""
    views = {number: made.view_of(cluster.config, number) for number in (1, 2, 3)}
    assert not views[1].exists()
    lines = views[2].read_text().splitlines()
    assert (len(lines), lines[0]) == (1 + ORDERS, HEADER.strip())
    assert lines[-1].startswith(f"{ORDERS},")
    assert views[3].read_bytes() == views[2].read_bytes()


def test_the_tables_hold_what_was_applied(cluster):
    """As far as the log of each replica goes, with the digest of a replica that applied it."""
    applied = {}
    for number in (1, 2, 3):
        path = cluster.config.data_of("order", number) / made.APPLIED
        with sqlite3.connect(path) as connection:
            applied[number] = connection.execute("SELECT * FROM applied").fetchone()
            state = OrderTables(10).load(connection, b"")
            assert state.last_number == (900 if number == 1 else ORDERS)
            [first, *_] = page(connection, 0, 10)
            assert by_keys(connection, [first.order.key]) == {first.order.key: first}
        connection.close()
    assert applied[2] == applied[3]
    assert (applied[1][1], applied[2][1]) == (1 + 45, 1 + 50)
    with sqlite3.connect(cluster.config.data_of("catalog", 1) / made.APPLIED) as connection:
        tables = CatalogTables(LIMITS.refused_keys_max, LIMITS.refused_keys_s)
        catalog = tables.load(connection, b"")
    connection.close()
    assert (catalog.fence, catalog.last_transaction, catalog.recorded) == (1, ORDERS, ORDERS - 20)
    bounds = RefusalBounds.of(LIMITS.refused_keys_max, LIMITS.refused_keys_s)
    assert rows_of(catalog).bounds == bounds


@pytest.mark.processes
def test_a_cluster_goes_on_with_what_was_made(cluster):
    """It starts, the replica that was down catches up, the logs agree, and it trades on."""
    with cluster:
        cluster.await_healthy()
        assert cluster.trade("GameStart", 1, "sell") == ORDERS + 1
        cluster.assert_verified()
        assert len(cluster.log("order-1")) == ORDERS + 1
