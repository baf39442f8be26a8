"""The tables for people are current, whole, and nothing depends on them."""

import resource
import signal
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs

from tests.members import ClockThreads
from twstock.catalog.views import (
    PIECE,
    Lines,
    StocksView,
    stock_line,
    write_stocks,
)
from twstock.csvtext import csv_field, csv_line
from twstock.errors import TwstockError, Unavailable
from twstock.market import Order, Side, Stock, Trade, price_text
from twstock.order import views
from twstock.order.views import FAILED_PAUSE_S, HEADER, ORDERS_PER_WRITE, OrderLogView

A = Stock("A", 1599, 100, 0, 0, 100)
B = A._replace(name="B")
TEXT = "name,price,quantity,volume\nA,15.99,100,0\n"


class Source:
    """A state that changes when told to."""

    def __init__(self) -> None:
        self.digest = b""
        self._stocks: tuple[Stock, ...] = ()

    def become(self, *stocks: Stock) -> None:
        """Change."""
        self.digest += b"x"
        self._stocks = stocks

    def snapshot(self) -> tuple[list[str], dict[str, Stock]]:
        """All stocks."""
        return table_of(self._stocks)


def never() -> None:
    """No pause is expected, because the table is a single piece."""
    raise AssertionError


def table_of(stocks: Iterable[Stock]) -> tuple[list[str], dict[str, Stock]]:
    """Names in sequence, and stocks by name."""
    found = {stock.name: stock for stock in stocks}
    return sorted(found), found


class Scene:
    """A view that is looked after every half second; ``written`` counts the writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.source: Source | None = Source()
        self.written = 0
        self.held: list[Callable[[], None]] | None = None
        self.view = StocksView(path, lambda: self.source, self.clock, 0.5, self.in_thread)

    def in_thread(self, function: Callable[..., Any], *args: Any) -> "Deferred[Any]":
        """A thread that works at once, or when the test says so."""
        self.written += 1
        if self.held is None:
            return execute(function, *args)
        done: Deferred[Any] = Deferred()
        self.held.append(lambda: execute(function, *args).chainDeferred(done))
        return done


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A view of one stock that has been started."""
    made = Scene(tmp_path / "stocks.csv")
    assert made.source is not None
    made.source.become(A)
    made.view.startService()
    return made


def stop(scene: Scene) -> None:
    """Stop the view."""
    done: list[object] = []
    scene.view.stopService().addBoth(done.append)
    assert done == [None]
    assert scene.clock.getDelayedCalls() == []


def test_the_file_follows_the_state_within_half_a_second(scene: Scene) -> None:
    """Prices have two decimals; nothing is written when nothing changed."""
    assert scene.path.read_text() == TEXT
    scene.clock.advance(0.5)
    assert scene.written == 1
    assert scene.source is not None
    scene.source.become(Stock("A", 5, 99, 1, 1, 100), Stock("B, Inc", 700, 0))
    scene.clock.advance(0.5)
    rows = 'A,0.05,99,1\n"B, Inc",7.00,0,0\n'
    assert scene.path.read_text() == "name,price,quantity,volume\n" + rows
    assert [path.name for path in scene.path.parent.iterdir()] == ["stocks.csv"]
    stop(scene)


def test_a_write_that_takes_long_is_not_repeated_soon(scene: Scene) -> None:
    """The table of a large catalog is not written all the time, but its last state is."""
    assert scene.source is not None
    scene.held = []
    scene.source.become(Stock("A", 5, 99))
    scene.clock.advance(0.5)
    assert scene.written == 2
    scene.clock.advance(1.0)  # so long it takes
    scene.held.pop()()
    scene.held = None
    scene.source.become(A)
    scene.clock.advance(0.5)
    assert scene.written == 2
    scene.clock.pump([0.5] * 4)
    assert scene.written == 3
    assert scene.path.read_text() == TEXT
    stop(scene)


