"""The internal listener: for the catalog's invalidations, and other front-ends' ``GET /self``."""

from collections.abc import Callable
from typing import Any

from klein import Klein
from twisted.web.server import Request

from twstock.web import answers, bodies
from twstock.web.answers import Answer
from twstock.web.cache import Cache
from twstock.web.http.respond import body, segment
from twstock.web.http.routes import Route, mount

BODY_BYTES_MAX = 1024 * 1024
"""A batch of invalidations can be longer than any order."""


class Internal:
    """The handlers. An answer to DELETE means that the cache cannot show the old version any
    more: it is sent after the cache has changed, in the same turn of the reactor.
    """

    def __init__(self, cache: Cache, own_row: Callable[[], dict[str, Any]]) -> None:
        self._cache = cache
        self._own_row = own_row

    def app(self) -> Klein:
        """The routes."""
        return mount(
            (
                Route("DELETE", "/delete/<rest:name>", self.delete),
                Route("GET", "/self", self.tell),
            )
        )

    def delete(self, request: Request) -> Answer:
        """``DELETE /delete/NAME?version=v``, or a batch in the body of ``DELETE /delete/``."""
        encoded = segment(request, 2)
        if encoded is None:
            return answers.NO_SUCH_PATH
        name = bodies.parse_name(encoded)
        if name:
            self._cache.invalidate(name, bodies.parse_version(request.args))
        else:
            for each, version in bodies.parse_versions(body(request)).items():
                self._cache.invalidate(each, version)
        return answers.INVALIDATED

    def tell(self, _request: Request) -> Answer:
        """``GET /self``: this front-end's row of ``/cluster``."""
        return answers.data(self._own_row())
