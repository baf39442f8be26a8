"""Messages on an open gRPC stream, both ways, with as few threads in between as gRPC's core allows.

gRPC for Python passes each message through three threads of its own on either side: a round trip
on an idle stream takes 38 context switches, of which its core needs 22. So the two ends here
use the core directly, as gRPC's own ``_channel.py`` and ``_server.py`` do: the thread that sends a
message hands it to the core, and the thread that waits for the core reads it. This private API may
be missing: then ``Unsupported`` is raised, and calls are made in gRPC's usual way.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import Any, Generic, TypeVar

import grpc

from twstock.origin import OriginLogger

try:
    from grpc._cython import cygrpc
except ImportError:  # another gRPC for Python than the one that this was written for
    cygrpc = None

T = TypeVar("T")
_NO_FLAGS = 0
_INSIDES = (AttributeError, TypeError)
"""What using the private API raises with another version."""


class Unsupported(Exception):
    """This version of gRPC for Python has another private API."""


class StreamEnded(Exception):
    """The stream is over; ``code``, ``details`` and ``metadata`` are its status."""

    def __init__(
        self, code: grpc.StatusCode, details: str, metadata: Sequence[tuple[str, str | bytes]]
    ) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.metadata = metadata


class Outbox(Generic[T]):
    """The queue of messages to be sent on one stream, for any thread.

    gRPC takes one message of a stream at a time. ``encode`` makes the bytes of a message when its
    turn comes, or None if it need not be sent any more. A message that cannot be sent ends the
    stream, or those behind it would wait for ever.
    """

    _log = OriginLogger()

    def __init__(self, encode: Callable[[T], bytes | None]) -> None:
        self._encode = encode
        self._send: Callable[[bytes], None]
        self._abort: Callable[[], None]
        self._waiting: deque[T] = deque()
        self._lock = threading.Lock()
        self._is_busy = True

    def __len__(self) -> int:
        """How many messages wait."""
        return len(self._waiting)

    def open(self, send: Callable[[bytes], None], abort: Callable[[], None]) -> None:
        """The stream is open: ``send`` gives one message to gRPC, ``abort`` ends the stream."""
        self._send, self._abort = send, abort
        self.go_on()

    def put(self, message: T) -> None:
        """Send a message, at once if none is on its way."""
        with self._lock:
            self._waiting.append(message)
            if self._is_busy:
                return
            self._is_busy = True
        self.go_on()

    def drop(self, message: T) -> None:
        """Drop a message that need not be sent any more, if it still waits."""
        with self._lock, suppress(ValueError):
            self._waiting.remove(message)

    def close(self) -> None:
        """The stream is over: drop what waits, and all that is put here from now on. The stream
        itself may stay in memory until Python's garbage collector runs, which is seldom.
        """
        with self._lock:
            self._waiting = deque(maxlen=0)

    def go_on(self) -> None:
        """The previous message has left: send the next."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._is_busy = False
                    return
                message = self._waiting.popleft()
            try:
                data = self._encode(message)
                if data is not None:
                    self._send(data)
                    return
            except Exception:
                self._log.failure("a stream ends: a message was not sent")
                self._abort()
                return


class ClientStream:
    """The calling end. ``send`` may be called from any thread once ``open`` has returned."""

    _SENT, _RECEIVED, _STATUS, _METADATA = "sent", "received", "status", "metadata"

    def __init__(self, channel: grpc.Channel, path: str, sent: Callable[[], None]) -> None:
        """``sent`` is called, in the reading thread, when the next message may be sent."""
        self._channel: Any = channel
        self._path = path.encode()
        self._sent = sent
        self._call: Any = None
        self._lock = threading.Lock()
        self._under_way = 0
        self._is_over = False

    def open(self) -> None:
        """Begin the stream. Raises ValueError when the channel is closed; Unsupported."""
        try:
            begin = (
                ((cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS),), self._METADATA),
                ((cygrpc.ReceiveStatusOnClientOperation(_NO_FLAGS),), self._STATUS),
                ((cygrpc.ReceiveInitialMetadataOperation(_NO_FLAGS),), self._METADATA),
            )
            _ = _messages()
            self._call = self._channel._channel.segregated_call(
                cygrpc.PropagationConstants.GRPC_PROPAGATE_DEFAULTS,
                self._path, None, None, None, None, begin, None,
            )  # fmt: skip
            _ = self._call.operate, self._call.next_event, self._call.cancel
        except _INSIDES as error:
            raise Unsupported(str(error)) from error
        self._under_way = len(begin)

    def send(self, data: bytes) -> None:
        """Hand a message to gRPC, which has none; one for an ended stream goes nowhere."""
        self._operate(cygrpc.SendMessageOperation(data, _NO_FLAGS), self._SENT)

    def abort(self) -> None:
        """End the stream; its reader gets StreamEnded."""
        self._call.cancel(cygrpc.StatusCode.cancelled, "the stream is not used any more")

    def messages(self) -> Generator[bytes, None, None]:
        """In a thread: yields what comes, and raises StreamEnded when the stream is over."""
        self._receive()
        try:
            yield from self._read()
        finally:
            if self._under_way:
                self._leave()

    def _read(self) -> Generator[bytes, None, None]:
        ended = StreamEnded(grpc.StatusCode.UNKNOWN, "the stream has ended", ())
        while self._under_way:
            event = self._call.next_event()
            with self._lock:
                self._under_way -= 1
                self._is_over = self._is_over or event.tag is self._STATUS
            if event.tag is self._STATUS:
                ended = _status(event.batch_operations[0])
            elif event.tag is self._SENT and event.success:
                self._sent()
            elif event.tag is self._RECEIVED:
                data = event.batch_operations[0].message()
                if data is not None:
                    self._receive()
                    yield data
        raise ended

    def _receive(self) -> None:
        self._operate(cygrpc.ReceiveMessageOperation(_NO_FLAGS), self._RECEIVED)

    def _operate(self, operation: Any, tag: str) -> None:
        with self._lock:
            if not self._is_over and self._call.operate((operation,), tag):
                self._under_way += 1

    def _leave(self) -> None:
        """The reader has stopped: end the stream, and wait until gRPC is done with it."""
        self.abort()
        with suppress(StreamEnded):
            for _ in self._read():
                continue


