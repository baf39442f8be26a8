"""A replica's metrics: its place in the group, its disk, and its followers."""

from collections.abc import Iterable, Iterator

from twstock.replication.database import Database
from twstock.replication.driver import Driver
from twstock.replication.member import Member
from twstock.replication.standing import Role
from twstock.replication.writer import Writer
from twstock.tally import Family, Labels, counter, gauge, histogram

_ROLES = ("joining", *(role.value for role in Role))


def replica_families(
    group: str, member: Member, database: Database, peers: Iterable[int]
) -> Iterator[Family]:
    """All metrics, labelled with the group; most of them only when the member takes part."""
    labels = {"group": group}
    yield from _standing(labels, member)
    yield _gauge(
        "twstock_unsaved_entries",
        "Applied entries not saved in SQLite yet.",
        labels,
        database.backlog,
    )
    working = member.working()
    if working is not None:
        driver, writer = working
        yield from _elections(labels, driver)
        yield from _followers(labels, driver, group, peers)
        yield from _disk(labels, writer)


def _standing(labels: Labels, member: Member) -> Iterator[Family]:
    status = member.status()
    yield gauge(
        "twstock_replica_role",
        "1 for the role that the replica has.",
        (({**labels, "role": role}, int(role == status.role)) for role in _ROLES),
    )
    yield _gauge(
        "twstock_replica_leads", "Whether it leads and is ready.", labels, member.is_ready()
    )
    yield _gauge("twstock_replica_term", "The newest term it knows.", labels, status.term)
    yield _gauge(
        "twstock_replica_leader",
        "The id of the leader it knows, 0 for none.",
        labels,
        status.leader_id,
    )
    yield _gauge("twstock_last_index", "The last entry of its log.", labels, status.last_index)
    yield _gauge("twstock_commit_index", "The last committed entry.", labels, status.commit)
    yield _gauge("twstock_applied_index", "The last applied entry.", labels, status.applied)
    yield counter(
        "twstock_transactions_total",
        "The number of the last transaction it knows.",
        [(labels, status.last_transaction)],
    )


def _elections(labels: Labels, driver: Driver) -> Iterator[Family]:
    yield counter(
        "twstock_elections_begun_total",
        "Terms in which it asked for votes.",
        [(labels, driver.elections_begun)],
    )
    yield counter(
        "twstock_elections_won_total",
        "Terms that it has led.",
        [(labels, driver.elections_won)],
    )
    yield counter(
        "twstock_leaders_found_total",
        "How often it found a leader, itself included.",
        [(labels, driver.leaders_found)],
    )


def _followers(
    labels: Labels, driver: Driver, group: str, peers: Iterable[int]
) -> Iterator[Family]:
    replica = driver.replica
    leading = replica.role is Role.LEADER
    yield gauge(
        "twstock_follower_lag_entries",
        "Entries of the leader's log that a follower has not confirmed to have on disk.",
        (
            ({**labels, "follower": f"{group}-{peer}"}, replica.last_index - replica.matched(peer))
            for peer in (peers if leading else ())
        ),
    )
    yield histogram(
        "twstock_append_entries",
        "Entries of one append to a follower.",
        [(labels, driver.append_entries)],
    )
    yield histogram(
        "twstock_commit_seconds",
        "Time from a proposal until a majority has it on disk and it is applied.",
        [(labels, driver.commit_s)],
    )
    yield _gauge(
        "twstock_proposals_waiting",
        "Proposals that are not committed yet.",
        labels,
        driver.proposals,
    )


def _disk(labels: Labels, writer: Writer) -> Iterator[Family]:
    yield histogram(
        "twstock_durable_seconds",
        "Time to make a gathered write durable, fdatasync included.",
        [(labels, writer.durable_s)],
    )
    yield histogram(
        "twstock_write_entries", "Entries of one gathered write.", [(labels, writer.entries)]
    )
    yield _gauge(
        "twstock_writes_waiting", "Writes that wait for the one under way.", labels, len(writer)
    )
    yield _gauge(
        "twstock_write_age_seconds",
        "How long the write under way has taken since it began, or since its last flush.",
        labels,
        writer.waited_s(),
    )
    space = writer.space
    yield _gauge("twstock_log_bytes", "Size of the log.", labels, space.log_bytes)
    yield _gauge("twstock_log_segments", "Segments of the log.", labels, space.segments)
    yield _gauge("twstock_log_segments_free", "Segments made ahead.", labels, space.spares)
    yield _gauge(
        "twstock_log_room_bytes",
        "What one more write can certainly have.",
        labels,
        writer.room_bytes,
    )


def _gauge(name: str, text: str, labels: Labels, value: float) -> Family:
    return gauge(name, text, [(labels, value)])
