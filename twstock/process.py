"""What the services' ``tap`` modules share: options, the clock, readiness, panic."""

import gc
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, ClassVar, Protocol, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import ILogObserver, Logger, LoggingFile
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.python.usage import Options, UsageError

import twstock
from twstock import logs
from twstock.config import Cluster, default_cluster, read
from twstock.errors import ConfigError, CorruptTables, TwstockError

EXIT_NOT_NOW = 1
"""What is in the way may pass: a port that is taken, a full disk."""

EXIT_USAGE = 2
"""What is asked for cannot be."""

EXIT_BROKEN = 70
"""``EX_SOFTWARE`` of sysexits(3): a broken invariant or a failed disk ended the process."""

EXIT_REFUSED = 78
"""``EX_CONFIG`` of sysexits(3): this data must not be used; starting again changes nothing."""


TWISTD_PID_FILE = "twistd.pid"
"""What twistd calls its PID file if nobody says otherwise."""

UNFINISHED_RESTORE = "restore-unfinished"
"""A file beside the members' directories while they are made from a backup."""

_log = Logger()
T = TypeVar("T")


class DelayedCall(Protocol):
    """What ``callLater`` returns."""

    def cancel(self) -> None:
        """Forget the call."""

    def active(self) -> bool:
        """Whether the call is still to come."""


class Clock(Protocol):
    """Monotonic time and timers: the reactor, or ``task.Clock`` in tests."""

    def seconds(self) -> float:
        """Now, in seconds of a clock that never steps."""

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any) -> DelayedCall:
        """Call a function ``delay`` seconds from now."""


class Threads(Protocol):
    """Where blocking calls run: one thread, so that they keep their sequence."""

    def callInThread(self, func: Callable[..., object], *args: Any) -> None:
        """Run ``func`` in the thread, after everything given before."""


def in_thread(
    threads: Threads, deliver: Callable[..., None], function: Callable[[], T]
) -> "Deferred[T]":
    """What ``function`` returns or raises in a thread, which ``deliver`` brings to the reactor."""
    answer: Deferred[T] = Deferred()

    def run() -> None:
        try:
            result = function()
        except Exception:
            deliver(answer.errback, Failure())
        else:
            deliver(answer.callback, result)

    threads.callInThread(run)
    return answer


class VersionedOptions(Options):
    """Options of ours: ``--version`` tells of twstock, not of Twisted."""

    def opt_version(self) -> None:
        """Show twstock's version and exit."""
        print(f"twstock {twstock.__version__}")
        sys.exit(0)


class ServiceOptions(VersionedOptions):
    """``--config FILE`` and ``--name NAME``: which member of ``tier`` this process is.

    Once parsed, ``cluster`` and ``number`` are known to be good.
    """

    tier: ClassVar[str] = ""
    optParameters: ClassVar[list[list[str | None]]] = [
        ["config", None, None, "The cluster's TOML file."],
        ["name", None, None, "Which member this process is, for example order-2."],
    ]
    number: int
    cluster: Cluster
    log_format: str

    def postOptions(self) -> None:
        """Find the member; raises UsageError naming what is wrong."""
        without_pid_file(self.parent)
        self.number = member_number(self, self.tier)
        self.cluster = load_cluster(self, os.environ)
        self.log_format = log_format(self.cluster, os.environ)
        try:
            self.cluster.check_member(self.tier, self.number)
            check_restored(self.cluster.data)
        except ConfigError as error:
            raise UsageError(str(error)) from None


def without_pid_file(twistd: Any) -> None:
    """Let services that stay in the foreground (``twistd -n``) share a directory: twistd would
    give all of them the same PID file there, and start only the first. One that is asked for by
    another name is written.
    """
    if twistd is not None and twistd["nodaemon"] and twistd["pidfile"] == TWISTD_PID_FILE:
        twistd["pidfile"] = ""


def load_cluster(options: Mapping[str, Any], environ: Mapping[str, str]) -> Cluster:
    """The cluster from ``--config``, ``$TWSTOCK_CONFIG``, ``./cluster.toml`` or
    ``/etc/twstock/cluster.toml``, whichever is named or found first; else the default one.

    Raises UsageError naming the file and the key at fault.
    """
    named = options["config"] or environ.get("TWSTOCK_CONFIG")
    paths = [Path(named)] if named else [Path("cluster.toml"), Path("/etc/twstock/cluster.toml")]
    for path in paths:
        if named or path.exists():
            try:
                return read(path)
            except ConfigError as error:
                raise UsageError(str(error)) from None
    return default_cluster()


def check_restored(data: Path) -> None:
    """Raise ConfigError for data that a restore did not finish: members of it may be missing
    orders that the others have, and nothing in them would tell.
    """
    if (data / UNFINISHED_RESTORE).exists():
        raise ConfigError(
            f"{data} is of a restore that did not finish: remove it, and restore again"
        )


def log_format(cluster: Cluster, environ: Mapping[str, str]) -> str:
    """``$TWSTOCK_LOG_FORMAT``, else the cluster's, else text."""
    form = environ.get("TWSTOCK_LOG_FORMAT") or cluster.log_format or logs.FORMATS[0]
    if form not in logs.FORMATS:
        raise UsageError(f"TWSTOCK_LOG_FORMAT: expected text or json, got {form!r}")
    return form


def member_number(options: Mapping[str, Any], tier: str) -> int:
    """The number in ``--name TIER-NUMBER``; without a name, 1."""
    name = options["name"] or f"{tier}-1"
    prefix, _, number = str(name).rpartition("-")
    if prefix != tier or not number.isascii() or not number.isdigit():
        raise UsageError(f"--name: expected {tier}-NUMBER, got {name!r}")
    return int(number)


