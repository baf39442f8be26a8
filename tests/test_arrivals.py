"""Calls whose request comes late, in part, or never: they keep no other call out."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import pytest_twisted
from grpc_health.v1 import health_pb2, health_pb2_grpc
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.threadpool import ThreadPool

from tests.cluster_fixture import free_ports
from tests.http2 import Caller, message
from tests.rpc_fixture import REQUEST
from twstock.config import Limits
from twstock.descriptors import OTHERS
from twstock.errors import Overloaded
from twstock.rpc import arrivals, server
from twstock.rpc.arrivals import Arrival, Room
from twstock.rpc.calls import Placement
from twstock.rpc.client import Client
from twstock.rpc.health import CHECKS_MAX, Health
from twstock.rpc.server import MEMBERS_MIN, STREAMS_MAX, WINDOW_BYTES, Endpoint, Server
from twstock.rpc.status import OUTCOME
from twstock.rpc.wire import methods, streams

LIMITS = Limits(rpc_threads=12, rpc_client_calls_max=4, rpc_streams_max=2, rpc_watches_max=3)
MEMBERS = methods.ORDER_DETAILS
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
PLACES = {
    methods.ORDER.path: LIMITS.rpc_client_calls_max,
    MEMBERS.path: MEMBERS_MIN,
    CHECK: CHECKS_MAX,
    WATCH: LIMITS.rpc_watches_max,
}


class Served:
    """A server with a method for clients, one for members, and health; and its callers."""

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{free_ports(1)}"
        self.held: list[Deferred[None]] = []
        self.reached: list[Any] = []
        deliver = reactor.callFromThread  # type: ignore[attr-defined]
        health = Health(lambda: {"": True}, reactor, LIMITS.rpc_watches_max)  # type: ignore[arg-type]
        endpoints = [
            Endpoint(methods.ORDER, self._order),
            Endpoint(MEMBERS, self._details, internal=True),
        ]
        self.server = Server(self.address, endpoints, reactor, deliver, LIMITS, health)  # type: ignore[arg-type]
        self.server.startService()
        self.threads = ThreadPool(1, 4, "test-arrivals")
        self.threads.start()
        self.client = Client(self.address, self.threads, reactor, deliver, LIMITS)  # type: ignore[arg-type]
        self.channel = grpc.insecure_channel(self.address)
        self.callers: list[Caller] = []

    async def _order(self, request: Any) -> Placement:
        self.reached.append(request)
        if request.key == "held":
            self.held.append(Deferred())
            await self.held[-1]
        return Placement(request.quantity)

    async def _details(self, number: int) -> None:
        self.reached.append(number)

    def caller(self) -> Caller:
        """One more connection."""
        self.callers.append(Caller(self.address))
        return self.callers[-1]

    async def have_ended(self, calls: int) -> None:
        """Wait until the server has ended so many of the callers' calls, long before their time
        is up.
        """
        for _ in range(2000):
            for caller in self.callers:
                caller.read()
            if sum(len(caller.ended) for caller in self.callers) >= calls:
                return
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        pytest.fail("calls keep their places")

    async def all_are_answered(self) -> None:
        """A client, a member, somebody who checks health and who watches it, and a streamed call:
        each calls in the plain way, and is answered.
        """
        order = self.channel.unary_unary(
            methods.ORDER.path, methods.ORDER.encode_request, methods.ORDER.decode_answer
        )
        assert await deferToThread(order, REQUEST, timeout=20) == Placement(REQUEST.quantity)
        details = self.channel.unary_unary(MEMBERS.path, MEMBERS.encode_request)
        assert await deferToThread(details, 7, timeout=20) == MEMBERS.encode_answer(None)
        health = health_pb2_grpc.HealthStub(self.channel)
        question = health_pb2.HealthCheckRequest()
        assert (await deferToThread(health.Check, question, timeout=20)).status == 1
        watched = health.Watch(question, timeout=20)
        assert (await deferToThread(next, watched)).status == 1
        watched.cancel()
        assert await self.client.call(methods.ORDER, REQUEST, 20) == Placement(REQUEST.quantity)

    def end(self) -> None:
        """All hang up."""
        for held in self.held:
            if not held.called:
                held.callback(None)
        for caller in self.callers:
            caller.close()
        self.client.close()
        self.channel.close()
        self.server.stopService()
        self.threads.stop()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """No call is given up because of the time: a newer one gets a place only because an older one
    gives way.
    """
    monkeypatch.setattr(arrivals, "REQUEST_MAX_S", 60.0)
    made = Served()
    yield made
    made.end()


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("begun", [b"", message(b"half", 1000)], ids=["nothing", "half"])
@pytest_twisted.ensureDeferred
async def test_a_thousand_calls_that_send_no_request_keep_nobody_out(
    served: Served, path: str, begun: bytes
) -> None:
    """Whichever method they call, and whether they send nothing or a part: newer calls get their
    places.
    """
    calls = 1000
    for _ in range(calls // STREAMS_MAX):
        caller = served.caller()
        for _ in range(STREAMS_MAX):
            caller.open(path, begun)
    await served.have_ended(calls - PLACES[path])
    await served.all_are_answered()
    assert served.reached == ([REQUEST, 7, REQUEST])


@pytest_twisted.ensureDeferred
async def test_calls_that_send_slowly_keep_nobody_out(served: Served) -> None:
    """A byte now and then is no request, even if the places of all kinds are taken."""
    opened = []
    streaming = served.caller()
    for _ in range(LIMITS.rpc_streams_max):
        streaming.open(streams.PATH)
    while served.server._stream_room._free:
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    for path, places in PLACES.items():
        caller = served.caller()
        opened += [(caller, caller.open(path, message(b"", 1000))) for _ in range(2 * places)]
    await served.have_ended(sum(PLACES.values()))
    for _ in range(5):
        for caller, call in opened:
            if call not in caller.ended:
                caller.send(call, b"x")
        await served.all_are_answered()


@pytest_twisted.ensureDeferred
async def test_a_thousand_connections_with_a_call_each_keep_nobody_out(served: Served) -> None:
    """Calls without a request give way to newer ones, however many connections they come from."""
    soft, hard = getrlimit(RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("too few open files are allowed")
    setrlimit(RLIMIT_NOFILE, (max(soft, 4096), hard))
    paths = list(PLACES)
    for number in range(1000):
        served.caller().open(paths[number % len(paths)])
    await served.have_ended(1000 - sum(PLACES.values()))
    await served.all_are_answered()


@pytest_twisted.ensureDeferred
async def test_connections_leave_a_member_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections beyond what it has file descriptors for are closed, and the others go on."""
    soft, hard = getrlimit(RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("too few open files are allowed")
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 900)
    setrlimit(RLIMIT_NOFILE, (1000, hard))
    served = Served()
    try:
        assert getrlimit(RLIMIT_NOFILE)[0] == 900 + OTHERS
        setrlimit(RLIMIT_NOFILE, (4096, hard))  # both ends of them are in this process
        await served.all_are_answered()
        for _ in range(1000):
            served.caller()
        for _ in range(1000):
            for caller in served.callers:
                caller.read()
            if (closed := sum(caller.is_closed for caller in served.callers)) >= 100:
                break
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
        assert 100 <= closed < 200
        await served.all_are_answered()
    finally:
        setrlimit(RLIMIT_NOFILE, (soft, hard))
        served.end()


