"""Interfaces to what the order leader works with: the catalog and its own group."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from twstock.market import Batch, BatchResult, BeginEpoch, Trade
from twstock.rpc.calls import ExecutedTrades


class Market(Protocol):
    """The catalog, as the order leader sees it. Any call may be repeated."""

    async def execute(self, batch: Batch) -> BatchResult:
        """Execute a batch, once however often it is sent. The result is durable, but caches may
        hide the versions that it lists as unpublished. Raises StaleEpoch when a newer order leader
        has replaced this one.
        """

    async def await_published(self, versions: Mapping[str, int]) -> None:
        """Wait until no cache hides these versions of stocks, by name."""

    async def begin_epoch(self, epoch: BeginEpoch) -> ExecutedTrades:
        """Raise the fence and list the trades after a number. By the time of the answer no cache
        hides any earlier trade.
        """


class Ledger(Protocol):
    """The order group, as its leader sees it."""

    def propose(self, payload: bytes) -> "Deferred[Any]":
        """Record orders; raises when nothing was proposed, fails when leadership is lost."""

    def resign(self) -> None:
        """Stop leading."""

    def last_number(self) -> int:
        """The highest number that a majority has recorded."""

    def find_keys(self, keys: Sequence[str]) -> "Deferred[dict[str, Trade]]":
        """The recorded orders with these keys."""
