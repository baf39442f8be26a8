"""``twstock backup`` and ``twstock restore``. What they need is imported when they run."""

import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from twstock.commands.command import Add, Options, refusing, tell
from twstock.commands.progress import Progress
from twstock.commands.replicas import add_addresses, every_replica
from twstock.errors import ConfigError

if TYPE_CHECKING:
    from twstock.config import Cluster


def add_commands(add: Add, add_offline: Add) -> None:
    """Add ``backup`` to the command line, and ``restore``, which needs no front-end."""
    backup = add("backup", refusing(_backup), "write all stocks, orders and changes to a file")
    backup.add_argument("file", metavar="FILE", type=Path)
    backup.add_argument("--force", action="store_true", help="overwrite FILE")
    backup.add_argument("--verify", action="store_true", help="check FILE, and write nothing")
    add_addresses(backup)
    restore = add_offline(
        "restore", refusing(_restore), "make the data of a new cluster from a backup"
    )
    restore.add_argument("file", metavar="FILE", type=Path)
    restore.add_argument("--data", metavar="DIR", required=True, help="a new directory")
    for tier in ("fronts", "catalogs", "orders"):
        restore.add_argument(f"--{tier}", metavar="N", help="as of twstock up")


def _backup(options: Options) -> int:
    from twstock.backup.files import check, refuse_existing, write  # noqa: PLC0415
    from twstock.backup.source import look  # noqa: PLC0415

    if options.verify:
        with Progress("orders") as progress:
            found = check(options.file, progress.step)
    else:
        refuse_existing(options.file, options.force)
        with every_replica(options) as members:
            picture = look(members["order"], list(members["catalog"].values()))
            at_ms = time.time_ns() // 1_000_000
            with Progress("orders") as progress:
                found = write(options.file, picture, at_ms, options.force, progress.step)
    size = options.file.stat().st_size
    told = {"file": str(options.file), "bytes": size, **found.as_json()}
    return tell(options, told, f"{options.file}: {found}, {size} bytes")


def _restore(options: Options) -> int:
    from twstock.backup.restore import restore  # noqa: PLC0415

    cluster = _new_cluster(options)
    with Progress("orders, each checked and then carried out") as progress:
        found = restore(options.file, cluster, progress.step)
    told = {"data": str(cluster.data), "new_cluster_id": cluster.cluster_id, **found.as_json()}
    words = f"{cluster.data}: {found}; start it with twstock up --data {options.data}"
    return tell(options, told, words)


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
