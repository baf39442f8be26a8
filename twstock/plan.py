"""What ``twstock up`` runs: the cluster that its flags and an existing ``cluster.toml`` describe,
its members, and which of them do not serve yet.

Pure. Flags win over the file; what no flag sets stays as the file has it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from twstock.access import Admin
from twstock.config import (
    DEFAULT_BASE_PORT,
    DEFAULT_HTTP,
    Address,
    Cluster,
    default_cluster,
    parse,
    parse_address,
    resolved,
)
from twstock.consistency import CACHE_SIZE_MAX
from twstock.errors import ConfigError
from twstock.tomltext import render

TOML = "cluster.toml"
"""The file of a cluster, in the directory of its data."""


@dataclass(frozen=True, slots=True)
class Flags:
    """The flags of ``twstock up``, checked; None: not given."""

    data: Path
    http: Address | None = None
    base_port: int | None = None
    fronts: int | None = None
    catalogs: int | None = None
    orders: int | None = None
    catalog_csv: Path | None = None
    cache_size: int | None = None
    admin_token_file: Path | None = None
    restart: bool = True
    logs: bool = False


def parse_flags(options: Mapping[str, Any]) -> Flags:
    """Parse the flags of the command line; raises ConfigError naming the one at fault."""
    http = options["http"]
    return Flags(
        data=_path("data", options["data"]),
        http=None if http is None else parse_address(http, "--http"),
        base_port=_number(options, "base-port", 1, 65535),
        fronts=_number(options, "fronts", 1, 64),
        catalogs=_number(options, "catalogs", 1, 9),
        orders=_number(options, "orders", 1, 9),
        catalog_csv=_optional(options, "catalog-csv"),
        cache_size=_number(options, "cache-size", 0, CACHE_SIZE_MAX),
        admin_token_file=_optional(options, "admin-token-file"),
        restart=not options["no-restart"],
        logs=bool(options.get("logs")),
    )


def plan(flags: Flags, old: Cluster | None, has_data: bool, new_id: str) -> Cluster:
    """The cluster to run, its data directory ``flags.data``.

    ``old`` is the cluster of the ``cluster.toml`` there, None without one; ``has_data``: the
    replicas have written data, so their number cannot change; ``new_id`` names a new cluster.
    Raises ConfigError naming the flag or the key at fault.
    """
    if old is not None and has_data:
        _same_number("--catalogs", flags.catalogs, len(old.catalogs))
        _same_number("--orders", flags.orders, len(old.orders))
    cluster = _fresh(flags, new_id) if old is None else _moved(flags, old)
    size = flags.cache_size
    limits = cluster.limits if size is None else replace(cluster.limits, cache_size=size)
    csv = flags.catalog_csv or cluster.catalog_csv
    admin = Admin(flags.admin_token_file) if flags.admin_token_file else cluster.admin
    cluster = replace(cluster, data=flags.data, limits=limits, catalog_csv=csv, admin=admin)
    return parse(to_text(cluster), flags.data)


def to_text(cluster: Cluster) -> str:
    """The ``cluster.toml`` of a cluster. Its data, and certificates among the data, are named
    relative to the file, so that all can be moved together.
    """
    tls, data = cluster.tls, cluster.data
    if tls is not None and tls.is_relative_to(data):
        tls = tls.relative_to(data)
    return render(replace(cluster, data=Path(), tls=tls))


def unready(cluster: Cluster, services: Iterable[Mapping[str, Any]]) -> list[str]:
    """Which members do not serve yet, judged by the answer to ``GET /cluster``.

    Empty when every member is alive, has joined its group, and each group has a leader.
    """
    rows = list(services)
    serving = ("leader", "follower", "serving")
    alive = {f"{r['service']}-{r['id']}" for r in rows if r["alive"] and r["role"] in serving}
    led = {row["service"] for row in rows if row["alive"] and row["role"] == "leader"}
    missing = [name for name in member_names(cluster) if name not in alive]
    return missing + [f"{group} leader" for group in ("catalog", "order") if group not in led]


def tiers(cluster: Cluster) -> dict[str, list[str]]:
    """The members' names by tier, in the order in which they are stopped."""
    ids = {
        "front": [front.id for front in cluster.fronts],
        "order": [replica.id for replica in cluster.orders],
        "catalog": [replica.id for replica in cluster.catalogs],
    }
    return {tier: [f"{tier}-{number}" for number in ids[tier]] for tier in ids}


def member_names(cluster: Cluster) -> list[str]:
    """The names of all members."""
    return [name for names in tiers(cluster).values() for name in names]


def addresses(cluster: Cluster) -> dict[str, Address]:
    """Every address that the cluster listens on, by the member that does."""
    found = {f"front-{front.id}": front.http for front in cluster.fronts}
    found |= {f"front-{front.id} (internal)": front.internal for front in cluster.fronts}
    for group in ("catalog", "order"):
        found |= {f"{group}-{r.id}": r.grpc for r in cluster.replicas(group)}
    return found


def _path(flag: str, text: str) -> Path:
    path = resolved(Path(text))
    if path is None:
        raise ConfigError(f"--{flag}: {text}: symbolic links that lead in a circle")
    return path


def _optional(options: Mapping[str, Any], flag: str) -> Path | None:
    return None if options[flag] is None else _path(flag, options[flag])


def _number(options: Mapping[str, Any], flag: str, least: int, most: int) -> int | None:
    text = options[flag]
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,9}", str(text)) or not least <= int(text) <= most:
        raise ConfigError(f"--{flag}: expected a number from {least} to {most}, got {text!r}")
    return int(text)


def _same_number(flag: str, wanted: int | None, present: int) -> None:
    if wanted is not None and wanted != present:
        raise ConfigError(
            f"{flag}: the data there belongs to a cluster of {present}; the number cannot change"
        )


def _fresh(flags: Flags, new_id: str) -> Cluster:
    return default_cluster(
        cluster_id=new_id,
        http=flags.http or parse_address(DEFAULT_HTTP, "--http"),
        base_port=flags.base_port or DEFAULT_BASE_PORT,
        fronts=flags.fronts or 1,
        catalogs=flags.catalogs or 1,
        orders=flags.orders or 3,
    )


def _moved(flags: Flags, old: Cluster) -> Cluster:
    """``old`` with as many members, at such addresses, as the flags ask for."""
    shape = default_cluster(
        http=flags.http or old.fronts[0].http,
        base_port=flags.base_port or old.catalogs[0].grpc.port,
        fronts=flags.fronts or len(old.fronts),
        catalogs=flags.catalogs or len(old.catalogs),
        orders=flags.orders or len(old.orders),
    )
    resized = (len(shape.catalogs), len(shape.orders)) != (len(old.catalogs), len(old.orders))
    if flags.base_port or resized:
        old = replace(old, catalogs=shape.catalogs, orders=shape.orders, fronts=shape.fronts)
    if flags.http or len(shape.fronts) != len(old.fronts):
        old = replace(old, fronts=shape.fronts)
    return old
