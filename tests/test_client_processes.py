"""The typed client, and the examples of docs/client.md, against a real cluster."""

import contextlib
import itertools
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from tests.cluster_fixture import Cluster, wait_until
from twstock.client import Client, Placed, Side, Ticket, Trades

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs/examples"
README = (ROOT / "README.md").read_text()
EXAMPLE_S = 60.0
TOKEN = "the-token-of-this-cluster"
TRADERS = 8
ORDERS_MIN = 80


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two front-ends, one catalog, three order replicas, and a token, shared by the tests of
    this file.
    """
    directory = tmp_path_factory.mktemp("client")
    token = directory / "token"
    token.write_text(f"{TOKEN}\n")
    token.chmod(0o600)
    with Cluster(directory, "--admin-token-file", str(token), fronts=2) as running:
        yield running


def urls(cluster):
    """Both front-ends."""
    return [f"http://{front.http}" for front in cluster.config.fronts]


async def trade(client, index, placed, ended):
    """One trader, who buys a share and sells it again, over and over."""
    name = ("AAPL", "GOOGL", "NVDA", "META")[index % 4]
    sides = itertools.cycle([Side.BUY, Side.SELL])
    while not ended.is_set():
        ticket = Ticket(name, 1, next(sides))
        placed.append((await client.place(ticket), ticket))


@contextlib.asynccontextmanager
async def traders(client):
    """Gives what traders have placed so far; they have ended with the block, however it ends."""
    placed, ended = [], threading.Event()
    trading = [Deferred.fromCoroutine(trade(client, k, placed, ended)) for k in range(TRADERS)]
    try:
        yield placed
    finally:
        ended.set()
        await gatherResults(trading)


async def await_more(placed, count, what):
    """Wait until ``count`` more orders are placed."""
    enough = len(placed) + count
    await deferToThread(wait_until, lambda: len(placed) >= enough, what)


async def assert_kept(client, placed, known):
    """Every number that was given is found by it, as it was placed, once; there are no others."""
    numbers = [result.number for result, _ in placed]
    for result, ticket in placed:
        order = await client.order(result.number)
        assert order.number == result.number
        assert (order.name, order.quantity, order.side) == ticket[:3]
    found = [order.number async for order in client.orders(after=known)]
    assert found == sorted(numbers) == list(range(known + 1, known + 1 + len(placed)))


async def last_number(client):
    """The highest number so far."""
    return max([order.number async for order in client.orders()], default=0)


@pytest.mark.parametrize("victim", ["the order leader", "the first front-end"])
@pytest_twisted.ensureDeferred
async def test_whoever_is_killed_every_placed_order_is_found_once(cluster, victim):
    """Traders go on without an error, and no order is lost, doubled or renumbered."""
    await deferToThread(cluster.await_healthy)
    leader = await deferToThread(cluster.await_leader)
    killed = leader if victim == "the order leader" else "front-1"
    async with Client(urls(cluster), patience_s=30.0) as client:
        known = await last_number(client)
        async with traders(client) as placed:
            await await_more(placed, ORDERS_MIN, "the first trades")
            await deferToThread(cluster.signal, killed)
            await await_more(placed, ORDERS_MIN, "trades to go on")
        await assert_kept(client, placed, known)
        assert {row.service for row in await client.cluster()} == {"front", "catalog", "order"}
    await deferToThread(cluster.await_healthy)
    await deferToThread(cluster.assert_verified)


@pytest_twisted.ensureDeferred
async def test_logs_and_stocks_are_compared_while_all_goes_on(cluster):
    """``verify`` takes orders and trades that come meanwhile for no difference."""
    await deferToThread(cluster.await_healthy)
    async with Client(urls(cluster)) as client, traders(client) as placed:
        for _ in range(3):
            await await_more(placed, 1, "a trade")
            await deferToThread(cluster.assert_verified)


@pytest_twisted.ensureDeferred
async def test_many_orders_at_once_trade_once(cluster):
    """Sent again under the same keys, they are the same trades."""
    tickets = [Ticket.buy("AMZN", 1, f"many-{k}") for k in range(50)]
    tickets += [Ticket.sell("AMZN", 1, f"back-{k}") for k in range(50)]
    async with Client(urls(cluster)) as client:
        first = await client.place_many(tickets)
        again = await client.place_many(tickets)
        assert all(isinstance(result, Placed) for result in first)
        assert len({result.number for result in first}) == 100
        assert again == [result._replace(replayed=True) for result in first]


@pytest_twisted.ensureDeferred
async def test_a_feed_goes_on_through_the_other_front_end(cluster):
    """When its front-end is killed, every trade still comes once, in sequence."""
    await deferToThread(cluster.await_healthy)
    async with Client(urls(cluster), patience_s=30.0) as client:
        known, numbers, placed = await last_number(client), [], []
        async with client.events() as events:
            async for event in events:
                if isinstance(event, Trades):
                    numbers += [order.number for order in event.orders]
                if len(placed) < 10:
                    placed.append(await client.sell("NFLX", 1))
                elif len(placed) == 10:
                    await deferToThread(cluster.signal, "front-1")
                    placed += [await client.buy("NFLX", 1) for _ in range(10)]
                if len(numbers) >= 20:
                    break
    assert numbers == list(range(known + 1, known + 21)) == [result.number for result in placed]
    await deferToThread(cluster.await_healthy)


# --- the examples ----------------------------------------------------------------------------


def run(path, directory, *arguments):
    """What a script prints; it must end well, and say nothing on standard error."""
    with start(path, directory, *arguments) as process:
        out, err = process.communicate(timeout=EXAMPLE_S)
    assert (process.returncode, err) == (0, ""), out
    return out


def start(path, directory, *arguments, by=()):
    """A script under way, started ``by`` a command."""
    return subprocess.Popen(
        [*by, sys.executable, str(path), *map(str, arguments)],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_lookup_example(cluster, tmp_path):
    """It shows one stock, one that does not exist, and all of them."""
    lines = run(EXAMPLES / "lookup.py", tmp_path, *urls(cluster)).splitlines()
    assert re.fullmatch(r"GameStart: \d+ shares at 15\.99", lines[0])
    assert lines[1:3] == ["it has not changed", "stock not found: 'Nobody'"]
    assert {line.split()[0] for line in lines[3:]} >= {"AAPL", "GameStart", "NVDA"}


def test_the_trade_example(cluster, tmp_path):
    """It trades; and if it was killed after it had placed an order, it goes on with that order."""
    first = run(EXAMPLES / "trade.py", tmp_path, *urls(cluster))
    number = int(re.match(r"bought: transaction number (\d+)\n3 GameStart at 15\.99\n", first)[1])
    assert list(tmp_path.iterdir()) == []
    key = "of-a-process-that-was-killed"
    (tmp_path / "trade.key").write_text(key)
    cluster.trade("GameStart", 3, "buy", **{"Idempotency-Key": key})
    again = run(EXAMPLES / "trade.py", tmp_path, *urls(cluster))
    assert again.startswith(f"bought: transaction number {number + 1}\n")


def test_what_the_examples_keep_is_whole_whenever_they_are_killed(cluster, tmp_path):
    """A file that cannot be written leaves the old one, or none: an empty key would name no order,
    and an empty cursor would go on from now.
    """
    # No file takes a byte, as if they were killed before the first one.
    by = ("sh", "-c", 'ulimit -f 0; exec "$@"', "sh")
    cluster.trade("GameStart", 1, "sell")
    (tmp_path / "events.cursor").write_text("0.0.0.0")
    for name, arguments in (("trade.py", ()), ("follow_events.py", (1,))):
        with start(EXAMPLES / name, tmp_path, *arguments, *urls(cluster), by=by) as process:
            _, err = process.communicate(timeout=EXAMPLE_S)
        assert process.returncode == 1
        assert "File too large" in err
    assert not (tmp_path / "trade.key").exists()
    assert (tmp_path / "events.cursor").read_text() == "0.0.0.0"


def test_the_example_that_follows_orders(cluster, tmp_path):
    """It prints the orders that are there, and waits for one that is placed later."""
    numbers = [cluster.trade("FishCo", 1, side) for side in ("buy", "sell")]
    with start(EXAMPLES / "follow_orders.py", tmp_path, numbers[-1] + 1, *urls(cluster)) as process:
        for number in range(1, numbers[-1] + 1):
            assert process.stdout.readline().startswith(f"{number}: ")
        cluster.trade("BoarCo", 2, "buy")
        out, err = process.communicate(timeout=EXAMPLE_S)
    assert (out, err) == (f"{numbers[-1] + 1}: buy 2 BoarCo\n", "")


def test_the_example_that_follows_events(cluster, tmp_path):
    """It prints trades as they happen; started again, it prints what it has missed."""
    with start(EXAMPLES / "follow_events.py", tmp_path, 2, *urls(cluster)) as process:
        leaders = {process.stdout.readline() for _ in range(2)}
        assert any(re.match(r"order-\d leads", line) for line in leaders)
        first = cluster.trade("MenhirCo", 2, "buy")
        cluster.trade("MenhirCo", 2, "sell")
        out, err = process.communicate(timeout=EXAMPLE_S)
    assert err == ""
    assert f"{first}: buy 2 MenhirCo\n{first + 1}: sell 2 MenhirCo\n" in out
    for side in ("buy", "sell"):
        cluster.trade("FishCo", 1, side)
    out = run(EXAMPLES / "follow_events.py", tmp_path, 2, *urls(cluster))
    trades = [line for line in out.splitlines() if "leads" not in line]
    assert trades == [f"{first + 2}: buy 1 FishCo", f"{first + 3}: sell 1 FishCo"]


def test_the_batch_example(cluster, tmp_path):
    """Of three orders two are executed and one is refused, and it says so for each."""
    lines = run(EXAMPLES / "batch.py", tmp_path, *urls(cluster)).splitlines()
    assert re.fullmatch(r"buy GameStart: number \d+", lines[0])
    assert lines[1] == "sell Nobody: invalid stock name"
    assert re.fullmatch(r"sell GameStart: number \d+", lines[2])


def test_the_example_that_administers(cluster, tmp_path):
    """It adds a stock, halts and resumes it; the second time the stock is there already."""
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    arguments = (token, "Lemon & Lime", *urls(cluster))
    lines = run(EXAMPLES / "administer.py", tmp_path, *arguments).splitlines()
    number = int(re.fullmatch(r"change (\d+): Lemon & Lime at 2\.5\d?", lines[0])[1])
    halted = "trading in this stock is halted"
    kinds = [f"{number + k}: {kind}" for k, kind in enumerate(("add", "halt", "resume"))]
    assert lines[1:] == [halted, *kinds]
    lines = run(EXAMPLES / "administer.py", tmp_path, *arguments).splitlines()
    assert lines[:2] == ["stock exists already", halted]
    token.write_text("the-token-of-another")
    with start(EXAMPLES / "administer.py", tmp_path, *arguments) as process:
        _, err = process.communicate(timeout=EXAMPLE_S)
    assert process.returncode == 1
    assert err == f"{token}: expected the admin token\n"


def test_the_example_of_the_readme(cluster, tmp_path):
    """It runs as it is printed there, apart from the address."""
    (text,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    script = tmp_path / "readme.py"
    assert "http://127.0.0.1:8080" in text
    script.write_text(text.replace("http://127.0.0.1:8080", cluster.url))
    assert re.fullmatch(r"transaction number \d+\n\d+ left at 15\.99\n", run(script, tmp_path))
