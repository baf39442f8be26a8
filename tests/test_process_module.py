"""What the services' processes share: options, systemd, stages, and how they end."""

import io
import os
import re
import socket
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from twisted.scripts.twistd import ServerOptions

import twstock
from twstock import process
from twstock.clocks import boottime, use_boottime
from twstock.config import default_cluster
from twstock.errors import CannotListen, CorruptStorage, CorruptTables, StorageUnavailable
from twstock.order.tables import OrderTables
from twstock.process import (
    EXIT_BROKEN,
    EXIT_NOT_NOW,
    EXIT_REFUSED,
    ServiceOptions,
    Stages,
    load_cluster,
    member_number,
    panic,
    stop_with,
)
from twstock.replication.assembly import assemble
from twstock.replication.disk import META
from twstock.systemd import SystemdNotifier, supervise, watch
from twstock.threads import Pool
from twstock.tomltext import render


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, name):
    """A cluster.toml of the cluster ``name``."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(render(default_cluster(cluster_id=name)))
    return str(path)


def options(**values):
    """The options of a service, as twistd would have parsed them."""
    return {"config": None, "name": None} | {key: str(value) for key, value in values.items()}


# --- which cluster, which member ---------------------------------------------------------------


def test_a_service_tells_the_version_of_twstock(capsys):
    """``twistd -n stock-order --version`` does not tell that of Twisted."""
    with pytest.raises(SystemExit):
        ServiceOptions().parseOptions(["--version"])
    assert capsys.readouterr().out == f"twstock {twstock.__version__}\n"


def test_the_option_wins_over_the_environment_and_that_over_the_directory(here):
    """``--config``, then ``$TWSTOCK_CONFIG``, then ``./cluster.toml``."""
    flag, variable = write(here / "a/flag.toml", "flag"), write(here / "b/var.toml", "variable")
    write(here / "cluster.toml", "directory")
    environ = {"TWSTOCK_CONFIG": variable}
    assert load_cluster(options(config=flag), environ).cluster_id == "flag"
    assert load_cluster(options(), environ).cluster_id == "variable"
    assert load_cluster(options(), {}).cluster_id == "directory"


def test_without_a_file_it_is_the_default_cluster(here, monkeypatch):
    """Nothing named and nothing found: the cluster on loopback."""
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert load_cluster(options(), {}) == default_cluster()


def test_the_last_place_to_look_is_the_systems(here, monkeypatch):
    """If nothing else is there, ``/etc/twstock/cluster.toml`` is read."""
    system, text = Path("/etc/twstock/cluster.toml"), render(default_cluster(cluster_id="system"))
    monkeypatch.setattr(Path, "exists", lambda self: self == system)
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: text)
    cluster = load_cluster(options(), {})
    assert cluster.cluster_id == "system"
    assert cluster.data == Path("/etc/twstock/var")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"\xff", "can't decode"),
        (b"= 1", "not valid TOML"),
        (b"nonsense = 1", "nonsense: unknown key"),
    ],
)
def test_a_named_file_that_cannot_be_used_is_an_error(here, content, words):
    """A file that was asked for is never passed over; the error names it and what is wrong."""
    path = here / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load_cluster(options(config=path), {})
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(("name", "number"), [("order-2", 2), ("order-17", 17), (None, 1)])
def test_a_member_is_its_tier_and_number(name, number):
    """Without a name it is number 1."""
    named = options() if name is None else options(name=name)
    assert member_number(named, "order") == number


@pytest.mark.parametrize(
    "name",
    [
        *("order", "order-", "order-x", "order-²", "order-1\n", "front-1", "-1", "2"),
        *("order-01", "order-0", "order-" + "1" * 5000),
    ],
)
def test_what_names_no_member_of_the_tier_is_an_error(name):
    """The error says what was expected. No member has a second name, such as order-01."""
    with pytest.raises(UsageError, match="expected order-NUMBER"):
        member_number(options(name=name), "order")


@pytest.mark.parametrize("service", ["stock-order", "stock-catalog", "stock-frontend"])
def test_a_member_whose_certificate_is_missing_is_an_error(here, certificates, service):
    """The error names the file; with the files there is none."""
    config = here / "cluster.toml"
    config.write_text(render(replace(default_cluster(), tls=certificates)))
    words = ["-n", service, "--config", str(config), "--name"]
    tier = service.removeprefix("stock-").removesuffix("end")
    ServerOptions().parseOptions([*words, f"{tier}-1"])
    config.write_text(render(replace(default_cluster(), tls=here)))
    with pytest.raises(UsageError, match=re.escape(f"{here}/ca.pem: No such file")):
        ServerOptions().parseOptions([*words, f"{tier}-1"])


def test_a_catalog_with_data_needs_its_file_of_stocks_no_more(here):
    """The file was read when the data was made. It is an error only if its stocks would not fit
    into a message.
    """
    config, stocks, data = here / "cluster.toml", here / "stocks.csv", here / "catalog-1"
    config.write_text(render(replace(default_cluster(), data=here, catalog_csv=stocks)))
    words = ["-n", "stock-catalog", "--config", str(config)]
    data.mkdir()
    with pytest.raises(UsageError, match=r"stocks\.csv: No such file"):
        ServerOptions().parseOptions(words)
    (data / META).touch()
    ServerOptions().parseOptions(words)
    stocks.write_text("name,price\n")
    ServerOptions().parseOptions(words)
    rows = "".join(f"{number:0255},1,1\n" for number in range(9_000))
    stocks.write_text(f"name,price,quantity\n{rows}")
    with pytest.raises(UsageError, match=r"stocks\.csv: its stocks may take"):
        ServerOptions().parseOptions(words)


def test_an_unknown_log_format_is_an_error(here, monkeypatch):
    """The error says which ones there are."""
    monkeypatch.setenv("TWSTOCK_LOG_FORMAT", "xml")
    with pytest.raises(UsageError, match="TWSTOCK_LOG_FORMAT: expected text or json"):
        ServerOptions().parseOptions(["-n", "stock-order"])


# --- systemd -----------------------------------------------------------------------------------


def drain(sock):
    """All states that have arrived."""
    sock.setblocking(False)
    states = []
    while True:
        try:
            states.append(sock.recv(1024).decode())
        except BlockingIOError:
            return states


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path):
    """Systemd's end of the notification socket: its address, and what it was told."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@twstock-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0", 1))
        environ = {"NOTIFY_SOCKET": address}
        yield SimpleNamespace(environ=environ, told=partial(drain, sock), sock=sock)


