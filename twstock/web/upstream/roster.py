"""One row for each member of the cluster: who is alive, who leads, who lags.

Replicas are asked by Heartbeat, the other front-ends by ``GET /self`` on their internal
listeners, all at once and with a short deadline. This is done once for all who ask at the same
time, because those listeners have room for few connections, which the catalog needs.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from twstock.clocks import Clock
from twstock.config import Cluster, Front
from twstock.errors import TwstockError, Unavailable
from twstock.rpc.calls import Status
from twstock.web.upstream.leader import LeaderWatch
from twstock.web.upstream.shared import Shared

Row = dict[str, Any]
_ANSWER_BYTES_MAX = 16 * 1024
_NOTHING: Row = dict.fromkeys(
    (
        "pid", "role", "term", "last_transaction", "commit", "applied", "lag",
        "leader_id", "uptime_s", "ready", "reason",
    )
)  # fmt: skip


class Fetch(Protocol):
    """Gets a small body from an internal listener, or fails within its own deadline: with a
    TwstockError, unless the error is in this process.
    """

    def __call__(self, url: str) -> "Deferred[bytes]":
        """Fires with the body of a 200 answer."""


def row(service: str, number: int, address: str, **known: Any) -> Row:
    """A member's row; what is not known is null."""
    head = {"service": service, "id": number, "address": address, "alive": bool(known)}
    return head | _NOTHING | known


def replica_row(service: str, number: int, address: str, status: Status, commit: int) -> Row:
    """The row of a replica that answered; ``commit`` is its leader's, or the highest."""
    return row(
        service,
        number,
        address,
        pid=status.pid,
        role=status.role,
        term=status.term,
        last_transaction=status.last_transaction,
        commit=status.commit,
        applied=status.applied,
        lag=max(commit - status.commit, 0),
        leader_id=status.leader_id or None,
        uptime_s=round(status.uptime_s, 3),
        ready=status.ready,
        reason=status.reason,
    )


class Roster:
    """Makes every member's row. ``watches`` has one for each group."""

    _log = Logger()

    def __init__(
        self,
        cluster: Cluster,
        watches: Sequence[LeaderWatch],
        own: Front,
        pid: int,
        uptime_s: Callable[[], float],
        fetch: Fetch,
        clock: Clock,
    ) -> None:
        self._cluster = cluster
        self._watches = watches
        self._own = own
        self._pid = pid
        self._uptime_s = uptime_s
        self._fetch = fetch
        self._rows = Shared(self._look, clock)

    def reasons(self) -> list[str]:
        """Why the front-end cannot serve; empty when it can."""
        return [problem for watch in self._watches if (problem := _problem(watch))]

    def own_row(self) -> Row:
        """This front-end's row."""
        reasons = self.reasons()
        return row(
            "front",
            self._own.id,
            str(self._own.http),
            pid=self._pid,
            role="serving",
            uptime_s=round(self._uptime_s(), 3),
            ready=not reasons,
            reason="; ".join(reasons),
        )

    def rows(self) -> "Deferred[list[Row]]":
        """All rows: front-ends, catalogs, orders, each by id."""
        return self._rows.answer()

    async def _look(self) -> list[Row]:
        asked: list[Deferred[list[Row]]] = [self._front(front) for front in self._cluster.fronts]
        asked += [self._group(watch) for watch in self._watches]
        found = [row for _, rows in await DeferredList(asked) for row in rows]
        order = ("front", "catalog", "order")
        return sorted(found, key=lambda row: (order.index(row["service"]), row["id"]))

    def _group(self, watch: LeaderWatch) -> "Deferred[list[Row]]":
        """The rows of a group's replicas."""
        dead = [row(watch.group, r.id, str(r.grpc)) for r in self._cluster.replicas(watch.group)]
        seen = Deferred.fromCoroutine(self._replicas(watch))
        return seen.addErrback(self._lost, f"the {watch.group} group", dead)

    async def _replicas(self, watch: LeaderWatch) -> list[Row]:
        await watch.refresh()
        statuses = watch.statuses()
        leading = watch.leader_status()
        commits = [status.commit for status in statuses.values() if status]
        commit = leading.commit if leading else max(commits, default=0)
        rows = []
        for replica in self._cluster.replicas(watch.group):
            status = statuses.get(replica.id)
            place = (watch.group, replica.id, str(replica.grpc))
            rows.append(replica_row(*place, status, commit) if status else row(*place))
        return rows

    def _front(self, front: Front) -> "Deferred[list[Row]]":
        """A front-end's row, as it answers it itself; this one's without a request."""
        if front.id == self._own.id:
            return succeed([self.own_row()])
        dead = [row("front", front.id, str(front.http))]
        asked = self._fetch(f"http://{front.internal}/self").addCallback(_row_of, front)
        seen = asked.addCallback(lambda found: [found])
        return seen.addErrback(self._lost, f"front-{front.id}", dead)

    def _lost(self, failure: Failure, whose: str, dead: list[Row]) -> list[Row]:
        """After any failure, the ``dead`` rows: one member must not cost the rows of the others."""
        if not failure.check(TwstockError):
            self._log.failure("the rows of {whose} could not be made", failure, whose=whose)
        return dead


def _row_of(body: bytes, front: Front) -> Row:
    """The row in a front-end's answer; raises Unavailable if it has none, or another member's."""
    with suppress(ValueError, LookupError, TypeError):
        told: Row = json.loads(body[:_ANSWER_BYTES_MAX])["data"]
        if (told["service"], told["id"]) == ("front", front.id):
            return _NOTHING | told
    raise Unavailable(f"{front.internal} is not front-{front.id}")


def _problem(watch: LeaderWatch) -> str | None:
    status = watch.leader_status()
    if status is None:
        return f"no {watch.group} leader is known"
    if not status.ready:
        return f"the {watch.group} leader is not ready: {status.reason or 'no reason given'}"
    return None
