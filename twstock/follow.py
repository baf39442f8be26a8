"""Shows the lines that the members of a local cluster write into their logs."""

from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

BYTES_MAX = 256 * 1024
"""How much of one log is read at a time: one that grows faster is shown later, not lost."""


class Follower:
    """Prints to ``out`` what was added to ``paths`` since the last look, in whole lines.

    Each line names its member. A file that was replaced by a new one is read from its beginning.
    """

    def __init__(self, paths: Iterable[Path], out: TextIO) -> None:
        self._out = out
        self._places = {path: path.stat().st_size if path.exists() else 0 for path in paths}

    def look(self) -> None:
        """Show what is new."""
        for path, place in self._places.items():
            self._places[path] = self._show(path, place)
        self._out.flush()

    def _show(self, path: Path, place: int) -> int:
        """Show the lines after a place; returns where they end."""
        try:
            with path.open("rb") as file:
                start = place if place <= path.stat().st_size else 0
                file.seek(start)
                content = file.read(BYTES_MAX)
        except OSError:
            return place  # not made yet
        whole = content.rfind(b"\n") + 1 or (len(content) if len(content) == BYTES_MAX else 0)
        self._out.write(content[:whole].decode("utf-8", "replace"))
        return start + whole
