"""When to send the catalog an empty batch, only to report which orders are recorded: pure.

Each batch reports up to which number orders are recorded, so that the catalog need not keep their
trades any longer. It keeps a limited number, beyond which it refuses direct trades: as long as no
order came, it would go on refusing them. But a report costs a commit and an entry of the catalog's
log, so each is about many orders.
"""

TELL_EVERY_S = 60.0
"""After this long without a batch even a few orders are reported: the catalog may have a lower
limit while members are restarted with another configuration. At most 1,440 entries a day."""


class RecordedWatermark:
    """Up to which number one leader has reported to the catalog that orders are recorded.

    ``kept_max`` is how many trades the catalog keeps. What earlier leaders have reported is not
    known, so their orders are reported once more.
    """

    def __init__(self, kept_max: int, now: float) -> None:
        self._kept_max = kept_max
        self._told = 0
        self._until = now + TELL_EVERY_S

    def told(self, recorded: int, now: float) -> None:
        """The catalog has applied a batch that reported all orders up to ``recorded``."""
        self._told = recorded
        self._until = now + TELL_EVERY_S

    def is_due(self, recorded: int, now: float) -> bool:
        """Whether to report the orders up to ``recorded`` now: more than half of ``kept_max`` are
        not reported yet, or a few are not and the last report is ``TELL_EVERY_S`` ago.
        """
        untold = recorded - self._told
        return untold > self._kept_max // 2 or (untold > 0 and now >= self._until)
