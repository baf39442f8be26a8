"""Place many orders in one request: ``python batch.py [URL ...]``."""

import sys
from typing import Any

from twisted.internet.task import react

from twstock.client import BadAnswer, Client, OutcomeUnknown, Placed, Refused, Ticket


async def main(reactor: Any, *urls: str) -> None:
    """Three orders, one of which cannot be executed."""
    tickets = [Ticket.buy("GameStart", 1), Ticket.sell("Nobody", 1), Ticket.sell("GameStart", 1)]
    async with Client(urls or "http://127.0.0.1:8080", reactor=reactor) as client:
        results = await client.place_many(tickets)
    for ticket, result in zip(tickets, results, strict=True):
        match result:
            case Placed(number=number):
                print(f"{ticket.side} {ticket.name}: number {number}")
            case Refused():
                print(f"{ticket.side} {ticket.name}: {result}")
            case OutcomeUnknown(key=key):
                print(f"{ticket.side} {ticket.name}: ask again with the key {key}")
            case BadAnswer():
                print(f"{ticket.side} {ticket.name}: that was no front-end ({result})")
            case _:
                print(f"{ticket.side} {ticket.name}: nothing happened ({result})")


if __name__ == "__main__":
    react(main, sys.argv[1:])
