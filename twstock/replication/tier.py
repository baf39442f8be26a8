"""What a tier provides for its group's member: a state machine, its tables, and its service."""

import sqlite3
from collections.abc import Sequence
from typing import Protocol

from twstock.replication.messages import Applied


class StateMachine(Protocol):
    """What a group replicates: pure, so that it is the same on every replica."""

    @property
    def digest(self) -> bytes:
        """A chain hash of everything applied so far."""

    @property
    def last_transaction(self) -> int:
        """The highest transaction number that it knows."""

    def apply(self, index: int, payload: bytes) -> Applied:
        """Apply one command. An error here is a broken invariant: the process stops."""


class Tables(Protocol):
    """What a tier keeps in its database."""

    schema: str
    """Statements that make the tables where they are missing."""

    def load(self, connection: sqlite3.Connection, digest: bytes) -> StateMachine:
        """The state that the tables hold, which has this digest. Raises an error if the rows do
        not fit together.
        """

    def save(self, connection: sqlite3.Connection, changes: Sequence[object]) -> None:
        """Store changes, in order, inside the transaction that is open."""

    def upkeep(self, connection: sqlite3.Connection) -> None:
        """Optional work besides saving, now and then, in a transaction of its own; it may fail for
        lack of space.
        """

    def extent(self, connection: sqlite3.Connection) -> tuple[int | str, ...]:
        """A cheap summary of how far the tables reach; empty or zeros: they hold nothing. It goes
        into the checksum of the applied record.
        """


class Tier(Protocol):
    """The service of a tier while the member leads; it keeps what its tables do not have yet."""

    def begin(self, term: int) -> None:
        """The member leads ``term`` and has applied all that any earlier leader acknowledged."""

    def end(self) -> None:
        """It no longer leads that term."""

    def saved(self, index: int) -> None:
        """The tables have everything up to the entry at ``index``."""
