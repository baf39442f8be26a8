"""A listening socket that was passed to this process (sd_listen_fds(3)).

systemd, or whoever else holds it, goes on holding it while the front-end is started again:
connections that come meanwhile wait in the kernel's queue, and none is refused.
"""

import socket
from collections.abc import Callable
from typing import Any

from twstock.errors import ConfigError

NAME = "http"
"""``FileDescriptorName`` of the public listener."""
Find = Callable[[str], Any]
"""What ``serverFromString`` makes of a description. Twisted alone can be asked: when its
endpoints are imported it takes what was passed out of the environment."""


def passed_listener(find: Find) -> socket.socket | None:
    """The socket for the public listener that this process was given: the one named ``http``,
    or the only one. None without any; ConfigError for what nobody can be served on.
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
    """The socket of a descriptor; closing it leaves the one alone that somebody else holds."""
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
