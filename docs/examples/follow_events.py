"""Follow the market: ``python follow_events.py COUNT [URL ...]``."""

import sys
from pathlib import Path
from typing import Any

from twisted.internet.task import react

from twstock.client import Client, Leader, Reset, Trades

CURSOR = Path("events.cursor")


async def main(reactor: Any, count: str, *urls: str) -> None:
    """Print trades until there were ``count`` of them. Started again, it goes on after the last
    one that it printed: none is missed, none comes twice.
    """
    traded = 0
    after = CURSOR.read_text() if CURSOR.exists() else None
    async with (
        Client(urls or "http://127.0.0.1:8080", reactor=reactor) as client,
        client.events(after=after) as events,
    ):
        async for event in events:
            match event:
                case Trades(orders=orders):
                    for order in orders:
                        print(f"{order.number}: {order.side} {order.quantity} {order.name}")
                    traded += len(orders)
                case Leader(group=group, leader_id=leader_id):
                    print(f"{group}-{leader_id} leads", flush=True)
                case Reset():
                    print("too far behind: everything has to be read again")
            # What is printed is done with.
            if event.cursor:
                keep(event.cursor)
            if traded >= int(count):
                break


def keep(cursor: str) -> None:
    """Whole, or what was kept before, whenever the program is killed."""
    draft = CURSOR.with_suffix(".new")
    draft.write_text(cursor)
    draft.replace(CURSOR)


if __name__ == "__main__":
    react(main, sys.argv[1:])
