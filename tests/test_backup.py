"""Backups taken of members, and clusters made from backups: in this process, and with real ones."""

import contextlib
import csv
import json
import os
import re
import shlex
import signal
import sqlite3
import stat
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import given, settings

from tests.cluster_fixture import Cluster, free_ports, wait_until
from tests.histories import History, backup_of, histories
from tests.states import rows_of
from twstock.backup import restore as restoring
from twstock.backup.files import Contents, Exists, check, write, write_text
from twstock.backup.journal import NewerFormat
from twstock.backup.ledger import Contradiction
from twstock.backup.restore import CannotRestore, restore
from twstock.backup.sealed import Damaged, sealed
from twstock.backup.source import OrderLog, Picture, look
from twstock.backup.spreadsheet import export_csv
from twstock.catalog.tables import CatalogTables
from twstock.cli import INTERRUPTED, main
from twstock.cluster import Directory
from twstock.config import Limits, default_cluster, parse
from twstock.errors import ConfigError
from twstock.market import ChangeKind, Order, RefusalBounds, Side, Stock, Trade
from twstock.order.tables import OrderTables, page
from twstock.plan import Flags, to_text
from twstock.process import UNFINISHED_RESTORE
from twstock.replication.messages import HardState
from twstock.replication.offline import APPLIED
from twstock.replication.promises import Owner
from twstock.replication.storage import FileStorage
from twstock.rest import Unreachable

LIMITS = Limits(segment_bytes=4 * 1024 * 1024)


class Replica:
    """An order replica that has some orders, and answers a few of them at a time.

    ``fails_after``: it answers no more once it has given so many.
    """

    def __init__(self, name, trades, role="follower", term=1, fails_after=None):
        self.name, self.log, self.role, self.term = name, list(trades), role, term
        self.fails_after = fails_after
        self.asked = []

    def status(self):
        """What it tells of itself."""
        if self.fails_after == 0:
            raise Unreachable(f"{self.name}: connection refused")
        return SimpleNamespace(
            role=self.role,
            ready=self.role == "leader",
            term=self.term,
            last_transaction=len(self.log),
            cluster_id="of a test",
        )

    def trades(self, after=0):
        """The orders after a number."""
        self.asked.append(after)
        for trade in self.log[after:]:
            if self.fails_after is not None and trade.number > self.fails_after:
                raise Unreachable(f"{self.name}: connection reset")
            yield trade


class Catalog:
    """A catalog that leads."""

    name = "catalog-1"

    def __init__(self, stocks, changes=(), unlisted=0):
        self._stocks, self._changes, self._unlisted = stocks, changes, unlisted

    def stocks(self):
        """All stocks."""
        return iter(self._stocks)

    def changes_made(self):
        """How many changes there are."""
        return len(self._changes)

    def changes(self):
        """Those that are listed: one more each time."""
        self._unlisted -= 1
        return iter(self._changes[: len(self._changes) - max(0, self._unlisted + 1)])


def happened(steps=40, kinds=tuple(Side), seed=1):
    """A history of orders of several moments."""
    random, history = Random(seed), History()
    while len(history.events) < steps:
        kind, name = random.choice(kinds), random.choice("AB")
        history.attempt((kind, name, random.randint(1, 3), random.choice((0, 3))))
    return history


def pictured(history, last=None):
    """The picture of a cluster with a history, at one of its orders."""
    trades = history.trades
    log = OrderLog([Replica("order-1", trades)], sleep=lambda _: None)
    last = len(trades) if last is None else last
    return Picture("of a test", last, history.began, history.changes, log)


def looked(*replicas, stocks, changes=(), unlisted=0):
    """What is seen of some members."""
    catalog = Catalog(stocks, changes, unlisted)
    return look(dict(enumerate(replicas, 1)), [catalog], sleep=lambda _: None)


