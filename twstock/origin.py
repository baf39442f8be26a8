"""On whose behalf something runs: the ids of requests, which appear in the log.

A front-end gives each request an id (the header X-Request-Id, in and out). The id follows what runs
for the request: through coroutines, which keep the context in which they were started, and through
gRPC. A gathered call runs for many requests, and carries some of the ids that clients gave.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from twisted.logger import Logger

from twstock.market import REQUEST_ID_CHARS_MAX

IDS_MAX = 16
"""The most ids that one call carries."""
Ids = tuple[str, ...]

_ID = re.compile(rf"[\x21-\x7e]{{1,{REQUEST_ID_CHARS_MAX}}}")
_ids: ContextVar[Ids] = ContextVar("request_ids", default=())

current: Callable[[], Ids] = _ids.get
"""The ids of the requests on whose behalf the caller runs."""


@contextmanager
def on_behalf_of(ids: Ids) -> Iterator[None]:
    """Run the body, which does not await, and the coroutines that begin in it, for these
    requests.
    """
    before = _ids.set(ids)
    try:
        yield
    finally:
        _ids.reset(before)


def work_for(ids: Ids) -> None:
    """Run what follows in this coroutine, which has a context of its own, for these requests."""
    _ids.set(ids)


def together(origins: Iterable[Ids]) -> Ids:
    """The first ``IDS_MAX`` different ids of many."""
    found: dict[str, None] = {}
    for ids in origins:
        for each in ids:
            found[each] = None
        if len(found) >= IDS_MAX:
            break
    return tuple(found)[:IDS_MAX]


def received(ids: Iterable[str | bytes]) -> Ids:
    """The valid ids among what came over the wire: nothing else may get into the log."""
    return tuple(i for i in ids if isinstance(i, str) and _ID.fullmatch(i))[:IDS_MAX]


class OriginLogger(Logger):
    """A logger whose lines name the requests on whose behalf they were written: in the text, and as
    ``request_id`` among the values, with spaces between several.
    """

    def emit(self, level: Any, format: str | None = None, **values: Any) -> None:
        """Write a line."""
        ids = _ids.get()
        if ids:
            format = f"{format} [request {{request_id}}]"
            values["request_id"] = " ".join(ids)
        super().emit(level, format, **values)
