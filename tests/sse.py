"""A client of server-sent events that follows just the rules of WHATWG HTML, section 9.2.6."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

_DIGITS = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class Event:
    """One event as a script would see it."""

    kind: str
    data: Any
    id: str


@dataclass
class Reader:
    """Takes the bytes of a stream in pieces of any size."""

    last_event_id: str = ""
    retry_ms: int | None = None
    comments: int = 0
    events: list[Event] = field(default_factory=list)
    _left: bytes = b""
    _kind: str = ""
    _data: list[str] = field(default_factory=list)
    _id: str = ""

    def __post_init__(self) -> None:
        self._id = self.last_event_id

    def feed(self, data: bytes) -> None:
        """Take bytes; lines end with a line feed here, as this server's do."""
        *lines, self._left = (self._left + data).split(b"\n")
        for line in lines:
            self._line(line.decode("utf-8"))

    def _line(self, line: str) -> None:
        assert "\r" not in line
        if not line:
            self._dispatch()
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            self.comments += 1
        elif name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        elif name == "id":
            assert "\0" not in value
            self._id = value
        elif name == "retry" and _DIGITS.fullmatch(value):
            self.retry_ms = int(value)

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        if self._data:
            content = json.loads("\n".join(self._data))
            self.events.append(Event(self._kind or "message", content, self._id))
        self._kind, self._data = "", []

    def of(self, kind: str) -> list[Any]:
        """The data of all events of a kind; the rows of all of them together."""
        rows: list[Any] = []
        for event in self.events:
            if event.kind == kind:
                rows += event.data.get(kind, [event.data]) if event.data else [event.data]
        return rows

    def numbers(self) -> list[int]:
        """The numbers of all trades, as they came."""
        return [row["order_num"] for row in self.of("trades")]

    def change_numbers(self) -> list[int]:
        """The numbers of all changes, as they came."""
        return [row["change_number"] for row in self.of("changes")]

    def stocks(self) -> dict[str, Any]:
        """The last known state of each stock."""
        return {row["name"]: row for row in self.of("stocks")}
