"""The progress of long work, shown on a terminal."""

import sys
import time

EVERY_S = 0.1
_REST = "\x1b[K"
"""Clears the rest of the line."""


class Progress:
    """A line on standard error, a few times a second, if that is a terminal; silent elsewhere."""

    def __init__(self, unit: str, total: int | None = None) -> None:
        self._unit = f"/{total} {unit}" if total else f" {unit}"
        self._done, self._next = 0, 0.0
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._show()
            print(file=sys.stderr)

    def step(self) -> None:
        """One more is done; from any thread."""
        self._done += 1
        if self._shown and time.monotonic() > self._next:
            self._next = time.monotonic() + EVERY_S
            self._show()

    def say(self, words: str) -> None:
        """Print a line of its own, which on a terminal replaces the count."""
        print(f"\r{words}{_REST}" if self._shown else words, file=sys.stderr, flush=True)

    def _show(self) -> None:
        print(f"\r{self._done}{self._unit}", end="", file=sys.stderr, flush=True)
