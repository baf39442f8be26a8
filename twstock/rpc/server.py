"""A gRPC server as a Twisted service: requests are decoded in its threads and answered by
functions that run in the reactor.
"""

import itertools
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, Generic, TypeVar, cast

import grpc
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twstock import origin
from twstock.clocks import Clock
from twstock.config import Limits
from twstock.descriptors import make_room
from twstock.errors import CannotListen, OutcomeUnknown, Overloaded, TwstockError, Unavailable
from twstock.origin import Ids, OriginLogger
from twstock.repeating import repeating
from twstock.rpc.arrivals import Arrival, Room, StreamPlace, StreamRoom
from twstock.rpc.departures import Departures
from twstock.rpc.duplex import Unsupported
from twstock.rpc.health import CHECKS_MAX, Health
from twstock.rpc.security import Plain, Security
from twstock.rpc.status import REQUEST_ID, UNEXPECTED
from twstock.rpc.streams import WAIT_MAX_S, AnswerStream, StreamEndpoint
from twstock.rpc.wire import streams
from twstock.rpc.wire.methods import Method

Q = TypeVar("Q")
A = TypeVar("A")
_TOO_LATE = "the deadline passed before the call was begun"
HANDSHAKE_MAX_MS = 5000
"""How long a connection may take to begin; gRPC would give it two minutes."""
LARGE_BYTES = 16 * 1024
"""Only a few requests of more bytes are decoded at once: one may take forty times as much memory
until it can be refused for having too many items."""
LARGE_AT_ONCE_MAX = 2
"""How many large requests of clients are decoded at once, and how many of members. More would not
be faster: the interpreter runs one at a time. On each stream, requests are decoded one by one."""
WINDOW_BYTES = 256 * 1024
"""How much of a request arrives before it is read (the flow-control window). With gRPC's default,
64 KiB, an append of this size takes a sixth longer; with more than this, none is faster."""
CONNECTIONS_MAX = 4096
"""Further ones are closed at once, or they would take the file descriptors that a member needs."""
STREAMS_MAX = 100
"""How many calls one connection may have under way; more if ``rpc_client_calls_max`` is more."""
MEMBERS_MIN = 8
"""There is room for at least this many calls of members, whatever is configured."""
ANSWERS_MAX = 32
"""How many answers of the largest size may wait to be taken, or as many bytes of smaller ones."""
TAKE_MAX_S = 5.0
"""How long an answer on a stream may wait to be taken before the stream ends: more than twice as
long as any caller waits for it."""
LOOK_EVERY_S = 1.0
"""How often that is checked."""
THREADS_SPARE = 8
"""Threads for calls that have no place yet: each finds out in no time whether there is one."""


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[Q, A]):
    """A call and the function that answers it, in the reactor.

    ``internal`` calls are between members of the cluster: they find a thread even when
    clients keep all of theirs busy. ``timed``: the function also gets the caller's deadline, in
    seconds of the clock.
    """

    method: Method[Q, A]
    answer: Callable[..., Coroutine[Any, Any, A]]
    internal: bool = False
    timed: bool = False


