"""Admits calls before their requests are read.

gRPC for Python reads the request of a unary call in one of the server's threads, before any of our
code runs, for as long as the caller likes. So every unary call is served as a client-streaming one,
which is the same on the wire: it has to find room first, and then its request is read, within
``REQUEST_MAX_S``. gRPC has no public way to stop waiting for a request. Where the private one that
is used here is missing, the wait has no limit.
"""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, Self

import grpc

from twstock.errors import NotReceived, Overloaded, TwstockError
from twstock.rpc.status import code_of, details_of, metadata_of

REQUEST_MAX_S = 2.0
"""How long a call may take to bring its request: as long as an answer may take."""
SILENT_S = 5.0
"""How long a stream has to have been silent before another one may have its place. So a caller that
opens streams without end cannot take the places of streams that members have just opened."""


class Room:
    """Places for calls of one kind, with a thread each.

    When none is free, the call that has waited longest for its request gives way to the new one:
    a request that was sent arrives in no time, so a caller that opens calls and sends nothing, or
    sends slowly, keeps nobody out.
    """

    def __init__(self, places: int, full: str = "too many calls under way") -> None:
        """``full`` is the error message for calls that find no place."""
        self._free = places
        self._full = full
        self._waiting: dict[Place, None] = {}
        self._lock = threading.Lock()

    def enter(self, arrival: "Place | None" = None) -> None:
        """Take a place; raises Overloaded when there is none. Without an ``arrival`` the call waits
        for no request, and keeps its place until ``leave``.
        """
        oldest = None
        with self._lock:
            if self._free > 0:
                self._free -= 1
            elif (oldest := self._oldest()) is not None:
                del self._waiting[oldest]
                oldest.gave_way = True
            else:
                raise Overloaded(self._full)
            if arrival is not None:
                self._waiting[arrival] = None
        if oldest is not None:
            oldest.look_up()

    def _oldest(self) -> "Place | None":
        return next(iter(self._waiting), None)

    def begin(self, arrival: "Place") -> None:
        """Its request has come, so it keeps its place; raises Overloaded if it has given way."""
        with self._lock:
            if arrival.gave_way:
                raise Overloaded(self._full)
            del self._waiting[arrival]

    def leave(self, arrival: "Place | None" = None) -> None:
        """Give the place back, unless another call has it by now."""
        with self._lock:
            if arrival is not None:
                self._waiting.pop(arrival, None)
                if arrival.gave_way:
                    return
            self._free += 1


class Place:
    """A place for a call, for the time of a ``with``; a TwstockError in it ends the call with the
    error's status. This class is for streaming calls, whose messages are read elsewhere.
    """

    gave_way = False
    """Whether another call has it now; set by the room."""

    def __init__(self, room: Room, context: Any) -> None:
        self._room = room
        self._context = context

    def look_up(self) -> None:
        """From any thread: it has given way, so end the call."""
        self._context.cancel()

    def silent_s(self) -> float:
        """For how many seconds nothing has come, where that can be known; else 0."""
        return 0.0

    def _arrival(self) -> "Place | None":
        return None

    def __enter__(self) -> Self:
        try:
            self._room.enter(self._arrival())
        except Overloaded as error:
            _refuse(self._context, error)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._room.leave(self._arrival())
        if isinstance(error, TwstockError):
            _refuse(self._context, error)


class StreamRoom(Room):
    """Places for streams, which their callers may keep for ever: when none is free, the one that
    has been silent longest gives way to the new one.
    """

    def _oldest(self) -> Place | None:
        longest = max(self._waiting, key=lambda place: place.silent_s(), default=None)
        return None if longest is None or longest.silent_s() < SILENT_S else longest


class StreamPlace(Place):
    """The place of a stream in a StreamRoom. ``silent_s`` says for how long it has been silent
    and has had no call under way: when such a stream ends, no call is lost.
    """

    def __init__(self, room: Room, context: Any, silent_s: Callable[[], float]) -> None:
        super().__init__(room, context)
        self._silent_s = silent_s

    def silent_s(self) -> float:
        """For how many seconds no call has come or been under way."""
        return self._silent_s()

    def _arrival(self) -> Place | None:
        return self


class Arrival(Place):
    """The place of a call with one request, which may not have come yet."""

    def __init__(self, room: Room, path: str, requests: Any, context: Any) -> None:
        super().__init__(room, context)
        self._path = path
        self._requests = requests
        try:
            self._news = requests._state.condition
            self._look = requests._look_for_request
            self._ask = requests._raise_or_start_receive_message
            self._can_stop = True
        except AttributeError:  # another version of gRPC, with another private API
            self._can_stop = False

    def _arrival(self) -> Place | None:
        return self if self._can_stop else None

    def request(self, left_s: float | None) -> Any:
        """In the thread of the call: wait for its request, with ``left_s`` to its deadline. Raises
        Overloaded if it has given way, or NotReceived (nothing has happened then), and what gRPC
        raises when the caller has gone.
        """
        most_s = REQUEST_MAX_S if left_s is None else min(left_s, REQUEST_MAX_S)
        try:
            if not self._can_stop:
                return next(self._requests)
            request = self._wait(most_s)
        except StopIteration:
            details = f'"{self._path}" requires exactly one request message.'
            self._context.abort(grpc.StatusCode.UNIMPLEMENTED, details)
        self._room.begin(self)
        return request

    def look_up(self) -> None:
        """From any thread: it has given way, so stop waiting."""
        with self._news:
            self._news.notify_all()

    def _wait(self, most_s: float) -> Any:
        with self._news:
            self._ask()
            while not self.gave_way:
                # Little else wakes it, and only once each: to wait anew adds little to the time.
                if not self._news.wait(most_s):
                    raise NotReceived("the request did not come in time")
                request = self._look()
                if request is not None:
                    return request
        return None


def _refuse(context: Any, error: TwstockError) -> NoReturn:
    context.set_trailing_metadata(metadata_of(error))
    context.abort(code_of(error), details_of(error))
    raise AssertionError("abort returned")
