"""The feed of the typed client: events in their sequence, resumed, bounded, and ended."""

import json
from decimal import Decimal

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from tests.front_ends import REFUSE, World, error
from twstock.client import (
    BadAnswer,
    Changes,
    InvalidRequest,
    Leader,
    Reset,
    Side,
    Stocks,
    Trades,
)
from twstock.client.feed import SILENCE_S


def traded(number):
    """An executed order as the feed shows it."""
    fields = {"order_num": number, "name": "AAPL", "type": "sell", "quantity": 2}
    return fields | {"price": 15.9, "version": number, "time_ms": 8}


STOCK = {"name": "A", "price": 1.5, "quantity": 1, "volume": 2, "version": 3, "halted": True}
CHANGE = {"change_number": 1, "kind": "add", "name": "A", "price": 1.5, "quantity": 9, "version": 0}
CHANGE |= {"timestamp_ms": 8}


@pytest.fixture
def world():
    """One front-end, and a client of it."""
    return World()


@pytest.fixture
def following(world):
    """A feed that is connected."""
    return follow(world)


def follow(world, **options):
    """Subscribe; the connection is made."""
    feed = world.client.events(**options)
    feed.waiting = world.begin(feed.__anext__())
    return feed


def following_event(world, feed):
    """The event that is waited for, or the next one; then the next is waited for."""
    world.pump()
    found = world.finish(feed.waiting)
    feed.waiting = world.begin(feed.__anext__())
    return found


def last_ids(world):
    """What each subscription said that it had seen."""
    return [
        request.getHeader("Last-Event-ID") for front in world.fronts for request in front.requests
    ]


def test_every_event_has_a_type(world, following):
    """Trades, stocks, changes, leaders and a reset, each with its cursor."""
    front = world.front
    front.tell("leader", {"group": "order", "leader_id": 3, "term": 7}, "0.0.7.1")
    front.tell("leader", {"group": "catalog", "leader_id": None, "term": 1}, "0.0.7.1")
    front.tell("trades", {"trades": [traded(1), traded(2)]}, "2.0.7.1")
    front.tell("stocks", {"stocks": [STOCK]}, "2.0.7.1")
    front.tell("weather", {"sun": True}, "2.0.7.1")
    front.tell("changes", {"changes": [CHANGE]}, "2.1.7.1")
    front.tell("reset", {}, "9.9.9.9")
    found = [following_event(world, following) for _ in range(6)]
    assert found[0] == Leader("0.0.7.1", "order", 3, 7)
    assert found[1] == Leader("0.0.7.1", "catalog", None, 1)
    assert isinstance(found[2], Trades)
    assert found[2].orders[1] == (2, "AAPL", Side.SELL, 2, Decimal("15.9"), 2, 8)
    assert found[3] == Stocks("2.0.7.1", (("A", Decimal("1.5"), 1, 2, 3, True),))
    assert found[4] == Changes("2.1.7.1", ((1, "add", "A", Decimal("1.5"), 9, 0, 8),))
    assert found[5] == Reset("9.9.9.9")
    assert following.cursor == "9.9.9.9"


def test_names_are_percent_encoded_one_by_one(world):
    """So that a comma in a name differs from one between two names."""
    world.begin(world.client.events(["A,B", "C/D &"]).__anext__())
    world.begin(world.client.events("ÜX").__anext__())
    world.begin(world.client.events().__anext__())
    paths = [request.uri for request in world.front.requests]
    assert paths == [b"/events?names=A%2CB,C%2FD%20%26", b"/events?names=%C3%9CX", b"/events"]


@pytest.mark.parametrize("names", ["", [""], ["AAPL", ""], "\udc80"])
def test_a_name_that_is_none_is_refused(world, names):
    """An empty name would stand for all stocks, and not every text can be sent."""
    with pytest.raises(InvalidRequest, match="name"):
        world.client.events(names)


def test_a_lost_connection_goes_on_after_the_last_whole_event(world, following):
    """The server sends an event again that was cut off, and none that was received."""
    world.front.tell("trades", {"trades": [traded(1)]}, "1.0.1.1")
    world.front.streams[-1].write(b"event: trades\nid: 2.0.1.1\ndata: {")
    assert following_event(world, following).orders[0].number == 1
    world.front.hang_up()
    world.pump()
    world.clock.advance(0.05)
    world.pump()
    assert last_ids(world) == [None, "1.0.1.1"]
    world.front.tell("trades", {"trades": [traded(2)]}, "2.0.1.1")
    assert following_event(world, following).orders[0].number == 2
    assert following.cursor == "2.0.1.1"


