"""Snapshots of the applied state, and tables that begin with one."""

import os
import resource
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.test_database import PAGE_BYTES, Scene
from twstock.catalog.tables import _STOCK, _TRADE, CatalogTables
from twstock.errors import CorruptTables, StorageUnavailable, told
from twstock.market import Order, Side, Trade
from twstock.replication.compaction import TermRun
from twstock.replication.snapshots import Snapshot, Snapshots, name, read
from twstock.rows import check_rows, summed, trade_row

CLUSTER = bytes(range(16))
RUNS = (TermRun(1, 1), TermRun(3, 2), TermRun(9, 5))
TRADE = Trade(1, Order("key", "FishCo", Side.BUY, 1), 1, 100, 1)


def database(path: Path, rows: int = 3) -> sqlite3.Connection:
    """A database with some content."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("CREATE TABLE IF NOT EXISTS rows (content BLOB)")
    connection.executemany("INSERT INTO rows VALUES (?)", [(b"x" * 50,)] * rows)
    return connection


def count(path: Path) -> int:
    """How many rows a database has."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM rows").fetchone()[0])


def test_a_snapshot_is_the_state_and_its_place(tmp_path: Path) -> None:
    """It can be read by whoever knows the cluster; two are kept."""
    snapshots = Snapshots(tmp_path, CLUSTER)
    assert (snapshots.newest(), snapshots.safe_index()) == (None, 0)
    with closing(database(tmp_path / "a.sqlite")) as connection:
        made = [snapshots.make(connection, index, RUNS) for index in (5, 8, 12)]
    assert [one.runs for one in made] == [RUNS[:2], RUNS[:2], RUNS]
    assert (snapshots.indices(), snapshots.safe_index()) == ([8, 12], 8)
    assert snapshots.newest() == made[-1] == read(tmp_path / name(12), CLUSTER)
    assert Snapshots(tmp_path, bytes(16)).newest() is None
    assert (made[-1].path.stat().st_mode & 0o777) == 0o600
    made[-1].extract(tmp_path / "b.sqlite")
    assert count(tmp_path / "b.sqlite") == 3
    assert sorted(os.listdir(tmp_path)) == ["a.sqlite", "b.sqlite", name(8), name(12)]


@pytest.mark.parametrize("which", [5, 8], ids=["the older", "the newer"])
def test_the_log_keeps_what_a_damaged_snapshot_stands_in_for(tmp_path: Path, which: int) -> None:
    """Until two are there that are intact; one that cannot be read is none."""
    snapshots = Snapshots(tmp_path, CLUSTER)
    with closing(database(tmp_path / "a.sqlite")) as connection:
        for index in (5, 8):
            snapshots.make(connection, index, RUNS)
        damaged = tmp_path / name(which)
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
        assert snapshots.safe_index() == 0
        damaged.unlink()
        damaged.mkdir()
        assert snapshots.safe_index() == 0
        damaged.rmdir()
        damaged.write_bytes(whole)
        assert snapshots.safe_index() == 5
        damaged.write_bytes(b"")
        for index in (12, 16):
            snapshots.make(connection, index, RUNS)
        assert snapshots.safe_index() == 12


def test_a_snapshot_goes_to_the_disk_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write of the log waits for what is flushed meanwhile, and must not wait long. SQLite
    itself flushes nothing then, and as before afterwards.
    """
    flushed: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: flushed.append(os.fstat(fd).st_size))
    said: list[str] = []
    with closing(database(tmp_path / "a.sqlite")) as connection:
        connection.execute("INSERT INTO rows VALUES (zeroblob(4000000))")
        connection.set_trace_callback(said.append)
        made = Snapshots(tmp_path, CLUSTER).make(connection, 5, RUNS)
        assert connection.execute("PRAGMA synchronous").fetchone() == (1,)
    assert [one.partition(" INTO")[0] for one in said[:3]] == [
        "PRAGMA synchronous=OFF",
        "VACUUM",
        "PRAGMA synchronous=NORMAL",
    ]
    assert made.state_bytes > 3 << 20
    steps = [after - before for before, after in zip([0, *flushed], flushed, strict=False)]
    assert max(steps) <= 1 << 20
    assert sum(steps) >= made.state_bytes


class Flushes:
    """What was on disk of a file when it got its name, and whether the name is there, too."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.named: list[str] = []
        self._sizes: dict[int, int] = {}
        self._rename = os.rename
        patch.setattr(os, "fsync", self._flush)
        patch.setattr(os, "fdatasync", self._flush)
        patch.setattr(os, "rename", self._name)

    def has_names(self, directory: Path) -> bool:
        """Whether they are on disk."""
        return directory.stat().st_ino in self._sizes

    def _flush(self, fd: int) -> None:
        found = os.fstat(fd)
        self._sizes[found.st_ino] = found.st_size

    def _name(self, old: Path, new: Path) -> None:
        found = old.stat()
        assert self._sizes.get(found.st_ino) == found.st_size
        self._sizes.pop(new.parent.stat().st_ino, None)
        assert not list(new.parent.glob(f"{new.name}-*"))
        self._rename(old, new)
        self.named.append(new.name)


