"""The connections of a listener, in an epoll(7) of their own.

For each ready descriptor the reactor makes a context for logging, looks the descriptor up twice,
and isolates errors, which costs as much as answering a hot request. It sees a ``Poll`` as one
descriptor, so all ready connections are served in one of its turns. Delayed writes, timers and
closing stay with the reactor.
"""

import select
from functools import partial
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.tcp import Connection, Server
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

READY_MAX = 64
"""How many connections are served before the reactor has its turn: a millisecond's worth."""
TURN_S = 0.005
"""For how long they are served at most, in case a request is much more work than most."""


@implementer(IReadDescriptor)
class Poll:
    """Reads from its members when they have something to read. It is registered with the reactor
    while it has any.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll = select.epoll()
        self._members: dict[int, Connection] = {}

    def serve(self, port: Any) -> None:
        """Wait for the connections that a port will accept from now on."""
        port.transport = partial(PolledServer, self)

    def add(self, member: Connection) -> None:
        """Read from a connection."""
        descriptor = member.fileno()
        if descriptor not in self._members:
            self._epoll.register(descriptor, select.EPOLLIN)
            self._members[descriptor] = member
            if len(self._members) == 1:
                self._reactor.addReader(self)

    def discard(self, member: Connection) -> None:
        """Stop reading from a connection, if this poll did read from it."""
        descriptor = member.fileno()
        if self._members.get(descriptor) is member:
            del self._members[descriptor]
            self._epoll.unregister(descriptor)
            if not self._members:
                self._reactor.removeReader(self)

    def doRead(self) -> None:
        """Serve the ready connections, and look again: a client that has its answer may have sent
        its next request. Those not served now are still ready in the reactor's next turn.
        """
        left, seconds = READY_MAX, self._reactor.seconds
        until = seconds() + TURN_S
        while left > 0 and (ready := self._epoll.poll(0, left)):
            left -= len(ready)
            for descriptor, _ in ready:
                member = self._members.get(descriptor)
                if member is not None:  # it may have been lost while another was served
                    self._read(member)
                    if seconds() >= until:
                        return

    def _read(self, member: Connection) -> None:
        end: BaseException | None
        try:
            end = member.doRead()
        except BaseException as error:  # as the reactor does: the other connections go on
            self._log.failure("reading from a connection failed")
            end = error
        if end is not None:
            self.discard(member)
            if isinstance(end, ConnectionDone):
                member.readConnectionLost(Failure(end))
            else:
                member.connectionLost(Failure(end))

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends, and with it all connections."""
        for member in list(self._members.values()):
            member.connectionLost(reason)

    def fileno(self) -> int:
        """The epoll descriptor, which is ready when that of any member is (epoll(7))."""
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        """The name in Twisted's legacy log."""
        return "poll"


class PolledServer(Server):
    """A connection that a ``Poll`` reads from instead of the reactor."""

    def __init__(self, poll: Poll, *made_of: Any) -> None:
        self._poll = poll
        super().__init__(*made_of)

    def startReading(self) -> None:
        """Pass what arrives to the protocol."""
        self._poll.add(self)

    def stopReading(self) -> None:
        """Leave what arrives in the kernel."""
        self._poll.discard(self)

    def connectionLost(self, reason: Failure) -> None:
        """Drop what was not sent: requests and their connection refer to each other, and the
        garbage collector seldom looks for such cycles.
        """
        super().connectionLost(reason)
        self.dataBuffer, self.offset = b"", 0
        self._tempDataBuffer, self._tempDataLen = [], 0


def write_now(transport: Any, data: bytes) -> None:
    """Write; at once, if nothing waits to be written before it. ``transport.write`` alone waits
    for the reactor to find that the socket is writable, which costs two turns of epoll.
    """
    sent = 0
    # Twisted gathers what was written in this turn apart from what did not fit in the last.
    if isinstance(transport, Connection) and not (
        transport.dataBuffer or transport._tempDataBuffer or transport.disconnecting
    ):
        try:
            sent = transport.socket.send(data)
        except OSError:
            sent = 0  # full, or lost: the next write finds out
    if sent < len(data):
        transport.write(data[sent:])
