"""A running cluster does what its API description says, as schemathesis finds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster_fixture import Cluster

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]
CONFIG = Path(__file__).with_name("schemathesis.toml")
CASES_MIN = 100
LIMIT_S = 200


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """One front-end and everything behind it."""
    with Cluster(tmp_path_factory.mktemp("conformance")) as running:
        yield running


def test_the_server_keeps_to_its_description(cluster, tmp_path):
    """Statuses, media types, headers and bodies are as described, wrong requests are refused and
    right ones are not, and nothing breaks the server. At least ``CASES_MIN`` requests were made.
    """
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run"]
    done = subprocess.run(
        [*command, f"{cluster.url}/openapi.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    report = done.stdout + done.stderr
    assert done.returncode == 0, report
    [cases] = re.findall(r"(\d+) generated", report)
    assert int(cases) >= CASES_MIN, report
