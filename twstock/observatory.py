"""The metrics of one process: their sources, which are read when somebody asks."""

from collections.abc import Callable, Iterable

from twisted.application.service import Service

from twstock.clocks import Clock
from twstock.exposition import process_families
from twstock.lag import Lag
from twstock.rpc.calls import Observe, Observed
from twstock.rpc.server import Endpoint
from twstock.rpc.wire.methods import OBSERVE
from twstock.tally import Family

AGAIN_S = 0.1
"""For how long what was read is given out again, so that constant asking costs little."""

Source = Callable[[], Iterable[Family]]
"""What a part of the process has counted, read now."""


class Observatory(Service):
    """Knows the sources of the process ``name`` (for example ``order-3``), including how late its
    reactor is and what it uses of the machine.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self.member = name
        self.lag = Lag(clock)
        self._clock = clock
        self._sources: list[Source] = [process_families, self.lag.families]
        self._known: tuple[Family, ...] = ()
        self._known_until = float("-inf")

    def add(self, source: Source) -> None:
        """Read this source, too."""
        self._sources.append(source)

    def startService(self) -> None:
        """Begin to measure the reactor's lag."""
        super().startService()
        self.lag.start()

    def stopService(self) -> None:
        """Stop measuring."""
        super().stopService()
        self.lag.stop()

    def families(self) -> tuple[Family, ...]:
        """All numbers, of now or of ``AGAIN_S`` ago."""
        now = self._clock.seconds()
        if now >= self._known_until:
            self._known = tuple(family for source in self._sources for family in source())
            self._known_until = now + AGAIN_S
        return self._known

    def endpoint(self) -> Endpoint[Observe, Observed]:
        """The call that reads the metrics. It is internal: calls of clients cannot crowd it out."""

        async def observe(_: Observe) -> Observed:
            return Observed(self.member, self.families())

        return Endpoint(OBSERVE, observe, internal=True)