def test_what_was_received_is_given_out_before_the_connection_is_made_again(world, following):
    """The public cursor is that of the last event that was given out."""
    for number in (1, 2, 3):
        world.front.tell("trades", {"trades": [traded(number)]}, f"{number}.0.1.1")
    world.front.hang_up()
    world.pump()
    assert world.finish(following.waiting).orders[0].number == 1
    assert following.cursor == "1.0.1.1"
    assert len(world.front.requests) == 1
    for number in (2, 3):
        assert world.run(following.__anext__()).orders[0].number == number
    following.waiting = world.begin(following.__anext__())
    world.clock.advance(0.05)
    world.pump()
    assert last_ids(world) == [None, "3.0.1.1"]


def test_a_feed_can_begin_at_a_cursor(world):
    """One that was kept on disk, for example."""
    feed = follow(world, after="5.1.2.1")
    assert last_ids(world) == ["5.1.2.1"]
    assert feed.cursor == "5.1.2.1"


def test_the_next_front_end_takes_over():
    """When the connection to one ends, the next one is asked at once, from the last event on."""
    world = World(2)
    feed = follow(world)
    world.fronts[0].tell("trades", {"trades": [traded(1)]}, "1.0.1.1")
    following_event(world, feed)
    world.fronts[0].hang_up()
    world.pump()
    assert world.asked == [(0.0, 1), (0.0, 2)]
    assert world.fronts[1].requests[0].getHeader("Last-Event-ID") == "1.0.1.1"


def test_pauses_grow_while_nothing_comes_and_shrink_when_something_does(world):
    """A server in trouble is not asked all the time, and after a short loss the connection is made
    again at once.
    """
    world.front.replies = [REFUSE] * 8
    feed = follow(world)
    while not world.front.streams:
        world.clock.advance(0.05)
        world.pump()
    times = [at for at, _ in world.asked]
    assert times[-1] - times[-2] > 4 * (times[1] - times[0])
    world.front.tell("trades", {"trades": [traded(1)]}, "1.0.1.1")
    following_event(world, feed)
    before = world.clock.seconds()
    world.front.hang_up()
    world.pump()
    while len(world.front.streams) < 2:
        world.clock.advance(0.01)
        world.pump()
    assert world.clock.seconds() - before <= 0.06


def test_the_server_says_how_long_to_wait(world, following):
    """By ``retry``, in milliseconds, and by Retry-After when it is too busy."""
    world.front.streams[-1].write(b"retry: 4000\n\n")
    world.front.tell("trades", {"trades": [traded(1)]}, "1.0.1.1")
    following_event(world, following)
    world.front.replies = [(503, error(503, "too many subscribers"), {"Retry-After": "7"})]
    world.front.hang_up()
    for _ in range(300):
        world.clock.advance(0.05)
        world.pump()
    (_, first), (_, second) = [(n, at) for at, n in world.asked[1:]]
    assert 2.0 <= first <= 4.1
    assert 6.99 <= second - first <= 7.1


def test_a_silent_connection_is_given_up(world, following):
    """A keep-alive counts as a sign of life; when nothing comes at all, nobody is there any
    more.
    """
    for _ in range(3):
        world.clock.advance(SILENCE_S - 1)
        world.front.streams[-1].write(b":\n\n")
        world.pump()
    assert len(world.asked) == 1
    world.clock.advance(SILENCE_S + 0.1)
    world.pump()
    world.clock.advance(0.1)
    world.pump()
    assert len(world.asked) == 2
    assert following.waiting == []


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ((400, error(400, "Last-Event-ID: expected four numbers")), InvalidRequest),
        ((404, error(404, "no such path")), BadAnswer),
        ((200, {"data": []}), BadAnswer),
    ],
)
def test_what_is_no_feed_is_an_error(world, reply, kind):
    """It is not asked for again, which would change nothing."""
    world.front.replies = [reply]
    feed = world.client.events(after="nonsense")
    with pytest.raises(kind):
        world.run(feed.__anext__())


@pytest.mark.parametrize(
    "text",
    [
        b"event: trades\ndata: {\n\n",
        b'event: trades\ndata: {"trades": [{}]}\n\n',
        b"event: trades\ndata: " + b"[" * 100_000 + b"\n\n",
        b"event: trades\ndata: 1e99999999999999999999\n\n",
    ],
    ids=["half", "empty", "nested", "number"],
)
def test_an_event_that_makes_no_sense_ends_the_feed(world, following, text):
    """Going on would lose it. The cursor stays before it."""
    world.front.tell("trades", {"trades": [traded(1)]}, "1.0.1.1")
    world.front.streams[-1].write(b"id: 2.0.1.1\n" + text)
    following_event(world, following)
    with pytest.raises(BadAnswer, match="trades"):
        world.finish(following.waiting)
    assert following.cursor == "1.0.1.1"
    with pytest.raises(StopAsyncIteration):
        world.run(following.__anext__())


