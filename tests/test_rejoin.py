"""A member whose disk is lost gets a new directory, made from those of the others."""

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from twstock.config import Cluster, Limits, default_cluster
from twstock.consistency import SEGMENT_BYTES_MIN
from twstock.errors import StorageError, StorageUnavailable
from twstock.replication.compaction import up_to
from twstock.replication.copies import opened as opened_copies
from twstock.replication.disk import META
from twstock.replication.log import Log
from twstock.replication.messages import (
    Entry,
    EntryKind,
    HardState,
    Membership,
    Timings,
    VoteReply,
    VoteRequest,
)
from twstock.replication.offline import LogWriter
from twstock.replication.promises import Owner, read_meta
from twstock.replication.rejoin import (
    Kept,
    Rejoined,
    keep_snapshot,
    most_up_to_date,
    promised,
    rejoin,
)
from twstock.replication.replica import Replica
from twstock.replication.snapshots import Snapshots, name
from twstock.replication.storage import FileStorage, Loaded

# A directory has three segments full of zeros, and there are three directories in most tests.
LIMITS = Limits(segment_bytes=SEGMENT_BYTES_MIN)
MEMBERS = (1, 2, 3)
LOST = 2
INCARNATIONS = {1: 11, 2: 22, 3: 33}
OLDER = [Entry(i, 1, EntryKind.COMMAND, b"%d" % i) for i in range(1, 40)]
NEWER = [*OLDER[:30], *(Entry(i, 4, EntryKind.COMMAND, b"new") for i in range(31, 36))]


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """A cluster of three order replicas with one catalog, none of which runs."""
    return default_cluster(tmp_path, "a cluster", limits=LIMITS)


def written(
    cluster: Cluster, member: int, entries: list[Entry], state: HardState, dropped: int = 0
) -> Path:
    """The directory of a member that has ``entries`` and has dropped the first ``dropped``."""
    begins_after = (dropped, up_to(Log(entries).runs(), dropped)) if dropped else None
    log = LogWriter(cluster, "order", member, INCARNATIONS, state, begins_after=begins_after)
    for entry in entries[dropped:]:
        log.append(entry)
    log.close()
    return log.path


def make_snapshots(directory: Path, owner: Owner, entries: list[Entry], *indices: int) -> None:
    """Make snapshots of the state after the entries at these ``indices``."""
    made = Snapshots(directory, owner.identity(0).cluster)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE state (last)")
        for index in indices:
            connection.execute("INSERT INTO state VALUES (?)", (index,))
            made.make(connection, index, Log(entries).runs())


def rot(path: Path) -> None:
    """Flip a bit of the state in a snapshot."""
    content = bytearray(path.read_bytes())
    content[5000] ^= 4
    path.write_bytes(content)


def others(cluster: Cluster) -> list[Path]:
    """The directories of the two that are left: the first one's log is longer, the last one's
    newer.
    """
    return [
        written(cluster, 1, OLDER, HardState(9, 1)),
        written(cluster, 3, NEWER, HardState(4, 3)),
    ]


def from_copies(cluster: Cluster, paths: list[Path], target: Path, **how: Any) -> Rejoined:
    """Make the lost member's directory from those of the others."""
    with opened_copies(cluster, "order", LOST, paths) as copies:
        return rejoin(cluster, "order", LOST, copies, target, **how)


def lost(cluster: Cluster) -> Path:
    """Where the lost member's directory was."""
    return cluster.data_of("order", LOST)


def opened(cluster: Cluster, member: int) -> Loaded:
    """What a member finds when it starts: its directory is opened, all entries are read."""
    limits, owner = cluster.limits, Owner("order", cluster.cluster_id, member, MEMBERS)
    path = cluster.data_of("order", member)
    storage = FileStorage(path, owner, limits.segment_bytes, limits.spare_segments, lambda: 99)
    try:
        loaded = storage.open()
        loaded.log.between(loaded.log.first_index, loaded.log.last_index)
        return loaded
    finally:
        storage.close()


