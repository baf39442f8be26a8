"""A front-end is started again and again under load, on a socket that somebody else holds.

The parent does what systemd does with ``stock-frontend@.socket``: it listens, and passes the
socket to each front-end that it starts.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from tests.cluster_fixture import Cluster, ask, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
RESTARTS = 4
CLIENTS = 8
PASS = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "http"}
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Makes a descriptor the first one that is passed, and becomes the service."""


class Held:
    """A front-end on a socket that this process holds."""

    def __init__(self, cluster, name):
        self._cluster = cluster
        self._name = name
        self._process = None
        self.listener = socket.create_server(
            cluster.address(int(name.rpartition("-")[2])), backlog=1024
        )

    def start(self):
        """Start a process; clients that connect before it serves wait."""
        twistd = str(Path(sys.executable).with_name("twistd"))
        service = [sys.executable, twistd, "-n", "--pidfile=", "stock-frontend"]
        service += ["--config", str(self._cluster.toml), "--name", self._name]
        number = self.listener.fileno()
        log = self._cluster.directory / self._name / "service.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PASS, str(number), *service],
                pass_fds=[number],
                stdout=out,
                stderr=out,
            )

    def stop(self):
        """Send SIGTERM, and wait until the process has ended."""
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(30) == -signal.SIGTERM

    def close(self):
        """Kill the process, and close the socket."""
        self._process.kill()
        self._process.wait()
        self.listener.close()


class Client(threading.Thread):
    """Trades and looks up on a connection that it keeps. It asks again in one case only: when a
    connection that had answers before ends without a byte of the next one.
    """

    def __init__(self, address, enough):
        super().__init__()
        self._address = address
        self._enough = enough
        self.requests = self.last_answers = self.again = 0
        self.numbers, self.errors = {}, []

    def run(self):
        """Send requests until ``enough`` is set."""
        connection = HTTPConnection(*self._address, timeout=30)
        while not self._enough.is_set():
            key = uuid.uuid4().hex
            order = {
                "name": "GameStart",
                "quantity": 1,
                "type": ("buy", "sell")[int(key[0], 16) % 2],
            }
            status, body = self._ask(connection, "POST", "/orders", order, key)
            if status == 200:
                self.numbers[key] = body["data"]["transaction_number"]
            elif status != 404:
                self.errors.append(f"order: {status} {body}")
            status, body = self._ask(connection, "GET", "/stocks/FishCo", None, None)
            if status != 200:
                self.errors.append(f"lookup: {status} {body}")
        connection.close()

    def _ask(self, connection, method, path, body, key):
        headers = {"Idempotency-Key": key} if key else {}
        self.requests += 1
        while True:
            kept = connection.sock is not None
            try:
                status, fields, answer = ask(connection, method, path, body, headers)
            except (OSError, HTTPException) as error:
                connection.close()
                # Anything but an end before the first byte, and anything on a new connection,
                # is a request that was lost.
                ended = isinstance(error, ConnectionError | BrokenPipeError)
                if kept and ended:
                    self.again += 1
                    continue
                return 0, repr(error)
            if fields.get("connection") == "close":
                self.last_answers += 1
                connection.close()
            return status, answer


def ready(cluster):
    """Whether front-2 serves; the answer may take until it has started."""
    return cluster.request("GET", "/readyz", front=2, timeout_s=30)[0] == 200


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A cluster whose second front-end is started by this process."""
    with Cluster(tmp_path_factory.mktemp("restart"), "--no-restart", fronts=2) as cluster:
        cluster.signal("front-2", signal.SIGTERM)
        wait_until(lambda: "front-2" not in cluster.pids(), "front-2 to end")
        with contextlib.closing(Held(cluster, "front-2")) as front:
            front.start()
            wait_until(lambda: ready(cluster), "front-2 to serve")
            yield cluster, front
            front.stop()


def test_a_front_end_is_started_again_under_load_and_loses_nothing(held, capsys):
    """Every request that was sent whole is answered, or its connection ends before the first byte
    of an answer; each order is executed once.
    """
    cluster, front = held
    known = len(cluster.log("order-1"))
    enough = threading.Event()
    clients = [Client(cluster.address(2), enough) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    gaps = []
    try:
        for _ in range(RESTARTS):
            done = sum(c.requests for c in clients)
            wait_until(lambda n=done: sum(c.requests for c in clients) > n + 200, "requests")
            began = time.monotonic()
            front.stop()
            gaps.append(time.monotonic() - began)
            front.start()
        done = sum(c.requests for c in clients)
        wait_until(lambda: sum(c.requests for c in clients) > done + 200, "requests")
    finally:
        enough.set()
        for client in clients:
            client.join()
    requests = sum(c.requests for c in clients)
    last, again = sum(c.last_answers for c in clients), sum(c.again for c in clients)
    errors = [error for c in clients for error in c.errors]
    with capsys.disabled():
        print(
            f"\n{RESTARTS} restarts, {requests} requests: {len(errors)} lost, {again} asked again, "
            f"{last} last answers, draining took at most {max(gaps):.2f} s"
        )
    assert errors == []
    assert last > 0
    numbers = {key: number for c in clients for key, number in c.numbers.items()}
    assert len(set(numbers.values())) == len(numbers)
    cluster.await_healthy()
    # As every order was answered, what has executed is what was answered, each key once.
    executed = {line.number for line in cluster.log("order-1")[known:]}
    assert executed == set(numbers.values())
    cluster.assert_verified()


def test_connections_wait_while_nobody_serves(held):
    """A client that connects between the end of one process and the start of the next is
    answered.
    """
    cluster, front = held
    front.stop()
    connection = HTTPConnection(*cluster.address(2), timeout=30)
    connection.request("GET", "/stocks/GameStart")
    front.start()
    assert connection.getresponse().status == 200
    connection.close()


def test_the_log_tells_of_the_draining(held):
    """The log says on which socket the front-end listens, that it drains, and that it has drained
    with nothing unanswered; and it is short, so that nothing was logged for each request.
    """
    cluster, front = held
    front.stop()
    front.start()
    text = (cluster.directory / "front-2/service.log").read_text()
    assert "listens on 127.0.0.1:" in text
    assert ", a socket that was passed" in text
    assert "drains" in text
    assert "has drained, 0 unanswered" in text
    assert os.path.getsize(cluster.directory / "front-2/service.log") < 100_000
