"""What the services' ``tap`` modules share: options, exit statuses, stages, panic."""

import gc
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TextIO

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import ILogObserver, Logger, LoggingFile, LogLevel
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.python.usage import Options, UsageError

import twstock
from twstock import logs
from twstock.certificates import read_identity
from twstock.config import Cluster, default_cluster, read
from twstock.errors import ConfigError, CorruptTables, TwstockError

EXIT_NOT_NOW = 1
"""A problem that may pass: a port that is taken, a full disk."""

EXIT_USAGE = 2
"""What was asked for is impossible: wrong options or configuration."""

EXIT_BROKEN = 70
"""``EX_SOFTWARE`` of sysexits(3): a broken invariant or a failed disk ended the process."""

EXIT_UNWRITTEN = 74
"""``EX_IOERR``: standard output takes nothing."""

EXIT_REFUSED = 78
"""``EX_CONFIG`` of sysexits(3): this data must not be used; starting again changes nothing."""

TWISTD_PID_FILE = "twistd.pid"
"""The default name of twistd's PID file."""

UNFINISHED_RESTORE = "restore-unfinished"
"""A file next to the members' directories while they are being made from a backup."""

_log = Logger()


class VersionedOptions(Options):
    """Options whose ``--version`` is that of twstock, not of Twisted."""

    def opt_version(self) -> None:
        """Show twstock's version and exit."""
        print(f"twstock {twstock.__version__}")
        sys.exit(0)

    def parseArgs(self, *words: str) -> None:
        """Accept options only; raises UsageError naming the first other argument."""
        if words:
            raise UsageError(f"unexpected: {words[0]!r}")


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
        try:
            self.log_format = log_format(self.cluster, os.environ)
            self.cluster.check_member(self.tier, self.number)
            check_restored(self.cluster.data)
            if self.cluster.tls is not None:
                read_identity(self.cluster.tls, f"{self.tier}-{self.number}")
        except ConfigError as error:
            raise UsageError(str(error)) from None


def without_pid_file(twistd: Any) -> None:
    """Let services in the foreground (``twistd -n``) share a working directory: by default twistd
    would give all of them the same PID file there, and start only the first. A PID file with
    another name is still written.
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
    """Raise ConfigError for data of an unfinished restore: some members may lack orders that others
    have, and nothing in their data would show it.
    """
    if (data / UNFINISHED_RESTORE).exists():
        raise ConfigError(
            f"{data} is of a restore that did not finish: unless it is still under way, remove "
            "the directory, and restore again"
        )


def log_format(cluster: Cluster, environ: Mapping[str, str]) -> str:
    """``$TWSTOCK_LOG_FORMAT``, else the cluster's, else text. Raises ConfigError."""
    form = environ.get("TWSTOCK_LOG_FORMAT") or cluster.log_format or logs.FORMATS[0]
    if form not in logs.FORMATS:
        raise ConfigError(f"TWSTOCK_LOG_FORMAT: expected text or json, got {form!r}")
    return form


def member_number(options: Mapping[str, Any], tier: str) -> int:
    """The number in ``--name TIER-NUMBER``; without a name, 1. A member has one name, so a number
    has no leading zero.
    """
    name = str(options["name"] or f"{tier}-1")
    if not re.fullmatch(rf"{tier}-[1-9][0-9]{{0,9}}", name):
        raise UsageError(f"--name: expected {tier}-NUMBER, such as {tier}-1, got {name!r}")
    return int(name.removeprefix(f"{tier}-"))


def collect_seldom() -> None:
    """Make Python's cycle collector run less often: what a service keeps, it keeps for long, and
    hardly anything of it is in a cycle. Measured: this saves a tenth of all time under load.
    """
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def panic(reason: Failure | str, exit_process: Callable[[int], None] = os._exit) -> None:
    """End the process at once: something that must never happen did, or a disk write failed.

    Nothing is cleaned up on purpose: after a failed fsync no further write may be trusted
    (SQLite and PostgreSQL learnt this the hard way, "fsyncgate", 2018). For CorruptTables only the
    advice is printed: until it is followed, no restart helps.
    """
    code = EXIT_BROKEN
    if isinstance(reason, Failure) and reason.check(CorruptTables):
        reason, code = reason.getErrorMessage(), EXIT_REFUSED
    text = reason if isinstance(reason, str) else reason.getTraceback()
    if not isinstance(sys.stderr, LoggingFile):
        _say(f"twstock stops: {text}")
    elif isinstance(reason, str):
        _log.critical("twstock stops: {reason}", reason=reason)
    else:
        _log.failure("twstock stops: {reason}", reason, reason=reason.getErrorMessage())
    exit_process(code)


def stop_with(reactor: Any, message: str, code: int = EXIT_NOT_NOW) -> None:
    """Refuse to serve: say why on standard error, stop the reactor, exit with ``code``."""
    _say(message)
    reactor.addSystemEventTrigger("after", "shutdown", os._exit, code)
    if getattr(reactor, "running", False):
        reactor.stop()
    else:
        reactor.callWhenRunning(reactor.stop)


def _say(text: str) -> None:
    """Print a message, if that is possible: a full disk, or a reader that is gone, must not keep
    the process from ending.
    """
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


class Logged(Service):
    """A service for twistd. ``observer``, if there is one, writes the log of the process."""

    observer: Any = None

    def setServiceParent(self, parent: Any) -> None:
        """Become twistd's child; it asks its application for the observer, then starts to log."""
        super().setServiceParent(parent)
        if self.observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.observer)


class Stages(Logged):
    """Services that start one after the other, and stop in reverse order, each when the previous
    one has stopped.

    ``refuse`` is called when one cannot start (TwstockError), with a message for the operator.
    """

    _log = Logger()

    def __init__(self, stages: Sequence[Any], refuse: Callable[[str], None]) -> None:
        self._stages = stages
        self._refuse = refuse

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
        """Stop all that run. A failure is logged, and the others are still stopped: a replica has
        to hand over and close its log whatever became of the stages that use it.
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
    """Give a service a log in the configured form, written where twistd was told to log."""
    write_log(service, options.parent, options.log_format, f"{options.tier}-{options.number}")
    return service


def write_log(service: Logged, twistd: Any, form: str, member: str) -> None:
    """Have a service write the log of the process where twistd was told to log; do nothing without
    twistd, as in ``twstock up``.
    """
    out = None if twistd is None else logs.output(twistd)
    if out is not None:
        service.observer = logs.observer(form, member, out)
        logs.bridge()


def terminal(twistd: Any) -> tuple[TextIO, TextIO]:
    """Standard output and standard error; for a daemon, which has neither, its log."""
    if twistd is None or twistd["nodaemon"]:
        return sys.stdout, sys.stderr
    output: Any = LoggingFile(_log)
    errors: Any = LoggingFile(_log, LogLevel.warn)
    return output, errors
