"""``make test``: trial on the trial tests, then pytest on everything.

Arguments go to pytest. The exit status is 0 only if both pass, each within its time.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRIAL_S = 120
PYTEST_S = 1800


def run(module, *arguments, limit_s):
    """Run a module of this environment from the project's root; returns its exit status."""
    command = [sys.executable, "-m", module, *arguments]
    try:
        return subprocess.run(command, cwd=ROOT, timeout=limit_s, check=False).returncode
    except subprocess.TimeoutExpired:
        print(f"{module} took more than {limit_s} s", file=sys.stderr)
        return 1


def main(arguments):
    """Run both; pytest's summary is the last line."""
    trial = run(
        "twisted.trial", "--temp-directory=_trial_temp", "tests.trial_services", limit_s=TRIAL_S
    )
    pytest = run("pytest", *arguments, limit_s=PYTEST_S)
    if trial:
        print(f"trial failed with exit status {trial}", file=sys.stderr)
    return int(bool(trial or pytest))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
