"""One long-lived gRPC channel to one peer; a call is a Deferred.

Calls are issued in a thread of the given pool, so that encoding and gRPC's own locks never
hold up the reactor; the answer comes back through ``deliver``.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from twstock.config import Limits
from twstock.errors import OutcomeUnknown, Unavailable
from twstock.rpc.status import error_of
from twstock.rpc.wire.methods import Method

Q = TypeVar("Q")
A = TypeVar("A")

# The default backoff of seconds would be the fail-over time; the default ping interval
# would leave a black-holed connection unnoticed for hours (SPEC of gRPC: connection-backoff,
# keepalive).
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 500),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A channel of its own connection: bulk on another channel cannot delay this one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)


class Client:
    """Calls to one peer. The channel is made at the first call, never before a fork."""

    def __init__(
        self,
        address: str,
        threads: ThreadPool,
        deliver: Callable[..., None],
        limits: Limits,
    ) -> None:
        self.address = address
        self._threads = threads
        self._deliver = deliver
        self._limits = limits
        self._channel: grpc.Channel | None = None
        self._closed = False
        self._stubs: dict[str, Any] = {}

    def call(self, method: Method[Q, A], request: Q, deadline_s: float) -> "Deferred[A]":
        """Fires with the answer, or fails with one of ``twstock.errors`` within the deadline.

        Cancelling the Deferred cancels the call. ``OutcomeUnknown`` stands for every failure
        on the way; a refusal by the server is the precise error.
        """
        pending: list[Any] = []
        answer: Deferred[A] = Deferred(lambda _: self._cancel(pending))
        if self._closed:
            answer.errback(Unavailable(f"the channel to {self.address} is closed"))
        else:
            self._threads.callInThread(self._issue, method, request, deadline_s, pending, answer)
        return answer

    def close(self) -> None:
        """Close the channel; calls under way fail."""
        self._closed = True
        if self._channel is not None:
            self._channel.close()

    def _issue(
        self,
        method: Method[Q, A],
        request: Q,
        deadline_s: float,
        pending: list[Any],
        answer: "Deferred[A]",
    ) -> None:
        """In a thread: start the call."""
        try:
            stub = self._stubs.get(method.path) or self._stub(method.path)
            future = stub.future(method.encode_request(request), timeout=deadline_s)
        except ValueError as error:  # the channel was closed meanwhile
            self._deliver(_settle, answer, Failure(OutcomeUnknown(str(error))))
            return
        except Exception:
            self._deliver(_settle, answer, Failure())
            return
        pending.append(future)
        future.add_done_callback(lambda done: self._finish(method, done, answer))

    def _finish(self, method: Method[Q, A], done: Any, answer: "Deferred[A]") -> None:
        """In one of gRPC's threads: decode, and hand over to the reactor."""
        result: A | Failure
        try:
            if done.cancelled():
                result = Failure(OutcomeUnknown("the call was cancelled"))
            elif done.exception() is not None:
                metadata = done.trailing_metadata() or ()
                details = done.details() or ""
                result = Failure(error_of(done.code(), details, metadata))
            else:
                result = method.decode_answer(done.result())
        except Exception as error:
            # Whoever answers there does not speak our protocol, or a newer one.
            result = Failure(OutcomeUnknown(f"{self.address} answered what is no answer: {error}"))
        self._deliver(_settle, answer, result)

    def _stub(self, path: str) -> Any:
        if self._channel is None:
            options = (*_OPTIONS, *_message_size(self._limits))
            self._channel = grpc.insecure_channel(self.address, options=options)
        stub = self._channel.unary_unary(path)
        self._stubs[path] = stub
        return stub

    def _cancel(self, pending: list[Any]) -> None:
        if pending:
            self._threads.callInThread(pending[0].cancel)


def _message_size(limits: Limits) -> tuple[tuple[str, int], ...]:
    size = limits.message_bytes_max
    return (("grpc.max_receive_message_length", size), ("grpc.max_send_message_length", size))


def _settle(answer: "Deferred[A]", result: "A | Failure") -> None:
    """In the reactor: fire, unless whoever asked has given up."""
    if answer.called:
        return
    if isinstance(result, Failure):
        answer.errback(result)
    else:
        answer.callback(result)
