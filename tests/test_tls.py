"""Servers and clients with good certificates and with all kinds of bad ones, on real sockets."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.protocols.portforward import (
    ProxyClient,
    ProxyClientFactory,
    ProxyFactory,
    ProxyServer,
)
from twisted.python.threadpool import ThreadPool

from tests.certified import copied, issue, make
from tests.cluster_fixture import free_ports
from tests.rpc_fixture import LIMITS, REQUEST, WITHOUT_STREAMS, fails
from twstock.certificates import Certificates
from twstock.config import Limits
from twstock.errors import OutcomeUnknown, Unavailable
from twstock.market import BeginEpoch
from twstock.replication.messages import VoteReply, VoteRequest
from twstock.rpc.calls import Envelope, ExecutedTrades, Peer, Placement, PlaceOrder
from twstock.rpc.client import Client
from twstock.rpc.security import Plain, PlainWay, Tls
from twstock.rpc.server import Endpoint, Server
from twstock.rpc.wire import methods

VOTE = Envelope(Peer("order", "c", 1, 1), VoteRequest(1, 2, 1, 0, 0, False, False, 1))
GRANTED = VoteReply(2, 1, 1, True, False, 1)


@dataclass
class Ends:
    """The servers and clients of a test, and what the servers were asked."""

    threads: ThreadPool
    address: str = field(default_factory=lambda: f"127.0.0.1:{free_ports(1)}")
    asked: list[Any] = field(default_factory=list)
    servers: list[Server] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)

    async def vote(self, request: Envelope) -> VoteReply:
        """Answer RequestVote."""
        self.asked.append(request)
        return GRANTED

    async def order(self, request: PlaceOrder) -> Placement:
        """Answer Order."""
        self.asked.append(request)
        return Placement(len(self.asked))

    async def begin(self, request: BeginEpoch) -> ExecutedTrades:
        """Answer BeginEpoch, which is for order replicas."""
        self.asked.append(request)
        return ExecutedTrades((), 0)

    def serve(self, security: Any, limits: Limits) -> None:
        """Start a server with this security."""
        endpoints = [
            Endpoint(methods.ORDER_VOTE, self.vote, internal=True),
            Endpoint(methods.ORDER, self.order),
            Endpoint(methods.BEGIN_EPOCH, self.begin, internal=True),
        ]
        deliver = reactor.callFromThread  # type: ignore[attr-defined]
        server = Server(self.address, endpoints, reactor, deliver, limits, security=security)  # type: ignore[arg-type]
        server.startService()
        self.servers.append(server)

    def client(self, way: Any) -> Client:
        """A client that connects this way."""
        deliver = reactor.callFromThread  # type: ignore[attr-defined]
        client = Client(self.address, self.threads, reactor, deliver, LIMITS, way)  # type: ignore[arg-type]
        self.clients.append(client)
        return client


@pytest.fixture
def ends() -> Iterator[Ends]:
    """No server and no client yet."""
    threads = ThreadPool(1, 8, "test-tls")
    threads.start()
    made = Ends(threads)
    yield made
    for client in made.clients:
        client.close()
    for server in made.servers:
        if server.running:
            server.stopService()
    threads.stop()


@pytest.fixture(params=[LIMITS, WITHOUT_STREAMS], ids=["stream", "calls"])
def limits(request: Any) -> Limits:
    """The limits of a server that takes calls on a stream, or of one that takes only single
    calls.
    """
    found: Limits = request.param
    return found


def way(directory: Path, name: str, peer: str = "order-2") -> Any:
    """The way to a peer with the certificate of ``name``."""
    return Tls(Certificates(directory, name)).to(peer)


@dataclass
class Unchecked:
    """A way with a certificate that twstock would refuse to use, or with none."""

    directory: Path
    name: str = ""

    def open(self, address: str, options: Any) -> grpc.Channel:
        """A channel."""
        shown = [(self.directory / f"{self.name}.{e}").read_bytes() for e in ("key", "pem")]
        root = (self.directory / "trusted.pem").read_bytes()
        credentials = grpc.ssl_channel_credentials(root, *shown if self.name else ())
        named = (*options, ("grpc.ssl_target_name_override", "order-2"))
        return grpc.secure_channel(address, credentials, named)

    def is_outdated(self) -> bool:
        """Never."""
        return False


@pytest_twisted.ensureDeferred
async def test_members_talk_over_tls(ends: Ends, certificates: Path, limits: Limits) -> None:
    """Each side has a certificate with its name; it need not have an address."""
    ends.serve(Tls(Certificates(certificates, "order-2")), limits)
    client = ends.client(way(certificates, "order-1"))
    assert await client.call(methods.ORDER_VOTE, VOTE, 20.0) == GRANTED
    assert await client.call(methods.BEGIN_EPOCH, BeginEpoch(1, 0), 20.0) == ExecutedTrades((), 0)
    assert await client.call(methods.ORDER, REQUEST, 20.0) == Placement(3)
    assert len(ends.servers[0]._streams) == limits.rpc_streams_max // 2


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("name", ["order-3", "catalog-1", "front-1", "client"])
async def test_a_certificate_of_somebody_else_gives_no_vote(
    ends: Ends, certificates: Path, limits: Limits, name: str
) -> None:
    """A vote in the name of order-1 is refused and nothing happens; the same connection is good for
    other calls. The refusal is logged once.
    """
    told: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        told.extend([event["refusal"]] if "refusal" in event else [])

    ends.serve(Tls(Certificates(certificates, "order-2")), limits)
    client = ends.client(way(certificates, name))
    globalLogPublisher.addObserver(observe)
    try:
        for _ in range(2):
            refused = await fails(client.call(methods.ORDER_VOTE, VOTE, 20.0), Unavailable)
            assert "/twstock.Order/RequestVote is for order-1, not for " in str(refused)
    finally:
        globalLogPublisher.removeObserver(observe)
    assert ends.asked == []
    assert told == [str(refused)]
    assert await client.call(methods.ORDER, REQUEST, 20.0) == Placement(1)


@pytest_twisted.ensureDeferred
async def test_a_stranger_of_the_same_ca_may_call_nothing(
    ends: Ends, certificates: Path, tmp_path: Path, limits: Limits
) -> None:
    """A certificate of the right CA, but without a member's name, allows no call."""
    directory = copied(certificates, tmp_path / "tls")
    issue(directory, "client", "subjectAltName = DNS:somebody, URI:order-1, email:client")
    ends.serve(Tls(Certificates(certificates, "order-2")), limits)
    trusting(directory)
    client = ends.client(Unchecked(directory, "client"))
    refused = await fails(client.call(methods.ORDER, REQUEST, 20.0), Unavailable)
    assert "for anybody, not for a stranger" in str(refused)
    assert ends.asked == []


