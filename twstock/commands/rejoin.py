"""``twstock rejoin``: a directory for a replica that has lost its own."""

import argparse
from pathlib import Path

from twstock.commands.command import Add, Options, refusing, tell
from twstock.commands.progress import Progress

GROUPS = ("catalog", "order")


def add_command(add: Add) -> None:
    """Add ``rejoin`` to the command line."""
    words = "make the directory of a replica that has lost its own, from those of all others"
    command = add("rejoin", refusing(_rejoin), words)
    command.add_argument("member", metavar="NAME", type=_member, help="such as order-2")
    command.add_argument("--config", type=Path, required=True, help="the cluster.toml")
    command.add_argument(
        "--from", dest="sources", metavar="DIR", type=Path, action="append", required=True,
        help="the directory of another member, or a copy; once for each",
    )  # fmt: skip
    command.add_argument(
        "--to", metavar="DIR", type=Path, help="what to make (default: where cluster.toml says)"
    )


def _member(name: str) -> tuple[str, int]:
    group, _, number = name.rpartition("-")
    if group not in GROUPS or not number.isascii() or not number.isdigit():
        raise argparse.ArgumentTypeError("expected order-N or catalog-N")
    return group, int(number)


def _rejoin(options: Options) -> int:
    from twstock.config import read  # noqa: PLC0415
    from twstock.replication.rejoin import rejoin  # noqa: PLC0415

    group, number = options.member
    cluster = read(options.config)
    cluster.check_member(group, number)
    target = options.to or cluster.data_of(group, number)
    with Progress("entries of the log") as entries:
        made = rejoin(cluster, group, number, options.sources, target, entries.step)
    told = {"directory": str(made.path), "source": str(made.source), "entries": made.last_index}
    words = (
        f"{made.path}: {made.last_index} entries, those of {made.source}; start {group}-{number}"
    )
    return tell(options, told, words)
