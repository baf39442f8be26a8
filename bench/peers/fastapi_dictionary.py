"""FastAPI on uvicorn, answering from a dictionary: what a typical Python service would be."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bench.peers import uvicorn
from bench.systems import System, Work, lookups, recent_orders

NAME = "FastAPI"


@contextlib.contextmanager
def start(scratch: Path) -> Iterator[list[System]]:
    """The peer, up. Raises Missing."""
    with uvicorn.serving("bench.peers.fastapi_dictionary_app:app", scratch / "fastapi.log") as at:
        yield [System(NAME, at, {Work.LOOKUP: lookups(), Work.ORDER: recent_orders()})]
