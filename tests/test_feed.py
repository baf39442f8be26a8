"""The feed of one front-end: who is told what, when, and exactly once, whatever breaks."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.feed_fixture import NAMES, Client, FrontEnd, Market, Wire, error_of, unchunked
from tests.sse import Reader
from twstock.web.feed.feed import RETRY_MS, Counters
from twstock.web.feed.rhythm import SHARE
from twstock.web.feed.tail import REST_FACTOR, SLICE_WRITES_MIN
from twstock.web.http.channel import WRITE_STALLED_S
from twstock.web.upstream.leader import Leader

QUOTED = "?names=a%2Cb%26c%3D%C3%BC+%2B%25"
"""The last of ``NAMES``, in a query."""


@pytest.fixture(params=["", "gzip"])
def front(request: pytest.FixtureRequest) -> FrontEnd:
    """A front-end whose clients accept compression, or do not."""
    return FrontEnd(coding=request.param)


# --- what a stream is ------------------------------------------------------------------------


def test_a_stream_begins_with_both_leaders_and_says_when_to_come_back(front: FrontEnd) -> None:
    """Its headers forbid caches and buffers in between."""
    client = front.connect()
    assert client.head.split(b"\r\n")[0] == b"HTTP/1.1 200 OK"
    for header in (
        b"Content-Type: text/event-stream",
        b"Cache-Control: no-store",
        b"Transfer-Encoding: chunked",
        b"X-Accel-Buffering: no",
    ):
        assert header in client.head
    assert b"Content-Length" not in client.head
    reader = client.read()
    assert reader.of("leader") == [
        {"group": "order", "leader_id": 3, "term": 1},
        {"group": "catalog", "leader_id": 3, "term": 1},
    ]
    assert reader.retry_ms is not None
    assert RETRY_MS[0] <= reader.retry_ms <= RETRY_MS[1]


@pytest.mark.parametrize(
    ("coding", "version", "is_packed"),
    [
        ("gzip", "1.1", True),
        ("gzip, deflate, br", "1.1", True),
        ("deflate, GZip;q=0.5", "1.1", True),
        ("gzip;q=0", "1.1", False),
        ("identity, gzip;q=0.5", "1.1", False),
        ("br", "1.1", False),
        ("", "1.1", False),
        ("gzip", "1.0", False),
    ],
)
def test_events_are_compressed_for_who_accepts_it(
    coding: str, version: str, is_packed: bool
) -> None:
    """The headers say so, and caches in between learn that it depends on the request."""
    front = FrontEnd(coding=coding)
    client = front.connect(version=version)
    front.market.trade(count=300)
    front.advance()
    assert (b"Content-Encoding: gzip" in client.head) == is_packed
    assert b"Vary: Accept-Encoding" in client.head
    assert client.read().numbers() == list(range(1, 301))
    assert (len(client.wire.value()) < len(client.body()) / 3) == is_packed


def test_clients_are_not_told_to_come_back_at_the_same_moment(front: FrontEnd) -> None:
    """Otherwise all clients of a front-end that stops would come back at once."""
    assert len({front.connect().read().retry_ms for _ in range(20)}) > 10


def test_trades_stocks_and_changes_are_told_as_they_happen(front: FrontEnd) -> None:
    """Each comes with the newest state of its stock, and that state is never sent after it."""
    client = front.connect()
    front.market.trade("AAPL", 2)
    front.market.change("GOOGL")
    front.advance()
    front.market.trade("GOOGL")
    front.advance()
    reader = client.read()
    assert reader.numbers() == [1, 2, 3]
    assert reader.change_numbers() == [1]
    assert reader.stocks()["AAPL"]["version"] == 2
    assert reader.stocks()["GOOGL"]["version"] == 2
    assert reader.last_event_id == "3.1.1.1"


def test_a_new_client_is_told_nothing_of_before(front: FrontEnd) -> None:
    """Not even what happened a moment ago and was not sent to anybody yet."""
    front.market.trade(count=3)
    front.market.change()
    first = front.connect()
    front.market.trade()
    second = front.connect()
    front.market.trade()
    front.advance()
    assert first.read().numbers() == [4, 5]
    assert second.read().numbers() == [5]
    assert first.read().change_numbers() == second.read().change_numbers() == []


def test_everything_after_the_answer_has_begun_is_told() -> None:
    """Headers are sent only when the place in the log is known from which on events are sent. So a
    client that looks up stocks after the headers misses nothing.
    """
    front = FrontEnd()
    front.market.down |= {"orders"}
    client = front.connect()
    front.market.trade(count=2)
    front.advance()
    assert client.wire.value() == b""
    front.market.down.clear()
    front.advance(0.15)
    assert client.head
    front.market.trade()
    front.advance()
    assert client.read().numbers() == [3]


@pytest.mark.parametrize("is_first", [True, False])
def test_nothing_begins_an_answer_before_its_place_is_known(is_first: bool) -> None:
    """Not even the comment that keeps streams open: a client that looks up stocks when its answer
    begins would miss what happens until its place is known.
    """
    front = FrontEnd()
    if not is_first:
        front.connect()
        front.advance()
    front.market.down = {"catalog"}
    client = front.connect()
    front.advance(16, 0.5)
    assert client.wire.value() == b""
    front.market.down.clear()
    front.advance()
    assert [event.kind for event in client.read().events] == ["leader", "leader"]


def test_a_filter_tells_of_its_stocks_alone(front: FrontEnd) -> None:
    """Trades, changes and states of other stocks are left out; leaders are not."""
    all_of_them, one, two = front.connect(), front.connect(QUOTED), front.connect("?names=X,AAPL")
    for name in NAMES:
        front.market.trade(name)
        front.market.change(name)
    front.advance()
    assert all_of_them.read().numbers() == [1, 2, 3]
    assert one.read().numbers() == one.read().change_numbers() == [3]
    assert list(one.read().stocks()) == [NAMES[2]]
    assert two.read().numbers() == [1]
    assert len(two.read().of("leader")) == 2


def test_a_change_of_leader_is_told_to_everybody(front: FrontEnd) -> None:
    """Also that there is no leader, with the term of the last one. A client that comes later is
    told who leads then.
    """
    client = front.connect()
    front.orders.lead(None)
    front.advance()
    front.orders.lead(Leader(4, 1))
    front.catalog.lead(Leader(2, 2))
    front.advance()
    assert client.read().of("leader")[2:] == [
        {"group": "order", "leader_id": None, "term": 1},
        {"group": "order", "leader_id": 1, "term": 4},
        {"group": "catalog", "leader_id": 2, "term": 2},
    ]
    assert client.read().last_event_id == "0.0.4.2"
    assert front.connect().read().of("leader") == client.read().of("leader")[3:]


def test_leaders_are_told_while_the_log_cannot_be_read(front: FrontEnd) -> None:
    """That is when clients want to know."""
    client = front.connect()
    front.market.held = []
    front.advance()
    front.orders.lead(None)
    front.advance(0.02)
    assert client.read().of("leader")[-1]["leader_id"] is None


def test_what_cannot_be_read_now_is_told_later(front: FrontEnd) -> None:
    """Trades wait for the states of their stocks, and nothing is lost."""
    client = front.connect()
    for away in ({"orders"}, {"catalog"}, {"orders", "catalog"}):
        front.market.down = away
        front.market.trade("AAPL", 3)
        front.market.change()
        front.advance()
        front.market.down = set()
        front.advance()
    reader = client.read()
    assert reader.numbers() == list(range(1, 10))
    assert reader.change_numbers() == [1, 2, 3]
    assert reader.stocks()["AAPL"]["version"] == 12


def test_what_a_cache_may_hide_is_told_later(front: FrontEnd) -> None:
    """An order can be read before its trade is published. Whoever hears of it must not look up an
    older version afterwards.
    """
    client = front.connect()
    front.market.trade("AAPL")
    front.market.hide()
    front.market.trade("AAPL")
    front.market.trade("GOOGL")
    front.advance()
    assert (client.read().numbers(), set(client.read().stocks())) == ([1], {"AAPL"})
    front.market.publish()
    front.advance()
    reader = client.read()
    assert reader.numbers() == [1, 2, 3]
    assert [reader.stocks()[name]["version"] for name in ("AAPL", "GOOGL")] == [2, 1]


def test_a_stream_begins_with_what_lookups_show(front: FrontEnd) -> None:
    """Whoever loads the stocks when the stream has begun has everything that the stream does not
    tell.
    """
    front.connect()
    front.advance()
    front.market.hide()
    front.market.trade("AAPL")
    late = front.connect()
    front.advance()
    assert late.read().events == []
    front.market.publish()
    front.advance()
    assert late.read().last_event_id.startswith("1.")
    assert late.read().numbers() == []


# --- how often -------------------------------------------------------------------------------


def test_nobody_is_written_to_more_than_ten_times_a_second(front: FrontEnd) -> None:
    """Whatever happens in between is sent together."""
    client = front.connect()
    front.advance()
    moments: list[float] = []
    plain = client.wire.write

    def write(data: bytes) -> None:
        moments.append(front.clock.seconds())
        plain(data)

    client.wire.write = write  # type: ignore[method-assign]
    for turn in range(300):
        front.market.trade()
        front.market.change()
        front.orders.lead(Leader(turn + 2, 1))
        front.clock.advance(0.01)
    assert all(later - sooner >= 0.0999 for sooner, later in pairwise(moments))
    assert 25 <= len(moments) <= 31
    front.advance()
    assert client.read().numbers() == list(range(1, 301))


class SlowClock(Clock):
    """A clock that goes on while somebody is written to."""

    cost_s = 0.0
    turns: list[int]

    def wrote(self) -> None:
        """A write has taken this long."""
        self.rightNow += self.cost_s
        self.turns[-1] += 1

    def callLater(self, when: float, *work: Any, **more: Any) -> Any:
        """A call without a delay begins a new turn of the reactor."""
        if not when:
            self.turns.append(0)
        return super().callLater(when, *work, **more)


def test_writing_to_many_takes_a_small_part_of_the_time() -> None:
    """The more it costs, the less often it is done, and in slices, so that requests have their turn
    in between.
    """
    clock = SlowClock()
    clock.turns = [0]
    front = FrontEnd(clock=clock)
    clients = [front.connect() for _ in range(150)]
    front.advance()
    clock.cost_s = 0.0002
    for client in clients:
        plain = client.wire.write

        def write(data: bytes, plain: Any = plain) -> None:
            clock.wrote()
            plain(data)

        client.wire.write = write  # type: ignore[method-assign]
    began = clock.seconds()
    while clock.seconds() < began + 8:
        clock.turns.append(0)
        front.market.trade()
        front.clock.advance(0.01)
    spent = sum(clock.turns) * clock.cost_s
    assert spent <= (clock.seconds() - began) * SHARE * 1.1
    assert max(clock.turns) <= SLICE_WRITES_MIN
    assert min(len(client.read().numbers()) for client in clients) > 300


def test_between_writing_to_some_and_to_others_there_is_a_rest() -> None:
    """Otherwise each step of a trade would have to wait for it."""
    clock = SlowClock()
    clock.turns = [0]
    front = FrontEnd(clock=clock)
    clients = [front.connect() for _ in range(3 * SLICE_WRITES_MIN)]
    front.advance()
    began: list[float] = []
    for client in clients:
        plain = client.wire.write

        def write(data: bytes, plain: Any = plain) -> None:
            began.append(clock.seconds())
            clock.rightNow += 0.001
            plain(data)

        client.wire.write = write  # type: ignore[method-assign]
    front.market.trade()
    for _ in range(200):
        clock.advance(0.01)
    busy_s = SLICE_WRITES_MIN * 0.001
    firsts = began[::SLICE_WRITES_MIN]
    assert len(firsts) == 3
    assert min(later - first for first, later in pairwise(firsts)) >= busy_s * (1 + REST_FACTOR)


def test_the_bytes_are_made_once_for_all_who_want_the_same(front: FrontEnd) -> None:
    """All connections with the same filter are sent the same object."""
    written: list[bytes] = []
    for query in ("", "", "?names=AAPL", "?names=AAPL"):
        front.connect(query).wire.write = written.append  # type: ignore[method-assign]
    front.advance()
    written.clear()
    front.market.trade("AAPL")
    front.market.trade("GOOGL")
    front.advance()
    assert len(written) == 4
    assert len({id(data) for data in written}) == 2


def test_a_silent_stream_is_kept_alive(front: FrontEnd) -> None:
    """Every 15 seconds, also while it cannot go on. A reader whose filter lets nothing through is
    told how far it has read.
    """
    client, filtered = front.connect(), front.connect("?names=X")
    front.market.trade(count=5)
    front.market.held = None
    waiting = front.connect(last_event_id="9.0.1.1")
    for turn in range(1, 4):
        front.advance(15, 0.5)
        assert client.read().comments == filtered.read().comments == turn
    assert filtered.read().last_event_id == "5.0.1.1"
    assert filtered.read().events == filtered.read().events[:2]
    assert waiting.read().of("reset") == [{}]
    away = FrontEnd()
    away.market.down = {"orders"}
    lonely = away.connect(last_event_id="0.0.0.0")
    away.advance(15.1, 0.5)
    assert lonely.read().comments == 1
    away.market.down.clear()
    away.advance()
    assert len(lonely.read().of("leader")) == 2


def test_nothing_is_asked_while_nobody_listens(front: FrontEnd) -> None:
    """No log is read before the first subscriber comes or after the last one has gone."""
    front.advance()
    assert front.market.pages == []
    front.connect().close()
    asked = len(front.market.pages)
    front.advance(20, 0.5)
    assert len(front.market.pages) == asked
    assert front.clock.getDelayedCalls() == []
    again = front.connect()
    front.market.trade()
    front.advance()
    assert again.read().numbers() == [1]


# --- resuming --------------------------------------------------------------------------------


def test_a_client_that_comes_back_is_told_what_it_missed(front: FrontEnd) -> None:
    """Each event once, and the newest state of what has changed; then the stream goes on."""
    other = front.connect()
    front.market.trade("AAPL", 4)
    front.market.change("GOOGL", "halt")
    front.market.change("GOOGL", "resume")
    front.advance()
    front.market.trade("GOOGL")
    client = front.connect(last_event_id="2.1.1.1")
    front.advance()
    front.market.trade("GOOGL")
    front.advance()
    reader = client.read()
    assert reader.numbers() == [3, 4, 5, 6]
    assert reader.change_numbers() == [2]
    assert reader.stocks()["AAPL"]["version"] == 4
    assert reader.stocks()["GOOGL"]["version"] == 4
    assert other.read().numbers() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("query", ["?last_event_id=1.0.1.1", QUOTED + "&last_event_id=1.0.1.1"])
def test_the_id_may_come_in_the_query(front: FrontEnd, query: str) -> None:
    """A script cannot give headers to an EventSource."""
    front.market.trade(NAMES[2], 3)
    client = front.connect(query)
    front.advance()
    assert client.read().numbers() == [2, 3]


def test_a_long_replay_reads_pages_and_joins(front: FrontEnd) -> None:
    """While trades go on. No page is larger than a front-end may ask for."""
    front.market.trade("AAPL", 2500)
    client = front.connect(last_event_id="0.0.1.1")
    for _ in range(20):
        front.market.trade("GOOGL", 30)
        front.advance(0.05)
    front.advance()
    reader = client.read()
    assert reader.numbers() == list(range(1, 3101))
    assert reader.stocks()["GOOGL"]["version"] == 600


def test_recent_trades_are_replayed_without_asking(front: FrontEnd) -> None:
    """From memory, because a thousand clients come back together when a front-end restarts."""
    front.connect()
    front.market.trade("AAPL", 500)
    front.advance()
    front.market.pages.clear()
    front.market.looked_up.clear()
    client = front.connect(last_event_id="20.0.1.1")
    assert client.read().numbers() == list(range(21, 501))
    assert front.market.pages == front.market.looked_up == []


def test_what_nobody_listened_to_is_read_from_the_log(front: FrontEnd) -> None:
    """The trades in memory, from before and after that time, have a gap."""
    first = front.connect()
    front.market.trade(count=5)
    front.advance()
    first.close()
    front.market.trade(count=5)
    front.connect()
    front.market.trade(count=5)
    front.advance()
    client = front.connect(last_event_id="2.0.1.1")
    front.advance()
    assert client.read().numbers() == list(range(3, 16))


@pytest.mark.parametrize("ahead", ["4.0.1.1", "3.3.1.1", "9223372036854775807.0.1.1"])
def test_who_is_ahead_of_the_logs_has_to_start_anew(front: FrontEnd, ahead: str) -> None:
    """Its id is of a cluster whose data is gone. It is told to reset, and goes on from now."""
    front.market.trade(count=3)
    front.market.change()
    front.market.change()
    client = front.connect(last_event_id=ahead)
    front.market.trade()
    front.advance()
    reader = client.read()
    assert [event.kind for event in reader.events][:3] == ["reset", "leader", "leader"]
    assert reader.events[0].id == "3.2.1.1"
    assert reader.numbers() == [4]
    assert front.feed.counters.resets == 1


def test_who_knows_more_than_this_front_end_is_not_reset(front: FrontEnd) -> None:
    """Another front-end was faster: what counts is the log, not what was sent here."""
    front.connect()
    front.advance()
    front.market.trade(count=2)
    front.market.change()
    client = front.connect(last_event_id="2.1.1.1")
    front.market.trade()
    front.advance()
    assert client.read().of("reset") == []
    assert client.read().numbers() == [3]
    assert client.read().change_numbers() == []


def test_nobody_is_reset_because_a_log_cannot_be_read(front: FrontEnd) -> None:
    """The client waits until the log can be read again."""
    front.connect()
    front.market.trade(count=2)
    front.market.down = {"orders", "catalog"}
    client = front.connect(last_event_id="2.0.1.1")
    front.advance()
    front.market.down = set()
    front.market.trade()
    front.advance(0.5)
    assert client.read().of("reset") == []
    assert client.read().numbers() == [3]


def scenario() -> tuple[Market, bytes]:
    """A market, and what a client was sent while it came to be."""
    front = FrontEnd()
    client = front.connect()
    for k in range(4):
        front.market.trade(NAMES[k % 3], k + 1)
        front.market.change(NAMES[k % 2])
        front.advance(0.13)
        front.orders.lead(Leader(k + 2, 1))
    front.advance()
    return front.market, client.body()


def test_a_stream_can_be_cut_at_every_byte() -> None:
    """A client that comes back with its last id, to any front-end, has every trade and every change
    exactly once, and the newest state of every stock.
    """
    market, sent = scenario()
    whole = Reader()
    whole.feed(sent)
    assert whole.numbers() == list(range(1, 11))
    assert whole.change_numbers() == [1, 2, 3, 4]
    cuts = set()
    fresh: dict[str, Reader] = {}
    for position in range(len(sent) + 1):
        reader = Reader()
        reader.feed(sent[:position])
        at = reader.last_event_id
        if not at:
            continue
        cuts.add(at)
        if at not in fresh:
            other = FrontEnd(market)
            client = other.connect(last_event_id=at)
            other.advance()
            fresh[at] = client.read()
        again = fresh[at]
        assert reader.numbers() + again.numbers() == whole.numbers()
        assert reader.change_numbers() + again.change_numbers() == whole.change_numbers()
        assert reader.stocks() | again.stocks() == whole.stocks()
    assert len(cuts) >= 10


class Play:
    """Several front-ends of one market, and clients that come and go."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.market = Market()
        self.fronts = [
            FrontEnd(
                self.market,
                self.clock,
                coding,
                page_max=7,
                feed_trades_max=9,
                feed_recent_trades=5,
            )
            for coding in ("", "gzip")
        ]
        self.viewers = [Viewer(self.fronts, name) for name in (None, None, *NAMES)]

    def trade(self, name: str, count: int) -> None:
        """Trades execute."""
        self.market.trade(name, count)

    def change(self, name: str, _: int) -> None:
        """A stock is changed."""
        self.market.change(name)

    def wait(self, seconds: float, _: int) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    def connect(self, viewer: int, front: int) -> None:
        """A client connects, or connects again."""
        self.viewers[viewer].connect(front)

    def cut(self, viewer: int, keep: int) -> None:
        """A connection breaks."""
        self.viewers[viewer].cut(keep)

    def block(self, viewer: int, _: int) -> None:
        """A client reads no more."""
        self.viewers[viewer].block()

    def unblock(self, viewer: int, _: int) -> None:
        """A client reads again."""
        self.viewers[viewer].unblock()

    def away(self, what: str, _: int) -> None:
        """A service cannot be reached; "": all can."""
        self.market.down = {what} if what else set()

    def hold(self, begin: bool, _: int) -> None:
        """Pages are held back from now on, or no more."""
        held, self.market.held = self.market.held, [] if begin else None
        for page in held or ():
            page.callback(None)

    def hide(self, begin: bool, _: int) -> None:
        """Caches hide what follows, or nothing any more."""
        if begin:
            self.market.hide()
        else:
            self.market.publish()

    def lead(self, front: int, term: int) -> None:
        """A front-end learns of another leader, or loses it."""
        self.fronts[front].orders.lead(Leader(term, 1) if term else None)

    def settle(self) -> None:
        """Everything works again, and some time passes."""
        self.away("", 0)
        self.hold(False, 0)
        self.hide(False, 0)
        for viewer in self.viewers:
            viewer.unblock()
        self.fronts[0].advance(2, 0.05)


