"""Many orders in one request: which of them are settled, and which have to be sent again."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from twstock.client.answers import problem, refused
from twstock.client.values import BadAnswer, Placed, Ticket, placed_number, rows, status_of
from twstock.errors import OutcomeUnknown, TwstockError
from twstock.forms import ASK_AGAIN, Answer, may_have_executed, order_terms

ORDERS_MAX = 1000
"""The most orders that the server takes at once."""

BODY_BYTES_MAX = 256 * 1024
"""About the largest body of a request: half of what a front-end takes."""

_ORDER_BYTES = 160
"""More than an order takes besides its name and a key of the caller's; it includes one that the
client makes."""


def split(tickets: Iterable[Ticket]) -> Iterator[list[Ticket]]:
    """The tickets in parts, one for each request."""
    part: list[Ticket] = []
    room = BODY_BYTES_MAX
    for ticket in tickets:
        size = _ORDER_BYTES + len(json.dumps(ticket.name)) + len(ticket.key or "")
        if part and (len(part) == ORDERS_MAX or size > room):
            yield part
            part, room = [], BODY_BYTES_MAX
        part.append(ticket)
        room -= size
    if part:
        yield part


class TicketBatch:
    """Tickets, their ``keys``, and the outcome of each. Those are doubtful that may have been
    executed: they came with a key, or an attempt ended without an answer about them.
    """

    def __init__(self, tickets: Sequence[Ticket], keys: Sequence[str]) -> None:
        self._tickets = tickets
        self._keys = keys
        self._results: dict[int, Placed | TwstockError] = {}
        self._doubtful = {k for k, ticket in enumerate(tickets) if ticket.key is not None}

    @property
    def open(self) -> list[int]:
        """The positions of the tickets that are not settled."""
        return [k for k in range(len(self._tickets)) if k not in self._results]

    @property
    def results(self) -> "list[Placed | TwstockError]":
        """The outcome of each, in the order of the tickets. All must be settled."""
        return [self._results[k] for k in range(len(self._tickets))]

    def body(self) -> bytes:
        """The request for the tickets that are not settled."""
        orders = [
            order_terms(self._tickets[k].name, self._tickets[k].side, self._tickets[k].quantity)
            | {"idempotency_key": self._keys[k]}
            for k in self.open
        ]
        return json.dumps({"orders": orders}).encode("ascii")

    def learn(self, answer: Answer) -> None:
        """Take in the answer to ``body()``."""
        asked = self.open
        if answer.doubtful:
            self._doubtful.update(asked)
        if not answer.ok:
            self.give_up(problem(answer))
            return
        try:
            found = rows(answer.body, "data")
            if len(found) != len(asked):
                raise BadAnswer(f"data: expected {len(asked)} outcomes, got {len(found)}")
            for k, row in zip(asked, found, strict=True):
                self._learn_one(k, row)
        except BadAnswer as error:
            # The orders may have been executed even though the answer makes no sense.
            self.give_up(OutcomeUnknown(str(error)))

    def give_up(self, why: TwstockError) -> None:
        """Settle what is left: as OutcomeUnknown if it may have been executed, else as ``why``."""
        unknown = isinstance(why, OutcomeUnknown)
        for k in self.open:
            doubtful = unknown or k in self._doubtful
            self._results[k] = OutcomeUnknown(str(why), self._keys[k]) if doubtful else why

    def _learn_one(self, k: int, row: Any) -> None:
        status, key = status_of(row), self._keys[k]
        if status == 200:
            self._results[k] = Placed(placed_number(row), row.get("replayed") is True, key)
            return
        answer = Answer(status, {}, row, k in self._doubtful)
        if status not in ASK_AGAIN:
            self._results[k] = refused(answer, key)
        elif may_have_executed(status, answer.outcome):
            self._doubtful.add(k)