def test_systemd_hears_every_state(systemd):
    """A state arrives as one datagram, on a path and on an abstract socket."""
    notifier = SystemdNotifier(systemd.environ)
    assert notifier.listening
    notifier.tell("READY=1")
    notifier.tell("STOPPING=1")
    assert systemd.told() == ["READY=1", "STOPPING=1"]


def test_without_systemd_nothing_is_told():
    """Outside systemd there is no socket and no error."""
    notifier = SystemdNotifier({})
    assert not notifier.listening
    notifier.tell("READY=1")


def test_readiness_is_told_once_and_the_watchdog_for_ever(systemd):
    """READY comes with the first look after the service is ready, the watchdog with every one."""
    clock, ready = Clock(), []
    notifier = SystemdNotifier({**systemd.environ, "WATCHDOG_USEC": "600000"})
    watch(clock, notifier, lambda: bool(ready))
    assert systemd.told() == ["WATCHDOG=1"]
    ready.append(True)
    clock.advance(0.2)
    assert systemd.told() == ["READY=1", "WATCHDOG=1"]
    clock.pump([0.2] * 3)
    assert systemd.told() == ["WATCHDOG=1"] * 3


def test_the_watchdog_hears_three_times_within_its_patience(systemd):
    """Two lost pings are no reason to be killed; without a watchdog four looks a second do."""
    for environ, interval in (({"WATCHDOG_USEC": "300000"}, 0.1), ({}, 0.25)):
        clock = Clock()
        watch(clock, SystemdNotifier({**systemd.environ, **environ}), lambda: False)
        assert [call.getTime() for call in clock.getDelayedCalls()] == [pytest.approx(interval)]
        systemd.told()


def refused(sock):
    """Make nobody listen at the address; returns a function that makes a listener there again."""
    address = sock.getsockname()
    sock.close()
    if isinstance(address, str):
        Path(address).unlink()

    def again(stack):
        heard = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        heard.bind(address)
        return heard

    return again


