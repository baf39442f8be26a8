"""The front-ends that a client may ask: a request goes from one to the next until one answers."""

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from http import HTTPStatus
from random import Random
from typing import Any, NamedTuple, Protocol, TypeVar

from hyperlink import EncodedURL
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (  # type: ignore[attr-defined]
    RequestNotSent,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
)
from twisted.web.http import PotentialDataLoss

from twstock.client.answers import problem
from twstock.client.attempts import Attempts
from twstock.client.waiting import TooLate, within
from twstock.clocks import Clock, pause
from twstock.errors import OutcomeUnknown, TwstockError, Unavailable
from twstock.forms import ASK_AGAIN, Answer, may_have_executed, read_answer, retry_after_s

T = TypeVar("T")
ANSWER_BYTES_MAX = 16 * 1024 * 1024
REQUESTS_UNDER_WAY_MAX = 64
"""How many requests may have connections; others wait until one of these has ended."""

_NOT_SENT = (ConnectError, DNSLookupError, RequestNotSent)
_LOST = (ConnectionClosed, RequestTransmissionFailed, ResponseFailed, TooLate)


class Http(Protocol):
    """The part of ``treq.client.HTTPClient`` that is used."""

    def request(self, method: str, url: str | EncodedURL, **options: Any) -> "Deferred[Any]":
        """Fires with a response whose body has not been read."""


class Request(NamedTuple):
    """What to ask. An order has a ``key``; ``doubtful``: an earlier request may have placed it."""

    method: str
    path: str
    headers: Mapping[str, str] = {}
    body: bytes | None = None
    key: str = ""
    doubtful: bool = False


class NoAnswer(TwstockError):
    """A front-end did not answer, or could not serve. ``sent``: the request may still have had an
    effect. ``pause_s`` is its Retry-After; None: it gave none.
    """

    def __init__(self, why: str, sent: bool, pause_s: float | None = None) -> None:
        super().__init__(why)
        self.sent = sent
        self.pause_s = pause_s


