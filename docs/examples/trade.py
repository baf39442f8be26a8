"""Buy shares, exactly once whatever happens: ``python trade.py [URL ...]``."""

import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

from twisted.internet.task import react

from twstock.client import Client, OutcomeUnknown, Placed, Refusal, Refused

KEY = Path("trade.key")


async def main(reactor: Any, *urls: str) -> None:
    """Buy three shares. Started again after a crash, it goes on with the same order."""
    if not KEY.exists():
        # The key names the order, so it is kept, whole, before the order is sent.
        draft = KEY.with_suffix(".new")
        draft.write_text(uuid4().hex)
        draft.replace(KEY)
    async with Client(urls or "http://127.0.0.1:8080", reactor=reactor) as client:
        try:
            placed = await buy(client, KEY.read_text())
        except Refused as refused:
            print(f"not bought: {refused}")
            if refused.kind is Refusal.NOT_ENOUGH:
                print("try fewer")
        else:
            print(f"bought: transaction number {placed.number}")
            order = await client.order(placed.number)
            print(f"{order.quantity} {order.name} at {order.price}")
    KEY.unlink()


async def buy(client: Client, key: str) -> Placed:
    """Place the order until it is known what became of it. The client has its own patience; this
    is for a cluster that is away for longer.
    """
    while True:
        try:
            return await client.buy("GameStart", 3, key)
        except OutcomeUnknown as unknown:
            print(f"asking again: {unknown}", file=sys.stderr)


if __name__ == "__main__":
    react(main, sys.argv[1:])
