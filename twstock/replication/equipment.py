"""What a member is given: settings, a disk, tables, a network, time, chance and threads."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from twisted.python.failure import Failure

from twstock.clocks import Clock
from twstock.config import Limits
from twstock.errors import StorageError, StorageUnavailable
from twstock.replication.database import Database
from twstock.replication.messages import Membership, Timings
from twstock.replication.reach import Contacts
from twstock.replication.storage import Storage
from twstock.replication.transport import Transport
from twstock.threads import Threads


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Time, chance and threads, which everything else gets from here.

    ``disk`` is one thread; ``deliver`` runs a function in the reactor, from any thread;
    ``panic`` ends the process; ``refuse`` ends it with a message for the operator.
    """

    clock: Clock
    random: Random
    disk: Threads
    deliver: Callable[..., None]
    panic: Callable[[Failure], None]
    refuse: Callable[[StorageError | StorageUnavailable], None]


@dataclass(frozen=True, slots=True)
class Equipment:
    """Everything that a member and its parts share, and that is made outside of them."""

    membership: Membership
    timings: Timings
    limits: Limits
    storage: Storage
    database: Database
    transport: Transport
    contacts: Contacts
    surroundings: Surroundings
