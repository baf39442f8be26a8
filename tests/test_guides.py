"""The guides tell the truth: every command in them runs, and prints what they say."""

import shutil
from contextlib import ExitStack

import pytest

from tests.cluster_fixture import Cluster, wait_until
from tests.guides import ROOT, URL, Shell, commands, matches, unmarked

GUIDES = [*sorted(path.name for path in (ROOT / "docs").glob("guide-*.md")), "api.md"]


def test_a_session_is_read_as_it_is_typed():
    """Commands over several lines, output of several lines, and lines before any command."""
    text = (
        "```console\nhello\n$ one\n1\n2\n$ two \\\n>   three\n```\nno\n```json\n$ not this\n```\n"
    )
    found = commands(text)
    assert [(c.text, c.output, c.line) for c in found] == [
        ("one", "1\n2", 3),
        ("two \\\n  three", "", 6),
    ]


@pytest.mark.parametrize(
    ("wanted", "got", "same"),
    [
        ("a...c", "abc", True),
        ("a\n...\nc", "a\nb\nb\nc\n", True),
        ("a", "ab", False),
        ("a.c", "abc", False),
        ('{"n":1,...}', '{"n":2,"m":3}', False),
    ],
)
def test_dots_stand_for_anything(wanted, got, same):
    """Three dots stand for any text; one dot, and everything else, for itself."""
    assert matches(wanted, got) is same


@pytest.mark.parametrize("name", GUIDES)
def test_no_command_of_a_guide_hides(name):
    """Whatever looks like a command is in a block whose commands are run."""
    assert unmarked((ROOT / "docs" / name).read_text()) == set()


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", GUIDES)
def test_every_command_of_a_guide_runs(name, tmp_path):
    """In its sequence, with a fresh cluster if it needs one; it prints what the guide says."""
    guide = (ROOT / "docs" / name).read_text()
    where = tmp_path / "shell"
    where.mkdir()
    with ExitStack() as stack:
        address = URL
        if URL in guide:
            cluster = stack.enter_context(Cluster(tmp_path / "data"))
            address = cluster.url.removeprefix("http://")
            stack.callback(cluster.assert_verified)
            # The highest id leads, sooner or later: readers type more slowly than a test.
            wait_until(lambda: cluster.leader() == "order-3", "order-3 to lead")
        shell = Shell(where, address)
        for command in commands(guide):
            shell.run(command)
