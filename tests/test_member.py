"""A member: a replica with a clock, a disk and a network."""

import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from tests import members
from tests.members import STEP_S, Group, Words
from tests.memory import MemoryStorage
from twstock.config import DEFAULT_TIMINGS, Limits
from twstock.errors import (
    BrokenInvariant,
    CorruptTables,
    DiskFull,
    InvalidRequest,
    NotLeader,
    OutcomeUnknown,
    StorageUnavailable,
    Unavailable,
    WipedStorage,
)
from twstock.replication.compaction import TermRun
from twstock.replication.driver import TERMS_AHEAD_MAX
from twstock.replication.member import Member
from twstock.replication.messages import (
    AppendEntries,
    AppendReply,
    Committed,
    Entry,
    EntryKind,
    Request,
    Transfer,
    VoteRequest,
)
from twstock.replication.peercalls import STRANGER_CHARS_MAX
from twstock.replication.room import FOLLOWER_LEAVES_BYTES, ROOM_KEPT_BYTES
from twstock.replication.snapshots import Snapshots, name
from twstock.rpc.calls import Envelope, Fetch, FetchSnapshot, Peer, SnapshotPiece


@pytest.fixture
def group(tmp_path: Path) -> Group:
    """Three members, started."""
    group = Group(tmp_path)
    group.start()
    return group


def propose(group: Group, word: bytes = b"x") -> object:
    """Propose at the leader; returns the result, or the Failure."""
    results: list[object] = []
    group.member(group.leader).propose(word).addBoth(results.append)
    group.run_until(lambda: bool(results))
    return results[0]


def failure_of(deferred: Deferred[object]) -> list[Failure]:
    """A list that gets the Failure of a Deferred."""
    failures: list[Failure] = []
    deferred.addErrback(failures.append)
    return failures


def test_highest_id_leads_a_new_group(group: Group) -> None:
    """A new group forms, and its highest id leads."""
    group.run_until(lambda: group.leader != 0)
    assert group.leader == 3
    assert all(storage.open().formed for storage in group.storages.values())


def test_a_proposal_has_its_result_and_is_applied_by_all(group: Group) -> None:
    """The result is what the leader's state machine returns; every member applies the command."""
    group.run_until(lambda: group.leader == 3)
    assert propose(group, b"one") == 1
    assert propose(group, b"two") == 2
    group.run(0.3)
    assert [group.member(i).machine.words for i in group.ids] == [[b"one", b"two"]] * 3


def test_highest_survivor_leads_and_nothing_is_lost(group: Group) -> None:
    """When the leader dies, the highest surviving id leads, with everything acknowledged."""
    group.run_until(lambda: group.leader == 3)
    propose(group, b"kept")
    group.kill(3)
    group.run_until(lambda: group.leader == 2, 1.0)
    assert group.member(2).machine.words == [b"kept"]


def test_a_tier_is_told_when_it_leads_and_what_is_saved(group: Group) -> None:
    """The leader's tier is told when leadership begins and ends, and the tier of each member what
    the tables have saved.
    """
    group.run_until(lambda: group.leader == 3)
    first, follower = group.member(3).term(), group.seats[1]
    propose(group, b"kept")
    group.run(0.3)
    assert [seat.saved_index for seat in group.seats.values()] == [2, 2, 2]
    group.member(3).resign()
    assert group.seats[3].told == [f"leads {first}", "leads no more"]
    assert follower.told == []


def test_nomination_of_a_dead_leader_elects_at_once(group: Group) -> None:
    """A nominee whose leader's process is gone campaigns without waiting for a time-out."""
    group.run_until(lambda: group.leader == 3)
    group.kill(3)
    Deferred.fromCoroutine(group.member(2).nominate(2))
    assert group.run_until(lambda: group.leader == 2) < 0.1


def test_nomination_while_the_leader_lives_changes_nothing(group: Group) -> None:
    """A nomination is only a hint: the nominee checks itself whether the leader is gone."""
    group.run_until(lambda: group.leader == 3)
    term = group.member(3).term()
    Deferred.fromCoroutine(group.member(2).nominate(2))
    Deferred.fromCoroutine(group.member(3).nominate(2))
    group.run(1.0)
    assert (group.leader, group.member(3).term()) == (3, term)


