"""Administration over REST: whoever knows the token may add and change stocks."""

from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import sha256
from hmac import compare_digest
from typing import Protocol

from twisted.logger import Logger
from twisted.web.server import Request

from twstock.access import Admin
from twstock.config import Limits
from twstock.errors import KeyReused, TwstockError
from twstock.market import ChangeKind, ChangeRequest
from twstock.rpc.calls import Changed, Changes, Page
from twstock.tokens import is_read_by_all, read_token
from twstock.web import answers, bodies
from twstock.web.adminspec import ADD, CHANGES, LIST
from twstock.web.answers import Answer
from twstock.web.cache import Cache
from twstock.web.http.respond import body
from twstock.web.http.routes import Route

_log = Logger()


class Catalog(Protocol):
    """The catalog service, as an administrator uses it."""

    def change(self, request: ChangeRequest) -> Awaitable[Changed]:
        """Make a change and return its outcome; under one key it is made once at most."""

    def list_changes(self, page: Page) -> Awaitable[Changes]:
        """A page of the changes that were made."""


class Administration:
    """The handlers. ``token`` is the administrator's, empty if there is none; ``new_key`` makes
    an idempotency key.
    """

    def __init__(
        self,
        cache: Cache,
        catalog: Catalog,
        token: str,
        new_key: Callable[[], str],
        limits: Limits,
    ) -> None:
        self._cache = cache
        self._catalog = catalog
        self._token = _digest(token.encode()) if token else b""
        self._new_key = new_key
        self._limits = limits

    def routes(self) -> tuple[Route, ...]:
        """What is served where."""
        stock = "/admin/stocks/<rest:name>/"
        return (
            Route("POST", "/admin/stocks", self.add, ADD),
            *(
                Route("POST", stock + kind, partial(self.change, ChangeKind(kind)), operation)
                for kind, operation in CHANGES.items()
            ),
            Route("GET", "/admin/changes", self.list_changes, LIST),
        )

    async def add(self, request: Request) -> Answer:
        """``POST /admin/stocks``: one more stock."""
        refused = self._refused(request)
        if refused is not None:
            return refused
        key, keyed = self._key(request)
        return await self._change(bodies.parse_add(body(request), key), keyed)

    async def change(self, kind: ChangeKind, request: Request) -> Answer:
        """``POST /admin/stocks/NAME/KIND``: a change of one stock."""
        refused = self._refused(request)
        if refused is not None:
            return refused
        # The raw path: a percent-encoded slash belongs to the name.
        segments = request.path.split(b"/")
        if len(segments) != 5:
            return answers.NO_SUCH_PATH
        name = bodies.parse_name(segments[3])
        if not name:
            return answers.NO_SUCH_STOCK
        key, keyed = self._key(request)
        return await self._change(bodies.parse_change(kind, name, body(request), key), keyed)

    async def list_changes(self, request: Request) -> Answer:
        """``GET /admin/changes?after=&limit=``: open to everybody, as the stocks are."""
        page = bodies.parse_order_page(request.args, self._limits.page_max)
        return answers.change_page(await self._catalog.list_changes(page))

    def _refused(self, request: Request) -> Answer | None:
        """The refusal, if the sender may not change stocks."""
        if not self._token:
            return answers.ADMINISTRATION_OFF
        values = request.requestHeaders.getRawHeaders(b"Authorization") or [b""]
        scheme, _, token = values[0].partition(b" ")
        # Digests have equal lengths, so the time of the comparison reveals nothing of the token.
        known = compare_digest(_digest(token.strip()), self._token)
        if known and scheme.lower() == b"bearer" and len(values) == 1:
            return None
        return answers.NO_ADMINISTRATOR

    def _key(self, request: Request) -> tuple[str, bool]:
        """The key of the request, and whether the client named it."""
        key = bodies.parse_key(request.requestHeaders.getRawHeaders(b"Idempotency-Key"))
        return key or self._new_key(), key is not None

    async def _change(self, request: ChangeRequest, keyed: bool) -> Answer:
        try:
            done = await self._catalog.change(request)
        except KeyReused:
            return answers.KEY_OF_ANOTHER_CHANGE
        except TwstockError as error:
            return answers.error(*answers.not_done(error, keyed, "the change may have been made"))
        if done.stock is not None:
            self._cache.raise_minimum(done.stock.name, done.stock.version)
        return answers.changed(done, keyed)


def _digest(token: bytes) -> bytes:
    return sha256(token).digest()


def known_token(admin: Admin) -> str:
    """The configured token, or that in the configured file; empty if there is none. Raises
    ConfigError, which names the file, if that cannot be read.
    """
    if admin.token_file is None:
        return admin.token
    token = read_token(admin.token_file)
    if is_read_by_all(admin.token_file):
        _log.warn("{path}: every user of this machine can read it", path=admin.token_file)
    return token
