"""Clients that trade and look stocks up again and again, and record every answer."""

import contextlib
import http.client
import itertools
import random
import threading
import time
import uuid
from itertools import pairwise

from tests.cluster_fixture import WAIT_S, ask, wait_until
from tests.ledger import Administered, Attempt, Look, check, check_looks

RETRY_S = 0.02
PAUSE_S = 0.05
LOOK_PAUSE_S = 0.05
TIMEOUT_S = 3.0
GIVE_UP_S = 20.0
WARM = 20
OUTCOMES = {200: "ok", 404: "refused", 429: "unknown", 503: "unknown"}


class Traders:
    """``count`` clients, spread over the front-ends, which run as long as the context.

    ``history`` holds every attempt. A request whose outcome is unknown is repeated with the
    same key, through the next front-end, until it is known. For each front-end there is also
    a client that only looks stocks up; ``looks`` holds what they saw. With a ``token`` there is
    also one that changes stocks; ``administered`` holds its answers. An outcome may stay unknown
    for ``give_up_s``.
    """

    def __init__(self, cluster, count=8, seed=1, token="", give_up_s=GIVE_UP_S):
        chance = random.Random(seed)
        names = [stock["name"] for stock in cluster.get("/stocks?limit=1000")[2]["data"]]
        self.history = []
        self.looks = []
        self.administered = []
        self.faults = []
        self._stop = threading.Event()
        self._give_up_s = give_up_s
        seeds = (random.Random(chance.random()) for _ in itertools.repeat(None))
        clients = [_Trader(cluster, k, names, next(seeds), self.history) for k in range(count)]
        clients += [
            _Looker(cluster, k, names, next(seeds), self.looks)
            for k in range(len(cluster.config.fronts))
        ]
        if token:
            who = _Administrator(cluster, 0, names[:3], next(seeds), self.administered)
            who.token = token
            clients.append(who)
        for client in clients:
            client.give_up_s = give_up_s
        self._threads = [threading.Thread(target=self._guard, args=(client,)) for client in clients]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(self._give_up_s + TIMEOUT_S)
        assert kind is not None or not self.faults, self.faults

    def _guard(self, client):
        try:
            client.run(self._stop)
        except BaseException as error:
            self.faults.append(repr(error))

    def done(self):
        """How many orders have been acknowledged."""
        return sum(attempt.outcome == "ok" for attempt in list(self.history))

    def go_on(self):
        """Wait until ``WARM`` more have been acknowledged."""
        before = self.done()
        wait_until(lambda: self.done() >= before + WARM, "more trades")

    def acknowledged_since(self, moment):
        """Whether an order that began after a moment has been acknowledged."""
        return any(a.outcome == "ok" and a.started > moment for a in self.history[-2000:])

    def outage_s(self, since):
        """From a moment to the first acknowledgement of an order that began after it, or the
        longest time after it without any acknowledgement, whichever is longer.
        """
        ok = [a for a in list(self.history) if a.outcome == "ok" and a.ended > since]
        first = min(a.ended for a in ok if a.started > since) - since
        gaps = (after - before for before, after in pairwise([since, *sorted(a.ended for a in ok)]))
        return max(first, *gaps)


@contextlib.contextmanager
def trading(cluster, count=8, give_up_s=GIVE_UP_S):
    """Clients trade while the body causes faults; then every promise is checked."""
    cluster.await_healthy()
    known = len(cluster.log("order-1"))
    initial = stocks(cluster)
    with Traders(cluster, count, give_up_s=give_up_s) as traders:
        traders.go_on()
        yield traders
    cluster.await_healthy()
    cluster.assert_verified()
    log = cluster.log("order-1")[known:]
    had = {name: row["quantity"] for name, row in initial.items()}
    has = {name: row["quantity"] for name, row in stocks(cluster).items()}
    assert check(traders.history, log, had, has) == []
    versions = {name: (row["version"], row["quantity"]) for name, row in initial.items()}
    assert check_looks(traders.looks, traders.history, log, versions) == []
    assert traders.looks
    _assert_readable(cluster, traders.history)


def stocks(cluster):
    """Every stock by its name."""
    return {row["name"]: row for row in cluster.answered("GET", "/stocks?limit=1000")["data"]}


def _assert_readable(cluster, history):
    """Every acknowledged order is answered with the fields it was placed with."""
    fronts = [front.id for front in cluster.config.fronts]
    connections = [
        http.client.HTTPConnection(*cluster.address(front), timeout=WAIT_S) for front in fronts
    ]
    acknowledged = {a.number: a for a in history if a.outcome == "ok"}
    with contextlib.ExitStack() as stack:
        for connection in connections:
            stack.callback(connection.close)
        for number, told in acknowledged.items():
            connection = connections[number % len(connections)]
            # Without a leader, whether there is such an order may be unknown for a moment.
            status, _, body = wait_until(
                lambda c=connection, path=f"/orders/{number}": (
                    (told := ask(c, "GET", path))[0] != 503 and told
                ),
                f"order {number} to be told",
            )
            assert status == 200, (number, body)
            found = body["data"]
            assert (found["name"], found["type"], found["quantity"]) == told.body, (told, found)