def test_what_gets_its_name_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot, because the log is cut at once; tables made of one, before anything is added to
    them. What SQLite left beside the old tables is gone before.
    """
    flushes = Flushes(monkeypatch)
    with closing(database(tmp_path / "a.sqlite")) as connection:
        made = Snapshots(tmp_path, CLUSTER).make(connection, 5, RUNS)
    assert flushes.has_names(tmp_path)
    (tmp_path / "b.sqlite-wal").write_text("of the old one")
    made.extract(tmp_path / "b.sqlite")
    assert flushes.has_names(tmp_path)
    assert flushes.named == [name(5), "b.sqlite"]


def test_two_are_there_until_the_next_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log may begin after the older one, so the newer one alone is too little."""
    snapshots = Snapshots(tmp_path, CLUSTER)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with closing(database(tmp_path / "a.sqlite")) as connection:
        for index in (5, 8):
            snapshots.make(connection, index, RUNS)
        monkeypatch.setattr(os, "fdatasync", full)
        with pytest.raises(OSError, match="No space left"):
            snapshots.make(connection, 12, RUNS)
    assert snapshots.indices() == [5, 8]


def test_every_byte_of_a_snapshot(tmp_path: Path) -> None:
    """One that is damaged anywhere, or cut, is not used: the older one is."""
    snapshots = Snapshots(tmp_path, CLUSTER)
    with closing(database(tmp_path / "a.sqlite")) as connection:
        older, newer = (snapshots.make(connection, index, RUNS) for index in (8, 12))
    content = newer.path.read_bytes()
    offsets = {*range(0, len(content), 101), *range(newer.state_bytes, len(content))}
    for offset in offsets:
        wrong = bytearray(content)
        wrong[offset] ^= 1 << offset % 8
        newer.path.write_bytes(wrong)
        assert snapshots.newest() == older
    for length in (0, 10, newer.state_bytes, len(content) - 1):
        newer.path.write_bytes(content[:length])
        assert snapshots.newest() == older
    newer.path.write_bytes(content)
    assert snapshots.newest() == newer
    newer.path.rename(tmp_path / name(13))
    assert snapshots.newest() == older


def test_what_is_left_of_one_that_was_not_finished_is_removed(tmp_path: Path) -> None:
    """Also of an earlier one that was killed."""
    (tmp_path / "snapshot.tmp").write_text("a part")
    snapshots = Snapshots(tmp_path, CLUSTER)
    with closing(database(tmp_path / "a.sqlite")) as connection:
        snapshots.make(connection, 5, RUNS)
        connection.execute("BEGIN")
        with pytest.raises(sqlite3.OperationalError, match="transaction"):
            snapshots.make(connection, 6, RUNS)
        (tmp_path / "snapshot.tmp").write_text("a part")
        snapshots.clear()
        snapshots.clear()
    assert sorted(os.listdir(tmp_path)) == ["a.sqlite", name(5)]


# The tables begin with one.


def scene(path: Path) -> Scene:
    """A database whose member makes snapshots."""
    made = Scene(path / "applied.sqlite")
    made.database.snapshots = Snapshots(path, CLUSTER)
    return made


def saved(path: Path) -> Scene:
    """One that has saved an entry."""
    made = scene(path)
    made.database.open()
    made.database.record(1, b"digest", b"row")
    made.run()
    return made


def with_snapshot(path: Path, saved: int, more: int = 0) -> None:
    """A closed database of ``saved`` entries, a snapshot of them, and ``more`` saved after that."""
    made = scene(path)
    made.database.open()
    for index in range(1, saved + 1):
        made.database.record(index, b"digest", b"row")
    made.run()
    assert made.outcome(made.database.snapshot(saved, RUNS)) == 0
    for index in range(saved + 1, saved + more + 1):
        made.database.record(index, b"digest", b"row")
    made.run(0.3)
    made.database.close()