@pytest_twisted.ensureDeferred
async def test_a_connection_with_many_calls_waits_by_itself(served: Served) -> None:
    """As many calls of one connection as it may have are under way; none of the others is refused
    for that.
    """
    request = methods.ORDER.encode_request(REQUEST._replace(key="k" * 100_000))
    order = served.channel.unary_unary(methods.ORDER.path)
    for _ in range(3):  # a server that miscounts does not always refuse one
        answers = [order.future(request, timeout=60) for _ in range(5 * STREAMS_MAX)]
        codes = [await deferToThread(answer.code) for answer in answers]
        assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    await no_call_is_left(served)


@pytest_twisted.ensureDeferred
async def test_a_call_that_has_its_request_keeps_its_place(served: Served) -> None:
    """Only calls without their request give way. If there are none, the new one is refused."""
    order = served.channel.unary_unary(methods.ORDER.path, methods.ORDER.encode_request)
    held = [
        order.future(REQUEST._replace(key="held"), timeout=60)
        for _ in range(LIMITS.rpc_client_calls_max)
    ]
    while len(served.held) < len(held):
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    with pytest.raises(grpc.RpcError) as caught:
        await deferToThread(order, REQUEST, timeout=20)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.details() == "too many calls under way"
    served.caller().open(methods.ORDER.path)
    await served.have_ended(1)
    for each in served.held:
        each.callback(None)
    for future in held:
        await deferToThread(future.result)
    await served.all_are_answered()


def silent() -> tuple[Iterator[bytes], Callable[[], None]]:
    """A request that does not come, until it is told to end."""
    over = threading.Event()

    def requests() -> Iterator[bytes]:
        over.wait(30)
        yield from ()

    return requests(), over.set