class Viewer:
    """A client that comes back with the last id it has seen, and remembers all it was told."""

    def __init__(self, fronts: list[FrontEnd], name: str | None) -> None:
        self.fronts = fronts
        self.name = name
        self.query = {None: "", NAMES[2]: QUOTED}.get(name, f"?names={name}")
        self.known = Reader()
        self.client: Client | None = None
        self.since: tuple[int, int] | None = None

    def connect(self, front: int) -> None:
        """Connect, to another front-end perhaps."""
        self.cut(10**9)
        self.client = self.fronts[front].connect(self.query, self.known.last_event_id)

    def cut(self, keep: int) -> None:
        """The connection breaks after so many bytes of its body."""
        if self.client is None:
            return
        heard = Reader(self.known.last_event_id)
        heard.feed(self.client.body()[:keep])
        if self.since is None and heard.last_event_id:
            # Where the stream begins is up to the server; from there on nothing may be missing.
            number, change, *_ = map(int, heard.events[0].id.split("."))
            self.since = (number, change)
        self.known.events += heard.events
        self.known.last_event_id = heard.last_event_id
        self.client.close()
        self.client = None

    def block(self) -> None:
        """The client reads no more."""
        if self.client is not None:
            self.client.wire.full = True

    def unblock(self) -> None:
        """The client reads again."""
        if self.client is not None and self.client.wire.open:
            self.client.wire.drain()

    def check(self, market: Market) -> None:
        """Every trade and change since it began, once, in sequence; and the newest states."""
        assert self.since is not None
        number, change = self.since
        trades = [t for t in market.trades if self.name in (None, t.order.name)]
        changes = [c for c in market.changed if self.name in (None, c.name)]
        assert self.known.numbers() == [t.number for t in trades if t.number > number]
        assert self.known.change_numbers() == [c.number for c in changes if c.number > change]
        touched = {t.order.name for t in trades if t.number > number}
        touched |= {c.name for c in changes if c.number > change}
        known = self.known.stocks()
        for name in touched:
            assert known[name]["version"] == market.stocks[name].version
        assert self.known.of("reset") == []


