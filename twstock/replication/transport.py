"""How a member reaches its peers: with gRPC calls, without blocking the reactor."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.python.threadpool import ThreadPool

from twstock.clocks import Clock
from twstock.config import Address, Limits
from twstock.errors import OutcomeUnknown
from twstock.replication.messages import (
    AppendEntries,
    AppendReply,
    Committed,
    Reply,
    Transfer,
    VoteReply,
)
from twstock.rpc.calls import Envelope, Fetch, Notify, Probe, ProbeAnswer, SyncedUp, SyncUp
from twstock.rpc.client import Client
from twstock.rpc.security import Security
from twstock.rpc.wire import methods
from twstock.rpc.wire.methods import Method


class Transport(Protocol):
    """What a member needs of a network. Messages may be lost, duplicated, late or reordered."""

    def send(self, peer: int, envelope: Envelope) -> "Deferred[Reply | None]":
        """Deliver a request; fires with its reply (None for a Transfer) or fails."""

    def probe(self, peer: int, probe: Probe) -> "Deferred[ProbeAnswer]":
        """Ask a peer for its status."""

    def is_gone(self, peer: int) -> "Deferred[bool]":
        """Whether the peer's process is certainly gone, now: silence is no proof of that."""

    def fetch(self, peer: int, fetch: Fetch) -> "Deferred[Committed]":
        """Pull committed entries."""

    def close(self) -> None:
        """Close all connections."""


@dataclass(frozen=True, slots=True)
class GroupMethods:
    """The calls by which one group replicates."""

    heartbeat: Method[Probe, ProbeAnswer]
    append: Method[Envelope, AppendReply]
    vote: Method[Envelope, VoteReply]
    notify: Method[Notify, Any]


GROUP_METHODS = {
    "order": GroupMethods(
        methods.ORDER_HEARTBEAT, methods.ORDER_APPEND, methods.ORDER_VOTE, methods.ORDER_NOTIFY
    ),
    "catalog": GroupMethods(
        methods.CATALOG_HEARTBEAT,
        methods.CATALOG_APPEND,
        methods.CATALOG_VOTE,
        methods.CATALOG_NOTIFY,
    ),
}


class GrpcTransport:
    """Two channels to each peer, so that many entries never delay a heartbeat or a vote."""

    def __init__(
        self,
        group: str,
        addresses: Mapping[int, Address],
        threads: ThreadPool,
        clock: Clock,
        deliver: Callable[..., None],
        limits: Limits,
        security: Security,
    ) -> None:
        self._clock = clock
        self._group = group
        self._security = security
        self._methods = GROUP_METHODS[group]
        self._addresses = addresses
        self._threads = threads
        self._deliver = deliver
        self._limits = limits
        self._control = {i: self._client(i) for i in addresses}
        self._bulk = {i: self._client(i) for i in addresses}

    def send(self, peer: int, envelope: Envelope) -> "Deferred[Reply | None]":
        """Deliver a request by the call that the original names for it."""
        message, control = envelope.message, self._control[peer]
        reply: Deferred[Any]
        if isinstance(message, AppendEntries) and message.entries:
            deadline_s = self._limits.append_deadline_s
            reply = self._bulk[peer].call(self._methods.append, envelope, deadline_s)
        elif isinstance(message, AppendEntries):
            probing = self.probe(peer, Probe(envelope.peer, message))
            reply = probing.addCallback(lambda answer: answer.append)
        elif isinstance(message, Transfer):
            notify = Notify(message.target, envelope)
            reply = control.call(self._methods.notify, notify, self._limits.control_deadline_s)
            reply.addCallback(lambda _: None)
        else:  # a vote waits for a disk, as entries do
            reply = control.call(self._methods.vote, envelope, self._limits.append_deadline_s)
        return reply

    def probe(self, peer: int, probe: Probe) -> "Deferred[ProbeAnswer]":
        """Ask a peer for its status."""
        deadline_s = self._limits.control_deadline_s
        return self._control[peer].call(self._methods.heartbeat, probe, deadline_s)

    def is_gone(self, peer: int) -> "Deferred[bool]":
        """Ask the peer's host whether any process listens. A gRPC channel would not do: while it
        backs off it repeats its last refusal, which may be older than the process.
        """
        answer: Deferred[bool] = Deferred()

        def knocked(success: bool, result: Any) -> None:
            self._deliver(answer.callback if success else answer.errback, result)

        # The caller has a call with this deadline to answer: leave half of it for that.
        self._threads.callInThreadWithCallback(
            knocked, _refuses, self._addresses[peer], self._limits.control_deadline_s / 2
        )
        return answer

    def fetch(self, peer: int, fetch: Fetch) -> "Deferred[Committed]":
        """Pull committed entries."""
        method, request = fetching(self._group, fetch)
        answer = self._bulk[peer].call(method, request, self._limits.append_deadline_s)
        return answer.addCallback(fetched)

    def close(self) -> None:
        """Close all channels."""
        for client in (*self._control.values(), *self._bulk.values()):
            client.close()

    def _client(self, peer: int) -> Client:
        address, way = str(self._addresses[peer]), self._security.to(f"{self._group}-{peer}")
        return Client(address, self._threads, self._clock, self._deliver, self._limits, way)


def _refuses(address: Address, timeout_s: float) -> bool:
    """In a thread: whether all hosts that the address may stand for refuse connections."""
    try:
        socket.create_connection((address.host, address.port), timeout_s, all_errors=True).close()
    except ExceptionGroup as group:
        return all(isinstance(error, ConnectionRefusedError) for error in group.exceptions)
    except OSError:  # the name does not resolve now
        return False
    return False


def fetching(group: str, fetch: Fetch) -> tuple[Method[Any, Any], Any]:
    """The call by which a group's committed entries are pulled, and its request: for the order
    group that is the original's SyncUp.
    """
    if group == "catalog":
        return methods.FETCH_ENTRIES, fetch
    return methods.ORDER_SYNC_UP, SyncUp(service_id=fetch.peer.id, fetch=fetch)


def fetched(answer: Committed | SyncedUp) -> Committed:
    """The entries in the answer to that call. Raises OutcomeUnknown if there is nothing in it."""
    if isinstance(answer, Committed):
        return answer
    if answer.fetched is None:
        raise OutcomeUnknown("a peer answered SyncUp without entries of the log")
    return answer.fetched
