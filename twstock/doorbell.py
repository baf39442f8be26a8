"""Calls that threads hand to the reactor, at half the cost of ``callFromThread``.

Twisted's own way writes a byte for each call, through two layers, and gives each a context for the
log. A ``Doorbell`` is an eventfd(2) that is written to only if nobody has rung yet; all waiting
calls are made in one turn of the reactor.
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
    """``call`` is ``IReactorFromThreads.callFromThread``; calls are made in the order in which they
    were handed over. It has to be added to the reactor as a reader.
    """

    _log = Logger()

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._waiting: deque[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = deque()
        self._is_rung = False

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """From any thread, or a signal handler: have the reactor call a function."""
        self._waiting.append((function, args, kwargs))
        if not self._is_rung:
            self._is_rung = True
            os.eventfd_write(self._descriptor, 1)

    def doRead(self) -> None:
        """Make the waiting calls. A call that is handed over from here on rings again, so calls
        that hand over more calls cannot keep the reactor from its other work.
        """
        os.eventfd_read(self._descriptor)
        self._is_rung = False
        waiting = self._waiting
        for _ in range(len(waiting)):
            function, args, kwargs = waiting.popleft()
            try:
                function(*args, **kwargs)
            except ReactorNotRunning:
                pass  # it was asked to stop twice: by timeout(1), or by a second Ctrl-C
            except BaseException:  # as the reactor does: the other calls must still be made
                self._log.failure("a call from a thread failed")

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has stopped. Until the process ends, threads may still ring, in vain."""

    def fileno(self) -> int:
        """The descriptor that is ready when a call waits."""
        return self._descriptor

    def logPrefix(self) -> str:
        """The name in Twisted's legacy log."""
        return "doorbell"


def use_doorbell(reactor: Any) -> None:
    """Have everything that threads hand to a reactor go through a ``Doorbell``."""
    bell = Doorbell()
    reactor.addReader(bell)
    reactor.callFromThread = bell.call
