"""A replica's disk is lost while the cluster trades, and ``twstock rejoin`` brings it back."""

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cluster_fixture import TWSTOCK, Cluster, wait_until
from tests.traders import trading

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


def rejoin(cluster, name, words=()):
    """Run ``twstock rejoin``; returns the finished process."""
    command = [*TWSTOCK, "rejoin", name, "--config", str(cluster.toml), *words, "--json"]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def copies(*paths):
    """The command line's words for directories to make the new one from."""
    return [word for path in paths for word in ("--from", str(path))]


def copied(cluster, name):
    """Stop a member, copy its directory, and start it again; returns the copy."""
    cluster.signal(name, signal.SIGTERM)
    wait_until(lambda: name not in cluster.pids(), f"{name} to be gone")
    copy = cluster.directory / f"copy-of-{name}"
    shutil.copytree(cluster.directory / name, copy)
    cluster.start(name)
    return copy


def lose(cluster, name):
    """Kill a member and remove its directory."""
    cluster.signal(name)
    wait_until(lambda: name not in cluster.pids(), f"{name} to be gone")
    shutil.rmtree(cluster.directory / name)


def test_a_replica_whose_disk_is_lost_rejoins_while_the_others_trade(tmp_path, certificates):
    """The others are asked over TLS, and answer orders meanwhile. Then the replica is a member like
    any other: it and one other can go on with all that was answered. Rejoin is refused while it
    still runs.
    """
    shutil.copytree(certificates, tmp_path / "tls")
    with (
        Cluster(tmp_path, "--no-restart", tls=Path("tls")) as cluster,
        trading(cluster, 3) as traders,
    ):
        at_work = rejoin(cluster, "order-3", ["--to", str(tmp_path / "elsewhere")])
        assert at_work.returncode == 1
        assert "answers: stop order-3 first, for good" in at_work.stderr
        lose(cluster, "order-3")
        traders.go_on()
        made = rejoin(cluster, "order-3")
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout)["source"] == "order-1, order-2"
        traders.go_on()
        cluster.start("order-3")
        cluster.await_serving()
        cluster.await_leader(but="order-2")
        cluster.signal("order-1")
        traders.go_on()
        cluster.start("order-1")


def test_a_catalog_whose_disk_is_lost_rejoins(tmp_path):
    """A catalog replica, one of three, rejoins in the same way. While one of the others is down
    rejoin is refused.
    """
    with Cluster(tmp_path, "--no-restart", catalogs=3) as cluster:
        numbers = [cluster.trade("FishCo", 1, "sell") for _ in range(5)]
        lose(cluster, "catalog-2")
        cluster.signal("catalog-1")
        wait_until(lambda: "catalog-1" not in cluster.pids(), "catalog-1 to be gone")
        alone = rejoin(cluster, "catalog-2")
        assert alone.returncode == 3
        assert "catalog-1: " in alone.stderr
        assert "all others have to run" in alone.stderr
        cluster.start("catalog-1")
        numbers += [cluster.trade("FishCo", 1, "sell") for _ in range(5)]
        made = rejoin(cluster, "catalog-2")
        assert made.returncode == 0, made.stderr
        cluster.start("catalog-2")
        cluster.await_healthy()
        cluster.signal("catalog-3")
        numbers.append(cluster.trade("FishCo", 1, "buy"))
        assert numbers == list(range(1, 12))
        cluster.start("catalog-3")
        cluster.await_healthy()
        cluster.assert_verified()


def test_a_replica_whose_disk_is_lost_rejoins_from_copies(tmp_path):
    """The others are copied one after the other and trade on. Then the replica is a member like any
    other: it and one other can go on with all that was answered. A directory in use is refused as a
    copy.
    """
    with Cluster(tmp_path, "--no-restart") as cluster:
        numbers = [cluster.trade("FishCo", 1, "sell") for _ in range(5)]
        lose(cluster, "order-1")
        numbers += [cluster.trade("FishCo", 1, "sell") for _ in range(5)]
        second = copied(cluster, "order-2")
        numbers += [cluster.trade("FishCo", 1, "buy") for _ in range(5)]
        in_use = rejoin(cluster, "order-1", copies(second, cluster.directory / "order-3"))
        assert (in_use.returncode, in_use.stdout) == (1, ""), in_use
        third = copied(cluster, "order-3")
        made = rejoin(cluster, "order-1", copies(second, third))
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout)["directory"] == str(cluster.directory / "order-1")
        cluster.start("order-1")
        cluster.await_healthy()
        cluster.signal("order-2")
        numbers.append(cluster.trade("FishCo", 1, "buy"))
        assert numbers == list(range(1, 17))
        assert [order.number for order in cluster.log("order-1")][:15] == numbers[:15]
        cluster.start("order-2")
        cluster.await_healthy()
        cluster.assert_verified()