def test_returning_highest_id_catches_up_and_leads_again(group: Group) -> None:
    """The highest id pulls what it missed, and is given the lead once it has been stable for a
    while.
    """
    group.run_until(lambda: group.leader == 3)
    group.kill(3)
    group.run_until(lambda: group.leader == 2)
    for number in range(20):
        propose(group, b"%d" % number)
    group.start(3)
    group.run_until(lambda: group.leader == 3, 6.0)
    assert len(group.member(3).machine.words) == 20


def test_a_leader_that_is_not_ready_says_why(group: Group) -> None:
    """A leader that was just elected has to commit what it found in its log first; its status says
    so.
    """
    reasons = set()

    def is_ready() -> bool:
        statuses = [member.status() for member in group.network.members.values()]
        reasons.update(s.reason for s in statuses if s.role == "leader" and not s.ready)
        return group.leader != 0

    group.run_until(is_ready)
    assert reasons == {"what it found in its log is not committed yet"}
    assert group.member(group.leader).status().reason == ""


def test_no_majority_gives_no_result_and_no_lie(group: Group) -> None:
    """Without a majority a proposal has an unknown outcome, and the leader steps down."""
    group.run_until(lambda: group.leader == 3)
    group.kill(1)
    group.kill(2)
    failures = failure_of(group.member(3).propose(b"lost?"))
    group.run(1.5)
    assert failures[0].check(OutcomeUnknown)
    assert not group.member(3).is_ready()
    with pytest.raises(NotLeader):
        group.member(3).propose(b"more")


def test_only_a_leader_that_nobody_can_have_replaced_may_read(group: Group) -> None:
    """A follower says who leads. A leader that hears nobody refuses reads before another one can
    lead.
    """
    group.run_until(lambda: group.leader == 3)
    group.run(0.1)
    group.member(3).check_lease()
    with pytest.raises(NotLeader):
        group.member(2).check_lease()
    group.network.cut |= {(3, 1), (3, 2)}
    group.run_until(lambda: group.clock.seconds() >= group.member(3).lease_until())
    group.member(3).check_leads()
    with pytest.raises(Unavailable, match="has not heard a majority"):
        group.member(3).check_lease()
    assert not group.member(2).is_ready()


def test_whole_group_restarts_with_everything(group: Group) -> None:
    """After all members died at the same time, the group has everything that was acknowledged."""
    group.run_until(lambda: group.leader == 3)
    propose(group, b"a")
    for number in group.ids:
        group.kill(number)
    group.start()
    group.run_until(lambda: group.leader != 0)
    assert propose(group, b"b") == 2


def test_wiped_member_refuses_to_start(group: Group) -> None:
    """A member with a new directory does not start, because the others know it by another
    incarnation.
    """
    group.run_until(lambda: group.leader == 3)
    group.kill(1)
    group.storages[1] = MemoryStorage(incarnation=999)
    group.start(1)
    group.run(1.0)
    assert isinstance(group.refusals[0][1], WipedStorage)
    assert not group.storages[1].open().formed


def test_members_with_two_configurations_do_not_form(tmp_path: Path) -> None:
    """Members that are configured with different groups do not start: 1 and 2 would elect one of
    them, 3, 4 and 5 another one.
    """
    group = Group(tmp_path, size=5)
    group.configured[1] = group.configured[2] = (1, 2, 3)
    group.start()
    group.run(1.0)
    assert group.leader == 0
    assert {number for number, _ in group.refusals} == {1, 2, 3, 4, 5}
    assert r"-1 is in a group of [1, 2, 3], order-3 in one of [1, 2, 3, 4, 5]" in " ".join(
        str(error) for _, error in group.refusals
    )
    assert not any(storage.open().formed for storage in group.storages.values())


def test_new_group_waits_for_all_its_members(tmp_path: Path) -> None:
    """A new group has no leader until every member was heard once; the status names who is
    missing.
    """
    group = Group(tmp_path)
    group.start(1, 2)
    group.run(2.0)
    assert group.leader == 0
    assert "order-3" in group.member(1).status().reason
    group.start(3)
    group.run_until(lambda: group.leader == 3)


