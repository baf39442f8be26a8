"""Look stocks up: ``python lookup.py [URL ...]``."""

import sys
from typing import Any

from twisted.internet.task import react

from twstock.client import Client, StockNotFound


async def main(reactor: Any, *urls: str) -> None:
    """One stock by its name, one that does not exist, then all of them."""
    async with Client(urls or "http://127.0.0.1:8080", reactor=reactor) as client:
        stock = await client.lookup("GameStart")
        print(f"{stock.name}: {stock.quantity} shares at {stock.price}")

        # Asked with what is known already, the answer need not carry it again.
        now = await client.lookup("GameStart", known=stock)
        print("it has changed" if now != stock else "it has not changed")

        try:
            await client.lookup("Nobody")
        except StockNotFound as error:
            print(error)

        async for stock in client.stocks():
            print(f"{stock.name:<14}{stock.price:>10}{stock.quantity:>8}")


if __name__ == "__main__":
    react(main, sys.argv[1:])