def trusting(directory: Path) -> None:
    """Have unchecked clients trust the CA of this directory."""
    (directory / "trusted.pem").write_bytes((directory / "ca.pem").read_bytes())


def nobody(directory: Path) -> Any:
    """No certificate."""
    (directory / ".key").touch()
    (directory / ".pem").touch()
    return Unchecked(directory)


def another_ca(directory: Path) -> Any:
    """A certificate of somebody else's CA."""
    other = make(directory / "other", "order-1")
    for end in ("key", "pem"):
        (directory / f"order-1.{end}").write_bytes((other / f"order-1.{end}").read_bytes())
    return Unchecked(directory, "order-1")


def ended(directory: Path) -> Any:
    """A certificate that was good until yesterday."""
    issue(directory, "order-1", days=-1)
    return Unchecked(directory, "order-1")


def for_servers_alone(directory: Path) -> Any:
    """A certificate that may be used only by servers."""
    issue(directory, "order-1", "subjectAltName = DNS:order-1\nextendedKeyUsage = serverAuth")
    return Unchecked(directory, "order-1")


def another_member(directory: Path) -> Any:
    """The server is not the member that the client wants."""
    return way(directory, "order-1", peer="order-3")


def without(directory: Path) -> Any:
    """No TLS at all."""
    return PlainWay()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "wrong", [nobody, another_ca, ended, for_servers_alone, another_member, without]
)
async def test_without_a_good_certificate_nothing_is_asked(
    ends: Ends, certificates: Path, tmp_path: Path, wrong: Callable[[Path], Any]
) -> None:
    """The connection fails, and those of others go on."""
    directory = copied(certificates, tmp_path / "tls")
    trusting(directory)
    ends.serve(Tls(Certificates(certificates, "order-2")), LIMITS)
    good = ends.client(way(certificates, "order-1"))
    assert await good.call(methods.ORDER, REQUEST, 20.0) == Placement(1)
    refused = await fails(
        ends.client(wrong(directory)).call(methods.ORDER, REQUEST, 20.0), OutcomeUnknown
    )
    assert "failed to connect" in str(refused)
    assert await good.call(methods.ORDER, REQUEST, 20.0) == Placement(2)
    assert len(ends.asked) == 2