def test_member_that_has_not_opened_its_disk_is_not_learnt(tmp_path: Path) -> None:
    """While a member's disk is slow to open, the others do not take a wrong incarnation for its
    own.
    """
    group = Group(tmp_path)
    group.threads[3].delay_s = 0.5
    group.start()
    group.run(0.3)
    group.threads[3].delay_s = 0.0005
    group.run_until(lambda: group.leader == 3)
    for number, storage in group.storages.items():
        peers = {i: 100 + i for i in group.ids if i != number}
        assert dict(storage.open().peers) == peers


def test_single_member_leads_after_its_own_write(tmp_path: Path) -> None:
    """A group of one answers a proposal when the entry is on its own disk, and not before."""
    group = Group(tmp_path, size=1)
    group.start()
    group.run_until(lambda: group.leader == 1)
    group.threads[1].delay_s = 0.2
    results: list[object] = []
    group.member(1).propose(b"x").addCallback(results.append)
    group.run(0.15)
    assert results == []
    group.run(0.1)
    assert results == [1]


@pytest.mark.parametrize("flush_s", [0.019, 0.021, 0.1, 0.45])
def test_single_member_leads_however_slow_its_disk_is(tmp_path: Path, flush_s: float) -> None:
    """A single member does not campaign again before its vote is on disk, so it leads in term 1."""
    group = Group(tmp_path, size=1)
    group.threads[1].delay_s = flush_s
    group.start()
    group.run_until(lambda: group.leader == 1)
    assert group.member(1).term() == 1


def test_acknowledgement_waits_for_a_followers_disk(group: Group) -> None:
    """A proposal is answered when a second disk has the entry, however fast the network is."""
    group.run_until(lambda: group.leader == 3)
    group.threads[1].delay_s = group.threads[2].delay_s = 0.2
    results: list[object] = []
    group.member(3).propose(b"x").addCallback(results.append)
    group.run(0.15)
    assert results == []
    group.run(0.2)
    assert results == [1]


def test_hung_disk_makes_the_leader_step_down(group: Group) -> None:
    """A leader whose disk hangs steps down, and another one serves (hashicorp/raft 503)."""
    group.run_until(lambda: group.leader == 3)
    group.threads[3].delay_s = 60.0
    failure_of(group.member(3).propose(b"stuck"))
    group.run_until(lambda: group.leader == 2, 2.0)
    assert propose(group, b"goes on") is not None


def test_a_single_member_leads_on_while_its_disk_hangs(tmp_path: Path) -> None:
    """Nobody could replace it, and some of what it is asked needs no disk: lookups in the catalog,
    for instance.
    """
    group = Group(tmp_path, size=1)
    group.start()
    group.run_until(lambda: group.leader == 1)
    group.threads[1].delay_s = 3.0
    results: list[object] = []
    group.member(1).propose(b"x").addCallback(results.append)
    group.run(2.5)
    assert results == []
    group.member(1).check_lease()
    group.run(1.0)
    assert (results, group.seats[1].told) == ([1], ["leads 1"])


def test_a_follower_whose_disk_hangs_keeps_no_more_entries(group: Group) -> None:
    """It answers heartbeats, so its leader sends it entries again and again, of which no more and
    more are kept. When the disk returns it catches up.
    """
    group.run_until(lambda: group.leader == 3)
    group.run(0.3)
    driver, writer = group.member(1)._taking_part().driver, group.member(1)._taking_part().writer
    stuck: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
    group.threads[1].callInThread = lambda *call: stuck.append((call[0], call[1:]))  # type: ignore[method-assign]
    waiting = []
    for _ in range(20):
        failure_of(group.member(3).propose(bytes(20_000)))
        group.run(0.5)
        waiting.append(len(driver._answers))
    assert max(waiting[2:]) <= max(waiting[:2]) <= 2
    assert group.member(1).leader_id() == 3
    assert len(group.member(3).machine.words) == 20
    del group.threads[1].callInThread
    for function, arguments in stuck:
        function(*arguments)
    group.run_until(lambda: len(group.member(1).machine.words) == 20)
    assert (writer.waited_s(), group.panics) == (0.0, [])


