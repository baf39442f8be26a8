"""The pure rules of the feed: ids, requests, events as bytes, how often it is written, and what is
remembered.
"""

import json
import zlib
from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.feed_fixture import unchunked
from tests.sse import Reader
from twstock.errors import InvalidRequest
from twstock.market import ChangeKind, Order, Side, Stock, StockChange, Trade
from twstock.web.answers import order_fields, stock_fields
from twstock.web.feed import cursor, gzipstream, subscription
from twstock.web.feed.cursor import Cursor
from twstock.web.feed.events import (
    EVENT_TRADES_MAX,
    Frame,
    Leadership,
    News,
    line,
    mark,
    reset,
    retry,
)
from twstock.web.feed.recent import Recent
from twstock.web.feed.rhythm import LONGEST_S, SHARE, SHORTEST_S, Rhythm

NUMBERS = st.integers(0, 2**63 - 1)
CURSORS = st.builds(Cursor, NUMBERS, NUMBERS, NUMBERS, NUMBERS)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
TRADES = st.builds(
    Trade,
    st.integers(1, 2**53),
    st.builds(Order, st.just("k"), NAMES, st.sampled_from(list(Side)), st.integers(1, 2**53)),
    st.integers(1, 2**53),
    st.integers(1, 2**45),
    st.integers(0, 2**53),
)


def traded(number: int, name: str = "A") -> Trade:
    """A trade."""
    return Trade(number, Order("k", name, Side.BUY, 1), number, 100, 0)


# --- ids -------------------------------------------------------------------------------------


@given(CURSORS)
def test_a_cursor_is_what_its_id_says(at: Cursor) -> None:
    """Written as an id and parsed, it is the same."""
    assert cursor.parse(str(at), "id") == at


