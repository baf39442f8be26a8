"""One process of the chain of gRPC streams: twstock's own transport, threads and reactor."""

import gc
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.protocol import Factory, Protocol

from bench.peers.chain import HTTP_REPLY, REPLY, REQUEST, Log, Role, arguments
from twstock.config import Limits
from twstock.doorbell import use_doorbell
from twstock.rpc.client import Client
from twstock.rpc.server import Endpoint, Server
from twstock.rpc.wire.methods import Method
from twstock.threads import Pool, Worker, in_thread

DEADLINE_S = 2.0
CALLS_MAX = 16
LIMITS = Limits()


def _same(data: bytes) -> bytes:
    return data


METHOD = Method("Chain", "Pass", _same, _same, _same, _same)
Answer = Callable[[bytes], Coroutine[Any, Any, bytes]]


class Node:
    """What every process has: calls to others, and a thread that writes to disk."""

    def __init__(self, clock: Any, first: int, log: Log) -> None:
        self._clock = clock
        self._first = first
        self._log = log
        self._calls, self._disk = Pool("calls", CALLS_MAX), Worker("disk")
        self._calls.startService()
        self._disk.startService()

    def client(self, role: Role) -> Client:
        """A client of another process."""
        address = f"127.0.0.1:{self._first + role}"
        return Client(address, self._calls.threads, self._clock, self._clock.callFromThread, LIMITS)

    def commit(self) -> "Deferred[None]":
        """Fires when an entry is on disk."""
        return in_thread(self._disk, self._clock.callFromThread, partial(self._log.commit, REQUEST))

    def serve(self, role: Role, answer: Answer) -> None:
        """Answer every call."""
        endpoint = Endpoint(METHOD, answer, internal=True)
        address = f"127.0.0.1:{self._first + role}"
        clock = self._clock
        Server(address, [endpoint], clock, clock.callFromThread, LIMITS).startService()

    def lead(self) -> Answer:
        """How the order leader answers: when the catalog has, and a majority of three."""
        catalog = self.client(Role.CATALOG)
        followers = [self.client(Role.FOLLOWER), self.client(Role.OTHER_FOLLOWER)]

        async def answer(_: bytes) -> bytes:
            await ask(catalog)
            first = DeferredList([ask(each) for each in followers], fireOnOneCallback=True)
            await self.commit()
            await first
            return REPLY

        return answer

    async def write(self, _: bytes) -> bytes:
        """How the catalog and a follower answer: when an entry is on disk."""
        await self.commit()
        return REPLY


def ask(client: Client) -> "Deferred[bytes]":
    """One call."""
    return client.call(METHOD, REQUEST, DEADLINE_S)


class Front(Protocol):
    """One connection over HTTP: each request comes in one piece."""

    leader: Client
    transport: Any

    def dataReceived(self, data: bytes) -> None:  # noqa: ARG002 - it is not looked at
        """Ask the leader, and reply."""
        ask(self.leader).addCallback(self._reply)

    def _reply(self, _: bytes) -> None:
        self.transport.write(HTTP_REPLY)


def main() -> None:
    """Be one process of the chain until it is ended."""
    role, first, log = arguments()
    clock: Any = reactor
    use_doorbell(clock)
    gc.disable()  # as good as what services do: they collect seldom
    node = Node(clock, first, log)
    if role is Role.FRONT:
        Front.leader = node.client(Role.LEADER)
        clock.listenTCP(first, Factory.forProtocol(Front), interface="127.0.0.1")
    else:
        node.serve(role, node.lead() if role is Role.LEADER else node.write)
    clock.run()


if __name__ == "__main__":
    main()
