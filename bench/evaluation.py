"""The evaluation with which the original design was published, done again.

Five clients; each looks up a random stock, trades one share with some probability, and at the end
looks up every order that it placed. Mean latencies by kind, with the cache and without.
"""

import asyncio
import json
import statistics
import time
from dataclasses import dataclass
from random import Random

from bench.load import NO_ANSWER, Connection, connect, exchange, run
from bench.systems import STOCKS, Address, Request, order

CLIENTS = 5
PROBABILITIES = (0.0, 0.2, 0.4, 0.6, 0.8)
KINDS = ("lookup", "trade", "order")
ORIGINAL_MS = {
    True: {"lookup": (1.5, 2.2), "trade": (8.1, 9.1), "order": (2.2, 2.5)},
    False: {"lookup": (2.5, 2.9)},
}
"""What the original design reported, with the cache on or off: the least and highest mean."""


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean latencies of one setting by kind; None: there were no requests of that kind."""

    cache: bool
    trade_probability: float
    mean_ms: dict[str, float | None]
    requests: int
    errors: int


class _Client:
    """One client on one connection."""

    def __init__(self, connection: Connection, random: Random) -> None:
        self.seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self.errors = 0
        self._connection = connection
        self._random = random

    async def run(self, probability: float, until: float) -> None:
        """Look up and trade until that time, then look up the orders."""
        placed = []
        while time.perf_counter() < until:
            name = self._random.choice(STOCKS)
            status, _ = await self._timed("lookup", Request("GET", f"/stocks/{name}"))
            if status == NO_ANSWER:
                break
            if self._random.random() < probability:
                side = self._random.choice(("buy", "sell"))
                status, body = await self._timed("trade", order(name, side))
                if status == 200:
                    placed.append(json.loads(body)["data"]["transaction_number"])
        for number in placed:
            await self._timed("order", Request("GET", f"/orders/{number}"))
        self._connection.close()

    async def _timed(self, kind: str, request: Request) -> tuple[int, bytes]:
        began = time.perf_counter()
        status, body = await exchange(self._connection, request)
        self.seconds[kind].append(time.perf_counter() - began)
        self.errors += status != 200
        return status, body


async def _setting(address: Address, cache: bool, probability: float, seconds: float) -> Mean:
    clients = [_Client(await connect(address), Random(k)) for k in range(CLIENTS)]
    until = time.perf_counter() + seconds
    await asyncio.gather(*(client.run(probability, until) for client in clients))
    by_kind = {kind: [s for c in clients for s in c.seconds[kind]] for kind in KINDS}
    means = {kind: statistics.fmean(s) * 1000 if s else None for kind, s in by_kind.items()}
    errors = sum(client.errors for client in clients)
    return Mean(cache, probability, means, sum(map(len, by_kind.values())), errors)


def evaluate(address: Address, cache: bool, seconds: float) -> list[Mean]:
    """Every trade probability in turn, against a cluster whose cache is on or off."""
    return [run(_setting(address, cache, probability, seconds)) for probability in PROBABILITIES]
