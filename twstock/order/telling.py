"""When the catalog is to be told what is recorded although there is no order to send: pure.

Each batch tells the catalog up to which number orders are recorded, so that it keeps their trades
no longer. It keeps so many at most, and refuses trades that are made there directly above that:
without orders, of which nobody knows when the next one comes, it would refuse them for ever. But
each time is an entry of its log, which grows for ever, so it is told of many at once.
"""

TELL_EVERY_S = 60.0
"""After so long without a batch it is told of few, too: the bound that it has may be a lower one
while members are restarted with another configuration. At most 1,440 entries a day."""


class Telling:
    """What one leader has told. ``kept_max`` is how many trades the catalog keeps; what leaders
    before have told is not known, so of their orders the catalog is told once more.
    """

    def __init__(self, kept_max: int, now: float) -> None:
        self._kept_max = kept_max
        self._told = 0
        self._until = now + TELL_EVERY_S

    def told(self, recorded: int, now: float) -> None:
        """The catalog has applied a batch that told it of all orders up to a number."""
        self._told = recorded
        self._until = now + TELL_EVERY_S

    def is_due(self, recorded: int, now: float) -> bool:
        """Whether to tell of the orders up to a number now: that is half of what is kept, or time
        has passed.
        """
        untold = recorded - self._told
        return untold > self._kept_max // 2 or (untold > 0 and now >= self._until)
