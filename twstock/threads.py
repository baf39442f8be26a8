"""Where blocking work runs, and how its results come back to the reactor."""

from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")


class Threads(Protocol):
    """Where blocking calls run: one thread, so that they stay in order."""

    def callInThread(self, func: Callable[..., object], *args: Any) -> None:
        """Run ``func`` in the thread, after everything given before."""


def in_thread(
    threads: Threads, deliver: Callable[..., None], function: Callable[[], T]
) -> "Deferred[T]":
    """Run ``function`` in a thread. The Deferred fires with what it returns or raises, which
    ``deliver`` brings to the reactor.
    """
    answer: Deferred[T] = Deferred()

    def run() -> None:
        try:
            result = function()
        except Exception:
            deliver(answer.errback, Failure())
        else:
            deliver(answer.callback, result)

    threads.callInThread(run)
    return answer


class Pool(Service):
    """A thread pool of its own for one kind of work, with ``size`` threads at most, which are
    made when they are needed.
    """

    def __init__(self, name: str, size: int = 1) -> None:
        self.threads = ThreadPool(0, size, name)

    def startService(self) -> None:
        """Start the threads."""
        super().startService()
        self.threads.start()

    def stopService(self) -> None:
        """Let the threads finish what they have."""
        super().stopService()
        self.threads.stop()


class Worker(Service):
    """One dedicated thread, for work that has to stay in order and is handed over often: this takes
    a third of the time that a ThreadPool needs to find a free thread.

    An error that escapes from the work is logged; work that must handle its errors catches them
    itself.
    """

    _log = Logger()

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def callInThread(self, func: Callable[..., object], *args: Any) -> None:
        """Run ``func`` in the thread, after everything given before."""
        self._work.put(partial(func, *args))

    def startService(self) -> None:
        """Start the thread."""
        super().startService()
        self._thread.start()

    def stopService(self) -> None:
        """Let the thread finish what it has."""
        super().stopService()
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:
                self._log.failure("work in the thread {name} failed", name=self._thread.name)