STEPS = st.one_of(
    st.tuples(st.just("trade"), st.sampled_from(NAMES), st.integers(1, 15)),
    st.tuples(st.just("change"), st.sampled_from(NAMES), st.just(0)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.01, 0.05, 0.1, 0.3]), st.just(0)),
    st.tuples(st.just("connect"), st.integers(0, 4), st.integers(0, 1)),
    st.tuples(st.just("cut"), st.integers(0, 4), st.integers(0, 3000)),
    st.tuples(st.just("block"), st.integers(0, 4), st.just(0)),
    st.tuples(st.just("unblock"), st.integers(0, 4), st.just(0)),
    st.tuples(st.just("away"), st.sampled_from(["orders", "catalog", ""]), st.just(0)),
    st.tuples(st.just("hold"), st.booleans(), st.just(0)),
    st.tuples(st.just("hide"), st.booleans(), st.just(0)),
    st.tuples(st.just("lead"), st.integers(0, 1), st.integers(0, 9)),
)


@settings(max_examples=60)
@given(st.lists(STEPS, max_size=40))
def test_whatever_happens_everybody_is_told_everything_once(steps: list[Any]) -> None:
    """Connections break at any byte, clients change front-ends or stop reading for a while, logs
    cannot be read, pages come late, and leaders change.
    """
    play = Play()
    for what, one, two in steps:
        getattr(play, what)(one, two)
    play.settle()
    for viewer in play.viewers:
        viewer.connect(0)
    play.settle()
    for viewer in play.viewers:
        viewer.cut(10**9)
        viewer.check(play.market)
    assert [front.feed.counters.subscribers for front in play.fronts] == [0, 0]
    play.clock.advance(1)
    assert play.clock.getDelayedCalls() == []


