"""One long-lived stream between two processes, and the many calls that it carries.

A message on an open stream costs a fraction of a gRPC call. The thread that has a message encodes
it and hands it to gRPC (``duplex``), which does not block; the thread that reads the stream decodes
messages, and only their values cross to the reactor.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import grpc
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twstock import origin
from twstock.clocks import Clock, DelayedCall
from twstock.config import Limits
from twstock.errors import InvalidRequest, OutcomeUnknown, Overloaded, TwstockError
from twstock.origin import Ids, OriginLogger
from twstock.rpc.duplex import ClientStream, Outbox, ServerStream, StreamEnded, Unsupported
from twstock.rpc.security import Check
from twstock.rpc.status import OUTCOME, code_of, details_of
from twstock.rpc.wire import streams
from twstock.rpc.wire.methods import Method

Deliver = Callable[..., None]

WAIT_MAX_S = 2.0
"""How long a caller waits at most, whatever deadline it set: nothing hangs longer than this."""
CALLS_MAX = 128
"""How many calls may be under way on one stream."""
READY_MAX = 32
NOT_TAKEN_S = 0.25
"""When this many answers are ready on a stream, and none has been taken for this long, further
calls are refused: they would only add to what is kept. A front-end has fewer under way."""
ANSWER_OVERHEAD_BYTES = 64
"""The most that a stream adds to an answer."""


@dataclass(slots=True, eq=False)
class _Call:
    """One call under way; ``until`` is its deadline, in seconds of the clock."""

    method: Method[Any, Any]
    request: Any
    until: float
    answer: "Deferred[Any]"
    timer: DelayedCall
    origin: Ids


class CallStream:
    """The calling side. ``run`` belongs to a thread, everything else to the reactor.

    ``ended`` is called once, when the stream is over. The outcome of calls under way is then
    unknown; but if the server took no stream at all, or this side cannot make one, ``instead``
    makes each call in another way.
    """

    def __init__(
        self,
        address: str,
        clock: Clock,
        deliver: Deliver,
        ended: Callable[["CallStream", bool], None],
        instead: Callable[[Method[Any, Any], Any, float, "Deferred[Any]"], None],
    ) -> None:
        self._address = address
        self._clock = clock
        self._deliver = deliver
        self._ended = ended
        self._instead = instead
        self._ids = count(1)
        self._calls: dict[int, _Call] = {}
        self._outbox = Outbox(self._encode)

    def call(
        self, method: Method[Any, Any], request: Any, deadline_s: float, answer: "Deferred[Any]"
    ) -> None:
        """Send a call; ``answer`` fires within the deadline."""
        call_id = next(self._ids)
        timer = self._clock.callLater(deadline_s, self._expire, call_id)
        until = self._clock.seconds() + deadline_s
        call = _Call(method, request, until, answer, timer, origin.current())
        self._calls[call_id] = call
        self._outbox.put((call_id, call))

    def run(self, open_channel: Callable[[], grpc.Channel]) -> None:
        """Open the stream, and read answers until it ends."""
        refused, details = False, "the stream has ended"
        try:
            stream = ClientStream(open_channel(), streams.PATH, self._outbox.go_on)
            stream.open()
            self._outbox.open(stream.send, stream.abort)
            with closing(stream.messages()) as messages:
                for data in messages:
                    self._deliver(self._settle, *self._read(data))
        except StreamEnded as end:
            refused, details = _is_refusal(end), end.details or details
        except Unsupported as error:
            refused, details = True, str(error)
        except ValueError as error:  # the channel was closed meanwhile
            details = str(error)
        except Exception as error:
            # The peer speaks another protocol, or a newer version of ours.
            details = f"{self._address} sent a malformed answer: {error!r}"
        self._outbox.close()
        self._deliver(self._end, details, refused)

    def _encode(self, sending: tuple[int, _Call]) -> bytes | None:
        """In the sending thread: the call as bytes; None if it was given up before it left."""
        call_id, call = sending
        left_s = call.until - self._clock.seconds() if call_id in self._calls else 0.0
        if left_s <= 0:
            return None
        method = call.method
        try:
            request = method.encode_request(call.request)
            return streams.call(call_id, method.path, request, left_s, call.origin)
        except Exception:
            self._deliver(self._settle, call_id, Failure())
            return None

    def _read(self, data: bytes) -> tuple[int, Any]:
        """In the thread: the call's id, and its answer or a failure."""
        call_id, answer = streams.to_answer(data)
        call = self._calls.get(call_id)
        if call is None:
            return call_id, None  # given up
        if isinstance(answer, TwstockError):
            return call_id, Failure(answer)
        try:
            return call_id, call.method.decode_answer(answer)
        except Exception as error:
            text = f"{self._address} sent a malformed answer: {error}"
            return call_id, Failure(OutcomeUnknown(text))

    def _settle(self, call_id: int, result: Any) -> None:
        call = self._calls.pop(call_id, None)
        if call is None:
            return
        if call.timer.active():
            call.timer.cancel()
        if not call.answer.called:  # the caller may have given up
            call.answer.callback(result)

    def _expire(self, call_id: int) -> None:
        # If the peer is alive but takes nothing, it would wait for ever, with its request.
        self._outbox.drop((call_id, self._calls[call_id]))
        self._settle(call_id, Failure(OutcomeUnknown(f"{self._address} did not answer in time")))

    def _end(self, details: str, refused: bool) -> None:
        self._ended(self, refused)
        for call_id, call in list(self._calls.items()):
            if refused:
                del self._calls[call_id]
                call.timer.cancel()
                if not call.answer.called:
                    with origin.on_behalf_of(call.origin):
                        self._instead(call.method, call.request, call.until, call.answer)
            else:
                self._settle(call_id, Failure(OutcomeUnknown(details)))


