"""FastAPI, asyncpg and PostgreSQL with two streaming standbys; every commit waits for one of them.

What one would build to have orders durable on two machines of three. All of it is in a
temporary directory; PostgreSQL clusters that the machine has are never touched.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.peers import uvicorn
from bench.peers.shape import PRICE_CENTS, QUANTITY
from bench.processes import NotStarted, Process, free_ports, running, wait_for
from bench.systems import STOCKS, Missing, System, Work, misses, order, trades

NAME = "PostgreSQL"
FAST_NAME = "PostgreSQL, one statement, gaps allowed"
COMMAND_S = 60
STANDBYS = 2
_INSTALLED = Path("/usr/lib/postgresql")
_CONF = """
listen_addresses = '127.0.0.1'
unix_socket_directories = '{directory}'
wal_level = replica
max_wal_senders = 8
synchronous_commit = on
fsync = on
full_page_writes = on
hot_standby = on
"""
_SCHEMA = """
CREATE TABLE stocks (name text PRIMARY KEY, price_cents bigint NOT NULL,
    quantity bigint NOT NULL CHECK (quantity >= 0), volume bigint NOT NULL,
    version bigint NOT NULL) WITH (fillfactor = 10);
CREATE TABLE counter (number bigint NOT NULL) WITH (fillfactor = 10);
INSERT INTO counter VALUES (0);
CREATE SEQUENCE fast_numbers START 1000000000000;
CREATE TABLE orders (number bigint PRIMARY KEY, key text NOT NULL UNIQUE, name text NOT NULL,
    side text NOT NULL, quantity bigint NOT NULL, price_cents bigint NOT NULL,
    version bigint NOT NULL, time_ms bigint NOT NULL);
"""


def programs() -> Path:
    """The directory of the newest PostgreSQL; raises Missing."""
    found = sorted(_INSTALLED.glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if found:
        return found[-1].parent
    if shutil.which("initdb") and shutil.which("postgres"):
        return Path(shutil.which("initdb") or "").resolve().parent
    raise Missing("PostgreSQL: apt-get install -y postgresql-15")


class Primary:
    """The directories, ports and programs of one primary and its standbys."""

    def __init__(self, scratch: Path) -> None:
        self.directory = scratch / "postgres"
        self.directory.mkdir(mode=0o700)
        self.ports = free_ports(1 + STANDBYS)
        self._bin = programs()
        # PostgreSQL refuses to run as root.
        self.user = "postgres" if os.geteuid() == 0 else None
        if self.user is not None:
            shutil.chown(self.directory, self.user, self.user)

    def run(self, program: str, *arguments: str, text: str = "") -> str:
        """Run one of the programs to its end; returns what it printed."""
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            input=text,
            capture_output=True,
            text=True,
            cwd=self.directory,
            user=self.user,
            group=self.user,
            timeout=COMMAND_S,
            check=False,
        )
        if done.returncode:
            raise NotStarted(f"{program} failed: {done.stderr}")
        return done.stdout

    def sql(self, text: str) -> str:
        """Run SQL on the primary; returns the rows."""
        options = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres"]
        where = ["-h", str(self.directory), "-p", str(self.ports[0]), "-d", "postgres"]
        return self.run("psql", *options, *where, text=text)

    def create(self) -> None:
        """Make the primary's data directory."""
        data = str(self.directory / "0")
        self.run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C")
        with (self.directory / "0/postgresql.conf").open("a") as conf:
            conf.write(_CONF.format(directory=self.directory))

    @contextlib.contextmanager
    def server(self, number: int) -> Iterator[Process]:
        """The primary (0) or a standby, accepting connections. SIGINT is its fast shutdown."""
        port = str(self.ports[number])
        command = [str(self._bin / "postgres"), "-D", str(self.directory / str(number))]
        log = self.directory / f"{number}.log"
        stop, last = signal.SIGINT, signal.SIGQUIT
        with running([*command, "-p", port], log, user=self.user, stop=stop, last=last) as process:
            wait_for(lambda: self._is_ready(port), f"PostgreSQL {number}", [process])
            yield process

    def _is_ready(self, port: str) -> bool:
        try:
            self.run("pg_isready", "-q", "-h", str(self.directory), "-p", port)
        except NotStarted:
            return False
        return True

    def copy(self, number: int) -> None:
        """Make the data directory of a standby."""
        where = ["-h", "127.0.0.1", "-p", str(self.ports[0]), "-U", "postgres"]
        how = ["-X", "stream", "-R", "-c", "fast", "-D", str(self.directory / str(number))]
        self.run("pg_basebackup", *where, *how)

    def be_synchronous(self) -> None:
        """Wait until both standbys stream, and have every commit wait for one of them."""
        streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        wait_for(lambda: int(self.sql(streaming)) == STANDBYS, "the standbys of PostgreSQL")
        self.sql("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'")
        self.sql("SELECT pg_reload_conf()")
        quorum = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'"
        wait_for(lambda: int(self.sql(quorum)) == STANDBYS, "the standbys to be synchronous")


def systems(address: tuple[str, int]) -> list[System]:
    """The two ways to ask the application for a trade."""
    spread = [order(name, side) for name in STOCKS for side in ("sell", "buy")]
    fast = [replace(request, path="/orders/fast") for request in spread]
    return [
        System(NAME, address, {Work.TRADE: trades(), Work.MISS: misses()}),
        System(FAST_NAME, address, {Work.TRADE: fast}),
    ]


@contextlib.contextmanager
def start(scratch: Path) -> Iterator[list[System]]:
    """The peer, up. Raises Missing."""
    uvicorn.require(*uvicorn.NEEDED, "asyncpg")
    programs()
    primary = Primary(scratch)
    primary.create()
    with contextlib.ExitStack() as stack:
        stack.enter_context(primary.server(0))
        stocks = ",".join(f"('{name}', {PRICE_CENTS}, {QUANTITY}, 0, 0)" for name in STOCKS)
        primary.sql(f"{_SCHEMA} INSERT INTO stocks VALUES {stocks}; ANALYZE")
        for number in range(1, 1 + STANDBYS):
            primary.copy(number)
            stack.enter_context(primary.server(number))
        primary.be_synchronous()
        socket = f"host={primary.directory}&port={primary.ports[0]}"
        environ = {"BENCH_POSTGRES_DSN": f"postgresql:///postgres?user=postgres&{socket}"}
        app, log = "bench.peers.fastapi_postgres_app:app", scratch / "fastapi-postgres.log"
        yield systems(stack.enter_context(uvicorn.serving(app, log, environ)))
