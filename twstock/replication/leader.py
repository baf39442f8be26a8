"""What the calls of a tier need of their group's member: to propose, and to know if it leads."""

from typing import Any, Protocol

from twisted.internet.defer import Deferred

from twstock.errors import TwstockError


class LeadingMember(Protocol):
    """A member of a group, as its tier sees it."""

    machine: Any
    """The tier's state machine, None before it is loaded."""

    def propose(self, payload: bytes) -> "Deferred[Any]":
        """Replicate a command; fires with its result when it is committed and applied here."""

    def is_giving_way(self) -> bool:
        """Whether this leader is handing over: it takes no orders, and grants no more leases."""

    def lease_until(self) -> float:
        """Until when (seconds of the clock) no other member can lead."""

    def not_leading(self) -> TwstockError:
        """The error for a request that only the ready leader answers."""

    def check_leads(self) -> None:
        """Raise ``not_leading`` unless this member leads and has applied all that was
        acknowledged.
        """

    def check_lease(self) -> None:
        """Raise ``not_leading``, or Unavailable, unless this member leads and nobody can have
        replaced it.
        """
