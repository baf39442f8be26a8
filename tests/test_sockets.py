"""A listening socket that was passed to the front-end."""

import socket
from types import SimpleNamespace

import pytest

from twstock.errors import ConfigError
from twstock.web.http.sockets import passed_listener


def passed(*sockets, names=()):
    """A stand-in for Twisted's search for a passed socket by its description; these sockets were
    passed.
    """

    def find(description):
        what, _, which = description.rpartition(":")[2].partition("=")
        found = sockets[int(which)] if what == "index" else dict(zip(names, sockets))[which]  # noqa: B905
        return SimpleNamespace(fileno=found.dup().detach())

    return find


@pytest.fixture
def listener():
    """A socket that listens."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_without_a_socket_the_front_end_makes_its_own():
    """Nothing was passed, so there is no listener."""
    assert passed_listener(passed()) is None


@pytest.mark.parametrize("names", [("http",), ("unknown",), ()])
def test_the_only_socket_is_for_the_public(listener, names):
    """A single socket is taken, whatever its name. It does not block, and no child inherits it."""
    with passed_listener(passed(listener, names=names)) as found:
        assert found.getsockname() == listener.getsockname()
        assert not found.getblocking()
        assert not found.get_inheritable()


def test_of_several_sockets_the_one_named_http_is_taken(listener):
    """The others are left alone."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        find = passed(other, listener, names=("metrics", "http"))
        with passed_listener(find) as found:
            assert found.getsockname() == listener.getsockname()


def test_several_sockets_of_which_none_is_named_http_are_an_error(listener):
    """The error says how many there are, as nobody can tell which one is meant."""
    with pytest.raises(ConfigError, match="2 sockets were passed, but none is named http"):
        passed_listener(passed(listener, listener, names=("a", "b")))


@pytest.mark.parametrize("kind", ["quiet", "datagram", "unix", "file"])
def test_what_nobody_can_be_served_on_is_an_error(kind, tmp_path):
    """A socket that does not listen, a datagram socket, one of the family AF_UNIX, or a file is
    refused.
    """
    if kind == "file":
        made = (tmp_path / "file").open("w")
        find = lambda _: SimpleNamespace(fileno=made.fileno())  # noqa: E731
    else:
        family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
        made = socket.socket(family, socket.SOCK_DGRAM if kind == "datagram" else 1)
        if kind == "unix":
            made.bind(str(tmp_path / "socket"))
            made.listen()
        find = passed(made)
    with made, pytest.raises(ConfigError, match=r"descriptor \d+ was passed"):
        passed_listener(find)
