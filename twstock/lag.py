"""How late the reactor is: a timer that measures when it fires."""

from collections.abc import Iterator

from twstock.clocks import Clock, DelayedCall
from twstock.tally import Family, Histogram, histogram

EVERY_S = 0.1
"""How often the reactor is checked."""


class Lag:
    """Measures how late a timer of ``clock`` fires. Whatever holds up the reactor (a long
    computation, a memory page that has to be read back, another process on the same core) delays
    all answers by as much.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._late = Histogram()
        self._worst = 0.0
        self._due = 0.0
        self._timer: DelayedCall | None = None

    def start(self) -> None:
        """Begin to measure."""
        self._due = self._clock.seconds() + EVERY_S
        self._timer = self._clock.callLater(EVERY_S, self._fired)

    def stop(self) -> None:
        """Stop measuring."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def take_worst_s(self) -> float:
        """The worst lag since the previous call."""
        worst, self._worst = self._worst, 0.0
        return worst

    def families(self) -> Iterator[Family]:
        """What was counted."""
        yield histogram(
            "twstock_reactor_lag_seconds", "How late the reactor fires a timer.", [({}, self._late)]
        )

    def _fired(self) -> None:
        late = max(self._clock.seconds() - self._due, 0.0)
        self._late.observe(late)
        self._worst = max(self._worst, late)
        self.start()
