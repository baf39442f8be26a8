"""``twstock verify`` and ``twstock export``, which ask every replica directly. What they need is
imported when they run.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twstock.commands.command import Add, Options, refusing, tell
from twstock.commands.progress import Progress
from twstock.rest import Session, Unreachable

if TYPE_CHECKING:
    from twstock.config import Cluster
    from twstock.verify import Remote


def add_commands(add: Add) -> None:
    """Add them to the command line."""
    verify = add("verify", _verify, "compare the order logs of all replicas and the catalog")
    words = "write the stocks and every replica's order log as CSV"
    export = add("export", refusing(_export), words)
    export.add_argument("directory", metavar="DIR", type=Path)
    export.add_argument("--csv", action="store_true", help="as two tables for spreadsheets")
    for command in (verify, export):
        add_addresses(command)


def add_addresses(command: Any) -> None:
    """Add the options that say where the replicas are, and how they are asked."""
    command.add_argument(
        "--config", type=Path, help="take addresses and certificates from this cluster.toml"
    )
    command.add_argument(
        "--tls", metavar="DIR", type=Path,
        help="the certificates, if members have some: ca.pem, client.pem, client.key "
        "(default: as --config says, else $TWSTOCK_TLS)",
    )  # fmt: skip


@contextmanager
def every_replica(options: Options) -> "Iterator[dict[str, dict[int, Remote]]]":
    """Every replica, by group and id, to be asked over gRPC."""
    from twstock.certificates import TOOLS, Certificates  # noqa: PLC0415
    from twstock.config import read  # noqa: PLC0415
    from twstock.rpc.security import Plain, Tls  # noqa: PLC0415
    from twstock.verify import Remote  # noqa: PLC0415

    cluster = None if options.config is None else read(options.config)
    directory = _certificates(options, cluster)
    security = Plain() if directory is None else Tls(Certificates(directory, TOOLS))
    with ExitStack() as stack:
        members: dict[str, dict[int, Remote]] = {"order": {}, "catalog": {}}
        for group, found in members.items():
            for number, address in _addresses(options, cluster, group):
                name = f"{group}-{number}"
                remote = Remote(name, address, security.to(name))
                found[number] = stack.enter_context(remote)
        yield members


def _certificates(options: Options, cluster: "Cluster | None") -> Path | None:
    """The directory of certificates, from the command line, a file or the environment."""
    if options.tls is not None:
        return Path(options.tls)
    if cluster is not None:
        return cluster.tls
    named = os.environ.get("TWSTOCK_TLS")
    return Path(named) if named else None


def _addresses(options: Options, cluster: "Cluster | None", group: str) -> list[tuple[int, str]]:
    """Id and gRPC address of every replica of a group, from a file or a front-end."""
    if cluster is not None:
        return [(replica.id, str(replica.grpc)) for replica in cluster.replicas(group)]
    with Session(options.url) as session:
        answer = session.cluster()
    if not answer.ok:
        raise Unreachable(f"{options.url}: {answer.message}")
    rows = [row for row in answer.data["services"] if row["service"] == group]
    return [(row["id"], row["address"]) for row in rows]


def _verify(options: Options) -> int:
    from twstock.verify import verify  # noqa: PLC0415

    with every_replica(options) as found, Progress("orders") as progress:
        orders, catalogs = list(found["order"].values()), list(found["catalog"].values())
        finding = verify(orders, catalogs, compared=progress.step)
    status = finding.exit_status()
    if options.json:
        print(json.dumps({"equal": status == 0, **finding.as_json()}))
        return status
    for difference in finding.differences:
        print(difference)
    for problem in finding.missing:
        print(f"cannot reach {problem}")
    if not finding.differences and finding.replicas:
        same = "the same " if len(finding.replicas) > 1 else ""
        print(f"{', '.join(finding.replicas)}: {same}{finding.orders} orders")
    if status == 0:
        made = f"the orders and {finding.changes} changes" if finding.changes else "the orders"
        print(f"{finding.stocks} stocks: what {made} make them")
    return status


def _export(options: Options) -> int:
    with every_replica(options) as found:
        orders, catalogs = found["order"], list(found["catalog"].values())
        if options.csv:
            from twstock.backup.source import look  # noqa: PLC0415
            from twstock.backup.spreadsheet import export_csv  # noqa: PLC0415

            picture = look(orders, catalogs)
            with Progress("orders") as progress:
                paths = export_csv(options.directory, picture, progress.step)
        else:
            from twstock.commands.export import export  # noqa: PLC0415

            with Progress("orders of all logs") as progress:
                paths = export(options.directory, orders, catalogs, counted=progress.step)
    words = [str(path) for path in paths]
    return tell(options, words, "\n".join(words))
