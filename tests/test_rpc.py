"""The gRPC server and client, connected on this machine."""

# ruff: noqa: F811 - the fixture ``serve`` is an import, and the name of an argument

import socket
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from queue import Queue
from threading import Event
from typing import Any

import grpc
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.python.threadable import isInIOThread
from twisted.python.threadpool import ThreadPool

from tests.cluster_fixture import free_ports
from tests.rpc_fixture import (
    LIMITS,
    REQUEST,
    fails,
    serve,  # noqa: F401
)
from twstock.config import Limits
from twstock.errors import (
    CannotListen,
    InvalidRequest,
    KeyReused,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)
from twstock.rpc.calls import Placement, PlaceOrder
from twstock.rpc.client import Client
from twstock.rpc.duplex import Unsupported
from twstock.rpc.server import LARGE_AT_ONCE_MAX, LARGE_BYTES, Endpoint, Server
from twstock.rpc.status import DETAILS_CHARS_MAX, LEADER, OUTCOME, error_of
from twstock.rpc.streams import CallStream
from twstock.rpc.wire import methods, streams


@pytest_twisted.ensureDeferred
async def test_call_is_answered_in_the_reactor(serve: Callable[[Any], Client]) -> None:
    """A request reaches the function, in the reactor's thread, and its answer comes back."""

    async def answer(request: PlaceOrder) -> Placement:
        assert request == REQUEST
        assert isInIOThread()
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        return Placement(42)

    assert await serve(answer).call(methods.ORDER, REQUEST, 20.0) == Placement(42)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("error", [NotLeader(2), KeyReused(), OutcomeUnknown("?"), Overloaded("")])
async def test_error_crosses_the_wire(serve: Callable[[Any], Client], error: Exception) -> None:
    """An error raised on purpose arrives as the same class, with the leader that it names."""

    async def answer(request: PlaceOrder) -> Placement:
        raise error

    raised = await fails(serve(answer).call(methods.ORDER, REQUEST, 20.0), type(error))
    assert type(raised) is type(error)
    assert getattr(raised, "leader_id", None) == getattr(error, "leader_id", None)


