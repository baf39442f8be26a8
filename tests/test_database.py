"""The applied state on a disk that is full or damaged: nothing is lost, it is saved in the end, and
the operator is told what to do.
"""

import errno
import resource
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from tests.disks import SimulatedDisk
from tests.members import ClockThreads
from twstock.catalog.tables import CatalogTables
from twstock.errors import CorruptStorage, CorruptTables, StorageUnavailable, Unavailable
from twstock.replication.database import FULL_PAUSE_S, SAVE_EVERY_S, Database
from twstock.replication.disk import has_no_room
from twstock.replication.tier import Tables

ADVICE = "it can be deleted, the log rebuilds it"
PAGE_BYTES = 4096


class Rows:
    """Changes are blobs, one row each. ``saves`` counts attempts, ``complaint`` names the error of
    SQLite that one ends with, and ``state`` makes what is loaded.
    """

    schema = """
    CREATE TABLE IF NOT EXISTS rows (content BLOB) STRICT;
    CREATE TABLE IF NOT EXISTS others (content BLOB) STRICT;
    """

    def __init__(self) -> None:
        self.saves = self.others = 0
        self.complaint = self.complaint_of_others = ""
        self.state: Callable[[sqlite3.Connection, bytes], Any] = lambda _, digest: digest

    def load(self, connection: sqlite3.Connection, digest: bytes) -> Any:
        """The digest, unless a test wants something else."""
        return self.state(connection, digest)

    def save(self, connection: sqlite3.Connection, changes: Sequence[object]) -> None:
        """One insert each."""
        self.saves += 1
        connection.executemany("INSERT INTO rows VALUES (?)", [(change,) for change in changes])
        if self.complaint:
            raise complaint_of(self.complaint)

    def upkeep(self, connection: sqlite3.Connection) -> None:
        """As many other rows as a test wants."""
        connection.executemany("INSERT INTO others VALUES (?)", [(bytes(1000),)] * self.others)
        if self.complaint_of_others:
            raise complaint_of(self.complaint_of_others)

    def extent(self, connection: sqlite3.Connection) -> tuple[int | str, ...]:
        """How many there are."""
        (count,) = connection.execute("SELECT count(*) FROM rows").fetchone()
        return (count,)


def complaint_of(name: str) -> sqlite3.OperationalError:
    """The error of this name, as SQLite raises it."""
    error = sqlite3.OperationalError("as it is")
    error.sqlite_errorcode, error.sqlite_errorname = getattr(sqlite3, name), name
    return error


class Scene:
    """A database whose file may not grow when ``limit_pages`` says so; ``room`` is whether anything
    else may be written.
    """

    def __init__(self, path: Path, tables: Tables | None = None) -> None:
        self.clock = Clock()
        self.path = path
        self.rows = Rows()
        self.saved: list[int] = []
        self.room = True
        self.probed: list[Path] = []
        threads: Any = ClockThreads(self.clock)
        self.database = Database(
            path, tables or self.rows, threads, self.deliver, self.panic, self.has_no_room
        )
        self.database.on_saved = self.saved.append

    def deliver(self, function: Callable[..., object], *args: Any) -> None:
        """In the reactor, soon."""
        self.clock.callLater(0, function, *args)

    def panic(self, failure: Any) -> None:
        """No test of this file wants one."""
        failure.raiseException()

    def has_no_room(self, directory: Path) -> bool:
        """What a probe would find."""
        self.probed.append(directory)
        return not self.room

    def limit_pages(self, pages: int) -> None:
        """The disk has room for so many."""
        self.database.connection.execute(f"PRAGMA max_page_count = {pages}")

    def run(self, seconds: float = 0.1) -> None:
        """Let time pass; the database is told to retry again and again."""
        for _ in range(round(seconds / 0.01)):
            self.clock.advance(0.01)
            self.database.save(self.clock.seconds())

    def outcome(self, waited_for: "Deferred[Any]") -> Any:
        """What comes of a Deferred, a Failure perhaps, in a moment."""
        outcomes: list[Any] = []
        waited_for.addBoth(outcomes.append)
        self.clock.pump([0.001] * 10)
        return outcomes[0]

    def load(self) -> Any:
        """What comes of loading."""
        return self.outcome(self.database.load())

    def stop(self) -> None:
        """Stop, in a moment."""
        assert self.outcome(Deferred.fromCoroutine(self.database.stop())) is None

    def count(self, table: str = "rows") -> int:
        """How many changes are in the tables."""
        (found,) = self.database.connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(found)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """An empty database."""
    made = Scene(tmp_path / "applied.sqlite")
    made.database.open()
    yield made
    made.database.close()


