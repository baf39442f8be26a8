"""The process of a front-end: what it refuses to start with, and how many connections it has room
for.
"""

from collections.abc import Iterator
from dataclasses import replace
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from typing import Any

import pytest
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.usage import UsageError

from twstock.config import default_cluster
from twstock.descriptors import OTHERS
from twstock.errors import ConfigError
from twstock.threads import Pool
from twstock.tomltext import render
from twstock.web import tap
from twstock.web.front import FrontEnd


class FullReactor(Clock):
    """A reactor on which one port is taken; it remembers what listens."""

    def __init__(self, taken: int) -> None:
        super().__init__()
        self.taken = taken
        self.listening: list[int] = []

    def listenTCP(self, port: int, _factory: Any, **_: Any) -> "FullReactor":
        """Listen, or fail as the real one does."""
        if port == self.taken:
            raise CannotListenError("127.0.0.1", port, OSError(98, "Address already in use"))
        self.listening.append(port)
        return self

    def callFromThread(self, *_: Any) -> None:
        """Nothing arrives."""

    def stopListening(self) -> None:
        """As the port that ``listenTCP`` returned."""


@pytest.mark.parametrize("taken", ["http", "internal"])
def test_a_port_that_is_taken_is_named(taken: str) -> None:
    """In an error without a traceback; the service can be stopped like any other."""
    cluster = default_cluster()
    front = cluster.fronts[0]
    address = getattr(front, taken)
    pools = {name: Pool(name) for name in ("control", "calls")}
    service = FrontEnd(FullReactor(address.port), cluster, front, pools)
    with pytest.raises(ConfigError, match=rf"^front-1 cannot listen: .*{address.port}"):
        service.startService()
    done: list[Any] = []
    service.stopService().addBoth(done.append)
    assert done == [None]


@pytest.mark.parametrize("name", ["front-9", "order-1", "front-x", "front-"])
def test_an_unknown_member_is_a_usage_error(name: str, tmp_path: Any) -> None:
    """It is noticed before anything is started."""
    path = tmp_path / "cluster.toml"
    path.write_text(render(default_cluster()))
    with pytest.raises(UsageError, match="front"):
        tap.Options().parseOptions(["--config", str(path), "--name", name])


@pytest.fixture
def few_files() -> Iterator[int]:
    """The hard limit of open files, with a soft one of 400 for this test."""
    soft, hard = getrlimit(RLIMIT_NOFILE)
    setrlimit(RLIMIT_NOFILE, (400, hard))
    yield hard
    setrlimit(RLIMIT_NOFILE, (soft, hard))


def start(connections_max: int) -> list[str]:
    """Start a front-end for so many connections, as far as it comes; returns its warnings."""
    cluster = default_cluster()
    cluster = replace(cluster, limits=replace(cluster.limits, connections_max=connections_max))
    front = cluster.fronts[0]
    pools = {name: Pool(name) for name in ("control", "calls")}
    service = FrontEnd(FullReactor(front.http.port), cluster, front, pools)
    with capturedLogs() as logged, pytest.raises(ConfigError):
        service.startService()
    service.stopService()
    return [formatEvent(event) for event in logged if event["log_level"].name == "warn"]


@pytest.mark.parametrize(("connections_max", "soft"), [(300, 300 + OTHERS), (100, 400)])
def test_a_front_end_makes_room_for_its_connections(
    few_files: int, connections_max: int, soft: int
) -> None:
    """Each needs a file descriptor. A limit that is high enough is left as it is, and nothing is
    logged.
    """
    assert start(connections_max) == []
    assert getrlimit(RLIMIT_NOFILE) == (soft, few_files)


def test_a_front_end_warns_of_connections_that_it_has_no_room_for(few_files: int) -> None:
    """It raises its limit as far as it may."""
    [warning] = start(few_files)
    assert "connections_max" in warning
    assert getrlimit(RLIMIT_NOFILE) == (few_files, few_files)
