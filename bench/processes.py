"""Servers as child processes: started in sessions of their own, ended by process id."""

import contextlib
import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bench.systems import Address, Request

START_S = 60.0
STOP_S = 15.0
POLL_S = 0.05
ASK_S = 5.0
TAIL = 2000


class NotStarted(Exception):
    """A server did not come up; the message ends with its log."""


def free_ports(count: int) -> list[int]:
    """Consecutive free ports on loopback, below the kernel's ephemeral ones."""
    for _ in range(200):
        first = random.randrange(20000, 32000 - count)
        ports = list(range(first, first + count))
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in ports:
                probe = stack.enter_context(socket.socket())
                probe.bind(("127.0.0.1", port))
            return ports
    raise NotStarted("there are no free ports on 127.0.0.1")


def subdirectory(scratch: Path, prefix: str) -> Path:
    """A new directory that servers of other users can traverse, to reach their own files."""
    directory = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=scratch))
    directory.chmod(0o711)
    return directory


class Process:
    """One running server; its output goes to ``log``."""

    def __init__(self, popen: "subprocess.Popen[bytes]", log: Path) -> None:
        self._popen = popen
        self._log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def check(self) -> None:
        """Raise NotStarted if it has failed."""
        if self._popen.poll():
            raise NotStarted(f"it ended with {self._popen.returncode}\n{self.tail()}")

    def tail(self) -> str:
        """The end of what it wrote."""
        return self._log.read_text(errors="replace")[-TAIL:]

    def stop(self, number: signal.Signals, last: signal.Signals = signal.SIGKILL) -> None:
        """Signal it, wait, and send the signal ``last`` if it has not ended by then."""
        if self.is_running:
            self._popen.send_signal(number)
        try:
            self._popen.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._popen.send_signal(last)
            self._popen.wait(STOP_S)


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    *,
    user: str | None = None,
    environ: Mapping[str, str] | None = None,
    stop: signal.Signals = signal.SIGTERM,
    last: signal.Signals = signal.SIGKILL,
) -> Iterator[Process]:
    """A server that runs as long as the body does.

    It has a session of its own, so a terminal's Ctrl-C does not reach it, and the benchmark ends it
    in order. If the benchmark is killed, the kernel ends it (prctl(2), PR_SET_PDEATHSIG).
    """
    setpriv = shutil.which("setpriv")
    guard = [setpriv, "--pdeathsig", stop.name.removeprefix("SIG")] if setpriv else []
    with log.open("ab") as output:
        popen = subprocess.Popen(
            [*guard, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=Path(__file__).parent.parent if user is None else log.parent,
            env=dict(os.environ) | dict(environ or {}),
            user=user,
            group=None if user is None else user,
            extra_groups=None if user is None else [],
            start_new_session=True,
        )
    process = Process(popen, log)
    try:
        yield process
    finally:
        process.stop(stop, last)


def rss_mb(pid: int) -> float:
    """The resident memory of a process, in millions of bytes (``VmRSS`` of proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise NotStarted(f"process {pid} has ended")


def ask(address: Address, request: Request) -> tuple[int, bytes]:
    """One request on a connection of its own; raises OSError or HTTPException."""
    connection = http.client.HTTPConnection(*address, timeout=ASK_S)
    try:
        headers = {"Content-Type": "application/json"} if request.body else {}
        connection.request(request.method, request.path, request.body or None, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def answers(address: Address, request: Request) -> bool:
    """Whether the request is answered with 200 now."""
    try:
        return ask(address, request)[0] == http.client.OK
    except (OSError, http.client.HTTPException):
        return False


def wait_for(
    condition: Callable[[], bool],
    what: str,
    processes: Sequence[Process] = (),
    seconds: float = START_S,
    pause_s: float = POLL_S,
) -> None:
    """Poll until a condition holds; raises NotStarted when a process has ended or time is up."""
    deadline = time.monotonic() + seconds
    while not condition():
        ended = [process for process in processes if not process.is_running]
        if ended or time.monotonic() > deadline:
            why = "it ended" if ended else f"after {seconds:.0f} s"
            logs = "\n".join(process.tail() for process in ended or processes)
            raise NotStarted(f"{what}: not there, {why}\n{logs}")
        time.sleep(pause_s)
