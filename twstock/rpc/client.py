"""One long-lived gRPC channel to one peer; a call is a Deferred.

Calls share one stream (``streams``), which keeps a thread of the given pool while it is open. If
the peer takes no more streams, or knows none, calls are ordinary unary ones for a while, each with
a thread from beginning to end. Such a call blocks, and so polls its own completion queue; gRPC's
futures start a thread whenever a channel was idle, which costs more than the call. Answers come
back through ``deliver`` either way.
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from twstock import origin
from twstock.clocks import Clock
from twstock.config import Limits
from twstock.errors import OutcomeUnknown, Unavailable
from twstock.origin import Ids
from twstock.rpc.security import PlainWay, Way
from twstock.rpc.status import REQUEST_ID, error_of
from twstock.rpc.streams import CallStream
from twstock.rpc.wire.methods import Method

Q = TypeVar("Q")
A = TypeVar("A")

STREAM_AGAIN_S = 5.0
"""How long after a peer refused a stream it is asked for one again."""

CONNECT_MAX_MS = 1000
"""How long a connection may take to be made. With TLS that is three round trips, and a peer too far
away for those is too far for a heartbeat, whose deadline is a quarter of this."""

# With gRPC's default backoff fail-over would take seconds; with its default ping interval nobody
# would notice a black-holed connection for hours (gRPC's documents connection-backoff, keepalive).
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Despite its name, the least time that gRPC gives one attempt to connect.
    ("grpc.min_reconnect_backoff_ms", CONNECT_MAX_MS),
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_timeout_ms", 500),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A connection for this channel alone: bulk on another channel cannot delay it.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    # A proxy that the environment names for HTTP is not meant for members.
    ("grpc.enable_http_proxy", 0),
)


class Client:
    """Calls to one peer. The channel is made at the first call, never before a fork."""

    def __init__(
        self,
        address: str,
        threads: ThreadPool,
        clock: Clock,
        deliver: Callable[..., None],
        limits: Limits,
        way: Way | None = None,
    ) -> None:
        self.address = address
        self._way = way or PlainWay()
        self._threads = threads
        self._clock = clock
        self._deliver = deliver
        self._limits = limits
        self._stream: CallStream | None = None
        self._no_stream_before = 0.0
        self._channel: grpc.Channel | None = None
        self._closed = False
        self._channel_lock = threading.Lock()
        self._stubs: dict[str, Any] = {}

    def call(self, method: Method[Q, A], request: Q, deadline_s: float) -> "Deferred[A]":
        """Fires with the answer, or fails with one of ``twstock.errors`` within the deadline.

        Any failure on the way is ``OutcomeUnknown``; a refusal by the server has its own error.
        Cancelling the Deferred stops the waiting, not the call.
        """
        answer: Deferred[A] = Deferred()
        if self._closed:
            answer.errback(Unavailable(f"the channel to {self.address} is closed"))
        elif self._clock.seconds() >= self._no_stream_before:
            self._open_stream().call(method, request, deadline_s, answer)
        else:
            self._call_alone(method, request, self._clock.seconds() + deadline_s, answer)
        return answer

    def close(self) -> None:
        """Close the channel; calls under way fail."""
        with self._channel_lock:
            self._closed = True
            if self._channel is not None:
                self._channel.close()

    def _open_stream(self) -> CallStream:
        if self._stream is None:
            self._stream = CallStream(
                self.address, self._clock, self._deliver, self._stream_ended, self._call_alone
            )
            self._threads.callInThread(self._stream.run, self._open_channel)
        return self._stream

    def _stream_ended(self, ended: CallStream, refused: bool) -> None:
        if self._stream is ended:
            self._stream = None
            if refused:
                self._no_stream_before = self._clock.seconds() + STREAM_AGAIN_S

    def _call_alone(
        self, method: Method[Any, Any], request: Any, until: float, answer: "Deferred[Any]"
    ) -> None:
        """Without a stream: a unary call, in a thread of the pool."""
        ids = origin.current()
        self._threads.callInThread(self._issue, method, request, until, answer, ids)

    def _issue(
        self,
        method: Method[Q, A],
        request: Q,
        until: float,
        answer: "Deferred[A]",
        ids: Ids,
    ) -> None:
        """In a thread: make the call, and hand its result to the reactor."""
        try:
            result: A | Failure = self._call(method, request, until - self._clock.seconds(), ids)
        except Exception:
            result = Failure()
        self._deliver(_settle, answer, result)

    def _call(self, method: Method[Q, A], request: Q, left_s: float, ids: Ids) -> A:
        if left_s <= 0:
            raise Unavailable(f"no thread was free to call {self.address}")
        try:
            stub = self._stubs.get(method.path) or self._stub(method.path)
        except ValueError:  # the channel was closed meanwhile
            raise Unavailable(f"the channel to {self.address} is closed") from None
        data = method.encode_request(request)
        try:
            answer = stub(data, timeout=left_s, metadata=[(REQUEST_ID, each) for each in ids])
        except grpc.RpcError as error:
            known: Any = error  # it is a grpc.Call, too
            metadata = known.trailing_metadata() or ()
            raise error_of(known.code(), known.details() or "", metadata) from None
        except ValueError as error:  # the channel was closed meanwhile
            raise OutcomeUnknown(str(error)) from None
        try:
            return method.decode_answer(answer)
        except Exception as error:
            # The peer speaks another protocol, or a newer version of ours.
            raise OutcomeUnknown(f"{self.address} sent a malformed answer: {error}") from None

    def _stub(self, path: str) -> Any:
        with self._channel_lock:  # or a stub of an earlier channel might be kept
            stub = self._stubs[path] = self._newest_channel().unary_unary(path)
            return stub

    def _open_channel(self) -> grpc.Channel:
        """In a thread. Raises ValueError when the channel was closed."""
        with self._channel_lock:
            return self._newest_channel()

    def _newest_channel(self) -> grpc.Channel:
        if self._closed:
            raise ValueError("the channel is closed")
        if self._channel is None or self._way.is_outdated():
            options = (*_OPTIONS, *_message_size(self._limits))
            self._stubs = {}
            # An earlier channel lives on until the calls under way on it have ended.
            self._channel = self._way.open(self.address, options)
        return self._channel


def _message_size(limits: Limits) -> tuple[tuple[str, int], ...]:
    size = limits.message_bytes_max
    return (("grpc.max_receive_message_length", size), ("grpc.max_send_message_length", size))


def _settle(answer: "Deferred[A]", result: "A | Failure") -> None:
    """In the reactor: fire, unless the caller has given up."""
    if not answer.called:
        answer.callback(result)