class TestLooking:
    """What is asked of the members of a running cluster."""

    def test_the_followers_are_read_first(self):
        """The leader has other work."""
        history = happened()
        leader = Replica("order-1", history.trades, "leader")
        followers = [Replica(f"order-{k}", history.trades) for k in (2, 3)]
        picture = looked(leader, *followers, stocks=history.ledger.stocks())
        assert list(picture.trades()) == history.trades
        assert [r.asked for r in (leader, *followers)] == [[], [0], []]
        assert (picture.cluster_id, picture.last) == ("of a test", len(history.trades))
        assert picture.began == sorted(history.began)

    def test_orders_that_a_follower_lacks_come_from_another(self):
        """A follower may be behind, or break off. No order is missed, and none comes twice."""
        history = happened()
        behind = Replica("order-1", history.trades[:7])
        broken = Replica("order-2", history.trades, fails_after=20)
        leader = Replica("order-3", history.trades, "leader")
        picture = looked(behind, broken, leader, stocks=history.ledger.stocks())
        assert list(picture.trades()) == history.trades
        assert (behind.asked, broken.asked, leader.asked) == ([0], [7], [20])

    def test_the_leader_of_the_newest_term_knows_the_last_order(self):
        """An older leader may not know that it was replaced."""
        history = happened()
        old = Replica("order-1", history.trades[:5], "leader", term=1)
        new = Replica("order-2", history.trades, "leader", term=2)
        picture = looked(old, new, stocks=history.ledger.stocks())
        assert picture.last == len(history.trades)

    def test_orders_that_come_later_are_left_out(self):
        """Trading goes on, but the backup is of one moment."""
        history = happened()
        leader = Replica("order-1", history.trades[:9], "leader")
        picture = looked(leader, stocks=history.ledger.stocks())
        leader.log = history.trades
        assert list(picture.trades()) == history.trades[:9]

    def test_nobody_to_ask(self, monkeypatch):
        """Without a leader, or when all members break off, the error says which could not be
        reached.
        """
        monkeypatch.setattr("twstock.backup.source.PATIENCE_S", -1.0)
        history = happened()
        down = Replica("order-1", history.trades, fails_after=0)
        follower = Replica("order-2", history.trades)
        with pytest.raises(Unreachable, match="no order replica leads; order-1: connection"):
            looked(down, follower, stocks=BEGAN)
        broken = Replica("order-1", history.trades, "leader", fails_after=3)
        picture = looked(broken, stocks=history.ledger.stocks())
        with pytest.raises(Unreachable, match="order-1: connection reset"):
            list(picture.trades())

    def test_changes_that_are_not_listed_yet_are_waited_for(self, monkeypatch):
        """A stock may be shown as one of them made it."""
        history = happened(kinds=(*Side, ChangeKind.RESTOCK))
        leader = Replica("order-1", history.trades, "leader")
        shown = {"stocks": history.ledger.stocks(), "changes": history.changes}
        picture = looked(leader, **shown, unlisted=3)
        assert (picture.changes, picture.began) == (history.changes, sorted(history.began))
        monkeypatch.setattr("twstock.backup.source.PATIENCE_S", -1.0)
        with pytest.raises(Unreachable, match=f"of {len(history.changes)} changes"):
            looked(leader, **shown, unlisted=3)

    def test_the_price_before_the_first_change_is_that_of_the_first_order(self):
        """Nothing else tells it. Only then are the orders read twice."""
        history = History()
        for step in [(Side.BUY, "A", 1, 1), (ChangeKind.PRICE, "A", 7, 1), (Side.BUY, "A", 2, 1)]:
            history.attempt(step)
        leader = Replica("order-1", history.trades, "leader")
        picture = looked(leader, stocks=history.ledger.stocks(), changes=history.changes)
        assert picture.began == sorted(history.began)
        assert list(picture.trades()) == history.trades
        assert leader.asked == [0, 0]


