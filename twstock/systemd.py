"""What a service reports to systemd: that it is ready, alive, or stopping (sd_notify(3))."""

import socket
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.logger import Logger

from twstock.clocks import Clock
from twstock.repeating import repeating

S = TypeVar("S", bound=Service)


class SystemdNotifier:
    """Tells systemd READY, STOPPING and WATCHDOG (sd_notify(3)); silent without systemd."""

    _log = Logger()

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._is_heard = True
        self.watchdog_s = int(environ.get("WATCHDOG_USEC", "0")) / 1e6

    @property
    def listening(self) -> bool:
        """Whether systemd wants to be told."""
        return bool(self._address)

    def tell(self, state: str) -> bool:
        """Send one state, for example ``READY=1``; returns whether it was sent.

        A service must neither wait for a systemd that does not read, nor end because it cannot tell
        it: the first of several failures in a row is logged, and that is all.
        """
        if not self._address:
            return False
        address = self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            with socket.socket(socket.AF_UNIX, kind) as sock:
                sock.sendto(state.encode(), address)
        except OSError as error:
            if self._is_heard:
                self._log.warn("systemd cannot be told {state}: {error}", state=state, error=error)
            self._is_heard = False
        else:
            self._is_heard = True
        return self._is_heard


def watch(clock: Clock, notifier: SystemdNotifier, is_ready: Callable[[], bool]) -> None:
    """Report readiness until it has been sent, and WATCHDOG for as long as the reactor runs."""
    told = False

    def beat() -> None:
        nonlocal told
        if not told and is_ready():
            told = notifier.tell("READY=1")
        notifier.tell("WATCHDOG=1")

    interval = min(notifier.watchdog_s / 3 or 0.25, 0.25)
    if notifier.listening:
        repeating(beat, clock, "telling systemd").start(interval)


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