@given(st.text())
def test_a_field_is_quoted_as_in_a_line(text: str) -> None:
    """The fast way to quote a field gives the same as the csv module."""
    assert csv_field(text) + ",1\n" == csv_line((text, 1))


def test_nothing_is_written_before_there_is_a_state(tmp_path: Path) -> None:
    """A member that is still starting has no state."""
    scene = Scene(tmp_path / "stocks.csv")
    scene.source = None
    scene.view.startService()
    assert scene.written == 0
    stop(scene)


def test_a_file_that_cannot_be_written_is_logged_once_and_tried_again(scene: Scene) -> None:
    """The failure ends no process and leaves no unfinished file; the table is written as soon as it
    is possible. A later failure is logged again.
    """
    assert scene.source is not None
    for _ in range(2):
        scene.path.unlink()
        scene.path.mkdir()
        scene.source.become(A)
        with capturedLogs() as logged:
            scene.clock.pump([0.5, 0.5, 0.5])
        assert len(logged) == 1
        assert list(scene.path.parent.iterdir()) == [scene.path]
        scene.path.rmdir()
        scene.clock.advance(0.5)
        assert scene.path.read_text() == TEXT
    stop(scene)


def test_a_slow_write_is_not_overtaken(scene: Scene) -> None:
    """The next write begins when the one before has ended."""
    assert scene.source is not None
    scene.held = []
    for _ in range(4):
        scene.source.become(A)
        scene.clock.advance(0.5)
    assert len(scene.held) == 1
    scene.held.pop()()
    scene.held = None
    stop(scene)


def test_the_last_state_is_written_when_the_service_stops(scene: Scene) -> None:
    """The file has everything after a stop."""
    assert scene.source is not None
    scene.source.become()
    stop(scene)
    assert scene.path.read_text() == "name,price,quantity,volume\n"


