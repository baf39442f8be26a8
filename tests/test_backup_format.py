"""The format of a backup: what is written is read back, and nothing else is accepted."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.histories import History, backup_of, histories, lines
from twstock.backup.journal import (
    FORMAT,
    End,
    Header,
    NewerFormat,
    decode,
    encode,
)
from twstock.backup.playback import Playback
from twstock.backup.sealed import LINE_BYTES_MAX, Damaged, sealed, unsealed
from twstock.market import ChangeKind, Order, Side, Stock, StockChange, Trade

NUMBERS = st.integers(0, 2**63 - 1)
TEXTS = st.text(min_size=1, max_size=255)
LINES = st.one_of(
    st.builds(Header, TEXTS, NUMBERS, NUMBERS),
    st.builds(lambda n, p, q: Stock(n, p, q, initial_quantity=q), TEXTS, NUMBERS, NUMBERS),
    st.builds(
        Trade,
        NUMBERS,
        st.builds(Order, TEXTS, TEXTS, st.sampled_from(Side), NUMBERS),
        NUMBERS,
        NUMBERS,
        NUMBERS,
    ),
    st.builds(
        StockChange,
        NUMBERS,
        st.sampled_from(ChangeKind),
        TEXTS,
        NUMBERS,
        NUMBERS,
        NUMBERS,
        NUMBERS,
    ),
    st.builds(End, NUMBERS, NUMBERS, NUMBERS),
)
STEPS = [
    (Side.BUY, "A", 3, 0),
    (ChangeKind.RESTOCK, "A", 5, 1),
    (ChangeKind.ADD, "new", 12, 1),
    (Side.SELL, "=C()", 1, 1),
    (ChangeKind.HALT, "B", 1, 0),
    (Side.BUY, "new", 12, 1),
]


def made(steps=STEPS):
    """A small history in which every step succeeds."""
    history = History()
    for step in steps:
        history.attempt(step)
    assert len(history.events) == len(steps)
    return history


def pieces(content, size):
    """The content in pieces."""
    return [content[start : start + size] for start in range(0, len(content), size)]


def read(chunks):
    """The whole of a backup: its playback, and its events."""
    playback = Playback(chunks)
    return playback, list(playback.events())


@given(LINES)
def test_a_line_is_read_as_it_was_written(line):
    """Whatever its values are, it is one line of ASCII."""
    content = encode(line)
    assert content.isascii()
    assert content.count(b"\n") == 1
    assert decode(content[:-1]) == line
    assert type(decode(content[:-1])) is type(line)


def test_an_order_is_what_an_encoder_of_json_makes():
    """The faster encoder writes the same bytes as the ordinary one."""
    trade = Trade(7, Order('a "key"\\', "Déjà\u2028", Side.BUY, 3), 2, 1599, 1_767_225_600_000)
    fields = json.loads(encode(trade))
    assert encode(trade).decode() == json.dumps(fields, separators=(",", ":")) + "\n"
    assert list(fields) == [
        "order", "key", "name", "type", "quantity", "version", "price_cents", "time_ms",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nothing",
        b"[1]",
        b"{}",
        b'{"order":1}',
        b'{"end":1,"changes":0,"stocks":true}',
        b'{"end":1,"changes":0,"stocks":1.0}',
        b'{"end":-1,"changes":0,"stocks":1}',
        b'{"end":9223372036854775808,"changes":0,"stocks":1}',
        b'{"end":1,"stocks":1,"changes":0}',
        b'{"end":1,"changes":0,"stocks":1,"more":1}',
        b'{"end":1,"changes":0,"stocks":1} ',
        b'{"backup":0,"cluster_id":"x","time_ms":1,"last_transaction":1}',
        b'{"backup":"1","cluster_id":"x","time_ms":1,"last_transaction":1}',
        b'{"stock":"","price_cents":1,"quantity":1}',
        b'{"stock":"\\ud800","price_cents":1,"quantity":1}',
        '{"stock":"é","price_cents":1,"quantity":1}'.encode(),
        encode(Trade(1, Order("k", "A", Side.BUY, 1), 1, 1, 1)).replace(b"buy", b"own")[:-1],
        b'{"change":1,"kind":"burn","name":"A","price_cents":0,"quantity":0,"version":1,'
        b'"time_ms":1}',
    ],
)
def test_what_is_no_line_is_refused(content):
    """Wrong fields, types, ranges, words or characters are damage."""
    with pytest.raises(Damaged):
        decode(content)


@given(st.lists(st.binary(max_size=50).map(lambda b: b.replace(b"\n", b"")), max_size=20))
def test_sealed_lines_are_read_as_they_were_written(contents):
    """In whatever pieces the file comes. Any gzip can read it, too."""
    file = b"".join(sealed(content + b"\n" for content in contents))
    for size in (1, 7, len(file)):
        assert list(unsealed(pieces(file, size))) == contents
    assert gzip.decompress(file) == b"".join(content + b"\n" for content in contents)


@given(histories(), st.sampled_from([1, 50, 10_000]))
def test_a_backup_is_read_as_it_was_written(history, size):
    """Every stock, order and change, and the state that they lead to."""
    playback, events = read(pieces(backup_of(history), size))
    assert tuple(playback.stocks) == history.began
    assert events == history.events
    assert playback.ledger.stocks() == history.ledger.stocks()
    assert playback.ledger.end == history.ledger.end


def test_every_truncation_is_found():
    """However few bytes are missing."""
    file = backup_of(made())
    for size in range(len(file)):
        with pytest.raises(Damaged):
            read([file[:size]])


def test_every_flipped_bit_is_found():
    """Anywhere, also in gzip's header and in the seal."""
    file = backup_of(made())
    for place in range(len(file)):
        for bit in range(8):
            changed = bytearray(file)
            changed[place] ^= 1 << bit
            with pytest.raises((Damaged, NewerFormat)):
                read([bytes(changed)])


