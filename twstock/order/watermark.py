"""When to tell the catalog what is recorded although there is no order to send: pure.

Each batch tells the catalog up to which number orders are recorded, so that it need not keep their
trades any longer. It keeps a limited number, beyond which it refuses trades that are made there
directly: as long as no order came, it would go on refusing them. But each time costs a commit and
an entry of its log, so it is told of many orders at once.
"""

TELL_EVERY_S = 60.0
"""After this long without a batch it is told of even a few: its limit may be a lower one while
members are restarted with another configuration. At most 1,440 entries a day."""


class RecordedWatermark:
    """Up to which number one leader has told the catalog that orders are recorded.

    ``kept_max`` is how many trades the catalog keeps. What earlier leaders have told it is not
    known, so it is told of their orders once more.
    """

    def __init__(self, kept_max: int, now: float) -> None:
        self._kept_max = kept_max
        self._told = 0
        self._until = now + TELL_EVERY_S

    def told(self, recorded: int, now: float) -> None:
        """The catalog has applied a batch that told it of all orders up to ``recorded``."""
        self._told = recorded
        self._until = now + TELL_EVERY_S

    def is_due(self, recorded: int, now: float) -> bool:
        """Whether to tell it now of the orders up to ``recorded``: it has not been told of half as
        many as it keeps, or not for a while.
        """
        untold = recorded - self._told
        return untold > self._kept_max // 2 or (untold > 0 and now >= self._until)
