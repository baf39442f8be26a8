"""A cluster as the text of a ``cluster.toml``: the other direction of ``config.parse``."""

from dataclasses import asdict
from typing import Any

from twstock.config import DEFAULT_TIMINGS, Cluster, Limits


def render(cluster: Cluster) -> str:
    """The TOML text that ``parse`` reads back as the same cluster."""
    lines = [f"cluster_id = {_quoted(cluster.cluster_id)}", f"data = {_quoted(cluster.data)}"]
    if cluster.catalog_csv is not None:
        lines.append(f"catalog_csv = {_quoted(cluster.catalog_csv)}")
    if cluster.tls is not None:
        lines.append(f"tls = {_quoted(cluster.tls)}")
    for front in cluster.fronts:
        lines += ["", "[[front]]", f"id = {front.id}", f'http = "{front.http}"']
        lines.append(f'internal = "{front.internal}"')
    for group in ("catalog", "order"):
        for replica in cluster.replicas(group):
            lines += ["", f"[[{group}]]", f"id = {replica.id}", f'grpc = "{replica.grpc}"']
    lines += _changed("limits", cluster.limits, Limits())
    lines += _changed("timings", cluster.timings, DEFAULT_TIMINGS)
    admin = [f"{key} = {_quoted(value)}" for key, value in cluster.admin.named().items()]
    lines += ["", "[admin]", *admin] if admin else []
    if cluster.log_format:
        lines += ["", "[logging]", f"format = {_quoted(cluster.log_format)}"]
    return "\n".join(lines) + "\n"


def _quoted(value: object) -> str:
    """A TOML basic string (TOML 1.0, section String)."""
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return (
        '"' + "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'
    )


def _changed(name: str, values: Any, defaults: Any) -> list[str]:
    base = asdict(defaults)
    rows = [f"{key} = {value}" for key, value in asdict(values).items() if value != base[key]]
    return ["", f"[{name}]", *rows] if rows else []