def _is_refusal(end: StreamEnded) -> bool:
    """Whether the server itself refused the stream. If a message is too large, the stream ends
    with the status of a refusal, too, but without metadata.
    """
    return end.code is grpc.StatusCode.UNIMPLEMENTED or OUTCOME in dict(end.metadata)


@dataclass(frozen=True, slots=True)
class StreamEndpoint:
    """How a call on a stream is answered: ``start`` runs it in the reactor, given its deadline in
    seconds of the clock, and passes on its answer or an exception; ``admit`` takes up room, or
    raises Overloaded when there is none, and ``leave`` gives the room back.
    """

    method: Method[Any, Any]
    start: Callable[[Any, Callable[[Any], None], float], None]
    admit: Callable[[], None]
    leave: Callable[[], None]


@dataclass(slots=True, eq=False)
class _Answer:
    """An answer that is to come, until ``settle`` or its time is up."""

    endpoint: StreamEndpoint
    send: Callable[[Any], None]
    timer: DelayedCall | None = None
    is_settled: bool = False

    def settle(self, result: Any) -> None:
        """In the reactor: send it, once; a result that comes after its time was up is dropped."""
        if self.is_settled:
            return
        self.is_settled = True
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        self.endpoint.leave()
        self.send(result)

    def expire(self) -> None:
        """Its time is up."""
        self.settle(OutcomeUnknown("no answer within the deadline"))