class Fronts:
    """Front-ends by their base URLs; the one that answered last is asked first."""

    def __init__(
        self, urls: Sequence[str], http: Http, clock: Clock, random: Random, timeout_s: float
    ) -> None:
        self.urls = tuple(urls)
        self.clock = clock
        self._http = http
        self._random = random
        self.timeout_s = timeout_s
        self._room = DeferredSemaphore(REQUESTS_UNDER_WAY_MAX)
        self._first = 0

    def attempts(self, deadline: float = float("inf")) -> Attempts:
        """The attempts of one request."""
        return Attempts(len(self.urls), self._first, deadline, self._random)

    async def ask(self, request: Request, patience_s: float) -> Answer:
        """The first answer that settles the request, within ``patience_s``; it is doubtful if an
        earlier attempt may have had an effect.

        Raises Unavailable when there was no such answer and nothing has happened, OutcomeUnknown
        when something may have. A request that changes something must have a key: it may be sent
        more than once.
        """
        deadline = self.clock.seconds() + patience_s
        # This needs no time limit: requests that have a connection have less time left than this.
        await self._room.acquire()
        try:
            return await self._ask(request, deadline)
        finally:
            # Not within another waiter's stack, or it would overflow when hundreds give up in turn.
            self.clock.callLater(0, self._room.release)

    async def _ask(self, request: Request, deadline: float) -> Answer:
        attempts = self.attempts(deadline)
        doubtful, why = request.doubtful, "no time left"
        while (attempt := attempts.next(self.clock.seconds())) is not None:
            if attempt.wait_s:
                await pause(self.clock, attempt.wait_s)
            limit_s = min(self.timeout_s, deadline - self.clock.seconds())
            if limit_s <= 0:  # the pause took longer than planned
                break
            try:
                answer = await self._exchange(attempt.front, request, limit_s)
            except NoAnswer as error:
                doubtful = doubtful or error.sent
                why = f"{self.urls[attempt.front]}: {error}"
                attempts.failed(self.clock.seconds(), error.pause_s)
            else:
                self._first = attempt.front
                return replace(answer, doubtful=True) if doubtful else answer
        if doubtful and request.method != "GET":
            raise OutcomeUnknown(why, request.key)
        raise Unavailable(why)

    async def _exchange(self, front: int, request: Request, limit_s: float) -> Answer:
        """The answer of one front-end; raises NoAnswer also if it wants to be asked again."""

        async def exchange() -> Answer:
            return await self._read(await self._send(front, request))

        return settled(await self._within(exchange(), limit_s))

    async def open(self, front: int, request: Request) -> Any:
        """A response with status 200 whose body is still to come.

        Raises NoAnswer, and BadAnswer or InvalidRequest when the answer settles it.
        """

        async def opened() -> Any:
            response = await self._send(front, request)
            if response.code == HTTPStatus.OK:
                return response
            answer = settled(await self._read(response))
            raise problem(answer)

        return await self._within(opened(), self.timeout_s)

    async def _within(self, work: "Coroutine[Any, Any, T]", limit_s: float) -> T:
        try:
            return await within(Deferred.fromCoroutine(work), limit_s, self.clock)
        except TooLate:
            raise NoAnswer(f"no answer within {limit_s:.1f} s", True) from None

    async def _send(self, front: int, request: Request) -> Any:
        """The response of one front-end, its body still to come; raises NoAnswer."""
        try:
            return await self._http.request(
                request.method,
                _target(self.urls[front] + request.path),
                headers=dict(request.headers),
                data=request.body,
                allow_redirects=False,
                unbuffered=True,
                reactor=self.clock,
            )
        except (*_NOT_SENT, *_LOST) as error:
            raise NoAnswer(_words(error), not isinstance(error, _NOT_SENT)) from None

    async def _read(self, response: Any) -> Answer:
        """The answer that a response carries; raises NoAnswer when it breaks off or is not JSON."""
        fields = response.headers.getAllRawHeaders()
        headers = {
            name.decode("latin-1").lower(): values[0].decode("latin-1") for name, values in fields
        }
        if response.code == HTTPStatus.NOT_MODIFIED:
            return Answer(response.code, headers, None)
        try:
            content = await _content(response)
        except _LOST as error:
            raise NoAnswer(_words(error), True) from None
        try:
            return read_answer(response.code, headers, content, Decimal)
        except ValueError:
            raise NoAnswer(f"status {response.code}, not JSON", True) from None


class _Uri(EncodedURL):
    """A URL that needs no encoding. treq has hyperlink encode every URL, which takes an IPv6
    address for a host name, and refuses it.
    """

    def to_uri(self) -> EncodedURL:
        return self


def _target(url: str) -> str | EncodedURL:
    """A URL in the form in which it is given to treq."""
    return _Uri.from_text(url) if "://[" in url else url


def settled(answer: Answer) -> Answer:
    """The answer, if asking again would not bring another one; raises NoAnswer."""
    if answer.status not in ASK_AGAIN:
        return answer
    sent = may_have_executed(answer.status, answer.outcome)
    raise NoAnswer(answer.message, sent, retry_after_s(answer))


def _words(error: Exception) -> str:
    """The message of a connection error; of one that only wraps others, their messages."""
    reasons: list[Failure] = getattr(error, "reasons", [])
    return "; ".join(reason.getErrorMessage() for reason in reasons) or str(error) or repr(error)


def _content(response: Any) -> "Deferred[bytes]":
    """The body of a response; cancelling it ends the connection."""
    body = _Body()
    response.deliverBody(body)
    return body.whole


class _Body(TwistedProtocol):
    """Collects a body, up to ``ANSWER_BYTES_MAX``."""

    def __init__(self) -> None:
        self.whole: Deferred[bytes] = Deferred(lambda _: self._abort())
        self._pieces: list[bytes] = []
        self._room = ANSWER_BYTES_MAX

    def dataReceived(self, data: bytes) -> None:
        """A piece."""
        self._room -= len(data)
        if self._room >= 0:
            self._pieces.append(data)
        elif not self.whole.called:
            self.whole.errback(NoAnswer(f"an answer of more than {ANSWER_BYTES_MAX} bytes", True))
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The end, good or bad."""
        if self.whole.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.whole.callback(b"".join(self._pieces))
        else:
            self.whole.errback(reason)

    def _abort(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            transport.loseConnection()