@pytest.mark.parametrize("path", [methods.ORDER.path, MEMBERS.path, CHECK])
@pytest_twisted.ensureDeferred
async def test_a_request_that_does_not_come_is_given_up(
    served: Served, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller is told that nothing has happened, and nothing is left of the call."""
    monkeypatch.setattr(arrivals, "REQUEST_MAX_S", 0.1)
    requests, over = silent()
    call = served.channel.stream_unary(path)
    with pytest.raises(grpc.RpcError) as caught:
        await deferToThread(call, requests, timeout=20)
    over()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert caught.value.details() == "the request did not come in time"
    assert (OUTCOME, "none") in caught.value.trailing_metadata()
    await no_call_is_left(served)


async def no_call_is_left(served: Served) -> None:
    """Wait until gRPC is done with all calls, and all places are free."""
    health: Any = served.server._health
    rooms = [*served.server._rooms.values(), health._checks, health._streams]
    states: Any = served.server._server
    while states._state.rpc_states or any(room._waiting for room in rooms):
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    while [room._free for room in rooms] != list(PLACES.values()):
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", PLACES)
@pytest_twisted.ensureDeferred
async def test_who_hangs_up_leaves_its_place(served: Served, path: str) -> None:
    """All places are free again, whether there was one call, or so many that most gave way."""
    for calls in (1, 3 * PLACES[path]):
        caller = served.caller()
        for _ in range(calls):
            caller.open(path)
        served.callers.clear()
        served.callers.append(caller)
        await served.have_ended(max(0, calls - PLACES[path]))
        caller.close()
        served.callers.clear()
        await no_call_is_left(served)


@pytest.mark.parametrize("path", PLACES)
@pytest_twisted.ensureDeferred
async def test_a_call_without_a_request_is_told_so(served: Served, path: str) -> None:
    """The error is gRPC's own."""
    call = served.channel.stream_stream(path)
    with pytest.raises(grpc.RpcError) as caught:
        await deferToThread(lambda: list(call(iter(()), timeout=20)))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.details() == f'"{path}" requires exactly one request message.'
    await no_call_is_left(served)


@pytest.mark.parametrize(
    ("path", "code", "details"),
    [
        (methods.ORDER.path, "INVALID_ARGUMENT", ""),
        (CHECK, "INTERNAL", "Exception deserializing request!"),
        (WATCH, "INTERNAL", "Exception deserializing request!"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_request_that_cannot_be_read_is_refused(
    served: Served, path: str, code: str, details: str
) -> None:
    """The status is that of a server without limits on requests that do not come."""
    call = served.channel.stream_stream(path)
    with pytest.raises(grpc.RpcError) as caught:
        await deferToThread(lambda: list(call(iter([b"\xff\xff"]), timeout=20)))
    assert caught.value.code().name == code
    assert details in caught.value.details()
    await no_call_is_left(served)


@pytest_twisted.ensureDeferred
async def test_a_request_that_is_too_large_is_refused_by_grpc(served: Served) -> None:
    """It is not read to its end."""
    call = served.channel.unary_unary(methods.ORDER.path)
    with pytest.raises(grpc.RpcError) as caught:
        await deferToThread(call, bytes(LIMITS.message_bytes_max + 1), timeout=20)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in caught.value.details()
    await no_call_is_left(served)


@pytest_twisted.ensureDeferred
async def test_what_is_sent_ahead_stays_little(served: Served) -> None:
    """Of a call that nobody has read yet, no more than one window is in memory, however fast the
    connection is.
    """
    large = message(methods.ORDER.encode_request(REQUEST._replace(key="k" * 3_000_000)))
    caller = served.caller()
    for calls in range(1, 21):
        call, at = caller.open(methods.ORDER.path), 0
        while call not in caller.ended:
            caller.read()
            size = min(16_384, caller.room(call), len(large) - at)
            if size:
                caller.send(call, large[at : at + size])
                at += size
            else:
                await deferLater(reactor, 0.001)  # type: ignore[arg-type]
        assert len(caller.ended) == calls
    assert caller.window == WINDOW_BYTES


def places(room: Room) -> int:
    """How many places are free."""
    taken = 0
    with suppress(Overloaded):
        while True:
            room.enter()
            taken += 1
    for _ in range(taken):
        room.leave()
    return taken


class Waiting:
    """A call without its request, as a room knows it."""

    gave_way = False
    looked_up = 0

    def look_up(self) -> None:
        """It is told of something."""
        self.looked_up += 1


def test_who_waits_longest_gives_way_once() -> None:
    """To a newer call. A call whose request has come does not, and no place is lost or made."""
    room, calls = Room(3), [Waiting() for _ in range(5)]
    for call in calls[:3]:
        room.enter(call)  # type: ignore[arg-type]
    room.begin(calls[1])  # type: ignore[arg-type]
    for call in calls[3:]:
        room.enter(call)  # type: ignore[arg-type]
    assert [call.gave_way for call in calls] == [True, False, True, False, False]
    assert [call.looked_up for call in calls] == [1, 0, 1, 0, 0]
    with pytest.raises(Overloaded):
        room.begin(calls[0])  # type: ignore[arg-type]
    for call in calls[3:]:
        room.begin(call)  # type: ignore[arg-type]
    with pytest.raises(Overloaded, match="too many calls under way"):
        room.enter()
    for call in calls:
        room.leave(call)  # type: ignore[arg-type]
    assert places(room) == 3


def test_without_grpcs_insides_a_request_is_waited_for_as_ever() -> None:
    """If another version of gRPC has other internals, the request is read from its iterator."""
    room, context = Room(1), SimpleNamespace()
    for _ in range(2):
        with Arrival(room, "/a/b", iter([b"request"]), context) as arrival:
            assert arrival.request(None) == b"request"
            with pytest.raises(Overloaded):
                room.enter()
