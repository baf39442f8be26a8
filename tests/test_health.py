"""The health checks and reflection of gRPC, used through the clients of their own libraries."""

import threading
from types import SimpleNamespace

import grpc
import pytest
import pytest_twisted
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from tests.cluster_fixture import free_ports
from twstock.config import Limits
from twstock.replication.assembly import serving
from twstock.rpc import health
from twstock.rpc.calls import Placement
from twstock.rpc.health import Health
from twstock.rpc.server import Endpoint, Server
from twstock.rpc.wire import methods

LIMITS = Limits(rpc_threads=2, rpc_client_calls_max=1, rpc_streams_max=0, rpc_watches_max=2)
CHECK = "/grpc.health.v1.Health/Check"
REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
NAMES = {"SERVING": 1, "NOT_SERVING": 2, "SERVICE_UNKNOWN": 3}


async def place(_request):
    """Some answer."""
    return Placement(1)


@pytest.fixture
def serve():
    """A server whose health is what ``state`` says, and a channel to it."""
    state = {"": True, "twstock.Order": False}
    address = f"127.0.0.1:{free_ports(1)}"
    server = Server(
        address,
        [Endpoint(methods.ORDER, place)],
        reactor,
        reactor.callFromThread,
        LIMITS,
        Health(lambda: dict(state), reactor, LIMITS.rpc_watches_max),
    )
    server.startService()
    channel = grpc.insecure_channel(address)
    yield SimpleNamespace(state=state, channel=channel, server=server)
    channel.close()
    if server.running:
        server.stopService()


def asks(function, *arguments):
    """Run what blocks in a thread of its own, as a client in another process would."""
    return deferToThread(function, *arguments)


def check(channel, service):
    """The name of a service's status."""
    request = health_pb2.HealthCheckRequest(service=service)
    answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=10)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


@pytest_twisted.ensureDeferred
async def test_each_service_has_a_health_of_its_own(serve):
    """The process serves, one service does not, and a third does not exist."""
    assert await asks(check, serve.channel, "") == "SERVING"
    assert await asks(check, serve.channel, "twstock.Order") == "NOT_SERVING"
    with pytest.raises(grpc.RpcError) as caught:
        await asks(check, serve.channel, "twstock.Nothing")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def watch(channel, seen, done):
    """Watch the order service until the stream ends."""
    request = health_pb2.HealthCheckRequest(service="twstock.Order")
    stream = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=30)
    try:
        for answer in stream:
            seen.append(answer.status)
            done(stream, len(seen))
    except grpc.RpcError as error:
        return error.code()
    return None


@pytest_twisted.ensureDeferred
async def test_who_watches_is_told_of_every_change_and_of_the_end(serve):
    """Not serving, serving, and not serving again when the server stops."""
    seen, first, second = [], threading.Event(), threading.Event()

    def done(_stream, count):
        (first if count == 1 else second).set()

    watching = asks(watch, serve.channel, seen, done)
    await asks(first.wait, 10)
    serve.state["twstock.Order"] = True
    await asks(second.wait, 10)
    serve.server.stopService()
    await watching
    assert seen == [2, 1, 2]


@pytest_twisted.ensureDeferred
async def test_streams_have_threads_of_their_own_and_no_more(serve):
    """One stream more is refused, calls go on beside them, and a stream that ends makes room."""
    streams, began, watching = {}, threading.Semaphore(0), []
    for number in range(LIMITS.rpc_watches_max):

        def keep(stream, _count, number=number):
            streams[number] = stream
            began.release()

        watching.append(asks(watch, serve.channel, [], keep))
    for _ in watching:
        await asks(began.acquire)
    refused = await asks(watch, serve.channel, [], lambda *_: None)
    assert refused is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await asks(check, serve.channel, "") == "SERVING"
    streams[0].cancel()
    assert await watching[0] is grpc.StatusCode.CANCELLED
    for _ in range(100):
        again = asks(watch, serve.channel, [], lambda stream, _: stream.cancel())
        if await again is grpc.StatusCode.CANCELLED:
            break
    else:
        pytest.fail("no room was made")
    streams[1].cancel()
    await watching[1]


def listed(channel):
    """The services that a tool finds, and how it would call one."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    order = pool.FindServiceByName("twstock.Order").methods_by_name["Order"]
    return set(database.get_services()), order.input_type.full_name


@pytest_twisted.ensureDeferred
async def test_a_tool_finds_out_how_to_call_everything(serve):
    """As ``grpcurl list`` and ``grpcurl describe`` do, by reflection."""
    services, request = await asks(listed, serve.channel)
    assert services == {
        "twstock.Order",
        "twstock.Stream",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert request == "twstock.OrderRequest"


@pytest_twisted.ensureDeferred
async def test_a_question_that_is_none_is_not_logged(serve, caplog):
    """A client may send bad requests for ever."""
    for path in (REFLECT, CHECK):
        call = serve.channel.stream_stream(path)
        with pytest.raises(grpc.RpcError) as caught:
            await asks(lambda call=call: list(call(iter([b"\xff\xff"]), timeout=10)))
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert caught.value.details() == "Exception deserializing request!"
    assert caplog.records == []


@pytest_twisted.ensureDeferred
async def test_without_the_libraries_a_server_serves_its_own_calls(monkeypatch):
    """If the optional packages are missing, health and reflection are unimplemented, and nothing
    fails.
    """
    monkeypatch.setattr(health, "_library", lambda _: None)
    address = f"127.0.0.1:{free_ports(1)}"
    own = Health(dict, reactor, 2)
    endpoints = [Endpoint(methods.ORDER, place)]
    server = Server(address, endpoints, reactor, reactor.callFromThread, LIMITS, own)
    server.startService()
    with grpc.insecure_channel(address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            await asks(check, channel, "")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        with pytest.raises(grpc.RpcError):
            await asks(lambda: list(stub.ServerReflectionInfo(ask, timeout=10)))
    server.stopService()


class Member:
    """A member in some state."""

    def __init__(self, role, leader_id=0, ready=False, giving_way=False):
        self._status = SimpleNamespace(role=role, leader_id=leader_id, ready=ready)
        self._giving_way = giving_way

    def status(self, why_not_serving):
        """What it tells of itself."""
        assert why_not_serving == "why"
        return self._status

    def is_giving_way(self):
        """Whether it hands over."""
        return self._giving_way


@pytest.mark.parametrize(
    ("member", "process", "order", "catalog"),
    [
        (Member("joining"), False, False, False),
        (Member("candidate"), False, False, False),
        (Member("follower"), False, False, False),
        (Member("follower", 3), True, True, False),
        (Member("leader", 1), True, False, False),
        (Member("leader", 1, ready=True), True, True, True),
        (Member("leader", 1, ready=True, giving_way=True), True, False, False),
    ],
)
def test_a_follower_serves_orders_and_only_a_ready_leader_the_catalog(
    member, process, order, catalog
):
    """A member without a leader is not healthy. One that is handing over does not serve, so that
    clients go elsewhere.
    """
    assert serving("order", member, lambda: "why")() == {"": process, "twstock.Order": order}
    assert serving("catalog", member, lambda: "why")() == {
        "": process,
        "twstock.Catalog": catalog,
    }