def test_a_directory_is_made_of_the_newest_log_and_the_highest_term(cluster: Cluster) -> None:
    """The new directory has the newest log among the others, the highest term with its vote spent,
    the incarnation that the others know, and an origin of its own.
    """
    sources = others(cluster)
    made = from_copies(cluster, sources, lost(cluster))
    assert made == Rejoined(lost(cluster), str(sources[1]), len(NEWER), 9)
    loaded = opened(cluster, LOST)
    assert loaded.hard_state == HardState(9, LOST)
    assert (loaded.log.last_term, loaded.log.last_index) == (4, len(NEWER))
    assert (loaded.incarnation, loaded.formed, dict(loaded.peers)) == (22, True, {1: 11, 3: 33})
    assert list(loaded.log.between(1, len(NEWER))) == NEWER
    assert opened(cluster, 1).log.last_index == len(OLDER)
    made_anew = read_meta((lost(cluster) / META).read_bytes()).promise
    assert made_anew is not None
    assert made_anew.origin not in INCARNATIONS.values()


def test_a_group_without_entries_has_its_promises_kept(cluster: Cluster) -> None:
    """Term and vote are kept although the others' logs are empty."""
    sources = [written(cluster, member, [], HardState(2, 3)) for member in (1, 3)]
    from_copies(cluster, sources, lost(cluster))
    assert opened(cluster, LOST).hard_state == HardState(2, LOST)


def begun(cluster: Cluster, incarnation: int) -> Path:
    """The directory of member 3, as its first start made it: it knows no other member yet."""
    limits, owner = cluster.limits, Owner("order", cluster.cluster_id, 3, MEMBERS)
    path = cluster.data_of("order", 3)
    storage = FileStorage(
        path, owner, limits.segment_bytes, limits.spare_segments, lambda: incarnation
    )
    storage.open()
    storage.close()
    return path


def test_one_that_had_not_joined_yet_has_promised_nothing(cluster: Cluster) -> None:
    """One of the others was never formed. That is no obstacle, if the third member knows it by the
    incarnation that it has.
    """
    sources = [written(cluster, 1, OLDER, HardState(9, 1)), begun(cluster, INCARNATIONS[3])]
    from_copies(cluster, sources, lost(cluster))
    loaded = opened(cluster, LOST)
    assert (loaded.incarnation, loaded.log.last_index) == (INCARNATIONS[LOST], len(OLDER))
    assert (loaded.hard_state, loaded.peers) == (HardState(9, LOST), {1: 11, 3: 33})


def test_one_that_began_anew_has_lost_its_promises(cluster: Cluster) -> None:
    """One of the others has a new directory, too: its incarnation is not the one that the third
    member knows, so rejoin is refused.
    """
    sources = [written(cluster, 1, OLDER, HardState(9, 1)), begun(cluster, 99)]
    with pytest.raises(StorageError, match="order-3 has lost its directory, too"):
        from_copies(cluster, sources, lost(cluster))


@pytest.mark.parametrize(
    ("ends", "place"),
    [([(1, 9), (2, 3)], 1), ([(2, 3), (1, 9)], 0), ([(2, 3), (2, 4)], 1), ([(0, 0), (0, 0)], 0)],
)
def test_the_log_that_would_win_an_election_is_chosen(
    ends: list[tuple[int, int]], place: int
) -> None:
    """The log with the highest term of its last entry is chosen; of equal terms, the longest log;
    of equal logs, the first (Raft section 5.4.1).
    """
    assert most_up_to_date([Kept(HardState(), *end) for end in ends]) == place


