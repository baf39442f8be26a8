"""How long a client notices that the order leader is gone: killed, or stopped and resumed."""

import contextlib
import http.client
import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from bench.cluster import Cluster
from bench.processes import NotStarted, wait_for
from bench.systems import TRADE_STOCK, Address

TIMEOUT_S = 3.0
RETRY_S = 0.005
BACK_S = 30.0
STABLE_S = 3.0
"""The pause after a leader is back: otherwise one fail-over would distort the next."""
FAULTS = {"kill -9": signal.SIGKILL, "SIGSTOP": signal.SIGSTOP}


@dataclass(frozen=True, slots=True)
class Placed:
    """One acknowledged order: when the client first asked, and when it had the answer."""

    began: float
    ended: float


class Trader:
    """One client that trades without a pause; failed requests are sent again with the same key."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._stop = threading.Event()
        self._connection = http.client.HTTPConnection(*address, timeout=TIMEOUT_S)
        self._placed: list[Placed] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Trader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(2 * TIMEOUT_S)
        self._connection.close()

    def first_since(self, moment: float) -> Placed | None:
        """The first acknowledged order that was begun after a moment."""
        return next((placed for placed in list(self._placed) if placed.began > moment), None)

    def forget(self) -> None:
        """Drop what was placed so far."""
        self._placed = []

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            side = "sell" if number % 2 else "buy"
            body = json.dumps({"name": TRADE_STOCK, "quantity": 1, "type": side})
            key = uuid.uuid4().hex
            began = time.monotonic()
            while not self._accepted(body, key) and not self._stop.is_set():
                time.sleep(RETRY_S)
            self._placed.append(Placed(began, time.monotonic()))

    def _accepted(self, body: str, key: str) -> bool:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        try:
            self._connection.request("POST", "/orders", body, headers)
            response = self._connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return False
        return response.status == http.client.OK


@contextlib.contextmanager
def _fault(pid: int, number: signal.Signals) -> Iterator[float]:
    """Send the leader a signal; yields the time. After SIGSTOP it is resumed in the end."""
    moment = time.monotonic()
    os.kill(pid, number)
    try:
        yield moment
    finally:
        if number == signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)


def trial(cluster: Cluster, number: signal.Signals, random: Random) -> float:
    """One fault; returns the seconds from it to the first acknowledged order begun after it."""
    # Any replica may lead: after repeated failures, the lead is handed back later and later.
    await_whole(cluster)
    time.sleep(STABLE_S)
    await_whole(cluster)
    with Trader(cluster.address) as trader:
        time.sleep(0.2 + 0.3 * random.random())
        leader = cluster.order_leader()
        if leader is None:
            raise NotStarted("the order group has no leader")
        trader.forget()
        with _fault(leader[1], number) as moment:
            wait_for(
                lambda: trader.first_since(moment) is not None,
                "an order after the fault",
                [cluster.process],
                BACK_S,
            )
        placed = trader.first_since(moment)
        assert placed is not None
        return placed.ended - moment


def await_whole(cluster: Cluster) -> None:
    """Wait until every member serves and has caught up."""
    wait_for(cluster.is_whole, "the cluster to be whole", [cluster.process], BACK_S)


def trials(
    cluster: Cluster, count: int, seconds: dict[str, list[float]], tell: Callable[[str], None]
) -> None:
    """Add the seconds of ``count`` trials of each fault to ``seconds``, by its name."""
    random = Random(1)
    for name, number in FAULTS.items():
        for k in range(1, count + 1):
            found = trial(cluster, number, random)
            seconds.setdefault(name, []).append(found)
            tell(f"fail-over {k}/{count}, {name}: {found * 1000:.0f} ms")