def test_a_member_whose_vote_hangs_keeps_nothing_that_it_cannot_answer(group: Group) -> None:
    """While its vote cannot be written, the heartbeats that it cannot answer do not pile up."""
    group.run_until(lambda: group.leader == 3)
    group.run(0.3)
    driver = group.member(1)._taking_part().driver
    stuck: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
    group.threads[1].callInThread = lambda *call: stuck.append((call[0], call[1:]))  # type: ignore[method-assign]
    group.kill(3)
    group.run(1.0)
    group.start(3)
    group.run_until(lambda: group.leader != 0)
    waiting = []
    for _ in range(5):
        group.run(2.0)
        waiting.append(len(driver._answers) + len(driver._held))
    assert waiting == waiting[:1] * 5
    del group.threads[1].callInThread
    for function, arguments in stuck:
        function(*arguments)
    group.run_until(lambda: group.member(1).leader_id() == 3)
    group.run(0.5)
    assert (len(driver._answers), group.panics) == (0, [])


def test_full_disks_refuse_commands_and_the_leader_keeps_the_lead(tmp_path: Path) -> None:
    """Without room proposals fail with DiskFull, and the leader stays."""
    group = Group(tmp_path)
    for full in (1, 3):
        group.storages[full] = MemoryStorage(100 + full, ROOM_KEPT_BYTES, window_bytes=0)
    group.start()
    group.run_until(lambda: group.leader == 3)
    with pytest.raises(DiskFull):
        group.member(3).propose(b"x")
    group.run(5.0)
    assert group.leader == 3


def test_a_leader_takes_no_command_that_the_disks_of_others_could_not_have(tmp_path: Path) -> None:
    """The outcome of a command that a majority has no room for stays open until they have room, so
    no further command is taken. One follower with room is enough, as long as it runs.
    """
    group = Group(tmp_path)
    for full in (1, 2):
        group.storages[full] = MemoryStorage(100 + full, FOLLOWER_LEAVES_BYTES, window_bytes=0)
    group.start()
    group.run_until(lambda: group.leader == 3)
    results: list[object] = []
    group.member(3).propose(b"in doubt").addCallback(results.append)
    for _ in range(30):
        group.run(0.1)
        with pytest.raises(DiskFull):
            group.member(3).propose(b"x")
    group.storages[1]._room += ROOM_KEPT_BYTES
    group.member(1)._taking_part().writer._settle_at = 0.0
    group.run(1.5)
    assert results == [1]
    assert propose(group, b"x") == 2
    group.kill(1)
    group.run(1.0)
    with pytest.raises(DiskFull):
        group.member(3).propose(b"y")
    assert (group.leader, group.panics) == (3, [])


def test_a_leader_whose_disk_is_full_lets_another_take_commands(tmp_path: Path) -> None:
    """It gives the lead to another member that has room; that one and a third are a majority."""
    group = Group(tmp_path)
    group.storages[3] = MemoryStorage(103, ROOM_KEPT_BYTES, window_bytes=0)
    group.start()
    group.run_until(lambda: group.leader == 3)
    group.run_until(lambda: group.leader == 2)
    assert propose(group, b"goes on") is not None


def appends_to(member: Member) -> list[AppendEntries]:
    """A list that gets the appends with entries that a member receives from now on."""
    appends: list[AppendEntries] = []
    real = member.receive

    async def receive(envelope: Envelope) -> object:
        if isinstance(message := envelope.message, AppendEntries) and message.entries:
            appends.append(message)
        return await real(envelope)

    member.receive = receive  # type: ignore[method-assign]
    return appends


def test_a_follower_whose_disk_hangs_is_not_flooded(group: Group) -> None:
    """It is sent the entries that it does not take once in an append time-out, and not after each
    heartbeat.
    """
    group.run_until(lambda: group.leader == 3)
    group.run(0.5)
    appends = appends_to(group.member(1))
    group.threads[1].callInThread = lambda *_: None  # type: ignore[method-assign]
    assert propose(group, b"kept by 2 and 3") == 1
    group.run(5.0)
    assert 4 <= len(appends) <= 7