def boottime() -> float:
    """CLOCK_BOOTTIME in seconds, by which all time is measured: nobody sets it, and it goes on
    while the machine sleeps, so that whoever wakes knows that its lease is over.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def use_boottime(reactor: Any) -> None:
    """Measure the reactor's time by ``boottime``, not by the wall clock.

    Must run before the first timer: timers remember the clock's reading.
    """
    assert not reactor.getDelayedCalls(), "the clock was changed after a timer was set"
    reactor.seconds = boottime


def collect_seldom() -> None:
    """Let Python's cycle collector look less often: what a service keeps, it keeps for long,
    and hardly anything of it is in a cycle. Measured: a tenth of all time under load.
    """
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def wall_ms() -> int:
    """Wall time in milliseconds since 1970: to be shown, and to stamp commands with. In the log it
    decides how long refused keys are remembered, and nothing else.
    """
    return time.time_ns() // 1_000_000


def key_maker() -> Callable[[], str]:
    """What makes keys for requests that come without one, as in a UUID of version 7 (RFC 9562):
    the time in milliseconds, then 80 random bits, which never come again and which nobody can
    guess. Keys that sort by time are neighbours in an index, so that a busy one stays in memory
    however many old ones there are.
    """

    def randoms() -> Iterator[str]:
        while True:
            digits = os.urandom(10 * 256).hex()
            yield from (digits[start : start + 20] for start in range(0, len(digits), 20))

    random = randoms()
    return lambda: f"{wall_ms():012x}{next(random)}"


def panic(reason: Failure | str, exit_process: Callable[[int], None] = os._exit) -> None:
    """End the process at once: something that must never happen did, or a disk write failed.

    Nothing is cleaned up on purpose: after a failed fsync no further write may be trusted
    (SQLite and PostgreSQL learnt this the hard way, "fsyncgate", 2018). Of CorruptTables it is
    told what helps; another start would not.
    """
    code = EXIT_BROKEN
    if isinstance(reason, Failure) and reason.check(CorruptTables):
        reason, code = reason.getErrorMessage(), EXIT_REFUSED
    text = reason if isinstance(reason, str) else reason.getTraceback()
    if not isinstance(sys.stderr, LoggingFile):
        sys.stderr.write(f"twstock stops: {text}\n")
        sys.stderr.flush()
    elif isinstance(reason, str):
        _log.critical("twstock stops: {reason}", reason=reason)
    else:
        _log.failure("twstock stops: {reason}", reason, reason=reason.getErrorMessage())
    exit_process(code)


def stop_with(reactor: Any, message: str, code: int = EXIT_NOT_NOW) -> None:
    """Refuse to serve: say why on standard error, stop the reactor, exit with ``code``."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()
    reactor.addSystemEventTrigger("after", "shutdown", os._exit, code)
    if getattr(reactor, "running", False):
        reactor.stop()
    else:
        reactor.callWhenRunning(reactor.stop)


class Stages(Service):
    """Services that start one after the other, and stop in reverse, each when the one before
    has finished.

    ``refuse`` is told when one cannot start (TwstockError), with a message for the operator.
    ``observer``, if there is one, writes the log of the process.
    """

    _log = Logger()
    observer: Any = None

    def __init__(self, stages: Sequence[Any], refuse: Callable[[str], None]) -> None:
        self._stages = stages
        self._refuse = refuse

    def setServiceParent(self, parent: Any) -> None:
        """Become twistd's, which asks its application for the observer and then starts to log."""
        super().setServiceParent(parent)
        if self.observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.observer)

    def startService(self) -> None:
        """Start all."""
        super().startService()
        self._log.info("starts", version=twstock.__version__, pid=os.getpid())
        try:
            for stage in self._stages:
                stage.startService()
        except TwstockError as error:
            self._refuse(str(error))

    def stopService(self) -> "Deferred[None]":
        """Stop all that run. One that fails to is logged, and keeps no other from it: a replica
        has to hand over and close its log whatever became of what stood on it.
        """
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._log.info("is asked to stop")
        for stage in reversed(self._stages):
            if stage.running:
                try:
                    await maybeDeferred(stage.stopService)
                except Exception:
                    self._log.failure("stopping {stage} failed", stage=stage)
        self._log.info("has stopped")


def logged(service: Stages, options: ServiceOptions) -> Stages:
    """Let a service have its log in the form that is configured, where twistd is told to log."""
    out = logs.output(options.parent)
    if out is not None:
        member = f"{options.tier}-{options.number}"
        service.observer = logs.observer(options.log_format, member, out)
        logs.bridge()
    return service


class Pool(Service):
    """A thread pool of its own for one kind of work, with ``size`` threads at most, which are
    made when they are needed.
    """

    def __init__(self, name: str, size: int = 1) -> None:
        self.threads = ThreadPool(0, size, name)

    def startService(self) -> None:
        """Start the threads."""
        super().startService()
        self.threads.start()

    def stopService(self) -> None:
        """Let the threads finish what they have."""
        super().stopService()
        self.threads.stop()


class Worker(Service):
    """One thread of its own, for work that has to stay in sequence and is handed over often:
    that takes a third of the time that a ThreadPool needs to find out which thread is free.

    An error that comes out of the work is logged; who cares about it catches it there.
    """

    _log = Logger()

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def callInThread(self, func: Callable[..., object], *args: Any) -> None:
        """Run ``func`` in the thread, after everything given before."""
        self._work.put(partial(func, *args))

    def startService(self) -> None:
        """Start the thread."""
        super().startService()
        self._thread.start()

    def stopService(self) -> None:
        """Let the thread finish what it has."""
        super().stopService()
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:
                self._log.failure("work in the thread {name} failed", name=self._thread.name)
