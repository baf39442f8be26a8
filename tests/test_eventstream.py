"""The parser of event streams, compared with its specification (the HTML standard, section 9.2)."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twstock.client.eventstream import EventStream, Message
from twstock.client.values import BadAnswer

SAMPLE = (
    "\ufeffid: 1.0.2.1\r\nevent: trades\r\ndata: {\r\ndata:  }\r\n\r\n"
    ": keep-alive\n\ndata\n\nid: a\0b\ndata: é€𝄞\n\nretry: 1500\rid\rdata: last\r\revent: cut"
).encode()


def by_the_book(stream):
    """Section 9.2.6, step by step, on the whole stream: events, last id, retry."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    *lines, _ = re.split("\r\n|\r|\n", text)
    data = kind = buffer = last = ""
    retry, events = None, []
    for line in lines:
        if line == "":
            last = buffer
            if data:
                events.append(Message(kind or "message", data.removesuffix("\n"), last))
            data = kind = ""
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                kind = value
            elif field == "data":
                data += value + "\n"
            elif field == "id" and "\0" not in value:
                buffer = value
            # The standard has no limit; the parser ignores a number with more digits.
            elif field == "retry" and re.fullmatch("[0-9]{1,7}", value):
                retry = int(value)
    return events, last, retry


def parse(pieces):
    """What the parser makes of a stream that arrives in pieces."""
    stream = EventStream()
    events = [message for piece in pieces for message in stream.feed(piece)]
    return events, stream.last_id, stream.retry_ms


def test_the_sample_is_what_the_book_says():
    """The sample has every rule of the format in it once."""
    events, last, retry = parse([SAMPLE])
    assert events == [
        Message("trades", "{\n }", "1.0.2.1"),
        Message("message", "", "1.0.2.1"),
        Message("message", "é€𝄞", "1.0.2.1"),
        Message("message", "last", ""),
    ]
    assert (last, retry) == ("", 1500)
    assert (events, last, retry) == by_the_book(SAMPLE)


@pytest.mark.parametrize("position", range(len(SAMPLE) + 1))
def test_a_split_at_any_byte_changes_nothing(position):
    """Also inside a character, a line end, and the byte order mark."""
    whole = parse([SAMPLE])
    assert parse([SAMPLE[:position], SAMPLE[position:]]) == whole
    assert parse([SAMPLE[:position], b"", *(bytes([b]) for b in SAMPLE[position:])]) == whole


LINE_ENDS = [b"\r", b"\n", b"\r\n", b"\n\n"]
WORDS = [b"data", b"event", b"id", b"retry", b":", b" ", b"7", b"data: x", b"id: 1.2.3.4"]
WORDS += [b"\nretry: 0000007\n", b"\nretry: 10000000\n"]
ODDITIES = [b"\0", "é".encode(), b"\xef\xbb\xbf", b"\xef", b"\xbb"]
PIECES = st.sampled_from([*LINE_ENDS, *WORDS, *ODDITIES])


@given(st.lists(st.one_of(PIECES, st.binary(max_size=3)), max_size=40), st.data())
def test_any_stream_in_any_pieces_is_read_by_the_book(parts, data):
    """Whatever the bytes are, and wherever the network cuts them."""
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *cuts, len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    assert parse(pieces) == parse([stream]) == by_the_book(stream)


def test_an_event_that_has_not_ended_is_none():
    """Neither the event nor its id counts before the blank line that ends it."""
    stream = EventStream("5")
    assert stream.feed(b"id: 6\ndata: x\n") == []
    assert stream.last_id == "5"
    assert stream.feed(b"\n") == [Message("message", "x", "6")]
    assert stream.last_id == "6"


@pytest.mark.parametrize("piece", [b"x" * 100, b"data: " + b"y" * 94 + b"\n"])
def test_an_event_without_end_is_not_kept_for_ever(piece):
    """Neither a line nor an event may grow without limit; many small events may go on."""
    stream = EventStream(event_bytes_max=1000)
    for _ in range(100):
        assert len(stream.feed(b"data: " + b"z" * 90 + b"\n\n")) == 1
    for _ in range(9):
        stream.feed(piece)
    with pytest.raises(BadAnswer, match="more than 1000 bytes"):
        stream.feed(piece + piece)