def full(sock):
    """Fill the socket, which nobody reads; returns a function that returns the socket."""
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_UNIX, kind) as other, suppress(BlockingIOError):
        while True:
            other.sendto(b"FULL", sock.getsockname())
    return lambda stack: sock


@pytest.mark.parametrize("silence", [refused, full])
def test_a_systemd_that_does_not_listen_stops_nothing(systemd, silence):
    """Notifications go on without waiting, one line in the log says so, and READY is sent as soon
    as somebody listens.
    """
    clock, notifier = Clock(), SystemdNotifier(systemd.environ)
    again = silence(systemd.sock)
    with capturedLogs() as logged, ExitStack() as stack:
        socket.setdefaulttimeout(0.1)  # who waits would do so for ever, and so would this test
        stack.callback(socket.setdefaulttimeout, None)
        watch(clock, notifier, lambda: True)
        clock.pump([0.25] * 3)
        assert not notifier.tell("STOPPING=1")
        socket.setdefaulttimeout(None)
        heard = again(stack)
        drain(heard)
        clock.pump([0.25] * 2)
        assert drain(heard) == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]
    (event,) = logged
    assert (event["log_level"], event["state"]) == (LogLevel.warn, "READY=1")
    assert not isinstance(event["error"], TimeoutError)


def test_nobody_listening_costs_nothing():
    """Without systemd no timer runs."""
    clock = Clock()
    watch(clock, SystemdNotifier({}), lambda: True)
    assert clock.getDelayedCalls() == []


class ReactorDouble(Clock):
    """A clock with the ``run``, triggers and ``stop`` of a reactor."""

    def __init__(self, running=False):
        super().__init__()
        self.running = running
        self.starting, self.triggers, self.stopped = [], [], 0

    def callWhenRunning(self, call, *arguments):
        """Remember a call for ``run``."""
        self.starting.append((call, arguments))

    def addSystemEventTrigger(self, phase, event, call, *arguments):
        """Remember a call for the end."""
        self.triggers.append((phase, event, call, arguments))

    def stop(self):
        """Count."""
        self.stopped += 1

    def run(self):
        """Become running."""
        self.running = True
        for call, arguments in self.starting:
            call(*arguments)


def test_a_supervised_service_tells_systemd_of_its_life(systemd):
    """READY when it runs, STOPPING before the shutdown begins."""
    reactor, service = ReactorDouble(), Service()
    assert supervise(service, reactor, systemd.environ) is service
    service.startService()
    assert systemd.told() == []
    reactor.run()
    assert systemd.told() == ["READY=1", "WATCHDOG=1"]
    ((phase, event, call, arguments),) = reactor.triggers
    assert (phase, event) == ("before", "shutdown")
    call(*arguments)
    assert systemd.told() == ["STOPPING=1"]


def test_a_service_that_does_not_serve_yet_is_not_ready(systemd):
    """READY waits for the data to be open; the watchdog is told meanwhile."""
    reactor, service, open_data = ReactorDouble(), Service(), []
    supervise(service, reactor, systemd.environ, lambda: bool(open_data))
    service.startService()
    reactor.run()
    reactor.advance(0.25)
    assert systemd.told() == ["WATCHDOG=1", "WATCHDOG=1"]
    open_data.append(True)
    reactor.advance(0.25)
    assert systemd.told() == ["READY=1", "WATCHDOG=1"]


# --- stages ------------------------------------------------------------------------------------


class Stage(Service):
    """A stage that notes in ``diary`` what happens to it."""

    def __init__(self, name, diary, ending=None, error=None):
        self.name, self.diary, self.ending, self.error = name, diary, ending, error

    def startService(self):
        """Start, or fail to."""
        if self.error is not None:
            raise self.error
        super().startService()
        self.diary.append(f"{self.name} starts")

    def stopService(self):
        """Stop when ``ending`` fires; raise it if it is an error."""
        super().stopService()
        self.diary.append(f"{self.name} stops")
        if isinstance(self.ending, Exception):
            raise self.ending
        return self.ending


