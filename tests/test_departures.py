"""Callers that do not take their answers: how much is kept for them, and for how long."""

import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from tests.cluster_fixture import free_ports
from tests.http2 import Caller, message
from tests.rpc_fixture import LIMITS, REQUEST
from twstock.rpc import arrivals, server
from twstock.rpc import streams as rpc_streams
from twstock.rpc.calls import PlaceOrder
from twstock.rpc.departures import CALL_BYTES, Departures
from twstock.rpc.server import ANSWERS_MAX, MEMBERS_MIN, Endpoint, Server
from twstock.rpc.streams import CALLS_MAX, READY_MAX
from twstock.rpc.wire import methods, streams

LARGE = "x" * 1_000_000
SMALL = REQUEST._replace(name="small")


@dataclass(eq=False)
class Answer:
    """A Placement of which it can be seen whether somebody still has it."""

    number: int = 1
    refusal: str = ""
    replayed: bool = False
    version: int = 0


class Served:
    """A server of Order, for members as for clients, and those who call it and take nothing."""

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{free_ports(1)}"
        self.kept: weakref.WeakSet[Answer] = weakref.WeakSet()
        self.asked = 0
        deliver = reactor.callFromThread  # type: ignore[attr-defined]
        endpoint = Endpoint(methods.ORDER, self._order, internal=True)
        self.server = Server(self.address, [endpoint], reactor, deliver, LIMITS)  # type: ignore[arg-type]
        self.server.startService()
        self._callers: list[Caller] = []

    async def _order(self, request: PlaceOrder) -> Any:
        self.asked += 1
        answer = Answer(request.quantity, refusal="" if request.name == "small" else LARGE)
        self.kept.add(answer)
        return answer

    def deaf(self) -> Caller:
        """One more connection, which takes no answer."""
        return self._connected(Caller(self.address, takes=0))

    def hearing(self) -> Caller:
        """One more connection, which does."""
        return self._connected(Caller(self.address))

    def _connected(self, caller: Caller) -> Caller:
        self._callers.append(caller)
        return caller

    def end(self) -> None:
        """All hang up."""
        for caller in self._callers:
            caller.close()
        self.server.stopService()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The garbage collector is off, so that an answer is gone as soon as nothing refers to it."""
    gc.collect()
    gc.disable()
    monkeypatch.setattr(server, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(rpc_streams, "NOT_TAKEN_S", 60.0)
    made = Served()
    yield made
    made.end()
    gc.enable()


async def until(condition: Callable[[], Any]) -> None:
    """Wait for it, long enough."""
    for _ in range(2000):
        if condition():
            return
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    pytest.fail("it does not come to that")


def call_often(caller: Caller, calls: int = CALLS_MAX) -> None:
    """Many calls on a stream."""
    stream, request = caller.open(streams.PATH), methods.ORDER.encode_request(SMALL)
    for number in range(calls):
        caller.send(stream, message(streams.call(number, methods.ORDER.path, request, 60.0)))


@pytest_twisted.ensureDeferred
async def test_answers_on_a_stream_end_with_it(served: Served) -> None:
    """When the caller hangs up, the answers that waited to be taken are dropped, even if something
    still holds the stream.
    """
    caller = served.deaf()
    call_often(caller)
    await until(lambda: len(served.kept) == CALLS_MAX - 1)  # the first is with gRPC
    caller.close()
    await until(lambda: not served.kept)


@pytest_twisted.ensureDeferred
async def test_what_waits_on_a_stream_stays_little(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers may be large, so while some are ready and none is taken, further calls are
    refused.
    """
    monkeypatch.setattr(rpc_streams, "NOT_TAKEN_S", 0.0)
    call_often(served.deaf())
    await until(lambda: served.server._streams)
    (stream,) = served.server._streams.values()
    await until(lambda: len(stream._outbox) == CALLS_MAX - 1)
    assert served.asked == READY_MAX + 1
    assert len(served.kept) == READY_MAX