@pytest_twisted.ensureDeferred
async def test_a_proxy_in_the_environment_is_not_for_members(
    serve: Callable[[Any], Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members reach each other although ``http_proxy`` names a proxy, as at many companies."""

    async def answer(request: PlaceOrder) -> Placement:
        return Placement(request.quantity)

    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_ports(1)}")
    monkeypatch.delenv("no_proxy", raising=False)
    assert (await serve(answer).call(methods.ORDER, REQUEST, 20.0)).number == REQUEST.quantity


@pytest_twisted.ensureDeferred
async def test_calls_beyond_the_limit_are_refused(serve: Callable[[Any], Client]) -> None:
    """Client calls beyond the limit are refused at once, and do not pile up."""
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
async def test_each_call_gets_its_own_answer(serve: Callable[[Any], Client]) -> None:
    """Answers arrive in the order in which they are ready, each at its own call."""
    waiting: list[Deferred[None]] = [Deferred(), Deferred()]

    async def answer(request: PlaceOrder) -> Placement:
        await waiting[request.quantity]
        return Placement(request.quantity + 10)

    client = serve(answer)
    first, second = (
        client.call(methods.ORDER, REQUEST._replace(quantity=n), 20.0) for n in range(2)
    )
    waiting[1].callback(None)
    assert await second == Placement(11)
    assert not first.called
    waiting[0].callback(None)
    assert await first == Placement(10)


@pytest_twisted.ensureDeferred
async def test_an_answer_after_its_deadline_disturbs_nobody(
    serve: Callable[[Any], Client],
) -> None:
    """At the deadline the caller is told that the outcome is unknown. An answer after that is
    dropped, and the next call is answered as usual.
    """
    late: Deferred[None] = Deferred()

    async def answer(request: PlaceOrder) -> Placement:
        if request.quantity == 0:
            await late
        return Placement(request.quantity)

    client = serve(answer)
    # A first call takes longer, and with so little time the second might not even be sent.
    assert await client.call(methods.ORDER, REQUEST, 10.0) == Placement(REQUEST.quantity)
    await fails(client.call(methods.ORDER, REQUEST._replace(quantity=0), 1.0), OutcomeUnknown)
    late.callback(None)
    assert await client.call(methods.ORDER, REQUEST._replace(quantity=7), 20.0) == Placement(7)


@pytest_twisted.ensureDeferred
async def test_a_request_that_is_none_fails_alone(serve: Callable[[Any], Client]) -> None:
    """A request that cannot be encoded fails by itself; a call at the same time is answered."""

    async def answer(request: PlaceOrder) -> Placement:
        return Placement(1)

    client = serve(answer)
    odd = client.call(methods.ORDER, REQUEST._replace(quantity=2**70), 20.0)
    good = client.call(methods.ORDER, REQUEST, 20.0)
    await fails(odd, ValueError)
    assert await good == Placement(1)


@pytest_twisted.ensureDeferred
async def test_a_server_that_goes_leaves_the_outcome_unknown_and_its_successor_is_found(
    serve: Callable[[Any], Client],
) -> None:
    """A call under way may have taken effect. A later call reaches the next server at that
    address.
    """
    reached, never = [], Deferred[None]()

    async def hang(request: PlaceOrder) -> Placement:
        reached.append(request)
        await never
        return Placement(1)

    async def answer(request: PlaceOrder) -> Placement:
        return Placement(2)

    client = serve(hang)
    under_way = client.call(methods.ORDER, REQUEST, 30.0)
    while not reached:
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    serve.end()  # type: ignore[attr-defined]
    await fails(under_way, OutcomeUnknown)
    serve(answer)
    for _ in range(100):
        try:
            placed = await client.call(methods.ORDER, REQUEST, 20.0)
        except OutcomeUnknown:  # the channel waits before it connects again
            await deferLater(reactor, 0.05)  # type: ignore[arg-type]
        else:
            break
    assert placed == Placement(2)
    never.callback(None)


@pytest_twisted.ensureDeferred
async def test_a_closed_client_calls_nobody(serve: Callable[[Any], Client]) -> None:
    """When the client closes, a call under way ends at once with an unknown outcome; later calls
    are never sent.
    """
    reached, never = [], Deferred[None]()

    async def hang(request: PlaceOrder) -> Placement:
        reached.append(request)
        await never
        return Placement(1)

    client = serve(hang)
    under_way = client.call(methods.ORDER, REQUEST, 30.0)
    while not reached:
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    client.close()
    await fails(under_way, OutcomeUnknown)
    await fails(client.call(methods.ORDER, REQUEST, 30.0), Unavailable)
    never.callback(None)


@pytest_twisted.ensureDeferred
async def test_a_call_that_nobody_answers_gives_its_room_back(
    serve: Callable[[Any], Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls that an endpoint does not answer end after a while, and no longer count against the
    limit.
    """
    monkeypatch.setattr("twstock.rpc.streams.WAIT_MAX_S", 0.1)
    monkeypatch.setattr("twstock.rpc.server.WAIT_MAX_S", 0.1)
    never: Deferred[None] = Deferred()

    async def answer(request: PlaceOrder) -> Placement:
        if request.quantity == 0:
            await never
        return Placement(1)

    client, hanging = serve(answer), REQUEST._replace(quantity=0)
    for call in [client.call(methods.ORDER, hanging, 20.0) for _ in range(2)]:
        await fails(call, OutcomeUnknown)
    monkeypatch.undo()
    assert await client.call(methods.ORDER, REQUEST, 20.0) == Placement(1)
    never.callback(None)
    assert await client.call(methods.ORDER, REQUEST, 20.0) == Placement(1)


@pytest.mark.timeout(30)  # a call that is never read is waited for until then
@pytest_twisted.ensureDeferred
async def test_a_stream_takes_no_more_calls_than_it_has_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server reads the next call from a stream only when an earlier one is answered, also for
    calls between members.
    """
    monkeypatch.setattr("twstock.rpc.streams.CALLS_MAX", 2)
    waiting: list[Deferred[None]] = []

    async def answer(request: PlaceOrder) -> Placement:
        waiting.append(Deferred())
        await waiting[-1]
        return Placement(request.quantity)

    address, deliver = f"127.0.0.1:{free_ports(1)}", reactor.callFromThread  # type: ignore[attr-defined]
    endpoint = Endpoint(methods.ORDER, answer, internal=True)
    server = Server(address, [endpoint], reactor, deliver, LIMITS)  # type: ignore[arg-type]
    server.startService()
    threads = ThreadPool(0, 1, "test-rpc-room")
    threads.start()
    client = Client(address, threads, reactor, deliver, LIMITS)  # type: ignore[arg-type]
    try:
        requests = [REQUEST._replace(quantity=n) for n in range(1, 6)]
        calls = [client.call(methods.ORDER, request, 20.0) for request in requests]
        for reached in (2, 3, 4, 5):
            while len(waiting) < reached:
                await deferLater(reactor, 0.01)  # type: ignore[arg-type]
            await deferLater(reactor, 0.05)  # type: ignore[arg-type]
            assert len(waiting) == reached
            waiting[reached - 2].callback(None)
        waiting[-1].callback(None)
        assert [await call for call in calls] == [Placement(n) for n in range(1, 6)]
    finally:
        client.close()
        server.stopService()
        threads.stop()


@pytest_twisted.ensureDeferred
async def test_garbage_on_a_stream_ends_it() -> None:
    """Whoever sends garbage loses the stream and is told why; nothing is logged, since that could
    go on for ever. The server has room for the next stream, and an unknown method fails alone.
    """

    async def answer(request: PlaceOrder) -> Placement:
        return Placement(1)

    address = f"127.0.0.1:{free_ports(1)}"
    deliver = reactor.callFromThread  # type: ignore[attr-defined]
    server = Server(address, [Endpoint(methods.ORDER, answer)], reactor, deliver, LIMITS)  # type: ignore[arg-type]
    server.startService()
    try:
        with grpc.insecure_channel(address) as channel:
            for _ in range(3 * LIMITS.rpc_streams_max):
                answers = channel.stream_stream(streams.PATH)(iter([b"\xff\xff\xff"]), timeout=20)
                with pytest.raises(grpc.RpcError) as caught:
                    await deferToThread(list, answers)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert caught.value.details().startswith("call: ")
                assert OUTCOME not in dict(caught.value.trailing_metadata())
            good = streams.call(3, methods.ORDER.path, methods.ORDER.encode_request(REQUEST), 20)
            odd = streams.call(2, "/twstock.No/Such", b"", 20)
            stays_open = chain([odd, good], iter(Queue[bytes]().get, None))
            answers = channel.stream_stream(streams.PATH)(stays_open, timeout=20)
            refused = streams.to_answer(await deferToThread(next, answers))
            found = await deferToThread(next, answers)
            answers.cancel()
        assert refused[0] == 2
        assert isinstance(refused[1], InvalidRequest)
        call_id, content = streams.to_answer(found)
        assert call_id == 3
        assert isinstance(content, bytes)
        assert methods.ORDER.decode_answer(content) == Placement(1)
    finally:
        server.stopService()


def test_a_peer_that_takes_nothing_keeps_no_calls() -> None:
    """When a call's time is up, it and its request are dropped, although the peer reads nothing
    from the stream.
    """
    clock, sent, failures = Clock(), list[bytes](), list[Failure]()

    def nothing(*_: object) -> None:
        pass

    stream = CallStream("peer", clock, nothing, nothing, nothing)
    stream._outbox.open(sent.append, nothing)  # it takes one message, and never says so
    for _ in range(20):
        answer: Deferred[Placement] = Deferred()
        answer.addErrback(failures.append)
        stream.call(methods.ORDER, REQUEST, 1.0, answer)
        clock.advance(0.3)
    assert (len(sent), len(failures)) == (1, 17)
    assert len(stream._outbox._waiting) == len(stream._calls) == 3
    assert all(failure.check(OutcomeUnknown) for failure in failures)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("serve", [LIMITS], ids=["stream"], indirect=True)
@pytest.mark.parametrize("end", ["ClientStream", "ServerStream"])
async def test_without_streams_calls_are_made_as_ever(
    serve: Callable[[Any], Client], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Streams use internals of gRPC. If a version has others, on either side, calls are made one by
    one and answered.
    """

    async def answer(request: PlaceOrder) -> Placement:
        return Placement(request.quantity)

    failed = []

    def fail(_: object) -> None:
        failed.append(1)
        raise Unsupported("other insides")

    monkeypatch.setattr(f"twstock.rpc.duplex.{end}.open", fail)
    client = serve(answer)
    for quantity in (1, 2):
        request = REQUEST._replace(quantity=quantity)
        assert await client.call(methods.ORDER, request, 20.0) == Placement(quantity)
    assert failed


@pytest_twisted.ensureDeferred
async def test_an_error_of_any_size_crosses_the_wire(serve: Callable[[Any], Client]) -> None:
    """Only the beginning of a long error arrives: gRPC would not send all of it, and the caller
    would not learn that nothing happened.
    """

    async def refuse(_: PlaceOrder) -> Placement:
        raise InvalidRequest("name", "\N{GRINNING FACE}" * 2_000_000)

    error = await fails(serve(refuse).call(methods.ORDER, REQUEST, 20.0), InvalidRequest)
    assert str(error).startswith("name: \N{GRINNING FACE}")
    assert len(str(error)) == DETAILS_CHARS_MAX


@pytest_twisted.ensureDeferred
@pytest.mark.logs_failures
async def test_a_caller_is_not_told_what_is_broken(
    serve: Callable[[Any], Client], caplog: pytest.LogCaptureFixture
) -> None:
    """The caller of a single call learns no more than on a stream: that there was an error, and
    that the outcome is unknown. The error itself is logged, once.
    """

    async def fail(_: PlaceOrder) -> Placement:
        raise KeyError("a secret")

    client = serve(fail)
    await fails(client.call(methods.ORDER, REQUEST, 20.0), OutcomeUnknown)
    caplog.clear()
    with grpc.insecure_channel(client.address) as channel, capturedLogs() as events:
        data = methods.ORDER.encode_request(REQUEST)
        call = channel.unary_unary(methods.ORDER.path).future(data, timeout=20)
        while not call.done():
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    error = call.exception()
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert [event["log_failure"].type for event in events if "log_failure" in event] == [KeyError]
    assert caplog.records == []


@pytest_twisted.ensureDeferred
async def test_garbage_is_the_callers_fault(serve: Callable[[Any], Client]) -> None:
    """Bytes that are no request are refused as an invalid argument, and never reach the
    function.
    """
    reached = []

    async def answer(request: PlaceOrder) -> Placement:
        reached.append(request)
        return Placement(1)

    client = serve(answer)
    with grpc.insecure_channel(client.address) as channel:
        call = channel.unary_unary(methods.ORDER.path).future(b"\xff\xff\xff", timeout=20)
        while not call.done():
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    assert call.exception().code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reached == []


@pytest_twisted.ensureDeferred
async def test_large_requests_are_decoded_few_at_a_time() -> None:
    """Decoding takes many times the size of a request, so only a few large requests are decoded at
    once. Small ones do not wait for them.
    """
    decoding, most, go_on = [], [], Event()

    def decode(data: bytes) -> PlaceOrder:
        if len(data) > LARGE_BYTES:
            decoding.append(data)
            most.append(len(decoding))
            go_on.wait(10)
            decoding.pop()
        return methods.ORDER.decode_request(data)

    async def answer(request: PlaceOrder) -> Placement:
        return Placement(len(request.key))

    limits = Limits(rpc_threads=8, rpc_client_calls_max=7, rpc_streams_max=0)
    address, deliver = f"127.0.0.1:{free_ports(1)}", reactor.callFromThread  # type: ignore[attr-defined]
    endpoint = Endpoint(replace(methods.ORDER, decode_request=decode), answer)
    server = Server(address, [endpoint], reactor, deliver, limits)  # type: ignore[arg-type]
    server.startService()
    try:
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary(
                methods.ORDER.path, methods.ORDER.encode_request, methods.ORDER.decode_answer
            )
            large = REQUEST._replace(key="k" * LARGE_BYTES)
            calls = [call.future(large, timeout=20) for _ in range(5)]
            while len(decoding) < LARGE_AT_ONCE_MAX:
                await deferLater(reactor, 0.01)  # type: ignore[arg-type]
            small = await deferToThread(call, REQUEST, timeout=20)
            await deferLater(reactor, 0.1)  # type: ignore[arg-type]
            go_on.set()
            answers = [await deferToThread(each.result) for each in calls]
    finally:
        go_on.set()
        server.stopService()
    assert small == Placement(1)
    assert answers == [Placement(LARGE_BYTES)] * 5
    assert max(most) == LARGE_AT_ONCE_MAX


def test_taken_port_is_refused() -> None:
    """A server does not start on a port where somebody listens: two never share one in silence."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        server = Server(address, [], reactor, reactor.callFromThread, LIMITS)  # type: ignore[attr-defined]
        with pytest.raises(CannotListen, match=address):
            server.startService()


def test_a_leader_that_no_member_can_have_named_is_not_known() -> None:
    """A leader's id that is no number, as something else at a member's address might send it,
    counts as unknown and raises no other error.
    """
    for text, leader_id in (("3", 3), (b"2", 2), ("", 0), ("three", 0)):
        metadata = ((OUTCOME, "none"), (LEADER, text))
        error = error_of(grpc.StatusCode.FAILED_PRECONDITION, "", metadata)
        assert isinstance(error, NotLeader)
        assert error.leader_id == leader_id
