"""A cluster's configuration, parsed once from TOML into dataclasses; every default and limit.

A file names the members and may override any value of ``Timings`` and ``Limits``::

    cluster_id = "2f0c..."          # any text; data of another cluster is refused
    data = "var"                    # directory of all members' data
    tls = "tls"                     # directory of certificates; without it gRPC goes without TLS
    [[front]]
    id = 1
    http = "127.0.0.1:8080"         # REST, for everybody
    internal = "127.0.0.1:50055"    # DELETE /delete/NAME, for the catalog alone
    [[catalog]]
    id = 1
    grpc = "127.0.0.1:50051"
    [[order]]
    id = 1
    grpc = "127.0.0.1:50052"
    [limits]
    cache_size = 100
    [admin]                         # without it nobody can change stocks
    token_file = "admin-token"
    [logging]
    format = "text"                 # or "json", a document a line; $TWSTOCK_LOG_FORMAT wins
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from twstock.access import Admin, parse_admin
from twstock.consistency import check
from twstock.errors import ConfigError
from twstock.replication.messages import Membership, Timings

T = TypeVar("T")
_VALUE_MAX = 2**53
"""No sensible size or duration is larger, and larger floats skip integers."""
_ID_MAX = 2**31 - 1
"""The largest id that fits into a message."""
_MAY_BE_ZERO = {
    "cache_size", "changes_max", "drain_s", "feed_subscribers_max", "feed_recent_trades",
    "rpc_streams_max", "rpc_watches_max", "election_grace_s", "stagger_s", "jitter_s", "stable_s",
    "flap_window_s",
}  # fmt: skip
"""The settings that may be 0. All others have to be positive."""

DEFAULT_HTTP = "127.0.0.1:8080"
DEFAULT_BASE_PORT = 50051
DEFAULT_TIMINGS = Timings(
    heartbeat_s=0.06,
    election_s=0.3,
    election_grace_s=0.03,
    stagger_s=0.06,
    jitter_s=0.04,
    append_timeout_s=1.0,
    stable_s=2.0,
    lease_fraction=0.9,
    lease_drain_s=0.25,
    flap_window_s=300.0,
    append_entries_max=1024,
    append_bytes_max=512 * 1024,
    append_window=1,
)


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Replica:
    """One member of the catalog or order group."""

    id: int
    grpc: Address


@dataclass(frozen=True, slots=True)
class Front:
    """One front-end: ``http`` is public, ``internal`` is for the catalog alone."""

    id: int
    http: Address
    internal: Address


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds and durations outside the replicated log. Suffixes give the unit."""

    # front-end
    cache_size: int = 100
    body_bytes_max: int = 16 * 1024
    batch_body_bytes_max: int = 512 * 1024
    batches_max: int = 64
    header_bytes_max: int = 16 * 1024
    header_timeout_s: float = 5.0
    body_timeout_s: float = 10.0
    idle_timeout_s: float = 60.0
    connections_max: int = 4096
    requests_waiting_max: int = 4096
    page_max: int = 1000
    calls_under_way_max: int = 24
    request_budget_s: float = 1.9
    retry_s: float = 0.025
    probe_every_s: float = 0.1
    probe_deadline_s: float = 0.25
    lease_renew_s: float = 0.08
    drain_s: float = 1.0
    feed_subscribers_max: int = 2000
    feed_names_max: int = 200
    feed_interval_s: float = 0.1
    feed_keep_alive_s: float = 15.0
    feed_unsent_bytes_max: int = 256 * 1024
    feed_trades_max: int = 10_000
    feed_recent_trades: int = 10_000
    # order
    batch_orders_max: int = 256
    orders_waiting_max: int = 8192
    recent_orders: int = 10_000
    trade_deadline_s: float = 1.0
    reconcile_every_s: float = 1.0
    publication_questions_max: int = 4
    # catalog
    cache_lease_s: float = 0.25
    unrecorded_trades_max: int = 2000
    stocks_max: int = 100_000
    changes_max: int = 100_000
    invalidate_deadline_s: float = 0.25
    refused_keys_max: int = 100_000
    refused_keys_s: float = 24 * 3600.0
    # gRPC
    rpc_threads: int = 128
    rpc_client_calls_max: int = 96
    rpc_streams_max: int = 32
    rpc_watches_max: int = 16
    control_deadline_s: float = 0.25
    out_of_reach_s: float = 1.0
    append_deadline_s: float = 1.0
    message_bytes_max: int = 4 * 1024 * 1024
    fetch_entries_max: int = 2000
    sync_orders_max: int = 10_000
    # disk
    segment_bytes: int = 16 * 1024 * 1024
    spare_segments: int = 2
    disk_hung_s: float = 0.5
    views_every_s: float = 0.5

    @property
    def piece_bytes_max(self) -> int:
        """The largest payload of one message: half of it. The other half is for everything else
        that the message carries.
        """
        return self.message_bytes_max // 2