def test_full_follower_is_not_flooded(group: Group) -> None:
    """A follower without room is tried once in an append time-out, and catches up when it has
    room.
    """
    group.run_until(lambda: group.leader == 3)
    group.run(0.5)
    part = group.member(1)._part
    assert part is not None
    part.writer._room_bytes = group.storages[1]._room = 0
    appends = appends_to(group.member(1))
    assert propose(group, b"refused by 1") == 1
    group.run(5.0)
    assert 4 <= len(appends) <= 6
    part.writer._room_bytes = group.storages[1]._room = ROOM_KEPT_BYTES
    group.run(2 * DEFAULT_TIMINGS.append_timeout_s)
    assert group.member(1).machine.words == [b"refused by 1"]
    assert group.panics == []


def test_member_whose_disk_is_full_gets_no_lead(tmp_path: Path) -> None:
    """A member with room goes on leading, also after an election. When the disk has room again its
    member gets the lead.
    """
    group = Group(tmp_path)
    group.start()
    group.run_until(lambda: group.leader == 3)
    group.kill(3)
    group.run_until(lambda: group.leader == 2)
    group.storages[3]._room = ROOM_KEPT_BYTES - 1
    group.start(3)
    group.run(5.0)
    assert propose(group, b"taken by 2") == 1
    group.kill(2)
    group.run_until(lambda: group.leader != 0, 1.0)
    assert propose(group, b"taken by 1") == 2
    group.storages[3]._room = 2 * ROOM_KEPT_BYTES
    propose(group, b"written, and room is found")
    group.run_until(lambda: group.leader == 3)


@pytest.mark.parametrize("way", ["hand-over", "election"])
def test_member_without_tables_leads_when_it_has_applied_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Another member serves until it has, so that nobody has to wait."""
    few = replace(DEFAULT_TIMINGS, append_entries_max=2)  # as many are applied at once, too
    monkeypatch.setattr(members, "DEFAULT_TIMINGS", few)
    group = Group(tmp_path)
    group.start()
    group.run_until(lambda: group.leader == 3)
    results: list[object] = []
    for number in range(1000):
        group.member(3).propose(b"%d" % number).addBoth(results.append)
    group.run_until(lambda: len(results) == 1000, 10.0)
    group.run(0.5)
    group.kill(3)
    group.run_until(lambda: group.leader == 2)
    group.start(3)
    if way == "election":
        group.run(1.0)
        group.kill(2)
        group.run_until(lambda: group.leader == 1, 1.0)
    while group.leader != 3:
        group.run(STEP_S)
        assert group.run_until(lambda: group.leader != 0, 10.0) < 0.1
    assert group.member(3).machine.words == group.member(1).machine.words


def test_a_command_that_no_message_could_bring_to_the_others_is_refused(group: Group) -> None:
    """In the leader's log it would be sent in vain for ever, also after restarts. The largest
    command that fits into a message is committed.
    """
    group.run_until(lambda: group.leader == 3)
    most, before = group.limits.piece_bytes_max, group.member(3).status().last_index
    with pytest.raises(InvalidRequest, match=f"command: expected at most {most} bytes"):
        group.member(3).propose(bytes(most + 1))
    assert group.member(3).status().last_index == before
    assert propose(group, bytes(most)) == 1
    group.run(0.5)
    assert [len(member.machine.words) for member in group.network.members.values()] == [1, 1, 1]


def test_failed_write_ends_the_process(group: Group) -> None:
    """An I/O error of the log is a panic."""
    group.run_until(lambda: group.leader == 3)

    def broken(_writes: object) -> None:
        raise OSError(5, "Input/output error")

    group.storages[3].write = broken  # type: ignore[method-assign]
    failure_of(group.member(3).propose(b"x"))
    group.run(0.1)
    assert group.panics[0][0] == 3
    assert group.panics[0][1].check(OSError)


@pytest.mark.parametrize(
    "wrong", [{"group": "catalog"}, {"cluster_id": "other"}, {"incarnation": 1}, {"id": 9}]
)
def test_message_of_a_stranger_is_refused(group: Group, wrong: dict[str, object]) -> None:
    """A message from another group, cluster, incarnation or id is refused, and changes nothing."""
    group.run_until(lambda: group.leader == 3)
    peer = replace(Peer("order", "test", 3, 103), **wrong)  # type: ignore[arg-type]
    message = AppendEntries(peer.id, 1, 2**60, 0, 0, 0)
    receiving = Deferred.fromCoroutine(group.member(1).receive(Envelope(peer, message)))
    assert failure_of(receiving)[0].check(InvalidRequest)
    fetching = Deferred.fromCoroutine(group.member(1).fetch(Fetch(peer, 0)))
    assert failure_of(fetching)[0].check(InvalidRequest)
    assert group.member(1).term() < 2**60


def test_strangers_are_told_of_once_and_in_brief(group: Group) -> None:
    """The log tells of each stranger once, and only the beginning of its name: a name may fill a
    message.
    """
    group.run_until(lambda: group.leader == 3)
    with capturedLogs() as logged:
        for _ in range(2):
            for cluster_id in ("x" * 1_000_000, "y" * 1_000_000):
                fetch = Fetch(Peer("z" * 1_000_000, cluster_id, 1, 1), 0)
                refused = failure_of(Deferred.fromCoroutine(group.member(2).fetch(fetch)))
                assert refused[0].check(InvalidRequest)
    short = [Peer("z" * STRANGER_CHARS_MAX, letter * STRANGER_CHARS_MAX, 1, 1) for letter in "xy"]
    assert [event["peer"] for event in logged] == short


ABSURD = 2**63 - 1
WRONG = Entry(3, ABSURD, EntryKind.COMMAND, b"x")
UNBELIEVABLE: list[Request] = [
    AppendEntries(2, 1, ABSURD, 0, 0, 0, sequence=1),
    AppendEntries(2, 1, 2, 2, 1, 0, (WRONG,), sequence=1),
    VoteRequest(2, 1, ABSURD, 9, 1, pre_vote=True, sequence=1),
    VoteRequest(2, 1, ABSURD, 9, 1, transfer=True, sequence=1),
    Transfer(2, 1, ABSURD, sequence=1),
]


def terms(group: Group) -> list[int]:
    """The highest term that each member's disk holds, as promised or in its last entry."""
    loaded = [storage.open() for storage in group.storages.values()]
    return [max(found.hard_state.term, found.log.last_term) for found in loaded]