# --- slow readers ----------------------------------------------------------------------------


def test_a_client_that_does_not_read_is_dropped() -> None:
    """Its connection is closed as soon as more than the limit waits for it. Other clients do not
    notice.
    """
    front = FrontEnd(feed_unsent_bytes_max=100_000)
    slow, good = front.connect(), front.connect()
    front.advance()
    slow.wire.full = True
    waited = []
    while slow.wire.open:
        front.market.trade("AAPL", 200)
        front.advance(0.1)
        waited.append(len(slow.wire.waiting))
        assert len(waited) < 50
    assert slow.wire.aborted
    assert 100_000 < max(waited) < 100_000 + 65536 + 2 * 30_000
    front.advance()
    assert good.read().numbers() == list(range(1, len(front.market.trades) + 1))
    assert front.feed.counters == Counters(1, 2, 0, 1, 0)
    told = [sample for family in front.feed.families() for sample in family.samples]
    assert {sample.name.removeprefix("twstock_feed_"): sample.value for sample in told} == {
        "subscribers": 1,
        "opened_total": 2,
        "refused_total": 0,
        "dropped_total": 1,
        "resets_total": 0,
    }


def test_a_replay_waits_for_its_reader(front: FrontEnd) -> None:
    """Nothing is read from the log that cannot be sent yet, and the reader is not dropped."""
    front.market.trade("AAPL", 20_000)
    front.market.held = []
    client = front.connect(last_event_id="0.0.1.1")
    client.wire.full = True
    held, front.market.held = front.market.held, None
    for page in held:
        page.callback(None)
    front.advance(2, 0.05)
    asked = len(front.market.pages)
    assert len(client.wire.waiting) < 65536 + 150_000
    front.advance(5, 0.05)
    assert len(front.market.pages) - asked <= 5 / 0.1
    assert client.wire.open
    while client.wire.waiting:
        client.wire.drain()
        client.wire.full = True
        front.advance(0.5, 0.05)
    client.wire.full = False
    front.market.trade()
    front.advance()
    assert client.read().numbers() == list(range(1, 20_002))
    assert front.feed.counters.dropped == 0