BEGAN = happened().began
TOKEN = "the-token-of-this-cluster"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class TestFile:
    """A backup as a file."""

    def test_it_holds_what_the_picture_shows(self, tmp_path):
        """The file has all orders, changes and stocks, and only its owner can read it."""
        history, path = happened(kinds=(*Side, ChangeKind.RESTOCK)), tmp_path / "backup"
        seen = []
        told = write(path, pictured(history), 7, done=lambda: seen.append(1))
        assert told == Contents("of a test", 7, len(history.trades), len(history.changes), 4)
        assert len(seen) == len(history.events)
        assert check(path) == told
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert os.listdir(tmp_path) == ["backup"]

    def test_a_file_that_is_there_is_kept(self, tmp_path):
        """It is not replaced unless it is to be overwritten, even if it appears only while the
        backup is written.
        """
        history, path = happened(), tmp_path / "backup"
        path.write_text("precious")
        with pytest.raises(Exists, match="--force"):
            write(path, pictured(history), 1)
        assert path.read_text() == "precious"
        path.unlink()
        with pytest.raises(Exists):
            write(path, pictured(history), 1, done=lambda: path.write_text("precious"))
        assert path.read_text() == "precious"
        write(path, pictured(history), 1, force=True)
        assert check(path).last_transaction == len(history.trades)
        assert os.listdir(tmp_path) == ["backup"]

    @pytest.mark.parametrize(
        "make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/null", path)]
    )
    @pytest.mark.parametrize("force", [False, True])
    def test_what_is_no_file_is_never_replaced(self, tmp_path, make, force):
        """``twstock backup /dev/null --force``, as root, would take it away from everybody."""
        path = tmp_path / "backup"
        make(path)
        before = path.lstat()
        with pytest.raises(Exists, match="no regular file"):
            write(path, pictured(happened()), 1, force)
        assert path.lstat() == before

    def test_what_fails_leaves_no_file(self, tmp_path):
        """Here a replica contradicts itself."""
        history = happened()
        history.events[5] = history.events[5]._replace(price_cents=1)
        with pytest.raises(Contradiction):
            write(tmp_path / "backup", pictured(history), 1)
        assert os.listdir(tmp_path) == []

    def test_a_backup_of_nothing(self, tmp_path):
        """A cluster without orders has a backup as well."""
        told = write(tmp_path / "backup", pictured(History()), 1)
        assert (told.last_transaction, told.stocks) == (0, 4)

    def test_a_problem_names_the_file(self, tmp_path):
        """An operator may have many backups."""
        path = tmp_path / "backup"
        for content, error in ((b"", Damaged), (b'{"backup":9}\n', NewerFormat)):
            path.write_bytes(b"".join(sealed([content])))
            with pytest.raises(error, match=str(path)):
                check(path)


@dataclass
class Member:
    """What the directory of one member holds."""

    hard_state: HardState
    incarnation: int
    peers: dict
    last_index: int
    applied: tuple


def cluster_in(directory, **sizes):
    """A new cluster in a directory."""
    return default_cluster(directory, cluster_id="new", limits=LIMITS, **sizes)


def backed_up(history, directory):
    """A backup of a history as a file."""
    path = directory / "backup"
    path.write_bytes(backup_of(history))
    return path


def opened(cluster, group, number):
    """A member as its own storage finds it; nothing may be damaged."""
    members = tuple(replica.id for replica in cluster.replicas(group))
    owner = Owner(group, cluster.cluster_id, number, members)
    directory = cluster.data_of(group, number)
    storage = FileStorage(directory, owner, LIMITS.segment_bytes, 2, lambda: 1)
    try:
        loaded = storage.open()
        assert loaded.formed
        with contextlib.closing(sqlite3.connect(directory / APPLIED)) as connection:
            applied = connection.execute("SELECT * FROM applied").fetchone()
        last_index, peers = loaded.log.last_index, dict(loaded.peers)
        return Member(loaded.hard_state, loaded.incarnation, peers, last_index, applied)
    finally:
        storage.close()


