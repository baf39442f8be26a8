"""The tables that show what growth costs: in stocks, in orders, and in connections."""

from collections.abc import Sequence

from bench.growth import P99_TARGET, RATE_TARGET, Grown, compare
from bench.idle import TARGET_MB, Idle
from bench.replica import (
    RSS_TARGET_MB,
    SERVES_TARGET_S,
    SYNC_UP_TARGET_PER_S,
    TARGET_ORDERS,
    LongLog,
)
from bench.systems import BUSY_CONNECTIONS
from bench.tables import number, table


def grown(found: Sequence[Grown]) -> str:
    """Throughput and p99 at each size, compared with the smallest."""
    columns = ["size", "work", "requests/s", "to the smallest", "p99 ms", "to the smallest"]
    lines = [
        [
            f"{one.grown.size.count:,} {one.grown.size.of}",
            str(one.grown.work),
            number(one.requests_per_s),
            f"**{number(one.rate_ratio)}x**",
            number(one.p99_ms),
            f"**{number(one.p99_ratio)}x**",
            one.verdict + (f", {one.errors} errors" if one.errors else ""),
        ]
        for one in sorted(compare(found), key=lambda c: (c.grown.size.of, str(c.grown.work)))
    ]
    return (
        f"## Growth in stocks and in orders\n\n{BUSY_CONNECTIONS} connections. Target, against the "
        f"smallest size: at least {RATE_TARGET:g}x its requests per second, and at most "
        f"{P99_TARGET:g}x its p99.\n\n" + table([*columns, ""], lines)
    )


def long_logs(found: Sequence[LongLog]) -> str:
    """One replica alone, with few and with many orders; the targets are for a million."""
    most = max(found, key=lambda one: one.orders)
    few = {one.orders: one for one in found if one is not most}
    columns = ["what", *(f"{orders:,} orders" for orders in few), f"{most.orders:,} orders"]
    figures: list[tuple[str, str, float | None, bool]] = [
        ("from the start of its process to serving, s", "serves_s", SERVES_TARGET_S, False),
        ("resident memory when it serves, MB", "rss_mb", RSS_TARGET_MB, False),
        ("orders/s that a client gets by SyncUp", "sync_up_per_s", SYNC_UP_TARGET_PER_S, True),
        ("orders/s in log entries, for another replica", "fetch_per_s", None, True),
        (f"orders/s with which one that lacks {most.lacked:,} catches up", "catch_up_per_s", None,
         True),
        ("writing the table of orders anew, s", "view_s", None, False),
        ("resident memory after all that, MB", "later_mb", None, False),
    ]  # fmt: skip
    lines = []
    for what, name, target, at_least in figures:
        values = [getattr(one, name) for one in (*few.values(), most)]
        cells = ["-" if value is None else number(value) for value in values]
        wanted = "-" if target is None else f"{'>=' if at_least else '<'} {target:,g}"
        figure = values[-1] if most.orders >= TARGET_ORDERS else None
        lines.append([what, *cells, wanted, verdict(figure, target, at_least=at_least)])
    return (
        "## One order replica with a long log\n\nAlone, its files in the page cache, "
        f"{most.batch} orders in an entry.\n\n" + table([*columns, "target", ""], lines)
    )


def verdict(value: float | None, target: float | None, *, at_least: bool) -> str:
    """Whether a figure meets its target."""
    if value is None or target is None:
        return "-"
    return "met" if (value >= target if at_least else value < target) else "short"


def idle(found: Sequence[Idle]) -> str:
    """The front-end's memory with idle connections."""
    columns = ["idle connections", "answered", "before, MB", "with them, MB", "growth, MB"]
    lines = [
        [
            f"{one.connections:,}",
            f"{one.answered:,}",
            number(one.before_mb),
            number(one.with_mb),
            f"**{number(one.growth_mb)}**",
            f"< {TARGET_MB:g}",
            one.verdict,
        ]
        for one in found
    ]
    return (
        "## Idle connections to a front-end\n\nResident memory; each connection was asked one "
        "thing and is kept.\n\n" + table([*columns, "target", ""], lines)
    )
