"""Calls that threads hand to the reactor, at half of what ``callFromThread`` costs.

The reactor writes a byte for each of them, through two layers, and makes a context for the log
around each. A ``Doorbell`` is an eventfd(2) that is rung when nobody has rung it yet; all calls
that wait are made in one of the reactor's turns.
"""

import os
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IReadDescriptor)
class Doorbell:
    """``call`` is ``IReactorFromThreads.callFromThread``; calls are made in the sequence in which
    they were handed over. The reactor has to be told to read from it.
    """

    _log = Logger()

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._waiting: deque[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = deque()
        self._is_rung = False

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """From any thread, or a signal's handler: let the reactor call a function."""
        self._waiting.append((function, args, kwargs))
        if not self._is_rung:
            self._is_rung = True
            os.eventfd_write(self._descriptor, 1)

    def doRead(self) -> None:
        """Make the calls that wait. Who hands one over from here on rings again, so none that
        these calls hand over keeps the reactor from its other work.
        """
        os.eventfd_read(self._descriptor)
        self._is_rung = False
        waiting = self._waiting
        for _ in range(len(waiting)):
            function, args, kwargs = waiting.popleft()
            try:
                function(*args, **kwargs)
            except ReactorNotRunning:
                pass  # it was asked to stop twice: timeout(1) does, and who presses Ctrl-C again
            except BaseException:  # as the reactor does: nobody else is to suffer from it
                self._log.failure("a call from a thread failed")

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends. Threads may ring for nothing until the process does, too."""

    def fileno(self) -> int:
        """The descriptor that is ready when a call waits."""
        return self._descriptor

    def logPrefix(self) -> str:
        """The name in Twisted's legacy log."""
        return "doorbell"


def use_doorbell(reactor: Any) -> None:
    """Let everything that threads hand to a reactor go through a ``Doorbell``."""
    bell = Doorbell()
    reactor.addReader(bell)
    reactor.callFromThread = bell.call