def _messages() -> tuple[Any, Any]:
    """What both ends use once they are open; looked up before, in case it is missing."""
    return cygrpc.SendMessageOperation, cygrpc.ReceiveMessageOperation


def _status(operation: Any) -> StreamEnded:
    code = _CODES.get(operation.code(), grpc.StatusCode.UNKNOWN)
    metadata = operation.trailing_metadata() or ()
    details = operation.details() or b""
    text = details if isinstance(details, str) else details.decode("utf-8", "replace")
    return StreamEnded(code, text, tuple(metadata))


_CODES = {code.value[0]: code for code in grpc.StatusCode}


class ServerStream:
    """The answering end. ``take`` gets each message in the thread in which gRPC serves, so it
    has to be quick. It returns whether to read the next one; if not, ``read_on`` will.
    """

    _log = OriginLogger()

    def __init__(
        self, context: Any, take: Callable[[bytes], bool], sent: Callable[[], None]
    ) -> None:
        self._context = context
        self._take = take
        self._sent = sent
        self._call: Any = None
        self._lock = threading.Lock()
        self._under_way = 0
        self._is_over = False
        self._done = threading.Event()

    def open(self) -> None:
        """Begin the stream. Raises Unsupported."""
        try:
            self._call = self._context._rpc_event.call
            _ = _messages(), self._call.start_server_batch
        except _INSIDES as error:
            raise Unsupported(str(error)) from error
        self._context.send_initial_metadata(())
        if not self._context.add_callback(self._gone):
            self._gone()

    def send(self, data: bytes) -> None:
        """Hand a message to gRPC, which has none; one for an ended stream goes nowhere."""
        self._operate(cygrpc.SendMessageOperation(data, _NO_FLAGS), self._has_sent)

    def read_on(self) -> None:
        """Read one more message."""
        self._operate(cygrpc.ReceiveMessageOperation(_NO_FLAGS), self._received)

    def abort(self) -> None:
        """End the stream; the client learns that it was cancelled."""
        self._context.cancel()

    def end(self, code: grpc.StatusCode, details: str) -> None:
        """Stop reading and sending; when gRPC is done with what is under way, the client gets this
        status.
        """
        self._context.set_code(code)
        self._context.set_details(details)
        self._ended()

    def wait(self) -> None:
        """In the handler's thread: wait until the stream is over, and gRPC is done with it."""
        self._done.wait()

    def _operate(self, operation: Any, done: Callable[[Any], Any]) -> None:
        with self._lock:
            if self._is_over:
                return
            self._under_way += 1
        if self._call.start_server_batch((operation,), done):
            self._over_with(self._ended)  # gRPC has rejected it, and will not call back

    def _has_sent(self, event: Any) -> Any:
        return self._over_with(self._sent if event.success else self._ended)

    def _received(self, event: Any) -> Any:
        data = event.batch_operations[0].message()
        return self._over_with(self._ended if data is None else lambda: self._took(data))

    def _took(self, data: bytes) -> None:
        if self._take(data):
            self.read_on()

    def _over_with(self, go_on: Callable[[], None]) -> Any:
        """An operation is over: do what follows. An error here would end gRPC's thread."""
        try:
            go_on()
        except Exception:
            self._log.failure("a stream ends: what came in was not taken")
            self._ended()
        with self._lock:
            self._under_way -= 1
            self._look()
        return None, ()  # what gRPC expects: none of its own calls is over, no callbacks

    def _ended(self) -> None:
        with self._lock:
            self._is_over = True
            self._look()

    def _gone(self) -> None:
        """The call is over for gRPC, too. It may never report the end of operations that are still
        under way: a server that stops does not wait for them.
        """
        self._ended()
        self._done.set()

    def _look(self) -> None:
        if self._is_over and not self._under_way:
            self._done.set()