def orders_of(cluster, number):
    """The orders in an order replica's tables."""
    path = cluster.data_of("order", number) / APPLIED
    with contextlib.closing(sqlite3.connect(path)) as connection:
        found = page(connection, 0, 10**6)
        assert OrderTables(10).load(connection, b"").last_number == len(found)
    return found


def catalog_of(cluster, number):
    """The state in a catalog's tables."""
    tables = CatalogTables(LIMITS.refused_keys_max, LIMITS.refused_keys_s)
    path = cluster.data_of("catalog", number) / APPLIED
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return tables.load(connection, b"")


class TestRestore:
    """A new cluster's directories, made from a backup."""

    @pytest.mark.parametrize(("catalogs", "orders"), [(1, 3), (3, 3), (1, 1)])
    def test_every_member_has_everything(self, tmp_path, catalogs, orders):
        """All orders with all fields, all stocks as they were, in logs of one term."""
        history = happened(300)
        cluster = cluster_in(tmp_path / "new", catalogs=catalogs, orders=orders)
        told = restore(backed_up(history, tmp_path), cluster)
        assert told.last_transaction == 300
        for number in range(1, orders + 1):
            assert orders_of(cluster, number) == history.trades
        for number in range(1, catalogs + 1):
            state = catalog_of(cluster, number)
            assert list(state.stocks()) == history.ledger.stocks()
            assert (state.last_transaction, state.fence) == (300, 1)
            bounds = RefusalBounds.of(LIMITS.refused_keys_max, LIMITS.refused_keys_s)
            assert rows_of(state).bounds == bounds
        for group in ("catalog", "order"):
            numbers = [replica.id for replica in cluster.replicas(group)]
            found = {number: opened(cluster, group, number) for number in numbers}
            known = {number: member.incarnation for number, member in found.items()}
            assert len(set(known.values())) == len(known)
            for number, member in found.items():
                assert member.hard_state == HardState(1, max(numbers))
                assert member.peers == {k: v for k, v in known.items() if k != number}
                assert member.applied == found[1].applied
                assert member.applied[1] == member.last_index == found[1].last_index

    def test_the_directory_is_ready_for_up(self, tmp_path):
        """It has its ``cluster.toml``, is readable by its owner alone, and is no longer marked as
        unfinished.
        """
        cluster = cluster_in(tmp_path / "new", fronts=2)
        restore(backed_up(happened(), tmp_path), cluster)
        assert stat.S_IMODE(cluster.data.stat().st_mode) == 0o700
        written = parse((cluster.data / "cluster.toml").read_text(), cluster.data)
        assert written == cluster
        directory = Directory(cluster.data)
        assert directory.settle(Flags(cluster.data)) == cluster
        assert not (cluster.data / UNFINISHED_RESTORE).exists()

    @settings(max_examples=10)
    @given(histories())
    def test_any_history_is_restored(self, tmp_path_factory, history):
        """However many orders and changes are of one moment. Changes keep their numbers and
        times.
        """
        directory = tmp_path_factory.mktemp("any")
        cluster = cluster_in(directory / "new", orders=1)
        restore(backed_up(history, directory), cluster)
        assert orders_of(cluster, 1) == history.trades
        catalog = catalog_of(cluster, 1)
        assert list(catalog.stocks()) == history.ledger.stocks()
        assert list(catalog.stock_changes(0, 100)) == history.changes

    def test_many_orders_of_one_moment_are_several_batches(self, tmp_path):
        """No entry is larger than one that a leader would make."""
        history = History()
        for _ in range(10):
            history.attempt((Side.SELL, "A", 1, 0))
        cluster = cluster_in(tmp_path / "new", orders=1)
        cluster = replace(cluster, limits=replace(LIMITS, batch_orders_max=4))
        restore(backed_up(history, tmp_path), cluster)
        assert orders_of(cluster, 1) == history.trades
        assert opened(cluster, "order", 1).last_index == 1 + 3

    def test_a_directory_that_is_not_empty_is_refused(self, tmp_path):
        """Nothing in it changes. An empty one can be used."""
        path, cluster = backed_up(happened(), tmp_path), cluster_in(tmp_path / "new")
        cluster.data.mkdir()
        (cluster.data / "precious").write_text("x")
        with pytest.raises(Exists, match="not empty"):
            restore(path, cluster)
        assert os.listdir(cluster.data) == ["precious"]
        (cluster.data / "precious").unlink()
        restore(path, cluster)

    def test_a_damaged_backup_is_refused_before_anything_is_written(self, tmp_path):
        """Cut short, changed, or of a newer version."""
        path, cluster = backed_up(happened(), tmp_path), cluster_in(tmp_path / "new")
        whole = path.read_bytes()
        newer = b"".join(sealed([b'{"backup":2}\n']))
        for content in (whole[:-1], whole[:50] + b"?" + whole[51:], b"", newer):
            path.write_bytes(content)
            with pytest.raises((Damaged, NewerFormat)):
                restore(path, cluster)
            assert not cluster.data.exists()

    def test_a_directory_is_claimed_before_the_backup_is_read(self, tmp_path):
        """So no cluster starts in it meanwhile, and no other restore begins."""
        path, cluster = backed_up(happened(), tmp_path), cluster_in(tmp_path / "new")
        restore(path, cluster, lambda: assert_refused(cluster))
        assert len(orders_of(cluster, 1)) == 40

    @pytest.mark.parametrize("name", ["order-1", UNFINISHED_RESTORE])
    def test_a_directory_that_others_begin_to_use_at_the_same_time_is_refused(
        self, tmp_path, monkeypatch, name
    ):
        """Between the check that it is empty and the mark: what the others put there stays, and
        nothing else.
        """
        cluster = cluster_in(tmp_path / "new")

        def meanwhile(path, text):
            (cluster.data / name).touch()
            write_text(path, text)

        monkeypatch.setattr(restoring, "write_text", meanwhile)
        with pytest.raises(Exists):
            restore(backed_up(happened(), tmp_path), cluster)
        assert os.listdir(cluster.data) == [name]

    @pytest.mark.parametrize("steps", [1, 40])
    def test_one_that_ends_while_it_reads_leaves_nothing(self, tmp_path, steps):
        """The mark is removed, and so is the directory if it was not there before."""
        cluster = cluster_in(tmp_path / "new")
        for is_new in (True, False):
            with pytest.raises(KeyboardInterrupt):
                restore(backed_up(happened(), tmp_path), cluster, ends_at(steps))
            assert cluster.data.exists() != is_new
            cluster.data.mkdir(exist_ok=True)
            assert os.listdir(cluster.data) == []

    def test_one_that_is_terminated_takes_away_what_it_began(self, tmp_path, monkeypatch, capsys):
        """SIGTERM, which would otherwise end the program at once, works like Ctrl-C."""
        path, before = backed_up(happened(), tmp_path), signal.getsignal(signal.SIGTERM)
        end = lambda _: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
        monkeypatch.setattr("twstock.commands.progress.Progress.step", end)
        assert main(["restore", str(path), "--data", str(tmp_path / "new")]) == INTERRUPTED
        assert capsys.readouterr().err == "twstock: interrupted\n"
        assert not (tmp_path / "new").exists()
        assert signal.getsignal(signal.SIGTERM) is before

    @pytest.mark.parametrize("recent_orders", [10_000, 5])
    def test_a_key_that_comes_twice_is_refused(self, tmp_path, recent_orders):
        """No cluster has executed such orders, so none may begin with them."""
        history = happened(50)
        first, last = history.events[0], history.events[-1]
        key = first.order.key
        history.events[-1] = last._replace(order=last.order._replace(key=key))
        cluster = cluster_in(tmp_path / "new")
        cluster = replace(cluster, limits=replace(LIMITS, recent_orders=recent_orders))
        with pytest.raises(CannotRestore, match="cannot be carried out again"):
            restore(backed_up(history, tmp_path), cluster)
        assert_refused(cluster)

    def test_a_file_that_changes_meanwhile_is_refused(self, tmp_path, monkeypatch):
        """It is read twice, and must be the same both times."""
        path, other = backed_up(happened(), tmp_path), backup_of(happened(41))

        def checked(*arguments):
            found = check(*arguments)
            path.write_bytes(other)
            return found

        monkeypatch.setattr(restoring, "check", checked)
        cluster = cluster_in(tmp_path / "new")
        with pytest.raises(Damaged, match="while it was read"):
            restore(path, cluster)
        assert_refused(cluster)

    @pytest.mark.parametrize("steps", [41, 60, 80])
    def test_a_restore_that_ends_early_leaves_nothing_that_starts(self, tmp_path, steps):
        """Neither ``up`` nor a second restore takes for a cluster what is left."""
        cluster = cluster_in(tmp_path / "new")
        with pytest.raises(KeyboardInterrupt):
            restore(backed_up(happened(), tmp_path), cluster, ends_at(steps))
        assert_refused(cluster)

    @pytest.mark.parametrize("call", ["flush", "to_text", "flush_path"])
    def test_one_that_fails_at_the_end_leaves_nothing_that_starts(
        self, tmp_path, monkeypatch, call
    ):
        """The mark is removed last, and as long as it is there nothing starts."""
        marked = []

        def fail(*_):
            marked.append((tmp_path / "new" / UNFINISHED_RESTORE).exists())
            raise OSError("no")

        monkeypatch.setattr(restoring, call, fail)
        cluster = cluster_in(tmp_path / "new")
        with pytest.raises(OSError, match="no"):
            restore(backed_up(happened(), tmp_path), cluster)
        assert marked == [call != "flush_path"]
        if marked[0]:
            assert_refused(cluster)


