"""Catalogs that have dropped the beginning of their logs restart, lose their tables, and lose their
disks.
"""

import signal
from uuid import uuid4

import pytest

from tests.cluster_fixture import Cluster, wait_until
from tests.test_rejoin_processes import copied, copies, lose, rejoin

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

BATCH = 1000
BATCHES_MAX = 200


def sell(cluster):
    """Place a batch of orders, with keys so long that a few dozen batches fill a segment."""
    keys = [f"{uuid4().hex:x>250}" for _ in range(BATCH)]
    order = {"name": "FishCo", "quantity": 1, "type": "sell"}
    orders = [order | {"idempotency_key": key} for key in keys]

    def all_sold():
        rows = cluster.answered("POST", "/orders/batch", {"orders": orders})["data"]
        return all(row["status"] == 200 for row in rows)

    wait_until(all_sold, "a batch to be sold")


def is_cut(cluster, name):
    """Whether a member has dropped the first segment of its log, and said so before."""
    directory = cluster.directory / name
    gone = not (directory / "log-00000001.seg").exists()
    assert gone <= (directory / "dropped").exists()
    return gone


def fill(cluster, names):
    """Trade until these members' logs are cut; returns how many orders that took."""
    for count in range(BATCHES_MAX):
        if all(is_cut(cluster, name) for name in names):
            return count * BATCH
        sell(cluster)
    raise AssertionError("the logs are not cut")


def test_a_catalog_with_a_cut_log_restarts_with_and_without_its_tables(tmp_path):
    """A single catalog cuts its log by itself. Without its tables it starts from a snapshot."""
    with Cluster(tmp_path, "--no-restart") as cluster:
        before = cluster.stock("FishCo")["quantity"]
        sold = fill(cluster, ["catalog-1"])
        for without_tables in (False, True):
            cluster.signal("catalog-1")
            wait_until(lambda: "catalog-1" not in cluster.pids(), "catalog-1 to be gone")
            if without_tables:
                for path in (tmp_path / "catalog-1").glob("applied.sqlite*"):
                    path.unlink()
            cluster.start("catalog-1")
            cluster.await_serving()
            assert cluster.stock("FishCo")["quantity"] == before + sold
            assert cluster.trade("FishCo", 1, "sell") == sold + 1
            sold += 1
        cluster.assert_verified()


def test_three_catalogs_with_cut_logs_restart_and_rejoin(tmp_path):
    """While one of three is down, the others keep their logs whole. When all have cut their logs,
    one whose disk is lost rejoins, from the others while they run and from copies of their
    directories.
    """
    names = ["catalog-1", "catalog-2", "catalog-3"]
    with Cluster(tmp_path, "--no-restart", catalogs=3) as cluster:
        cluster.signal("catalog-2", signal.SIGTERM)
        wait_until(lambda: "catalog-2" not in cluster.pids(), "catalog-2 to be gone")
        for _ in range(36):
            sell(cluster)
        assert not any(is_cut(cluster, name) for name in names)
        cluster.start("catalog-2")
        fill(cluster, names)

        lose(cluster, "catalog-2")
        made = rejoin(cluster, "catalog-2")
        assert made.returncode == 0, made.stderr
        cluster.start("catalog-2")
        cluster.await_healthy()

        lose(cluster, "catalog-3")
        sources = [copied(cluster, name) for name in ("catalog-1", "catalog-2")]
        made = rejoin(cluster, "catalog-3", copies(*sources))
        assert made.returncode == 0, made.stderr
        cluster.start("catalog-3")
        cluster.await_healthy()
        cluster.signal("catalog-1")
        wait_until(lambda: "catalog-1" not in cluster.pids(), "catalog-1 to be gone")
        cluster.trade("FishCo", 1, "buy")
        cluster.start("catalog-1")
        cluster.await_healthy()
        cluster.assert_verified()