def test_a_stream_that_stalls_is_closed_like_any_answer(front: FrontEnd) -> None:
    """It is closed after a time even if little waits for it."""
    client = front.connect()
    front.advance()
    client.wire.full = True
    while len(client.wire.waiting) <= Wire.HOLDS_BYTES:
        front.market.trade("AAPL", 1000)
        front.advance()
    front.advance(WRITE_STALLED_S + 1, 0.5)
    assert client.wire.aborted
    assert front.feed.counters == Counters(0, 1, 0, 1, 0)


# --- limits, ends, and HTTP ------------------------------------------------------------------


def test_the_number_of_subscribers_is_bounded() -> None:
    """One more is told to come back later, or to go elsewhere."""
    front = FrontEnd(feed_subscribers_max=2)
    first, _ = front.connect(), front.connect()
    refused = front.connect()
    assert error_of(refused) == (503, "too many subscribers")
    assert b"Retry-After: 1" in refused.head
    first.close()
    assert front.connect().read().of("leader")
    assert front.feed.counters == Counters(2, 3, 1, 0, 0)


@pytest.mark.parametrize(
    ("query", "last", "field"),
    [("?names=,", "", "names"), ("", "x", "Last-Event-ID"), ("?last_event_id=1", "", "last_event")],
)
def test_a_bad_request_is_refused(front: FrontEnd, query: str, last: str, field: str) -> None:
    """The error has the common form and names the field."""
    code, message = error_of(front.connect(query, last))
    assert code == 400
    assert message.startswith(field)
    assert front.feed.counters.subscribers == 0


