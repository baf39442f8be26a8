"""Front-ends in memory for the typed client: they trade, and fail, as a test wants them to.

A request goes through treq, Twisted's HTTP client and server, and Klein, on the test's clock; only
the network is left out.
"""

import itertools
import json
from random import Random
from urllib.parse import unquote

from klein import Klein
from treq.testing import StubTreq
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock

from twstock.client import Client

STEP_S = 0.05
REFUSE = "the port is closed"
HANG = "nothing is answered"
LOSE = "the order is executed, and the answer lost"
CUT = "the answer breaks off"


class Ledger:
    """What all front-ends of a cluster know: stocks, and executed orders by number and by key."""

    def __init__(self):
        self.orders = {}
        self.keys = {}
        self.stocks = {
            name: {"name": name, "price": 15.99, "quantity": 100, "volume": 0, "version": 0}
            for name in ("AAPL", "GOOGL", "NVDA")
        }

    def place(self, key, terms):
        """Status, body and headers of the answer to an order."""
        if key in self.keys:
            number, known = self.keys[key]
            if known != terms:
                return 422, error(422, "idempotency key was used with another order"), {}
            return 200, placed(number), {"Idempotency-Replayed": "true"}
        stock = self.stocks.get(terms["name"])
        if stock is None:
            return 404, error(404, "invalid stock name"), {}
        if terms["type"] == "buy" and stock["quantity"] < terms["quantity"]:
            return 404, error(404, "not enough stocks left to buy"), {}
        stock["quantity"] -= terms["quantity"] if terms["type"] == "buy" else -terms["quantity"]
        stock["version"] += 1
        number = len(self.orders) + 1
        self.keys[key] = number, terms
        self.orders[number] = {
            "order_num": number, "price": 15.99, "version": stock["version"], "time_ms": 7, **terms,
        }  # fmt: skip
        return 200, placed(number), {}


def placed(number):
    """The body of an answer to an order that was executed."""
    return {"data": {"transaction_number": number}}


def error(status, message, **more):
    """An error in the API's form."""
    return {"error": {"code": status, "message": message, **more}}


