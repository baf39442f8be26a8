"""The floor of a trade: its processes, messages and writes to disk, and nothing else.

A trade is six messages and two commits, one after the other, between five processes: front-end,
order leader, catalog (commit), order leader, both followers (commit on a majority), order leader,
front-end. Here they check nothing, number nothing, and could not recover. What a chain like this
takes, a trade cannot undercut without another shape. One chain uses bare sockets, the other the
gRPC streams and reactors of twstock; the difference between those two is what the platform costs.
"""

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from enum import IntEnum
from functools import partial
from pathlib import Path

from bench.processes import free_ports, running, subdirectory, wait_for
from bench.systems import System, Work, trades

SOCKETS = "the same messages, bare sockets"
STREAMS = "the same messages, gRPC streams"
REQUEST = b"x" * 200
"""About as large as a trade, or an entry of the log, is on its way."""
REPLY = b"x" * 40
_BODY = b'{"data":{"transaction_number":1}}'
HTTP_REPLY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)
_LOG_BYTES = 16 * 1024 * 1024


class Role(IntEnum):
    """The processes; a number is also a port's distance from the first."""

    FRONT = 0
    LEADER = 1
    CATALOG = 2
    FOLLOWER = 3
    OTHER_FOLLOWER = 4


class Log:
    """A file whose blocks were allocated before, as the members' logs are."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        os.posix_fallocate(self._file, 0, _LOG_BYTES)
        os.fsync(self._file)
        self._at = 0

    def commit(self, entry: bytes) -> None:
        """Write an entry, over older ones when the file is full, and have it on disk."""
        os.pwrite(self._file, entry, self._at)
        self._at = (self._at + len(entry)) % (_LOG_BYTES - len(entry))
        os.fdatasync(self._file)


def arguments() -> tuple[Role, int, Log]:
    """In a process of the chain: its role, the first port and its log."""
    role, first, directory = Role(int(sys.argv[1])), int(sys.argv[2]), Path(sys.argv[3])
    return role, first, Log(directory / role.name.lower())


@contextlib.contextmanager
def _start(name: str, module: str, scratch: Path) -> Iterator[list[System]]:
    """The chain, up, from its end to its beginning: each process connects to those behind it."""
    ports, directory = free_ports(len(Role)), subdirectory(scratch, "chain")
    with contextlib.ExitStack() as stack:
        for role in sorted(Role, reverse=True):
            command = [sys.executable, "-m", module, str(int(role)), str(ports[0]), str(directory)]
            log = scratch / f"{role.name.lower()}.log"
            process = stack.enter_context(running(command, log))
            wait_for(partial(_is_open, ports[role]), f"{name}: {role.name}", [process])
        yield [System(name, ("127.0.0.1", ports[Role.FRONT]), {Work.TRADE: trades()})]


def _is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def start_sockets(scratch: Path) -> contextlib.AbstractContextManager[list[System]]:
    """The chain of bare sockets, up."""
    return _start(SOCKETS, "bench.peers.chain_sockets", scratch)


def start_streams(scratch: Path) -> contextlib.AbstractContextManager[list[System]]:
    """The chain of gRPC streams, up."""
    return _start(STREAMS, "bench.peers.chain_streams", scratch)
