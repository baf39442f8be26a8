"""Which caches may still show an old version of a stock, and which version lookups show: pure.

A front-end with a lease answers lookups from its cache. A trade is *published*, which means
that lookups show it and that it may be acknowledged, when no cache can show anything older:
each session that may hold the stock has answered its invalidation, or its lease is over.
Until then every lookup shows the version before. So no lookup that starts after the
acknowledgement shows an older version, and no cache miss shows what another cache still hides.

The rules, which ``tests/test_cache_protocol.py`` explores exhaustively:

- A session *holds* the stocks that it was shown since it last answered their invalidation.
  If it is shown a stock while a newer version waits, that version is invalidated for it, too.
- A lease counts here from when it is granted; at the front-end from before it asked, and for
  10 % less: so it ends there first. A session that was not renewed in time is forgotten; when
  it comes back it starts empty. A front-end has one session at a time: a new one waits until
  the lease of the one before is over.
- Sessions are not in the log. After a start or an election nothing is shown, published or
  granted for the longest lease that an earlier leader may have granted. By then all caches
  filled under it are empty, and everything in the log is published at once.
- An unanswered invalidation bounds the lease: it is renewed only up to one lease after that
  invalidation began, so an unreachable front-end delays a trade by no more than that.
- A front-end whose lease ended before it had answered is sent the invalidation again when it
  asks for another lease, and gets one only when it has answered: a front-end that reaches the
  catalog, but is not reached by it, delays trades once, not again with every lease.

All times are readings of CLOCK_BOOTTIME in seconds, given by the caller.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf

from twstock.market import Stock
from twstock.rpc.calls import Lease


@dataclass(frozen=True, slots=True)
class Owed:
    """An invalidation that a session has not answered; unanswered ``since``."""

    version: int
    since: float


@dataclass(slots=True)
class Session:
    """One front-end's lease.

    ``held`` maps the stocks that its cache may hold to the newest version it was shown, ``owed``
    to the invalidations that it has not answered, and ``told`` maps stocks with an unpublished
    version to the version that it has answered for. Each is bounded by the number of stocks.
    """

    name: str
    url: str
    lease_until: float
    held: dict[str, int] = field(default_factory=dict)
    owed: dict[str, Owed] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)

    def may_show_less_than(self, stock: Stock) -> bool:
        """Whether its cache may show an older version of the stock, while its lease lasts."""
        return stock.name in self.owed and self.told.get(stock.name, -1) < stock.version

    def owe(self, stock: Stock, now: float) -> None:
        """It has to answer for a version, unless it has already."""
        if self.told.get(stock.name, -1) < stock.version:
            owed = self.owed.get(stock.name, Owed(0, now))
            self.owed[stock.name] = Owed(stock.version, owed.since)

    def answered(self, name: str, version: int, now: float) -> None:
        """Its cache will not show, nor store, anything of the stock below ``version``."""
        if self.held.get(name, version) < version:
            del self.held[name]
        owed = self.owed.get(name)
        if owed is None:
            return
        self.told[name] = max(version, self.told.get(name, -1))
        if owed.version <= version:
            del self.owed[name]
        else:  # a sign of life: the newer version has just been, or is about to be, sent
            self.owed[name] = Owed(owed.version, now)


@dataclass(frozen=True, slots=True)
class Call:
    """One invalidation to send: the versions that the session of a front-end has to answer."""

    front_id: int
    session: str
    url: str
    versions: Mapping[str, int]


class Sessions:
    """The sessions and the published stocks of a catalog leader. ``lease_s`` is the longest lease
    that it grants, ``any_lease_s`` the longest that any leader grants, if that is longer: an
    earlier leader may have been configured otherwise. The caller bounds the number of front-ends by
    letting only known ones register.
    """

    def __init__(self, lease_s: float, any_lease_s: float = 0.0) -> None:
        self._lease_s = lease_s
        self._any_lease_s = max(lease_s, any_lease_s)
        self._opens_at = inf
        self._is_open = False
        self._sessions: dict[int, Session] = {}
        # Sessions that ended before they had answered, until their front-ends answer something.
        self._deaf: dict[int, Session] = {}
        self.lapsed: set[int] = set()
        """Front-ends whose lease has run out, until the caller has logged that."""
        self._published: dict[str, Stock] = {}
        # The next version to publish and, after it, the newest: so a version that waits is not put
        # off for ever by newer ones.
        self._pending: dict[str, list[Stock]] = {}

    # --- leading -----------------------------------------------------------------------------

    def started(self, now: float) -> None:
        """Leadership begins: ``opened`` follows when all leases of earlier leaders are over."""
        self.ended()
        self._opens_at = now + self._any_lease_s

    def ended(self) -> None:
        """Leadership is over: from now on show, grant and publish nothing."""
        self._opens_at = inf
        self._is_open = False
        self.lapsed.clear()
        self._sessions.clear()
        self._deaf.clear()
        self._published.clear()
        self._pending.clear()

    def opened(self, stocks: Iterable[Stock]) -> None:
        """The wait is over: nobody holds anything, so everything is published."""
        self._is_open = True
        self._published = {stock.name: stock for stock in stocks}
        self._pending.clear()

    @property
    def opens_at(self) -> float:
        """When ``opened`` is due; inf when not leading."""
        return self._opens_at

    @property
    def is_open(self) -> bool:
        """Whether stocks may be shown."""
        return self._is_open

    # --- front-ends --------------------------------------------------------------------------

    def register(
        self, front_id: int, url: str, session: str, now: float, lease_s_cap: float
    ) -> Lease:
        """Grant or renew a lease, at most as long as ``lease_s_cap``, the leader's own."""
        seconds = min(self._lease_s, lease_s_cap)
        if not self._is_open or seconds <= 0:
            return Lease(0.0, False)
        self.expired(now)
        known, deaf = self._sessions.get(front_id), self._deaf.get(front_id)
        if deaf is not None:
            deaf.url, deaf.lease_until = url, now + self._lease_s  # ``calls`` has it until then
            return Lease(0.0, False)
        if known is None:
            self._sessions[front_id] = Session(session, url, now + seconds)
            return Lease(seconds, True)
        if known.name != session:
            return Lease(0.0, False)
        known.url = url
        return self._renewed(known, now, seconds)

    def _renewed(self, session: Session, now: float, seconds: float) -> Lease:
        """Renew a lease. If invalidations are unanswered, the answer lists them, and the lease ends
        at most one lease after the oldest of them began.
        """
        since = min((owed.since for owed in session.owed.values()), default=now)
        granted = max(0.0, min(seconds, since + self._lease_s - now))
        session.lease_until = max(session.lease_until, now + granted)
        return Lease(granted, False, {name: owed.version for name, owed in session.owed.items()})

    def looked_up(self, front_id: int, session: str, name: str, now: float) -> Stock | None:
        """The published stock, which the session may hold from now on.

        Without a live session the front-end will not store the answer: it stores only answers to
        what it asked during a lease, and the lease has ended there even earlier.
        """
        stock = self._published.get(name)
        known = self._sessions.get(front_id)
        if stock is None or known is None or known.name != session or now >= known.lease_until:
            return stock
        waiting = self._pending.get(name)
        # A session that has answered for the waiting version does not store this one.
        if waiting is None or known.told.get(name, -1) < waiting[-1].version:
            known.held[name] = max(stock.version, known.held.get(name, -1))
        if waiting is not None:
            known.owe(waiting[-1], now)
        return stock

    def shown(self, name: str) -> Stock | None:
        """The published stock, for a caller that does not cache it."""
        return self._published.get(name)

    def answered(
        self, front_id: int, session: str, versions: Mapping[str, int], now: float
    ) -> None:
        """A front-end has answered an invalidation that was sent to this session."""
        self._deaf.pop(front_id, None)
        known = self._sessions.get(front_id)
        if known is not None and known.name == session:
            for name, version in versions.items():
                known.answered(name, version, now)
        self.expired(now)

    # --- trades ------------------------------------------------------------------------------

    def traded(self, stocks: Iterable[Stock], now: float) -> None:
        """These stocks have new versions: publish each once no session may show an older one."""
        for stock in stocks:
            waiting = self._pending.get(stock.name, [])
            newest = waiting[-1] if waiting else self._published.get(stock.name)
            if newest is None or newest.version < stock.version:
                self._pending[stock.name] = [*waiting[:1], stock]
                for session in self._sessions.values():
                    if stock.name in session.held and now < session.lease_until:
                        session.owe(stock, now)
        self.expired(now)

    def expired(self, now: float) -> None:
        """Forget sessions whose lease is over; publish what no cache hides any more."""
        for front_id in [f for f, s in self._sessions.items() if now >= s.lease_until]:
            session = self._sessions.pop(front_id)
            self.lapsed.add(front_id)
            if session.owed:
                self._deaf[front_id] = Session(session.name, session.url, now, owed=session.owed)
        if self._is_open:
            for name in list(self._pending):
                self._publish(name)

    def is_published(self, versions: Mapping[str, int]) -> bool:
        """Whether lookups at any front-end show these versions, or later ones. Before ``opened`` a
        cache may hide anything. Once true it stays true, whichever catalog leads.
        """
        return self._is_open and not self.unpublished(versions)

    def unpublished(self, versions: Mapping[str, int]) -> dict[str, int]:
        """Those of these versions that some lookups may not show yet."""
        published = self._published
        return {n: v for n, v in versions.items() if n not in published or published[n].version < v}

    def pending(self) -> dict[str, int]:
        """The newest unpublished version of each stock that has one, as given to ``traded``."""
        return {name: stocks[-1].version for name, stocks in self._pending.items()}

    def calls(self, now: float) -> list[Call]:
        """One call for each live session that has unanswered invalidations, and for each ended one
        whose front-end asks for another lease.
        """
        return [
            Call(
                front_id, session.name, session.url, {n: o.version for n, o in session.owed.items()}
            )
            for front_id, session in (*self._sessions.items(), *self._deaf.items())
            if session.owed and now < session.lease_until
        ]

    def wake_at(self) -> float:
        """When ``expired`` may next publish something by the passing of time; inf: never."""
        if not self._is_open or not self._pending:
            return inf
        return min((s.lease_until for s in self._sessions.values() if s.owed), default=inf)

    def _publish(self, name: str) -> None:
        waiting = self._pending[name]
        sessions = self._sessions.values()
        while waiting and not any(s.may_show_less_than(waiting[0]) for s in sessions):
            self._published[name] = waiting.pop(0)
        if not waiting:
            del self._pending[name]
            for session in sessions:
                session.told.pop(name, None)