@pytest.mark.parametrize(("term", "granted"), [(6, False), (7, False), (8, True)])
def test_a_vote_that_was_given_is_not_given_again(term: int, granted: bool) -> None:
    """Another member is in term 7, so the lost one may have voted in that term: afterwards it votes
    only in newer terms.
    """
    kept = [Kept(HardState(7, 1), 1, 1), Kept(HardState(3, 3), 1, 1)]
    timings = Timings(0.06, 0.3, 0.03, 0.06, 0.04, 1.0, 2.0, 0.9, 0.25, 300.0, 8, 1000, 1)
    log = Log([Entry(1, 1, EntryKind.NOOP)])
    replica = Replica(
        Membership(LOST, MEMBERS), timings, log, promised(LOST, kept), 0.0, Random(1), 1
    )
    ready = replica.step(VoteRequest(3, LOST, term, 1, 1, False, False, 5), 10.0)
    (reply,) = ready.send_now + ready.send_after
    assert isinstance(reply, VoteReply)
    assert reply.granted is granted


def test_nothing_is_made_of_what_does_not_belong_together(cluster: Cluster, tmp_path: Path) -> None:
    """A source that is missing, doubled, of another group or no directory of a member is refused in
    words, and no directory is left.
    """
    first, last = others(cluster)
    catalog = LogWriter(cluster, "catalog", 1, {1: 5})
    catalog.close()
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    cases = [
        ([first], "expected the directories of order-1, order-3, each once"),
        ([first, last, last], "in use|is used"),
        ([first, catalog.path], "belongs to"),
        ([first, nothing], "is no directory of a member"),
    ]
    for sources, words in cases:
        with pytest.raises((StorageError, StorageUnavailable), match=words):
            from_copies(cluster, sources, lost(cluster))
    with (
        pytest.raises(StorageError, match="expected the directories of other members"),
        opened_copies(cluster, "catalog", 1, []) as copies,
    ):
        rejoin(cluster, "catalog", 1, copies, cluster.data_of("catalog", 2))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "catalog-1", "nothing", "order-1", "order-3",
    ]  # fmt: skip


def test_members_that_know_another_one_under_its_name_are_refused(cluster: Cluster) -> None:
    """The others know the lost member by different incarnations: their directories are of two lives
    of a cluster, and rejoin is refused.
    """
    first = written(cluster, 1, OLDER, HardState(9, 1))
    log = LogWriter(cluster, "order", 3, INCARNATIONS | {LOST: 23}, HardState(9, 1))
    log.close()
    with pytest.raises(StorageError, match="do not agree who order-2 was"):
        from_copies(cluster, [first, log.path], lost(cluster))


def test_the_directory_may_be_where_a_link_leads(cluster: Cluster, tmp_path: Path) -> None:
    """The target may be a symbolic link, as under systemd, to a directory that is not there yet or
    is an empty file system.
    """
    sources, target, disk = others(cluster), lost(cluster), tmp_path / "private" / "order-2"
    target.symlink_to(disk)
    from_copies(cluster, sources, target)
    assert opened(cluster, LOST).log.last_index == len(NEWER)
    assert target.is_symlink()
    shutil.rmtree(disk)
    (disk / "lost+found").mkdir(parents=True)
    from_copies(cluster, sources, target)
    assert opened(cluster, LOST).log.last_index == len(NEWER)
    assert not (disk / ".rejoin").exists()


def test_two_at_once_do_not_disturb_each_other(cluster: Cluster, tmp_path: Path) -> None:
    """A second rejoin is refused while the first is at work, in words that also fit one that was
    killed; the first finishes.
    """
    sources, target = others(cluster), lost(cluster)
    copies = [shutil.copytree(path, tmp_path / "again" / path.name) for path in sources]

    def second() -> None:
        with pytest.raises(StorageError, match=r"order-2/\.rejoin: rejoin is at work there"):
            from_copies(cluster, copies, target)

    from_copies(cluster, sources, target, copied=second)
    assert opened(cluster, LOST).log.last_index == len(NEWER)
    assert target.stat().st_mode & 0o777 == 0o700


