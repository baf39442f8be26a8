"""Measuring: twstock, then each peer, round after round; one server is up at a time."""

import contextlib
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench import cluster, load, wrk
from bench.peers import chain, etcd, fastapi_dictionary, fastapi_postgres, nginx
from bench.processes import NotStarted, subdirectory
from bench.rows import Cell
from bench.systems import BUSY_CONNECTIONS, Measured, Missing, System, Work, plural

Start = Callable[[Path], AbstractContextManager[list[System]]]
Tell = Callable[[str], None]
WARM_S = 1.0
WARM_CONNECTIONS = 16
STOP_AND_START_S = 4.0
OVERHEAD_S = 0.3


@dataclass(frozen=True, slots=True)
class Server:
    """What starts together, and the systems that it provides."""

    start: Start
    provides: tuple[str, ...]


_FASTAPI = Server(fastapi_dictionary.start, (fastapi_dictionary.NAME,))
_NGINX = Server(nginx.start, (nginx.NAME,))
_ETCD = Server(etcd.start, (etcd.NAME,))
_POSTGRES = Server(fastapi_postgres.start, (fastapi_postgres.NAME, fastapi_postgres.FAST_NAME))
_SOCKETS = Server(chain.start_sockets, (chain.SOCKETS,))
_STREAMS = Server(chain.start_streams, (chain.STREAMS,))
_TWSTOCK = Server(cluster.start, (cluster.NAME,))
_UNCACHED = Server(cluster.start_without_cache, (cluster.NAME,))
STAGES = (
    (frozenset({Work.LOOKUP, Work.ORDER}), (_TWSTOCK, _FASTAPI, _NGINX)),
    (frozenset({Work.TRADE}), (_TWSTOCK, _POSTGRES, _ETCD, _SOCKETS, _STREAMS)),
    (frozenset({Work.MISS}), (_UNCACHED, _POSTGRES)),
)
"""Works, and the servers that do them, in turn. One server is up at a time, so that no idle one
takes any time."""


@dataclass
class Found:
    """The results: figures of each cell by round, and what each missing peer needs."""

    results: dict[Cell, list[Measured]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    seconds: int
    rounds: int


def generator_name() -> str:
    """Which load generator is used, in words."""
    if wrk.installed():
        return "wrk, one thread"
    return "bench/load.py (slower than wrk and often the limit: apt-get install -y wrk)"


def estimate_s(cells: Sequence[Cell], effort: Effort) -> float:
    """About how long all rounds take."""
    servers = sum(bool(_own(server, works, cells)) for works, group in STAGES for server in group)
    warm = len({(cell.system, cell.work) for cell in cells}) * WARM_S
    each = len(cells) * (effort.seconds + OVERHEAD_S) + servers * STOP_AND_START_S + warm
    return each * effort.rounds


def measure_all(
    cells: Sequence[Cell], effort: Effort, scratch: Path, found: Found, tell: Tell
) -> None:
    """Every cell, in every round; results are added to ``found`` at once."""
    for number in range(1, effort.rounds + 1):
        for works, servers in STAGES:
            for server in servers:
                own = _own(server, works, cells)
                if own and found.missing.keys().isdisjoint(server.provides):
                    told = partial(_tell_round, tell, f"round {number}/{effort.rounds}")
                    _visit(server, own, effort.seconds, scratch, found, told)


def _tell_round(tell: Tell, prefix: str, line: str) -> None:
    tell(f"{prefix}  {line}")


def _own(server: Server, works: frozenset[Work], cells: Sequence[Cell]) -> list[Cell]:
    """The cells that are measured on one server."""
    return [cell for cell in cells if cell.work in works and cell.system in server.provides]


def _visit(
    server: Server, cells: Sequence[Cell], seconds: int, scratch: Path, found: Found, tell: Tell
) -> None:
    """Start a server with fresh data, measure its cells, and end it."""
    with contextlib.ExitStack() as stack:
        try:
            up = stack.enter_context(server.start(subdirectory(scratch, "server")))
        except Missing as error:
            found.missing |= dict.fromkeys(server.provides, str(error))
            tell(f"not installed: {error}")
            return
        except NotStarted as error:
            if cluster.NAME in server.provides:
                raise
            # The others can still be measured; the row of this one says what is wrong.
            found.missing |= dict.fromkeys(server.provides, str(error).partition("\n")[0])
            tell(str(error))
            return
        _measure({system.name: system for system in up}, cells, seconds, found, tell)


def _measure(
    systems: dict[str, System], cells: Sequence[Cell], seconds: int, found: Found, tell: Tell
) -> None:
    """Warm up each work, then measure each cell."""
    for name, work in dict.fromkeys((cell.system, cell.work) for cell in cells):
        cold = systems[name]
        load.measure(cold.address, cold.requests[work], WARM_CONNECTIONS, WARM_S)
    measure = wrk.generator()
    for cell in cells:
        system = systems[cell.system]
        measured = measure(system.address, system.requests[cell.work], cell.connections, seconds)
        found.results.setdefault(cell, []).append(measured)
        errors = f", {plural(measured.errors, 'error')}" if measured.errors else ""
        tell(
            f"{cell.work}, {plural(cell.connections, 'connection')}, {cell.system}: "
            f"{measured.requests_per_s:,.0f}/s, p50 {measured.p50_ms:.2f} ms{errors}"
        )


def closed_loop_rate(found: Found) -> float | None:
    """Median throughput of trades at ``BUSY_CONNECTIONS``, if it was measured."""
    measured = found.results.get(Cell(cluster.NAME, Work.TRADE, BUSY_CONNECTIONS), [])
    return statistics.median(one.requests_per_s for one in measured) if measured else None
