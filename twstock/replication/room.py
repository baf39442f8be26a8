"""Room in the log and in messages: what a write takes, and what commands leave for elections.

When the disk is full, commands are refused and nothing else. A write that finds no room ends the
process, and an entry that fits into no message stops the group for good, so the size of entries is
checked before they are stepped or proposed.
"""

from collections.abc import Sequence
from itertools import dropwhile

from twstock.errors import DiskFull, InvalidRequest
from twstock.replication.log import Log
from twstock.replication.messages import Entry, EntryKind
from twstock.replication.records import END_BYTES, ENTRY_OVERHEAD_BYTES

ROOM_KEPT_BYTES = 1024 * 1024
"""A leader takes commands while it has this much room; with less, the disk is logged as full."""

LEADER_LEAVES_BYTES = ROOM_KEPT_BYTES // 2
"""The room that any command has to leave, however large it is: enough for the no-ops of some
thousand elections."""

FOLLOWER_LEAVES_BYTES = ROOM_KEPT_BYTES // 4
"""The room that commands have to leave at a follower: less than at a leader, so that what a leader
has taken fits everywhere, although other batches and segments take a little more."""


def written_bytes(entries: Sequence[Entry]) -> int:
    """The most room that one write of ``entries`` can take, its end marker included."""
    return command_bytes(sum([len(entry.payload) for entry in entries]), len(entries))


def command_bytes(payload_bytes: int, entries: int = 1) -> int:
    """How many bytes a batch takes in the log, given the size of all its payloads and the number
    of its entries; 0 for none.
    """
    return payload_bytes + entries * ENTRY_OVERHEAD_BYTES + END_BYTES if entries else 0


def check_command(payload_bytes: int, piece_bytes_max: int) -> None:
    """Raise InvalidRequest for a command that may be too large to be sent to the others: it would
    stay in the leader's log for ever, and nothing behind it could commit.
    """
    if payload_bytes > piece_bytes_max:
        raise InvalidRequest("command", f"expected at most {piece_bytes_max} bytes")


def takes_commands(room_bytes: int) -> bool:
    """Whether a leader with so much room takes a small command."""
    return room_bytes >= ROOM_KEPT_BYTES


def check_leader(bytes_more: int, room_bytes: int) -> None:
    """Raise DiskFull if a command that takes so many bytes leaves too little room."""
    if room_bytes < max(ROOM_KEPT_BYTES, bytes_more + LEADER_LEAVES_BYTES):
        raise DiskFull("disk full")


def check_follower(entries: Sequence[Entry], log: Log, room_bytes: int) -> None:
    """Raise DiskFull if there is no room for ``entries`` of another replica.

    Those that ``log`` has already are not written again. No-ops may take the room that commands
    have to leave: it is there for them.
    """
    if written_bytes(entries) + FOLLOWER_LEAVES_BYTES <= room_bytes:
        return
    new = list(dropwhile(lambda entry: log.matches(entry.index, entry.term), entries))
    commands = any(entry.kind is EntryKind.COMMAND for entry in new)
    if written_bytes(new) + (FOLLOWER_LEAVES_BYTES if commands else 0) > room_bytes:
        raise DiskFull("disk full")