def test_absurd_term_of_a_known_peer_is_refused(group: Group) -> None:
    """If such a term were believed once all members would keep it, and no message could carry the
    next one.
    """
    group.run_until(lambda: group.leader == 3)
    propose(group)
    peer, refused = Peer("order", "test", 2, 102), []
    with capturedLogs() as logged:
        for message in UNBELIEVABLE * 2:
            receiving = Deferred.fromCoroutine(group.member(1).receive(Envelope(peer, message)))
            refused += failure_of(receiving)
            group.run(0.01)
    assert [failure.type for failure in refused] == [InvalidRequest] * 10
    assert [event["peer"] for event in logged] == ["order-2"]
    group.run(1.0)
    assert (group.leader, terms(group), group.panics) == (3, [1, 1, 1], [])


def test_absurd_term_of_an_answer_is_not_believed(group: Group) -> None:
    """Neither entries that are pulled at a start nor a reply lead into such a term."""
    group.run_until(lambda: group.leader == 3)
    propose(group)
    group.kill(1)
    propose(group)
    asked: list[object] = []

    async def fetch(_fetch: Fetch) -> Committed:
        asked.append(_fetch)
        return Committed(2, 0, ABSURD, 2, 1, 3, (replace(WRONG, term=1),))

    async def receive(envelope: Envelope) -> Any:
        asked.append(envelope)
        return AppendReply(2, 3, ABSURD, False, 0)

    group.member(2).fetch = fetch  # type: ignore[method-assign]
    group.member(2).receive = receive  # type: ignore[method-assign]
    group.start(1)
    group.run(0.5)
    assert {Fetch, Envelope} <= set(map(type, asked))
    assert (group.leader, terms(group), group.panics) == (3, [1, 1, 1], [])
    assert group.member(1).machine.words == [b"x", b"x"]