@pytest_twisted.ensureDeferred
async def test_tls_to_a_plain_port_ends(ends: Ends, certificates: Path) -> None:
    """The client says that the handshake failed; the server serves others."""
    ends.serve(Plain(), LIMITS)
    refused = await fails(
        ends.client(way(certificates, "order-1")).call(methods.ORDER, REQUEST, 20.0), OutcomeUnknown
    )
    assert "handshake failed" in str(refused)
    assert await ends.client(PlainWay()).call(methods.ORDER, REQUEST, 20.0) == Placement(1)


@pytest_twisted.ensureDeferred
async def test_whoever_says_nothing_holds_up_nobody(ends: Ends, certificates: Path) -> None:
    """Many connections are silent or send bytes that are no handshake; a good client is served."""
    ends.serve(Tls(Certificates(certificates, "order-2")), LIMITS)
    host, _, port = ends.address.rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(50)]
    try:
        for connection in silent[::2]:
            connection.sendall(bytes(range(256)))
        client = ends.client(way(certificates, "order-1"))
        assert await client.call(methods.ORDER, REQUEST, 20.0) == Placement(1)
    finally:
        for connection in silent:
            connection.close()


@pytest_twisted.ensureDeferred
async def test_a_handshake_that_does_not_come_is_given_up(
    ends: Ends, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is closed after ``HANDSHAKE_MAX_MS``, with TLS and without; gRPC's default is
    two minutes.
    """
    monkeypatch.setattr("twstock.rpc.server.HANDSHAKE_MAX_MS", 200)
    for security in (Tls(Certificates(certificates, "order-2")), Plain()):
        ends.address = f"127.0.0.1:{free_ports(1)}"
        ends.serve(security, LIMITS)
        host, _, port = ends.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20.0) as silent:
            while await deferToThread(silent.recv, 1000):
                continue


class FarAway(ProxyClient):
    """The relay's end at the server: what comes from the server takes a while."""

    def dataReceived(self, data: bytes) -> None:
        """Pass it on, later."""
        reactor.callLater(0.3, self._pass_on, data)  # type: ignore[attr-defined]

    def _pass_on(self, data: bytes) -> None:
        if self.peer is not None:
            super().dataReceived(data)


class FarAwayFactory(ProxyClientFactory):
    """Makes such ends."""

    protocol = FarAway


class Relay(ProxyServer):
    """The relay's end at the client."""

    clientProtocolFactory = FarAwayFactory


@pytest_twisted.ensureDeferred
async def test_a_distant_member_is_reached(ends: Ends, certificates: Path) -> None:
    """A handshake takes several round trips. If that is longer than gRPC waits between two
    attempts, the connection is still not given up.
    """
    ends.serve(Tls(Certificates(certificates, "order-2")), LIMITS)
    host, _, port = ends.address.rpartition(":")
    relay = ProxyFactory(host, int(port))
    relay.protocol = Relay
    listening = reactor.listenTCP(0, relay, interface=host)  # type: ignore[attr-defined]
    ends.address = f"{host}:{listening.getHost().port}"
    client = ends.client(way(certificates, "order-1"))
    await eventually(client)
    client.close()
    await listening.stopListening()


@pytest_twisted.ensureDeferred
async def test_one_ca_replaces_another_step_by_step(
    ends: Ends, certificates: Path, tmp_path: Path
) -> None:
    """Members that trust both CAs talk to each other, whichever of them signed their
    certificates.
    """
    old = copied(certificates, tmp_path / "old")
    new = make(tmp_path / "new", "order-1", "order-2")
    both = b"".join((directory / "ca.pem").read_bytes() for directory in (old, new))
    for directory in (old, new):
        (directory / "ca.pem").write_bytes(both)
    ends.serve(Tls(Certificates(new, "order-2")), LIMITS)
    for number, directory in enumerate((old, new), start=1):
        client = ends.client(way(directory, "order-1"))
        assert await client.call(methods.ORDER, REQUEST, 20.0) == Placement(number)


@pytest_twisted.ensureDeferred
async def test_renewed_certificates_are_used_without_a_restart(
    ends: Ends, certificates: Path, tmp_path: Path
) -> None:
    """A server shows its new certificate on the next connection, a client when it connects again.
    Here all are of another CA than before, so that no old one would do.
    """
    directory = copied(certificates, tmp_path / "tls")
    server, client = Tls(Certificates(directory, "order-2")), way(directory, "order-1")
    ends.serve(server, LIMITS)
    calling = ends.client(client)
    assert await calling.call(methods.ORDER, REQUEST, 20.0) == Placement(1)
    other = make(tmp_path / "other", "order-1", "order-2", "order-3")
    for path in other.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    newcomer = ends.client(way(other, "order-3"))
    assert await newcomer.call(methods.ORDER, REQUEST, 20.0) == Placement(2)
    # What is open goes on, and what has to begin anew does so with the new certificate.
    assert await calling.call(methods.ORDER, REQUEST, 20.0) == Placement(3)
    await deferToThread(ends.servers[0]._server.stop(0).wait)  # type: ignore[union-attr]
    ends.servers[0].stopService()
    ends.serve(server, LIMITS)
    await eventually(calling)
    assert len(ends.asked) == 4


async def eventually(client: Client) -> None:
    """Call until it is answered: a client learns that a connection has ended only by its next
    call.
    """
    for _ in range(1000):
        try:
            await client.call(methods.ORDER, REQUEST, 20.0)
        except (OutcomeUnknown, Unavailable):
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]
            continue
        return
    raise AssertionError("no call was answered")


@pytest.mark.parametrize(
    ("host", "warns"), [("127.0.0.1", False), ("[::1]", False), ("localhost", False),
                        ("0.0.0.0", True), ("[::]", True)],
)  # fmt: skip
def test_a_port_without_tls_that_others_may_reach_is_told_of(host: str, warns: bool) -> None:
    """A warning is logged when a member listens without TLS on an address that other machines may
    reach.
    """
    told: list[dict[str, Any]] = []
    bound: list[str] = []
    server: Any = SimpleNamespace(add_insecure_port=bound.append)
    globalLogPublisher.addObserver(told.append)
    try:
        Plain().listen(server, f"{host}:50051")
    finally:
        globalLogPublisher.removeObserver(told.append)
    assert bound == [f"{host}:50051"]
    assert [event["log_level"].name for event in told] == (["warn"] if warns else [])
