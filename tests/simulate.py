"""Many seeds of the simulation: ``python -m tests.simulate --seeds 3000 --jobs 2``.

A seed that fails is printed and makes the exit code 1; ``--seed N`` replays it, every event
on a line.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from multiprocessing import get_context

from tests.faults import Failure, simulate


def judge(seed: int) -> tuple[int, int, str]:
    """Run one seed: the seed, how many events it had, and what is wrong ("": nothing)."""
    try:
        return seed, simulate(seed).events, ""
    except Failure as failure:
        return seed, 0, str(failure)


def many(seeds: range, jobs: int) -> int:
    """Run all ``seeds``; returns the exit code."""
    started, events, failed = time.monotonic(), 0, []
    with get_context("fork").Pool(jobs) as pool:
        for count, (seed, some, wrong) in enumerate(pool.imap_unordered(judge, seeds, 10), 1):
            events += some
            if wrong:
                failed.append(seed)
                print(f"\n{wrong}\n", flush=True)
            if sys.stderr.isatty():
                print(f"\r{count} of {len(seeds)}", end="", file=sys.stderr, flush=True)
    took_s = time.monotonic() - started
    print(f"\n{len(seeds)} seeds, {events} events, {took_s:.0f} s, failed: {sorted(failed)}")
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments and run; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many (200)")
    parser.add_argument("--first", type=int, default=0, metavar="S", help="the first one (0)")
    parser.add_argument("--seed", type=int, metavar="S", help="replay this one, verbosely")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    options = parser.parse_args(arguments)
    if options.seed is None:
        return many(range(options.first, options.first + options.seeds), options.jobs)
    try:
        simulate(options.seed, verbose=True)
    except Failure as failure:
        print(str(failure).splitlines()[0])
        return 1
    print(f"seed {options.seed}: nothing wrong")
    return 0


if __name__ == "__main__":
    sys.exit(main())
