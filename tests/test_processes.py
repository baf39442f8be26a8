"""Real processes are killed and stopped under load: nothing is lost, doubled or renumbered."""

import contextlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster_fixture import TWSTOCK, WAIT_S, Cluster, ask, is_running, wait_until
from tests.traders import stocks, trading
from twstock.rest import Session
from twstock.rpc.calls import Lookup
from twstock.rpc.wire import methods
from twstock.verify import Unreachable

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
TWISTD = str(Path(sys.executable).with_name("twistd"))
OUTAGE_MAX_S = 6.0
RESTART_MAX_S = 15.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two front-ends, one catalog, three order replicas, shared by the tests of this file."""
    with Cluster(tmp_path_factory.mktemp("processes"), fronts=2) as running:
        yield running


@pytest.fixture
def report(capsys):
    """Prints a measurement, although pytest captures the output."""

    def show(what, seconds):
        with capsys.disabled():
            middle, worst = statistics.median(seconds), max(seconds)
            print(f"\n{what}: outage p50 {middle:.2f} s, max {worst:.2f} s, n {len(seconds)}")

    return show


def outage(traders, action):
    """How long nothing was acknowledged after ``action``."""
    began = time.monotonic()
    action()
    wait_until(lambda: traders.acknowledged_since(began), "trade to go on", RESTART_MAX_S)
    traders.go_on()
    return traders.outage_s(began)


def test_the_order_leader_is_killed_five_times(cluster, report):
    """Each time another replica goes on within ``OUTAGE_MAX_S``, and the killed one comes back."""
    seconds = []
    with trading(cluster) as traders:
        for _ in range(5):
            leader = cluster.await_leader()
            seconds.append(outage(traders, lambda name=leader: cluster.signal(name)))
            cluster.await_serving()
    report("kill -9 of the order leader", seconds)
    assert max(seconds) < OUTAGE_MAX_S


def test_a_follower_is_killed(cluster, report):
    """Trading goes on within ``OUTAGE_MAX_S``, and the follower catches up."""
    with trading(cluster) as traders:
        leader = cluster.await_leader()
        follower = next(f"order-{k}" for k in (1, 2, 3) if f"order-{k}" != leader)
        seconds = outage(traders, lambda: cluster.signal(follower))
        cluster.await_serving()
    report("kill -9 of a follower", [seconds])
    assert seconds < OUTAGE_MAX_S


def test_the_only_catalog_is_killed(cluster, report):
    """Trading goes on when it is back, within ``RESTART_MAX_S``; what was under way is executed
    once.
    """
    with trading(cluster) as traders:
        seconds = outage(traders, lambda: cluster.signal("catalog-1"))
        cluster.await_serving()
    report("kill -9 of the only catalog", [seconds])
    assert seconds < RESTART_MAX_S


def test_everything_is_killed_at_once(cluster, report):
    """All processes are killed at the same moment; they come back with everything that was
    acknowledged.
    """
    with trading(cluster) as traders:

        def kill_all():
            for pid in cluster.pids().values():
                os.kill(pid, signal.SIGKILL)

        seconds = outage(traders, kill_all)
        cluster.await_serving()
    report("kill -9 of everything", [seconds])
    assert seconds < RESTART_MAX_S


def test_a_stopped_leader_wakes_up_as_a_zombie(cluster, report):
    """Another one leads meanwhile; what the old leader had under way is executed at most once."""
    with trading(cluster) as traders:
        leader = cluster.await_leader()
        seconds = outage(traders, lambda: cluster.signal(leader, signal.SIGSTOP))
        assert cluster.await_leader(but=leader) != leader
        cluster.signal(leader, signal.SIGCONT)
        cluster.await_serving()
    report("SIGSTOP of the order leader", [seconds])
    assert seconds < OUTAGE_MAX_S


def test_a_front_end_is_killed(cluster, report):
    """Clients go on through the other one, with the same keys."""
    with trading(cluster) as traders:
        seconds = outage(traders, lambda: cluster.signal("front-2"))
        cluster.await_serving()
    report("kill -9 of one of two front-ends", [seconds])
    assert seconds < OUTAGE_MAX_S


def test_a_stopped_front_end_wakes_up_without_its_cache(cluster):
    """Its lease is over, and a trade did not wait for it: when it wakes up it shows the trade, and
    not what it had cached.
    """
    cluster.await_healthy()
    cluster.stock("GameStart", front=2)
    connection = HTTPConnection(*cluster.address(2), timeout=WAIT_S)
    with contextlib.closing(connection):
        wait_until(lambda: look(connection)[1] == "hit", "front-2 to have it cached")
        cluster.signal("front-2", signal.SIGSTOP)
        try:
            cluster.trade("GameStart", 1, "buy")
            traded = cluster.stock("GameStart")
            # The question is there when it wakes up: it has had no time to renew anything.
            connection.request("GET", "/stocks/GameStart")
        finally:
            cluster.signal("front-2", signal.SIGCONT)
        response = connection.getresponse()
        shown = json.loads(response.read())
        assert (response.status, shown) == (200, {"data": traded})
    cluster.trade("GameStart", 1, "sell")


def look(connection):
    """A stock over an open connection, and what is said of the cache; twice None if it fails."""
    status, headers, body = ask(connection, "GET", "/stocks/GameStart")
    return (body["data"], headers["x-cache"]) if status == 200 else (None, None)


def command(cluster, *words):
    """Run one ``twstock`` command; returns exit status and output."""
    done = subprocess.run(
        [*TWSTOCK, *words, "--url", cluster.url],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_commands_agree(cluster, tmp_path):
    """``client`` finds the orders that it placed, ``verify`` finds no difference, and ``export``
    writes the same log for each replica.
    """
    cluster.await_healthy()
    status, text = command(cluster, "client", "--clients", "3", "--requests", "20", "--seed", "1")
    assert (status, text.splitlines()[-1]) == (0, "0 mismatches, 0 failures"), text
    status, text = command(cluster, "verify")
    assert status == 0, text
    status, text = command(cluster, "export", str(tmp_path))
    assert status == 0, text
    assert len({(tmp_path / f"order_log_{k}.csv").read_bytes() for k in (1, 2, 3)}) == 1
    assert command(cluster, "status")[0] == 0


def test_every_acknowledgement_had_been_written(cluster, tmp_path):
    """Between a request and its answer the catalog and two order replicas finish an fdatasync."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    names = ["catalog-1", "order-1", "order-2", "order-3"]
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(traced(cluster.pids()[name], tmp_path / name))
        spans = []
        session = stack.enter_context(contextlib.closing(Session(cluster.url)))
        for side in ("buy", "sell") * 15:
            began = time.time()
            assert session.trade("GameStart", side, 1).ok
            spans.append((began, time.time()))
    written = {name: flushes(tmp_path / name) for name in names}
    for began, ended in spans:
        found = {n for n in names if any(began < a and b < ended for a, b in written[n])}
        assert "catalog-1" in found, (began, ended)
        assert len(found) >= 3, (began, ended, found)