@dataclass(frozen=True, slots=True)
class Cluster:
    """Everything that a service has to know about its cluster."""

    cluster_id: str
    data: Path
    fronts: tuple[Front, ...]
    catalogs: tuple[Replica, ...]
    orders: tuple[Replica, ...]
    catalog_csv: Path | None = None
    timings: Timings = DEFAULT_TIMINGS
    limits: Limits = field(default_factory=Limits)
    admin: Admin = field(default_factory=Admin)
    log_format: str = ""
    tls: Path | None = None

    def replicas(self, group: str) -> tuple[Replica, ...]:
        """The members of the group ``catalog`` or ``order``."""
        return self.catalogs if group == "catalog" else self.orders

    def replica(self, group: str, number: int) -> Replica:
        """One member; raises ConfigError when the cluster has none of that id."""
        for replica in self.replicas(group):
            if replica.id == number:
                return replica
        raise ConfigError(f"{group}-{number} is not in the configuration")

    def front(self, number: int) -> Front:
        """One front-end; raises ConfigError when the cluster has none of that id."""
        for front in self.fronts:
            if front.id == number:
                return front
        raise ConfigError(f"front-{number} is not in the configuration")

    def check_member(self, tier: str, number: int) -> None:
        """Raise ConfigError unless the tier (front, catalog or order) has a member of that id."""
        if tier == "front":
            self.front(number)
        else:
            self.replica(tier, number)

    def membership(self, group: str, number: int) -> Membership:
        """Who is in a group, as seen by one of its members."""
        return Membership(number, tuple(sorted(r.id for r in self.replicas(group))))

    def data_of(self, group: str, number: int) -> Path:
        """The data directory of one replica."""
        return self.data / f"{group}-{number}"


def resolved(path: Path) -> Path | None:
    """``path`` without symbolic links; None: they lead in a circle."""
    try:
        real = path.resolve()
    except RuntimeError:  # raised by pathlib of Python 3.11 and 3.12
        return None
    # From Python 3.13 on, pathlib leaves such links as they are.
    return None if any(part.is_symlink() for part in (real, *real.parents)) else real


def parse_address(text: object, where: str) -> Address:
    """``HOST:PORT`` or ``[IPv6]:PORT``; raises ConfigError naming ``where``."""
    host, colon, port = str(text).rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    is_host = host and host.isprintable() and not set(host) & set("/ ")  # a URL has slashes
    if not colon or not is_host or not port.isascii() or not port.isdigit():
        raise ConfigError(f"{where}: expected HOST:PORT, got {text!r}")
    number = int(port.lstrip("0")[:6] or "0")  # int() refuses a text of thousands of digits
    if not 0 < number < 65536:
        raise ConfigError(f"{where}: a port is a number from 1 to 65535, got {port}")
    return Address(host, number)


def default_cluster(
    data: Path = Path("var"),
    cluster_id: str = "default",
    http: Address | None = None,
    base_port: int = DEFAULT_BASE_PORT,
    fronts: int = 1,
    catalogs: int = 1,
    orders: int = 3,
    catalog_csv: Path | None = None,
    limits: Limits | None = None,
    timings: Timings = DEFAULT_TIMINGS,
) -> Cluster:
    """A cluster on one machine: front-end k on ``http`` port + k - 1, and from ``base_port``
    up the catalogs, the orders, and the front-ends' internal listeners.
    """
    first = http or parse_address(DEFAULT_HTTP, "http")
    local = "127.0.0.1"
    last = max(first.port + fronts - 1, base_port + catalogs + orders + fronts - 1)
    if last > 65535:
        raise ConfigError(f"--base-port: the cluster would need port {last}")
    internal = base_port + catalogs + orders
    return Cluster(
        cluster_id,
        data,
        tuple(
            Front(k + 1, Address(first.host, first.port + k), Address(local, internal + k))
            for k in range(fronts)
        ),
        tuple(Replica(k + 1, Address(local, base_port + k)) for k in range(catalogs)),
        tuple(Replica(k + 1, Address(local, base_port + catalogs + k)) for k in range(orders)),
        catalog_csv,
        timings,
        limits or Limits(),
    )


