"""A test that never ends fails when its time is up, whether the reactor runs it or not."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HANGING = """
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred


@pytest.mark.timeout(6)
@pytest_twisted.ensureDeferred
async def test_that_waits_for_nothing():
    await Deferred()


@pytest.mark.timeout(60)
@pytest_twisted.ensureDeferred
async def test_that_is_well():
    pass


@pytest.mark.timeout(1)
def test_that_turns():
    while True:
        pass
"""


def test_a_test_that_hangs_fails_and_the_next_one_runs(tmp_path):
    """This holds for a test that the reactor runs, where pytest-timeout's exception would only be
    logged, and for one outside of it.
    """
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_pyfunc_call\n")
    (tmp_path / "test_hanging.py").write_text(HANGING)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "2 failed, 1 passed" in done.stdout
    assert "TimeoutError" in done.stdout
