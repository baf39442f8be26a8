"""``twstock client``: many of the original's clients at once, which check the answers they get.

Each client looks up a random stock and, if any shares are left, trades it with some probability; at
the end it looks up every order that it placed and compares.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from twstock.errors import OutcomeUnknown
from twstock.rest import Answer, Session, Unreachable
from twstock.tally import percentile

QUANTITY_MAX = 5
TOO_MANY = 429


@dataclass(frozen=True, slots=True)
class Load:
    """What to do: ``trade_probability`` is from 0 to 1; the same seed makes the same choices."""

    url: str
    clients: int = 5
    requests: int = 100
    trade_probability: float = 0.6
    seed: int | None = None


@dataclass(slots=True)
class Tally:
    """What happened: latencies by kind, outcomes, wrong answers, and requests that failed."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    mismatches: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Take in what another client saw."""
        for kind, seconds in other.seconds.items():
            self.seconds.setdefault(kind, []).extend(seconds)
        self.outcomes.update(other.outcomes)
        self.mismatches += other.mismatches
        self.failures += other.failures

    def as_json(self) -> dict[str, Any]:
        """The report, times in milliseconds."""
        return {
            "outcomes": dict(self.outcomes),
            "latency_ms": {kind: latency_ms(found) for kind, found in self.seconds.items()},
            "mismatches": self.mismatches,
            "failures": self.failures,
        }


def latency_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Count, mean and percentiles (nearest rank) of some durations."""
    ranked = sorted(seconds)

    def in_ms(duration: float) -> float:
        return round(duration * 1000, 3)

    return {
        "count": len(ranked),
        "mean": in_ms(sum(ranked) / len(ranked)),
        "p50": in_ms(percentile(ranked, 0.5)),
        "p99": in_ms(percentile(ranked, 0.99)),
    }


class Client:
    """One client with a session of its own."""

    def __init__(self, session: Session, names: Sequence[str], random: Random) -> None:
        self.tally = Tally()
        self._session = session
        self._names = names
        self._random = random
        self._placed: dict[int, dict[str, Any]] = {}

    def run(self, load: Load, asked: Callable[[], None]) -> None:
        """Do everything; ``asked`` is called after each of ``load.requests`` rounds."""
        for _ in range(load.requests):
            try:
                self._round(load.trade_probability)
            except (Unreachable, OutcomeUnknown) as error:
                self.tally.failures.append(str(error))
            asked()
        for number, placed in self._placed.items():
            try:
                self._compare(number, placed)
            except Unreachable as error:
                self.tally.failures.append(str(error))
        self._session.close()

    def _round(self, trade_probability: float) -> None:
        name = self._random.choice(self._names)
        answer = self._timed("lookup", lambda: self._session.lookup(name))
        if not answer.ok:
            self._note(answer, f"lookup of {name}: {answer.status} {answer.message}")
            return
        if answer.data["quantity"] > 0 and self._random.random() < trade_probability:
            self._trade(name)

    def _trade(self, name: str) -> None:
        side = self._random.choice(("buy", "sell"))
        quantity = self._random.randint(1, QUANTITY_MAX)
        answer = self._timed("trade", lambda: self._session.trade(name, side, quantity))
        self.tally.outcomes["executed" if answer.ok else answer.message] += 1
        if answer.ok:
            number = answer.data["transaction_number"]
            if number in self._placed:
                self.tally.mismatches.append(f"transaction number {number} was given twice")
            self._placed[number] = {"name": name, "type": side, "quantity": quantity}

    def _compare(self, number: int, placed: dict[str, Any]) -> None:
        answer = self._timed("order", lambda: self._session.order(number))
        found = answer.data or {}
        wanted = {"order_num": number, **placed}
        if not answer.ok or wanted != {key: found.get(key) for key in wanted}:
            self._note(answer, f"placed {wanted}, found {answer.body}")

    def _note(self, answer: Answer, what: str) -> None:
        """Note a wrong answer; one of a front-end that is busy or failing is only a failure."""
        is_silent = answer.status == TOO_MANY or answer.status >= 500
        (self.tally.failures if is_silent else self.tally.mismatches).append(what)

    def _timed(self, kind: str, ask: Callable[[], Answer]) -> Answer:
        started = time.perf_counter()
        answer = ask()
        self.tally.seconds.setdefault(kind, []).append(time.perf_counter() - started)
        return answer


def run(load: Load, asked: Callable[[], None] = lambda: None) -> Tally:
    """Run all clients, each in a thread. Raises Unreachable if the stocks cannot be listed."""
    with Session(load.url) as session:
        names = [stock["name"] for page in session.pages("/stocks") for stock in page]
    if not names:
        raise Unreachable(f"{load.url} has no stocks")
    base = Random(load.seed).getrandbits(64)
    clients = [Client(Session(load.url), names, Random(base + k)) for k in range(load.clients)]
    threads = [threading.Thread(target=c.run, args=(load, asked), daemon=True) for c in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = Tally()
    for client in clients:
        total.add(client.tally)
    return total
