"""A listening socket that was passed to this process (sd_listen_fds(3)).

systemd, or another holder, keeps it open while the front-end restarts: connections that come
meanwhile wait in the kernel's queue, and none is refused.
"""

import socket
from collections.abc import Callable
from typing import Any

from twstock.errors import ConfigError

NAME = "http"
"""``FileDescriptorName`` of the public listener."""
Find = Callable[[str], Any]
"""Makes an endpoint from its description, as ``serverFromString`` does. Only Twisted knows which
sockets were passed: it removes systemd's variables from the environment as soon as its endpoints
are imported."""


def passed_listener(find: Find) -> socket.socket | None:
    """The socket for the public listener that this process was given: the one named ``http``,
    or the only one. None if there is none. Raises ConfigError if there are several and none has
    that name, or if the socket cannot be used.
    """
    try:
        return _listener(find(f"systemd:domain=INET:name={NAME}").fileno)
    except KeyError:
        pass
    numbers: list[int] = []
    try:
        while True:
            numbers.append(find(f"systemd:domain=INET:index={len(numbers)}").fileno)
    except IndexError:
        if len(numbers) > 1:
            raise ConfigError(
                f"{len(numbers)} sockets were passed, but none is named {NAME}"
            ) from None
    return _listener(numbers[0]) if numbers else None


def _listener(number: int) -> socket.socket:
    """The socket of a descriptor; closing it does not close it for the process that passed it."""
    try:
        found = socket.socket(fileno=number)
        is_stream = found.type == socket.SOCK_STREAM and found.family != socket.AF_UNIX
        listens = is_stream and found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        found.set_inheritable(False)
        found.setblocking(False)
    except OSError as error:
        raise ConfigError(f"descriptor {number} was passed as a socket: {error}") from None
    if not listens:
        found.detach()
        raise ConfigError(f"descriptor {number} was passed, but is no TCP socket that listens")
    return found
