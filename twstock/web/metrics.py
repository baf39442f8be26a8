"""``GET /metrics``: the metrics of this front-end and all replicas, in Prometheus' text format.

The replicas are asked over gRPC, all at once and with a short deadline. One such scrape is made at
a time, and those who ask at about the same time share it, so many cost no more than one.
"""

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request

from twstock.clocks import Clock, pause
from twstock.errors import TwstockError
from twstock.exposition import CONTENT_TYPE, MembersCollector, pieces
from twstock.observatory import AGAIN_S, Observatory
from twstock.rpc.calls import Observe, Observed
from twstock.rpc.wire.methods import OBSERVE
from twstock.tally import Family, gauge
from twstock.web import bodies
from twstock.web.answers import Answer
from twstock.web.http.routes import Route
from twstock.web.upstream.leader import Caller
from twstock.web.upstream.shared import Shared

DEADLINE_S = 0.5
"""How long a replica may take to send its metrics; a dead one is not worth waiting for."""
TURN_S = 0.002
"""How long the text is worked on before requests have their turn."""
OPERATION: dict[str, Any] = {
    "operationId": "metrics",
    "summary": "What this front-end and all replicas count, in Prometheus' text format",
    "parameters": [
        {
            "name": "members",
            "in": "query",
            "description": "`self`: of this front-end alone. Without it: of all replicas, too.",
            "schema": {"type": "string", "enum": ["self"]},
        }
    ],
    "responses": {
        "200": {
            "description": "Each sample has a label `member`, for example `order-3`.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
}


class Metrics:
    """``own`` has this front-end's metrics; ``callers`` reach the replicas, by name."""

    def __init__(self, own: Observatory, callers: Mapping[str, Caller], clock: Clock) -> None:
        self._self = Shared(Scrape(own, {}, clock).answer, clock, AGAIN_S)
        self._all = Shared(Scrape(own, callers, clock).answer, clock, AGAIN_S)

    def routes(self) -> tuple[Route, ...]:
        """What is served where."""
        return (Route("GET", "/metrics", self.show, OPERATION),)

    def show(self, request: Request) -> "Deferred[Answer]":
        """``GET /metrics?members=``."""
        scrape = self._self if bodies.parse_self_alone(request.args) else self._all
        return scrape.answer()


class Scrape:
    """Asks all members for their metrics, and formats them."""

    _log = Logger()

    def __init__(self, own: Observatory, callers: Mapping[str, Caller], clock: Clock) -> None:
        self._own = own
        self._callers = callers
        self._clock = clock

    async def answer(self) -> Answer:
        """The metrics of all members, as text."""
        told = await self._told()
        found = {name: [*families, _up(name, bool(families))] for name, families in told.items()}
        return Answer(200, await self._text(MembersCollector(found)), media_type=CONTENT_TYPE)

    async def _told(self) -> dict[str, tuple[Family, ...]]:
        """Each member's metrics; none if it does not answer in time."""
        names = tuple(self._callers)
        calls = [
            caller.call(OBSERVE, Observe(), DEADLINE_S).addCallbacks(
                self._heard, self._lost, callbackArgs=(name,), errbackArgs=(name,)
            )
            for name, caller in self._callers.items()
        ]
        results = await DeferredList(calls)
        told = {name: families for name, (_, families) in zip(names, results, strict=True)}
        return {self._own.member: self._own.families(), **told}

    def _heard(self, answer: Observed, name: str) -> tuple[Family, ...]:
        return answer.families if answer.member == name else ()

    def _lost(self, failure: Failure, name: str) -> tuple[Family, ...]:
        """After any failure, no metrics: one member must not cost the answers of the others."""
        if not failure.check(TwstockError):
            self._log.failure("{name} could not be asked what it counts", failure, name=name)
        return ()

    async def _text(self, collector: MembersCollector) -> bytes:
        """The text, made in turns of the reactor that are not much longer than ``TURN_S``."""
        text: list[bytes] = []
        until = self._clock.seconds() + TURN_S
        for piece in pieces(collector):
            text.append(piece)
            if self._clock.seconds() >= until:
                await pause(self._clock, 0)
                until = self._clock.seconds() + TURN_S
        return b"".join(text)


def _up(member: str, told: bool) -> Family:
    labels = {"group": member.partition("-")[0]}
    return gauge(
        "twstock_member_up", "Whether the member has reported its metrics.", [(labels, told)]
    )