class _Client:
    """One client, one connection at a time; it adds its records to ``told``."""

    give_up_s = GIVE_UP_S

    def __init__(self, cluster, number, names, chance, told):
        self._cluster = cluster
        self._names = names
        self._chance = chance
        self._told = told
        self._fronts = [front.id for front in cluster.config.fronts]
        self._turn = number
        self._connection = None
        self._connect()

    def run(self, stop):
        """Go on until told to stop."""
        try:
            while not stop.is_set():
                self.act()
        finally:
            self._connection.close()

    def _connect(self):
        if self._connection is not None:
            self._connection.close()
        front = self._fronts[self._turn % len(self._fronts)]
        address = self._cluster.address(front)
        self._connection = http.client.HTTPConnection(*address, timeout=TIMEOUT_S)

    def _turn_to_the_next(self):
        self._turn += 1
        self._connect()
        time.sleep(RETRY_S)


class _Looker(_Client):
    """Looks at one stock after the other."""

    def act(self):
        """One lookup; one without an answer does not count."""
        time.sleep(LOOK_PAUSE_S)
        name, started = self._chance.choice(self._names), time.monotonic()
        try:
            status, _, answer = ask(self._connection, "GET", f"/stocks/{name}")
        except (OSError, http.client.HTTPException, ValueError):
            self._turn_to_the_next()
            return
        assert status in (200, 503), (status, answer)
        if status == 200:
            stock, ended = answer["data"], time.monotonic()
            shown = stock["version"], stock["quantity"], stock.get("halted", False)
            self._told.append(Look(name, started, ended, *shown))


class _Trader(_Client):
    """Places one order after the other."""

    def act(self):
        """One order, repeated until its outcome is known."""
        time.sleep(PAUSE_S)
        body = {
            "name": self._chance.choice(self._names),
            "type": self._chance.choice(("buy", "sell")),
            "quantity": self._chance.randint(1, 5),
        }
        key = uuid.uuid4().hex
        deadline = time.monotonic() + self.give_up_s
        while self._attempt(key, body) == "unknown":
            assert time.monotonic() < deadline, f"key {key}: no answer in {self.give_up_s} s"
            self._turn_to_the_next()

    def _attempt(self, key, body):
        started = time.monotonic()
        number = 0
        try:
            status, _, answer = ask(
                self._connection, "POST", "/orders", body, {"Idempotency-Key": key}
            )
            assert status in OUTCOMES, (status, answer)
            outcome = OUTCOMES[status]
            number = answer["data"]["transaction_number"] if outcome == "ok" else 0
        except (OSError, http.client.HTTPException, ValueError):
            outcome = "unknown"
        ended = time.monotonic()
        what = body["name"], body["type"], body["quantity"]
        self._told.append(Attempt(key, *what, started, ended, outcome, number))
        return outcome


class _Administrator(_Client):
    """Makes one change after the other, and sends some twice."""

    token = ""

    def act(self):
        """One change, repeated until its outcome is known."""
        time.sleep(PAUSE_S)
        kind = self._chance.choice(("halt", "resume", "restock", "price", "add"))
        name, key = self._chance.choice(self._names), uuid.uuid4().hex
        quantity = self._chance.randint(1, 5) if kind in ("restock", "add") else 0
        if kind == "add":
            name = f"new-{key}"
        deadline = time.monotonic() + self.give_up_s
        while (outcome := self._attempt(key, kind, name, quantity)) == "unknown":
            assert time.monotonic() < deadline, f"key {key}: no answer in {self.give_up_s} s"
            self._turn_to_the_next()
        if self._chance.random() < 0.3:
            assert self._attempt(key, kind, name, quantity) in (outcome, "unknown")

    def _attempt(self, key, kind, name, quantity):
        path = "/admin/stocks" if kind == "add" else f"/admin/stocks/{name}/{kind}"
        body = {"name": name, "quantity": quantity, "price": "1.25"}
        headers = {"Idempotency-Key": key, "Authorization": f"Bearer {self.token}"}
        number = version = 0
        try:
            status, _, answer = ask(self._connection, "POST", path, body, headers)
            outcome = "refused" if status == 409 else OUTCOMES[status]
            if outcome == "ok":
                number, version = (
                    answer["data"]["change_number"],
                    answer["data"]["stock"]["version"],
                )
        except (OSError, http.client.HTTPException, ValueError):
            outcome = "unknown"
        ended = time.monotonic()
        self._told.append(Administered(key, kind, name, quantity, ended, outcome, number, version))
        return outcome