def test_a_member_that_is_started_too_early_keeps_its_files(cluster: Cluster) -> None:
    """A member that starts while rejoin is at work makes a directory of its own. Rejoin then fails
    and leaves those files alone.
    """
    sources, target = others(cluster), lost(cluster)

    def start() -> None:
        opened(cluster, LOST)

    with pytest.raises(StorageError, match=r"\(lock\): is the member running\? stop it"):
        from_copies(cluster, sources, target, copied=start)
    assert opened(cluster, LOST).incarnation == 99
    assert not (target / ".rejoin").exists()


def test_what_is_there_is_not_touched(cluster: Cluster) -> None:
    """A target that is not empty is refused: whoever knows that it is lost has to move it away. A
    rejoin that is interrupted leaves nothing, and can be given again.
    """
    sources, target = others(cluster), lost(cluster)
    target.mkdir()
    (target / "meta").touch()
    with pytest.raises(StorageError, match=r"is not empty \(meta\): move what is in it away"):
        from_copies(cluster, sources, target)
    (target / "meta").unlink()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        from_copies(cluster, sources, target, copied=interrupt)
    assert list(target.iterdir()) == []
    target.rmdir()
    with pytest.raises(KeyboardInterrupt):
        from_copies(cluster, sources, target, copied=interrupt)
    assert sorted(path.name for path in cluster.data.iterdir()) == ["order-1", "order-3"]
    copies = [shutil.copytree(path, path.with_name(f"copy-{path.name}")) for path in sources]
    from_copies(cluster, [*reversed(copies)], target)
    assert opened(cluster, LOST).log.last_index == len(NEWER)


def test_a_link_to_itself_is_no_directory(cluster: Cluster) -> None:
    """A target that is a symbolic link to itself is refused in words."""
    sources = others(cluster)
    circle = cluster.data / "circle"
    circle.symlink_to(circle)
    with pytest.raises(StorageError, match="lead in a circle"):
        from_copies(cluster, sources, circle)


def cut(cluster: Cluster, dropped: int, *indices: int) -> list[Path]:
    """The directories of the others, where the newest log was cut and has snapshots at
    ``indices``.
    """
    paths = [
        written(cluster, 1, OLDER, HardState(9, 1)),
        written(cluster, 3, NEWER, HardState(4, 3), dropped),
    ]
    make_snapshots(paths[1], owner(cluster), NEWER, *indices)
    return paths


def owner(cluster: Cluster) -> Owner:
    """The owner of the lost directory."""
    return Owner("order", cluster.cluster_id, LOST, MEMBERS)


@pytest.mark.parametrize(
    ("dropped", "indices", "taken"),
    [(20, (20, 25), 25), (20, (20,), 20), (33, (33, 34), 34), (35, (34, 35), 35)],
    ids=["newest", "the only one", "of two terms", "nothing follows"],
)
def test_what_was_dropped_comes_as_a_snapshot(
    cluster: Cluster, dropped: int, indices: Sequence[int], taken: int
) -> None:
    """The newest snapshot of the chosen log comes with the terms of all that it stands in for; what
    that member has not dropped comes as entries, also those that the snapshot has.
    """
    sources = cut(cluster, dropped, *indices)
    made = from_copies(cluster, sources, lost(cluster))
    assert made == Rejoined(lost(cluster), str(sources[1]), len(NEWER), 9)
    loaded = opened(cluster, LOST)
    assert loaded.hard_state == HardState(9, LOST)
    assert (loaded.log.first_index, loaded.log.last_index) == (dropped + 1, len(NEWER))
    assert loaded.log.runs() == Log(NEWER).runs()
    kept = Snapshots(lost(cluster), owner(cluster).identity(0).cluster)
    assert kept.indices() == [taken]
    assert kept.newest() is not None
    path = lost(cluster) / name(taken)
    assert path.read_bytes() == (sources[1] / name(taken)).read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_follows_a_snapshot_is_read_back(cluster: Cluster) -> None:
    """The entries of such a directory can be read by rejoin for another member, and by that member
    itself.
    """
    sources = cut(cluster, 20, 20, 25)
    from_copies(cluster, sources, lost(cluster))
    shutil.rmtree(sources[1])
    with opened_copies(cluster, "order", 3, [sources[0], lost(cluster)]) as copies:
        rejoin(cluster, "order", 3, copies, sources[1])
    limits, third = cluster.limits, Owner("order", cluster.cluster_id, 3, MEMBERS)
    storage = FileStorage(
        sources[1], third, limits.segment_bytes, limits.spare_segments, lambda: 99
    )
    log = storage.open().log
    assert list(log.between(21, 35)) == NEWER[20:]
    storage.close()


