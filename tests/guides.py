"""The guides' commands, run as their readers would run them.

A block marked ``console`` is a session: what follows ``$``, and ``>`` on further lines, is typed;
the rest is what it prints. ``...`` stands for anything, also for many lines; a command without
output in the guide may print anything. Every command of a guide runs in the same directory, one
after the other, as in a shell that stops at an error.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMAND_S = 60.0
URL = "127.0.0.1:8080"
"""The address of a front-end in the guides."""

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """One command of a guide and what the guide says that it prints."""

    text: str
    output: str
    line: int


def commands(guide):
    """Every command of a guide's text, in sequence."""
    found = []
    for block in _BLOCK.finditer(guide):
        if block[1] == "console":
            first = guide.count("\n", 0, block.start(2)) + 1
            found += _session(block[2].splitlines(), first)
    return found


def unmarked(guide):
    """The kinds of blocks in which a command could hide from ``commands``."""
    return {kind for kind, _ in _BLOCK.findall(guide)} & {"", "sh", "bash", "shell"}


def _session(lines, first):
    typed, printed, at = None, [], 0
    for number, line in enumerate(lines, first):
        if typed is not None and not printed and line.startswith("> "):
            typed += "\n" + line[2:]
        elif line.startswith("$ "):
            if typed is not None:
                yield Command(typed, "\n".join(printed).strip(), at)
            typed, printed, at = line[2:], [], number
        else:
            printed.append(line)
    if typed is not None:
        yield Command(typed, "\n".join(printed).strip(), at)


def matches(wanted, got):
    """Whether a command printed what the guide says, ``...`` being anything."""
    pattern = ".*".join(map(re.escape, wanted.split("...")))
    return re.fullmatch(pattern, got.strip(), re.DOTALL) is not None


class Shell:
    """A directory in which a guide's commands run, with links to the project's files; a front-end
    is at ``address`` (``host:port``).
    """

    def __init__(self, directory, address):
        self.directory = directory
        self._address = address
        for name in (
            "bench",
            "deploy",
            "docs",
            "proto",
            "tests",
            "twstock",
            "twisted",
            "Makefile",
            "setup.py",
            "pyproject.toml",
        ):
            (directory / name).symlink_to(ROOT / name)
        # The environment in which the tests run is the one that the guides call .venv.
        (directory / ".venv").symlink_to(Path(sys.executable).parent.parent)

    def run(self, command):
        """Run a command; fails unless it succeeds and prints what the guide says."""
        text = command.text.replace(URL, self._address)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.directory,
            env={**os.environ, "TWSTOCK_URL": f"http://{self._address}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_S,
            check=False,
        )
        printed = done.stdout.decode().replace("\r", "").replace(self._address, URL)
        said = f"line {command.line}: $ {command.text}\n{printed}"
        assert done.returncode == 0, f"{said}\nexit status {done.returncode}"
        assert not command.output or matches(command.output, printed), (
            f"{said}\nbut the guide says\n{command.output}"
        )
