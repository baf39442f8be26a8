"""Connections that are polled together are served as the reactor itself would serve them."""

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from twstock.web.http.poll import READY_MAX, TURN_S, Poll, PolledServer, write_now


class Reactor(Clock):
    """A clock that remembers who wants to read and to write."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []
        self.writers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        """Somebody wants to read; nobody is added twice."""
        assert reader not in self.readers
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        """Somebody does not want to read any more; as in a real reactor, it need not have been
        added.
        """
        if reader in self.readers:
            self.readers.remove(reader)

    def addWriter(self, writer: Any) -> None:
        """Somebody waits until it may write."""
        if writer not in self.writers:
            self.writers.append(writer)

    def removeWriter(self, writer: Any) -> None:
        """Somebody does not wait any more."""
        if writer in self.writers:
            self.writers.remove(writer)


class Server(Protocol):
    """Remembers what arrived, and calls ``then`` each time."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.lost: list[type] = []
        self.then: Callable[[], object] = lambda: None

    def dataReceived(self, data: bytes) -> None:
        """Something arrived."""
        self.received.append(data)
        self.then()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is over."""
        self.lost.append(reason.type)


class Room:
    """A poll, and the connections that it reads from."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.poll = Poll(self.reactor)
        self.port = Factory()
        self.poll.serve(self.port)
        self.clients: list[socket.socket] = []
        self.made: list[PolledServer] = []

    def connect(self, count: int = 1) -> list[Server]:
        """Make connections as a port does that accepts them."""
        protocols = [Server() for _ in range(count)]
        for protocol in protocols:
            client, server = socket.socketpair()
            port: Any = self.port
            made = port.transport(server, protocol, ("h", 1), None, 1, self.reactor)
            protocol.makeConnection(made)
            self.clients.append(client)
            self.made.append(made)
        return protocols

    def send(self, data: bytes) -> None:
        """Every client sends something."""
        for client in self.clients:
            client.send(data)


@pytest.fixture
def room() -> Iterator[Room]:
    """A poll; the connections that are left at the end are closed."""
    made = Room()
    yield made
    made.poll.connectionLost(Failure(ConnectionDone()))
    for client in made.clients:
        client.close()


def test_all_that_are_ready_are_served_in_one_turn(room: Room) -> None:
    """The reactor knows only the poll, which reads from all connections on which something
    arrived.
    """
    one, other, silent = room.connect(3)
    room.clients.pop().close()
    room.made.pop().abortConnection()
    room.reactor.advance(0)
    room.send(b"x")
    assert room.reactor.readers == [room.poll]
    room.poll.doRead()
    assert (one.received, other.received, silent.received) == ([b"x"], [b"x"], [])


def test_who_sends_again_at_once_is_read_again_but_not_for_ever(room: Room) -> None:
    """After a bounded number of reads the reactor has its turn, however many connections are
    ready.
    """
    (eager,) = room.connect()

    def send_again() -> None:
        if len(eager.received) < 2 * READY_MAX:  # for ever would be a test that hangs
            room.send(b"y")

    eager.then = send_again
    room.send(b"y")
    room.poll.doRead()
    assert len(eager.received) == READY_MAX
    eager.then = lambda: None
    room.poll.doRead()
    assert len(eager.received) == READY_MAX + 1
    crowd = room.connect(READY_MAX + 5)
    room.send(b"z")
    for _ in range(2):
        room.poll.doRead()
    assert all(each.received == [b"z"] for each in crowd)


def test_the_reactor_has_its_turn_after_much_work(room: Room) -> None:
    """When serving a connection has taken long, the reactor has its turn; the others are served in
    the next ones.
    """
    crowd = room.connect(3)
    for each in crowd:
        each.then = lambda: room.reactor.advance(TURN_S)
    room.send(b"x")
    for turn in (1, 2, 3):
        room.poll.doRead()
        assert sum(len(each.received) for each in crowd) == turn
    assert all(each.received == [b"x"] for each in crowd)


def test_what_a_lost_connection_did_not_send_is_dropped(room: Room) -> None:
    """Something may keep a lost connection in memory for a while, so what it had to send is dropped
    at once.
    """
    (lost,) = room.connect()
    (transport,) = room.made
    transport.write(b"x" * 10_000_000)
    transport.doWrite()
    transport.write(b"y")
    assert len(transport.dataBuffer) == 10_000_000
    transport.connectionLost(Failure(ConnectionDone()))
    assert lost.lost == [ConnectionDone]
    assert (transport.dataBuffer, transport._tempDataBuffer) == (b"", [])


