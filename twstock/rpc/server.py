"""A gRPC server as a Twisted service: requests are decoded in its threads and answered by
functions that run in the reactor.
"""

import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twstock.config import Limits
from twstock.errors import CannotListen, InvalidRequest, OutcomeUnknown, Overloaded, TwstockError
from twstock.rpc.status import code_of, metadata_of
from twstock.rpc.wire.methods import Method

Q = TypeVar("Q")
A = TypeVar("A")

_WAIT_MAX_S = 2.0
"""How long a caller waits at most, whatever deadline it set: nothing hangs longer than this."""


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[Q, A]):
    """A call and the function that answers it, in the reactor.

    ``internal`` calls are between members of the cluster: they find a thread even when
    clients keep all of theirs busy.
    """

    method: Method[Q, A]
    answer: Callable[[Q], Awaitable[A]]
    internal: bool = False


class Server(Service):
    """Serves endpoints on one address from start to stop."""

    _log = Logger()

    def __init__(
        self,
        address: str,
        endpoints: Sequence[Endpoint[Any, Any]],
        deliver: Callable[..., None],
        limits: Limits,
    ) -> None:
        self._address = address
        self._endpoints = endpoints
        self._deliver = deliver
        self._limits = limits
        self._client_calls = threading.BoundedSemaphore(limits.rpc_client_calls_max)
        self._server: grpc.Server | None = None

    def startService(self) -> None:
        """Bind and serve; raises CannotListen when the port is taken."""
        super().startService()
        threads = ThreadPoolExecutor(self._limits.rpc_threads, thread_name_prefix="grpc-server")
        self._server = grpc.server(threads, options=self._options())
        self._server.add_generic_rpc_handlers(tuple(self._tables()))
        try:
            self._server.add_insecure_port(self._address)
        except RuntimeError:
            raise CannotListen(f"cannot listen on {self._address}: is the port taken?") from None
        self._server.start()

    def stopService(self) -> None:
        """Refuse new calls and end those under way."""
        super().stopService()
        if self._server is not None:
            self._server.stop(grace=0.1)

    def _options(self) -> Sequence[tuple[str, int]]:
        return (
            # Without this, two processes share one port in silence.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", self._limits.message_bytes_max),
            ("grpc.max_send_message_length", self._limits.message_bytes_max),
            ("grpc.max_metadata_size", 8192),
            # Clients ping every second; the default answers that with GOAWAY.
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 300),
            ("grpc.http2.max_ping_strikes", 0),
            ("grpc.keepalive_permit_without_calls", 1),
        )

    def _tables(self) -> list[Any]:
        """One gRPC endpoint table for each service name."""
        services: dict[str, dict[str, Any]] = {}
        for endpoint in self._endpoints:
            rpc = grpc.unary_unary_rpc_method_handler(self._serving(endpoint))
            services.setdefault(f"twstock.{endpoint.method.service}", {})[endpoint.method.name] = (
                rpc
            )
        return [
            grpc.method_handlers_generic_handler(name, table) for name, table in services.items()
        ]

    def _serving(self, endpoint: Endpoint[Q, A]) -> Callable[[bytes, Any], bytes]:
        """The function that gRPC calls in one of its threads."""

        def serve(data: bytes, context: Any) -> bytes:
            try:
                if endpoint.internal:
                    return self._answer(endpoint, data, context)
                return self._answer_client(endpoint, data, context)
            except TwstockError as error:
                context.set_trailing_metadata(metadata_of(error))
                context.abort(code_of(error), str(error))
                raise AssertionError("abort returned") from None

        return serve

    def _answer_client(self, endpoint: Endpoint[Q, A], data: bytes, context: Any) -> bytes:
        if not self._client_calls.acquire(blocking=False):
            raise Overloaded("too many calls under way")
        try:
            return self._answer(endpoint, data, context)
        finally:
            self._client_calls.release()

    def _answer(self, endpoint: Endpoint[Q, A], data: bytes, context: Any) -> bytes:
        request = _decode(endpoint.method, data)
        answer: Future[A] = Future()
        self._deliver(self._start, endpoint, request, answer)
        remaining = context.time_remaining()
        wait_s = _WAIT_MAX_S if remaining is None else min(remaining, _WAIT_MAX_S)
        try:
            return endpoint.method.encode_answer(answer.result(wait_s))
        except TimeoutError:
            raise OutcomeUnknown("no answer within the deadline") from None

    def _start(self, endpoint: Endpoint[Q, A], request: Q, answer: "Future[A]") -> None:
        """In the reactor: run the endpoint's function."""

        def failed(failure: Failure) -> None:
            if not failure.check(TwstockError):
                self._log.failure("{call} failed", failure, call=endpoint.method.name)
            answer.set_exception(failure.value)

        running: Deferred[A] = Deferred.fromCoroutine(_awaiting(endpoint.answer, request))
        running.addCallbacks(answer.set_result, failed)


async def _awaiting(function: Callable[[Q], Awaitable[A]], request: Q) -> A:
    return await function(request)


def _decode(method: Method[Q, A], data: bytes) -> Q:
    """The request, or InvalidRequest for bytes that are none."""
    try:
        return method.decode_request(data)
    except TwstockError:
        raise
    except Exception as error:
        # Whatever protobuf or our own types object to is the sender's fault; nothing ran.
        raise InvalidRequest("request", str(error) or type(error).__name__) from None
