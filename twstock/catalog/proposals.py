"""Commands that the catalog's calls put into the log, and what their results mean to a caller."""

from typing import Any

from twstock.catalog.changes import Lost, Stale
from twstock.errors import CorruptStorage, StaleEpoch
from twstock.market import CatalogCommand
from twstock.origin import OriginLogger
from twstock.replication.leader import LeadingMember
from twstock.rpc.calls import ExecutedTrades
from twstock.rpc.wire.commands import encode_catalog_command


class Proposals:
    """Proposes commands to the catalog's group through one ``member``.

    ``loss`` says what the catalogs have lost, according to the order leader; empty: nothing. What
    is left of their state contradicts earlier answers, so nothing may be read from it.
    """

    _log = OriginLogger()

    def __init__(self, member: LeadingMember) -> None:
        self._member = member
        self.loss = ""
        self._told = ""

    async def propose(self, command: CatalogCommand) -> Any:
        """Replicate a command; returns its result, if ``accepted``, when it is applied here."""
        return self.accepted(await self._member.propose(encode_catalog_command(command)))

    def accepted(self, result: Any) -> Any:
        """A command's result. Raises StaleEpoch or CorruptStorage when it says that the command did
        not execute.
        """
        if isinstance(result, Stale):
            raise StaleEpoch(result.reason)
        if isinstance(result, Lost):
            if result.reason != self._told:  # the order leader asks again and again
                self._log.critical("committed data is lost: {reason}", reason=result.reason)
            self._told = result.reason
            self.loss = result.reason if result.of_catalog else ""
            raise CorruptStorage(result.reason)
        if isinstance(result, ExecutedTrades):
            self.loss = ""
        return result