def test_stages_start_in_order_and_stop_in_reverse_one_after_the_other():
    """A stage is told to stop when the one that needs it has finished."""
    diary, ending, refusals = [], Deferred(), []
    stages = Stages([Stage("a", diary), Stage("b", diary, ending)], refusals.append)
    stages.startService()
    assert diary == ["a starts", "b starts"]
    stopped = stages.stopService()
    assert diary[2:] == ["b stops"]
    assert not stopped.called
    ending.callback(None)
    assert diary[2:] == ["b stops", "a stops"]
    assert stopped.called
    assert refusals == []


def test_a_stage_that_cannot_start_is_told_and_the_started_ones_stop():
    """The operator is told why; the stages that run already are stopped, and those after it never
    start.
    """
    diary, refusals = [], []
    error = CannotListen("cannot listen on 127.0.0.1:1: is the port taken?")
    stages = Stages(
        [Stage("a", diary), Stage("b", diary, error=error), Stage("c", diary)], refusals.append
    )
    stages.startService()
    assert refusals == [str(error)]
    stages.stopService()
    assert diary == ["a starts", "a stops"]


@pytest.mark.logs_failures
def test_a_stage_that_fails_to_stop_keeps_no_other_from_it():
    """The failure is logged, whether it is raised or comes later, and those below are stopped."""
    diary, raised, later = [], ZeroDivisionError(), Deferred()
    stages = Stages(
        [Stage("a", diary), Stage("b", diary, raised), Stage("c", diary, later)], lambda why: None
    )
    stages.startService()
    with capturedLogs() as logged:
        stopped = stages.stopService()
        later.errback(ValueError())
    assert stopped.result is None
    assert diary[3:] == ["c stops", "b stops", "a stops"]
    failures = [event["log_failure"].value for event in logged if "log_failure" in event]
    assert list(map(type, failures)) == [ValueError, ZeroDivisionError]


def test_an_error_that_nobody_foresaw_is_not_a_refusal():
    """Only errors raised on purpose become messages for the operator; a bug stays an exception."""
    stages = Stages([Stage("a", [], error=ZeroDivisionError())], lambda why: None)
    with pytest.raises(ZeroDivisionError):
        stages.startService()


def test_a_pool_has_its_threads_while_it_runs():
    """Threads start with the service, not when it is made (which may be before a fork), and end
    with it.
    """
    pool, done = Pool("test", 2), []
    pool.threads.callInThread(lambda: done.append(threading.current_thread()))
    assert done == []
    pool.startService()
    for _ in range(5):
        pool.threads.callInThread(lambda: done.append(threading.current_thread()))
    pool.stopService()
    assert len(done) == 6
    assert len(set(done)) <= 2
    assert not any(thread.is_alive() for thread in done)


# --- the end -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["the disk", Failure(ValueError("the disk"))], ids=["text", "f"])
def test_panic_says_why_and_exits_with_70(capsys, reason):
    """The process ends at once, without cleaning up: after a failed write nothing more may be
    written.
    """
    codes = []
    panic(reason, codes.append)
    assert codes == [EXIT_BROKEN] == [70]
    written = capsys.readouterr().err
    assert written.startswith("twstock stops: ")
    assert "the disk" in written


def test_tables_that_turn_out_damaged_are_no_bug(capsys):
    """What helps is said without a traceback, and the status tells systemd not to start it
    again.
    """
    codes = []
    panic(Failure(CorruptTables("applied.sqlite: it can be deleted")), codes.append)
    assert codes == [EXIT_REFUSED]
    assert capsys.readouterr().err == "twstock stops: applied.sqlite: it can be deleted\n"


def test_what_has_to_end_ends_though_nobody_can_be_told(monkeypatch):
    """The process ends although stderr cannot be written (the disk of its log may be full): one
    that went on would break promises.
    """
    codes, reactor = [], ReactorDouble(True)
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(full, write_through=True))
        panic("the disk", codes.append)
        stop_with(reactor, "why", 3)
    assert (codes, reactor.stopped) == ([EXIT_BROKEN], 1)


