"""The application of ``fastapi_dictionary``, in a process of its own."""

from typing import Any

from fastapi import FastAPI, HTTPException  # type: ignore[import-not-found, unused-ignore]

from bench.peers.shape import dictionaries

STOCKS, ORDERS = dictionaries()
app = FastAPI()


async def stock(name: str) -> dict[str, dict[str, Any]]:
    """One stock."""
    if name not in STOCKS:
        raise HTTPException(404, "stock not found")
    return {"data": STOCKS[name]}


async def order(number: int) -> dict[str, dict[str, Any]]:
    """One order."""
    if number not in ORDERS:
        raise HTTPException(404, "order not found")
    return {"data": ORDERS[number]}


app.get("/stocks/{name}")(stock)
app.get("/orders/{number}")(order)
