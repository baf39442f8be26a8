"""Decides which front-end a request goes to next, and when. Sends nothing."""

from random import Random
from typing import NamedTuple

PAUSE_S = 0.05
PAUSE_MAX_S = 1.0


class Attempt(NamedTuple):
    """Ask this front-end, by its place in the list, ``wait_s`` from now."""

    front: int
    wait_s: float


class Attempts:
    """The attempts of one request until ``deadline``, at ``fronts`` front-ends, ``first`` first.

    After a failure the next front-end in the list is asked. One that failed is not asked again
    until a pause is over, which doubles each time, or its Retry-After. So the first round through
    the list has no pauses.
    """

    def __init__(
        self, fronts: int, first: int, deadline: float, random: Random, pause_s: float = PAUSE_S
    ) -> None:
        self.front = first
        self._pause_s = pause_s
        self._deadline = deadline
        self._random = random
        self._failures = [0] * fronts
        self._ready_at = [float("-inf")] * fronts

    def next(self, now: float) -> Attempt | None:
        """The next attempt; None when none can be made before the deadline."""
        fronts = len(self._ready_at)
        turn = [(self.front + step) % fronts for step in range(fronts)]
        # The first that is ready, else the one that is ready first.
        self.front = min(turn, key=lambda front: max(self._ready_at[front], now))
        wait_s = max(self._ready_at[self.front] - now, 0.0)
        return None if now + wait_s >= self._deadline else Attempt(self.front, wait_s)

    def failed(self, now: float, retry_after_s: float | None = None) -> None:
        """The front-end that was asked could not serve. ``retry_after_s`` is its Retry-After."""
        front = self.front
        self._failures[front] += 1
        pause_s = retry_after_s if retry_after_s is not None else self._backoff_s(front)
        self._ready_at[front] = now + pause_s
        self.front = (front + 1) % len(self._ready_at)

    def served(self, pause_s: float | None = None) -> None:
        """The front-end that was asked serves: earlier failures are forgotten. Later pauses begin
        with ``pause_s``, if that is given.
        """
        self._failures = [0] * len(self._failures)
        self._pause_s = self._pause_s if pause_s is None else pause_s

    def _backoff_s(self, front: int) -> float:
        """Half to all of the pause, at random, so that clients do not all retry at once."""
        doubled: float = self._pause_s * 2 ** min(self._failures[front] - 1, 16)
        return min(doubled, max(PAUSE_MAX_S, self._pause_s)) * (0.5 + self._random.random() / 2)
