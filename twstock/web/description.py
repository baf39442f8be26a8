"""The description of the API: ``/openapi.json`` for programs, ``/docs`` for people.

Both are made once, from the table of routes, when the front-end starts.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib import metadata, resources
from typing import Any, Protocol

from twisted.web.server import Request

from twstock.web import adminspec, history, manual, openapi, operations
from twstock.web.answers import ETAG, REVALIDATED, Answer, Header
from twstock.web.http.routes import Route
from twstock.web.operations import Spec

_POLICY: Header = (b"Content-Security-Policy", b"default-src 'self'")


def _operation(name: str, summary: str, media_type: str) -> Spec:
    schema = {"type": "object" if media_type == "application/json" else "string"}
    found = {
        "description": "The description.",
        "headers": {"ETag": {"schema": {"type": "string"}}},
        "content": {media_type: {"schema": schema}},
    }
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["description"],
        "responses": {"200": found},
    }


class Part(Protocol):
    """A part of the front-end."""

    def routes(self) -> tuple[Route, ...]:
        """What it serves where."""


class Description:
    """Describes ``routes`` and its own routes. ``schemas`` and ``security`` (the security schemes)
    are those that the operations refer to.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        version: str,
        schemas: Mapping[str, Any],
        security: Mapping[str, Any] | None = None,
    ) -> None:
        spec = openapi.describe((*routes, *self.routes()), version, schemas, security)
        style = resources.files("twstock.web").joinpath("docs.css").read_bytes()
        self._spec = _document(json.dumps(spec, ensure_ascii=True).encode(), b"application/json")
        self._page = _document(manual.page(spec).encode(), b"text/html; charset=utf-8", _POLICY)
        self._style = _document(style, b"text/css; charset=utf-8")

    def routes(self) -> tuple[Route, ...]:
        """What is served where."""
        spec = _operation("getDescription", "This description, for programs", "application/json")
        page = _operation("getDocs", "This description, for people", "text/html")
        return (
            Route("GET", "/openapi.json", self.spec, spec),
            Route("GET", "/docs", self.page, page),
            Route("GET", manual.STYLE_PATH, self.style),
        )

    def spec(self, _request: Request) -> Answer:
        """``GET /openapi.json``."""
        return self._spec

    def page(self, _request: Request) -> Answer:
        """``GET /docs``."""
        return self._page

    def style(self, _request: Request) -> Answer:
        """The stylesheet of the page."""
        return self._style


def _document(body: bytes, media_type: bytes, *headers: Header) -> Answer:
    """A document that changes only when the program does; its ETag is a hash."""
    tag = b'"%b"' % sha256(body).hexdigest()[:16].encode()
    return Answer(200, body, ((ETAG, tag), *headers), media_type, REVALIDATED)


def described(parts: Sequence[Part]) -> tuple[Route, ...]:
    """All routes of these parts, and those of their description."""
    routes = tuple(route for part in parts for route in part.routes())
    schemas = {**operations.SCHEMAS, **adminspec.SCHEMAS, **history.SCHEMAS}
    description = Description(
        routes, metadata.version("twstock"), schemas, adminspec.SECURITY_SCHEMES
    )
    return routes + description.routes()
