"""One connection: HTTP/1.1 with deadlines and limits, and refusals in the form of all errors.

Twisted's channel answers malformed requests with a bare status line, resets its time-out with
every byte, spools large bodies to disk and accepts requests without Host. This one does not.
After a refusal the connection is half-closed, and what still arrives is discarded for a moment:
closing at once would reset the connection and destroy the answer (RFC 9112 section 9.6).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http_headers import Headers
from zope.interface import implementer

from twstock.clocks import DelayedCall
from twstock.config import Limits
from twstock.errors import Overloaded
from twstock.web import answers
from twstock.web.answers import Answer
from twstock.web.http.drain import PART_S
from twstock.web.http.fields import HOST
from twstock.web.http.request import REQUEST_ID, decoded, form_of, without_authority
from twstock.web.traffic import OTHER, STREAM

if TYPE_CHECKING:
    from twstock.web.http.site import ApiSite

LINGER_S = 2.0
"""How long a refused connection is read from before it is closed."""
WRITE_STALLED_S = 10.0
"""How long a client may leave answers unread once they fill all buffers."""
PIPELINED_MAX = 32
"""How many pipelined requests of one connection are begun in one turn of the reactor, so that
other connections have theirs."""
_LENGTH_DIGITS_MAX = 18


@implementer(IHalfCloseableProtocol)
class ApiChannel(http.HTTPChannel):
    """One connection. Waits ``idle_timeout_s`` for a request, ``header_timeout_s`` for all of
    its headers and ``body_timeout_s`` for all of its body.
    """

    site: "ApiSite"
    transport: Any
    abortTimeout = 2
    _arriving = False
    _is_ending = False
    """Whether what still arrives is discarded: after ``refuse``, ``part`` or the client's end."""
    _has_ended = False
    is_cut_off = False
    """Whether the connection was aborted because the client did not read for too long."""
    _stalled: DelayedCall | None = None
    _linger: DelayedCall | None = None
    _next_turn: DelayedCall | None = None
    _begun = 0
    """How many requests were begun in this turn."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._limits = limits
        self.totalHeadersSize = limits.header_bytes_max
        self.MAX_LENGTH = limits.header_bytes_max

    def callLater(self, period: float, func: Callable[[], None]) -> DelayedCall:
        """A timer of the site's clock."""
        return self.site.clock.callLater(period, func)

    def connectionMade(self) -> None:
        """Count the connection."""
        self.site.channels.add(self)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the connection and its timers."""
        self.site.forget(self)
        for timer in (self._stalled, self._linger, self._next_turn):
            if timer is not None and timer.active():
                timer.cancel()
        super().connectionLost(reason)

    def readConnectionLost(self) -> None:
        """The client sends no more, but may still read (RFC 9112 section 9.6): what has come
        whole is answered before the connection is closed.
        """
        self._has_ended = True
        self._close_if_done()

    def writeConnectionLost(self) -> None:
        """The write side is closed, as requested."""

    def dataReceived(self, data: bytes) -> None:
        """Take bytes in; unlike Twisted's own, this does not reset the time-out with every byte."""
        if self._is_ending:
            return
        if not self._busyReceiving:
            self._begun = 0
        LineReceiver.dataReceived(self, data)
        # What came after the end of a request is the beginning of the next, unless it waits here.
        if self._buffer and self.line_mode and not self.paused:
            self._begin_headers()

    def lineReceived(self, line: bytes) -> None:
        """A line of the request line and headers."""
        if self._is_ending:
            return
        if line[:1] in (b" ", b"\t"):
            # Folded header lines are a way to smuggle requests (RFC 9112 section 5.2).
            self.refuse(answers.MALFORMED)
            return
        if self._receivedHeaderSize + len(line) > self.totalHeadersSize:
            self.refuse(answers.HEADERS_TOO_LARGE)
            return
        if line:
            self._begin_headers()
        super().lineReceived(line)

    def lineLengthExceeded(self, _line: bytes) -> None:
        """A line that is longer than all headers may be."""
        started = self._receivedHeaderSize > 0
        self.refuse(answers.HEADERS_TOO_LARGE if started else answers.TARGET_TOO_LONG)

    def rawDataReceived(self, data: bytes) -> None:
        """Bytes of a body, or of what follows a request that is being answered."""
        if not self._is_ending:
            super().rawDataReceived(data)
        chunks = self._transferDecoder
        if isinstance(chunks, http._ChunkedTransferDecoder) and chunks.state == "BODY":
            self.requests[-1].expect(chunks.length)

    def headerReceived(self, line: bytes) -> bool:
        """One header field."""
        if self._receivedHeaderCount >= answers.HEADERS_MAX:
            self.refuse(answers.TOO_MANY_HEADERS)
        return not self._is_ending and bool(super().headerReceived(line))

    def allHeadersReceived(self) -> None:
        """The headers are complete: refuse what must not be read further."""
        if self._is_ending:
            return
        problem = self._problem()
        if problem is not None:
            self.refuse(problem)
            return
        if self.length != 0:
            self.setTimeout(self._limits.body_timeout_s)
        super().allHeadersReceived()

    def allContentReceived(self) -> None:
        """The request is complete."""
        if not self._is_ending:
            self._arriving = False
            self._begun += 1
            if self._begun == PIPELINED_MAX:
                self.paused = True
                self._next_turn = self.callLater(0.0, self._go_on)
            super().allContentReceived()

    def checkPersistence(self, request: http.Request, version: bytes) -> bool:
        """Whether the connection stays open after this request."""
        values = request.requestHeaders.getRawHeaders(b"Connection") or ()
        tokens = [token.strip().lower() for value in values for token in value.split(b",")]
        if version == b"HTTP/1.1" and b"close" not in tokens and not self.site.draining:
            return True
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    def requestDone(self, request: http.Request) -> None:
        """The answer is written: wait for the next request as long as for the first."""
        self.site.large_bodies.discard(self)
        self._savedTimeOut = self._limits.idle_timeout_s
        if self.paused:  # what came before the pause stands in front of what came since
            self._buffer = b"".join((*self._dataBuffer, self._buffer))
            self._dataBuffer = []
        super().requestDone(request)
        if self._has_ended:
            self._close_if_done()

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Tell the client if the connection ends after this answer."""
        if not self.persistent:
            headers.setRawHeaders(b"Connection", [b"close"])
        super().writeHeaders(version, code, reason, headers)

    def timeoutConnection(self) -> None:
        """Nothing came in time; a request that had begun is answered with 408."""
        if self._arriving:
            self.refuse(answers.TOO_SLOW)
        else:
            self._abortingCall = self.callLater(self.abortTimeout, self.forceAbortClient)
            self.loseConnection()

    def forceAbortClient(self) -> None:
        """The client has not closed its side in time, either."""
        self._abortingCall = None
        self.transport.abortConnection()

    def pauseProducing(self) -> None:
        """The client does not read; it has ``WRITE_STALLED_S`` to begin again. Meanwhile nothing
        is read from it and no received request is begun, or answers would pile up here.
        """
        if self._stalled is None:
            self._stalled = self.callLater(WRITE_STALLED_S, self._cut_off)
        self.paused = True
        super().pauseProducing()
        self.transport.pauseProducing()

    def _cut_off(self) -> None:
        self.is_cut_off = True
        self.transport.abortConnection()

    def resumeProducing(self) -> None:
        """The client reads again: go on with what has come."""
        if self._stalled is not None and self._stalled.active():
            self._stalled.cancel()
        self._stalled = None
        super().resumeProducing()
        if self._handlingRequest:
            self.transport.resumeProducing()
        self._go_on()

    def _go_on(self) -> None:
        """Take the received bytes that wait, unless the client does not read."""
        if self._waitingForTransport:
            return
        self.paused = False
        if self._buffer and not self._busyReceiving:
            self.dataReceived(b"")
        if self._has_ended:
            self._close_if_done()

    def drain(self) -> None:
        """Close after the answer under way; the answer to a later request says so itself."""
        if self.requests:
            self.persistent = False

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way or has begun to come."""
        return not (self.requests or self._arriving or self._is_ending or self._holds_back)

    @property
    def is_asked(self) -> bool:
        """Whether a request has come whole and is not answered."""
        return bool(self.requests) and not (self._arriving or self._is_ending)

    def loseConnection(self) -> None:
        """Close. While the site drains, half-close first: a request that comes after the last
        answer is then discarded, and cannot destroy that answer.
        """
        if self.site.draining and not self._has_ended:
            self.part()
        else:
            super().loseConnection()

    @property
    def _holds_back(self) -> bool:
        """Whether received bytes wait for the reactor's next turn, or until the client reads."""
        return self.paused and bool(self._buffer)

    def _close_if_done(self) -> None:
        """Close after the last answer to a client that sends no more. A stream has no end to wait
        for, and most clients that close their side during one are gone.
        """
        if self._busyReceiving or self.transport.disconnecting or self._holds_back:
            return
        if self.is_asked and not (self.requests and self.requests[0].traffic == STREAM):
            return
        if self._is_ending:
            self.transport.loseConnection()
            return
        self._is_ending = True
        self.setTimeout(None)
        self._linger = self.callLater(WRITE_STALLED_S, self.transport.abortConnection)
        self.stopProducing()
        self.loseConnection()

    def part(self) -> None:
        """Write no more, and wait a moment for the client to close, too."""
        if not self._is_ending:
            self._is_ending = True
            self._half_close(PART_S, self.transport.loseConnection)

    def refuse(self, answer: Answer) -> None:
        """Answer with ``Connection: close``, and discard what still arrives."""
        if self._is_ending:
            return
        self._is_ending = True
        self.site.traffic.of(OTHER, answer.status).observe(0.0)
        self.site.large_bodies.discard(self)
        self.transport.write(self._refusal(answer))
        self._half_close(LINGER_S, self.transport.abortConnection)

    def _half_close(self, linger_s: float, close: Callable[[], None]) -> None:
        self.setTimeout(None)
        self._linger = self.callLater(linger_s, close)
        # A producer that the transport has paused would keep it from closing.
        self.transport.unregisterProducer()
        self.transport.resumeProducing()
        self.transport.loseWriteConnection()

    def _refusal(self, answer: Answer) -> bytes:
        """A refusal with the request's id, in the form that it asks for, as far as its headers
        have come; without a body for HEAD (RFC 9110 section 9.3.2).
        """
        asked = self.requests[-1].requestHeaders if self.requests else Headers()
        request_id = self.site.ids.of(asked.getRawHeaders(REQUEST_ID))
        suited = form_of(answer, asked).closing()
        whole = suited.whole(self.site.date(), request_id)
        is_head = getattr(self, "_command", b"") == b"HEAD"  # not there before it has come
        return whole.removesuffix(suited.body) if is_head else whole

    def body_bytes_max(self) -> int:
        """How large the body of the request that is arriving may be."""
        target: Any = self._path
        path = decoded(without_authority(target).partition(b"?")[0])
        return self.site.larger_bodies.get(path, self.site.body_bytes_max)

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(answers.MALFORMED)

    def _maybeChooseTransferDecoder(self, header: bytes, data: bytes) -> bool:
        """Refuse lengths that Python would not convert, and every coding but plain chunked."""
        if header == b"Content-Length" and len(data) > _LENGTH_DIGITS_MAX:
            self.refuse(answers.body_too_large(self.body_bytes_max()))
            return False
        if header == b"Transfer-Encoding" and (
            data.lower() != b"chunked" or self._version != b"HTTP/1.1"
        ):
            self.refuse(answers.MALFORMED)
            return False
        return bool(super()._maybeChooseTransferDecoder(header, data))

    def _problem(self) -> Answer | None:
        hosts = self.requests[-1].requestHeaders.getRawHeaders(b"Host") or []
        needed = self._version == b"HTTP/1.1"
        if len(hosts) > 1 or (needed and not hosts) or not all(map(HOST.fullmatch, hosts)):
            return answers.NO_HOST
        limit, usual = self.body_bytes_max(), self.site.body_bytes_max
        if self.length is not None and self.length > limit:
            return answers.body_too_large(limit)
        if limit > usual and (self.length is None or self.length > usual):
            return self._take_large()
        return None

    def _take_large(self) -> Answer | None:
        """Make room for a body that is larger than most, or refuse it: thousands of them would
        fill the memory.
        """
        if len(self.site.large_bodies) >= self._limits.batches_max:
            return answers.failure(Overloaded("too many large requests"))
        self.site.large_bodies.add(self)
        return None

    def _begin_headers(self) -> None:
        """The first byte of a request has come: the clock for its headers starts."""
        if not self._arriving and not self._handlingRequest and not self._is_ending:
            self._arriving = True
            self.setTimeout(self._limits.header_timeout_s)
