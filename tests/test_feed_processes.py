"""Real processes are killed while clients watch the feed: every trade comes exactly once."""

import contextlib
import re
import shlex
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster_fixture import Cluster, wait_until
from tests.sse import Reader
from tests.traders import Traders
from tests.viewers import Viewer
from twstock.market import Order, Side, Stock, Trade
from twstock.web.answers import order_fields, stock_fields

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
WARM = 30
GUIDE = Path(__file__).parent.parent / "docs/feed.md"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two front-ends, one catalog, three order replicas, shared by the tests of this file."""
    with Cluster(tmp_path_factory.mktemp("feed"), fronts=2) as running:
        yield running


def test_every_trade_comes_once_while_the_order_leader_is_killed(cluster):
    """To clients that break off at random and come back to any front-end, also to one with a
    filter. In the end they have the newest state of each stock that was traded.
    """
    known = len(cluster.log("order-1"))
    with contextlib.ExitStack() as stack:
        viewers = [stack.enter_context(Viewer(cluster, seed)) for seed in range(3)]
        few = stack.enter_context(Viewer(cluster, 9, "?names=AAPL,GOOGL"))
        wait_until(
            lambda: all(viewer.known.last_event_id for viewer in (*viewers, few)), "the first ids"
        )
        with Traders(cluster, 6) as traders:
            for _ in range(2):
                done = traders.done()
                wait_until(lambda done=done: traders.done() >= done + WARM, "trades")
                leader = cluster.await_leader()
                cluster.signal(leader)
                cluster.await_leader(but=leader)
                cluster.await_serving()
        cluster.await_healthy()
        log = cluster.log("order-1")[known:]
        last = log[-1].number
        wait_until(lambda: all(viewer.last() == last for viewer in viewers), "all trades")
        wanted = [t.number for t in log if t.name in ("AAPL", "GOOGL")]
        wait_until(lambda: few.last() == wanted[-1], "all wanted trades")
    fields = ("order_num", "name", "type", "quantity")
    orders = [(trade.number, trade.name, trade.side, trade.quantity) for trade in log]
    for viewer in viewers:
        told = viewer.known.of("trades")
        assert [tuple(row[field] for field in fields) for row in told] == orders
        assert viewer.known.of("reset") == []
        assert len({row["term"] for row in viewer.known.of("leader")}) > 1
        for name, row in viewer.known.stocks().items():
            assert row == cluster.stock(name)
        assert viewer.connections > 1
    assert few.known.numbers() == wanted


def open_stream(cluster, front):
    """A connection that asks for events, once the first of them have come."""
    connection = socket.create_connection(cluster.address(front), timeout=10)
    connection.sendall(b"GET /events HTTP/1.0\r\n\r\n")
    received = b""
    while b"catalog" not in received:
        received += connection.recv(65536)
    return connection, received


def test_a_front_end_that_stops_ends_its_streams_at_once(cluster):
    """The stream is ended in order, so that the client goes elsewhere, and the process does not
    wait for it.
    """
    connection, received = open_stream(cluster, 2)
    with connection:
        began = time.monotonic()
        pid = cluster.pids()["front-2"]
        cluster.signal("front-2", 15)
        while data := connection.recv(65536):
            received += data
        reader = Reader()
        reader.feed(received.partition(b"\r\n\r\n")[2])
        assert reader.retry_ms
        assert len(reader.of("leader")) >= 2
        wait_until(lambda: cluster.pids().get("front-2") not in (None, pid), "a new process")
        assert time.monotonic() - began < 30
    cluster.await_serving()
    open_stream(cluster, 2)[0].close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_of_the_guide_work(cluster):
    """Each command of docs/feed.md opens a stream, from the beginning of the log where it says
    so.
    """
    cluster.trade("AAPL", 1, "sell")
    commands = re.findall(r"^curl .*$", GUIDE.read_text(), re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        words = shlex.split(command.replace("http://127.0.0.1:8080", cluster.url))
        from_the_beginning = "0.0.0.0" in command

        def told(words=words, has_trades=from_the_beginning):
            done = subprocess.run([*words, "-s", "-m", "2"], capture_output=True, check=False)
            assert done.returncode == 28, "it would have gone on"
            reader = Reader()
            reader.feed(done.stdout)
            is_all = len(reader.of("leader")) >= 2 and (reader.numbers() or not has_trades)
            return is_all and reader

        # How much comes within two seconds depends on the machine.
        reader = wait_until(told, f"the first events of {command}")
        assert (1 in reader.numbers()) == from_the_beginning


def test_the_examples_of_the_guide_are_events():
    """They can be parsed, and have the fields that events have."""
    reader = Reader()
    reader.feed(re.search(r"```text\n(.*?)```", GUIDE.read_text(), re.DOTALL)[1].encode() + b"\n")
    assert [event.kind for event in reader.events] == ["leader", "leader", "stocks", "trades"]
    assert reader.last_event_id == "1025.3.7.1"
    trade = Trade(1025, Order("k", "AAPL", Side.BUY, 1), 1, 18995, 1795397365347)
    assert reader.of("trades") == [order_fields(trade)]
    assert reader.of("stocks") == [stock_fields(Stock("AAPL", 18995, 99, 1, 1))]
