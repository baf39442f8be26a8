"""The commands in the documents do what stands below them."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.cluster_fixture import Cluster

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]
ROOT = Path(__file__).resolve().parent.parent
SHOWN = "127.0.0.1:8080"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A new cluster: the examples begin with order number 1."""
    with Cluster(tmp_path_factory.mktemp("examples")) as running:
        yield running


def examples(document):
    """Every command of a document's sessions, with what it says."""
    for session in re.findall(r"^```console\n(.*?)^```$", document, re.MULTILINE | re.DOTALL):
        for example in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
            command, _, said = example.partition("\n")
            yield command, said.strip()


def pattern_of(said):
    """``...`` stands for anything: in a line, or as a line of its own for any number of lines."""
    lines = re.sub(r"^\.\.\.\n", "\0", said, flags=re.MULTILINE)
    escaped = re.escape(lines).replace(re.escape("\0"), "(?:.*\n)*?")
    return escaped.replace(re.escape("..."), ".*")


def test_the_session_with_the_api_is_true(cluster):
    """Line by line, in the sequence of the document."""
    document = (ROOT / "docs/api.md").read_text()
    address = ":".join(map(str, cluster.address()))
    found = list(examples(document))
    assert len(found) >= 15
    for command, said in found:
        done = subprocess.run(
            command.replace(SHOWN, address),
            shell=True,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            env={**os.environ, "no_proxy": "127.0.0.1"},
        )
        answered = done.stdout.replace("\r", "").replace(address, SHOWN).strip()
        assert re.fullmatch(pattern_of(said), answered), f"{command}\n{answered}"
