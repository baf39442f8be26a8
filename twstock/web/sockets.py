"""Listening sockets that were passed to this process (sd_listen_fds(3)).

systemd, or whoever else holds them, goes on holding them while the front-end is started again:
connections that come meanwhile wait in the kernel's queue, and none is refused.
"""

import os
import socket
from collections.abc import Mapping

from twstock.errors import ConfigError

NAME = "http"
"""``FileDescriptorName`` of the public listener."""
FIRST = 3
"""SD_LISTEN_FDS_START: the first descriptor after standard error."""


def passed_listeners(
    environ: Mapping[str, str], pid: int, first: int = FIRST
) -> list[socket.socket]:
    """The sockets for the public listener that the process ``pid`` was given: those named
    ``http``, or the only one. Empty without any; ConfigError for what nobody can be served on.
    """
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(pid) or not count.isascii() or not count.isdigit():
        return []
    numbers = range(first, first + int(count))
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    chosen = [n for n, name in zip(numbers, names, strict=False) if name == NAME]
    if not chosen and len(numbers) > 1:
        raise ConfigError(f"{len(numbers)} sockets were passed, but none is named {NAME}")
    return [_listener(number) for number in chosen or numbers]


def _listener(number: int) -> socket.socket:
    try:
        os.set_inheritable(number, False)
        found = socket.socket(fileno=number)
        is_stream = found.type == socket.SOCK_STREAM and found.family != socket.AF_UNIX
        listens = is_stream and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(f"descriptor {number} was passed as a socket: {error}") from None
    if not listens:
        raise ConfigError(f"descriptor {number} was passed, but is no TCP socket that listens")
    found.setblocking(False)
    return found