def test_member_that_was_away_for_many_terms_follows(group: Group) -> None:
    """A term that is as far ahead as elections can have led to is believed."""
    group.run_until(lambda: group.leader == 3)
    peer = Peer("order", "test", 2, 102)
    far = AppendEntries(2, 1, 1 + TERMS_AHEAD_MAX, 0, 0, 0)
    Deferred.fromCoroutine(group.member(1).receive(Envelope(peer, far)))
    assert group.member(1).term() == 1 + TERMS_AHEAD_MAX
    group.run_until(lambda: group.leader == 3 and group.member(3).term() > TERMS_AHEAD_MAX)


def test_different_state_at_the_same_index_stops_the_process(group: Group) -> None:
    """A digest that differs from the leader's is a broken invariant."""
    group.run_until(lambda: group.leader == 3)
    propose(group, b"a")
    group.run(0.2)
    group.member(1).machine.digest = b"rot"
    propose(group, b"b")
    group.run(0.2)
    assert any(number == 1 and f.check(BrokenInvariant) for number, f in group.panics)


def test_stopping_leader_hands_over_first(group: Group) -> None:
    """A leader that is stopped gives the lead to a member that is caught up, so there is another
    leader at once.
    """
    group.run_until(lambda: group.leader == 3)
    stopped: list[object] = []
    stopping = group.member(3)
    stopping.stopService().addCallback(stopped.append)
    group.run_until(lambda: bool(stopped))
    assert group.run_until(lambda: group.member(2).is_ready(), 1.0) < 0.1


def test_stopping_with_writes_in_the_queue_is_no_failure(tmp_path: Path) -> None:
    """What is still queued when a member stops was never acknowledged. It is not written, and
    nothing fails.
    """
    group = Group(tmp_path, size=1)
    group.start()
    group.run_until(lambda: group.leader == 1)
    group.threads[1].delay_s = 0.05
    writes: list[str] = []
    storage = group.storages[1]
    storage.close = lambda: writes.append("close")  # type: ignore[method-assign]
    real = storage.write
    storage.write = lambda w: (writes.append("write"), real(w))[1]  # type: ignore[method-assign]
    for word in (b"a", b"b"):
        failure_of(group.member(1).propose(word))
    group.member(1).stopService()
    group.run(0.5)
    assert writes == ["write", "close"]
    assert group.panics == []


def test_a_stopping_member_saves_and_closes_what_is_applied(tmp_path: Path) -> None:
    """The database has everything that was applied, and is closed."""
    group = Group(tmp_path, size=1)
    group.start()
    group.run_until(lambda: group.leader == 1)
    propose(group)
    member = group.member(1)
    applied = member.status().applied
    stopped: list[object] = []
    member.stopService().addCallback(stopped.append)
    group.run_until(lambda: bool(stopped))
    (path,) = tmp_path.iterdir()  # no write-ahead log: it is closed
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT position FROM applied").fetchone() == (applied,)
    connection.close()


def test_a_member_that_is_stopped_at_once_opens_nothing(tmp_path: Path) -> None:
    """A member that is stopped before it has opened its database leaves no file, and does not count
    as started.
    """
    group = Group(tmp_path, size=1)
    group.start()
    group.member(1).stopService()
    group.run(0.1)
    assert list(tmp_path.iterdir()) == []
    assert not group.member(1).has_started()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("no such word"), CorruptTables),
        (sqlite3.OperationalError("disk I/O error"), StorageUnavailable),
    ],
    ids=["damaged", "not now"],
)
def test_applied_state_that_cannot_be_loaded_is_told_to_the_operator(
    tmp_path: Path, error: Exception, kind: type[Exception]
) -> None:
    """It is a refusal in words, and no panic: damage for good, or an I/O error that may pass."""

    def load(_connection: object, _digest: bytes) -> Words:
        if isinstance(error, sqlite3.Error):
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    group = Group(tmp_path, size=1)
    group.load = load
    group.start()
    group.run(0.1)
    ((number, refused),) = group.refusals
    assert (number, type(refused), group.panics) == (1, kind, [])
    assert str(error) in str(refused)


def test_before_it_runs_a_member_is_unavailable(tmp_path: Path) -> None:
    """A member that has not opened its disk yet refuses proposals, with the reason."""
    group = Group(tmp_path, limits=Limits())
    group.start(1)
    with pytest.raises(Unavailable, match="starting"):
        group.member(1).propose(b"x")
    assert group.member(1).status().role == "joining"


