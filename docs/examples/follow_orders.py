"""Read the orders, then those that follow: ``python follow_orders.py COUNT [URL ...]``."""

import sys
from typing import Any

from twisted.internet.task import deferLater, react

from twstock.client import Client


async def main(reactor: Any, count: str, *urls: str) -> None:
    """Print the first ``count`` orders, waiting for those that are not placed yet."""
    seen = 0
    async with Client(urls or "http://127.0.0.1:8080", reactor=reactor) as client:
        while seen < int(count):
            async for order in client.orders(after=seen):
                print(f"{order.number}: {order.side} {order.quantity} {order.name}", flush=True)
                seen = order.number
                if seen == int(count):
                    break
            else:
                await deferLater(reactor, 0.5)


if __name__ == "__main__":
    react(main, sys.argv[1:])
