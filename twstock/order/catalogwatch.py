"""Whether this order replica reaches the catalog's leader, be it to lead now or later."""

from collections.abc import Mapping

from twisted.application.service import Service

from twstock.clocks import Clock
from twstock.config import Limits
from twstock.errors import TwstockError
from twstock.repeating import repeating
from twstock.replication.reach import Contact
from twstock.rpc.calls import Probe
from twstock.rpc.client import Client
from twstock.rpc.wire import methods

TRIES = 4
"""How often the catalog is asked in the time after which it counts as lost."""


class CatalogWatch(Service):
    """Asks one catalog after the other until it has found the leader, and then that one; a few
    times a second, unless ``contact`` has heard of other answers meanwhile. It is told when the
    leader answers.
    """

    def __init__(
        self, clients: Mapping[int, Client], contact: Contact, clock: Clock, limits: Limits
    ) -> None:
        self._clients = clients
        self._contact = contact
        self._clock = clock
        self._every_s = limits.out_of_reach_s / TRIES
        self._ids = sorted(clients, reverse=True)
        self._asked = self._ids[0]
        self._loop = repeating(self._ask, clock, "asking the catalog")

    def startService(self) -> None:
        """Ask at once and from now on."""
        super().startService()
        self._loop.start(self._every_s)

    def stopService(self) -> None:
        """Ask no more."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    async def _ask(self) -> None:
        # The answer before came a little later than it was asked for, and does not count.
        if self._contact.silent_s(self._clock.seconds()) < self._every_s / 2:
            return None
        try:
            answer = await self._clients[self._asked].call(
                methods.CATALOG_HEARTBEAT, Probe(), self._every_s
            )
        except TwstockError:
            return self._turn_to(0)
        if answer.status.role == "leader":
            return self._contact.heard(self._clock.seconds())
        return self._turn_to(answer.status.leader_id)

    def _turn_to(self, leader_id: int) -> None:
        following = self._ids[(self._ids.index(self._asked) + 1) % len(self._ids)]
        self._asked = leader_id if leader_id in self._clients else following
