"""What a member learns from the network about a peer that does not answer."""

import socket
from collections.abc import Iterator

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.python.threadpool import ThreadPool

from tests.cluster_fixture import free_ports
from tests.rpc_fixture import fails
from twstock.config import Address, Limits
from twstock.errors import OutcomeUnknown
from twstock.replication.messages import VoteRequest
from twstock.replication.transport import GrpcTransport
from twstock.rpc.calls import Envelope, Fetch, Peer, Probe, SyncedUp
from twstock.rpc.security import Plain

LIMITS = Limits(control_deadline_s=0.2)


class Ends:
    """A transport to one peer, whose address nobody listens on yet."""

    def __init__(self, threads: ThreadPool) -> None:
        self.address = Address("127.0.0.1", free_ports(1))
        deliver = reactor.callFromThread  # type: ignore[attr-defined]
        self.transport = GrpcTransport(
            "order", {3: self.address}, threads, reactor, deliver, LIMITS, Plain()
        )
        self.sockets: list[socket.socket] = []

    def listen(self, backlog: int = 5) -> None:
        """From now on connections are taken, but nobody answers."""
        listener = socket.create_server((self.address.host, self.address.port), backlog=backlog)
        self.sockets.append(listener)

    def connect(self) -> None:
        """Fill one place in the listener's queue."""
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex((self.address.host, self.address.port))
        self.sockets.append(client)


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A transport with threads of its own."""
    threads = ThreadPool(1, 2, "test-transport")
    threads.start()
    both = Ends(threads)
    yield both
    both.transport.close()
    for each in both.sockets:
        each.close()
    threads.stop()


@pytest_twisted.ensureDeferred
async def test_a_refused_connection_is_a_dead_process(ends: Ends) -> None:
    """The peer's machine says that nobody listens, so its process is gone."""
    assert await ends.transport.is_gone(3)


@pytest_twisted.ensureDeferred
async def test_an_old_refusal_is_no_news(ends: Ends) -> None:
    """A gRPC channel repeats its last refusal while it waits to try again. ``is_gone`` makes a
    connection of its own, and finds that the process lives.
    """
    await fails(ends.transport.probe(3, Probe()), OutcomeUnknown)
    ends.listen()
    assert not await ends.transport.is_gone(3)


@pytest_twisted.ensureDeferred
async def test_silence_is_no_proof(ends: Ends) -> None:
    """If no connection is made and none refused, the peer may still lead: its machine may drop
    packets, or its process be stopped.
    """
    ends.listen(backlog=0)
    for _ in range(4):
        ends.connect()
    assert not await ends.transport.is_gone(3)


@pytest_twisted.ensureDeferred
async def test_a_silent_peer_is_waited_for_half_of_the_deadline(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other half is for the answer to the call because of which it is asked."""
    waited_s: list[float] = []

    def refuses(_: Address, seconds: float) -> bool:
        waited_s.append(seconds)
        return False

    monkeypatch.setattr("twstock.replication.transport._refuses", refuses)
    assert not await ends.transport.is_gone(3)
    assert waited_s == [LIMITS.control_deadline_s / 2]


def test_a_vote_is_waited_for_as_long_as_entries_are(ends: Ends) -> None:
    """The vote has to be on the voter's disk first, and that may be as slow as for entries."""
    deadlines: list[float] = []

    def call(_method: object, _request: object, deadline_s: float) -> "Deferred[None]":
        deadlines.append(deadline_s)
        return Deferred()

    ends.transport._control[3].call = call  # type: ignore[method-assign, assignment]
    request = VoteRequest(1, 3, 1, 0, 0)
    ends.transport.send(3, Envelope(Peer("order", "test", 1, 101), request))
    assert deadlines == [LIMITS.append_deadline_s]


@pytest_twisted.ensureDeferred
async def test_a_pull_without_entries_is_a_failed_call(ends: Ends) -> None:
    """An answer that lacks the entries is an error of the call, and does not end the member that
    asked: it may ask another peer.
    """

    def answers(*_: object) -> "Deferred[SyncedUp]":
        return succeed(SyncedUp())

    ends.transport._bulk[3].call = answers  # type: ignore[method-assign, assignment]
    await fails(ends.transport.fetch(3, Fetch(Peer("order", "test", 1, 101), 0)), OutcomeUnknown)
