"""The processes of a local cluster's members: started, logged, restarted, stopped in order."""

import os
import shutil
import socket
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, BinaryIO

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ProcessTerminated
from twisted.python.failure import Failure
from twisted.runner.procmon import LoggingProtocol, ProcessMonitor

from twstock.config import Address, Cluster
from twstock.errors import told
from twstock.plan import TOML, tiers
from twstock.process import EXIT_REFUSED
from twstock.replication.disk import META

STOP_S = 5.0
KILL_MIN_S = 0.5
LOG_BYTES_MAX = 16 * 1024 * 1024
TAIL_BYTES_MAX = 4000
_PLUGINS = {"front": "stock-frontend", "catalog": "stock-catalog", "order": "stock-order"}


class Members(ProcessMonitor):
    """One process per member. ``exited(name, code)`` is called when one ends unasked; a negative
    code is a signal.

    A member that lived long is restarted at once; one that keeps dying is restarted after longer
    and longer delays, up to ``maxRestartDelay``. One that refuses to start (78) would do so again,
    and is not restarted.
    """

    minRestartDelay = 0.1  # type: ignore[assignment]
    maxRestartDelay = 2.0  # type: ignore[assignment]
    threshold = 5
    killTime: float = STOP_S  # type: ignore[assignment]

    def __init__(
        self,
        reactor: Any,
        cluster: Cluster,
        exited: Callable[[str, int], None],
        restart: bool = True,
    ) -> None:
        super().__init__(reactor)
        self._spawner = reactor
        self._data = cluster.data
        self._tiers = tiers(cluster)
        self._exited = exited
        self._restart = restart
        # Members that had data when this process began, so their group has started before.
        self._with_data = {n for names in self._tiers.values() for n in names if self._has_data(n)}
        self._starts: dict[str, int] = {}
        self._unstarted: dict[str, str] = {}
        self._waiting: dict[str, Deferred[None]] = {}
        environ = {k: v for k, v in os.environ.items() if k != "NOTIFY_SOCKET"}
        config = str(cluster.data / TOML)
        for tier, names in self._tiers.items():
            for name in names:
                arguments = [_PLUGINS[tier], "--config", config, "--name", name]
                self.addProcess(name, [*_twistd(), *arguments], env=environ)

    def startProcess(self, name: str) -> None:
        """Start one member, its output going straight into its ``service.log``.

        Without a pipe in between, a member never waits for this process to read.
        """
        if name in self.protocols:
            return
        protocol = _Process()
        protocol.service, protocol.name = self, name
        self.protocols[name] = protocol
        self.timeStarted[name] = self._spawner.seconds()
        process = self._processes[name]
        try:
            with open(os.devnull, "rb") as nothing, self._open_log(name) as log:
                files = {0: nothing.fileno(), 1: log.fileno(), 2: log.fileno()}
                self._spawner.spawnProcess(
                    protocol, process.args[0], process.args, env=process.env, childFDs=files
                )
        except OSError as error:
            self._unstarted[name] = told(error)
            self.ended(name, Failure())

    def ended(self, name: str, reason: Failure) -> None:
        """A member's process has ended. Restarts it, unless all are stopping or it must not be."""
        unasked, code = bool(self.running), _exit_code(reason)
        if not self._restart or code == EXIT_REFUSED:
            del self._processes[name]
        self._monitoredProcessExited(name)  # without the reason: it fails to format an OSError
        if name in self._waiting:
            self._waiting.pop(name).callback(None)
        if unasked:
            self._exited(name, code)

    def can_spare(self, names: Collection[str]) -> bool:
        """Whether the cluster can serve without these members: all are replicas, and what is left
        of each of their groups is a majority, and all of it had data before. The first start of a
        group needs all its members.
        """
        for tier, all_ in self._tiers.items():
            left = [name for name in all_ if name not in names]
            is_majority = tier != "front" and 2 * len(left) > len(all_)
            if left != all_ and not (is_majority and self._with_data.issuperset(left)):
                return False
        return True

    def logs(self) -> list[Path]:
        """Where the members write their logs."""
        return [self._log_path(name) for names in self._tiers.values() for name in names]

    def tail(self, name: str) -> str:
        """The end of what a member's latest process wrote, or why there is nothing to be read."""
        if name in self._unstarted:  # what is in its log is of earlier processes
            return self._unstarted[name]
        try:
            content = self._log_path(name).read_bytes()[self._starts.get(name, 0) :]
        except OSError as error:
            return told(error)
        return content[-TAIL_BYTES_MAX:].decode("utf-8", "replace").strip()

    def stopService(self) -> "Deferred[None]":  # type: ignore[override]
        """Drain front-ends, then orders, then catalogs; kill what is left after ``STOP_S``."""
        Service.stopService(self)
        call: Any
        for call in self.restart.values():
            if call.active():
                call.cancel()
        return Deferred.fromCoroutine(self._stop_tiers())

    async def _stop_tiers(self) -> None:
        deadline = self._spawner.seconds() + STOP_S
        for names in self._tiers.values():
            alive = [name for name in names if name in self.protocols]
            self.killTime = max(KILL_MIN_S, deadline - self._spawner.seconds())
            self._waiting = {name: Deferred() for name in alive}
            gone = gatherResults(list(self._waiting.values()))
            for name in alive:
                self.stopProcess(name)
            await gone

    def _has_data(self, name: str) -> bool:
        return (self._data / name / META).exists()

    def _log_path(self, name: str) -> Path:
        return self._data / name / "service.log"

    def _open_log(self, name: str) -> BinaryIO:
        path = self._log_path(name)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
        log = path.open("ab")
        self._starts[name] = log.tell()
        self._unstarted.pop(name, None)
        return log


class _Process(LoggingProtocol):
    """Tells Members when the process ends; there is no output to read."""

    service: Members

    def processEnded(self, reason: Failure) -> None:
        self.service.ended(self.name, reason)


def _exit_code(reason: Failure) -> int:
    """The exit status, or minus the number of the signal; 0 for a clean end."""
    error = reason.value
    if isinstance(error, ProcessTerminated):
        return -error.signal if error.signal else error.exitCode or 0
    return 1 if isinstance(error, OSError) else 0


def _twistd() -> list[str]:
    """The command of ``twistd -n`` in this environment, in a session of its own.

    With sessions of their own, a terminal's Ctrl-C reaches only this process, which stops the
    members in order. If this process is killed, the kernel kills them (prctl(2),
    PR_SET_PDEATHSIG), so that no orphan holds a port. Where the two tools of util-linux are
    missing, members run without either.
    """
    setsid, setpriv = shutil.which("setsid"), shutil.which("setpriv")
    guard = [setsid] if setsid else []
    guard += [setpriv, "--pdeathsig", "KILL"] if setpriv else []
    script = Path(sys.executable).with_name("twistd")
    run = (
        [str(script)]
        if script.exists()
        else ["-c", "from twisted.scripts import twistd as t; t.run()"]
    )
    return [*guard, sys.executable, *run, "-n", "--pidfile="]


def why_taken(address: Address) -> str | None:
    """Why no process can listen on an address now; None if one can."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
            probe.listen(1)
    except OSError as error:
        return error.strerror or str(error)
    return None
