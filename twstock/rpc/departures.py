"""Bounds the answers that gRPC keeps until their callers take them.

When a call's answer is handed to gRPC, the call's thread and place are free. But gRPC keeps the
answer until the caller takes it, for as long as the caller likes, and there may be a hundred of
them on each of thousands of connections. So there is room for a certain number of bytes, and when
it is used up, the answer that has waited longest gives way: if its caller were reading, it would
have left in no time.
"""

import threading
from functools import partial
from typing import Any

CALL_BYTES = 20 * 1024
"""How many bytes gRPC keeps for a call until its answer is taken, the answer not counted."""


class Departures:
    """Room for the answers that a server has handed to gRPC."""

    def __init__(self, bytes_max: int) -> None:
        self._free = bytes_max
        self._waiting: dict[Any, int] = {}
        self._lock = threading.Lock()

    def add(self, context: Any, answer_bytes: int) -> None:
        """From any thread: the answer to the call of this context is about to be handed to gRPC.
        It takes up room until gRPC says that the call is over.
        """
        size, given_up = answer_bytes + CALL_BYTES, []
        with self._lock:
            while self._free < size and self._waiting:
                oldest = next(iter(self._waiting))
                self._free += self._waiting.pop(oldest)
                given_up.append(oldest)
            self._free -= size
            self._waiting[context] = size
        if not context.add_callback(partial(self._gone, context)):
            self._gone(context)
        for each in given_up:
            each.cancel()

    def _gone(self, context: Any) -> None:
        with self._lock:
            self._free += self._waiting.pop(context, 0)
