"""``make bench`` and ``twstock bench``: twstock compared with its peers on this machine.

Tables and plots are kept under bench/results; docs/performance.md explains what each row means.
Figures drift with the machine: quote ratios.
"""

import argparse
import contextlib
import math
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import parts, plots, report
from bench.processes import NotStarted
from bench.rounds import Effort, generator_name
from bench.rows import ROWS, cells, chosen, matches
from bench.systems import plural

DESCRIPTION = """
Measure twstock against FastAPI, PostgreSQL, etcd and nginx on this machine, with servers of its own
on loopback. It needs no internet; a row whose peer is not installed says what to install. Tables
and plots are kept under bench/results; docs/performance.md tells what each row means.
"""
RESULTS = Path(__file__).parent / "results"
EXTRA_S = 300
SLACK = 2.0


class Stopped(KeyboardInterrupt):
    """A signal asks the benchmark to stop, or its time is up.

    A KeyboardInterrupt, because event loops let that through.
    """


@contextlib.contextmanager
def stoppable(limit_s: float) -> Iterator[None]:
    """SIGINT, SIGTERM and the end of the time raise Stopped, once: nothing may interrupt the ending
    of the servers, which waits for each of them for a bounded time.
    """
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)

    def stop(number: int, _: object) -> None:
        for one in signals:
            signal.signal(one, signal.SIG_IGN)
        raise Stopped("out of time" if number == signal.SIGALRM else "stopped by a signal")

    before = [signal.signal(one, stop) for one in signals]
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)


def parse(words: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog, description=DESCRIPTION)
    parser.add_argument("--seconds", type=int, default=3, help="for each row and round (3)")
    parser.add_argument("--rounds", type=int, default=5, help="medians are taken over them (5)")
    parser.add_argument("--trials", type=int, default=20, help="fail-overs of each kind (20)")
    parser.add_argument("--quick", action="store_true", help="a smoke test: one round of 1 s")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="WORDS",
        help="only rows and parts whose names contain one of these; --list shows the names",
    )
    parser.add_argument("--list", action="store_true", help="show the names of rows and parts")
    options = parser.parse_args(words)
    if options.quick:
        options.seconds = options.rounds = options.trials = 1
    for name in ("seconds", "rounds", "trials"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: expected at least 1")
    if not chosen(options.only) and not any(matches(p.name, options.only) for p in parts.PARTS):
        parser.error("--only: no row and no part has such a name; see --list")
    return options


def tell(line: str) -> None:
    """Show progress."""
    print(f"  {line}", file=sys.stderr, flush=True)


def run(options: argparse.Namespace, directory: Path) -> str | None:
    """Measure, and keep what was found after every part; returns what went wrong, if it did."""
    wanted = [part for part in parts.PARTS if matches(part.name, options.only)]
    effort = Effort(options.seconds, options.rounds)
    # All servers keep their data in one directory, so that they use the same disk.
    with tempfile.TemporaryDirectory(prefix="twstock-bench-") as scratch:
        Path(scratch).chmod(0o711)
        job = parts.Job(Path(scratch), effort, options.trials, options.quick, tell)
        curves = any(part.name == parts.CURVES_PART for part in wanted)
        job.cells = cells(chosen(options.only), curves)
        limit_s = job.estimate_s(wanted)
        tell(
            f"{len(job.cells)} measurements in {plural(effort.rounds, 'round')}, then "
            f"{plural(len(wanted), 'part')}: about {plural(math.ceil(limit_s / 60), 'minute')}"
        )
        found = report.Report(
            report.facts(Path(scratch))
            | {
                "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
                "generator": generator_name(),
                "seconds": effort.seconds,
                "rounds": effort.rounds,
                "complete": False,
            },
            rows=chosen(options.only),
        )
        job.report = found
        try:
            with stoppable(limit_s * SLACK + EXTRA_S):
                for step in parts.steps(wanted):
                    step(job)
                    report.write(found, directory)
            found.facts["complete"] = True
        except (Stopped, NotStarted, subprocess.SubprocessError, TimeoutError) as error:
            return str(error) or type(error).__name__
        finally:
            report.write(found, directory)
    return None


def main(words: Sequence[str] | None = None, prog: str = "python -m bench") -> int:
    """Measure, print the table, and keep the results; returns the exit status."""
    options = parse(words, prog)
    if options.list:
        print("\n".join([row.label for row in ROWS] + [part.name for part in parts.PARTS]))
        return 0
    directory = RESULTS / datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    began = time.monotonic()
    problem = run(options, directory)
    plots.draw(directory, tell)
    print((directory / "table.md").read_text())
    print(f"{time.monotonic() - began:.0f} s; kept in {directory}", file=sys.stderr)
    if problem:
        print(f"{prog}: {problem}", file=sys.stderr)
    return int(bool(problem))


if __name__ == "__main__":
    sys.exit(main())