# --- ending ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["connected", "connecting", "pausing", "new"])
def test_closing_tells_whoever_waits_that_nothing_comes(world, state):
    """In every state the wait ends, and no connection and no timer is left."""
    world.front.replies = {"connecting": ["nothing is answered"], "pausing": [REFUSE] * 9}.get(
        state, []
    )
    feed = world.client.events()
    results = [] if state == "new" else world.begin(feed.__anext__())
    assert results == []
    world.run(feed.aclose())
    world.run(feed.aclose())
    world.pump()
    assert [result.type for result in results] == [] if state == "new" else [StopAsyncIteration]
    with pytest.raises(StopAsyncIteration):
        world.run(feed.__anext__())
    assert world.clock.getDelayedCalls() == []
    if state == "connected":
        assert world.front.streams[-1].transport.disconnected


def test_closing_the_client_ends_its_feeds(world, following):
    """A loop over events ends by itself."""

    async def loop():
        async with world.client.events() as events:
            return [event async for event in events]

    results = world.begin(loop())
    world.run(world.client.close())
    assert world.finish(results) == []
    with pytest.raises(StopAsyncIteration):
        world.finish(following.waiting)
    assert world.client._feeds == set()


def test_cancelling_whoever_waits_loses_nothing(world):
    """The next event goes to whoever waits next. Only one may wait at a time."""
    feed = world.client.events()
    results = []
    waiting = Deferred.fromCoroutine(feed.__anext__()).addBoth(results.append)
    world.pump()
    with pytest.raises(RuntimeError, match="waits"):
        world.run(feed.__anext__())
    waiting.cancel()
    assert results[0].check(CancelledError)
    world.front.tell("reset", {}, "1.0.1.1")
    world.pump()
    assert world.run(feed.__anext__()) == Reset("1.0.1.1")
    assert len(world.asked) == 1


# --- a slow reader ---------------------------------------------------------------------------


class Flood:
    """A front-end whose feed has more events than anybody reads: each is sent as soon as the
    connection is not paused. It is treq, the response and its transport at once.
    """

    code = 200
    headers = Headers({"Content-Type": ["text/event-stream"]})

    def __init__(self, events, each=1):
        self.events = events
        self.each = each
        self.sent = 0
        self.paused = self.lost = False

    def request(self, *_, **__):
        """As treq."""
        return succeed(self)

    def deliverBody(self, protocol):
        """As a response."""
        self.protocol = protocol
        protocol.makeConnection(self)
        self.resumeProducing()

    def pauseProducing(self):
        """As a transport."""
        self.paused = True

    def resumeProducing(self):
        """Send until paused."""
        self.paused = False
        while not self.paused and not self.lost and self.sent < self.events:
            numbers = range(self.sent + 1, self.sent + 1 + self.each)
            self.sent += self.each
            self.protocol.dataReceived(b"".join(map(encoded, numbers)))

    def loseConnection(self):
        """The end."""
        self.lost = True
        self.protocol.connectionLost(Failure(ConnectionDone()))


def encoded(number):
    """A trade as it goes over the connection."""
    data = json.dumps({"trades": [traded(number)]})
    return f"event: trades\nid: {number}.0.1.1\ndata: {data}\n\n".encode()


@pytest.mark.parametrize(("each", "bound"), [(1, 20), (50, 20 + 50)])
def test_a_slow_reader_stops_the_connection(each, bound):
    """No more events wait in memory than the limit, and those of the one piece that exceeded it."""
    flood = Flood(1000, each)
    world = World(messages_max=20, http=flood)
    feed = world.client.events()
    for number in range(1, 1001):
        event = world.run(feed.__anext__())
        assert event.orders[0].number == number
        assert flood.sent - number <= bound
    assert flood.sent == 1000


def test_the_connection_itself_is_paused(world):
    """Through treq and Twisted's HTTP client, down to the transport."""
    told = []
    world = World(messages_max=4)
    feed = follow(world)
    (pump,) = world.front.treq._agent._pumps
    pump.clientIO.pauseProducing = lambda: told.append("pause")
    pump.clientIO.resumeProducing = lambda: told.append("resume")
    for number in range(1, 11):
        world.front.tell("trades", {"trades": [traded(number)]}, f"{number}.0.1.1")
    world.pump()
    assert told == ["pause"]
    assert world.finish(feed.waiting).orders[0].number == 1
    for number in range(2, 11):
        assert world.run(feed.__anext__()).orders[0].number == number
    assert told == ["pause", "resume"]