@contextlib.contextmanager
def traced(pid, path):
    """While this context runs, strace writes the flushes of a process to a file."""
    calls = ["-e", "trace=fdatasync,fsync", "-ttt", "-T"]
    strace = ["strace", "-f", *calls, "-o", str(path), "-p", str(pid)]
    errors = path.with_suffix(".err")
    with errors.open("wb") as log:
        process = subprocess.Popen(strace, stderr=log)
    try:
        wait_until(lambda: "attached" in errors.read_text() or process.poll() is not None, "strace")
        if process.poll() is not None:
            pytest.skip(f"strace may not attach: {errors.read_text().strip()}")
        yield
    finally:
        process.terminate()
        process.wait(WAIT_S)


FLUSH = re.compile(
    r"^\d+ +(?P<at>[\d.]+) (?P<resumed><\.\.\. )?f(data)?sync.* = 0 <(?P<took>[\d.]+)>$"
)


def flushes(path):
    """Begin and end of every flush that strace saw succeed, in seconds since 1970."""
    found = []
    for line in path.read_text().splitlines():
        if match := FLUSH.match(line):
            at, took = float(match["at"]), float(match["took"])
            found.append((at - took, at) if match["resumed"] else (at, at + took))
    return found


def test_a_restart_serves_the_same(cluster):
    """After all processes were stopped and started on the same data, orders and stocks are the same
    and numbers go on, although the applied state of two members was deleted.
    """
    numbers = [cluster.trade("FishCo", 1, "sell") for _ in range(3)]
    before = {n: cluster.answered("GET", f"/orders/{n}") for n in (1, *numbers)}
    were = stocks(cluster)
    cluster.down()
    for name in ("order-3", "catalog-1"):  # what was applied can always be made again
        for file in (cluster.directory / name).glob("applied.sqlite*"):
            file.unlink()
    cluster.up()
    assert {n: cluster.answered("GET", f"/orders/{n}") for n in before} == before
    assert stocks(cluster) == were
    assert cluster.trade("FishCo", 1, "buy") == max(before) + 1
    cluster.await_healthy()
    cluster.assert_verified()


