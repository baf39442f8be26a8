"""One process of the chain of bare sockets: blocking calls, in one thread, one trade at a time."""

import select
import socket
from collections.abc import Callable

from bench.peers.chain import HTTP_REPLY, REPLY, REQUEST, Log, Role, arguments

RECEIVE_BYTES = 64 * 1024


def connect(port: int) -> socket.socket:
    """A connection to the process behind this one, which is up already."""
    return _undelayed(socket.create_connection(("127.0.0.1", port)))


def _undelayed(connection: socket.socket) -> socket.socket:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def serve(port: int, work: Callable[[], None], reply: bytes) -> None:
    """Do the work for each message of any connection, and reply. A message comes in one piece,
    because its sender waits for the reply before it sends the next.
    """
    with socket.create_server(("127.0.0.1", port), backlog=64) as listener:
        poll, connections = select.epoll(), {}
        poll.register(listener, select.EPOLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == listener.fileno():
                    connection = _undelayed(listener.accept()[0])
                    connections[connection.fileno()] = connection
                    poll.register(connection, select.EPOLLIN)
                elif _receive(connections[descriptor]):
                    work()
                    connections[descriptor].sendall(reply)
                else:
                    connections.pop(descriptor).close()


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(RECEIVE_BYTES)
    except ConnectionResetError:  # how load generators end
        return b""


class Followers:
    """The leader's connections to both followers."""

    def __init__(self, ports: list[int]) -> None:
        self._poll = select.epoll()
        self._behind = {connect(port): 0 for port in ports}
        self._by_descriptor = {follower.fileno(): follower for follower in self._behind}
        for follower in self._behind:
            self._poll.register(follower, select.EPOLLIN)

    def send(self) -> None:
        """Send one message to each."""
        for follower in self._behind:
            follower.sendall(REQUEST)
            self._behind[follower] += len(REPLY)

    def wait(self) -> None:
        """Wait until one of them has answered everything. The other may be behind."""
        while min(self._behind.values()):
            for descriptor, _ in self._poll.poll():
                follower = self._by_descriptor[descriptor]
                self._behind[follower] -= len(follower.recv(RECEIVE_BYTES))


def main() -> None:
    """Be one process of the chain until it is ended."""
    role, first, log = arguments()
    if role is Role.FRONT:
        serve(first, _asking(first + Role.LEADER), HTTP_REPLY)
    elif role is Role.LEADER:
        serve(first + role, _leading(first, log), REPLY)
    else:
        serve(first + role, lambda: log.commit(REQUEST), REPLY)


def _asking(port: int) -> Callable[[], None]:
    peer = connect(port)

    def ask() -> None:
        peer.sendall(REQUEST)
        peer.recv(RECEIVE_BYTES)

    return ask


def _leading(first: int, log: Log) -> Callable[[], None]:
    ask_catalog = _asking(first + Role.CATALOG)
    followers = Followers([first + Role.FOLLOWER, first + Role.OTHER_FOLLOWER])

    def lead() -> None:
        ask_catalog()
        followers.send()
        log.commit(REQUEST)
        followers.wait()

    return lead


if __name__ == "__main__":
    main()