def ends_at(steps):
    """What a restore calls after each step, which Ctrl-C ends at one of them."""
    left = iter(range(steps - 1))

    def die():
        if next(left, None) is None:
            raise KeyboardInterrupt

    return die


def assert_refused(cluster):
    """Neither ``up`` nor a second restore goes on with what a restore left."""
    assert (cluster.data / UNFINISHED_RESTORE).exists()
    with pytest.raises(ConfigError, match="did not finish"):
        Directory(cluster.data).settle(Flags(cluster.data))
    with pytest.raises(Exists):
        restore(Path("none"), cluster)


def rows(path):
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class TestSpreadsheets:
    """``export --csv``."""

    def test_all_columns_of_one_moment(self, tmp_path):
        """Times as in RFC 3339, prices with decimals, and stocks as these orders made them."""
        history = History()
        for step in [
            (Side.BUY, "A", 3, 5),
            (ChangeKind.PRICE, "B", 1, 0),
            (ChangeKind.HALT, "B", 1, 0),
            (Side.SELL, "A", 1, 86_400_001),
            (Side.SELL, "A", 1, 0),
        ]:
            history.attempt(step)
        paths = export_csv(tmp_path / "out", pictured(history, last=2), lambda: None)
        assert [path.name for path in paths] == ["orders.csv", "stocks.csv"]
        orders, stocks = map(rows, paths)
        assert orders[0] == {
            "order_num": "1", "time": "2026-01-01T00:00:00.005Z", "name": "A", "type": "buy",
            "quantity": "3", "price": "1.00", "version": "1", "key": "key 1",
        }  # fmt: skip
        assert [row["time"] for row in orders[1:]] == ["2026-01-02T00:00:00.006Z"]
        a, b, *_ = sorted(stocks, key=lambda row: row["name"])[1:]
        assert a == {
            "name": "A", "price": "1.00", "quantity": "18", "volume": "4", "version": "2",
            "initial_quantity": "20", "halted": "no",
        }  # fmt: skip
        assert (b["price"], b["halted"]) == ("0.01", "yes")

    @pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1"])
    def test_no_text_is_taken_for_a_formula(self, tmp_path, text):
        """Anybody can choose names and keys. An apostrophe marks them as text."""
        stock = Stock(text, 100, 5, initial_quantity=5)
        trade = Trade(1, Order(f'{text},"x"', text, Side.BUY, 1), 1, 100, 0)
        log = OrderLog([Replica("order-1", [trade])], sleep=lambda _: None)
        picture = Picture("of a test", 1, [stock], [], log)
        orders, stocks = map(rows, export_csv(tmp_path, picture, lambda: None))
        assert orders[0]["name"] == stocks[0]["name"] == f"'{text}"
        assert orders[0]["key"] == f'\'{text},"x"'

    def test_other_texts_stay_as_they_are(self, tmp_path):
        """Quotes, commas and letters of any language are not changed."""
        text = 'Déjà, "vu" 1-2=3'
        picture = Picture("x", 0, [Stock(text, 5, 1)], [], OrderLog([Replica("order-1", [])]))
        _, stocks = map(rows, export_csv(tmp_path, picture, lambda: None))
        assert (stocks[0]["name"], stocks[0]["price"]) == (text, "0.05")

    def test_keys_are_for_their_owner_alone(self, tmp_path):
        """The file with keys can only be read by its owner, even if it was readable by all before.
        The one with stocks is for everybody.
        """
        (tmp_path / "orders.csv").touch(0o644)
        before = os.umask(0o022)
        try:
            paths = export_csv(tmp_path, pictured(happened()), lambda: None)
        finally:
            os.umask(before)
        assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o600, 0o644]

    def test_two_exports_at_once_do_not_disturb_each_other(self, tmp_path):
        """Each has files of its own until they are complete; those of the last one stay."""
        history, inner = happened(), []

        def another():
            if not inner:
                inner.append(None)
                inner[:] = export_csv(tmp_path, pictured(history), lambda: None)
                assert len(rows(inner[0])) == 40

        outer = export_csv(tmp_path, pictured(history), another)
        assert outer == inner
        assert len(rows(outer[0])) == 40
        assert sorted(os.listdir(tmp_path)) == ["orders.csv", "stocks.csv"]

    @pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
    def test_one_that_fails_changes_nothing(self, tmp_path, error):
        """The old file stays as it was, without a draft beside it."""

        def fail():
            raise error

        (tmp_path / "orders.csv").write_text("old")
        with pytest.raises(type(error)):
            export_csv(tmp_path, pictured(happened()), fail)
        assert os.listdir(tmp_path) == ["orders.csv"]
        assert (tmp_path / "orders.csv").read_text() == "old"


