"""``make bench``: throughput and latency of a local cluster, beside a bare loop of the same client.

Absolute figures drift with the machine; the last column compares each row with the same
client against a server that answers a constant, measured in the same run.
"""

import argparse
import asyncio
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bench.load import Measured, exchange, get, measure, post

RESULTS = Path(__file__).parent / "results"
CONSTANT = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def cluster(http: str, base_port: int) -> Iterator[tuple[str, int]]:
    """A cluster with fresh data, as ``twstock up`` starts it; gives the REST address."""
    with tempfile.TemporaryDirectory(prefix="twstock-bench-") as data:
        twstock = str(Path(sys.executable).with_name("twstock"))
        command = [twstock, "up", "--data", data, "--http", http]
        up = subprocess.Popen(
            [*command, "--base-port", str(base_port)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert up.stdout is not None
            if not up.stdout.readline().startswith("ready"):
                raise SystemExit("the cluster did not start")
            host, _, port = http.rpartition(":")
            yield host, int(port)
        finally:
            up.terminate()
            up.wait(30)


async def constant(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The cheapest HTTP server that the client cannot tell from a real one."""
    while not reader.at_eof():
        if await reader.readline() == b"\r\n":
            writer.write(CONSTANT)
    writer.close()


def trade(number: int) -> bytes:
    """Buy and sell in turn, so that the stock never runs out for long."""
    side = b"sell" if number // 2 % 2 == 0 else b"buy"
    return post("/orders", b'{"name":"GameStart","quantity":1,"type":"%s"}' % side)


async def run(address: tuple[str, int], seconds: float) -> list[Measured]:
    """All rows of the table."""
    reader, writer = await asyncio.open_connection(*address)
    for number in range(100):
        await exchange(reader, writer, trade(0 if number < 50 else number))
    writer.close()
    rows = []
    works = {
        "lookup, cached": lambda _: get("/stocks/AAPL"),
        "order by number": lambda n: get(f"/orders/{n % 100 + 1}"),
        "trade": trade,
    }
    for name, request in works.items():
        for connections in (1, 5, 64):
            rows.append(await measure(name, address, request, connections, seconds))
            print(f"  {name}, {connections} connections", file=sys.stderr, flush=True)
    return rows


async def floor(seconds: float) -> dict[int, Measured]:
    """What this client reaches against a constant answer, by connections."""
    server = await asyncio.start_server(constant, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()[:2]
    measured = {n: await measure("constant", address, get_root, n, seconds) for n in (1, 5, 64)}
    server.close()
    return measured


def get_root(_: int) -> bytes:
    """The request for the constant."""
    return get("/")


def table(rows: list[Measured], base: dict[int, Measured]) -> str:
    """The rows in Markdown."""
    lines = [
        "| work | connections | requests/s | p50 ms | p99 ms | not 200 | of a constant answer |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        share = row.requests_per_s / base[row.connections].requests_per_s
        lines.append(
            f"| {row.name} | {row.connections} | {row.requests_per_s:,.0f} | {row.p50_ms:.2f} "
            f"| {row.p99_ms:.2f} | {row.errors} | {share:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and keep the result under ``bench/results``."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row (3)")
    parser.add_argument("--http", default="127.0.0.1:18080", help="of the cluster it starts")
    parser.add_argument("--base-port", type=int, default=18081, help="of the cluster it starts")
    options = parser.parse_args()
    base = asyncio.run(floor(options.seconds))
    with cluster(options.http, options.base_port) as address:
        rows = asyncio.run(run(address, options.seconds))
    text = table(rows, base)
    print(text)
    now = datetime.now(UTC)
    directory = RESULTS / now.strftime("%Y-%m-%dT%H%M%SZ")
    directory.mkdir(parents=True)
    (directory / "table.md").write_text(text)
    facts = {"at": now.isoformat(), "machine": platform.platform(), "python": sys.version}
    figures = {"constant": [asdict(m) for m in base.values()], "rows": [asdict(r) for r in rows]}
    (directory / "result.json").write_text(json.dumps(facts | figures, indent=1) + "\n")
    print(f"kept in {directory.relative_to(Path.cwd())}", file=sys.stderr)


if __name__ == "__main__":
    main()
