"""A cluster on a disk that fills up: orders are refused, reads go on, and orders resume when there
is space.
"""

import contextlib
import http.client
import os
import subprocess
import threading
import time
import uuid
from pathlib import Path

import pytest

from tests.cluster_fixture import SMALL, Cluster, ask, wait_until
from tests.ledger import Attempt, check
from twstock.market import KEY_CHARS_MAX, NAME_CHARS_MAX
from twstock.replication.disk import has_no_room

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]
MIB = 1024 * 1024
DISK_BYTES = 64 * MIB
LEFT_BYTES = 2 * MIB
NAME = "N" * NAME_CHARS_MAX
WRITERS = 24


class SmallDisk:
    """A file system of its own in ``directory``, in a mount namespace that a process holds open."""

    def __init__(self, directory):
        script = f'mount -t tmpfs -o size={DISK_BYTES} tmpfs "$1" && echo mounted && exec cat'
        command = ["unshare", "-rm", "sh", "-c", script, "sh", str(directory)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self._holder = subprocess.Popen(command, **pipes)
        if self._holder.stdout.readline() != b"mounted\n":
            problem = self._holder.communicate()[1].decode().strip()
            pytest.skip(f"no file system may be mounted here: {problem}")
        self.prefix = ["nsenter", "-U", "-m", "--preserve-credentials", "-t", str(self._holder.pid)]
        self.path = Path(f"/proc/{self._holder.pid}/root{directory}")
        self._filler = self.path / "filler"

    def fill(self, left_bytes=0):
        """Take all space but ``left_bytes``."""
        stat = os.statvfs(self.path)
        room = stat.f_bavail * stat.f_frsize - left_bytes
        with self._filler.open("ab") as file, contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), file.tell(), max(room, 1))

    def free(self):
        """Give the space back."""
        self._filler.unlink()

    def close(self):
        """End the namespace; the file system goes with it."""
        self._holder.communicate()


class Writer(threading.Thread):
    """Sells, each order under a long key, until the disk is full or it ``ends``."""

    def __init__(self, cluster, history):
        super().__init__()
        self._cluster = cluster
        self._history = history
        self.last_status = 0
        self.ends = False

    def run(self):
        """Place order after order."""
        with contextlib.closing(http.client.HTTPConnection(*self._cluster.address())) as connection:
            while self.last_status != 507 and not self.ends:
                self.last_status = place(connection, self._history)


def place(connection, history):
    """One order; returns the status."""
    key = uuid.uuid4().hex.ljust(KEY_CHARS_MAX, ".")
    started = time.monotonic()
    status, _, answer = ask(
        connection,
        "POST",
        "/orders",
        {"name": NAME, "type": "sell", "quantity": 1},
        {"Idempotency-Key": key},
    )
    assert status in (200, 503, 507), answer
    outcome = "ok" if status == 200 else "unknown"
    number = answer["data"]["transaction_number"] if status == 200 else 0
    history.append(Attempt(key, NAME, "sell", 1, started, time.monotonic(), outcome, number))
    return status


def without_spares(cluster, disk):
    """Start on an empty disk, so that every log exists; stop, and leave no room for spares."""
    cluster.up()
    cluster.down()
    for spare in disk.path.rglob("spare-*"):
        spare.unlink()
    disk.fill(LEFT_BYTES)
    cluster.up()
    disk.fill()


def test_a_full_disk_refuses_orders_and_nothing_else(tmp_path):
    """When the log has no room, orders are answered 507; reads, elections and a restart work. With
    space again orders go on by themselves, and nothing was lost or done twice.
    """
    cluster = Cluster(tmp_path, limits=SMALL)
    history = []
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(contextlib.closing(SmallDisk(tmp_path)))
        stack.callback(cluster.destroy)
        cluster.prefix = disk.prefix
        text = f'catalog_csv = "catalog.csv"\n{cluster.toml.read_text()}'
        (disk.path / "cluster.toml").write_text(text)
        (disk.path / "catalog.csv").write_text(f"name,price,quantity\n{NAME},1.00,5\n")
        without_spares(cluster, disk)
        writers = [Writer(cluster, history) for _ in range(WRITERS)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(120)
        assert {writer.last_status for writer in writers} == {507}
        number = max(attempt.number for attempt in history)
        assert cluster.get(f"/orders/{number}")[0] == 200
        assert cluster.stock(NAME)["quantity"] >= 5 + number
        leader = cluster.await_leader()
        cluster.signal(leader)
        assert cluster.await_leader(but=leader) != leader
        assert cluster.get(f"/orders/{number}")[0] == 200
        disk.free()
        with contextlib.closing(http.client.HTTPConnection(*cluster.address())) as connection:
            wait_until(lambda: place(connection, history) == 200, "orders to go on")
        cluster.await_healthy()
        cluster.assert_verified()
        final = {NAME: cluster.stock(NAME)["quantity"]}
        assert check(history, cluster.log("order-1"), {NAME: 5}, final) == []
        cluster.down()


def test_a_leader_whose_own_disk_is_full_gives_way(tmp_path):
    """The other two have room: orders go on without it, and it leads again when it has room."""
    cluster = Cluster(tmp_path, limits=SMALL)
    history = []
    own = tmp_path / "order-3"
    own.mkdir()
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(contextlib.closing(SmallDisk(own)))
        stack.callback(cluster.destroy)
        cluster.prefix = disk.prefix
        text = f'catalog_csv = "catalog.csv"\n{cluster.toml.read_text()}'
        cluster.toml.write_text(text)
        (tmp_path / "catalog.csv").write_text(f"name,price,quantity\n{NAME},1.00,5\n")
        without_spares(cluster, disk)
        wait_until(lambda: cluster.leader() == "order-3", "order-3 to lead")
        writers = [Writer(cluster, history) for _ in range(WRITERS)]
        for writer in writers:
            writer.start()
        cluster.await_leader(but="order-3")
        for writer in writers:
            writer.ends = True
            writer.join(120)
        with contextlib.closing(http.client.HTTPConnection(*cluster.address())) as connection:
            wait_until(lambda: place(connection, history) == 200, "orders to go on")
        disk.free()
        wait_until(lambda: cluster.leader() == "order-3", "order-3 to lead again")
        cluster.await_healthy()
        cluster.assert_verified()
        final = {NAME: cluster.stock(NAME)["quantity"]}
        assert check(history, cluster.log("order-1"), {NAME: 5}, final) == []
        cluster.down()


def test_a_full_file_system_has_no_room(tmp_path):
    """The probe says about a real file system whether it has room, and leaves no file there."""
    with contextlib.closing(SmallDisk(tmp_path)) as disk:
        assert not has_no_room(disk.path)
        disk.fill()
        assert has_no_room(disk.path)
        disk.free()
        assert not has_no_room(disk.path)
        assert list(disk.path.iterdir()) == []
