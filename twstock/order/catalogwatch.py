"""Watches whether this order replica, leader or follower, reaches the catalog's leader."""

from collections.abc import Mapping
from functools import partial

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
"""How often each catalog is asked within the time after which contact counts as lost."""


class CatalogWatch(Service):
    """Asks every catalog whether it leads, as order replica ``number``; ``contact`` hears of each
    answer from the leader. Others are asked so that they know who reaches them before they lead.
    """

    def __init__(
        self,
        number: int,
        clients: Mapping[int, Client],
        contact: Contact,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._probe = Probe(order_id=number)
        self._contact = contact
        self._clock = clock
        self._every_s = limits.out_of_reach_s / TRIES
        # One loop for each catalog, so that a silent one does not delay the others.
        self._loops = [
            repeating(partial(self._ask, client), clock, f"asking catalog-{catalog}")
            for catalog, client in clients.items()
        ]

    def startService(self) -> None:
        """Ask now, and again and again."""
        super().startService()
        for loop in self._loops:
            loop.start(self._every_s)

    def stopService(self) -> None:
        """Stop asking."""
        super().stopService()
        for loop in self._loops:
            if loop.running:
                loop.stop()

    async def _ask(self, client: Client) -> None:
        try:
            answer = await client.call(methods.CATALOG_HEARTBEAT, self._probe, self._every_s)
        except TwstockError:
            return  # no contact, and ``contact`` shows that by itself
        if answer.status.role == "leader":
            self._contact.heard(self._clock.seconds())
