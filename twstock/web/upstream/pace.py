"""When the next call with gathered requests may begin. Pure: the clock's time is an argument.

A call costs much more than a request in it, so few large calls beat many small ones, until a
call takes so long that later requests should not wait for it.
"""

from math import inf

CALLS_MAX = 8
"""How many calls may be under way at once when the first ones take long."""
PATIENCE_S = 0.05
"""A call that takes longer does not hold up the requests that arrive after it."""
LINGER_SHARE = 0.125
LINGER_MAX_S = 0.005
"""How long a call waits for more requests: ``LINGER_SHARE`` of the last call's duration, at most
``LINGER_MAX_S``."""


class Pace:
    """The calls under way, one at a time if none takes long, and how many requests to expect.

    A client that waits for its answer sends its next request when it has it. So when a call
    ends, about as many requests as it answered are on their way, besides those that wait already:
    the next call lingers a moment for them. A client that is alone never waits.
    """

    def __init__(self, requests_max: int) -> None:
        """A call takes up to ``requests_max`` requests."""
        self._requests_max = requests_max
        self._under_way: list[float] = []
        self._expected = 1
        self._linger_until = -inf

    def next_start(self, waiting: int) -> float:
        """The time from which a call with the waiting requests may begin; -inf: at once; inf: not
        before a call under way has ended.
        """
        if len(self._under_way) >= CALLS_MAX:
            return inf
        if self._under_way:
            return self._under_way[-1] + PATIENCE_S
        return -inf if waiting >= self._expected else self._linger_until

    def began(self, now: float) -> None:
        """A call begins."""
        self._under_way.append(now)

    def ended(self, began: float, now: float, requests: int, waiting: int) -> None:
        """The call that began at ``began`` has ended; it had ``requests``, and ``waiting`` wait."""
        self._under_way.remove(began)
        self._expected = min(requests + waiting, self._requests_max)
        self._linger_until = now + min((now - began) * LINGER_SHARE, LINGER_MAX_S)
