"""``twstock status --watch``: the members of the cluster, again and again, and what has changed.

``View`` decides what is shown, with the time as an argument; ``Screen`` and ``watch`` show it.
"""

import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TextIO

from twstock.commands import tabular
from twstock.commands.command import terminated
from twstock.rest import Answer, Unreachable

Row = Mapping[str, Any]
COLUMNS = (
    "member", "role", "term", "last_transaction", "lag", "uptime", "pid", "address", "note",
)  # fmt: skip
CHANGES_MAX = 10
"""How many changes stay on the screen."""
LEADER, PLAIN = "*", " "
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""To the terminal's alternate screen, without a cursor, and back (xterm, ctlseqs)."""
_HOME, _END_OF_LINE, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_BOLD, _FAINT, _NORMAL = "\x1b[1m", "\x1b[2m", "\x1b[0m"


class Front(Protocol):
    """A front-end to ask."""

    url: str

    def cluster(self) -> Answer:
        """Every member of the cluster; raises Unreachable."""


def name_of(row: Row) -> str:
    """A member's name."""
    return f"{row['service']}-{row['id']}"


def leaders(services: Sequence[Row]) -> dict[str, Row]:
    """The leader of each group that has one; if two claim to lead, the one with the newer term."""
    found: dict[str, Row] = {}
    for row in services:
        if row.get("alive") and row.get("role") == "leader":
            known = found.get(row["service"])
            if known is None or (row.get("term") or 0) > (known.get("term") or 0):
                found[row["service"]] = row
    return found


def changes(before: Sequence[Row], after: Sequence[Row]) -> list[str]:
    """What has happened between two views, in words: elections, deaths, and returns."""
    old = {name_of(row): row for row in before}
    told = [text for row in after if (text := _fate(old.get(name_of(row)), row))]
    led, leads = leaders(before), leaders(after)
    groups = dict.fromkeys(row["service"] for row in after)
    return told + [
        text for group in groups if (text := _election(group, led.get(group), leads.get(group)))
    ]


def _fate(old: Row | None, new: Row) -> str:
    name = name_of(new)
    if old is None or not (old.get("alive") or new.get("alive")):
        return ""
    if not new.get("alive"):
        return f"{name} does not answer any more"
    if not old.get("alive"):
        return f"{name} is back as process {new.get('pid')}"
    if new.get("pid") != old.get("pid"):
        return f"{name} was started again as process {new.get('pid')}"
    return ""


def _election(group: str, old: Row | None, new: Row | None) -> str:
    if new is None:
        return "" if old is None else f"{group}: nobody leads; {name_of(old)} did"
    term = f"{name_of(new)} leads term {new.get('term')}"
    if old is None:
        return f"{group}: {term}"
    if (old["id"], old.get("term")) == (new["id"], new.get("term")):
        return ""
    return f"{group}: {term}; {name_of(old)} led term {old.get('term')}"


def uptime(seconds: float | None) -> str | None:
    """A duration in its two largest units."""
    if seconds is None:
        return None
    whole = int(seconds)
    for size, unit, less, lesser in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // less}{lesser}"
    return f"{whole}s"


