"""The table of routes: what is served where, and how the API describes it.

Each part of the front-end (``Api``, ``Batches`` and others) lists its routes. ``mount`` makes a
Klein app of them, and the description of the API is made from the same table.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from klein import Klein

from twstock.web.http.respond import Respond, add_route, new_app


@dataclass(frozen=True, slots=True)
class Route:
    """``method`` (GET: also HEAD) on ``path``, in Klein's form, is answered by ``respond``.

    ``operation`` is its Operation Object (OpenAPI 3.1, section 4.8.10), without what all routes
    have in common; empty: not part of the documented API. ``body_bytes_max`` is the limit for
    its bodies if they may be larger than most; 0: the usual limit.
    """

    method: str
    path: str
    respond: Respond
    operation: Mapping[str, Any] = field(default_factory=dict)
    body_bytes_max: int = 0


def larger_bodies(routes: Iterable[Route]) -> dict[bytes, int]:
    """The limits of the paths where bodies may be larger than most."""
    return {route.path.encode(): limit for route in routes if (limit := route.body_bytes_max)}


def mount(routes: Iterable[Route]) -> Klein:
    """An app with these routes."""
    app = new_app()
    for route in routes:
        add_route(app, route.path, route.method, route.respond)
    return app
