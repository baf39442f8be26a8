"""The metrics of replicas: each number counts what its name says."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.disks import SimulatedDisk
from tests.members import Group
from tests.test_invalidation import LIMITS, Scene
from tests.test_leading import Desk as Scenery
from tests.test_leading import order, place
from tests.test_storage import SEGMENT_BYTES, append, on_disk, settle
from twstock.config import Limits
from twstock.errors import DiskFull, InvalidRequest, KeyReused, NotLeader, Overloaded
from twstock.order.counts import REASONS, OrderCounts
from twstock.order.leading import Leading
from twstock.replication.gauges import replica_families
from twstock.tally import Family


def values(families: Iterable[Family], *wanted: str) -> dict[str, float]:
    """The values of samples by name, followed by the values of the labels ``wanted``."""
    found = {}
    for family in families:
        for name, labels, value in family.samples:
            chosen = [labels[label] for label in wanted if label in labels]
            found[".".join([name, *chosen])] = value
    return found


def told(group: Group, number: int) -> dict[str, float]:
    """What a member tells."""
    member: Any = group.member(number)
    peers = [peer for peer in group.ids if peer != number]
    return values(
        replica_families("order", member, member._equipment.database, peers), "role", "follower"
    )


@pytest.fixture
def group(tmp_path: Path) -> Group:
    """Three members, of which 3 leads and has committed two entries."""
    group = Group(tmp_path)
    group.start()
    group.run_until(lambda: group.leader == 3)
    for word in (b"one", b"two"):
        group.member(3).propose(word)
        group.run(0.1)
    return group


def test_a_leader_tells_how_it_leads(group: Group) -> None:
    """What it has proposed and sent, and how its followers keep up."""
    leader = told(group, 3)
    assert leader["twstock_commit_seconds_count"] == 2
    assert leader["twstock_commit_seconds_sum"] > 0
    # The no-op of the term and two words, to each of two followers.
    assert leader["twstock_append_entries_sum"] == 6
    assert leader["twstock_follower_lag_entries.order-1"] == 0
    assert leader["twstock_proposals_waiting"] == 0
    assert leader["twstock_replica_leads"] == leader["twstock_replica_role.leader"] == 1
    assert leader["twstock_commit_index"] == leader["twstock_last_index"] == 3
    group.network.dead.add(1)
    group.member(3).propose(b"three")
    group.run(0.1)
    assert told(group, 3)["twstock_follower_lag_entries.order-1"] == 1
    assert told(group, 3)["twstock_follower_lag_entries.order-2"] == 0


def test_a_follower_tells_what_it_knows(group: Group) -> None:
    """Its own place, but no lag of others: only a leader knows that."""
    follower = told(group, 1)
    assert follower["twstock_replica_role.follower"] == 1
    assert follower["twstock_replica_role.leader"] == follower["twstock_replica_leads"] == 0
    assert follower["twstock_replica_leader"] == 3
    assert follower["twstock_write_entries_sum"] == follower["twstock_last_index"] == 3
    assert follower["twstock_durable_seconds_count"] == follower["twstock_write_entries_count"]
    assert not any(name.startswith("twstock_follower_lag") for name in follower)


def test_elections_are_counted_by_whom_they_concern(group: Group) -> None:
    """Those that a member began, those that it won, and how often it found a leader."""
    names = [f"twstock_{what}_total" for what in ("elections_begun", "elections_won")]
    assert [told(group, 3)[name] for name in names] == [1, 1]
    assert [told(group, 1)[name] for name in names] == [0, 0]
    group.kill(3)
    group.run_until(lambda: group.leader == 2)
    group.run(0.2)
    assert [told(group, 2)[name] for name in names] == [1, 1]
    assert [told(group, 1)[name] for name in names] == [0, 0]
    assert told(group, 1)["twstock_leaders_found_total"] == 2


def test_a_group_of_one_elects_itself(tmp_path: Path) -> None:
    """That counts as an election, although nobody is asked."""
    alone = Group(tmp_path, 1)
    alone.start()
    alone.run_until(lambda: alone.leader == 1)
    assert told(alone, 1)["twstock_elections_begun_total"] == 1
    assert told(alone, 1)["twstock_elections_won_total"] == 1


def test_a_member_that_waits_for_others_tells_so(tmp_path: Path) -> None:
    """It takes no part yet, so it has no metrics of a disk or of followers."""
    group = Group(tmp_path)
    group.start(1)
    group.run(0.5)
    waiting = told(group, 1)
    assert waiting["twstock_replica_role.joining"] == 1
    assert "twstock_durable_seconds_count" not in waiting


def test_the_space_of_a_log_is_the_same_after_a_restart() -> None:
    """The number of segments and their bytes, which grow with every write."""
    disk = SimulatedDisk()
    storage = on_disk(disk, spares=2)
    storage.open()
    settle(storage)
    assert storage.space()[::2] == (1, 2)
    sizes = [storage.space().log_bytes]
    for index in range(1, 60):
        storage.write([append(index, index, payload=b"x" * 200)])
        settle(storage)
        sizes.append(storage.space().log_bytes)
    space = storage.space()
    assert sizes == sorted(set(sizes))
    assert space.segments > 3
    assert (space.segments - 1) * 0.5 < space.log_bytes / SEGMENT_BYTES <= space.segments
    storage.close()
    storage.open()
    assert storage.space()[:2] == space[:2]


def leading(scenery: Scenery, counts: OrderCounts, **limits: int) -> Leading:
    """An order leader that counts."""
    rest = (lambda: 1000, scenery.panics.append, counts)
    made = Leading(1, scenery.orders, scenery.catalog, scenery.clock, Limits(**limits), *rest)
    made.start()
    return made


def test_an_order_leader_counts_batches_and_what_it_did_not_execute() -> None:
    """Each order counts once, whether it is executed or not."""
    scenery, counts = Scenery(), OrderCounts()
    leader = leading(scenery, counts)
    place(leader, order("a"))
    place(leader, order("b", 101))
    place(leader, order("a", 7))
    found = values(counts.families(leader.orders_open), "reason")
    assert found["twstock_batch_orders_count"] == found["twstock_batch_seconds_count"] == 2
    assert found["twstock_batch_orders_sum"] == 2
    assert found["twstock_order_refusals_total.refused"] == 1
    assert found["twstock_order_refusals_total.key_reused"] == 1
    assert found["twstock_orders_open"] == 0


def test_orders_that_a_full_catalog_gives_back_are_counted() -> None:
    """Each order of the batch is counted, with the reason."""
    scenery, counts = Scenery(), OrderCounts()
    leader = leading(scenery, counts)
    scenery.catalog.refuse = DiskFull("disk full")
    place(leader, order("a"))
    found = values(counts.families(0), "reason")
    assert found["twstock_order_refusals_total.disk_full"] == 1
    assert found["twstock_batch_orders_count"] == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "refused"),
        (KeyReused(), "key_reused"),
        (InvalidRequest("name", "bad"), "invalid"),
        (Overloaded("full"), "overloaded"),
        (DiskFull("full"), "disk_full"),
        (NotLeader(), "unavailable"),
    ],
)
def test_each_refusal_has_a_reason(error: Any, reason: str) -> None:
    """The reasons are a fixed list."""
    counts = OrderCounts()
    counts.refused(error)
    found = values(counts.families(0), "reason")
    refused = {r: found[f"twstock_order_refusals_total.{r}"] for r in REASONS}
    assert refused == {r: int(r == reason) for r in REASONS}


def test_a_catalog_leader_counts_invalidations_and_how_long_they_took() -> None:
    """From the trade until no cache hides it; failed calls are counted, too."""
    scene = Scene()
    scene.look_up(1, "A", "B")
    done = scene.publish(A=1, B=1)
    waiting = values(scene.publisher.families())
    assert waiting["twstock_publications_waiting"] == 1
    scene.http.answer(0, code=500)
    scene.clock.advance(LIMITS.retry_s)
    scene.clock.advance(0.01)
    scene.http.answer(0)
    assert done == [None]
    found = values(scene.publisher.families())
    assert found["twstock_publications_waiting"] == 0
    assert found["twstock_publish_seconds_count"] == 1
    assert found["twstock_publish_seconds_sum"] == pytest.approx(LIMITS.retry_s + 0.01)
    assert found["twstock_invalidation_seconds_count"] == 1
    assert found["twstock_invalidation_seconds_sum"] == pytest.approx(0.01)
    assert found["twstock_invalidated_stocks_total"] == 2
    assert found["twstock_invalidations_failed_total"] == 1
