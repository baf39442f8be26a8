"""How a function that returns an ``Answer`` becomes a Klein handler. All JSON is sent here."""

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import BaseConverter

from twstock import origin
from twstock.errors import TwstockError
from twstock.origin import OriginLogger
from twstock.web import answers
from twstock.web.answers import Answer, Header
from twstock.web.http.request import ApiRequest, begin, decoded
from twstock.web.traffic import route_of

Answering = Answer | Coroutine[Any, Any, Answer] | Deferred[Answer]
Respond = Callable[[Request], Answering]
_log = OriginLogger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed(Answer):
    """An answer whose body is written bit by bit: ``begin`` takes the request over. The Deferred
    that it returns fires when the body is complete, and is cancelled when the client is gone.
    """

    begin: "Callable[[Request], Deferred[None]]"

    def fields(self) -> tuple[Header, ...]:
        """As for any answer, but without Content-Length, which nobody knows yet."""
        return tuple(field for field in Answer.fields(self) if field[0] != b"Content-Length")


class _Rest(BaseConverter):
    """Matches the rest of a path, which may contain slashes or be empty: handlers read the raw
    path, because a percent-encoded slash belongs to a name. ``but`` is not matched: it has a
    route of its own.
    """

    part_isolating = False

    def __init__(self, map: Any, but: str = "") -> None:
        super().__init__(map)
        self.regex = rf"(?!{re.escape(but)}$)[\s\S/]*" if but else r"[\s\S/]*"


def new_app() -> Klein:
    """An app that answers in JSON also if no route matches, and never redirects."""
    app = Klein()
    app.url_map.converters["rest"] = _Rest
    app.url_map.merge_slashes = False
    app.handle_errors(HTTPException)(_no_route)
    app.handle_errors(Exception)(_unexpected)
    return app


def add_route(app: Klein, url: str, method: str, respond: Respond) -> None:
    """Answer ``method`` (GET: also HEAD) on ``url`` with what ``respond`` returns."""
    traffic = route_of(method, url)
    methods = (b"GET", b"HEAD") if method == "GET" else (method.encode("ascii"),)

    def handler(request: Request, **_: str) -> "bytes | Deferred[bytes] | Deferred[None]":
        # Werkzeug ignores a second slash at the beginning of a path, and the case of methods.
        if request.path.startswith(b"//"):
            return begin(request, answers.NO_SUCH_PATH)
        if request.method not in methods:
            path = decoded(request.path).decode("utf-8")
            return begin(request, answers.not_allowed(app.url_map.bind("").allowed_methods(path)))
        if isinstance(request, ApiRequest):
            request.traffic = traffic
        answer = outcome(lambda: respond(request), getattr(request, "request_id", b""))
        if isinstance(answer, Streamed) and request.method != b"HEAD":
            begin(request, answer)
            return answer.begin(request)
        if isinstance(answer, Answer):
            return begin(request, answer)
        return answer.addCallback(_send, request)

    handler.__name__ = f"{method} {url}"
    app.route(url, methods=[method])(handler)


def outcome(
    respond: Callable[[], Answering], request_id: bytes, *, shield: bool = True
) -> "Answer | Deferred[Answer]":
    """The answer that ``respond`` returns, or that its error makes (see ``failed``). ``shield``:
    cancelling the result does not cancel the work; callers that never cancel need no shield.
    """
    try:
        answer = respond()
    except Exception:
        return failed(Failure(), request_id)
    if isinstance(answer, Answer):
        return answer
    if isinstance(answer, Deferred) and not shield:
        return answer.addErrback(failed, request_id)
    return shielded(answer).addErrback(failed, request_id)


def shielded(work: "Coroutine[Any, Any, Answer] | Deferred[Answer]") -> "Deferred[Answer]":
    """The result of ``work``, which goes on when the result is cancelled: Klein cancels a
    handler when its client hangs up, and an order that was sent cannot be taken back.
    """
    outer: Deferred[Answer] = Deferred()
    inner = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
    inner.addBoth(outer.callback)
    return outer


def failed(failure: Failure, request_id: bytes) -> Answer:
    """The answer for an error; one not raised on purpose is logged with the request's id."""
    if failure.check(CancelledError):
        failure.raiseException()
    if isinstance(failure.value, TwstockError):
        return answers.failure(failure.value)
    with origin.on_behalf_of((request_id.decode("ascii"),) if request_id else ()):
        _log.failure("a request failed", failure)
    return answers.BROKEN


def _send(answer: Answer, request: Request) -> bytes:
    """Klein writes the body, which Twisted leaves out for HEAD."""
    return begin(request, answer)


def _no_route(request: Request, failure: Failure) -> bytes:
    """No route matches the path, or none that does takes the method."""
    problem = failure.value
    if isinstance(problem, MethodNotAllowed):
        return begin(request, answers.not_allowed(problem.valid_methods or ()))
    return begin(request, answers.NO_SUCH_PATH)


def _unexpected(request: Request, failure: Failure) -> bytes:
    return begin(request, failed(failure, getattr(request, "request_id", b"")))


def segment(request: Request, position: int) -> bytes | None:
    """The segment of the raw path at ``position``; None unless it is the path's last one."""
    segments: list[bytes] = request.path.split(b"/")
    return segments[position] if len(segments) == position + 1 else None


def body(request: Request) -> bytes:
    """The whole body of a request, which has been received before a handler is called."""
    content: Any = request.content
    received: bytes = content.read()
    return received