@pytest.mark.parametrize(
    "text",
    [
        "", "1", "1.2.3", "1.2.3.4.5", "1.2.3.", "-1.2.3.4", "+1.2.3.4", "01.2.3.4", "1.2.3.4 ",
        "1.2.3.4\n", "a.b.c.d", "1,2,3,4", "\u0661.2.3.4", "9223372036854775808.0.0.0", "1" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_id_is_refused(text: str) -> None:
    """Every id has exactly one spelling; the error names the field."""
    with pytest.raises(InvalidRequest, match=r"^some field: "):
        cursor.parse(text, "some field")


@given(st.text(max_size=30))
def test_any_text_is_an_id_or_refused(text: str) -> None:
    """Nothing else is raised."""
    with suppress(InvalidRequest):
        assert str(cursor.parse(text, "id")) == text


# --- requests --------------------------------------------------------------------------------


@given(st.lists(NAMES, max_size=5), st.booleans())
def test_names_come_through_whatever_is_in_them(names: list[str], repeated: bool) -> None:
    """Percent-encoded, between commas or each as a parameter of its own."""
    encoded = [quote(name, safe="") for name in names]
    if repeated:
        query = "&".join(f"names={name}" for name in encoded)
    else:
        query = "names=" + ",".join(encoded)
    asked = subscription.parse(f"/events?x=1&{query}".encode(), (), 5)
    assert asked == subscription.Subscription(frozenset(names) or None)


@pytest.mark.parametrize(
    ("query", "ids", "field"),
    [
        ("names=A,,B", (), "names"),
        ("names=,", (), "names"),
        ("names=%ff", (), "names"),
        ("names=" + "x" * 256, (), "names"),
        ("names=A,B,C,D", (), "names"),
        ("names=A,B&names=C,D", (), "names"),
        ("", (b"x",), "Last-Event-ID"),
        ("", (b"\xff",), "Last-Event-ID"),
        ("", (b"1.1.1.1", b"2.1.1.1"), "Last-Event-ID"),
        ("last_event_id=x", (), "last_event_id"),
        ("last_event_id=1.1.1.1&last_event_id=1.1.1.1", (), "last_event_id"),
    ],
)
def test_a_malformed_request_is_told_what_is_wrong(
    query: str, ids: tuple[bytes, ...], field: str
) -> None:
    """The error names the field."""
    with pytest.raises(InvalidRequest, match=rf"^{field}: "):
        subscription.parse(f"/events?{query}".encode(), ids, 3)


@pytest.mark.parametrize("uri", [b"/events", b"/events?", b"/events?names=&last_event_id="])
def test_nothing_asked_for_is_everything_from_now(uri: bytes) -> None:
    """A parameter that is left empty counts as absent."""
    assert subscription.parse(uri, (b"",), 3) == subscription.Subscription(None, None)


def test_the_header_wins_over_the_parameter() -> None:
    """A browser reconnects to the URL that it had, so its header is newer."""
    asked = subscription.parse(b"/events?last_event_id=1.0.1.1", (b"7.0.1.1",), 3)
    assert asked.after == Cursor(7, 0, 1, 1)
    alone = subscription.parse(b"/events?last_event_id=1%2E0.1.1", (), 3)
    assert alone.after == Cursor(1, 0, 1, 1)


# --- events ----------------------------------------------------------------------------------


@given(TRADES)
def test_a_line_is_the_order_of_the_api(trade: Trade) -> None:
    """It has the same fields in the same sequence and encoding as ``GET /orders/N``."""
    expected = json.dumps(order_fields(trade), separators=(",", ":"))
    assert line(trade).text == expected
    assert line(trade)[:3] == (trade.number, trade.order.name, trade.version)


def news(trades: int = 3, names: str = "AB") -> News:
    """News with everything in them, after trade 10 and change 4."""
    return News(
        Cursor(10, 4, 1, 1),
        [Leadership("catalog", None, 2)],
        [Stock(name, 100, 5, 0, 3) for name in names],
        [line(traded(11 + k, names[k % len(names)])) for k in range(trades)],
        [StockChange(5, ChangeKind.HALT, "A", 0, 0, 9, 0)],
    )


def test_each_event_has_the_id_of_what_is_known_when_it_is_read() -> None:
    """Leaders and stocks leave the numbers of an id alone; trades and changes each move their
    own.
    """
    reader = Reader()
    reader.feed(news().body(None))
    assert [(event.kind, event.id) for event in reader.events] == [
        ("leader", "10.4.1.2"),
        ("stocks", "10.4.1.2"),
        ("trades", "13.4.1.2"),
        ("changes", "13.5.1.2"),
    ]
    assert reader.events[0].data == {"group": "catalog", "leader_id": None, "term": 2}
    assert reader.of("stocks") == [stock_fields(Stock(n, 100, 5, 0, 3)) for n in "AB"]
    assert reader.numbers() == [11, 12, 13]


def test_the_ids_of_a_reader_of_few_stocks_move_over_the_others() -> None:
    """So it does not ask again for trades that it did not want."""
    reader = Reader()
    reader.feed(news().body(frozenset({"B"})))
    assert [(event.kind, event.id) for event in reader.events] == [
        ("leader", "10.4.1.2"),
        ("stocks", "10.4.1.2"),
        ("trades", "13.4.1.2"),
    ]
    assert reader.numbers() == [12]
    assert [row["name"] for row in reader.of("stocks")] == ["B"]


def test_nothing_wanted_is_nothing_told() -> None:
    """But a mark can tell how far such a reader is."""
    found = News(Cursor(), (), (), [line(traded(1))])
    assert found.body(frozenset({"X"})) == b""
    reader = Reader()
    reader.feed(mark(found.after) + retry(700))
    assert (reader.events, reader.last_event_id, reader.retry_ms) == ([], "1.0.0.0", 700)


def test_many_trades_are_several_events() -> None:
    """A reader that is cut off between two of them goes on after the first."""
    reader = Reader()
    reader.feed(news(EVENT_TRADES_MAX + 5).body(None))
    ids = [event.id for event in reader.events if event.kind == "trades"]
    assert ids == [f"{10 + EVENT_TRADES_MAX}.4.1.2", f"{15 + EVENT_TRADES_MAX}.4.1.2"]
    assert reader.numbers() == list(range(11, 16 + EVENT_TRADES_MAX))


@given(st.lists(st.sampled_from("ABCDE")), st.sets(st.sampled_from("ABCDEX"), min_size=1))
def test_a_filter_takes_exactly_the_wanted_trades_in_sequence(
    names: list[str], wanted: set[str]
) -> None:
    """However many stocks there are, and however many are wanted."""
    reader = Reader()
    trades = [traded(k + 1, name) for k, name in enumerate(names)]
    reader.feed(News(Cursor(), trades=[*map(line, trades)]).body(frozenset(wanted)))
    assert reader.numbers() == [t.number for t in trades if t.order.name in wanted]


def test_a_reset_tells_where_one_is_now() -> None:
    """Its data is an empty object, so that scripts can parse it like the others."""
    reader = Reader("99.0.1.1")
    reader.feed(reset(Cursor(3, 2, 1, 1)))
    assert [(e.kind, e.data, e.id) for e in reader.events] == [("reset", {}, "3.2.1.1")]


def test_an_empty_frame_does_not_end_the_body() -> None:
    """It becomes no chunk, because a chunk of length 0 would end the body (RFC 9112 section
    7.1).
    """
    assert Frame(b"").chunk == b""
    assert Frame(b"x" * 20).chunk == b"14\r\n" + b"x" * 20 + b"\r\n"


@given(st.lists(st.tuples(st.binary(max_size=300), st.booleans())), st.integers(1, 70_000))
def test_any_pieces_are_a_gzip_stream(pieces: list[tuple[bytes, bool]], large: int) -> None:
    """Each piece can be read as soon as it has come, whatever came before it."""
    reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert reader.decompress(gzipstream.HEADER) == b""
    for body, is_shared in [*pieces, (b"long" * large, False), (b"end", True)]:
        [content, nothing] = unchunked(Frame(body or b"x", is_shared).packed)
        assert nothing is None
        # Go's reader gives out what it has at an empty block, and not before.
        assert content.endswith(b"\0\0\xff\xff")
        assert reader.decompress(content) == (body or b"x")


def test_what_is_for_many_is_compressed() -> None:
    """For a single reader that would cost more than it saves."""
    body = b'{"name":"AAPL","quantity":1}' * 100
    assert len(Frame(body, is_shared=True).packed) < len(body) / 10
    assert len(Frame(body).packed) > len(body)


# --- the rhythm ------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 5), min_size=1), st.floats(0, 2))
def test_writing_takes_its_share_of_the_time_and_no_more(
    costs: list[float], shortest: float
) -> None:
    """Unless the interval is the longest already; it is never below the shortest."""
    rhythm = Rhythm(shortest)
    assert rhythm.interval_s == max(shortest, SHORTEST_S)
    for cost in costs:
        rhythm.wrote(cost)
        assert max(shortest, SHORTEST_S) <= rhythm.interval_s <= max(LONGEST_S, shortest)
        longest = rhythm.interval_s >= LONGEST_S
        assert cost <= rhythm.interval_s * SHARE * 1.0001 or longest


# --- what is remembered ----------------------------------------------------------------------


@given(st.integers(0, 50), st.integers(0, 30), st.integers(0, 60), st.integers(1, 20), st.data())
def test_what_is_remembered_has_no_gap(
    first: int, count: int, after: int, count_max: int, data: st.DataObject
) -> None:
    """What is given out follows the number that was asked for without a gap, or is nothing; the
    last 8 trades are always there.
    """
    recent = Recent(8)
    numbers = list(range(first + 1, first + count + 1))
    while numbers:
        some = data.draw(st.integers(1, len(numbers)))
        recent.add([line(traded(number)) for number in numbers[:some]])
        del numbers[:some]
    found = [one.number for one in recent.after(after, count_max)]
    last = first + count
    assert found == list(range(after + 1, after + 1 + len(found)))
    assert len(found) <= count_max
    if max(last - 8, first) <= after < last:
        assert len(found) == min(count_max, last - after)