@pytest.mark.parametrize("running", [True, False])
def test_a_refusal_stops_the_reactor_and_exits_with_its_code(capsys, running):
    """The reactor stops, whether it runs already or not, and the process exits with the code."""
    reactor = ReactorDouble(running)
    stop_with(reactor, "order-1 refuses to start: why", 3)
    if not running:
        assert reactor.stopped == 0
        reactor.run()
    assert reactor.stopped == 1
    ((phase, event, call, arguments),) = reactor.triggers
    assert (phase, event, call, arguments) == ("after", "shutdown", os._exit, (3,))
    assert capsys.readouterr().err == "order-1 refuses to start: why\n"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (CorruptStorage("the data"), EXIT_REFUSED, "order-1 refuses to start: the data\n"),
        (StorageUnavailable("the disk"), EXIT_NOT_NOW, "order-1 cannot start now: the disk\n"),
    ],
    ids=["damaged", "not now"],
)
def test_a_member_whose_disk_may_recover_is_started_again(capsys, error, code, words):
    """It exits with 1. The status 78, after which systemd does not start it again, is for data that
    no other start makes better.
    """
    reactor = ReactorDouble(running=True)
    reactor.callFromThread = lambda call, *arguments: call(*arguments)
    parts = assemble(default_cluster(), "order", 1, OrderTables(10), reactor, makes_snapshots=False)
    parts.member._around.refuse(error)
    ((_, _, _, arguments),) = reactor.triggers
    assert arguments == (code,)
    assert capsys.readouterr().err == words
    assert (EXIT_NOT_NOW, EXIT_REFUSED) == (1, 78)


def test_the_reactors_clock_goes_on_while_the_machine_sleeps(monkeypatch):
    """Timers and leases follow a clock that nobody can set, and that no sleep stops: a leader
    whose machine was suspended knows that its lease is over.
    """
    reactor = SimpleNamespace(getDelayedCalls=list, seconds=time.time)
    use_boottime(reactor)
    clocks = {time.CLOCK_BOOTTIME: 1000.0}
    monkeypatch.setattr(time, "clock_gettime", clocks.__getitem__)
    assert reactor.seconds() == 1000.0
    assert reactor.seconds is boottime


def test_the_clock_is_not_changed_under_a_timer():
    """A reactor that has a timer keeps its clock, because the timer has a time of that clock."""
    reactor = SimpleNamespace(getDelayedCalls=lambda: [object()], seconds=time.time)
    with pytest.raises(AssertionError, match="after a timer was set"):
        use_boottime(reactor)
    assert reactor.seconds is time.time


def test_timers_fire_by_the_boot_clock(monkeypatch):
    """After a step of the wall clock a timer of such a reactor fires in time."""
    from twisted.internet.epollreactor import EPollReactor

    own = EPollReactor()
    try:
        use_boottime(own)
        fired = []
        own.callLater(0, fired.append, True)
        monkeypatch.setattr(time, "time", lambda: 0.0)
        own.runUntilCurrent()
        assert fired == [True]
    finally:
        own.removeAll()
        own.waker.connectionLost(Failure(ConnectionError()))
        own._poller.close()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("-n",), ""),
        (("-n", "--pidfile", "mine.pid"), "mine.pid"),
        (("-n", "--pidfile", ""), ""),
        ((), "twistd.pid"),
    ],
)
@pytest.mark.parametrize("service", ["stock-order", "stock-cluster"])
def test_services_in_the_foreground_share_a_directory(here, service, words, wanted):
    """Without a PID file of their own, services in the foreground write none: twistd's one file
    would let only the first of them start.
    """
    options = ServerOptions()
    options.parseOptions([*words, service])
    assert options["pidfile"] == (wanted and os.path.abspath(wanted))  # twistd makes it so


def test_messages_of_a_daemon_are_in_its_log():
    """In the foreground they go to the terminal, which a daemon does not have."""
    assert process.terminal({"nodaemon": True}) == (sys.stdout, sys.stderr)
    assert process.terminal(None) == (sys.stdout, sys.stderr)
    output, errors = process.terminal({"nodaemon": False})
    with capturedLogs() as events:
        print("ready", file=output, flush=True)
        print("order-1 was ended", file=errors, flush=True)
    said = [(event["log_level"], event["log_io"]) for event in events]
    assert said == [(LogLevel.info, "ready"), (LogLevel.warn, "order-1 was ended")]


def test_exit_statuses_differ():
    """No two reasons to exit have the same status."""
    codes = {name: value for name, value in vars(process).items() if name.startswith("EXIT_")}
    assert len(set(codes.values())) == len(codes)
