"""Whether the settings of a cluster fit together: each may be valid, and yet no member could work.

What is refused here would otherwise stop a cluster later, when nobody thinks of the configuration:
at the first long entry, or in an election.
"""

from typing import TYPE_CHECKING

from twstock.errors import ConfigError
from twstock.market import CALL_ITEMS_MAX, KEY_CHARS_MAX, NAME_CHARS_MAX

if TYPE_CHECKING:
    from twstock.config import Address, Cluster

CACHE_SIZE_MAX = 10_000_000
"""A cache allocates room for all its stocks at once."""
MESSAGE_BYTES_LIMIT = 2**31 - 1
"""gRPC carries no larger message."""
SEGMENT_BYTES_MIN = 4 * 1024 * 1024
"""A smaller segment has no room besides what a full log reserves for elections."""
PROBES_MIN = 8
"""The least number of probes that a front-end sends to the leader in the time after which it counts
as out of reach. A follower gets a third of them, and has to be probed within half of that time."""
HEARTBEATS_MIN = 3
"""The least number of heartbeats in the time after which somebody outside counts as out of reach:
what a follower reports of its reach, with its answers, has to be younger than half of that time.
"""
ENTRY_BYTES = 48
"""The most that an entry of the log takes in a message besides its payload."""
ROW_BYTES = 80 + 4 * NAME_CHARS_MAX + KEY_CHARS_MAX
"""The most that an order, a stock or a change takes in a message: 4 bytes for a character of a name
(UTF-8), one for a character of a key."""


def check(cluster: "Cluster") -> None:
    """Raise ConfigError naming the setting at fault, unless ids are unique in a tier and addresses
    in the cluster, the log and messages have room, and leases end in time.
    """
    limits, timings = cluster.limits, cluster.timings
    if limits.cache_size > CACHE_SIZE_MAX:
        raise ConfigError(f"limits.cache_size: expected at most {CACHE_SIZE_MAX}")
    if limits.segment_bytes < SEGMENT_BYTES_MIN:
        raise ConfigError(f"limits.segment_bytes: expected at least {SEGMENT_BYTES_MIN}")
    if timings.append_bytes_max > limits.segment_bytes // 4:
        # One message is one write, next to the reserve, and entries exceed their payloads.
        raise ConfigError("timings.append_bytes_max: expected at most a fourth of segment_bytes")
    if timings.heartbeat_s >= timings.election_s:
        raise ConfigError("timings.heartbeat_s: expected less than election_s")
    if timings.lease_fraction >= 1:
        raise ConfigError("timings.lease_fraction: expected less than 1: a share of election_s")
    if limits.out_of_reach_s < PROBES_MIN * limits.probe_every_s:
        raise ConfigError(
            f"limits.out_of_reach_s: expected at least {PROBES_MIN} times limits.probe_every_s"
        )
    # 3 times 0.4 is a little more than 1.2 in binary.
    if limits.out_of_reach_s < round(HEARTBEATS_MIN * timings.heartbeat_s, 9):
        raise ConfigError(
            f"limits.out_of_reach_s: expected at least {HEARTBEATS_MIN} times timings.heartbeat_s"
        )
    if limits.cache_lease_s > timings.lease_drain_s:
        raise ConfigError("limits.cache_lease_s: expected no more than timings.lease_drain_s")
    _check_messages(cluster)
    _check_members(cluster)


def _check_messages(cluster: "Cluster") -> None:
    """What is sent in one piece has to fit: a message that is too large would be retried in vain
    for ever. ``Member.propose`` holds every command to the same bound.
    """
    limits, timings = cluster.limits, cluster.timings
    if limits.message_bytes_max > MESSAGE_BYTES_LIMIT:
        raise ConfigError(f"limits.message_bytes_max: expected at most {MESSAGE_BYTES_LIMIT}")
    for name, items in (
        ("limits.batch_orders_max", limits.batch_orders_max),
        ("limits.fetch_entries_max", limits.fetch_entries_max),
        ("timings.append_entries_max", timings.append_entries_max),
    ):
        if items > CALL_ITEMS_MAX:
            raise ConfigError(f"{name}: expected at most {CALL_ITEMS_MAX}")
    entries = max(timings.append_entries_max, limits.fetch_entries_max)
    half = f"half of limits.message_bytes_max, which is {limits.message_bytes_max}"
    needed = {
        f"timings.append_bytes_max: {timings.append_bytes_max} bytes in {entries} entries "
        "(timings.append_entries_max, limits.fetch_entries_max)": timings.append_bytes_max
        + entries * ENTRY_BYTES,
        f"limits.batch_orders_max: {limits.batch_orders_max} orders": limits.batch_orders_max
        * ROW_BYTES,
        f"limits.page_max: {limits.page_max} rows": limits.page_max * ROW_BYTES,
    }
    for what, size in needed.items():
        if size > limits.piece_bytes_max:
            raise ConfigError(f"{what} may take {size} bytes of a message, more than {half}")


def _check_members(cluster: "Cluster") -> None:
    addresses: dict[Address, str] = {}
    for tier, members in (
        ("front", cluster.fronts),
        ("catalog", cluster.catalogs),
        ("order", cluster.orders),
    ):
        ids = [member.id for member in members]
        for number in ids:
            if ids.count(number) > 1:
                raise ConfigError(f"{tier}: id {number} appears twice")
    for front in cluster.fronts:
        _claim(addresses, front.http, f"front-{front.id} http")
        _claim(addresses, front.internal, f"front-{front.id} internal")
    for group in ("catalog", "order"):
        for replica in cluster.replicas(group):
            _claim(addresses, replica.grpc, f"{group}-{replica.id} grpc")


def _claim(addresses: "dict[Address, str]", address: "Address", owner: str) -> None:
    if address in addresses:
        raise ConfigError(f"{owner}: {address} is also the address of {addresses[address]}")
    addresses[address] = owner
