"""``twstock backup``, ``twstock restore`` and ``twstock export --csv``, as the command line has
them. What they need is imported when they run.
"""

import argparse
import json
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from twstock.errors import ConfigError, TwstockError

if TYPE_CHECKING:
    from twstock.config import Cluster
    from twstock.verify import Remote

Options = argparse.Namespace
Replicas = Callable[[Options], "AbstractContextManager[dict[str, dict[int, Remote]]]"]
"""Every replica by group and id, to be asked by gRPC."""


class Steps(Protocol):
    """Progress that is shown."""

    def step(self) -> None:
        """One more is done."""


class Surroundings(NamedTuple):
    """What these commands share with the others: where members are, and how progress is shown."""

    replicas: Replicas
    progress: Callable[[str], "AbstractContextManager[Steps]"]


Add = Callable[[str, Callable[[Options], int], str], argparse.ArgumentParser]
"""Adds a command by its name, what runs it, and a word on it."""
Command = Callable[[Options, Surroundings], int]


def add_commands(add: Add, add_offline: Add, around: Surroundings) -> None:
    """Add ``backup`` to the command line, and ``restore``, which asks no front-end."""

    def refusing(run: Command) -> Callable[[Options], int]:
        return lambda options: _refusing(run, options, around)

    backup = add("backup", refusing(_backup), "write all stocks, orders and changes to a file")
    backup.add_argument("file", metavar="FILE", type=Path)
    backup.add_argument("--force", action="store_true", help="overwrite FILE")
    backup.add_argument("--verify", action="store_true", help="check FILE, and write nothing")
    backup.add_argument("--config", type=Path, help="take addresses from this cluster.toml")
    restore = add_offline(
        "restore", refusing(_restore), "make the data of a new cluster from a backup"
    )
    restore.add_argument("file", metavar="FILE", type=Path)
    restore.add_argument("--data", metavar="DIR", required=True, help="a new directory")
    for tier in ("fronts", "catalogs", "orders"):
        restore.add_argument(f"--{tier}", metavar="N", help="as of twstock up")


def export_csv(options: Options, around: Surroundings) -> int:
    """Run ``twstock export --csv DIR``; returns the exit status."""
    return _refusing(_export, options, around)


def _refusing(run: Command, options: Options, around: Surroundings) -> int:
    """Run a command; what the file system refuses is refused."""
    try:
        return run(options, around)
    except OSError as error:
        raise TwstockError(str(error)) from None


def _backup(options: Options, around: Surroundings) -> int:
    from twstock.backup.files import check, refuse_existing, write  # noqa: PLC0415
    from twstock.backup.source import look  # noqa: PLC0415

    if options.verify:
        with around.progress("orders") as progress:
            found = check(options.file, progress.step)
    else:
        refuse_existing(options.file, options.force)
        with around.replicas(options) as members:
            picture = look(members["order"], list(members["catalog"].values()))
            at_ms = time.time_ns() // 1_000_000
            with around.progress("orders") as progress:
                found = write(options.file, picture, at_ms, options.force, progress.step)
    size = options.file.stat().st_size
    told = {"file": str(options.file), "bytes": size, **found.as_json()}
    return _tell(options, told, f"{options.file}: {found}, {size} bytes")


def _restore(options: Options, around: Surroundings) -> int:
    from twstock.backup.restore import restore  # noqa: PLC0415

    cluster = _new_cluster(options)
    with around.progress("orders, each checked and then carried out") as progress:
        found = restore(options.file, cluster, progress.step)
    told = {"data": str(cluster.data), "new_cluster_id": cluster.cluster_id, **found.as_json()}
    words = f"{cluster.data}: {found}; start it with twstock up --data {options.data}"
    return _tell(options, told, words)


def _new_cluster(options: Options) -> "Cluster":
    """A new cluster of the size that the options ask for. Raises ConfigError."""
    from twisted.python.usage import UsageError  # noqa: PLC0415

    from twstock.cluster import Options as UpOptions  # noqa: PLC0415
    from twstock.plan import plan  # noqa: PLC0415

    asked, sizes = UpOptions(), ("data", "fronts", "catalogs", "orders")
    given = {size: getattr(options, size) for size in sizes}
    try:
        asked.parseOptions([f"--{k}={v}" for k, v in given.items() if v is not None])
    except UsageError as error:
        raise ConfigError(str(error)) from None
    return plan(asked.flags, None, False, uuid.uuid4().hex)


def _export(options: Options, around: Surroundings) -> int:
    from twstock.backup.source import look  # noqa: PLC0415
    from twstock.backup.spreadsheet import export_csv as write  # noqa: PLC0415

    with around.replicas(options) as members:
        picture = look(members["order"], list(members["catalog"].values()))
        with around.progress("orders") as progress:
            paths = [str(p) for p in write(options.directory, picture, progress.step)]
    return _tell(options, paths, "\n".join(paths))


def _tell(options: Options, value: object, words: str) -> int:
    print(json.dumps(value) if options.json else words)
    return 0