def test_stopping_ends_every_stream_at_once(front: FrontEnd) -> None:
    """The body is complete, so that no proxy takes it for an error."""
    live, ahead = front.connect(), front.connect(last_event_id="9.0.1.1")
    old = front.connect(version="1.0")
    front.market.held = []
    front.market.trade()
    waiting = front.connect(last_event_id="0.0.1.1")
    front.feed.stop()
    for client in (live, ahead, waiting):
        assert not client.wire.aborted
        assert unchunked(client.wire.value().partition(b"\r\n\r\n")[2])[1] == b""
    assert not old.wire.open
    assert front.feed.counters.subscribers == 0


def test_a_stopping_front_end_sends_subscribers_elsewhere(front: FrontEnd) -> None:
    """By an empty stream, as long as connections still come. After an error browsers would give
    up.
    """
    front.feed.stop()
    client = front.connect()
    assert client.head.startswith(b"HTTP/1.1 200 OK")
    assert b"Content-Type: text/event-stream" in client.head
    assert client.read().events == []
    assert client.read().retry_ms is not None
    assert front.feed.counters.subscribers == 0


def test_http_1_0_gets_the_events_as_they_are(front: FrontEnd) -> None:
    """They come without chunks, and the body ends with the connection."""
    client = front.connect(version="1.0")
    front.market.trade()
    front.advance()
    assert b"chunked" not in client.head
    assert b"Connection: close" in client.head
    assert client.read().numbers() == [1]


