"""The console: a page for people, and the files that it is made of.

The files are read once, when the front-end starts: a request only looks up a name in a dictionary,
so no path can lead elsewhere.
"""

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

from twisted.web.server import Request

from twstock.web import answers
from twstock.web.answers import Answer, Header
from twstock.web.http.routes import Route

PAGE = "index.html"
MEDIA_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".txt": b"text/plain; charset=utf-8",
}
"""By suffix. Files with other suffixes are not served."""

REVALIDATE = b"no-cache"
"""The browser may store it but must revalidate it each time, so a new version shows at once."""

SECURITY: tuple[Header, ...] = (
    (
        b"Content-Security-Policy",
        b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    ),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Permissions-Policy", b"camera=(), display-capture=(), geolocation=(), microphone=()"),
    (b"Cross-Origin-Opener-Policy", b"same-origin"),
)
"""What a browser may do with the console: load what this front-end serves, and nothing else."""

_PREFIX = b"/console/"


def load() -> dict[str, Answer]:
    """The answer for each of the console's files, by its path in ``static``."""
    return dict(_loaded(files("twstock.web") / "static", PurePosixPath()))


def _loaded(room: Traversable, at: PurePosixPath) -> list[tuple[str, Answer]]:
    found = []
    for entry in room.iterdir():
        path = at / entry.name
        if entry.is_dir():
            found += _loaded(entry, path)
        elif path.suffix in MEDIA_TYPES:
            found.append((str(path), _file(entry.read_bytes(), MEDIA_TYPES[path.suffix])))
    return found


def _file(content: bytes, media_type: bytes) -> Answer:
    tag = b'"%b"' % hashlib.sha256(content).hexdigest()[:32].encode()
    return Answer(200, content, ((answers.ETAG, tag), *SECURITY), media_type, REVALIDATE)


class Console:
    """The handlers. ``found`` has each file's answer, by its path."""

    def __init__(self, found: Mapping[str, Answer]) -> None:
        self._found = found

    def routes(self) -> tuple[Route, ...]:
        """What is served where; none of it is part of the API."""
        return (
            Route("GET", "/", self.page),
            Route("GET", "/console/<rest:path>", self.file),
        )

    def page(self, _request: Request) -> Answer:
        """``GET /``: the one page."""
        return self._found[PAGE]

    def file(self, request: Request) -> Answer:
        """``GET /console/PATH``: a file, by its path exactly as the page spells it."""
        path = request.path.removeprefix(_PREFIX).decode("latin-1")
        return self._found.get(path, answers.NO_SUCH_PATH)
