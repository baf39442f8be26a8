"""The gRPC server and client between two real ends on this machine."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.threadpool import ThreadPool

from twstock.config import Limits
from twstock.errors import (
    CannotListen,
    KeyReused,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
)
from twstock.pb import order_pb2
from twstock.rpc.calls import Placement, PlaceOrder
from twstock.rpc.client import Client
from twstock.rpc.server import Endpoint, Server
from twstock.rpc.wire import methods

LIMITS = Limits(rpc_threads=4, rpc_client_calls_max=2)
REQUEST = PlaceOrder("k", "GameStart", "buy", 1)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def serve() -> Iterator[Callable[[Any], Client]]:
    """Starts a server with one answer for Order; gives a client for it."""
    threads = ThreadPool(1, 4, "test-rpc")
    threads.start()
    ends: list[Any] = []

    def start(answer: Any) -> Client:
        address = f"127.0.0.1:{free_port()}"
        endpoint = Endpoint(methods.ORDER, answer)
        server = Server(address, [endpoint], reactor.callFromThread, LIMITS)  # type: ignore[attr-defined]
        server.startService()
        client = Client(address, threads, reactor.callFromThread, LIMITS)  # type: ignore[attr-defined]
        ends.append((server, client))
        return client

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


@pytest_twisted.ensureDeferred
async def test_call_is_answered_in_the_reactor(serve: Callable[[Any], Client]) -> None:
    """A request reaches the function, its answer comes back."""

    async def answer(request: PlaceOrder) -> Placement:
        assert request == REQUEST
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        return Placement(42)

    assert await serve(answer).call(methods.ORDER, REQUEST, 2.0) == Placement(42)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("error", [NotLeader(2), KeyReused(), OutcomeUnknown("?"), Overloaded("")])
async def test_error_crosses_the_wire(serve: Callable[[Any], Client], error: Exception) -> None:
    """An error raised on purpose arrives as the same class."""

    async def answer(request: PlaceOrder) -> Placement:
        raise error

    raised = await fails(serve(answer).call(methods.ORDER, REQUEST, 2.0), type(error))
    assert type(raised) is type(error)
    assert getattr(raised, "leader_id", None) == getattr(error, "leader_id", None)


@pytest_twisted.ensureDeferred
async def test_deadline_is_an_unknown_outcome(serve: Callable[[Any], Client]) -> None:
    """No answer in time: nobody knows whether the call took effect."""

    async def answer(request: PlaceOrder) -> Placement:
        await deferLater(reactor, 0.4)  # type: ignore[arg-type]
        return Placement(1)

    started = time.monotonic()
    await fails(serve(answer).call(methods.ORDER, REQUEST, 0.2), OutcomeUnknown)
    assert time.monotonic() - started < 5
    await deferLater(reactor, 0.3)  # type: ignore[arg-type]


@pytest_twisted.ensureDeferred
async def test_calls_beyond_the_limit_are_refused(serve: Callable[[Any], Client]) -> None:
    """Client calls that find no free thread are refused at once, and do not pile up."""
    waiting: Deferred[None] = Deferred()
    reached = []

    async def answer(request: PlaceOrder) -> Placement:
        reached.append(request)
        await waiting
        return Placement(1)

    client = serve(answer)
    calls = [client.call(methods.ORDER, REQUEST, 30.0) for _ in range(2)]
    while len(reached) < 2:
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    await fails(client.call(methods.ORDER, REQUEST, 30.0), Overloaded)
    waiting.callback(None)
    for call in calls:
        assert await call == Placement(1)


@pytest_twisted.ensureDeferred
async def test_garbage_is_the_callers_fault(serve: Callable[[Any], Client]) -> None:
    """Bytes that are no request never reach the function."""
    reached = []

    async def answer(request: PlaceOrder) -> Placement:
        reached.append(request)
        return Placement(1)

    client = serve(answer)
    with grpc.insecure_channel(client.address) as channel:
        call = channel.unary_unary(methods.ORDER.path).future(b"\xff\xff\xff", timeout=2)
        while not call.done():
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    assert call.exception().code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reached == []


def test_taken_port_is_refused() -> None:
    """Two servers never share a port in silence."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        server = Server(address, [], reactor.callFromThread, LIMITS)  # type: ignore[attr-defined]
        with pytest.raises(CannotListen, match=address):
            server.startService()


def test_seeds_bare_replicate_order_is_refused() -> None:
    """An order without its term and place in the log is never applied."""
    seed = order_pb2.ReplicateOrderRequest(transaction_num=1, name="A", number_of_items=1)
    with pytest.raises(Exception, match="term and place"):
        methods.ORDER_APPEND.decode_request(seed.SerializeToString())