@pytest_twisted.ensureDeferred
async def test_a_stream_whose_answers_are_not_taken_ends(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long its caller stays connected. A stream whose answers have all been taken goes
    on.
    """
    reader, caller = served.hearing(), served.deaf()
    call_often(reader, 1)
    await until(lambda: served.asked == 1 and not served.kept)
    call_often(caller)
    await until(lambda: len(served.kept) == CALLS_MAX - 1)
    assert len(served.server._streams) == 2
    assert not ended(caller)
    monkeypatch.setattr(server, "TAKE_MAX_S", 0.05)
    await until(lambda: ended(caller))
    await until(lambda: not served.kept)
    assert len(served.server._streams) == 1
    assert not ended(reader)


@pytest_twisted.ensureDeferred
async def test_silent_streams_keep_no_member_out(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a new stream, the one that has been silent longest gives way; but none on which a call is
    under way, and none that has just been opened.
    """
    silent, busy = served.deaf(), served.deaf()
    silent.open(streams.PATH)
    call_often(busy, 2)
    await until(lambda: len(served.kept) == 1)
    await until(lambda: len(served.server._streams) == LIMITS.rpc_streams_max == 2)
    refused = served.hearing()
    call_often(refused, 1)
    await until(lambda: ended(refused))
    assert not ended(silent)
    monkeypatch.setattr(arrivals, "SILENT_S", 0.001)
    for _ in range(3):
        asked = served.asked
        call_often(served.hearing(), 1)
        await until(lambda asked=asked: served.asked > asked)  # type: ignore[misc]
        await until(lambda: max(s.silent_s() for s in served.server._streams.values()) > 0.001)
    assert ended(silent)
    assert not ended(busy)
    assert len(served.server._streams) == 2


@pytest_twisted.ensureDeferred
async def test_answers_that_are_not_taken_fill_no_memory(served: Served) -> None:
    """The answers that have waited longest give way, whichever connection they are for. When the
    callers have hung up, nothing is left.
    """
    departures = served.server._departures
    empty = departures._free
    assert empty == ANSWERS_MAX * LIMITS.message_bytes_max
    departures._free = room = 8 * (len(LARGE) + 2 * CALL_BYTES)
    callers = [served.deaf() for _ in range(4)]
    for caller in callers:
        for _ in range(5):
            call, asked = caller.open(methods.ORDER.path), served.asked
            caller.send(call, message(methods.ORDER.encode_request(REQUEST)))
            caller.end(call)
            await until(lambda asked=asked: served.asked > asked)  # type: ignore[misc]
    await until(lambda: sum(map(ended, callers)) == 12)
    assert [ended(caller) for caller in callers] == [5, 5, 2, 0]
    assert served.server._rooms[True]._free == MEMBERS_MIN
    with grpc.insecure_channel(served.address) as channel:
        for _ in range(20):
            order = channel.unary_unary(methods.ORDER.path)
            answer = await deferToThread(order, methods.ORDER.encode_request(REQUEST))
            assert len(answer) > len(LARGE)
    for caller in callers:
        caller.close()
    await until(lambda: departures._free == room and not departures._waiting)


class Call:
    """A call of gRPC, as a context shows it."""

    def __init__(self, is_over: bool = False) -> None:
        self.over: Callable[[], None] | None = None
        self.is_cancelled = False
        self._is_over = is_over

    def add_callback(self, over: Callable[[], None]) -> bool:
        """To be called when it is over."""
        self.over = over
        return not self._is_over

    def cancel(self) -> None:
        """It is not wanted any more."""
        self.is_cancelled = True


def test_room_for_answers_is_neither_lost_nor_made() -> None:
    """By calls that are over before they are counted, that take their answers, or that give way. An
    answer that is larger than all the room gets it alone.
    """
    departures, calls = Departures(3 * CALL_BYTES), [Call() for _ in range(5)]
    departures.add(Call(is_over=True), 0)
    for call in calls[:3]:
        departures.add(call, 0)
    calls[1].over()  # type: ignore[misc]
    departures.add(calls[3], 0)
    assert not any(call.is_cancelled for call in calls)
    departures.add(calls[4], 3 * CALL_BYTES)
    assert [call.is_cancelled for call in calls] == [True, False, True, True, False]
    for call in calls:
        call.over()  # type: ignore[misc]
    assert departures._free == 3 * CALL_BYTES


def ended(caller: Caller) -> int:
    """How many of a caller's calls the server has ended."""
    caller.read()
    return len(caller.ended)