def test_a_file_that_is_gone_is_made_from_a_snapshot(tmp_path: Path) -> None:
    """What SQLite left beside it is not added to the new one."""
    made = scene(tmp_path)
    made.database.open()
    made.database.record(1, b"digest", b"row" * 100)
    made.run()
    left = (tmp_path / "applied.sqlite-wal").read_bytes()
    assert left
    made.database.close()
    (tmp_path / "applied.sqlite").unlink()
    with_snapshot(tmp_path, 4)
    (tmp_path / "applied.sqlite").unlink()
    (tmp_path / "applied.sqlite-wal").write_bytes(left)
    made = scene(tmp_path)
    assert made.database.open() == (4, b"digest")
    assert count(tmp_path / "applied.sqlite") == 4
    assert made.database.saved_index == 4
    made.database.close()


def test_a_file_that_is_behind_a_snapshot_is_replaced(tmp_path: Path) -> None:
    """A power cut may take the last transactions back, and the log has their entries no more."""
    made = scene(tmp_path)
    made.database.open()
    made.database.record(1, b"older", b"row")
    made.run()
    made.database.close()
    old = (tmp_path / "applied.sqlite").read_bytes()
    with_snapshot(tmp_path, 4)
    (tmp_path / "applied.sqlite").write_bytes(old)
    made = scene(tmp_path)
    assert made.database.open() == (4, b"digest")
    made.database.close()


def test_nothing_is_added_to_a_snapshot_that_sqlite_left_of_the_old_file(tmp_path: Path) -> None:
    """Somebody else reads it, so SQLite cannot clear its log away when it is closed."""
    path = tmp_path / "applied.sqlite"
    saved(tmp_path).database.close()
    old = path.read_bytes()
    path.unlink()
    with_snapshot(tmp_path, 4)
    path.write_bytes(old)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("INSERT INTO others VALUES (x'00')")
        other.execute("BEGIN")
        other.execute("SELECT * FROM rows").fetchone()
        made = scene(tmp_path)
        assert made.database.open() == (4, b"digest")
        assert (made.count(), made.count("others")) == (4, 0)
        made.database.close()


def test_a_crash_leaves_nothing_that_the_next_start_does_not_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unfinished file has a name for that, and is for its owner alone."""
    with_snapshot(tmp_path, 4)
    (tmp_path / "applied.sqlite").unlink()
    seen: dict[str, int] = {}

    def look(_: int) -> None:
        seen.update({path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()})

    monkeypatch.setattr(os, "fsync", look)
    made = scene(tmp_path)
    made.database.open()
    made.database.close()
    assert seen.pop("applied.sqlite.tmp") == 0o600
    assert {name.removesuffix("-wal").removesuffix("-shm") for name in seen} == {
        "applied.sqlite",
        name(4),
    }


def test_no_room_for_what_a_snapshot_has(tmp_path: Path) -> None:
    """It is a matter of the disk, and may pass: the member is started again."""
    with_snapshot(tmp_path, 4)
    (tmp_path / "applied.sqlite").unlink()
    made = scene(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Snapshot, "extract", full)
        with pytest.raises(StorageUnavailable, match="No space left"):
            made.database.open()
    assert made.database.open() == (4, b"digest")
    made.database.close()


def test_a_file_that_is_ahead_is_kept(tmp_path: Path) -> None:
    """A snapshot that is older says nothing new; nor does one that is damaged."""
    with_snapshot(tmp_path, 4, more=2)
    made = scene(tmp_path)
    assert made.database.open()[0] == 6
    made.database.close()
    (tmp_path / name(9)).write_bytes((tmp_path / name(4)).read_bytes())
    made = scene(tmp_path)
    assert made.database.open()[0] == 6
    made.database.close()


def test_one_that_cannot_be_read_is_as_good_as_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older one may be at a better place of the disk."""
    snapshots = Snapshots(tmp_path, CLUSTER)
    with closing(database(tmp_path / "a.sqlite")) as connection:
        older, newer = (snapshots.make(connection, index, RUNS) for index in (8, 12))
    is_intact = Snapshot.is_intact

    def fails(snapshot: Snapshot) -> bool:
        if snapshot == newer:
            raise OSError(5, "Input/output error")
        return is_intact(snapshot)

    monkeypatch.setattr(Snapshot, "is_intact", fails)
    assert snapshots.newest() == older
    older.path.write_bytes(b"rotten")
    with pytest.raises(OSError, match=f"Input/output error: '{newer.path}'"):
        snapshots.newest()