class View:
    """What is known of the cluster, and what has changed since it was first seen."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._services: Sequence[Row] | None = None
        self._seen_at = ""
        self._problem = ""
        self._history: deque[str] = deque(maxlen=CHANGES_MAX)

    def see(self, services: Sequence[Row], at: str) -> list[str]:
        """Take in every member's row; returns what has changed."""
        news = [] if self._services is None else changes(self._services, services)
        if self._problem:
            news.insert(0, "the front-end answers again")
        self._services, self._seen_at, self._problem = services, at, ""
        self._history.extend(f"{at}  {text}" for text in news)
        return news

    def miss(self, problem: str, at: str) -> list[str]:
        """The front-end did not answer; returns that as a change, unless that was so before."""
        news = [] if self._problem else [f"the front-end cannot be reached: {problem}"]
        self._problem = problem
        self._history.extend(f"{at}  {text}" for text in news)
        return news

    def table(self) -> list[tuple[str, str]]:
        """A mark and a line for each member, after a heading."""
        services = self._services or ()
        leading = [name_of(row) for row in leaders(services).values()]
        text = tabular.lines(COLUMNS, map(_shown, services))
        marks = [LEADER if name_of(row) in leading else PLAIN for row in services]
        return list(zip([PLAIN, *marks], text, strict=True))

    def heading(self, at: str) -> str:
        """Which cluster this is, the time, and whether the table below is still current."""
        if not self._problem:
            return f"{self._url}  {at}"
        since = f"; as of {self._seen_at}:" if self._services is not None else ""
        return f"{self._url}  {at}  cannot be reached, trying again ({self._problem}){since}"

    def screen(self, at: str, columns: int, rows: int) -> list[str]:
        """Lines that fit a terminal of this size, leaders in bold."""
        room = max(columns - 1, 1)
        lines = [tabular.cell(self.heading(at))[:room], ""]
        for mark, text in self.table() if self._services is not None else ():
            line = f"{mark} {text}"[:room]
            dim = _FAINT if self._problem else ""
            lines.append(f"{dim or _BOLD}{line}{_NORMAL}" if mark == LEADER or dim else line)
        if self._history:
            left = max(rows - len(lines) - 2, 1)
            lines += ["", *(tabular.cell(text)[:room] for text in list(self._history)[-left:])]
        return lines[: max(rows - 1, 1)]

    def block(self, at: str, news: Sequence[str]) -> list[str]:
        """The same for an output that is not a terminal: a heading, the table, and what is new."""
        table = [f"{mark} {text}".rstrip() for mark, text in self.table()]
        shown = table if not self._problem else []
        return [self.heading(at), *shown, *(f"! {tabular.cell(text)}" for text in news), ""]


def _shown(row: Row) -> Row:
    alive = bool(row.get("alive"))
    return {
        **row,
        "member": name_of(row),
        "role": row.get("role") if alive else "no answer",
        "uptime": uptime(row.get("uptime_s")),
        "note": row.get("reason") or "",
    }


class Screen:
    """A terminal that is redrawn in place, and restored afterwards."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __enter__(self) -> "Screen":
        self._write(_ENTER)
        return self

    def __exit__(self, *_: object) -> None:
        self._write(_LEAVE)

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines and nothing else."""
        body = "\r\n".join(line + _END_OF_LINE for line in lines)
        self._write(f"{_HOME}{body}{_BELOW}")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def watch(
    front: Front,
    out: TextIO,
    every_s: float,
    *,
    as_json: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show the cluster every ``every_s`` seconds, until Ctrl-C or SIGTERM."""
    view = View(front.url)
    try:
        with terminated():
            if as_json:
                _each(front, every_s, sleep, lambda *seen: _print_json(out, *seen), view)
            elif out.isatty() and os.environ.get("TERM", "dumb") != "dumb":
                with Screen(out) as screen:
                    _each(front, every_s, sleep, lambda *_: _draw(screen, view), view)
            else:
                _each(front, every_s, sleep, lambda _, news: _print(out, view, news), view)
    except KeyboardInterrupt:
        return


def _each(
    front: Front,
    every_s: float,
    sleep: Callable[[float], None],
    show: Callable[[Mapping[str, Any], Sequence[str]], None],
    view: View,
) -> None:
    while True:
        began = time.monotonic()
        answer, news = _look(front, view)
        show(answer, news)
        sleep(max(began + every_s - time.monotonic(), 0.0))


def _look(front: Front, view: View) -> tuple[Mapping[str, Any], Sequence[str]]:
    """Ask once; returns the front-end's answer, or an error in the same form, and what is new."""
    try:
        answer = front.cluster()
        if answer.ok:
            return answer.body, view.see(answer.data["services"], _clock())
        problem = answer.message
    except Unreachable as error:
        problem = str(error).removeprefix(f"{front.url}: ")
    return {"error": {"message": problem}}, view.miss(problem, _clock())


def _print_json(out: TextIO, answer: Mapping[str, Any], news: Sequence[str]) -> None:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    out.write(json.dumps({"time": at, **answer, "changes": list(news)}) + "\n")
    out.flush()


def _print(out: TextIO, view: View, news: Sequence[str]) -> None:
    out.write("\n".join(view.block(_clock(), news)) + "\n")
    out.flush()


def _draw(screen: Screen, view: View) -> None:
    size = shutil.get_terminal_size()
    screen.draw(view.screen(_clock(), size.columns, size.lines))


def _clock() -> str:
    return time.strftime("%H:%M:%S")