class Server(Service):
    """Serves endpoints, and ``health`` along with them, on one address from start to stop."""

    _log = OriginLogger()

    def __init__(
        self,
        address: str,
        endpoints: Sequence[Endpoint[Any, Any]],
        clock: Clock,
        deliver: Callable[..., None],
        limits: Limits,
        health: Health | None = None,
        security: Security | None = None,
    ) -> None:
        self._security = security or Plain()
        self._address = address
        self._endpoints = endpoints
        self._clock = clock
        self._deliver = deliver
        self._limits = limits
        self._health = health
        clients = limits.rpc_client_calls_max
        self._members_max = max(limits.rpc_threads - clients, MEMBERS_MIN)
        self._rooms = {False: Room(clients), True: Room(self._members_max)}
        self._stream_room = StreamRoom(limits.rpc_streams_max, "too many streams")
        self._departures = Departures(ANSWERS_MAX * limits.message_bytes_max)
        self._large = {
            internal: threading.BoundedSemaphore(LARGE_AT_ONCE_MAX) for internal in (False, True)
        }
        self._streams: dict[grpc.ServicerContext, AnswerStream] = {}
        self._looking = repeating(self._look, clock, "looking for answers that nobody takes")
        self._stream_endpoints = {e.method.path: self._streamed(e) for e in endpoints}
        self._server: grpc.Server | None = None

    def startService(self) -> None:
        """Bind and serve; raises CannotListen when the port is taken."""
        super().startService()
        threads = ThreadPoolExecutor(self._threads_max(), thread_name_prefix="grpc-server")
        self._server = grpc.server(threads, options=self._options())
        tables = self._tables()
        self._server.add_generic_rpc_handlers(
            tuple(itertools.starmap(grpc.method_handlers_generic_handler, tables.items()))
        )
        if self._health is not None:
            self._health.add_to(self._server, list(tables), self._departures)
        try:
            self._security.listen(self._server, self._address)
        except RuntimeError:
            raise CannotListen(f"cannot listen on {self._address}: is the port taken?") from None
        self._server.start()
        self._looking.start(LOOK_EVERY_S, now=False)
        self._log.info("listens on {address}", address=self._address)

    def stopService(self) -> None:
        """Refuse new calls and end those under way."""
        super().stopService()
        if self._looking.running:
            self._looking.stop()
        if self._health is not None:
            self._health.stop()
        if self._server is not None:
            self._server.stop(grace=0.1)
            for context in tuple(self._streams):
                context.cancel()

    def _look(self) -> None:
        """End the streams whose answers nobody takes: what waits there would be kept for ever."""
        for context, stream in self._streams.copy().items():
            if stream.stuck_s() > TAKE_MAX_S:
                context.cancel()

    def _threads_max(self) -> int:
        """One for each place, so that no kind of call waits for another, and a few to spare."""
        limits = self._limits
        calls = limits.rpc_client_calls_max + self._members_max + CHECKS_MAX
        return calls + limits.rpc_streams_max + limits.rpc_watches_max + THREADS_SPARE

    def _options(self) -> Sequence[tuple[str, int]]:
        return (
            # Without this, two processes share one port in silence.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", self._limits.message_bytes_max),
            ("grpc.max_send_message_length", self._limits.message_bytes_max),
            ("grpc.max_metadata_size", 8192),
            (
                "grpc.max_allowed_incoming_connections",
                make_room(CONNECTIONS_MAX, "the most connections of a member"),
            ),
            # What a caller sends before it is read is kept in memory, up to a window for each call.
            # On a fast connection gRPC would widen these windows, up to whole messages.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
            # Further calls wait at the caller. Calls that are over must not count: by default they
            # do until Python is done with them, and callers within the limit would be refused.
            ("grpc.max_concurrent_streams", max(STREAMS_MAX, self._limits.rpc_client_calls_max)),
            ("grpc.http.overload_protection", 0),
            # Clients ping every second; the default answers that with GOAWAY.
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 300),
            ("grpc.http2.max_ping_strikes", 0),
            ("grpc.keepalive_permit_without_calls", 1),
            # A host that has vanished must not keep its streams for hours.
            ("grpc.keepalive_time_ms", 5000),
            ("grpc.keepalive_timeout_ms", 2000),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_MAX_MS),
        )

    def _tables(self) -> dict[str, dict[str, Any]]:
        """One gRPC endpoint table for each service name."""
        services: dict[str, dict[str, Any]] = {}
        for endpoint in self._endpoints:
            rpc = grpc.stream_unary_rpc_method_handler(partial(self._answer, endpoint))
            services.setdefault(f"twstock.{endpoint.method.service}", {})[endpoint.method.name] = (
                rpc
            )
        _, service, name = streams.PATH.split("/")
        services[service] = {name: grpc.stream_stream_rpc_method_handler(self._serve_stream)}
        return services

    def _serve_stream(self, _: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """The handler of a member's stream (``stream.proto``). Messages do not go through gRPC's
        iterators, which cost a thread and more (``duplex``).
        """
        check = self._security.check_of(context)
        parts = self._clock, self._deliver, self._limits, check
        stream = AnswerStream(self._stream_endpoints, *parts)
        with StreamPlace(self._stream_room, context, stream.silent_s):
            self._streams[context] = stream
            try:
                stream.serve(context)
            except Unsupported as error:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, str(error))
            finally:
                del self._streams[context]
        yield from ()

    def _streamed(self, endpoint: Endpoint[Any, Any]) -> StreamEndpoint:
        """How a call on a stream is answered."""
        start = partial(self._start, endpoint)
        if endpoint.internal:
            return StreamEndpoint(endpoint.method, start, _nothing, _nothing)
        room = self._rooms[False]
        return StreamEndpoint(endpoint.method, start, room.enter, room.leave)

    def _answer(self, endpoint: Endpoint[Q, A], requests: Iterator[bytes], context: Any) -> bytes:
        """The handler of a single call, in one of gRPC's threads, before its request is read."""
        room = self._rooms[endpoint.internal]
        with Arrival(room, endpoint.method.path, requests, context) as arrival:
            left_s = context.time_remaining()
            if left_s is not None and left_s <= 0:
                raise Unavailable(_TOO_LATE)
            until = inf if left_s is None else self._clock.seconds() + left_s
            # The bytes are not kept in a variable: nobody needs them while the answer is made.
            request = self._parse(endpoint, arrival.request(left_s), until)
            if (check := self._security.check_of(context)) is not None:
                check(endpoint.method.path, request)
            answer: Future[A] = Future()
            settle = partial(_settle, answer)
            self._deliver(self._start_for, _ids_of(context), endpoint, request, settle, until)
            wait_s = min(until - self._clock.seconds(), WAIT_MAX_S)
            encoded = endpoint.method.encode_answer(_result(answer, max(wait_s, 0.0), context))
            self._departures.add(context, len(encoded))
            return encoded

    def _parse(self, endpoint: Endpoint[Q, A], data: bytes, until: float) -> Q:
        if len(data) <= LARGE_BYTES:
            return endpoint.method.parse_request(data)
        room, wait_s = self._large[endpoint.internal], until - self._clock.seconds()
        if not room.acquire(timeout=max(0.0, min(wait_s, WAIT_MAX_S))):
            raise Overloaded("too many large requests under way")
        try:
            return endpoint.method.parse_request(data)
        finally:
            room.release()

    def _start_for(self, ids: Ids, *call: Any) -> None:
        with origin.on_behalf_of(ids):
            self._start(*call)

    def _start(
        self,
        endpoint: Endpoint[Q, A],
        request: Q,
        answered: Callable[[A | Exception], None],
        until: float,
    ) -> None:
        """In the reactor: run the endpoint's function, and pass on its result. A call whose
        deadline has passed is not begun: nobody would get its answer.
        """
        if self._clock.seconds() >= until:
            answered(Unavailable(_TOO_LATE))
            return
        ids = origin.current()

        def failed(failure: Failure) -> None:
            if not failure.check(TwstockError):
                with origin.on_behalf_of(ids):
                    self._log.failure("{call} failed", failure, call=endpoint.method.name)
            answered(cast(Exception, failure.value))

        answering = endpoint.answer(request, until) if endpoint.timed else endpoint.answer(request)
        Deferred.fromCoroutine(answering).addCallbacks(answered, failed)


def _ids_of(context: Any) -> Ids:
    """The ids of the requests on whose behalf a call is made, from its metadata."""
    metadata = context.invocation_metadata() or ()
    return origin.received(value for name, value in metadata if name == REQUEST_ID)


def _settle(answer: "Future[A]", result: A | Exception) -> None:
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)


def _result(answer: "Future[A]", wait_s: float, context: Any) -> A:
    """In the thread of a call: its result. An unexpected error, which is logged already, ends the
    call as it does on a stream; gRPC would log it again, and send its text to the caller.
    """
    try:
        return answer.result(wait_s)
    except TimeoutError:
        raise OutcomeUnknown("no answer within the deadline") from None
    except TwstockError:
        raise
    except Exception:
        context.abort(grpc.StatusCode.INTERNAL, UNEXPECTED)
        raise AssertionError("abort returned") from None


def _nothing() -> None:
    """A member's calls need no room: each stream bounds them by itself."""
