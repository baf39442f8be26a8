"""Whether a replica reaches those outside of its group whom it needs as the leader, and they it.

A leader may have its majority and be of no use: no front-end reaches it, or it does not reach the
catalog. Links fail one by one, and what is between two members says nothing of a third (Alquraan
and others, "An Analysis of Network-Partitioning Failures in Cloud Systems", OSDI 2018). Each
replica observes its own reach and tells its leader, which gives way to one of a better reach.
"""

from math import inf

from twstock.replication.messages import Reach

START_GRACE_S = 5.0
"""How long nobody is missed after a start: all may have been started together."""


class Contact:
    """When somebody outside was last heard. ``loss`` says in words what it means that nobody is.
    Missed is who has to be there, from ``missed_from`` on, and whoever was there once (None).

    It is lost when nobody was heard for ``limit_s`` seconds, and good when somebody was heard in
    the last half of that time, for so long that it was not lost meanwhile. In between it is
    neither. So a pause that all replicas share makes no two differ, though each is in it for a
    little longer or shorter: none is good any more when the first is lost, and none is lost any
    more when the first is good again.
    """

    def __init__(self, loss: str, limit_s: float, missed_from: float | None = None) -> None:
        self.loss = loss
        self._limit_s = limit_s
        self._since = self._heard_at = -inf if missed_from is None else missed_from

    def heard(self, now: float) -> None:
        """Somebody called, or answered."""
        if not self._heard_at <= now <= self._heard_at + self._limit_s:
            self._since = now
        self._heard_at = now

    def excuse(self, paused_s: float, now: float) -> None:
        """This replica stood still for so long, and has yet to read what came meanwhile."""
        if self._heard_at < now:
            excused_s = min(paused_s, now - self._heard_at)
            self._since += excused_s
            self._heard_at += excused_s

    def silent_s(self, now: float) -> float:
        """For how long nobody was heard; inf: there never was anybody who is missed."""
        return now - self._heard_at

    def reach(self, now: float) -> Reach | None:
        """How it stands; None: there never was anybody who is missed."""
        if self._heard_at == -inf:
            return None
        silent_s = self.silent_s(now)
        if silent_s > self._limit_s:
            return Reach.LOST
        is_good = silent_s <= self._limit_s / 2 and now - self._since >= self._limit_s
        return Reach.GOOD if is_good else Reach.UNSURE


class Contacts:
    """All that a replica is in contact with outside of its group: front-ends, if there are any, and
    what is added. ``order_replicas`` are those that call a catalog, None for an order replica.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self.front_ends = Contact("no front-end reaches it", limit_s)
        self.order_replicas: Contact | None = None
        self._all = [self.front_ends]
        self._awake_at = inf

    def add(self, loss: str, now: float) -> Contact:
        """Another one, which has to be there soon, for somebody who tells it of what is heard."""
        self._all.append(Contact(loss, self._limit_s, now + START_GRACE_S))
        return self._all[-1]

    def awake(self, now: float) -> None:
        """This replica is at work; to be told many times in the time after which somebody is
        missed. That it stood still itself (its process was stopped, say) is nobody's silence.
        """
        paused_s = now - self._awake_at - self._limit_s / 4
        self._awake_at = now
        if paused_s > 0:
            for each in self._all:
                each.excuse(paused_s, now)

    @property
    def unheard(self) -> bool:
        """Whether no front-end has called since the start."""
        return self.front_ends.reach(0.0) is None

    def reach(self, now: float) -> Reach:
        """Lost if one is lost, good if all are. A front-end that was never heard is not missed,
        but may be there, and not reach this replica since it was restarted.
        """
        known = {reach for each in self._all if (reach := each.reach(now)) is not None}
        for worse in (Reach.LOST, Reach.UNSURE):
            if worse in known:
                return worse
        return Reach.UNHEARD if self.unheard else Reach.GOOD

    def lost(self, now: float) -> str:
        """What is lost, in words; empty if nothing is."""
        return " and ".join(each.loss for each in self._all if each.reach(now) is Reach.LOST)