def test_what_follows_a_backup_is_found():
    """A byte too many, or the file twice."""
    file = backup_of(made())
    for more in (b"\0", b"\n", file):
        with pytest.raises(Damaged):
            read([file + more])


def test_another_gzip_of_the_same_lines_is_refused():
    """Without the seal nobody knows whether it is complete."""
    with pytest.raises(Damaged, match="SHA-256"):
        read([gzip.compress(b"".join(lines(made())))])


def test_a_line_without_end_takes_no_memory():
    """What unpacks to more than the longest line is refused early."""
    file = b"".join(sealed([b"x" * (LINE_BYTES_MAX * 3)]))
    with pytest.raises(Damaged, match="more than"):
        read([file])


def test_a_newer_format_is_refused_by_its_name():
    """Whatever its other lines look like."""
    file = b"".join(sealed([b'{"backup":2,"anything":[]}\n', b"whatever\n"]))
    with pytest.raises(NewerFormat, match=f"format 2; this program reads format {FORMAT}"):
        read([file])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: found[1:], "line 1: it does not begin"),
        (lambda found: [*found[:1], *found[2:]], "invalid stock name"),
        (lambda found: [*found[:2], *found[1:]], "begins twice"),
        (lambda found: [*found[:5], *found[6:]], "version"),
        (lambda found: [*found[:5], *found[6:4:-1], *found[7:]], "version"),
        (lambda found: [*found[:-2], found[-1]], "does not end"),
        (lambda found: found[:-1], "no end"),
        (lambda found: [*found, found[-1]], "follows the end"),
        (lambda found: [encode(Header("x", 1, 9)), *found[1:]], "does not end"),
        (lambda found: [*found[:-1], found[0]], "does not end"),
    ],
)
def test_lines_that_do_not_fit_together_are_refused(change, words):
    """They are damage even if the seal is right."""
    with pytest.raises(Damaged, match=words):
        read(list(sealed(change(list(lines(made()))))))
