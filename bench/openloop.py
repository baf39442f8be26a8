"""An open loop: requests start at a constant rate, whether or not earlier ones are answered.

A latency counts from the time at which its request should have started, so a stall is charged to
every request that it held up. A closed loop sends less to a server that stalls, which hides it.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.load import Connection, connect, run
from bench.systems import Address, Request
from twstock.tally import percentile

CONNECTIONS = 256
STEP_S = 0.0002
"""The time between two checks of the clock: far below what is measured, and cheap enough."""
GRACE_S = 15.0
SHARES = (0.25, 0.5, 0.75)
WARM_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Offered:
    """The result of a constant rate; latencies from the intended start, in milliseconds.

    ``sent_late_p99_ms`` is the delay that the generator itself, or a lack of idle connections,
    added.
    """

    rate_per_s: float
    share: float
    answered_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    sent_late_p99_ms: float
    requests: int
    errors: int


class Generator:
    """One run at one rate, on connections that are open already."""

    def __init__(
        self, rate: float, seconds: float, wires: Sequence[bytes], idle: Sequence[Connection]
    ) -> None:
        self._rate = rate
        self._count = max(1, int(rate * seconds))
        self._wires = wires
        self._idle = list(idle)
        self._waiting: deque[int] = deque()
        self._began = 0.0
        self._due = 0
        self._done = asyncio.Event()
        self.latencies: list[float] = []
        self.lateness: list[float] = []
        self.errors = 0

    async def run(self) -> float:
        """Send everything and wait for the answers; returns how many seconds that took."""
        loop = asyncio.get_running_loop()
        self._began = time.perf_counter()
        stop = threading.Event()
        pace = threading.Thread(
            target=self._pace, args=(loop.call_soon_threadsafe, stop), daemon=True
        )
        pace.start()
        try:
            limit = self._count / self._rate + GRACE_S
            await asyncio.wait_for(self._done.wait(), limit)
        finally:
            stop.set()
            pace.join()
        return time.perf_counter() - self._began

    def _pace(self, call: Callable[[Callable[[], None]], object], stop: threading.Event) -> None:
        """In a thread: an event loop wakes a millisecond late, a thread does not."""
        end = self._began + self._count / self._rate
        while not stop.is_set() and time.perf_counter() < end + STEP_S:
            call(self._send_due)
            due_in = self._began + self._due / self._rate - time.perf_counter()
            time.sleep(max(STEP_S, due_in))
        call(self._send_due)

    def _send_due(self) -> None:
        due = min(self._count, int((time.perf_counter() - self._began) * self._rate) + 1)
        self._waiting.extend(range(self._due, due))
        self._due = max(self._due, due)
        while self._waiting and self._idle:
            self._send(self._waiting.popleft(), self._idle.pop())

    def _send(self, number: int, connection: Connection) -> None:
        intended = self._began + number / self._rate
        self.lateness.append(time.perf_counter() - intended)

        def answered(status: int, _: bytes) -> None:
            self.latencies.append(time.perf_counter() - intended)
            self.errors += status != 200
            if self._waiting:
                self._send(self._waiting.popleft(), connection)
            else:
                self._idle.append(connection)
            if len(self.latencies) == self._count:
                self._done.set()

        connection.ask(self._wires[number % len(self._wires)], answered)


async def _offer(
    address: Address, requests: Sequence[Request], rate: float, share: float, seconds: float
) -> Offered:
    wires = [request.wire() for request in requests]
    connections = [await connect(address) for _ in range(CONNECTIONS)]
    await Generator(rate, seconds * WARM_SHARE, wires, connections).run()
    generator = Generator(rate, seconds, wires, connections)
    took = await generator.run()
    for connection in connections:
        connection.close()
    ranked = sorted(generator.latencies)
    p50, p99, p999 = (percentile(ranked, at) * 1000 for at in (0.5, 0.99, 0.999))
    late = percentile(sorted(generator.lateness), 0.99) * 1000
    answered = len(ranked) / took
    return Offered(rate, share, answered, p50, p99, p999, late, len(ranked), generator.errors)


def offer(
    address: Address, requests: Sequence[Request], rate: float, share: float, seconds: float
) -> Offered:
    """Send requests at a constant rate, which is a ``share`` of what a closed loop reached."""
    return run(_offer(address, requests, rate, share, seconds))
