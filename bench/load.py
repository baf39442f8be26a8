"""Our own load generator: a closed loop over keep-alive connections.

Used when ``wrk`` is not installed, to warm up, and by the open loop. It is slower than wrk: against
a fast server it measures itself, so the report says which generator was used.
"""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

from bench.systems import Address, Measured, Request
from twstock.tally import percentile

T = TypeVar("T")
Answered = Callable[[int, bytes], None]
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
NO_ANSWER = 0


class Connection(asyncio.Protocol):
    """A keep-alive connection with at most one request under way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._answered: Answered | None = None

    def ask(self, request: bytes, answered: Answered) -> None:
        """Send a request; ``answered(status, body)`` is called once, with 0 if the connection
        broke.
        """
        self._answered = answered
        if self._transport is None or self._transport.is_closing():
            asyncio.get_running_loop().call_soon(self._finish, NO_ANSWER, b"")
        else:
            self._transport.write(request)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: it is open."""
        # No isinstance check: uvloop's transports are not instances of asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """asyncio: a part of an answer."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._buffer, 0, end)
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(self._buffer) >= whole:
            status, body = int(self._buffer[9:12]), self._buffer[end + 4 : whole]
            self._buffer = b""
            self._finish(status, body)

    def connection_lost(self, _: Exception | None) -> None:
        """asyncio: it is closed."""
        self._finish(NO_ANSWER, b"")

    def _finish(self, status: int, body: bytes) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(status, body)


async def connect(address: Address) -> Connection:
    """An open connection."""
    loop = asyncio.get_running_loop()
    return (await loop.create_connection(Connection, *address))[1]


async def exchange(connection: Connection, request: Request) -> tuple[int, bytes]:
    """One request and its answer; status 0 if the connection broke."""
    answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    def answered(status: int, body: bytes) -> None:
        if not answer.done():
            answer.set_result((status, body))

    connection.ask(request.wire(), answered)
    return await answer


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, on uvloop if that is installed, so that the generator is not the limit."""
    try:
        # Only there if requirements-bench.txt is installed.
        import uvloop  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def summary(latencies_s: Sequence[float], errors: int, took_s: float) -> Measured:
    """Rate and percentiles of a run."""
    ranked = sorted(latencies_s)
    p50, p99, p999 = (percentile(ranked, share) * 1000 for share in (0.5, 0.99, 0.999))
    return Measured(len(ranked) / took_s, p50, p99, p999, len(ranked), errors)


async def closed_loop(
    address: Address, requests: Sequence[Request], connections: int, seconds: float
) -> Measured:
    """Each connection sends its next request when it has the answer to the last one."""
    wires = [request.wire() for request in requests]
    latencies: list[float] = []
    errors = 0
    number = 0
    until = time.perf_counter() + seconds

    async def loop() -> None:
        nonlocal errors, number
        connection = await connect(address)
        done = asyncio.get_running_loop().create_future()

        def send() -> None:
            nonlocal number
            began = time.perf_counter()
            number += 1

            def answered(status: int, _: bytes) -> None:
                nonlocal errors
                now = time.perf_counter()
                latencies.append(now - began)
                errors += status != 200
                if now < until and status != NO_ANSWER:
                    send()
                else:
                    done.set_result(None)

            connection.ask(wires[number % len(wires)], answered)

        send()
        await done
        connection.close()

    began = time.perf_counter()
    await asyncio.gather(*(loop() for _ in range(connections)))
    return summary(latencies, errors, time.perf_counter() - began)


def measure(
    address: Address, requests: Sequence[Request], connections: int, seconds: float
) -> Measured:
    """Run the closed loop, from synchronous code."""
    return run(closed_loop(address, requests, connections, seconds))