def test_members_do_not_outlive_what_started_them(cluster):
    """A second ``up`` on the same data is refused. When the first one is killed its members end,
    too.
    """
    second = subprocess.run(
        [*TWSTOCK, "up", "--data", str(cluster.directory)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (second.returncode, second.stdout) == (1, "")
    assert f"in use by the cluster of process {cluster.process.pid}" in second.stderr
    members = cluster.pids().values()
    number = cluster.trade("FishCo", 1, "sell")
    cluster.destroy()
    wait_until(lambda: not any(map(is_running, members)), "all members to be gone")
    cluster.up()
    assert cluster.trade("FishCo", 1, "buy") == number + 1


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ([*TWSTOCK, "up"], signal.SIGHUP),
        ([sys.executable, TWISTD, "-n", "--pidfile=", "stock-cluster"], signal.SIGTERM),
    ],
    ids=["the terminal of up closes", "twistd is asked to end"],
)
def test_whatever_ends_a_cluster_ends_all_of_it(tmp_path, command, number):
    """The members end in order, and the exit status is 0, although the signal comes twice. The
    first line of the output is that the cluster is ready.
    """
    cluster = Cluster(tmp_path)
    process = subprocess.Popen(
        [*command, "--data", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # Under nohup, which may run these tests, SIGHUP is ignored.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # noqa: PLW1509
    )
    with process, process.stdout:
        try:
            cluster.process = process
            assert process.stdout.readline().startswith(b"ready http://")
            members = cluster.pids().values()
            assert len(members) == 5
            process.send_signal(number)
            process.send_signal(number)
            process.stdout.read()
            assert process.wait(60) == 0
            assert not any(map(is_running, members))
        finally:
            process.kill()


def test_a_wiped_replica_refuses_to_start(cluster):
    """A directory that is missing held promises, so its replica does not start and the others go
    on. With the directory put back it does.
    """
    number = cluster.trade("FishCo", 1, "sell")
    cluster.down()
    directory, aside = cluster.directory / "order-2", cluster.directory / "aside"
    directory.rename(aside)
    cluster.up()
    assert "the others go on without it" in cluster.errors()
    assert "this data directory is new" in cluster.errors()
    number = cluster.trade("FishCo", 1, "buy")
    cluster.down()
    shutil.rmtree(directory)
    aside.rename(directory)
    cluster.up()
    assert cluster.answered("GET", f"/orders/{number}")
    cluster.await_healthy()
    cluster.assert_verified()


def test_the_only_catalog_without_its_data_shows_no_stocks(cluster):
    """A catalog that begins anew contradicts the orders. It shows nothing until it has its data
    again; orders can be read meanwhile.
    """
    number = cluster.trade("FishCo", 1, "sell")
    before = stocks(cluster)
    cluster.down()
    directory, aside = cluster.directory / "catalog-1", cluster.directory / "aside"
    directory.rename(aside)
    cluster.launch()
    told = "the catalog has lost trades 1 to "
    wait_until(lambda: is_unavailable(cluster, "/readyz", told), "the loss to be noticed")
    wait_until(lambda: is_unavailable(cluster, "/stocks/FishCo"), "the cache's lease to end")
    assert cluster.answered("GET", f"/orders/{number}")
    order = {"name": "FishCo", "quantity": 1, "type": "buy"}
    assert is_unavailable(cluster, "/orders", body=order)
    assert is_unavailable(cluster, "/stocks/FishCo")
    cluster.down()
    shutil.rmtree(directory)
    aside.rename(directory)
    cluster.up()
    assert stocks(cluster) == before
    cluster.await_healthy()
    cluster.assert_verified()


def is_unavailable(cluster, path, reason="", body=None):
    """Whether a request is answered with 503, for this reason."""
    try:
        status, _, told = cluster.request("POST" if body else "GET", path, body)
    except (OSError, HTTPException):
        return False
    return status == 503 and reason in told["error"]["message"]


def test_the_leader_of_three_catalogs_is_killed(tmp_path, report):
    """With three catalog replicas trading goes on without waiting for a restart."""
    with Cluster(tmp_path, catalogs=3) as cluster:
        with trading(cluster) as traders:
            leader = cluster.await_leader("catalog")
            seconds = outage(traders, lambda: cluster.signal(leader))
            cluster.await_serving()
        report("kill -9 of the leader of three catalogs", [seconds])
        assert seconds < OUTAGE_MAX_S


def test_a_stopped_catalog_leader_wakes_up_and_shows_nothing_old(tmp_path, report):
    """Another one of three leads meanwhile. When the old leader wakes up it shows no version from
    before what that one has traded, or nothing.
    """
    with Cluster(tmp_path, catalogs=3) as cluster:
        with trading(cluster) as traders:
            leader = cluster.await_leader("catalog")
            [old] = [remote for remote in cluster.remotes("catalog") if remote.name == leader]
            with old, ThreadPoolExecutor(1) as thread:
                assert look_up(old) is not None
                seconds = outage(traders, lambda: cluster.signal(leader, signal.SIGSTOP))
                cluster.await_leader("catalog", but=leader)
                known = cluster.stock("GameStart")["version"]
                traded = wait_until(
                    lambda: (now := cluster.stock("GameStart")["version"]) > known and now,
                    "GameStart to be traded",
                )
                # Of all that it does when it wakes up this comes first, or nearly so.
                asked = thread.submit(look_up, old)
                cluster.signal(leader, signal.SIGCONT)
                shown = asked.result(WAIT_S)
                assert shown is None or shown.version >= traded
                traders.go_on()
                shown = look_up(old)
                assert shown is None or shown.version >= traded
            cluster.await_serving()
        report("SIGSTOP of the leader of three catalogs", [seconds])
        assert seconds < OUTAGE_MAX_S


def look_up(catalog):
    """A stock as one catalog shows it; None when it answers nobody."""
    try:
        return catalog.call(methods.LOOKUP, Lookup("GameStart"))
    except Unreachable:
        return None


def scrape(cluster, query=""):
    """The families of ``GET /metrics`` by name, as Prometheus reads them."""
    with urlopen(f"{cluster.url}/metrics{query}", timeout=WAIT_S) as response:
        text = response.read().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def by_member(family, suffix=""):
    """The sum of a family's samples for each member."""
    found = {}
    for name, labels, value, *_ in family.samples:
        if name == family.name + suffix:
            found[labels["member"]] = found.get(labels["member"], 0) + value
    return found


def test_the_metrics_of_a_cluster_are_those_that_are_documented(cluster):
    """One scrape of a front-end has the metrics of every member, and of each kind that metrics.md
    names; a member that does not answer is down.
    """
    cluster.await_healthy()
    for _ in range(5):
        cluster.trade("GameStart", 1, "buy")
        cluster.trade("GameStart", 1, "sell")
    replicas = {"catalog-1", "order-1", "order-2", "order-3"}
    every = dict.fromkeys({"front-1", *replicas}, 1)
    # A member has a quarter of a second to tell.
    found = wait_until(
        lambda: by_member((now := scrape(cluster))["twstock_member_up"]) == every and now,
        "every member to tell its metrics",
    )
    document = (Path(__file__).parent.parent / "docs/metrics.md").read_text()
    told = re.findall(r"^\| `(twstock_\w+)` \| (\w+) \|", document, re.MULTILINE)
    without_tls = set(told) - {("twstock_certificate_left_seconds", "gauge")}
    assert {(name.removesuffix("_total"), kind) for name, kind in without_tls} == {
        (family.name, family.type) for family in found.values()
    }
    leader = cluster.await_leader()
    assert by_member(found["twstock_batch_orders"], "_sum")[leader] >= 10
    assert by_member(found["twstock_durable_seconds"], "_count").keys() == replicas
    assert by_member(scrape(cluster, "?members=self")["twstock_member_up"]) == {"front-1": 1}
    cluster.signal("order-1", signal.SIGSTOP)
    try:
        # For a tenth of a second a scrape gives the answer of the one before.
        wait_until(
            lambda: by_member(scrape(cluster)["twstock_member_up"])["order-1"] == 0,
            "order-1 to be told as down",
        )
    finally:
        cluster.signal("order-1", signal.SIGCONT)
    cluster.await_healthy()


def test_the_history_of_a_front_end_tells_what_it_did(cluster):
    """An order is counted in the history of the front-end that took it, and in no other."""

    def rows(front):
        return cluster.get("/history", front=front)[2]["data"]["rows"]

    def placed(front):
        return sum(row["orders"] for row in rows(front))

    def newest(front):
        return max((row["at"] for row in rows(front)), default=0)

    # What earlier tests traded is in the next row of a front-end at the latest.
    seen = newest(1), newest(2)
    wait_until(lambda: newest(1) > seen[0] and newest(2) > seen[1], "a second to be over")
    before = placed(1), placed(2)
    cluster.trade("GameStart", 1, "buy")
    wait_until(lambda: placed(1) == before[0] + 1, "the order's second to be over")
    assert placed(2) == before[1]
    cluster.trade("GameStart", 1, "sell")
