"""Keeps the cache's lease: a session with the catalog, renewed several times before it ends.

The lease counts from before the renewal was sent, so a late answer grants what is left, at worst
nothing. Whenever this side cannot be sure that the catalog has known the session without a break
(another leader, an answer that never came), the cache starts empty. It also does when the wall
clock jumps: that is how a machine whose clocks were frozen with it learns that it has lost time.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twstock.clocks import Clock
from twstock.config import Limits
from twstock.errors import TwstockError
from twstock.repeating import repeating
from twstock.rpc.calls import Lease, Register
from twstock.web.cache import Cache
from twstock.web.upstream.leader import Leader

APART_S = 0.05
"""If wall clock and CLOCK_BOOTTIME move apart by more than this between two renewals, one of them
jumped: a daemon that slews the clock moves it by a seventh of that at most."""


class Clocks(NamedTuple):
    """``clock`` has the timers; ``boottime`` reads CLOCK_BOOTTIME, ``wall`` the wall clock, both in
    seconds.
    """

    clock: Clock
    boottime: Callable[[], float]
    wall: Callable[[], float]


class Watch(Protocol):
    """Who leads the catalog."""

    leader: Leader | None

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` whenever the leader changes."""


class Registrar(Protocol):
    """The catalog, as far as a lease needs it."""

    async def register(self, request: Register) -> tuple[Leader, Lease]:
        """Ask the leader once; returns that leader and the lease that it granted."""


class LeaseSession:
    """The session of one front-end process."""

    _log = Logger()

    def __init__(
        self,
        cache: Cache,
        catalog: Registrar,
        watch: Watch,
        clocks: Clocks,
        registration: Register,
        limits: Limits,
    ) -> None:
        self._cache = cache
        self._catalog = catalog
        self._watch = watch
        self._boottime, self._wall = clocks.boottime, clocks.wall
        self._registration = registration
        self._limits = limits
        self._holder: Leader | None = None
        self._broken = True
        self._renewal: Deferred[None] | None = None
        self._told = False
        self._apart = self._wall() - self._boottime()
        self._loop = repeating(self._renew, clocks.clock, "renewing the cache lease")
        watch.subscribe(self._leader_changed)

    def start(self) -> None:
        """Take the lease and renew it from now on; nothing to do without a cache."""
        if self._cache.enabled:
            self._loop.start(self._limits.lease_renew_s)

    def stop(self) -> None:
        """Serve no more from the cache, and let the lease run out at the catalog."""
        if self._loop.running:
            self._loop.stop()
        if self._renewal is not None:
            self._renewal.cancel()
        self._cache.end_lease()

    def _renew(self) -> None:
        """Ask for a renewal, unless one is under way or nobody leads."""
        self._compare_clocks()
        self._tell()
        if self._renewal is not None or self._watch.leader is None:
            return
        sent_at = self._boottime()
        asked = Deferred.fromCoroutine(self._catalog.register(self._registration))
        renewal = asked.addCallback(self._granted, sent_at).addErrback(self._failed)
        renewal.addBoth(self._ended)
        if not renewal.called:
            self._renewal = renewal

    def _compare_clocks(self) -> None:
        """End the lease if one of the clocks has jumped: its age is not known any more, nor that
        of a renewal that is under way.
        """
        apart = self._wall() - self._boottime()
        if abs(apart - self._apart) > APART_S:
            self._log.warn("the wall clock jumped by {seconds:.3f} s", seconds=apart - self._apart)
            self._cache.end_lease()
            if self._renewal is not None:
                self._renewal.cancel()
        self._apart = apart

    def _granted(self, answer: tuple[Leader, Lease], sent_at: float) -> None:
        leader, lease = answer
        if leader != self._watch.leader:
            # What a leader grants that has been replaced meanwhile is no promise.
            self._broken = True
            return
        for name, version in lease.missed.items():
            self._cache.invalidate(name, version)
        fresh = lease.fresh or self._broken or leader != self._holder
        self._holder, self._broken = leader, False
        self._cache.renew(sent_at, lease.seconds, self._boottime(), fresh)

    def _failed(self, failure: Failure) -> None:
        """The lost answer may have said that the session is new, so the next lease starts empty."""
        self._broken = True
        if not failure.check(TwstockError, CancelledError):
            self._log.failure("renewing the cache lease failed", failure)

    def _tell(self) -> None:
        """Log once when the cache begins to serve, and once when it stops."""
        holds = self._cache.holds_lease(self._boottime())
        if holds != self._told:
            if holds:
                self._log.info("holds a cache lease", term=self._holder and self._holder.term)
            else:
                self._log.warn("has no cache lease: lookups go to the catalog")
        self._told = holds

    def _ended(self, _: object) -> None:
        self._renewal = None

    def _leader_changed(self) -> None:
        """The new leader knows nothing of this session."""
        leader = self._watch.leader
        if leader is None or leader == self._holder:
            return
        self._cache.end_lease()
        if self._renewal is not None:
            self._renewal.cancel()
        if self._loop.running:
            self._renew()