@contextlib.contextmanager
def trading(cluster, keys):
    """Trades and changes of stocks under way in a thread: ``keys`` gets the key and the number of
    each trade.
    """
    over, random = threading.Event(), Random(3)

    def trade():
        while not over.is_set():
            key = f"trade-{len(keys)}"
            side, name = random.choice(("buy", "sell")), random.choice(("GameStart", "FishCo"))
            body = {"name": name, "quantity": 1, "type": side}
            answer = cluster.answered("POST", "/orders", body, {"Idempotency-Key": key})
            keys[key] = body, answer["data"]["transaction_number"]
            what, body = random.choice(
                [
                    ("restock", {"quantity": 5}),
                    ("price", {"price": random.choice(["1.00", "2.50"])}),
                ]
            )
            if not random.randrange(4):
                cluster.answered("POST", f"/admin/stocks/{name}/{what}", body, BEARER)

    thread = threading.Thread(target=trade)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def documented():
    """Every command of ``docs/backup.md``, in sequence, except for starting, which has a test of
    its own.
    """
    text = (Path(__file__).parent.parent / "docs/backup.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert {words[0] for words in commands} == {"twstock"}
    return [words[1:] for words in commands if words[1] != "up"]


def moved(directory):
    """A restored cluster, moved to free ports."""
    restored = parse((directory / "cluster.toml").read_text(), directory)
    cluster = Cluster(directory, catalogs=len(restored.catalogs), orders=len(restored.orders))
    cluster.config = replace(cluster.config, cluster_id=restored.cluster_id)
    cluster.toml.write_text(to_text(cluster.config))
    return cluster


@pytest.mark.processes
def test_a_cluster_goes_on_from_its_backup(tmp_path, monkeypatch, capsys):
    """With the commands of ``docs/backup.md``, the first one while the cluster trades. The new
    cluster has the same orders, the same answers to the same keys, the next number, and equal
    replicas.
    """
    monkeypatch.chdir(tmp_path)
    backup, *others = documented()
    keys, token = {}, tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with Cluster(tmp_path / "old", "--admin-token-file", str(token)) as old:
        monkeypatch.setenv("TWSTOCK_URL", old.url)
        added = {"name": "New", "price": "3.00", "quantity": 8}
        old.answered("POST", "/admin/stocks", added, {**BEARER, "Idempotency-Key": "add"})
        old.trade("New", 2, "buy")
        old.answered("POST", "/admin/stocks/New/halt", {}, {**BEARER, "Idempotency-Key": "halt"})
        with trading(old, keys):
            wait_until(lambda: len(keys) > 20, "some trades")
            before = max(number for _, number in list(keys.values()))
            assert main([*backup, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        last = told["last_transaction"]
        assert last >= before
        changes = old.answered("GET", "/admin/changes?limit=1000")["data"]
        assert len(changes) >= told["changes"] > 2
        orders = {n: old.answered("GET", f"/orders/{n}") for n in range(1, last + 1)}
        for words in others:
            assert main(words) == 0, words
        assert len(rows(tmp_path / "tables/orders.csv")) == max(n for _, n in keys.values())
    assert main([*backup, "--force"]) == 3
    with moved(tmp_path / "restored") as new:
        new.await_healthy()
        new.assert_verified()
        assert {n: new.answered("GET", f"/orders/{n}") for n in orders} == orders
        made = new.answered("GET", "/admin/changes?limit=1000")["data"]
        assert made == changes[: told["changes"]]
        assert new.stock("New")["halted"]
        for key, (body, number) in keys.items():
            if number <= last:
                status, headers, answer = new.post("/orders", body, {"Idempotency-Key": key})
                assert (status, answer["data"]["transaction_number"]) == (200, number)
                assert headers["idempotency-replayed"] == "true"
        assert new.trade("GameStart", 1, "sell") == last + 1
        new.assert_verified()


def test_the_exit_status_tells_what_happened(tmp_path, capsys):
    """1: refused, 2: wrong usage, 3: nobody answers."""
    path = backed_up(happened(), tmp_path)
    nobody = ("--url", f"http://127.0.0.1:{free_ports(1)}")
    for status, *words in (
        (0, "backup", "--verify", path),
        (1, "backup", path),
        (1, "backup", "--verify", tmp_path / "none"),
        (2, "backup", tmp_path / "other", "--config", tmp_path / "none"),
        (1, "restore", tmp_path / "none", "--data", tmp_path / "new"),
        (1, "restore", path, "--data", tmp_path),
        (2, "restore", path),
        (2, "restore", path, "--data", tmp_path / "new", "--orders", "none"),
        (3, "backup", tmp_path / "other", *nobody),
        (3, "export", "--csv", tmp_path / "csv", *nobody),
        (0, "restore", path, "--data", tmp_path / "new", "--orders", "1"),
        (1, "restore", path, "--data", tmp_path / "new"),
    ):
        try:
            found = main(list(map(str, words)))
        except SystemExit as error:
            found = error.code
        assert found == status, words
        told = capsys.readouterr()
        assert (bool(told.out), bool(told.err)) == (status == 0, status != 0)
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["backup", "--verify", str(path)]) == 1
    assert "cut short" in capsys.readouterr().err
