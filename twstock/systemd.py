"""What a service tells systemd: that it is ready, lives, and stops (sd_notify(3))."""

import socket
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from twisted.application.service import Service

from twstock.clocks import Clock

S = TypeVar("S", bound=Service)


class SystemdNotifier:
    """Tells systemd READY, STOPPING and WATCHDOG (sd_notify(3)); silent without systemd."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self.watchdog_s = int(environ.get("WATCHDOG_USEC", "0")) / 1e6

    @property
    def listening(self) -> bool:
        """Whether somebody wants to be told."""
        return bool(self._address)

    def tell(self, state: str) -> None:
        """Send one state, for example ``READY=1``."""
        if not self._address:
            return
        address = self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode(), address)


def watch(clock: Clock, notifier: SystemdNotifier, is_ready: Callable[[], bool]) -> None:
    """Report readiness once and then the watchdog, from the reactor, for as long as it runs."""
    told = False

    def beat() -> None:
        nonlocal told
        if not told and is_ready():
            told = True
            notifier.tell("READY=1")
        notifier.tell("WATCHDOG=1")
        clock.callLater(interval, beat)

    interval = min(notifier.watchdog_s / 3 or 0.25, 0.25)
    if notifier.listening:
        beat()


def supervise(
    service: S,
    reactor: Any,
    environ: Mapping[str, str],
    serves: Callable[[], bool] = lambda: True,
) -> S:
    """Let systemd know when ``service`` runs and ``serves``, and when it stops; returns the
    service.
    """
    notifier = SystemdNotifier(environ)
    reactor.callWhenRunning(watch, reactor, notifier, lambda: bool(service.running) and serves())
    reactor.addSystemEventTrigger("before", "shutdown", notifier.tell, "STOPPING=1")
    return service
