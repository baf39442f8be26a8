"""Add a stock, and halt it for a moment: ``python administer.py TOKEN_FILE NAME [URL ...]``."""

import sys
from pathlib import Path
from typing import Any

from twisted.internet.task import react

from twstock.client import ChangeRefused, Client, NotAdministrator, Refused


async def main(reactor: Any, token_file: str, name: str, *urls: str) -> None:
    """Add a stock unless it is there, then see that nobody trades it while it is halted."""
    async with Client(urls or "http://127.0.0.1:8080", reactor=reactor) as client:
        admin = client.administrator(Path(token_file).read_text().strip())
        try:
            added = await admin.add(name, "2.50", 100)
            print(f"change {added.number}: {added.stock.name} at {added.stock.price}")
        except ChangeRefused as refused:
            print(refused)
        except NotAdministrator as problem:
            sys.exit(f"{token_file}: {problem}")

        await admin.halt(name)
        try:
            await client.buy(name, 1)
        except Refused as refused:
            print(refused)
        await admin.resume(name)

        async for change in client.changes():
            if change.name == name:
                print(f"{change.number}: {change.kind}")


if __name__ == "__main__":
    react(main, sys.argv[1:])
