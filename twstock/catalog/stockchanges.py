"""The calls of administrators: change a stock through the log, list the changes that were made."""

from collections import Counter
from collections.abc import Callable
from typing import Protocol

from twstock.catalog import requests
from twstock.catalog.invalidation import Publisher
from twstock.catalog.proposals import Proposals
from twstock.catalog.sessions import Sessions
from twstock.catalog.state import CatalogState
from twstock.config import Limits
from twstock.errors import KeyReused
from twstock.market import (
    ChangeKind,
    ChangeOutcome,
    ChangeRefusal,
    ChangeRequest,
    ChangeStock,
)
from twstock.origin import OriginLogger
from twstock.replication.leader import LeadingMember
from twstock.rpc.calls import Changed, Changes, Page, page_limit


class Readiness(Protocol):
    """Whether this replica may answer."""

    def check_reads(self) -> None:
        """Raise NotLeader or Unavailable, unless lookups are answered."""

    def check_writes(self) -> None:
        """Raise NotLeader or Unavailable, unless stocks may be changed."""


class StockChanges:
    """The calls that front-ends make to one catalog replica for administrators."""

    _log = OriginLogger()

    def __init__(
        self,
        member: LeadingMember,
        readiness: Readiness,
        proposals: Proposals,
        sessions: Sessions,
        publisher: Publisher,
        limits: Limits,
        wall_ms: Callable[[], int],
        random_key: Callable[[], str],
    ) -> None:
        self._member = member
        self._readiness = readiness
        self._proposals = proposals
        self._sessions = sessions
        self._publisher = publisher
        self._limits = limits
        self._wall_ms = wall_ms
        self._random_key = random_key
        self._changes_shown = 0
        self._changing: Counter[str] = Counter()

    @property
    def _state(self) -> CatalogState:
        state: CatalogState = self._member.machine
        return state

    def all_shown(self) -> None:
        """No cache hides any change made so far."""
        self._changes_shown = self._state.last_change

    async def list_changes(self, request: Page) -> Changes:
        """ListChanges: a page of changes. A change is listed once lookups show the version that it
        made: a client that has read of a halt must not see the stock as before.
        """
        self._readiness.check_reads()
        after, last = max(0, request.after), self._last_shown_change()
        limit = page_limit(request.limit, self._limits.page_max)
        rows = self._state.stock_changes(after, max(0, min(limit, last - after)))
        more = bool(rows) and rows[-1].number < last
        return Changes(rows, rows[-1].number if more else 0, last, self._state.last_change)

    def _last_shown_change(self) -> int:
        """The number up to which every change is published."""
        while page := self._state.stock_changes(self._changes_shown, self._limits.page_max):
            for change in page:
                shown = self._sessions.shown(change.name)
                if shown is None or shown.version < change.version:
                    return self._changes_shown
                self._changes_shown = change.number
        return self._changes_shown

    async def change_stock(self, request: ChangeRequest) -> Changed:
        """ChangeStock: one change, which is durable and which no cache hides when this answers."""
        requests.check_change(request)
        self._readiness.check_writes()
        if not request.key:
            request = request._replace(key=self._random_key())
        full = self._why_full(request)
        if full is not None:
            return Changed(refusal=full)
        self._changing[request.key] += 1
        try:
            outcome = await self._proposals.propose(ChangeStock(request, self._wall_ms()))
        finally:
            self._changing[request.key] -= 1
            self._changing += Counter()  # forget what is not under way
        assert isinstance(outcome, ChangeOutcome)
        # A refusal, too, reveals the state in which it was decided.
        stock = self._state.stock(request.name)
        await self._publisher.publish([] if stock is None else [stock])
        self._last_shown_change()  # so that ``list_changes`` need not go through thousands
        return self._told(request, outcome)

    def _why_full(self, request: ChangeRequest) -> ChangeRefusal | None:
        """Why no new change is taken; None if it is. Only the leader asks this, before the log:
        replicas may be configured with different bounds.

        A key that is known, or whose change is under way, is not new: the log gives all its copies
        one outcome. Another leader may know more keys, so this raises Unavailable without a lease.
        """
        if self._changing[request.key] or self._state.known_change(request) is not None:
            return None
        is_new = request.kind is ChangeKind.ADD and self._state.stock(request.name) is None
        if self._state.last_change >= self._limits.changes_max:
            full = ChangeRefusal.TOO_MANY_CHANGES
        elif is_new and len(self._state) >= self._limits.stocks_max:
            full = ChangeRefusal.TOO_MANY_STOCKS
        else:
            return None
        self._member.check_lease()
        return full

    def _told(self, request: ChangeRequest, outcome: ChangeOutcome) -> Changed:
        """The answer for an outcome; raises KeyReused."""
        if outcome.key_reused:
            raise KeyReused("change")
        change, replayed = outcome.change, outcome.replayed
        if change is None:
            return Changed(refusal=str(outcome.refusal), replayed=replayed)
        if not replayed:
            kind, name = str(change.kind), change.name
            self._log.info(
                "change {number}: {kind} {name}", number=change.number, kind=kind, name=name
            )
        # The stock as lookups show it: a newer version may still be hidden by a cache.
        return Changed(change.number, self._sessions.shown(request.name), replayed=replayed)
