"""``text/event-stream``, read as it arrives (WHATWG HTML, section 9.2.6)."""

import re
from typing import NamedTuple

from twstock.client.values import BadAnswer

EVENT_BYTES_MAX = 8 * 1024 * 1024
_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = b"\xef\xbb\xbf"
_RETRY_DIGITS_MAX = 7


class Message(NamedTuple):
    """One event: its kind, its data, and the id of the last event that had one."""

    kind: str
    data: str
    last_id: str


class EventStream:
    """Takes bytes and returns events. ``last_id`` is where to go on after the last of them;
    ``retry_ms`` is how long the server wants clients to wait before they reconnect; None: it has
    not said.

    Lines are split before they are decoded: in UTF-8, CR and LF are never part of another
    character, so by then a character that was split by the network is whole again.
    """

    def __init__(self, last_id: str = "", event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self.last_id = last_id
        self.retry_ms: int | None = None
        self._id = last_id
        self._kind = ""
        self._data: list[str] = []
        self._data_bytes = 0
        self._event_bytes_max = event_bytes_max
        self._begun = False
        self._line: list[bytes] = []
        self._line_bytes = 0
        self._after_cr = False

    def feed(self, received: bytes) -> list[Message]:
        """The events that these bytes complete; raises BadAnswer when one gets too large."""
        received = self._without_bom(received)
        if self._after_cr and received:
            received = received.removeprefix(b"\n")
            self._after_cr = False
        if not received:
            return []
        self._after_cr = received.endswith(b"\r")
        first, *others = _LINE_END.split(received)
        self._hold(first)
        messages = []
        for following in others:
            line = b"".join(self._line).decode("utf-8", "replace")
            self._line, self._line_bytes = [], 0
            message = self._take(line)
            if message is not None:
                messages.append(message)
            self._hold(following)
        return messages

    def _without_bom(self, received: bytes) -> bytes:
        """Drops a byte order mark at the very beginning."""
        if self._begun:
            return received
        head = b"".join(self._line) + received
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._line = [head]
            return b""
        self._begun = True
        self._line = []
        return head.removeprefix(_BOM)

    def _hold(self, piece: bytes) -> None:
        """Keep a piece of a line that is not complete yet."""
        if piece:
            self._line.append(piece)
            self._line_bytes += len(piece)
        if self._line_bytes + self._data_bytes > self._event_bytes_max:
            raise BadAnswer(f"an event has more than {self._event_bytes_max} bytes")

    def _take(self, line: str) -> Message | None:
        """Read one line; an empty one ends an event."""
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._kind = value
            case "data":
                self._data.append(value)
                self._data_bytes += len(value) + 1
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if _is_number(value):
                self.retry_ms = int(value)
        return None

    def _dispatch(self) -> Message | None:
        self.last_id = self._id
        kind, lines = self._kind, self._data
        self._kind, self._data, self._data_bytes = "", [], 0
        return Message(kind or "message", "\n".join(lines), self.last_id) if lines else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _RETRY_DIGITS_MAX
