"""How often the feed writes: the less often, the more it costs to write to everybody. Pure."""

SHARE = 0.03
"""The part of the time that writing to the subscribers may take."""
LONGEST_S = 1.0
SHORTEST_S = 0.01
"""Nobody is written to more often than this, whatever the configuration says."""


class Rhythm:
    """The time from the beginning of one writing to the next, ``shortest_s`` at least."""

    def __init__(self, shortest_s: float, longest_s: float = LONGEST_S) -> None:
        self._shortest_s = max(shortest_s, SHORTEST_S)
        self._longest_s = max(longest_s, self._shortest_s)
        self.interval_s = self._shortest_s

    def wrote(self, cost_s: float) -> None:
        """The last writing has kept the process busy for ``cost_s``."""
        self.interval_s = min(max(cost_s / SHARE, self._shortest_s), self._longest_s)
