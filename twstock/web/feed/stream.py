"""A streamed answer: one client's connection, with a limit on what waits to be sent on it."""

import contextlib
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.web.server import Request
from zope.interface import implementer

from twstock.web.feed import gzipstream
from twstock.web.feed.events import Frame, chunk
from twstock.web.http.poll import write_now

SILENT_MS_MAX = 30_000
"""After this long without an acknowledgement of what was sent, a client counts as gone."""

_GZIP_HEADER = chunk(gzipstream.HEADER)


@implementer(IPushProducer)
class Stream:
    """The body of an answer that is written frame by frame.

    What the kernel does not take at once waits in this process. If more than
    ``unsent_bytes_max`` of it waits when another frame is written, the connection is aborted, so
    what waits is bounded by that and the longest frame. What waits in the kernel is bounded by
    the size of the socket's buffer. ``dropped`` is called when the connection is aborted, and
    when the channel has cut the client off because it did not read. ``is_packed``: the body is a
    gzip stream, in chunks.
    """

    def __init__(
        self,
        request: Request,
        unsent_bytes_max: int,
        dropped: Callable[[], None],
        is_packed: bool,
    ) -> None:
        self.over: Deferred[None] = Deferred(lambda _: self.stopProducing())
        """Fires at ``end``; cancelled when the client is gone."""
        self._request = request
        self._unsent_bytes_max = unsent_bytes_max
        self._dropped = dropped
        self._channel: Any = None
        self._transport: Any = None
        self._is_packed = is_packed
        self._is_chunked = False
        self._is_over = False
        self._unsent: int | None = None
        self._resumed: list[Deferred[None]] = []

    @property
    def is_open(self) -> bool:
        """Whether the client can still be written to."""
        return not self._is_over

    @property
    def is_ready(self) -> bool:
        """Whether nothing waits to be sent, so that what is written now is sent at once."""
        return self._unsent is None and not self._is_over

    def write(self, frame: Frame) -> None:
        """Write to the client; before the first frame, the headers of the answer."""
        if self._is_over or not frame.body:
            return
        is_first = self._transport is None
        if is_first:
            self._begin()
        if self._is_packed:
            data = _GZIP_HEADER + frame.packed if is_first else frame.packed
        else:
            data = frame.chunk if self._is_chunked else frame.body
        if self._unsent is None:
            write_now(self._transport, data)
            if self._unsent is not None:
                self._unsent = len(data)
        elif self._unsent > self._unsent_bytes_max:
            self._dropped()
            self._transport.abortConnection()
        else:
            self._unsent += len(data)
            self._transport.write(data)

    def writable(self) -> "Deferred[None]":
        """Fires when nothing waits to be sent any more."""
        waiting: Deferred[None] = Deferred()
        self._resumed.append(waiting)
        if self._unsent is None:
            self._wake()
        return waiting

    def end(self) -> None:
        """The body is complete."""
        if not self._is_over:
            self._is_over = True
            if self._transport is not None:
                self._request.unregisterProducer()
            self.over.callback(None)

    def pauseProducing(self) -> None:
        """The transport's buffer is full: from now on, count what waits."""
        if self._unsent is None:
            self._unsent = 0

    def resumeProducing(self) -> None:
        """The transport's buffer is empty: the kernel has everything."""
        self._unsent = None
        self._wake()

    def stopProducing(self) -> None:
        """The connection is gone."""
        if not self._is_over and self._channel is not None and self._channel.is_cut_off:
            self._dropped()
        self._is_over = True

    def _begin(self) -> None:
        """Send the headers; from then on write to the transport, not to Twisted's request, which
        would make chunks of the chunks.
        """
        request: Any = self._request
        request.write(b"")
        request.registerProducer(self, True)
        self._is_chunked = bool(request.chunked)
        self._channel = request.channel
        self._transport = request.channel.transport
        handle = getattr(self._transport, "getHandle", lambda: None)()
        if handle is not None:
            with contextlib.suppress(OSError):
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._unsent_bytes_max)
                handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_MS_MAX)

    def _wake(self) -> None:
        resumed, self._resumed = self._resumed, []
        for waiting in resumed:
            if not waiting.called:
                waiting.callback(None)
