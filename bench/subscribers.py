"""``python -m bench.subscribers HOST PORT COUNT``: clients of the feed that discard what they read.

Prints ``listening`` when all of them have received something and, at SIGTERM, what they received,
as JSON. It is a process of its own and does as little as it can, because it shares the machine
with what is measured.
"""

import json
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence

BUFFER_BYTES = 1024 * 1024
POLL_S = 0.2
PAUSE_S = 0.01
_REQUEST = (
    b"GET /events HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n"
    b"Accept-Encoding: gzip, deflate, br\r\n\r\n"
)


class Subscribers:
    """Open connections to the feed, by file descriptor."""

    def __init__(self, host: str, port: int, count: int) -> None:
        self.stopped = False
        self._began = time.monotonic()
        self._buffer = bytearray(BUFFER_BYTES)
        self._poll = select.epoll()
        self._open: dict[int, socket.socket] = {}
        self._received: dict[int, int] = {}
        self._reads = 0
        for _ in range(count):
            connection = socket.create_connection((host, port))
            connection.sendall(_REQUEST)
            connection.setblocking(False)
            self._open[connection.fileno()] = connection
            self._received[connection.fileno()] = 0
            self._poll.register(connection.fileno(), select.EPOLLIN)

    def is_listening(self) -> bool:
        """Whether every one of them has received something."""
        return all(self._received.values())

    def begin(self) -> None:
        """Count from now on."""
        self._began, self._reads = time.monotonic(), 0
        self._received = dict.fromkeys(self._received, 0)

    def read(self) -> None:
        """Read what has come, from many at once: a wake-up for each would cost more."""
        time.sleep(PAUSE_S)
        for number, _ in self._poll.poll(POLL_S, len(self._open) or 1):
            self._reads += 1
            try:
                taken = self._open[number].recv_into(self._buffer)
            except OSError:
                taken = 0
            self._received[number] += taken
            if not taken:
                self._poll.unregister(number)
                self._open.pop(number).close()

    def summary(self) -> str:
        """What was received, as JSON."""
        received = sorted(self._received.values())
        return json.dumps(
            {
                "seconds": time.monotonic() - self._began,
                "kept": len(self._open),
                "received_bytes": sum(received),
                "least_bytes": received[0],
                "most_bytes": received[-1],
                "reads": self._reads,
            }
        )


def main(words: Sequence[str]) -> None:
    """Read until SIGTERM."""
    host, port, count = words
    subscribers = Subscribers(host, int(port), int(count))

    def stop(*_: object) -> None:
        subscribers.stopped = True

    signal.signal(signal.SIGTERM, stop)
    while not subscribers.is_listening():
        subscribers.read()
    subscribers.begin()
    print("listening", flush=True)
    while not subscribers.stopped:
        subscribers.read()
    print(subscribers.summary(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
