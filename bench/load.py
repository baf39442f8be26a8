"""A closed loop over keep-alive connections: each sends its next request when it has its answer."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run came to; latencies in milliseconds."""

    name: str
    connections: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int


def get(path: str) -> bytes:
    """A GET request as bytes."""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()


def post(path: str, body: bytes) -> bytes:
    """A POST request as bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> int:
    """Send one request and read its whole answer; returns the status."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
    await reader.readexactly(length)
    return int(head[9:12])


async def measure(
    name: str, address: tuple[str, int], request: Callable[[int], bytes], connections: int, s: float
) -> Measured:
    """Run ``connections`` loops for ``s`` seconds; ``request(n)`` is the n-th request."""
    latencies: list[float] = []
    errors = 0
    until = time.perf_counter() + s

    async def loop(first: int) -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection(*address)
        number = first
        while (began := time.perf_counter()) < until:
            status = await exchange(reader, writer, request(number))
            latencies.append(time.perf_counter() - began)
            errors += status != 200
            number += connections
        writer.close()
        await writer.wait_closed()

    began = time.perf_counter()
    await asyncio.gather(*(loop(first) for first in range(connections)))
    took = time.perf_counter() - began
    latencies.sort()
    p50, p99 = (latencies[int(len(latencies) * q)] * 1000 for q in (0.5, 0.99))
    return Measured(name, connections, len(latencies) / took, p50, p99, errors)
