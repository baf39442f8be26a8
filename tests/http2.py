"""gRPC callers that behave as gRPC's own client never does: HTTP/2, frame by frame (RFC 9113)."""

import socket
from collections import Counter

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE = 4


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    """One frame."""
    return b"".join(
        (len(content).to_bytes(3), bytes((kind, flags)), stream.to_bytes(4), content),
    )


def field(name: str, value: str) -> bytes:
    """A header field as a literal that is not indexed (RFC 7541, 6.2.2)."""
    return b"\0" + b"".join(bytes((len(text),)) + text.encode() for text in (name, value))


def message(data: bytes, size: int | None = None) -> bytes:
    """A gRPC message, or the beginning of one of ``size`` bytes."""
    return b"\0" + (len(data) if size is None else size).to_bytes(4) + data


class Caller:
    """A connection that sends what the test wants, and reads only when asked to."""

    def __init__(self, address: str, takes: int = 65535) -> None:
        """``takes`` is the initial window: how many bytes of each answer may be sent at first."""
        host, port = address.split(":")
        self._socket = socket.create_connection((host, int(port)))
        settings = INITIAL_WINDOW_SIZE.to_bytes(2) + takes.to_bytes(4)
        self._socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))
        self._socket.setblocking(False)
        self._came = b""
        self._last = -1
        self.is_closed = False
        """Whether the server has closed the connection."""
        self.ended: set[int] = set()
        """The calls that the server has ended."""
        self.window = 65535
        """The server's initial window: how many bytes of each call may be sent at first."""
        self._more = Counter[int]()
        self._sent = Counter[int]()

    def open(self, path: str, data: bytes = b"") -> int:
        """Begin a call, and send some bytes of its request, if any. Its request does not end."""
        self._last += 2
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "x",
            "content-type": "application/grpc",
            "te": "trailers",
        }
        block = b"".join(field(name, value) for name, value in fields.items())
        self._send(frame(HEADERS, END_HEADERS, self._last, block))
        if data:
            self.send(self._last, data)
        return self._last

    def send(self, call: int, data: bytes) -> None:
        """Send some more bytes."""
        for place in (0, call):
            self._sent[place] += len(data)
        self._send(frame(DATA, 0, call, data))

    def end(self, call: int) -> None:
        """End the request."""
        self._send(frame(DATA, END_STREAM, call))

    def room(self, call: int) -> int:
        """How many more bytes the server's windows allow now (RFC 9113, 5.2)."""
        of_all = 65535 + self._more[0] - self._sent[0]
        return max(0, min(of_all, self.window + self._more[call] - self._sent[call]))

    def read(self) -> None:
        """Process everything that has come."""
        try:
            while came := self._socket.recv(1 << 16):
                self._came += came
            self.is_closed = True
        except BlockingIOError:
            pass
        except ConnectionResetError:
            self.is_closed = True
        while len(self._came) >= 9:
            size = int.from_bytes(self._came[:3])
            if len(self._came) < 9 + size:
                return
            kind, flags = self._came[3:5]
            stream = int.from_bytes(self._came[5:9])
            self._note(kind, flags, stream, self._came[9 : 9 + size])
            self._came = self._came[9 + size :]

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _send(self, data: bytes) -> None:
        self._socket.setblocking(True)
        self._socket.sendall(data)
        self._socket.setblocking(False)

    def _note(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        if kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM):
            self.ended.add(stream)
        elif kind == PING and not flags & ACK:
            self._send(frame(PING, ACK, 0, content))
        elif kind == WINDOW_UPDATE:
            self._more[stream] += int.from_bytes(content)
        elif kind == SETTINGS and not flags & ACK:
            self._send(frame(SETTINGS, ACK, 0))
            for at in range(0, len(content), 6):
                if int.from_bytes(content[at : at + 2]) == INITIAL_WINDOW_SIZE:
                    self.window = int.from_bytes(content[at + 2 : at + 6])
