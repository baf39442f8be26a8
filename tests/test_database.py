"""The applied state on a disk that fills up: nothing is lost, and it is saved in the end."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.members import ClockThreads
from twstock.replication.database import FULL_PAUSE_S, Database


class Rows:
    """Changes are blobs, one row each; ``saves`` counts the attempts."""

    schema = "CREATE TABLE IF NOT EXISTS rows (content BLOB) STRICT;"

    def __init__(self) -> None:
        self.saves = 0

    def save(self, connection: sqlite3.Connection, changes: Sequence[object]) -> None:
        """One insert each."""
        self.saves += 1
        connection.executemany("INSERT INTO rows VALUES (?)", [(change,) for change in changes])


class Scene:
    """A database whose file may not grow when ``limit_pages`` says so."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.rows = Rows()
        self.saved: list[int] = []
        threads: Any = ClockThreads(self.clock)
        self.database = Database(path, self.rows, threads, self.deliver, self.panic)
        self.database.open()
        self.database.on_saved = self.saved.append

    def deliver(self, function: Callable[..., object], *args: Any) -> None:
        """In the reactor, soon."""
        self.clock.callLater(0, function, *args)

    def panic(self, failure: Any) -> None:
        """No test of this file wants one."""
        failure.raiseException()

    def limit_pages(self, pages: int) -> None:
        """The disk has room for so many."""
        self.database.connection.execute(f"PRAGMA max_page_count = {pages}")

    def run(self, seconds: float = 0.1) -> None:
        """Let time pass; the database is told to retry again and again."""
        for _ in range(round(seconds / 0.01)):
            self.clock.advance(0.01)
            self.database.save(self.clock.seconds())

    def count(self) -> int:
        """How many changes are in the tables."""
        (found,) = self.database.connection.execute("SELECT count(*) FROM rows").fetchone()
        return int(found)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """An empty database."""
    made = Scene(tmp_path / "applied.sqlite")
    yield made
    made.database.close()


def test_a_full_disk_postpones(scene: Scene) -> None:
    """What waits is kept in sequence with what comes meanwhile, and saved when there is room;
    until then it is tried once in a while, and not at every heartbeat.
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