def test_head_is_answered_without_a_stream(front: FrontEnd) -> None:
    """The connection can be used for the next request."""
    channel = front.site.buildProtocol(None)
    assert channel is not None
    wire = Wire()
    wire.lost = channel.connectionLost
    channel.makeConnection(wire)
    channel.dataReceived(
        b"HEAD /events HTTP/1.1\r\nHost: h\r\n\r\nHEAD /events HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    answers = wire.value().split(b"\r\n\r\n")
    assert len(answers) == 3
    assert answers[2] == b""
    for head in answers[:2]:
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert b"Content-Type: text/event-stream" in head
        assert b"Content-Length" not in head
        assert b"chunked" not in head
    assert wire.open
    assert front.feed.counters.subscribers == 0


def test_what_is_pipelined_behind_a_stream_waits(front: FrontEnd) -> None:
    """It would be answered after the end of the stream, so never. The stream goes on."""
    client = front.connect()
    client.channel.dataReceived(b"GET /events HTTP/1.1\r\nHost: h\r\n\r\n" * 3)
    front.market.trade()
    front.advance(130, 0.5)
    assert client.read().numbers() == [1]
    assert front.feed.counters.subscribers == 1
    assert client.wire.open


def test_an_idle_time_out_does_not_end_a_stream(front: FrontEnd) -> None:
    """A subscriber may send nothing for hours."""
    client = front.connect()
    front.advance(3600, 5)
    front.market.trade()
    front.advance()
    assert client.wire.open
    assert client.read().numbers() == [1]


def test_a_client_may_go_at_any_moment(front: FrontEnd) -> None:
    """Also while its first answer, or a page for it, is on its way: no timer and no subscriber is
    left.
    """
    front.market.trade(count=10)
    front.market.held = []
    for last in ("", "3.0.1.1", "99.0.1.1"):
        client = front.connect(last_event_id=last)
        client.close()
        client = front.connect(last_event_id=last)
        front.advance(0.05)
        client.close()
    for page in front.market.held:
        page.callback(None)
    front.market.held = None
    front.advance(1)
    assert front.feed.counters.subscribers == 0
    assert front.clock.getDelayedCalls() == []


def test_a_client_that_goes_while_it_waits_takes_nobody_s_turn() -> None:
    """Of several clients that wait for a page, the others still get everything."""
    front = FrontEnd()
    front.market.trade(count=100)
    front.market.held = []
    clients = [front.connect(last_event_id="0.0.1.1") for _ in range(5)]
    front.advance(0.05)
    clients[0].close()
    clients[3].close()
    held, front.market.held = front.market.held, None
    for page in held:
        assert isinstance(page, Deferred)
        page.callback(None)
    front.advance(2, 0.05)
    for client in (clients[1], clients[2], clients[4]):
        assert client.read().numbers() == list(range(1, 101))
