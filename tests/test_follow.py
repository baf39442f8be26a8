"""``twstock up --logs``: the lines of the members' logs, as they are written."""

import io

import pytest

from twstock.follow import BYTES_MAX, Follower


@pytest.fixture
def log(tmp_path):
    """A member's log with a line of a run before."""
    path = tmp_path / "service.log"
    path.write_bytes(b"old\n")
    return path


def test_only_what_is_new_is_shown_and_whole_lines_alone(log):
    """Half a line waits for its other half."""
    out = io.StringIO()
    follower = Follower([log], out)
    with log.open("ab") as file:
        for part, shown in ((b"a", ""), (b"b\nc", "ab\n"), (b"\n", "ab\nc\n")):
            file.write(part)
            file.flush()
            follower.look()
            assert out.getvalue() == shown


def test_a_log_that_is_not_there_yet_is_shown_from_its_beginning(tmp_path):
    """So is a new one that replaces it."""
    out, path = io.StringIO(), tmp_path / "service.log"
    follower = Follower([path], out)
    follower.look()
    path.write_bytes(b"first line\n")
    follower.look()
    path.replace(tmp_path / "service.log.1")
    path.write_bytes(b"new\n")
    follower.look()
    assert out.getvalue() == "first line\nnew\n"


def test_a_line_without_an_end_does_not_hold_up_the_rest(log):
    """One that is longer than what is read at a time is shown in pieces."""
    out = io.StringIO()
    follower = Follower([log], out)
    with log.open("ab") as file:
        file.write(b"x" * (BYTES_MAX + 10) + b"\nend\n")
    follower.look()
    follower.look()
    assert out.getvalue().endswith("x\nend\n")
    assert len(out.getvalue()) == BYTES_MAX + 15
