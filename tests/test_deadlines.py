"""A caller's deadline on its way into a server, and to the order leader: what is late is not
begun.
"""

from math import inf

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.threadpool import ThreadPool

from tests.cluster_fixture import free_ports
from tests.rpc_fixture import LIMITS, REQUEST, WITHOUT_STREAMS, fails
from tests.test_leading import Desk, order
from twstock.config import Limits
from twstock.errors import OutcomeUnknown, Unavailable
from twstock.rpc.calls import Placement
from twstock.rpc.client import Client
from twstock.rpc.server import Endpoint, Server
from twstock.rpc.streams import WAIT_MAX_S, AnswerStream, StreamEndpoint
from twstock.rpc.wire import methods, streams


class Orders:
    """The function behind Order; it keeps the deadlines that it was told."""

    def __init__(self):
        self.begun = []

    async def answer(self, request, until):
        """Answer at once."""
        self.begun.append(until)
        return Placement(1)


@pytest.fixture(params=[LIMITS, WITHOUT_STREAMS], ids=["stream", "calls"])
def wire(request):
    """A client, and a server whose reactor gets to its calls ``lag_s`` seconds late."""
    orders, threads = Orders(), ThreadPool(1, 4, "test-deadlines")
    threads.start()
    orders.lag_s = 0.0
    orders.reached = Deferred()

    def late(call, *arguments):
        lag_s = orders.lag_s
        reactor.callFromThread(reactor.callLater, lag_s, reach, lag_s, call, *arguments)

    def reach(lag_s, call, *arguments):
        call(*arguments)
        if lag_s and not orders.reached.called:
            orders.reached.callback(None)

    address = f"127.0.0.1:{free_ports(1)}"
    endpoint = Endpoint(methods.ORDER, orders.answer, timed=True)
    server = Server(address, [endpoint], reactor, late, request.param)
    server.startService()
    orders.client = Client(address, threads, reactor, reactor.callFromThread, LIMITS)
    yield orders
    orders.client.close()
    server.stopService()
    threads.stop()


@pytest_twisted.ensureDeferred
async def test_a_call_that_is_late_is_not_begun(wire):
    """The server was busy until its caller had given up; the next call is answered as ever."""
    await wire.client.call(methods.ORDER, REQUEST, 20.0)
    # The deadline is long enough for the call to be sent, on any machine.
    wire.lag_s = 1.5
    await fails(wire.client.call(methods.ORDER, REQUEST, 1.0), OutcomeUnknown)
    await wire.reached
    assert len(wire.begun) == 1
    wire.lag_s = 0.0
    assert await wire.client.call(methods.ORDER, REQUEST, 20.0) == Placement(1)
    assert len(wire.begun) == 2


@pytest_twisted.ensureDeferred
async def test_the_function_is_told_the_callers_deadline(wire):
    """In seconds of its own clock, and never later than the caller gives up."""
    before = reactor.seconds()
    await wire.client.call(methods.ORDER, REQUEST, 30.0)
    assert before < wire.begun[0] <= reactor.seconds() + 30.0


@pytest.mark.parametrize(("left_s", "waits_s"), [(0.5, 0.5), (60.0, WAIT_MAX_S), (inf, WAIT_MAX_S)])
def test_a_streams_waiting_is_bounded_by_what_is_left(left_s, waits_s):
    """By the caller's deadline or the server's own, whichever is first. A caller that tells none
    gets the server's.
    """
    clock, answers = Clock(), []
    endpoint = StreamEndpoint(
        methods.ORDER, lambda *_: None, lambda: None, lambda: answers.append(clock.seconds())
    )
    table = {methods.ORDER.path: endpoint}
    stream = AnswerStream(table, clock, lambda call, *arguments: call(*arguments), Limits())
    request = methods.ORDER.encode_request(REQUEST)
    data = streams.call(1, methods.ORDER.path, request, 1.0 if left_s == inf else left_s)
    if left_s == inf:  # field 5 is the last one: leave it out
        data = data[: data.rindex(b"\x28")]
        assert streams.to_call(data)[3] == inf
    stream._came(data)
    clock.advance(waits_s - 0.01)
    assert answers == []
    clock.advance(0.02)
    assert len(answers) == 1


@pytest.mark.parametrize("left_s", [0.0001, 1.0, 1e9])
def test_what_is_left_arrives_in_milliseconds(left_s):
    """A fraction of one is not rounded to nothing, and a very long time does not overflow."""
    assert left_s < streams.to_call(streams.call(1, "/a/b", b"", left_s))[3] < left_s + 0.002


def test_an_order_that_nobody_waits_for_any_more_does_not_begin():
    """It waited behind a batch until its caller gave up: nothing has happened, and nothing will."""
    desk = Desk()
    leading = desk.lead(1)
    desk.catalog.held = []
    first, second, third = [], [], []
    leading.place(order("a"), first.append, 10.0)
    leading.go()
    leading.place(order("b"), second.append, 1.0)
    leading.place(order("c"), third.append, 10.0)
    desk.clock.advance(1.5)
    gate, desk.catalog.held = desk.catalog.held[0], None
    gate.callback(None)
    assert [result.number for result in (*first, *third)] == [1, 2]
    assert [type(error) for error in second] == [Unavailable]
    assert [[o.key for o in batch.orders] for batch in desk.catalog.batches] == [["a"], ["c"]]
    again = []
    leading.place(order("b"), again.append, 10.0)
    leading.go()
    assert [result.number for result in again] == [3]


def test_whoever_joins_an_order_keeps_it_alive():
    """It is begun as long as any of those who wait for it still does."""
    desk = Desk()
    leading = desk.lead(1)
    desk.catalog.held = []
    leading.place(order("a"), lambda _: None)
    leading.go()
    told = []
    for until in (1.0, 10.0, 0.5):
        leading.place(order("b"), told.append, until)
    desk.clock.advance(1.5)
    gate, desk.catalog.held = desk.catalog.held[0], None
    gate.callback(None)
    assert [result.number for result in told] == [2, 2, 2]
