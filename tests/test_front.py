"""The front-end process: what it refuses to start with."""

from typing import Any

import pytest
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.python.usage import UsageError

from twstock.config import default_cluster
from twstock.errors import ConfigError
from twstock.process import Pool
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
    """The operator reads which, not a traceback; the service stops like any other."""
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
    """Before anything is started."""
    path = tmp_path / "cluster.toml"
    path.write_text(render(default_cluster()))
    with pytest.raises(UsageError, match="front"):
        tap.Options().parseOptions(["--config", str(path), "--name", name])
