"""``twstock up`` and ``twistd -n stock-cluster``: a whole cluster on this machine.

Every service is a ``twistd`` process of its own, restarted when it dies. This process never
starts gRPC and holds no state of the cluster: all data belongs to the members.
"""

import contextlib
import fcntl
import json
import os
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, TextIO

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from twstock.catalog.seed import read_seed
from twstock.certificates import read_identity
from twstock.clocks import pause, use_boottime
from twstock.config import Address, Cluster, Limits, read
from twstock.durable import PUBLIC, draft
from twstock.errors import ConfigError, TwstockError, told
from twstock.follow import Follower
from twstock.members import Members, why_taken
from twstock.plan import TOML, Flags, addresses, member_names, parse_flags, plan, to_text, unready
from twstock.process import (
    EXIT_NOT_NOW,
    EXIT_REFUSED,
    EXIT_UNWRITTEN,
    EXIT_USAGE,
    Logged,
    VersionedOptions,
    check_restored,
    log_format,
    stop_with,
    terminal,
    without_pid_file,
    write_log,
)
from twstock.systemd import SystemdNotifier, watch
from twstock.tokens import read_token

POLL_S = 0.05
ASK_TIMEOUT_S = 1.0
PORT_WAIT_S = 3.0
TELL_EVERY_S = 10.0
FOLLOW_EVERY_S = 0.2
DEATHS_MAX = 3

Ask = Callable[[str], Awaitable[tuple[int, bytes]]]
"""GET a URL; returns status and body. Raises an exception when there is no answer."""


class Options(VersionedOptions):
    """The flags of ``twstock up``; ``flags`` holds them once they are checked."""

    synopsis = "[options]"
    longdesc = (
        "Runs a whole cluster on this machine until Ctrl-C, and goes on with what is in its "
        "directory. Numbers in brackets are those of a new cluster; else cluster.toml has them."
    )
    optParameters: ClassVar[list[list[str | None]]] = [
        ["data", None, "var", "The directory of all members' data and of cluster.toml."],
        [
            "http",
            None,
            None,
            "HOST:PORT of the first front-end; the next ones count up. [127.0.0.1:8080]",
        ],
        ["base-port", None, None, "The first port of the services behind the front-ends. [50051]"],
        ["fronts", None, None, "How many front-ends. [1]"],
        ["catalogs", None, None, "How many catalog replicas. [1]"],
        ["orders", None, None, "How many order replicas. [3]"],
        ["catalog-csv", None, None, "The stocks of a new cluster: name,price,quantity."],
        ["cache-size", None, None, "How many stocks a front-end caches. [100]"],
        ["admin-token-file", None, None, "A file with the token of who may change stocks."],
    ]
    optFlags: ClassVar[list[list[str | None]]] = [
        ["no-restart", None, "Leave a service that dies dead."],
        ["logs", None, "Show the services' logs as they are written."],
    ]
    flags: Flags

    def postOptions(self) -> None:
        """Check the values; raises UsageError naming the flag at fault."""
        without_pid_file(self.parent)
        try:
            self.flags = parse_flags(self)
            if self.flags.admin_token_file is not None:
                read_token(self.flags.admin_token_file)
        except ConfigError as error:
            raise UsageError(str(error)) from None
        if self.flags.catalog_csv is not None:
            _check_csv(self.flags.catalog_csv)


def _check_csv(path: Path) -> None:
    """Find mistakes in the file of stocks, for which the catalog would be started three times."""
    try:
        read_seed(path, Limits().message_bytes_max)
    except ConfigError as error:
        raise UsageError(f"--catalog-csv: {error}") from None


def _check_members(cluster: Cluster) -> None:
    """Find what every member would refuse, before each of them is started three times. Raises
    ConfigError.
    """
    log_format(cluster, os.environ)
    if cluster.admin.token_file is not None:
        read_token(cluster.admin.token_file)
    if cluster.tls is not None:
        for name in member_names(cluster):
            read_identity(cluster.tls, name)


