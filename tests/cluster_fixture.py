"""A real cluster for tests: ``twstock up`` in a directory of its own, on ports of its own."""

import contextlib
import http.client
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

from twstock.certificates import TOOLS
from twstock.config import Address, Limits, default_cluster, parse
from twstock.plan import member_names, to_text, unready
from twstock.rpc.security import security_of
from twstock.verify import Remote, verify

TWSTOCK = [sys.executable, "-c", "import sys; from twstock.cli import main; sys.exit(main())"]
START_S = 60.0
WAIT_S = 40.0
POLL_S = 0.02
SMALL = {"segment_bytes": 4 * 1024 * 1024}


def free_ports(count):
    """The first of ``count`` consecutive free ports, below the kernel's ephemeral ones."""
    for _ in range(200):
        first = random.randrange(20000, 32000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                probe = stack.enter_context(socket.socket())
                probe.bind(("127.0.0.1", port))
            return first
    raise AssertionError("no free ports")


def wait_until(condition, what, deadline_s=WAIT_S):
    """Poll until ``condition()`` is true; returns its result. Fails in the end, naming ``what``."""
    deadline = time.monotonic() + deadline_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {deadline_s} s for {what}"
        time.sleep(POLL_S)


def is_running(pid):
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Cluster:
    """One cluster. ``flags`` go to ``twstock up``, ``limits`` into ``cluster.toml``; ``prefix``
    is a command that runs ``twstock`` somewhere else.
    """

    def __init__(self, directory, *flags, fronts=1, catalogs=1, orders=3, limits=SMALL, tls=None):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.plan(fronts=fronts, catalogs=catalogs, orders=orders, limits=Limits(**limits))
        self.toml = self.directory / "cluster.toml"
        self.toml.write_text(to_text(replace(config, tls=tls)))
        self.config = parse(self.toml.read_text(), self.directory)
        self.flags = flags
        self.prefix = []
        self.process = None
        self._own = {}

    def plan(self, **options):
        """The cluster that will run, on free ports of this machine."""
        members = 2 * options["fronts"] + options["catalogs"] + options["orders"]
        first = free_ports(members)
        return default_cluster(
            cluster_id=f"test-{first}",
            http=Address("127.0.0.1", first),
            base_port=first + options["fronts"],
            **options,
        )

    # the whole cluster

    def up(self):
        """Start everything and wait until it is ready; returns how many seconds that took."""
        started = time.monotonic()
        self.launch()
        readable, _, _ = select.select([self.process.stdout], [], [], START_S)
        line = self.process.stdout.readline().decode() if readable else "nothing"
        assert line.startswith("ready "), f"{line!r}; {self.errors()}"
        return time.monotonic() - started

    def launch(self):
        """Start ``twstock up`` without waiting for anything."""
        command = [*self.prefix, *TWSTOCK, "up", "--data", str(self.directory), *self.flags]
        with (self.directory / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        return self.process

    def errors(self):
        """What ``twstock up`` wrote on standard error."""
        return (self.directory / "up.log").read_text()

    def down(self):
        """End everything with SIGTERM; nothing may be left running."""
        members = set(self.pids().values())
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        for process in self._own.values():
            process.terminate()
            process.wait(WAIT_S)
        self._own = {}
        if self.process is not None:
            self.process.terminate()
            status = self.process.wait(WAIT_S)
            self.process.stdout.close()
            self.process = None
            assert status == 0, f"twstock up ended with {status}: {self.errors()}"
        left = [pid for pid in members if is_running(pid)]
        assert not left, f"still running: {left}"

    def destroy(self):
        """Kill what is left: the members die with the process that started them."""
        for process in self._own.values():
            process.kill()
            process.wait()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def __enter__(self):
        try:
            self.up()
        except BaseException:
            self.destroy()
            raise
        return self

    def __exit__(self, *_):
        try:
            self.down()
        finally:
            self.destroy()

    # its members

    def pids(self):
        """The process of each member that has one, from the process table."""
        found = {name: p.pid for name, p in self._own.items() if p.poll() is None}
        if self.process is None:
            return found
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            pids = [int(pid) for pid in children.read_text().split()]
        except OSError:
            return found
        for pid in pids:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
                if "--name" in words and is_running(pid):
                    found[words[words.index("--name") + 1]] = pid
        return found

    def signal(self, name, number=signal.SIGKILL):
        """Send a member a signal; returns its process id."""
        pid = wait_until(lambda: self.pids().get(name), f"{name} to have a process")
        os.kill(pid, number)
        if number == signal.SIGKILL:
            wait_until(lambda: not is_running(pid), f"{name} to be gone")
        return pid

    def on(self, _name):
        """The command prefix that runs a command where a member is."""
        return []

    def start(self, name):
        """Start a member that ``--no-restart`` left dead."""
        if name in self._own:
            self._own[name].wait(WAIT_S)
        tier = name.partition("-")[0].replace("front", "frontend")
        twistd = Path(sys.executable).with_name("twistd")
        command = [*self.on(name), sys.executable, str(twistd), "-n", "--pidfile="]
        with (self.directory / name / "service.log").open("ab") as log:
            self._own[name] = subprocess.Popen(
                [*command, f"stock-{tier}", "--config", str(self.toml), "--name", name],
                stdout=log,
                stderr=log,
            )

    def services(self, front=1):
        """The rows of ``GET /cluster`` by the members' names; empty while there is no answer."""
        try:
            status, _, body = self.get("/cluster", front=front)
        except (OSError, http.client.HTTPException):
            return {}
        rows = body["data"]["services"] if status == 200 else []
        return {f"{row['service']}-{row['id']}": row for row in rows}

    def leader(self, group="order", front=1):
        """The name of the group's leader; None while there is none."""
        for name, row in self.services(front).items():
            if row["service"] == group and row["role"] == "leader" and row["alive"]:
                return name
        return None

    def await_leader(self, group="order", but=None, front=1):
        """Wait for a leader other than ``but``."""
        return wait_until(
            lambda: (now := self.leader(group, front)) != but and now, f"{group} leader, not {but}"
        )

    def await_serving(self):
        """Wait until every member serves; trading may go on meanwhile."""
        wait_until(
            lambda: (rows := self.services()) and not unready(self.config, rows.values()),
            "every member to serve",
        )

    def await_healthy(self):
        """Wait until every member is alive and all order replicas have the same orders."""

        def healthy():
            rows = self.services()
            orders = [row for row in rows.values() if row["service"] == "order"]
            return (
                all(rows.get(name, {}).get("alive") for name in member_names(self.config))
                and sum(row["role"] == "leader" for row in orders) == 1
                and len({row["last_transaction"] for row in orders}) == 1
            )

        return wait_until(healthy, "every member to be well")

    # what clients do

    def address(self, front=1):
        """Host and port of a front-end."""
        http_address = self.config.front(front).http
        return http_address.host, http_address.port

    @property
    def url(self):
        """The URL of the first front-end."""
        host, port = self.address()
        return f"http://{host}:{port}"

    def request(self, method, path, body=None, headers=None, front=1, timeout_s=5.0):
        """One request on a connection of its own: status, headers, JSON."""
        connection = http.client.HTTPConnection(*self.address(front), timeout=timeout_s)
        try:
            return ask(connection, method, path, body, headers)
        finally:
            connection.close()

    def get(self, path, front=1):
        """GET a path."""
        return self.request("GET", path, front=front)

    def post(self, path, body, headers=None, front=1):
        """POST a JSON value."""
        return self.request("POST", path, body, headers, front)

    def answered(self, method, path, body=None, headers=None, front=1):
        """The JSON of a request that must succeed. It is repeated while it cannot be answered:
        members come and go, and how long an election or a start takes depends on the machine.
        """

        def answer():
            try:
                status, _, told = self.request(method, path, body, headers, front)
            except (OSError, http.client.HTTPException):
                return None
            assert status in (200, 429, 503), told
            return status == 200 and told

        return wait_until(answer, f"{method} {path} to be answered")

    def stock(self, name, front=1):
        """One stock."""
        return self.answered("GET", f"/stocks/{name}", front=front)["data"]

    def trade(self, name, quantity, side, **headers):
        """Place an order that must be executed; returns its number."""
        body = {"name": name, "quantity": quantity, "type": side}
        headers = {"Idempotency-Key": uuid.uuid4().hex, **headers}
        return self.answered("POST", "/orders", body, headers)["data"]["transaction_number"]

    # what the replicas have

    def remotes(self, group):
        """Every replica of a group, to be asked over gRPC."""
        security, members = security_of(self.config, TOOLS), self.config.replicas(group)
        ways = {r: security.to(f"{group}-{r.id}") for r in members}
        return [Remote(f"{group}-{r.id}", str(r.grpc), way) for r, way in ways.items()]

    def log(self, name):
        """All orders of one order replica, as it reports them."""
        [remote] = [r for r in self.remotes("order") if r.name == name]
        with contextlib.closing(remote):
            return list(remote.orders())

    def assert_verified(self):
        """Assert that all order replicas have the same orders, which agree with the catalog."""
        orders, catalogs = self.remotes("order"), self.remotes("catalog")
        try:
            finding = verify(orders, catalogs, patience_s=WAIT_S)
        finally:
            for remote in (*orders, *catalogs):
                remote.close()
        assert finding.exit_status() == 0, finding


def ask(connection, method, path, body=None, headers=None):
    """One request on an open connection: status, headers, JSON."""
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Content-Type": "application/json"} if body is not None else {}
    connection.request(method, path, content, {**given, **(headers or {})})
    response = connection.getresponse()
    text = response.read()
    names = {name.lower(): value for name, value in response.getheaders()}
    return response.status, names, json.loads(text) if text else None