def test_who_is_lost_while_another_is_served_is_not_read(room: Room) -> None:
    """A connection that is lost while another one is served is not read, as its descriptor may be
    another one's by then.
    """
    pair = room.connect(2)
    for each, other in zip(pair, reversed(pair), strict=True):
        each.then = lambda end=other: end.transport.connectionLost(  # type: ignore[misc]
            Failure(ConnectionDone())
        )
    room.send(b"x")
    with capturedLogs() as logged:
        room.poll.doRead()
    assert sorted(len(each.received) for each in pair) == [0, 1]
    assert logged == []


@pytest.mark.logs_failures
@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
def test_an_error_ends_one_connection_alone(room: Room, error: type[BaseException]) -> None:
    """The error is logged, and only the connection on which it was raised is closed."""

    def fail() -> None:
        raise error

    bad, good = room.connect(2)
    bad.then = fail
    room.send(b"x")
    with capturedLogs() as logged:
        room.poll.doRead()
    assert [event["log_failure"].type for event in logged] == [error]
    assert (bad.lost, good.received, good.lost) == ([error], [b"x"], [])
    assert room.reactor.readers == [room.poll]


def test_a_connection_that_ends_says_how(room: Room) -> None:
    """The protocol is told whether the connection was closed in order or reset."""
    closed, reset = room.connect(2)
    room.clients[0].close()
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    accepted, _ = listener.accept()
    room.poll.discard(room.made[1])
    room.made[1].socket.close()
    room.made[1].socket, room.made[1].fileno = accepted, accepted.fileno
    accepted.setblocking(False)
    room.poll.add(room.made[1])
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    listener.close()
    room.poll.doRead()
    assert (closed.lost, reset.lost) == ([ConnectionDone], [ConnectionLost])


def test_nobody_is_read_from_who_has_paused(room: Room) -> None:
    """What is sent to a paused connection is read only when it resumes."""
    (paused,) = room.connect()
    (transport,) = room.made
    transport.pauseProducing()
    transport.pauseProducing()
    room.send(b"x")
    room.poll.doRead()
    assert paused.received == []
    assert room.reactor.readers == []
    transport.resumeProducing()
    transport.resumeProducing()
    room.poll.doRead()
    assert paused.received == [b"x"]


def test_the_reactor_knows_a_poll_as_long_as_it_has_members(room: Room) -> None:
    """The poll leaves the reactor with its last connection, and is back with the next one."""
    for _ in range(2):
        room.connect(2)
        assert room.reactor.readers == [room.poll]
        for transport in room.made:
            transport.abortConnection()
        room.reactor.advance(0)
        assert room.reactor.readers == []
        room.made.clear()


def test_the_end_of_the_reactor_is_the_end_of_all(room: Room) -> None:
    """When the reactor gives the poll up, all connections that it reads from are told."""
    both = room.connect(2)
    room.poll.connectionLost(Failure(ConnectionLost()))
    assert [each.lost for each in both] == [[ConnectionLost]] * 2
    assert room.reactor.readers == []


def test_what_the_kernel_does_not_take_is_written_later(room: Room) -> None:
    """The reactor writes what the kernel did not take at once, and whatever comes after that."""
    room.connect()
    (transport,) = room.made
    write_now(transport, b"now")
    assert (room.clients[0].recv(99), room.reactor.writers) == (b"now", [])
    write_now(transport, b"x" * 10_000_000)
    assert room.reactor.writers == [transport]
    room.clients[0].settimeout(5)
    data = room.clients[0].recv(10_000_000)
    write_now(transport, b"last")
    while not data.endswith(b"last"):
        transport.doWrite()
        data += room.clients[0].recv(10_000_000)
    assert data == b"x" * 10_000_000 + b"last"
    assert room.reactor.writers == []


@pytest_twisted.ensureDeferred
async def test_a_port_of_twisted_serves_through_a_poll() -> None:
    """Twisted is as the poll needs it: a port makes what its ``transport`` says, and reading begins
    and ends with ``startReading`` and ``stopReading``.
    """
    real: Any = reactor
    over: Deferred[None] = Deferred()

    class Echo(Protocol):
        def dataReceived(self, data: bytes) -> None:
            write_now(self.transport, data)

        def connectionLost(self, _reason: Failure = connectionDone) -> None:
            over.callback(None)

    port = real.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
    poll = Poll(reactor)
    poll.serve(port)
    before = set(real.getReaders())

    def talk() -> list[bytes]:
        with socket.create_connection(("127.0.0.1", port.getHost().port), 5) as client:
            told = []
            for text in (b"one", b"two"):
                client.sendall(text)
                told.append(client.recv(99))
                during.append(set(real.getReaders()) - before)
            return told

    during: list[set[Any]] = []
    assert await deferToThread(talk) == [b"one", b"two"]
    await over
    assert during == [{poll}, {poll}]
    assert poll not in real.getReaders()
    await port.stopListening()
