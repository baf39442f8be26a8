"""Every error that twstock raises on purpose.

They carry no HTTP or gRPC codes: each edge has one table that maps these classes to its own codes
(``twstock.rpc.status`` and ``twstock.web.answers``).
"""


class TwstockError(Exception):
    """The parent of all errors raised on purpose."""


def told(error: OSError) -> str:
    """An error of the file system in words for people: the file, and the system's message."""
    why, file = error.strerror or str(error), error.filename2 or error.filename
    return why if file is None else f"{file}: {why}"


class ConfigError(TwstockError):
    """The configuration cannot be used; the message names the key at fault."""


class InvalidRequest(TwstockError):
    """A request is malformed; ``field`` names what is wrong with it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class WrongUrl(TwstockError):
    """A URL cannot be used; the message says why."""


class NotLeader(TwstockError):
    """The replica does not lead, so nothing happened; ``leader_id`` is its best guess (0: none)."""

    def __init__(self, leader_id: int = 0) -> None:
        super().__init__(f"not the leader; the leader is {leader_id or 'not known'}")
        self.leader_id = leader_id


class StaleEpoch(TwstockError):
    """A trade came with the epoch of an order leader that has been replaced; it did not execute."""


class KeyReused(TwstockError):
    """An idempotency key came back with another body; nothing happened.

    ``what`` says whether the key names an order or a change.
    """

    def __init__(self, what: str = "order") -> None:
        super().__init__(f"idempotency key was used with another {what}")


class Unavailable(TwstockError):
    """The request cannot be served now and has had no effect (outcome ``none``)."""


class Forbidden(TwstockError):
    """The caller's certificate does not allow the call; nothing happened."""


class OutcomeUnknown(TwstockError):
    """The request may or may not take effect, once: ask again with the same ``key``, which is
    empty where the key is not known.
    """

    def __init__(self, message: str = "", key: str = "") -> None:
        super().__init__(message)
        self.key = key


class Overloaded(TwstockError):
    """A queue is full; nothing happened. Come back later."""


class NotReceived(TwstockError):
    """A request did not arrive in time; nothing happened."""


class DiskFull(TwstockError):
    """The log has no room left; nothing happened. Reads go on."""


class StorageError(TwstockError):
    """A data directory must not be used as it is; the message names what is lost."""


class CorruptStorage(StorageError):
    """Data that was promised is damaged or gone; the message names the lost range."""


class CorruptTables(CorruptStorage):
    """SQLite's file is damaged. It is never the only copy of a promise: the log, or a
    snapshot and what is left of the log, rebuilds it.
    """


class StorageUnavailable(TwstockError):
    """A file or directory cannot be used now, because the disk is full or failing, say, or another
    process has it. It is not known to be damaged, and a later attempt may succeed.
    """


class WipedStorage(StorageError):
    """The directory is new, but the group knows this member with another incarnation."""


class BrokenInvariant(TwstockError):
    """Something that must never happen has happened: the process has to stop."""


class CannotListen(TwstockError):
    """An address is taken or does not exist on this machine."""