def test_the_log_may_do_without_one_that_cannot_be_read(tmp_path: Path) -> None:
    """So the database opens with what it has; whoever needs more is told why it is not there."""
    with_snapshot(tmp_path, 4)
    for left in tmp_path.glob("applied.sqlite*"):
        left.unlink()
    (path,) = tmp_path.glob("snapshot-*")
    path.unlink()
    path.mkdir()  # nobody can read that, not even root
    made = scene(tmp_path)
    assert made.database.open() == (0, b"")
    assert told(made.database.unread_snapshot) == f"{path}: Is a directory"


def test_one_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    """After a start a member asks for one that has a segment's last entry."""
    with_snapshot(tmp_path, 4, more=2)
    made = scene(tmp_path)
    made.database.open()
    assert made.outcome(made.database.snapshot(4, RUNS)) == 0
    assert made.database.snapshots is not None
    assert made.database.snapshots.indices() == [4]
    assert made.outcome(made.database.snapshot(5, RUNS)) == 4
    assert made.database.snapshots.indices() == [4, 6]
    made.database.close()


def test_a_full_disk_makes_no_snapshot(tmp_path: Path) -> None:
    """And that is all: it is no failure."""
    made = saved(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    assert made.database.snapshots is not None
    made.database.snapshots.make = full  # type: ignore[method-assign, assignment]
    assert made.outcome(made.database.snapshot(1, RUNS)) == 0
    made.database.close()


def test_a_disk_that_takes_no_more_files_makes_no_snapshot(tmp_path: Path) -> None:
    """SQLite only says that it cannot open the file; with room that would end the process."""
    made = saved(tmp_path)
    (tmp_path / "snapshot.tmp").symlink_to(tmp_path / "nowhere" / "else")
    made.database.snapshots.clear = lambda: None  # type: ignore[method-assign, union-attr]
    made.room = False
    assert made.outcome(made.database.snapshot(1, RUNS)) == 0
    assert made.probed
    made.room = True
    made.database.snapshot(1, RUNS)
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        made.clock.pump([0.001] * 10)
    made.database.close()


def test_a_quota_is_judged_as_long_as_it_is_used_up(tmp_path: Path) -> None:
    """What there is of a snapshot uses it up, and goes when it is judged."""
    made = saved(tmp_path)
    made.database.record(2, b"digest", bytes(100_000))
    made.run(0.3)
    unfinished = tmp_path / "snapshot.tmp"
    made.database._has_no_room = lambda _: unfinished.exists()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        assert made.outcome(made.database.snapshot(2, RUNS)) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not unfinished.exists()
    assert made.outcome(made.database.snapshot(2, RUNS)) == 0
    assert made.database.snapshots is not None
    assert made.database.snapshots.indices() == [2]
    made.database.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE stocks SET quantity = quantity + 64 WHERE name = 'FishCo'",
        "UPDATE applied SET position = 3",
        "DELETE FROM kept_trades",
    ],
)
def test_no_snapshot_is_made_of_wrong_rows(tmp_path: Path, damage: str) -> None:
    """The process ends, as long as the log can still make them again: whatever it goes on with
    after two such snapshots is wrong. The advice to delete the tables is right then.
    """
    made = Scene(tmp_path / "applied.sqlite", CatalogTables(100, 60.0))
    made.database.snapshots = Snapshots(tmp_path, CLUSTER)
    made.database.open()
    made.database.connection.execute(_STOCK, summed(("FishCo", 100, 1000, 0, 1, 1000)))
    made.database.connection.execute(_TRADE, trade_row(TRADE))
    made.database.record(1, b"digest", None)
    made.run()
    made.database.connection.execute(damage)
    made.database.snapshot(1, RUNS)
    with pytest.raises(CorruptTables, match="can be deleted"):
        made.clock.pump([0.001] * 10)
    assert made.database.snapshots.indices() == []
    made.database.close()


def test_no_snapshot_is_made_of_a_table_that_has_lost_a_row(tmp_path: Path) -> None:
    """SQLite finds that a page says less than it holds; a copy would be sound."""
    path = tmp_path / "applied.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(CatalogTables.schema)
        for stock in ("FishCo", "GameStart"):
            connection.execute(_STOCK, summed((stock, 100, 1000, 0, 1, 1000)))
        check_rows(connection, lambda: None)
    content = bytearray(path.read_bytes())
    page = content.index(b"FishCo") // PAGE_BYTES * PAGE_BYTES
    assert content[page + 3 : page + 5] == b"\0\2"
    content[page + 4] = 1
    path.write_bytes(content)
    with closing(sqlite3.connect(path)) as connection, pytest.raises(CorruptTables):
        check_rows(connection, lambda: None)
