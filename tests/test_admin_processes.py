"""Real processes: stocks are changed while members die, and every answer is true."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster_fixture import TWSTOCK, Cluster, wait_until
from tests.ledger import check, check_changes, check_looks
from tests.traders import Traders

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
TOKEN = "the-token-of-this-cluster"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two front-ends, three catalogs, one order replica, and a token."""
    directory = tmp_path_factory.mktemp("admin")
    token = directory / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    flags = ("--admin-token-file", str(token))
    with Cluster(directory / "data", *flags, fronts=2, catalogs=3, orders=1) as running:
        yield running


def changes_of(cluster):
    """All changes, as the catalog's leader lists them."""
    name = cluster.await_leader("catalog")
    [remote] = [remote for remote in cluster.remotes("catalog") if remote.name == name]
    with contextlib.closing(remote):
        return list(remote.changes())


def stocks(cluster):
    """Every stock by its name."""
    return {row["name"]: row for row in cluster.get("/stocks?limit=1000")[2]["data"]}


def test_changes_survive_the_death_of_the_leader(cluster):
    """Each is made once, in the sequence of its number, and seen by everybody after its answer.
    Nothing is traded between a halt and the next resume, and added shares add up.
    """
    initial = stocks(cluster)
    with Traders(cluster, 4, token=TOKEN) as traders:
        for _ in range(2):
            done = sum(one.outcome == "ok" for one in traders.administered)
            wait_until(
                lambda enough=done + 10: (
                    sum(one.outcome == "ok" for one in traders.administered) >= enough
                ),
                "changes",
            )
            cluster.signal(cluster.await_leader("catalog"))
            killed = time.monotonic()
            wait_until(
                lambda at=killed: any(
                    one.outcome == "ok" and one.ended > at for one in traders.administered[-50:]
                ),
                "changes to go on",
            )
            cluster.await_serving()
    cluster.await_healthy()
    cluster.assert_verified()
    log, changes = cluster.log("order-1"), changes_of(cluster)
    had = {name: row["quantity"] for name, row in initial.items()}
    has = {name: row["quantity"] for name, row in stocks(cluster).items()}
    assert check(traders.history, log, had, has, changes) == []
    assert check_changes(traders.administered, changes) == []
    versions = {name: (row["version"], row["quantity"]) for name, row in initial.items()}
    told = traders.administered
    assert check_looks(traders.looks, traders.history, log, versions, changes, told) == []
    assert any(look.halted for look in traders.looks)


def test_everything_is_there_after_a_restart(cluster):
    """Changes, halts, and the keys of changes."""
    key = {"Idempotency-Key": "before-the-restart"}
    path, body = "/admin/stocks/Lemon%20%2F%20Lime", {"price": "2.50", "quantity": 5}
    added = {"name": "Lemon / Lime", **body}
    assert cluster.post("/admin/stocks", added, BEARER)[0] == 200
    status, _, first = cluster.post(f"{path}/halt", {}, {**BEARER, **key})
    assert status == 200
    before = changes_of(cluster)
    cluster.down()
    cluster.up()
    assert changes_of(cluster) == before
    status, headers, again = cluster.post(f"{path}/halt", {}, {**BEARER, **key}, front=2)
    assert (status, again, headers["idempotency-replayed"]) == (200, first, "true")
    assert cluster.post(f"{path}/resume", {}, {**BEARER, **key})[0] == 422
    order = {"name": "Lemon / Lime", "quantity": 1, "type": "buy"}
    status, _, refused = cluster.post("/orders", order)
    assert (status, refused["error"]["message"]) == (404, "trading in this stock is halted")
    assert cluster.post(f"{path}/resume", {}, BEARER)[0] == 200
    assert cluster.post("/orders", order)[0] == 200
    cluster.assert_verified()


def test_without_the_token_nothing_changes(cluster):
    """Both front-ends answer 401, and no change is made."""
    before = changes_of(cluster)
    for front in (1, 2):
        for headers in ({}, {"Authorization": "Bearer the-token-of-another"}):
            assert cluster.post("/admin/stocks/AAPL/halt", {}, headers, front)[0] == 401
    assert changes_of(cluster) == before


GUIDE = (Path(__file__).resolve().parent.parent / "docs/admin.md").read_text()


def blocks(language):
    """The blocks of the guide that are marked with a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_guide_is_true(tmp_path):
    """Every command of docs/admin.md prints what stands below it, apart from times."""
    [setup] = blocks("sh")
    *making, starting = setup.strip().splitlines()
    subprocess.run("\n".join(making), shell=True, cwd=tmp_path, check=True, timeout=20)
    token = str(tmp_path / starting.split()[-1])
    assert (tmp_path / "admin-token").stat().st_mode & 0o077 == 0
    with Cluster(tmp_path / "data", "--admin-token-file", token, orders=1) as running:
        script = "".join(line for block in blocks("console") for line in block.splitlines(True))
        commands = re.split(r"^\$ ", script, flags=re.MULTILINE)[1:]
        environment = {**os.environ, "TWSTOCK_URL": running.url}
        for command, _, told in (command.partition("\n") for command in commands):
            if command.startswith("export "):
                name, _, value = command.removeprefix("export ").partition("=")
                environment[name] = value
                continue
            line = command.replace("http://127.0.0.1:8080", running.url)
            line = line.replace(".venv/bin/twstock", shlex.join(TWSTOCK))
            done = subprocess.run(
                line,
                shell=True,
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                check=False,
                timeout=60,
            )
            found = (done.stdout + done.stderr).decode()
            assert timeless(found) == timeless(told), command


def timeless(text):
    """A text without its wall times and its line end."""
    return re.sub(r'("timestamp_ms":)\d+', r"\1T", text).rstrip()
