"""A replica's disk is lost while the cluster trades, and ``twstock rejoin`` brings it back."""

import json
import shutil
import signal
import subprocess

import pytest

from tests.cluster_fixture import TWSTOCK, Cluster, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


def rejoin(cluster, name, sources):
    """Run the command; its exit status and what it printed."""
    words = [word for source in sources for word in ("--from", str(source))]
    command = [*TWSTOCK, "rejoin", name, "--config", str(cluster.toml), *words, "--json"]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def copied(cluster, name):
    """Stop a member, copy its directory, and start it again; the copy."""
    cluster.signal(name, signal.SIGTERM)
    wait_until(lambda: name not in cluster.pids(), f"{name} to be gone")
    copy = cluster.directory / f"copy-of-{name}"
    shutil.copytree(cluster.directory / name, copy)
    cluster.start(name)
    return copy


def test_a_replica_whose_disk_is_lost_rejoins(tmp_path):
    """The others are copied one after the other and trade on; the new one is a member like any
    other: with it, and without one of those that it was made from, all that was answered is there.
    """
    with Cluster(tmp_path, "--no-restart") as cluster:
        numbers = [cluster.trade("FishCo", 1, "sell") for _ in range(5)]
        cluster.signal("order-1")
        shutil.rmtree(cluster.directory / "order-1")
        numbers += [cluster.trade("FishCo", 1, "sell") for _ in range(5)]
        second = copied(cluster, "order-2")
        numbers += [cluster.trade("FishCo", 1, "buy") for _ in range(5)]
        in_use = rejoin(cluster, "order-1", [second, cluster.directory / "order-3"])
        assert (in_use.returncode, in_use.stdout) == (1, ""), in_use
        third = copied(cluster, "order-3")
        made = rejoin(cluster, "order-1", [second, third])
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
