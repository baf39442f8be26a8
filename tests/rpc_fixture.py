"""A server and a client of gRPC, two real ends on this machine."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.threadpool import ThreadPool

from tests.cluster_fixture import free_ports
from twstock.config import Limits
from twstock.rpc.calls import PlaceOrder
from twstock.rpc.client import Client
from twstock.rpc.server import Endpoint, Server
from twstock.rpc.wire import methods

LIMITS = Limits(rpc_threads=4, rpc_client_calls_max=2, rpc_streams_max=2)
WITHOUT_STREAMS = replace(LIMITS, rpc_streams_max=0)
REQUEST = PlaceOrder("k", "GameStart", "buy", 1)


@pytest.fixture(params=[LIMITS, WITHOUT_STREAMS], ids=["stream", "calls"])
def serve(request: Any) -> Iterator[Callable[[Any], Client]]:
    """A function that starts a server with one answer for Order, and returns a client of it. The
    client uses a stream, or single calls because the server has no room for streams.
    """
    threads = ThreadPool(1, 4, "test-rpc")
    threads.start()
    ends: list[Any] = []
    address = f"127.0.0.1:{free_ports(1)}"

    def start(answer: Any) -> Client:
        endpoint = Endpoint(methods.ORDER, answer)
        deliver = reactor.callFromThread  # type: ignore[attr-defined]
        server = Server(address, [endpoint], reactor, deliver, request.param)  # type: ignore[arg-type]
        server.startService()
        client = Client(address, threads, reactor, deliver, LIMITS)  # type: ignore[arg-type]
        ends.append((server, client))
        return client

    def end() -> None:
        ends[-1][0].stopService()

    start.end = end  # type: ignore[attr-defined]
    yield start
    for server, client in ends:
        client.close()
        if server.running:
            server.stopService()
    threads.stop()


async def fails(deferred: Deferred[Any], kind: type[Exception]) -> Exception:
    """The error of a call that has to fail."""
    try:
        await deferred
    except kind as error:
        return error
    raise AssertionError("the call did not fail")