def read(path: Path) -> Cluster:
    """The cluster that a file describes. Raises ConfigError naming the file."""
    try:
        return parse(path.read_text(encoding="utf-8"), path.parent)
    except (OSError, ValueError, ConfigError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def parse(text: str, base: Path = Path()) -> Cluster:
    """The cluster that a TOML text describes; ``base`` is where relative paths start.

    Raises ConfigError naming the key at fault; unknown keys are errors.
    """
    try:
        table = tomllib.loads(text)
    except ValueError as error:  # also a number with more digits than Python reads
        raise ConfigError(f"not valid TOML: {error}") from None
    known = {"cluster_id", "data", "catalog_csv", "tls", "front", "catalog", "order"}
    known |= {"limits", "timings", "admin", "logging"}
    for key in table.keys() - known:
        raise ConfigError(f"{key}: unknown key")
    csv = _text(table, "catalog_csv", "") if "catalog_csv" in table else None
    cluster = Cluster(
        cluster_id=_text(table, "cluster_id", "default"),
        data=base / _text(table, "data", "var"),
        fronts=tuple(_front(row, k) for k, row in enumerate(_rows(table, "front"))),
        catalogs=_replicas(table, "catalog"),
        orders=_replicas(table, "order"),
        catalog_csv=None if csv is None else base / csv,
        timings=_override(DEFAULT_TIMINGS, table.get("timings", {}), "timings"),
        limits=_override(Limits(), table.get("limits", {}), "limits"),
        admin=parse_admin(table.get("admin", {}), base),
        log_format=_log_format(table.get("logging", {})),
        tls=base / _text(table, "tls", "") if "tls" in table else None,
    )
    check(cluster)
    return cluster


def _text(table: Mapping[str, Any], key: str, default: str) -> str:
    value = table.get(key, default)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{key}: expected a text, got {value!r}")
    return value


def _rows(table: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    rows = table.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{key}: expected tables written [[{key}]]")
    if not rows:
        raise ConfigError(f"{key}: the cluster needs at least one")
    return rows


def _fields(row: Mapping[str, Any], where: str, names: set[str]) -> int:
    """Checks that a row has exactly these fields and an id; returns the id."""
    for key in row.keys() ^ ({"id"} | names):
        raise ConfigError(f"{where}.{key}: {'unknown key' if key in row else 'missing'}")
    number = row["id"]
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= _ID_MAX:
        raise ConfigError(f"{where}.id: expected a number from 1 to {_ID_MAX}, got {number!r}")
    return number


def _front(row: Mapping[str, Any], position: int) -> Front:
    where = f"front[{position}]"
    number = _fields(row, where, {"http", "internal"})
    http = parse_address(row["http"], f"{where}.http")
    return Front(number, http, parse_address(row["internal"], f"{where}.internal"))


def _replicas(table: Mapping[str, Any], group: str) -> tuple[Replica, ...]:
    rows = enumerate(_rows(table, group))
    return tuple(
        Replica(
            _fields(row, f"{group}[{k}]", {"grpc"}),
            parse_address(row["grpc"], f"{group}[{k}].grpc"),
        )
        for k, row in rows
    )


def _log_format(table: object) -> str:
    if not isinstance(table, dict) or table.keys() - {"format"}:
        raise ConfigError("logging: expected a table with the key format")
    form = table.get("format", "")
    if form not in ("", "text", "json"):
        raise ConfigError(f"logging.format: expected text or json, got {form!r}")
    return str(form)


def _override(defaults: T, table: object, where: str) -> T:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: expected a table")
    values = asdict(defaults)  # type: ignore[call-overload]
    for key, value in table.items():
        if key not in values:
            raise ConfigError(f"{where}.{key}: unknown key")
        wanted = type(values[key])
        good = isinstance(value, (wanted, int)) and not isinstance(value, bool)
        if not good or not 0 <= value < _VALUE_MAX or not (value or key in _MAY_BE_ZERO):
            least = "from 0 up" if key in _MAY_BE_ZERO else "above 0"
            kind = "an integer" if wanted is int else "a number"
            raise ConfigError(f"{where}.{key}: expected {kind} {least}, got {value!r}")
        values[key] = wanted(value)
    return type(defaults)(**values)
