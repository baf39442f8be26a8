"""A container on this machine that runs systemd: the same files, with a layer of its own on top.

Everything that the guest changes is in that layer, in memory, and disappears with it: the machine's
own files stay as they are. It has its own processes, and a network with only a loopback device. It
needs root, ``systemd-nspawn`` (Debian's systemd-container), and a kernel with overlayfs.
"""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

TOOLS = ("systemd-nspawn", "unshare", "nsenter", "systemctl", "curl")
USED_BY_TWSTOCK = ("/opt/twstock", "/etc/twstock", "/var/lib/twstock")
BOOT_S = 60
STOP_S = 30
COMMAND_S = 120
_LAYER = """
set -e
mount -t tmpfs -o size=2g,mode=0755 layer "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay guest -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
echo mounted
exec cat
"""
"""The mounts are in a namespace of this shell, and end with it when its input ends."""


class CannotBootError(Exception):
    """This machine cannot run the guest."""


class CommandError(Exception):
    """A command failed; the message is what it wrote."""


def obstacle():
    """Why there can be no guest here; empty if no reason is known."""
    if os.geteuid() != 0:
        return "a guest of its own wants root"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"{' and '.join(missing)} is not installed"
    if there := [path for path in USED_BY_TWSTOCK if Path(path).exists()]:
        return f"this machine has a twstock of its own: {' '.join(there)}"
    return ""


class Guest:
    """The guest, to be used as a context; ``root`` is where its files are, only for ``outside``."""

    def __init__(self, directory):
        self.root = directory / "root"
        self._directory = directory
        self._layer = None
        self._systemd = 0
        self._ends = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as ends:
            words = ["unshare", "--mount", "sh", "-c", _LAYER, "sh", str(self._directory)]
            self._layer = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            ends.callback(self._layer.communicate, timeout=STOP_S)
            if self._layer.stdout.readline() != b"mounted\n":
                raise CannotBootError(self._layer.stderr.read().decode())
            self._ends = ends.pop_all()
        return self

    def __exit__(self, *_):
        self._ends.close()

    def outside(self, *command):
        """Run a command on the machine that sees the guest's files; returns what it wrote."""
        return _run("nsenter", f"--mount=/proc/{self._layer.pid}/ns/mnt", *command)

    def boot(self):
        """Start its systemd, and wait until it is up. Raises CannotBootError."""
        log = (self._directory.parent / "console.log").open("w+b")
        self._ends.callback(log.close)
        nspawn = subprocess.Popen(
            [
                *("nsenter", f"--mount=/proc/{self._layer.pid}/ns/mnt"),
                *("systemd-nspawn", "--quiet", "--directory", self.root, "--private-network"),
                *("--register=no", "--keep-unit", "--link-journal=no", "--console=pipe"),
                *("--boot", "systemd.unit=basic.target"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        self._ends.callback(_end, nspawn)
        deadline = time.monotonic() + BOOT_S
        while not self._is_up(nspawn.pid):
            if nspawn.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                raise CannotBootError(log.read().decode(errors="replace")[-2000:])
            time.sleep(0.1)

    def _is_up(self, nspawn):
        children = Path(f"/proc/{nspawn}/task/{nspawn}/children")
        with contextlib.suppress(OSError, CommandError):
            for pid in children.read_text().split():
                self._systemd = int(pid)
                return self("systemctl is-active basic.target") == "active\n"
        return False

    def __call__(self, script):
        """Run a shell script in the guest; returns what it wrote. Raises CommandError."""
        inside = ("nsenter", "--target", str(self._systemd), "--all")
        return _run(*inside, "bash", "-euc", script)


def _run(*command):
    words = list(map(str, command))
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise CommandError(f"{words[-1]}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _end(nspawn):
    """Have the guest shut down, as its power button would."""
    nspawn.terminate()
    try:
        nspawn.wait(STOP_S)
    except subprocess.TimeoutExpired:
        nspawn.kill()
        nspawn.wait()
