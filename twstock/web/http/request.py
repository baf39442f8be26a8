"""One HTTP request: its body in memory, its id, and its answer in the form that it asks for."""

import re
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource

from twstock import origin
from twstock.origin import OriginLogger
from twstock.web import answers
from twstock.web.answers import Answer
from twstock.web.http.conditional import is_held
from twstock.web.http.foreign import SAFE_METHODS, is_foreign
from twstock.web.http.problems import suited
from twstock.web.traffic import OTHER, STREAM, Traffic

REQUEST_ID = b"X-Request-Id"
_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)


class ApiRequest(server.Request):
    """A request whose body is held in memory, counted, and answered in JSON whatever happens.

    ``request_id`` is the name that it has in its answer and in the log.
    """

    channel: Any  # the ApiChannel (module channel) that it came on
    content: BytesIO
    request_id = b""
    traffic = OTHER
    _log = OriginLogger()
    _received = 0
    _body_bytes_max = 0
    _began = 0.0

    def gotLength(self, _length: int | None) -> None:
        """Keep the body in memory: the channel has refused what is too long."""
        self.content = BytesIO()
        self._body_bytes_max = self.channel.body_bytes_max()

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a piece of the body, unless that makes a chunked body too long."""
        self._received += len(data)
        if self.expect(0):
            self.content.write(data)

    def expect(self, length: int) -> bool:
        """Whether the body may have ``length`` more bytes; if not, the request is refused. A
        chunk announces its size before its bytes come.
        """
        if self._received + length > self._body_bytes_max:
            self.channel.refuse(answers.body_too_large(self._body_bytes_max))
            return False
        return True

    def process(self) -> None:
        """Hand the request to the site's resource, which is a leaf."""
        site = self.site = self.channel.site
        self._began = site.clock.seconds()
        self.path = without_authority(self.path)
        self.prepath: list[bytes] = []
        path = decoded(self.path)
        self.postpath = path[1:].split(b"/")
        self.responseHeaders.setRawHeaders(b"Date", [site.date()])
        self.request_id = site.ids.of(self.requestHeaders.getRawHeaders(REQUEST_ID))
        self.responseHeaders.setRawHeaders(REQUEST_ID, [self.request_id])
        with origin.on_behalf_of((self.request_id.decode("ascii"),)):
            if not _is_utf8(path):
                self.send(answers.NOT_UTF8)
            elif self.method not in SAFE_METHODS and self._is_foreign():
                self.send(answers.OF_ANOTHER_ORIGIN)
            elif not self.path.startswith(b"/") and self.method != b"OPTIONS":
                # Klein drops the first character of a path, whatever it is.
                self.send(answers.NO_SUCH_PATH)
            else:
                self._render(site.resource)

    def _is_foreign(self) -> bool:
        field = self.requestHeaders.getRawHeaders
        return is_foreign(field(b"Sec-Fetch-Site"), field(b"Origin"), field(b"Host"))

    def _render(self, resource: IResource) -> None:
        try:
            self.render(resource)
        except Exception:
            self.processingFailed(Failure())

    def processingFailed(self, reason: Failure) -> Failure:
        """Log what nobody expected, and say in JSON that it happened."""
        with origin.on_behalf_of((self.request_id.decode("ascii"),)):
            self._log.failure("a request failed", reason)
        self.send(answers.BROKEN)
        return reason

    def send(self, answer: Answer) -> None:
        """Answer and finish, unless an answer has been begun."""
        if self.startedWriting or self._disconnected:
            return
        self.write(begin(self, answer))
        self.finish()

    def count(self, traffic: Traffic) -> None:
        """Count the request, once it is answered."""
        if self.traffic != STREAM:
            now = self.channel.site.clock.seconds()
            traffic.of(self.traffic, self.code).observe(now - self._began)

    def getRequestHostname(self) -> bytes:
        """A constant: routes do not depend on the host, and not every Host is a name."""
        return b"localhost"


def begin(request: server.Request, answer: Answer) -> bytes:
    """Set the status and all headers of an answer, in the form that the request asks for: the
    one place where that is done. Returns the body.
    """
    answer = form_of(answer, request.requestHeaders)
    request.setResponseCode(answer.status, answer.reason)
    for name, value in answer.fields():
        request.responseHeaders.setRawHeaders(name, [value])
    return answer.body


def form_of(answer: Answer, asked: Headers) -> Answer:
    """The answer in the form that the request's headers ask for: an error perhaps as a problem,
    a representation that the client already has as 304.
    """
    if answer.status >= 400:
        return suited(answer, asked.getRawHeaders(b"Accept") or ())
    held = asked.getRawHeaders(b"If-None-Match")
    etag = answer.etag() if held else b""
    return answer.not_modified() if held and etag and is_held(etag, held) else answer


def without_authority(target: bytes) -> bytes:
    """The path of a request's target, which may be an absolute URL (RFC 9112 section 3.2.2)."""
    absolute = _ABSOLUTE.match(target)
    return target if absolute is None else target[absolute.end() :] or b"/"


def decoded(path: bytes) -> bytes:
    """A path without percent-encoding, except that of slashes: an encoded slash belongs to a name
    and separates no segments.
    """
    segments = map(unquote_to_bytes, path.split(b"/"))
    return b"/".join(segment.replace(b"/", b"%2F") for segment in segments)


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