class Front:
    """One front-end. ``replies`` are what the next requests get instead of an answer: a fault, or
    a status with a body and headers. ``requests`` and ``bodies`` are what came; ``streams`` are the
    requests for events.
    """

    app = Klein()

    def __init__(self, ledger):
        self.ledger = ledger
        self.replies = []
        self.down = False
        self.requests = []
        self.bodies = []
        self.streams = []
        self.treq = StubTreq(self.app.resource())

    @app.route("/", branch=True)
    def answer(self, request):
        """Answer every request."""
        self.requests.append(request)
        reply = self.replies.pop(0) if self.replies else None
        self.bodies.append(request.content.read())
        if reply == HANG:
            return Deferred()
        if reply not in (None, LOSE, CUT):
            return self.send(request, reply)
        answer = self.judge(request, self.bodies[-1])
        if reply == LOSE:
            request.transport.loseConnection()
            return Deferred()
        return self.send(request, answer, reply == CUT)

    def send(self, request, answer, cut=False):
        """Send an answer, all of it or half."""
        if isinstance(answer, Deferred):
            return answer
        status, body, *headers = answer
        request.setResponseCode(status)
        request.setHeader("Content-Type", "application/json")
        for name, value in (headers[0] if headers else {}).items():
            request.setHeader(name, value)
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        if not cut:
            return text
        request.setHeader("Content-Length", str(len(text)))
        request.write(text[: len(text) // 2])
        request.transport.loseConnection()
        return Deferred()

    def judge(self, request, content):
        """The answer of a front-end that works."""
        parts = [unquote(part) for part in request.path.decode().split("/")[1:]]
        ledger, method = self.ledger, request.method.decode()
        match method, parts:
            case "POST", ["orders"]:
                return ledger.place(header(request, "Idempotency-Key"), json.loads(content))
            case "POST", ["orders", "batch"]:
                rows = [self.judge_one(terms) for terms in json.loads(content)["orders"]]
                return 200, {"data": rows}
            case "GET", ["orders", number] if int(number) in ledger.orders:
                return 200, {"data": ledger.orders[int(number)]}
            case "GET", ["orders"]:
                return page(request, ledger.orders, int)
            case "GET", ["stocks"]:
                return page(request, ledger.stocks, str)
            case "GET", ["stocks", name] if name in ledger.stocks:
                return 200, {"data": ledger.stocks[name]}
            case "GET", ["stocks", _]:
                return 404, error(404, "stock not found")
            case "GET", ["events"]:
                return self.stream(request)
        return 404, error(404, "Transaction number not found")

    def judge_one(self, terms):
        """The outcome of one order of a batch."""
        key = terms.pop("idempotency_key")
        status, body, headers = self.ledger.place(key, terms)
        if status != 200:
            return {"status": status, **body}
        return {"status": 200, **body["data"]} | ({"replayed": True} if headers else {})

    def stream(self, request):
        """Begin a stream of events."""
        request.setHeader("Content-Type", "text/event-stream")
        request.write(b": hello\n\n")
        self.streams.append(request)
        return Deferred()

    def tell(self, kind, data, cursor):
        """Send an event to the newest subscriber."""
        text = f"event: {kind}\nid: {cursor}\ndata: {json.dumps(data)}\n\n"
        self.streams[-1].write(text.encode())

    def hang_up(self):
        """End the newest subscriber's connection."""
        self.streams[-1].transport.loseConnection()


def header(request, name):
    """One header field of a request."""
    return request.getHeader(name)


def page(request, rows, kind):
    """Two rows of a list."""
    after = kind(request.args.get(b"after", [b"0" if kind is int else b""])[0].decode())
    keys = sorted(key for key in rows if key > after)
    more = keys[1] if len(keys) > 2 else None
    return 200, {"data": [rows[key] for key in keys[:2]], "next": more}


class StrictClock(Clock):
    """A clock that refuses negative delays, as the reactor does."""

    def callLater(self, delay, *args, **keywords):
        """As in ``Clock``, but with the reactor's assertion."""
        assert delay >= 0, delay
        return super().callLater(delay, *args, **keywords)


class World:
    """Front-ends, a clock, and a client of them."""

    def __init__(self, fronts=1, **options):
        self.clock = StrictClock()
        self.ledger = Ledger()
        self.fronts = [Front(self.ledger) for _ in range(fronts)]
        self.asked = []
        keys = (f"key-{k}" for k in itertools.count(1))
        urls = [f"http://front-{k}:{k}" for k in range(1, fronts + 1)]
        given = {"reactor": self.clock, "http": self, "random": Random(1)}
        given["new_key"] = lambda: next(keys)
        self.client = Client(urls, **(given | options))

    @property
    def front(self):
        """The first front-end."""
        return self.fronts[0]

    def request(self, method, url, **options):
        """Like treq's client; notes when which front-end was asked."""
        number = int(url.split(":")[2].split("/")[0])
        self.asked.append((round(self.clock.seconds(), 2), number))
        front = self.fronts[number - 1]
        if front.down or front.replies[:1] == [REFUSE]:
            del front.replies[:1]
            return fail(ConnectionRefusedError())
        return front.treq.request(method, url, **options)

    def begin(self, coroutine):
        """Start a coroutine; the list that is returned will get its result or its Failure."""
        results = []
        self.task = Deferred.fromCoroutine(coroutine).addBoth(results.append)
        self.pump()
        return results

    def pump(self):
        """Let everything that is on its way arrive."""
        for _ in range(3):
            for front in self.fronts:
                front.treq.flush()

    def finish(self, results, limit_s=60.0):
        """The result of what ``begin`` started; raises the error that it raised."""
        until = self.clock.seconds() + limit_s
        while not results:
            assert self.clock.seconds() < until, "no result"
            self.clock.advance(STEP_S)
            self.pump()
        if hasattr(results[0], "raiseException"):
            results[0].raiseException()
        return results[0]

    def run(self, coroutine):
        """The result of a coroutine."""
        return self.finish(self.begin(coroutine))

    def keys_sent(self):
        """The key of each order that reached a front-end."""
        return [
            header(request, "Idempotency-Key")
            for front in self.fronts
            for request in front.requests
        ]