def test_a_full_disk_postpones_saving(scene: Scene) -> None:
    """Changes wait in sequence and are saved when there is room. Until then saving is tried once in
    a while, not at every heartbeat.
    """
    scene.limit_pages(4)
    for index in range(1, 11):
        scene.database.record(index, b"", bytes(2000))
        scene.run()
    scene.run(2.0)
    assert scene.database.full
    assert (scene.database.saved_index, scene.database.backlog) == (
        scene.saved[-1],
        10 - scene.saved[-1],
    )
    attempts = scene.rows.saves
    scene.run(FULL_PAUSE_S * 3)
    assert attempts + 2 <= scene.rows.saves <= attempts + 4
    scene.limit_pages(1000)
    scene.run(FULL_PAUSE_S + 0.1)
    assert (scene.database.full, scene.database.backlog, scene.count()) == (False, 0, 10)
    assert scene.saved[-1] == 10


def test_upkeep_is_done_after_each_save(scene: Scene) -> None:
    """It is not done when nothing is saved."""
    scene.rows.others = 1
    scene.run(1.0)
    assert scene.count("others") == 0
    for index in (1, 2):
        scene.database.record(index, b"", b"a change")
        scene.run(0.2)
        assert (scene.database.saved_index, scene.count("others")) == (index, index)


def test_upkeep_that_has_no_room_is_left_out(scene: Scene) -> None:
    """What was saved stays saved, the disk does not count as full, and the next upkeep is done."""
    scene.limit_pages(10)
    for index, others, expected in ((1, 100, 0), (2, 100, 0), (3, 1, 1)):
        scene.rows.others = others
        scene.database.record(index, b"", b"a change")
        scene.run(0.2)
        assert (scene.database.full, scene.database.saved_index) == (False, index)
        assert (scene.count(), scene.count("others")) == (index, expected)
    scene.rows.complaint_of_others, scene.room = "SQLITE_IOERR_WRITE", False
    scene.database.record(4, b"", b"a change")
    scene.run(0.2)
    assert (scene.database.full, scene.count(), scene.count("others")) == (False, 4, 1)


def test_upkeep_that_fails_ends_the_process(scene: Scene) -> None:
    """Like any other error of the file."""
    scene.rows.complaint_of_others = "SQLITE_IOERR_WRITE"
    scene.database.record(1, b"", b"a change")
    with pytest.raises(sqlite3.OperationalError, match="as it is"):
        scene.run(0.2)
    assert scene.database.saved_index == 1


MAY_BE_FULL = ["SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_SHMMAP"]


@pytest.mark.parametrize("name", MAY_BE_FULL)
def test_a_quota_that_is_used_up_postpones_saving(scene: Scene, name: str) -> None:
    """SQLite reports an I/O error, but nothing else can be written either. No change is lost or
    saved twice.
    """
    scene.rows.complaint, scene.room = name, False
    scene.database.record(1, b"one", b"1")
    scene.run(0.2)
    scene.database.record(2, b"two", b"2")
    scene.run(FULL_PAUSE_S)
    assert (scene.database.full, scene.database.saved_index, scene.count()) == (True, 0, 0)
    assert set(scene.probed) == {scene.path.parent}
    scene.rows.complaint = ""
    scene.run(FULL_PAUSE_S + 0.1)
    assert (scene.database.full, scene.database.saved_index, scene.count()) == (False, 2, 2)


@pytest.mark.parametrize("name", [*MAY_BE_FULL, "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_READ"])
def test_a_failing_disk_with_room_ends_the_process(scene: Scene, name: str) -> None:
    """So does a failed flush, whether there is room or not: nothing is tried again after one."""
    scene.rows.complaint, scene.room = name, name in MAY_BE_FULL
    scene.database.record(1, b"one", b"1")
    with pytest.raises(sqlite3.OperationalError, match="as it is"):
        scene.run(0.2)
    assert not scene.database.full


