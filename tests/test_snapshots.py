"""Snapshots of the applied state, and tables that begin with one."""

import os
import resource
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.test_database import PAGE_BYTES, Scene
from tests.test_storage import on_disk
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
    """A snapshot has the state, its index, and the terms up to there; it can be read with the right
    cluster's id only, and the last two are kept.
    """
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
    """The log may drop entries only up to the older of two intact snapshots; one that is damaged or
    cannot be read does not count.
    """
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
    """No more than 1 MiB is flushed at once, because a write of the log has to wait for it. SQLite
    itself flushes nothing meanwhile, and does so again afterwards.
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
    """Records what is flushed. A file that gets its name must be on disk as it is, with nothing of
    SQLite's beside it.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.named: list[str] = []
        self._sizes: dict[int, int] = {}
        self._rename = os.rename
        patch.setattr(os, "fsync", self._flush)
        patch.setattr(os, "fdatasync", self._flush)
        patch.setattr(os, "rename", self._name)

    def has_names(self, directory: Path) -> bool:
        """Whether the names in a directory are on disk."""
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
    """A snapshot is flushed before it gets its name, because the log is cut at once; so are tables
    made from one, before anything is added to them. What SQLite left beside the old tables is gone
    by then.
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
    """When there is no space for the next snapshot both earlier ones stay: the log may begin after
    the older one.
    """
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
    """If the newer snapshot is damaged anywhere, cut or has another's name, the older one is
    used.
    """
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
    """The unfinished file of a snapshot that failed, or whose process was killed, is removed."""
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


# Tables that are made from a snapshot.


def scene(path: Path) -> Scene:
    """A database with snapshots."""
    made = Scene(path / "applied.sqlite")
    made.database.snapshots = Snapshots(path, CLUSTER)
    return made


def saved(path: Path) -> Scene:
    """A database that has saved an entry."""
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
    """Tables that are gone are made from a snapshot; what SQLite left beside the old ones is not
    added to them.
    """
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
    """A power cut may take back the last transactions, and the log may have dropped their entries:
    the snapshot is used.
    """
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


class Ended(BaseException):
    """The process ends here."""


def behind(path: Path) -> None:
    """A directory as a process left it that ended without closing its database of one entry, with
    a snapshot of four.
    """
    path.mkdir()
    made = saved(path)
    left = {file.name: file.read_bytes() for file in path.iterdir()}
    assert left["applied.sqlite-wal"]
    made.database.close()
    (path / "applied.sqlite").unlink()
    with_snapshot(path, 4)
    for file, content in left.items():
        (path / file).write_bytes(content)


def test_a_process_that_ends_without_closing_the_file_loses_nothing(tmp_path: Path) -> None:
    """What SQLite's log has of a file that is behind is replaced together with the file; what it
    has of the new one stays, also if a process ends without closing that.
    """
    path = tmp_path / "first"
    behind(path)
    made = scene(path)
    assert made.database.open() == (4, b"digest")
    assert made.count() == 4
    made.database.record(5, b"later", b"row")
    made.run()
    assert (path / "applied.sqlite-wal").stat().st_size > 0
    copied = scene(shutil.copytree(path, tmp_path / "second"))
    made.database.close()
    assert copied.database.open() == (5, b"later")
    assert copied.count() == 5
    copied.database.close()


def ending(path: Path, steps: int) -> bool:
    """Open the database in a process that ends before so many steps that change files are done;
    whether it did end.
    """
    left = iter(range(steps - 1))

    def before(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **named: Any) -> Any:
            if next(left, None) is None:
                raise Ended
            return step(*args, **named)

        return run

    made = scene(path)
    with pytest.MonkeyPatch.context() as patch:
        for owner, step in ((Path, "unlink"), (Path, "rename"), (os, "fsync")):
            patch.setattr(owner, step, before(getattr(owner, step)))
        try:
            made.database.open()
        except Ended:
            return True
    made.database.close()
    return False


def test_a_process_may_end_anywhere_while_the_file_is_replaced(tmp_path: Path) -> None:
    """Wherever a process ends while it replaces a file that is behind, the next start finishes."""
    steps = 0
    has_ended = True
    while has_ended:
        steps += 1
        path = tmp_path / str(steps)
        behind(path)
        has_ended = ending(path, steps)
        again = scene(path)
        assert again.database.open() == (4, b"digest")
        assert again.count() == 4
        again.database.close()
    assert steps == 8  # three flushes, the file and two that SQLite leaves, the new name


def test_nothing_that_sqlite_left_of_the_old_file_is_added_to_a_snapshot(tmp_path: Path) -> None:
    """Although somebody else reads the old file, so that SQLite cannot clear its log, nothing of it
    is added to the new one.
    """
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
    """The unfinished file of new tables has a name that is removed at the next start, and only its
    owner can read it.
    """
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
    monkeypatch.undo()
    left = tmp_path / "applied.sqlite.tmp"
    left.touch()
    storage = on_disk(path=tmp_path)
    storage.open()
    storage.close()
    assert not left.exists()


def test_without_room_for_the_tables_of_a_snapshot_a_member_cannot_start_now(
    tmp_path: Path,
) -> None:
    """Without space for tables from a snapshot the start fails as unavailable, which may pass; a
    later start succeeds.
    """
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
    """Tables that are ahead of the snapshot are kept; a damaged snapshot that says it is further
    changes nothing.
    """
    with_snapshot(tmp_path, 4, more=2)
    made = scene(tmp_path)
    assert made.database.open()[0] == 6
    made.database.close()
    (tmp_path / name(9)).write_bytes((tmp_path / name(4)).read_bytes())
    made = scene(tmp_path)
    assert made.database.open()[0] == 6
    made.database.close()


def test_a_snapshot_that_cannot_be_read_is_as_good_as_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the newer snapshot cannot be read the older one is used; if that is damaged, the error of
    the newer one is raised.
    """
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


def test_the_log_may_do_without_a_snapshot_that_cannot_be_read(tmp_path: Path) -> None:
    """The database opens without the only snapshot, which cannot be read, and keeps the reason for
    whoever needs it.
    """
    with_snapshot(tmp_path, 4)
    for left in tmp_path.glob("applied.sqlite*"):
        left.unlink()
    (path,) = tmp_path.glob("snapshot-*")
    path.unlink()
    path.mkdir()  # which cannot be read as a file, even by root
    made = scene(tmp_path)
    assert made.database.open() == (0, b"")
    assert told(made.database.unread_snapshot) == f"{path}: Is a directory"


def test_a_snapshot_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    """A snapshot is made only if there is none at the index that was asked for, or a later one."""
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
    """Without space no snapshot is made, and nothing fails."""
    made = saved(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    assert made.database.snapshots is not None
    made.database.snapshots.make = full  # type: ignore[method-assign, assignment]
    assert made.outcome(made.database.snapshot(1, RUNS)) == 0
    made.database.close()


def test_a_disk_that_takes_no_more_files_makes_no_snapshot(tmp_path: Path) -> None:
    """SQLite only says that it cannot open the file: if the probe says that there is no room, no
    snapshot is made; otherwise the error ends the process.
    """
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
    """The unfinished snapshot itself uses the quota up, so the probe is made before it is
    removed.
    """
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
    """Damaged rows end the process, while the log can still make them again; after two such
    snapshots it could not. So the advice to delete the tables is right.
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
    """A page whose count of rows is too low is found, although each remaining row, and a copy of
    the table, would be sound.
    """
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