PIECE_BYTES = DEFAULT_TIMINGS.append_bytes_max
LOST = Peer("order", "test", 3, 103)
"""As a member that pulls what it has lost from the others names itself."""


def asked(group: Group, answer: Coroutine[Any, Any, Any]) -> Any:
    """What a member answers, or the error with which it fails."""
    answers: list[Any] = []
    Deferred.fromCoroutine(answer).addBoth(answers.append)
    group.run_until(lambda: bool(answers))
    return answers[0].value if isinstance(answers[0], Failure) else answers[0]


def test_entries_that_were_dropped_are_refused(group: Group) -> None:
    """Whoever asks for entries that are no longer in the log gets an error that says so; it is no
    panic.
    """
    group.run_until(lambda: group.leader == 3)
    for word in (b"a", b"b", b"c"):
        propose(group, word)
    group.run(0.2)
    member = group.member(1)
    assert member.status().first_index == 1
    assert len(asked(group, member.fetch(Fetch(LOST, 0))).entries) == 4
    member._taking_part().replica.log.release(2)
    assert member.status().first_index == 3
    for after in (0, 1):
        refused = asked(group, member.fetch(Fetch(LOST, after)))
        assert isinstance(refused, Unavailable)
        assert "before 3 are no longer in the log" in str(refused)
    assert [e.index for e in asked(group, member.fetch(Fetch(LOST, 2))).entries] == [3, 4]
    assert group.panics == []


def with_snapshots(group: Group, directory: Path) -> Snapshots:
    """Give member 1 two snapshots, each so large that it takes three pieces."""
    made = Snapshots(directory, bytes(16))
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE state (content)")
        connection.execute("INSERT INTO state VALUES (randomblob(?))", (2 * PIECE_BYTES,))
        for index in (7, 9):
            made.make(connection, index, [TermRun(1, 1)])
    group.member(1)._equipment.database.snapshots = made
    return made


def test_a_snapshot_is_told_in_pieces(group: Group, tmp_path: Path) -> None:
    """The newest snapshot is given; whoever has begun with an older one gets the rest of that."""
    group.run_until(lambda: group.leader == 3)
    member = group.member(1)
    with_snapshots(group, tmp_path)
    for index in (9, 7):
        content = (tmp_path / name(index)).read_bytes()
        told = b""
        while len(told) < len(content):
            named = index if told or index == 7 else 0
            piece = asked(group, member.fetch_snapshot(FetchSnapshot(LOST, named, len(told))))
            assert (piece.index, piece.size) == (index, len(content))
            assert 0 < len(piece.content) <= PIECE_BYTES
            told += piece.content
        assert told == content
        end = asked(group, member.fetch_snapshot(FetchSnapshot(LOST, index, len(content))))
        assert end == SnapshotPiece(index, len(content), b"")


def test_a_snapshot_that_is_not_there_is_refused(group: Group, tmp_path: Path) -> None:
    """A snapshot that is damaged, gone or unreadable is refused, and so is a request by a
    stranger.
    """
    group.run_until(lambda: group.leader == 3)
    member = group.member(1)

    def first(fetch: FetchSnapshot) -> Any:
        answer = asked(group, member.fetch_snapshot(fetch))
        return answer.index if isinstance(answer, SnapshotPiece) else type(answer)

    newest = FetchSnapshot(LOST)
    assert first(newest) is Unavailable
    with_snapshots(group, tmp_path)
    assert first(FetchSnapshot(replace(LOST, incarnation=1))) is InvalidRequest
    assert first(newest) == 9
    with (tmp_path / name(9)).open("r+b") as file:
        file.write(b"rot")
    assert first(newest) == 7
    assert first(FetchSnapshot(LOST, 8, 1)) is Unavailable
    (tmp_path / name(7)).unlink()
    assert first(newest) is Unavailable
    assert first(FetchSnapshot(LOST, 7, 1)) is Unavailable
    (tmp_path / name(7)).mkdir()
    assert first(newest) is Unavailable
    assert first(FetchSnapshot(LOST, 7, 1)) is Unavailable
    assert group.panics == []
