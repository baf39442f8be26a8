"""Settings, fixtures and hooks for all tests."""

import functools
import inspect
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import globalLogPublisher

from tests.certified import make

# How long an example takes says more about the machine than about the code.
settings.register_profile("twstock", deadline=None)
settings.load_profile("twstock")
# For a planted bug it is enough that a test fails: finding the smallest example takes a minute.
settings.register_profile("planted", deadline=None, phases=(Phase.explicit, Phase.generate))

# A shell makes background commands ignore Ctrl-C, and all processes started here would inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

UNWINDING_S = 5.0


class _Connection(sqlite3.Connection):
    """Is closed when it is collected. Tests that play a kill leave members' files open, and from
    Python 3.13 on each connection that is collected open is a ResourceWarning.
    """

    def __del__(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # of another thread
            self.close()


sqlite3.connect = functools.partial(sqlite3.connect, factory=_Connection)  # type: ignore[assignment]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a CA and its certificates, made once for all tests."""
    orders = [f"order-{number}" for number in (1, 2, 3)]
    return make(
        tmp_path_factory.mktemp("tls"), *orders, "catalog-1", "front-1", "front-2", "client"
    )


@pytest.fixture(autouse=True)
def _no_failure_is_logged(request: pytest.FixtureRequest) -> Iterator[None]:
    """An error that is only logged fails the test, including that of a Deferred that nobody looks
    at; except in tests marked ``logs_failures``, which are about such an error.
    """
    found: list[Any] = []

    def observe(event: Any) -> None:
        if "log_failure" in event:
            found.append(event["log_failure"].getTraceback())

    globalLogPublisher.addObserver(observe)
    yield
    globalLogPublisher.removeObserver(observe)
    if request.node.get_closest_marker("logs_failures") is None:
        assert not found, "\n".join(found)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """A test that the reactor runs is cancelled ``UNWINDING_S`` before its time is up. The reactor
    would only log what pytest-timeout raises then, and the test would never end.
    """
    marker = pyfuncitem.get_closest_marker("timeout")
    limit_s = float(marker.args[0] if marker else pyfuncitem.config.getini("timeout"))
    test = pyfuncitem.obj
    if not hasattr(test, "hypothesis"):
        pyfuncitem.obj = _cancelled_after(test, limit_s - UNWINDING_S)
    result = yield
    pyfuncitem.obj = test
    return result


def _cancelled_after(test: Callable[..., Any], limit_s: float) -> Callable[..., Any]:
    """The test, with a time limit on the Deferred or coroutine that it may return."""

    @functools.wraps(test)
    def limited(**fixtures: Any) -> Any:
        from twisted.internet import reactor  # pytest-twisted installs it

        result = test(**fixtures)
        if inspect.iscoroutine(result):
            result = ensureDeferred(result)
        if isinstance(result, Deferred):
            result.addTimeout(limit_s, reactor)  # type: ignore[arg-type]
        return result

    return limited