class Directory:
    """The data directory of a local cluster, held by one ``twstock up`` at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.toml = path / TOML
        self._lock: TextIO | None = None

    def hold(self) -> None:
        """Take the directory until this process ends; raises TwstockError if another has it."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (self.path / "lock").open("a+", encoding="ascii")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip()
            lock.close()
            raise TwstockError(f"{self.path} is in use by the cluster of process {owner}") from None
        lock.truncate(0)
        print(os.getpid(), file=lock, flush=True)
        self._lock = lock

    def release(self) -> None:
        """Release the directory."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def settle(self, flags: Flags) -> Cluster:
        """The cluster that flags and ``cluster.toml`` describe; writes it back to that file. Raises
        ConfigError.
        """
        check_restored(self.path)
        old = read(self.toml) if self.toml.exists() else None
        has_data = any(
            any(file.name != "service.log" for file in directory.iterdir())
            for group in ("catalog", "order")
            for directory in self.path.glob(f"{group}-*/")
        )
        cluster = plan(flags, old, has_data, uuid.uuid4().hex)
        if old is None and has_data:
            raise ConfigError(f"{self.toml} is missing, but there is data of a cluster beside it")
        with draft(self.toml, PUBLIC) as file:
            file.write(to_text(cluster).encode())
        return cluster


class LocalCluster(Logged):
    """The members of one cluster as processes of this machine, from start to ready to stop.

    ``give_up(message)`` ends the process: a port is taken, or a member does not start. A second
    argument is the exit status, unless that is ``EXIT_NOT_NOW``.
    ``output`` takes the ready line, ``errors`` messages for people.
    """

    def __init__(
        self,
        reactor: Any,
        flags: Flags,
        ask: Ask,
        give_up: Callable[..., None],
        *,
        output: TextIO,
        errors: TextIO,
    ) -> None:
        self.reactor = reactor
        self._flags = flags
        self._ask = ask
        self._give_up = give_up
        self._output = output
        self._errors = errors
        self._directory = Directory(flags.data)
        self._members: Members | None = None
        self._following: LoopingCall | None = None
        self._deaths: dict[str, int] = {}
        self._unable: set[str] = set()
        self._work: Deferred[None] = Deferred()
        self.ready = False

    def startService(self) -> None:
        """Take the data directory, and start every member at once."""
        super().startService()
        self._work = Deferred.fromCoroutine(self._run())
        self._work.addErrback(self._failed)

    def stopService(self) -> "Deferred[None]":
        """Drain and stop every member, and release the data directory."""
        super().stopService()
        self._work.cancel()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._members is not None:
            await self._members.stopService()
        if self._following is not None and self._following.running:
            self._following.stop()
            self._following.f()  # lines that were written after its last look
        self._directory.release()

    async def _run(self) -> None:
        self._directory.hold()
        cluster = self._directory.settle(self._flags)
        _check_members(cluster)
        for group in ("catalog", "order"):
            if (size := len(cluster.replicas(group))) % 2 == 0:
                self._tell(f"{size} {group} replicas bear the loss of no more than {size - 1} do")
        await self._await_ports(cluster)
        self._members = Members(self.reactor, cluster, self._exited, self._flags.restart)
        if self._flags.logs:
            follower = Follower(self._members.logs(), self._errors)
            self._following = LoopingCall(follower.look)
            self._following.clock = self.reactor
            unread = self._following.start(FOLLOW_EVERY_S)
            unread.addErrback(lambda failure: failure.trap(OSError)).addErrback(self._failed)
        self._members.startService()
        await self._await_members(cluster)
        self.ready = True
        try:
            print(f"ready http://{cluster.fronts[0].http}", file=self._output, flush=True)
        except OSError as error:
            self._give_up(f"standard output: {told(error)}", EXIT_UNWRITTEN)

    def _failed(self, failure: Failure) -> None:
        match failure.value:
            case CancelledError():
                pass
            case ConfigError() as error:
                self._give_up(str(error), EXIT_USAGE)
            case TwstockError() as error:
                self._give_up(str(error))
            case OSError() as error:
                self._give_up(told(error))
            case _:
                self._give_up(failure.getTraceback())

    async def _await_ports(self, cluster: Cluster) -> None:
        """Wait until every address is free; those in use get a moment. Raises TwstockError."""
        deadline = self.reactor.seconds() + PORT_WAIT_S
        for owner, address in addresses(cluster).items():
            while (reason := why_taken(address)) is not None:
                if self.reactor.seconds() > deadline:
                    raise TwstockError(f"{owner} cannot listen on {address}: {reason}")
                await pause(self.reactor, POLL_S)

    async def _await_members(self, cluster: Cluster) -> None:
        told = self.reactor.seconds()
        while missing := await self._missing(cluster):
            if self.reactor.seconds() - told > TELL_EVERY_S:
                told = self.reactor.seconds()
                self._tell(f"still waiting for {', '.join(missing)}")
            await pause(self.reactor, POLL_S)

    async def _missing(self, cluster: Cluster) -> list[str]:
        """What keeps the cluster from being ready, as its front-ends report it, except for members
        that cannot start and that the cluster can spare.
        """
        for front in cluster.fronts:
            base = url_of(front.http)
            try:
                status, answer = await self._ask(f"{base}/readyz")
                reasons = "; ".join(json.loads(answer)["data"]["reasons"])
                _, body = await self._ask(f"{base}/cluster")
                down = unready(cluster, json.loads(body)["data"]["services"])
            except CancelledError:
                raise
            except Exception:  # refused, reset, too slow, half an answer: it is starting
                return [f"front-{front.id}"]
            self._forget_deaths(down)
            missing = [name for name in down if name not in self._unable]
            if status != 200 or missing:
                return missing or [f"front-{front.id}: {reasons}"]
        return []

    def _forget_deaths(self, down: Collection[str]) -> None:
        """A member that serves now could start after all, and no longer counts as one to spare."""
        self._deaths = {name: count for name, count in self._deaths.items() if name in down}
        self._unable.intersection_update(down)

    def _exited(self, name: str, code: int) -> None:
        assert self._members is not None
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit status {code}"
        refuses = code == EXIT_REFUSED
        goes_on = self._flags.restart and not refuses
        self._tell(f"{name} {how}{'; it is started again' if goes_on else ''}")
        if code <= 0 or (self.ready and not refuses):
            return
        self._deaths[name] = self._deaths.get(name, 0) + 1
        if goes_on and self._deaths[name] != DEATHS_MAX:
            return
        self._unable.add(name)
        last = f"{name} does not start; its log ends:\n{self._members.tail(name)}"
        can_spare = self.ready or self._members.can_spare(self._unable)
        if can_spare and (refuses or goes_on):
            until = "it starts" if goes_on else "all are started again"
            self._tell(f"the others go on without it until {until}. {last}")
        else:
            self._give_up(last)

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads any more; the cluster goes on
            print(f"twstock: {line}", file=self._errors, flush=True)


def url_of(address: Address) -> str:
    """The URL by which this machine reaches a front-end that listens on an address."""
    wildcards = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (compared, not bound)
    return f"http://{Address(wildcards.get(address.host, address.host), address.port)}"


def web_ask(reactor: Any) -> Ask:
    """Ask over HTTP, with a time limit."""
    from twisted.web.client import Agent, readBody  # noqa: PLC0415 (not before a reactor is)

    agent = Agent(reactor, connectTimeout=ASK_TIMEOUT_S)

    async def ask(url: str) -> tuple[int, bytes]:
        response = await agent.request(b"GET", url.encode()).addTimeout(ASK_TIMEOUT_S, reactor)
        return response.code, await readBody(response).addTimeout(ASK_TIMEOUT_S, reactor)

    return ask


def makeService(options: Options) -> LocalCluster:
    """The service of ``stock-cluster``: the one place here that names the reactor."""
    from twisted.internet import reactor  # noqa: PLC0415

    use_boottime(reactor)
    clock: Any = reactor

    def give_up(message: str, code: int = EXIT_NOT_NOW) -> None:
        stop_with(reactor, f"twstock: {message}", code)

    output, errors = terminal(options.parent)
    service = LocalCluster(
        clock, options.flags, web_ask(clock), give_up, output=output, errors=errors
    )
    write_log(service, options.parent, "text", "cluster")
    watch(clock, SystemdNotifier(os.environ), lambda: service.ready)
    # After the reactor has installed its own handlers, which it does when it starts.
    clock.callLater(0, stop_on_signals, clock)
    return service


def stop_on_signals(reactor: Any) -> None:
    """Make Ctrl-C, SIGTERM and SIGHUP (the terminal closes) an orderly stop and no failure: twistd
    does not handle SIGHUP this way, and after the others it would end itself by the signal.
    """

    def stop() -> None:
        with contextlib.suppress(ReactorNotRunning):  # a second Ctrl-C
            reactor.stop()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup has SIGHUP ignored
            signal.signal(number, lambda *_: reactor.callFromThread(stop))


def up(arguments: Sequence[str]) -> int:
    """Run ``twstock up`` until a signal ends it; returns the exit status."""
    options = Options()
    options.synopsis = "Usage: twstock up [options]"
    try:
        options.parseOptions(list(arguments))
    except UsageError as error:
        print(f"twstock up: {error}", file=sys.stderr)
        return EXIT_USAGE
    service = makeService(options)
    reactor = service.reactor
    reactor.callWhenRunning(service.startService)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return 0
