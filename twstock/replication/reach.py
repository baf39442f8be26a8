"""Whether a replica is in contact with the processes outside of its group that a leader needs.

A leader may have its majority and still be useless: no front-end reaches it, or it does not reach
the catalog. Links fail one by one, and a link between two members says nothing about a third
(Alquraan and others, "An Analysis of Network-Partitioning Failures in Cloud Systems", OSDI 2018).
Each replica observes its own reach and reports it to its leader, which gives way to one with a
better reach.
"""

from math import inf

from twstock.replication.messages import Reach

START_GRACE_S = 5.0
"""How long after a start nothing is missed: all processes may have been started together."""


class Contact:
    """When one kind of process outside of the group was last heard; ``loss`` says in words that it
    is lost. It is missed from ``missed_from`` on; if that is None, only once it has been heard.

    A contact is lost when nobody was heard for ``limit_s`` seconds. It is good when somebody was
    heard in the last half of that time, and it has lasted for ``limit_s`` without being lost.
    Otherwise it is unsure. So when all replicas share a pause, one is never good while another is
    lost, although the pause is a little longer for some: when the first is lost none is good any
    more, and when the first is good again none is lost any more.
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
        """This replica itself stood still for ``paused_s``, and has yet to read what arrived."""
        if self._heard_at < now:
            excused_s = min(paused_s, now - self._heard_at)
            self._since += excused_s
            self._heard_at += excused_s

    def silent_s(self, now: float) -> float:
        """For how long nobody was heard; inf: nobody was ever heard, or is missed."""
        return now - self._heard_at

    def reach(self, now: float) -> Reach | None:
        """Whether it is good, lost or unsure; None: nobody was ever heard, or is missed."""
        if self._heard_at == -inf:
            return None
        silent_s = self.silent_s(now)
        if silent_s > self._limit_s:
            return Reach.LOST
        is_good = silent_s <= self._limit_s / 2 and now - self._since >= self._limit_s
        return Reach.GOOD if is_good else Reach.UNSURE


class Contacts:
    """All contacts of a replica outside of its group: front-ends, if there are any, and those that
    are added. ``order_replicas`` is a catalog's contact with these; None in an order replica.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self.front_ends = Contact("no front-end reaches it", limit_s)
        self.order_replicas: Contact | None = None
        self._all = [self.front_ends]
        self._awake_at = inf

    def add(self, loss: str, now: float) -> Contact:
        """Add a contact, which is missed soon; the caller tells it when somebody is heard."""
        self._all.append(Contact(loss, self._limit_s, now + START_GRACE_S))
        return self._all[-1]

    def awake(self, now: float) -> None:
        """This replica is running; to be called many times within ``limit_s``. If it stood still
        itself (its process was stopped, say), that does not count as silence of the others.
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
        """Lost if one contact is lost, else unsure if one is. If all are good but no front-end was
        ever heard, ``UNHEARD``: one may exist that has not reached this replica since its restart.
        """
        known = {reach for each in self._all if (reach := each.reach(now)) is not None}
        for worse in (Reach.LOST, Reach.UNSURE):
            if worse in known:
                return worse
        return Reach.UNHEARD if self.unheard else Reach.GOOD

    def lost(self, now: float) -> str:
        """What is lost, in words; empty if nothing is."""
        return " and ".join(each.loss for each in self._all if each.reach(now) is Reach.LOST)