def test_a_log_that_goes_back_to_its_first_entry_needs_no_snapshot(cluster: Cluster) -> None:
    """A member that has dropped nothing gives all its entries, and none of its snapshots."""
    sources = cut(cluster, 0, 20, 25)
    from_copies(cluster, sources, lost(cluster))
    assert list(opened(cluster, LOST).log.runs()) == list(Log(NEWER).runs())
    assert not list(lost(cluster).glob("snapshot-*"))


def test_a_damaged_snapshot_is_not_taken(cluster: Cluster) -> None:
    """Its newest snapshot is damaged, so the one before is taken."""
    sources = cut(cluster, 20, 20, 25)
    rot(sources[1] / name(25))
    from_copies(cluster, sources, lost(cluster))
    assert opened(cluster, LOST).log.first_index == 21
    assert [path.name for path in lost(cluster).glob("snapshot-*")] == [name(20)]


@pytest.mark.parametrize(
    ("indices", "words"),
    [
        ((), "entries 21 to 35, which takes a snapshot of those before, and there is none"),
        ((18, 19), "there is only one of those up to 19"),
        ((36,), "there is only one of those up to 36"),
        ((25,), "there is none that is intact"),
        ((26,), "Is a directory: .*/snapshot-0000000000000026"),
    ],
    ids=["none", "too old", "beyond the log", "damaged", "unreadable"],
)
def test_a_log_that_was_cut_needs_a_snapshot(
    cluster: Cluster, indices: Sequence[int], words: str
) -> None:
    """Without an intact snapshot that covers what was dropped, and does not end beyond the log,
    rejoin is refused and nothing is made.
    """
    sources = cut(cluster, 20, *indices)
    if indices == (25,):
        rot(sources[1] / name(25))
    if indices == (26,):
        (sources[1] / name(26)).unlink()
        (sources[1] / name(26)).mkdir()
    with pytest.raises((StorageError, OSError), match=words):
        from_copies(cluster, sources, lost(cluster))
    assert not lost(cluster).exists()


def test_a_snapshot_is_looked_at_before_it_is_believed(cluster: Cluster, tmp_path: Path) -> None:
    """An intact snapshot is kept; one that is damaged, cut, too long, empty, at another index or of
    another group is not, and leaves no file.
    """
    own = owner(cluster)
    make_snapshots(tmp_path, own, NEWER, 25)
    target = tmp_path / "target"
    target.mkdir()
    content = (tmp_path / name(25)).read_bytes()
    kept = keep_snapshot([content[:99], content[99:]], 25, own, target)
    assert kept is not None
    assert (kept.index, kept.path.read_bytes()) == (25, content)
    kept.path.unlink()
    rot(tmp_path / name(25))
    rotten = (tmp_path / name(25)).read_bytes()
    catalog = Owner("catalog", cluster.cluster_id, LOST, MEMBERS)
    for wrong, index, whose in (
        (rotten, 25, own), (content[:-1], 25, own), (content + b"x", 25, own), (b"", 25, own),
        (content, 26, own), (content, 25, catalog),
    ):  # fmt: skip
        assert keep_snapshot([wrong], index, whose, target) is None
    assert not list(target.iterdir())
