"""The application of ``fastapi_postgres``, in a process of its own.

``POST /orders`` is the transaction that one would usually write; ``POST /orders/fast`` is the
fastest version that we found, at the price of gaps in the numbers.
"""

import contextlib
import os
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import asyncpg  # type: ignore[import-not-found, import-untyped, unused-ignore]
from fastapi import (  # type: ignore[import-not-found, unused-ignore]
    FastAPI,
    Header,
    HTTPException,
)

POOL = 5
"""The fastest of 2, 5, 10 and 20 with 64 clients: more connections wait for the same locks."""
_MOVE = """
    UPDATE stocks
    SET quantity = quantity + $2, volume = volume + $3, version = version + 1
    WHERE name = $1 AND quantity + $2 >= 0
    RETURNING price_cents, version
"""
_NUMBER = "UPDATE counter SET number = number + 1 RETURNING number"
_INSERT = """
    INSERT INTO orders (number, key, name, side, quantity, price_cents, version, time_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
_FAST = f"""
    WITH moved AS ({_MOVE})
    INSERT INTO orders (number, key, name, side, quantity, price_cents, version, time_ms)
    SELECT nextval('fast_numbers'), $4, $1, $5, $3, price_cents, version, $6 FROM moved
    RETURNING number
"""
_REPLAY = "SELECT number FROM orders WHERE key = $1"
_LOOK = "SELECT name, price_cents, quantity, volume, version FROM stocks WHERE name = $1"
Key = Annotated[str | None, Header(alias="Idempotency-Key")]


@dataclass(frozen=True, slots=True)
class NewOrder:
    """The body of ``POST /orders``."""

    name: str
    quantity: int
    type: Literal["buy", "sell"]

    @property
    def delta(self) -> int:
        """What the order adds to the quantity of its stock."""
        return self.quantity if self.type == "sell" else -self.quantity


async def no_reset(_: Any) -> None:
    """Return a connection to the pool as it is: no request changes its settings."""


@contextlib.asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """The pool of connections, as long as the application runs."""
    dsn = os.environ["BENCH_POSTGRES_DSN"]
    async with asyncpg.create_pool(dsn, min_size=POOL, max_size=POOL, reset=no_reset) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


def answer(number: int) -> dict[str, dict[str, int]]:
    """The answer to a trade."""
    return {"data": {"transaction_number": number}}


async def trade(new: NewOrder, key: Key = None) -> dict[str, dict[str, int]]:
    """Execute an order at most once, and number orders without a gap."""
    key = key or uuid.uuid4().hex
    pool = app.state.pool
    try:
        async with pool.acquire() as connection, connection.transaction():
            moved = await connection.fetchrow(_MOVE, new.name, new.delta, new.quantity)
            if moved is None:
                raise HTTPException(404, "no such stock, or not enough left to buy")
            number = await connection.fetchval(_NUMBER)
            order = (number, key, new.name, new.type, new.quantity, *moved, now_ms())
            await connection.execute(_INSERT, *order)
    except asyncpg.UniqueViolationError:
        number = await pool.fetchval(_REPLAY, key)
    return answer(number)


async def fast_trade(new: NewOrder, key: Key = None) -> dict[str, dict[str, int]]:
    """The same in one statement. Its number is from a sequence: a rollback leaves a gap."""
    key = key or uuid.uuid4().hex
    words = (new.name, new.delta, new.quantity, key, new.type, now_ms())
    try:
        number = await app.state.pool.fetchval(_FAST, *words)
    except asyncpg.UniqueViolationError:
        number = await app.state.pool.fetchval(_REPLAY, key)
    if number is None:
        raise HTTPException(404, "no such stock, or not enough left to buy")
    return answer(number)


async def stock(name: str) -> dict[str, dict[str, Any]]:
    """One stock, from the table."""
    row = await app.state.pool.fetchrow(_LOOK, name)
    if row is None:
        raise HTTPException(404, "stock not found")
    found = dict(row)
    found["price"] = found.pop("price_cents") / 100
    return {"data": found}


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


app.post("/orders")(trade)
app.post("/orders/fast")(fast_trade)
app.get("/stocks/{name}")(stock)