def test_what_a_real_write_was_refused_is_saved_later(scene: Scene) -> None:
    """The system does not let the file grow, which SQLite reports as it would a quota."""
    scene.database.record(1, b"one", b"1")
    scene.run(0.2)
    scene.room = False
    scene.database.record(2, b"two", bytes(100_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = scene.path.with_name("applied.sqlite-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        scene.run(0.2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert scene.probed
    assert (scene.database.full, scene.database.saved_index, scene.count()) == (True, 1, 1)
    scene.run(FULL_PAUSE_S + 0.1)
    assert (scene.database.full, scene.database.saved_index, scene.count()) == (False, 2, 2)


@pytest.mark.parametrize("call", ["open", "pwrite", "fsync"])
@pytest.mark.parametrize("failure", [errno.EDQUOT, errno.ENOSPC, errno.EIO])
def test_only_want_of_space_is_no_room(call: str, failure: int) -> None:
    """Whichever call of the probe fails. The probe leaves no file behind."""
    disk = SimulatedDisk()
    assert not has_no_room(Path("/data"), disk)
    disk.fail_at, disk.failure = len(disk.log) + 1 + disk.log.index(call), failure
    assert has_no_room(Path("/data"), disk) == (failure != errno.EIO)
    assert disk.names(Path("/data")) == []


def test_a_short_write_of_a_probe_says_nothing() -> None:
    """The next write tells why it was short, or succeeds."""
    disk = SimulatedDisk()
    disk.fail_at, disk.failure = 2, "short"
    assert not has_no_room(Path("/data"), disk)
    assert disk.log == ["open", "pwrite", "pwrite", "fsync", "unlink"]


def test_a_little_space_is_no_room() -> None:
    """SQLite asks for one page at a time, and one file may still get one when others get none."""
    assert has_no_room(Path("/data"), SimulatedDisk(8 * PAGE_BYTES))


# --- opening -----------------------------------------------------------------------------------


def damage_rows(path: Path, *statements: str) -> None:
    """Change what is in the file behind everybody's back."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def catalog(path: Path) -> Scene:
    """The catalog's tables in a file, which nobody has opened yet."""
    return Scene(path, CatalogTables(10, 10.0))


def refusal_of(scene: Scene) -> str:
    """With which words a file of the catalog is refused as damaged."""
    failure = scene.load()
    scene.database.close()
    assert isinstance(failure, Failure)
    assert failure.check(CorruptStorage)
    return failure.getErrorMessage()


def test_the_state_is_loaded_in_the_databases_thread(tmp_path: Path) -> None:
    """The reactor only gets the result, because reading a large state takes a while."""
    scene = Scene(tmp_path / "applied.sqlite")
    digests: list[bytes] = []
    scene.rows.state = lambda _, digest: digests.append(digest)
    loading = scene.database.load()
    assert digests == []
    assert scene.outcome(loading) == (0, None)
    assert digests == [b""]
    scene.database.close()


def test_a_page_of_noise_is_refused_with_what_helps(tmp_path: Path) -> None:
    """Whichever page it is, also one that only loading reads. The error names the file and says
    that it can be deleted.
    """
    path = tmp_path / "applied.sqlite"
    scene = catalog(path)
    scene.database.open()
    insert = "INSERT INTO stocks VALUES (?, 1, 1, 0, 0, 1, NULL)"
    names = [(f"stock {number:05}",) for number in range(2000)]
    scene.database.connection.executemany(insert, names)
    scene.database.close()
    content = path.read_bytes()
    found = {content.find(name.encode()) // PAGE_BYTES for (name,) in names}
    assert len(found) > 5
    for page in (0, *sorted(found)):
        noise = b"\xa5" * PAGE_BYTES
        path.write_bytes(content[: page * PAGE_BYTES] + noise + content[(page + 1) * PAGE_BYTES :])
        message = refusal_of(catalog(path))
        assert message.startswith(f"{path}: ")
        assert message.endswith(f"; {ADVICE}")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO epoch VALUES (1, 1, 1, x'ffff', 0, 0, 0)",
        "INSERT INTO epoch VALUES (1, 1, 1, x'', 0, 7, 0)",
        "INSERT INTO changes VALUES (2, 'key', 'halt', 'Fish', 0, 0, 1, 1)",
        "INSERT INTO changes VALUES (1, 'key', 'hilt', 'Fish', 0, 0, 1, 1)",
        "INSERT INTO stocks VALUES (CAST(x'ff' AS TEXT), 1, 1, 0, 0, 1, NULL)",
    ],
    ids=["bytes", "gap", "first", "word", "text"],
)
def test_rows_that_do_not_fit_together_are_refused_with_what_helps(
    tmp_path: Path, statement: str
) -> None:
    """SQLite accepts them, but their reader does not."""
    scene = catalog(tmp_path / "applied.sqlite")
    scene.database.open()
    scene.database.close()
    damage_rows(tmp_path / "applied.sqlite", statement)
    assert refusal_of(scene).endswith(ADVICE)


def test_a_file_that_cannot_be_had_now_is_not_called_damaged(tmp_path: Path) -> None:
    """An error of the disk says nothing about the file: nobody is told to delete it."""
    scene = Scene(tmp_path / "mounted later" / "applied.sqlite")
    failure = scene.load()
    assert failure.check(StorageUnavailable)
    assert "SQLITE_CANTOPEN" in failure.getErrorMessage()
    assert ADVICE not in failure.getErrorMessage()
    (tmp_path / "mounted later").mkdir()
    assert scene.load() == (0, b"")
    scene.database.close()


def complaint(scene: Scene, name: str) -> Failure:
    """What comes of loading when SQLite complains."""

    def fail(_connection: sqlite3.Connection, _digest: bytes) -> None:
        raise complaint_of(name)

    scene.rows.state = fail
    failure: Failure = scene.load()
    return failure


@pytest.mark.parametrize(
    "name", ["SQLITE_FULL", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_READ", "SQLITE_BUSY"]
)
def test_what_may_pass_is_not_called_damage(scene: Scene, name: str) -> None:
    """An error that may pass is reported by its name."""
    failure = complaint(scene, name)
    assert failure.check(StorageUnavailable)
    assert failure.getErrorMessage().endswith(f"as it is ({name})")


@pytest.mark.parametrize(
    "name", ["SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR", "SQLITE_SCHEMA", "SQLITE_MISMATCH"]
)
def test_what_does_not_pass_is_called_damage(scene: Scene, name: str) -> None:
    """A wrong bit in a statement of the schema, for example, is an error in that statement to
    SQLite.
    """
    failure = complaint(scene, name)
    assert failure.check(CorruptTables)
    assert failure.getErrorMessage().endswith(ADVICE)


def applied(path: Path, statement: str) -> None:
    """Change the record of what is applied, or what it speaks of, as a wrong bit would."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints=ON")
        connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE applied SET position = position + 8",
        "UPDATE applied SET position = position - 1",
        "UPDATE applied SET digest = x'00'",
        "DELETE FROM applied",
        "DELETE FROM rows WHERE rowid = 2",
        "UPDATE applied SET crc = NULL, position = -1",
    ],
)
def test_a_wrong_record_of_what_is_applied_is_damage(tmp_path: Path, statement: str) -> None:
    """Entries would be applied twice, or never."""
    scene = Scene(tmp_path / "applied.sqlite")
    scene.load()
    for index in range(1, 4):
        scene.database.record(index, b"digest %d" % index, b"%d" % index)
    scene.run(0.3)
    scene.database.close()
    applied(tmp_path / "applied.sqlite", statement)
    failure = Scene(tmp_path / "applied.sqlite").load()
    assert failure.check(CorruptTables)
    assert failure.getErrorMessage().endswith(ADVICE)


def test_a_record_without_a_checksum_is_read_as_it_is(tmp_path: Path) -> None:
    """It was written before records had checksums; the next save adds one."""
    path = tmp_path / "applied.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        columns = "one INTEGER PRIMARY KEY, position INTEGER, digest BLOB"
        connection.execute(f"CREATE TABLE applied ({columns})")
        connection.execute("INSERT INTO applied VALUES (1, 7, x'0102')")
    scene = Scene(path)
    assert scene.load() == (7, b"\1\2")
    scene.database.record(8, b"next", b"row")
    scene.run(0.3)
    scene.database.close()
    assert Scene(path).load() == (8, b"next")


# --- the end -----------------------------------------------------------------------------------


def test_a_stop_saves_what_waits_and_closes_the_file(tmp_path: Path) -> None:
    """Also what comes while a save is under way. No write-ahead log is left, and whoever reads
    afterwards is refused.
    """
    scene = Scene(tmp_path / "applied.sqlite")
    scene.database.open()
    scene.database.record(1, b"one", b"1")
    scene.database.save(SAVE_EVERY_S)
    scene.database.record(2, b"two", b"2")
    scene.database.record(3, b"three", None)
    scene.stop()
    assert [path.name for path in tmp_path.iterdir()] == ["applied.sqlite"]
    reading = scene.outcome(scene.database.read(lambda connection: connection))
    assert reading.check(Unavailable)
    again = Scene(tmp_path / "applied.sqlite")
    assert again.load() == (3, b"three")
    assert again.count() == 2
    again.stop()


def test_a_stop_saves_nothing_behind_what_a_full_disk_refused(tmp_path: Path) -> None:
    """If later changes were saved without it, the applied index would be wrong."""
    scene = Scene(tmp_path / "applied.sqlite")
    scene.database.open()
    scene.limit_pages(4)
    scene.database.record(1, b"one", bytes(100_000))
    scene.database.save(SAVE_EVERY_S)
    scene.database.record(2, b"two", b"small")
    scene.stop()
    again = Scene(tmp_path / "applied.sqlite")
    assert again.load() == (0, b"")
    again.stop()


@pytest.mark.logs_failures
def test_a_stop_goes_on_when_the_rest_cannot_be_saved(tmp_path: Path) -> None:
    """The error is logged and the file closed. Nothing is lost: the replicated log has the rest."""
    scene = Scene(tmp_path / "applied.sqlite")
    scene.database.open()
    scene.database.record(1, b"one", "no blob")
    with capturedLogs() as logged:
        scene.stop()
    assert len([event for event in logged if "log_failure" in event]) == 1
    assert scene.outcome(scene.database.read(lambda connection: connection)).check(Unavailable)
    assert scene.database.saved_index == 0


def test_a_stop_before_the_start_is_none(tmp_path: Path) -> None:
    """There is nothing to save and nothing to close."""
    Scene(tmp_path / "applied.sqlite").stop()
    assert list(tmp_path.iterdir()) == []