class AnswerStream:
    """The answering side of one stream.

    No more than ``CALLS_MAX`` calls are under way on it: the next is read when an answer has been
    sent, so HTTP/2's flow control holds up a caller that sends too much, or reads nothing.
    ``check`` says which calls the other side may make; None: all.
    """

    _log = OriginLogger()

    def __init__(
        self,
        table: Mapping[str, StreamEndpoint],
        clock: Clock,
        deliver: Deliver,
        limits: Limits,
        check: Check | None = None,
    ) -> None:
        self._table = table
        self._check = check
        self._clock = clock
        self._deliver = deliver
        self._bytes_max = limits.message_bytes_max - ANSWER_OVERHEAD_BYTES
        self._stream: ServerStream
        self._outbox = Outbox(self._encode)
        self._lock = threading.Lock()
        self._under_way = 0
        self._is_full = False
        self._heard_s = clock.seconds()
        self._sending_s: float | None = None

    def silent_s(self) -> float:
        """For how long no call has come, if none is under way; from any thread."""
        return 0.0 if self._under_way else self._clock.seconds() - self._heard_s

    def stuck_s(self) -> float:
        """How long an answer has waited for the other side to take it; from any thread."""
        since_s = self._sending_s
        return 0.0 if since_s is None else self._clock.seconds() - since_s

    def serve(self, context: grpc.ServicerContext) -> None:
        """In the handler's thread: serve until the stream ends. Raises Unsupported."""
        self._stream = ServerStream(context, self._came, self._left)
        self._stream.open()
        self._outbox.open(self._stream.send, self._stream.abort)
        self._stream.read_on()
        self._stream.wait()
        self._outbox.close()

    def _came(self, data: bytes) -> bool:
        """In the thread in which gRPC serves: take a call; returns whether there is room for the
        next. Anything else ends the stream. That is not logged: a caller may go on for ever.
        """
        try:
            call = streams.to_call(data)
        except InvalidRequest as error:
            self._stream.end(code_of(error), details_of(error))
            return False
        with self._lock:
            self._under_way += 1
        self._take(*call)
        with self._lock:
            self._is_full = self._under_way >= CALLS_MAX
            return not self._is_full

    def _left(self) -> None:
        """In the same thread: an answer was sent, so there is room."""
        self._sending_s = None
        with self._lock:
            self._under_way -= 1
            was_full, self._is_full = self._is_full, False
        if was_full:
            self._stream.read_on()
        self._outbox.go_on()

    def _take(
        self, call_id: int, path: str, content: bytes, left_s: float, told: Sequence[str]
    ) -> None:
        self._heard_s = self._clock.seconds()
        until = self._heard_s + left_s
        ids = origin.received(told[: origin.IDS_MAX]) if told else ()
        endpoint = self._table.get(path)
        if endpoint is None:
            error = InvalidRequest("method", f"{path} is not a call of this server")
            self._outbox.put(_Outgoing(call_id, None, error, ids))
            return
        try:
            request = endpoint.method.parse_request(content)
            if self._check is not None:
                self._check(path, request)
            endpoint.admit()
        except TwstockError as problem:
            # Without its traceback, which would keep the message until the answer is sent.
            refusal = problem.with_traceback(None)
            self._outbox.put(_Outgoing(call_id, endpoint.method, refusal, ids))
        else:
            self._deliver(self._start, call_id, endpoint, request, ids, until)

    def _start(
        self, call_id: int, endpoint: StreamEndpoint, request: Any, ids: Ids, until: float
    ) -> None:
        """In the reactor: begin a call, whose answer is due by its deadline."""
        method, put = endpoint.method, self._outbox.put
        answer = _Answer(endpoint, lambda result: put(_Outgoing(call_id, method, result, ids)))
        if len(self._outbox) >= READY_MAX and self.stuck_s() >= NOT_TAKEN_S:
            answer.settle(Overloaded("answers wait to be taken"))
            return
        wait_s = min(until - self._clock.seconds(), WAIT_MAX_S)
        if wait_s > 0:
            answer.timer = self._clock.callLater(wait_s, answer.expire)
        if ids:
            with origin.on_behalf_of(ids):
                endpoint.start(request, answer.settle, until)
        else:
            endpoint.start(request, answer.settle, until)

    def _encode(self, sending: "_Outgoing") -> bytes:
        """In the sending thread: the answer as bytes."""
        self._sending_s = self._clock.seconds()
        call_id, method, result, ids = sending
        if method is None or isinstance(result, Exception):
            return streams.failed(call_id, result)
        try:
            content = method.encode_answer(result)
            if len(content) > self._bytes_max:
                raise OutcomeUnknown("the answer is too large for a message")
            return streams.answer(call_id, content)
        except Exception as error:
            with origin.on_behalf_of(ids):
                self._log.failure("{call} has no answer", call=method.name)
            return streams.failed(call_id, error)


class _Outgoing(NamedTuple):
    """An answer or an error on its way; without ``method`` it is an error."""

    call_id: int
    method: Method[Any, Any] | None
    result: Any
    origin: Ids
