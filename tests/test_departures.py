"""Callers that do not take their answers: what is kept for them, and for how long."""

import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.cluster_fixture import free_ports
from tests.http2 import Caller, message
from tests.rpc_fixture import LIMITS, REQUEST
from twstock.rpc.calls import PlaceOrder
from twstock.rpc.server import Endpoint, Server
from twstock.rpc.streams import CALLS_MAX
from twstock.rpc.wire import methods, streams


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
        deliver = reactor.callFromThread  # type: ignore[attr-defined]
        endpoint = Endpoint(methods.ORDER, self._order, internal=True)
        self.server = Server(self.address, [endpoint], reactor, deliver, LIMITS)  # type: ignore[arg-type]
        self.server.startService()
        self._callers: list[Caller] = []

    async def _order(self, request: PlaceOrder) -> Any:
        answer = Answer(request.quantity)
        self.kept.add(answer)
        return answer

    def deaf(self) -> Caller:
        """One more connection that takes no answer."""
        self._callers.append(Caller(self.address, takes=0))
        return self._callers[-1]

    def end(self) -> None:
        """All hang up."""
        for caller in self._callers:
            caller.close()
        self.server.stopService()


@pytest.fixture
def served() -> Iterator[Served]:
    """What nobody has any more is gone at once: nothing is left for the collector of garbage."""
    gc.collect()
    gc.disable()
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
    stream, request = caller.open(streams.PATH), methods.ORDER.encode_request(REQUEST)
    for number in range(calls):
        caller.send(stream, message(streams.call(number, methods.ORDER.path, request, 60.0)))


@pytest_twisted.ensureDeferred
async def test_answers_on_a_stream_end_with_it(served: Served) -> None:
    """Whatever keeps the stream itself: those that waited to be taken are for nobody."""
    caller = served.deaf()
    call_often(caller)
    await until(lambda: len(served.kept) == CALLS_MAX - 1)  # the first is with gRPC
    caller.close()
    await until(lambda: not served.kept)