def test_the_last_state_is_written_without_pauses(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large table is written with pauses, but there is not much time for a stop."""
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    assert scene.source is not None
    for expected in (1, 2):
        scene.source.become(*(A._replace(name=f"{number:06}") for number in range(PIECE + 1)))
        scene.clock.advance(0.5)
        assert len(pauses) == expected
    scene.source.become(*(B._replace(name=f"{number:06}") for number in range(PIECE + 1)))
    stop(scene)
    assert len(pauses) == 2
    assert scene.path.read_text().count("\n") == PIECE + 2


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """The new file replaces the old one as a whole: whoever has opened the old one reads all of
    it.
    """
    path = tmp_path / "stocks.csv"
    lines = Lines()
    write_stocks(path, lines.pieces(*table_of([A])), never)
    with path.open() as reader:
        write_stocks(path, lines.pieces(*table_of([A, B])), never)
        assert reader.read() == TEXT


STOCKS = st.lists(st.sampled_from([A._replace(name=n, volume=v) for n in "ABC" for v in (0, 1)]))


@given(st.lists(STOCKS, max_size=6))
def test_lines_that_are_kept_are_those_that_would_be_made(tables: list[list[Stock]]) -> None:
    """Lines that are kept from one table to the next are right, whatever changes, comes and
    goes.
    """
    lines = Lines()
    for stocks in tables:
        names, found = table_of(stocks)
        expected = [stock_line(found[name]) for name in names]
        assert b"".join(lines.pieces(names, found)) == "".join(expected).encode()


def test_a_large_table_is_made_in_pieces(tmp_path: Path) -> None:
    """With a pause after each piece the file has all lines in order, also one in the middle that
    changed.
    """
    names, found = table_of(A._replace(name=f"{number:06}") for number in range(2 * PIECE + 1))
    lines, path = Lines(), tmp_path / "stocks.csv"
    assert [piece.count(b"\n") for piece in lines.pieces(names, found)] == [PIECE, PIECE, 1]
    found[names[PIECE]] = found[names[PIECE]]._replace(volume=7)
    pauses: list[None] = []
    write_stocks(path, lines.pieces(names, found), lambda: pauses.append(None))
    assert len(pauses) == 2
    text = path.read_text().splitlines(keepends=True)
    assert text[1:] == [stock_line(found[name]) for name in names]


@pytest.mark.parametrize(
    ("cents", "text"), [(0, "0.00"), (5, "0.05"), (10**17 + 1, f"{10**15}.01")]
)
def test_prices_are_exact(cents: int, text: str) -> None:
    """A price does not become a float on its way into the file."""
    assert price_text(cents) == text


class OrderLog:
    """``order_log_1.csv``, looked after every half second, with orders that a test makes."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "order_log_1.csv"
        self.clock = Clock()
        self.trades: list[Trade] = []
        threads: Any = ClockThreads(self.clock)
        reactor: Any = self.clock
        reactor.callFromThread = lambda function, *args: self.clock.callLater(0, function, *args)
        self.view = OrderLogView(
            self.path, lambda: len(self.trades), self.after, reactor, threads, 0.5
        )
        self.view.startService()

    async def after(self, number: int, limit: int) -> list[Trade]:
        """The orders after a number, as the order replica gives them."""
        return self.trades[number : number + limit]

    def trade(self) -> None:
        """One more order."""
        number = len(self.trades) + 1
        self.trades.append(Trade(number, Order(f"k{number}", "A", Side.BUY, 5), 1, 1599, 0))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.pump([0.1] * round(seconds / 0.1))


def test_the_order_log_grows_with_the_orders(tmp_path: Path) -> None:
    """The file has a header, then a line for each order."""
    log = OrderLog(tmp_path)
    log.run(1.0)
    assert log.path.read_text() == HEADER
    log.trade()
    log.run(1.0)
    log.trade()
    log.run(1.0)
    assert log.path.read_text() == f"{HEADER}1,A,buy,5\n2,A,buy,5\n"
    log.view.stopService()


class SlowOrderLog(OrderLog):
    """An order log whose pages take a quarter of a second each; ``reads`` are the times at which
    they were asked for.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.reads: list[float] = []
        for _ in range(3 * ORDERS_PER_WRITE):
            self.trade()

    async def after(self, number: int, limit: int) -> list[Trade]:
        """The orders after a number, after a while."""
        self.reads.append(self.clock.seconds())
        await deferLater(self.clock, 0.25)  # type: ignore[arg-type]
        return await super().after(number, limit)


def test_a_long_order_log_is_written_with_rests(tmp_path: Path) -> None:
    """At a start there may be millions of orders, and placing orders needs the tables, too: so
    there is a pause after each page.
    """
    log = SlowOrderLog(tmp_path)
    log.run(3.0)
    assert len(log.path.read_text().splitlines()) == 1 + 3 * ORDERS_PER_WRITE
    first, second, third = log.reads
    assert min(second - first, third - second) >= 0.5
    log.view.stopService()


def test_an_order_log_that_rests_stops_at_once(tmp_path: Path) -> None:
    """After the stop no timer is left, and nothing more is read."""
    log = SlowOrderLog(tmp_path)
    while not log.path.exists() or log.view._resting.called:
        log.run(0.1)
        assert log.clock.seconds() < 5.0
    log.view.stopService()
    assert log.clock.getDelayedCalls() == []
    log.run(3.0)
    assert len(log.reads) == 1


def test_on_a_full_disk_the_order_log_keeps_what_it_has(tmp_path: Path) -> None:
    """The file keeps its whole lines, and is not written anew on a full disk. With space the other
    lines follow.
    """
    log = OrderLog(tmp_path)
    log.trade()
    log.run(1.0)
    for _ in range(300):
        log.trade()
    files = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(HEADER) + 500, files[1]))
    try:
        with capturedLogs() as logged:
            log.run(FAILED_PAUSE_S * 3)
        assert log.path.read_text() == f"{HEADER}1,A,buy,5\n"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, files)
        signal.signal(signal.SIGXFSZ, ignored)
    assert len(logged) == 1
    log.run(FAILED_PAUSE_S + 1)
    assert log.path.read_text().splitlines()[-1] == "301,A,buy,5"
    assert len(log.path.read_text().splitlines()) == 302
    log.view.stopService()


def test_an_order_log_that_was_taken_away_is_made_anew(tmp_path: Path) -> None:
    """People may do with the file what they like."""
    log = OrderLog(tmp_path)
    log.trade()
    log.run(1.0)
    log.path.unlink()
    log.trade()
    with capturedLogs() as logged:
        log.run(1.0)
    assert logged == []
    assert log.path.read_text() == f"{HEADER}1,A,buy,5\n2,A,buy,5\n"
    log.view.stopService()


@pytest.mark.logs_failures
def test_whatever_goes_wrong_once_the_order_log_goes_on(tmp_path: Path) -> None:
    """An unexpected error is logged, and the next attempt succeeds."""
    log = OrderLog(tmp_path)
    log.trade()
    problems = [sqlite3.OperationalError("disk I/O error")]
    after = log.after

    async def once(number: int, limit: int) -> list[Trade]:
        if problems:
            raise problems.pop()
        return await after(number, limit)

    log.view._orders_after = once
    with capturedLogs() as logged:
        log.run(2.0)
    assert [event["log_failure"].type for event in logged] == [sqlite3.OperationalError]
    assert log.path.read_text() == f"{HEADER}1,A,buy,5\n"
    log.view.stopService()


def test_an_order_log_that_cannot_be_written_is_logged_once_and_made_anew(tmp_path: Path) -> None:
    """It is tried again only after a pause, because on a full disk that is work for nothing. A
    later failure is logged again.
    """
    log = OrderLog(tmp_path)
    log.path.mkdir()
    log.trade()
    tried: list[int] = []

    async def after(number: int, limit: int) -> list[Trade]:
        tried.append(number)
        return await log.after(number, limit)

    log.view._orders_after = after
    with capturedLogs() as logged:
        log.run(FAILED_PAUSE_S * 3)
    assert len(logged) == 1
    assert 2 <= len(tried) <= 4
    log.path.rmdir()
    log.trade()
    log.run(FAILED_PAUSE_S + 1)
    assert log.path.read_text() == f"{HEADER}1,A,buy,5\n2,A,buy,5\n"
    log.path.unlink()
    log.path.mkdir()
    log.trade()
    with capturedLogs() as logged:
        log.run(FAILED_PAUSE_S * 3)
    assert len(logged) == 1
    log.view.stopService()


def lines_of(log: OrderLog) -> bytes:
    """What the file has to have."""
    return "".join(
        [HEADER, *(f"{number},A,buy,5\n" for number in range(1, len(log.trades) + 1))]
    ).encode()


class NextLog(OrderLog):
    """The order log of the next process, which has the orders of the one before; ``asked`` are the
    numbers after which it asked for orders.
    """

    def __init__(self, log: OrderLog, known: int | None = None) -> None:
        log.view.stopService()
        self.asked: list[int] = []
        super().__init__(log.path.parent)
        self.trades = log.trades[:known]

    async def after(self, number: int, limit: int) -> list[Trade]:
        """The orders after a number, as the order replica gives them."""
        self.asked.append(number)
        return await super().after(number, limit)


@pytest.fixture
def log(tmp_path: Path) -> OrderLog:
    """An order log of three orders that are written."""
    log = OrderLog(tmp_path)
    for _ in range(3):
        log.trade()
    log.run(1.0)
    assert log.path.read_bytes() == lines_of(log)
    return log


def test_the_next_process_goes_on_with_the_file(log: OrderLog) -> None:
    """It asks for one order, to see that the file is right, and then only for those that are
    missing.
    """
    again = NextLog(log)
    again.trade()
    again.run(1.0)
    assert again.asked == [2, 3]
    assert again.path.read_bytes() == lines_of(again)
    again.view.stopService()


@pytest.mark.parametrize("cut", range(len(HEADER) + 3 * len("1,A,buy,5\n")))
def test_a_torn_file_is_mended(log: OrderLog, cut: int) -> None:
    """The file is completed wherever it ends, also if more bytes follow than the process would
    write.
    """
    content = log.path.read_bytes()
    for torn in (content[:cut], content[:cut] + bytes(100)):
        log.path.write_bytes(torn)
        log = NextLog(log)
        log.trade()
        log.run(1.0)
        assert log.path.read_bytes() == lines_of(log)
    log.view.stopService()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "another header": lambda content: content.replace(b"type", b"side"),
    "a line less": lambda content: content.replace(b"1,A,buy,5\n", b""),
    "a line more": lambda content: content.replace(b"1,A,buy,5\n", b"1,A,buy,5\n\n"),
    "zeros": lambda content: content.replace(b"1,A,buy,5\n", bytes(10)),
    "another order": lambda content: content.replace(b"3,A,buy,5", b"3,A,buy,6"),
    "of another cluster": lambda content: content + b"4,B,sell,1\n",
}


def assert_written_anew(log: OrderLog) -> None:
    """The next process writes the right file."""
    again = NextLog(log)
    again.run(1.0)
    assert again.path.read_bytes() == lines_of(again)
    again.view.stopService()


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_file_that_does_not_look_right_is_written_anew(
    log: OrderLog, damage: Callable[[bytes], bytes]
) -> None:
    """Whatever was changed in the file, the next process writes all of it again."""
    log.trade()
    log.path.write_bytes(damage(log.path.read_bytes()))
    assert_written_anew(log)


def test_a_file_that_ends_in_zeros_is_written_anew(
    log: OrderLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a power cut, more zeros follow than are looked at."""
    monkeypatch.setattr(views, "_TAIL_BYTES", 25)
    log.path.write_bytes(log.path.read_bytes() + bytes(100))
    assert_written_anew(log)


def test_a_file_that_must_not_be_changed_is_replaced(
    log: OrderLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that another user saved cannot be changed, but the directory is the replica's."""

    def deny(path: Path, size: int) -> None:
        raise PermissionError(f"{path} to {size}")

    monkeypatch.setattr("os.truncate", deny)
    again = NextLog(log)
    again.trade()
    again.run(1.0)
    assert again.path.read_bytes() == lines_of(again)
    again.view.stopService()


def test_what_a_process_does_not_know_yet_is_written_again(log: OrderLog) -> None:
    """After a crash the state may be behind the file for a moment. The file then has what the state
    has, and is not written from the beginning.
    """
    again = NextLog(log, known=2)
    again.run(1.0)
    assert again.path.read_bytes() == lines_of(again)
    again.trades = log.trades
    again.run(1.0)
    assert again.path.read_bytes() == lines_of(log)
    assert 0 not in again.asked
    again.view.stopService()


def test_a_file_far_ahead_is_written_anew(log: OrderLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the file is far ahead of the state, the replica's log may be another one, so the file is
    written from the beginning.
    """
    monkeypatch.setattr(views, "_TAIL_BYTES", 25)  # two lines and a half
    for known, first in ((2, [1]), (1, [0, 0])):
        again = NextLog(log, known=known)
        again.run(1.0)
        assert again.asked == first
        assert again.path.read_bytes() == lines_of(again)
        again.path.write_bytes(lines_of(log))
    again.view.stopService()


def test_the_file_waits_until_the_replica_has_its_state(log: OrderLog) -> None:
    """While the replica starts and has no orders, the file is not taken for one of another
    cluster.
    """
    again = NextLog(log, known=0)
    after = again.view._orders_after
    problems: list[TwstockError] = [Unavailable("starting")] * 3

    async def later(number: int, limit: int) -> Sequence[Trade]:
        if problems:
            error = problems.pop()
            again.trades = log.trades if not problems else []
            raise error
        return await after(number, limit)

    again.view._orders_after = later
    again.run(3.0)
    assert problems == []
    assert again.asked == [2]
    again.view.stopService()
