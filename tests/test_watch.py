"""``twstock status --watch``: what it shows, what it says has changed, and how it ends."""

import io
import json
import os
import pty
import re
import signal
import subprocess
import threading
from http.server import ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster_fixture import TWSTOCK, free_ports, wait_until
from tests.test_cli import Answers
from twstock.commands.watch import View, changes, uptime, watch
from twstock.rest import Answer, Unreachable


def row(name, role="follower", **known):
    """A member's row as ``/cluster`` has it."""
    service, number = name.split("-")
    row = {"service": service, "id": int(number), "alive": True, "role": role, "term": 3}
    return {**row, "pid": 100 + int(number), "address": "a:1", "reason": "", **known}


CALM = [
    row("front-1", "serving", term=None),
    row("catalog-1", "leader", term=1),
    row("order-1"),
    row("order-2"),
    row("order-3", "leader"),
]


def replaced(*rows):
    """The calm cluster with some rows replaced."""
    new = {(r["service"], r["id"]): r for r in rows}
    return [new.get((r["service"], r["id"]), r) for r in CALM]


DEAD = row("order-3", None, alive=False, pid=None, term=None)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (CALM, CALM, []),
        (replaced(DEAD), replaced(DEAD), []),
        (
            CALM,
            replaced(DEAD),
            ["order-3 does not answer any more", "order: nobody leads; order-3 did"],
        ),
        (
            CALM,
            replaced(DEAD, row("order-2", "leader", term=4)),
            [
                "order-3 does not answer any more",
                "order: order-2 leads term 4; order-3 led term 3",
            ],
        ),
        (replaced(DEAD), CALM, ["order-3 is back as process 103", "order: order-3 leads term 3"]),
        (CALM, replaced(row("order-1", pid=7)), ["order-1 was started again as process 7"]),
        (
            CALM,
            replaced(row("order-3", "leader", term=5)),
            ["order: order-3 leads term 5; order-3 led term 3"],
        ),
        (CALM, replaced(row("order-1", "leader", term=2)), []),
        ([], CALM, ["catalog: catalog-1 leads term 1", "order: order-3 leads term 3"]),
    ],
)
def test_elections_deaths_and_returns_are_told(before, after, words):
    """Two looks at the cluster tell what happened in between. A claim to lead an older term does
    not count.
    """
    assert changes(before, after) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, None), (0.4, "0s"), (59.9, "59s"), (61, "1m 1s"), (7322, "2h 2m"), (90000, "1d 1h")],
)
def test_a_duration_has_its_two_largest_units(seconds, words):
    """It is short enough for a column."""
    assert uptime(seconds) == words


def test_leaders_are_marked():
    """One member of each group is marked, although a replaced leader may still say that it
    leads.
    """
    view = View("http://h")
    view.see(replaced(row("order-1", "leader", term=2)), "12:00:00")
    assert [mark for mark, _ in view.table()] == [" ", " ", "*", " ", " ", "*"]
    assert any(re.match(r"\x1b\[1m\* order-3 .*\x1b\[0m$", x) for x in view.screen("12", 200, 50))


def test_a_front_end_that_is_lost_is_said_once_and_what_was_known_stays():
    """The screen says how old it is; when the front-end is back, that is said too."""
    view = View("http://h")
    view.see(CALM, "12:00:00")
    assert view.miss("refused", "12:00:01") == ["the front-end cannot be reached: refused"]
    assert view.miss("refused", "12:00:02") == []
    lines = view.screen("12:00:02", 200, 50)
    assert lines[0].endswith("cannot be reached, trying again (refused); as of 12:00:00:")
    assert any("order-3" in line for line in lines)
    news = view.see(replaced(DEAD), "12:00:03")
    assert news[:2] == ["the front-end answers again", "order-3 does not answer any more"]
    assert "12:00:03  order-3 does not answer any more" in view.screen("12:00:03", 200, 50)


@given(columns=st.integers(1, 300), rows=st.integers(1, 80), text=st.text(max_size=40))
def test_the_screen_fits_any_terminal(columns, rows, text):
    """No line wraps and nothing scrolls; no text of the cluster moves the cursor."""
    view = View("http://h")
    view.see(CALM, "1")
    for number in range(20):
        view.see(replaced(row("order-1", pid=number + 1, address=text)), "2")
    lines = [re.sub(r"\x1b\[[0-9]m", "", line) for line in view.screen("3", columns, rows)]
    assert len(lines) <= max(rows - 1, 1)
    assert all(len(line) <= max(columns - 1, 1) and line.isprintable() for line in lines)


class Front:
    """A front-end that gives its answers one after the other, and then Ctrl-C."""

    url = "http://h"

    def __init__(self, *answers):
        self.answers = list(answers)

    def cluster(self):
        """The next answer."""
        if not self.answers:
            raise KeyboardInterrupt
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def seen(services):
    """A front-end's answer."""
    return Answer(200, {}, {"data": {"services": services}})


def test_what_is_no_terminal_gets_a_block_for_each_look():
    """A block is a heading, the table, what has changed and an empty line, without control
    characters.
    """
    out, naps = io.StringIO(), []
    front = Front(seen(CALM), Unreachable("http://h: refused"), seen(replaced(DEAD)))
    watch(front, out, 2.0, sleep=naps.append)
    blocks = out.getvalue().split("\n\n")
    assert len(blocks) == 4
    assert blocks[3] == ""
    assert [line.split()[0] for line in blocks[0].splitlines()[1:]] == [
        "member", "front-1", "*", "order-1", "order-2", "*",
    ]  # fmt: skip
    assert blocks[1].endswith("! the front-end cannot be reached: refused")
    assert "! order-3 does not answer any more" in blocks[2]
    assert out.getvalue().replace("\n", "").isprintable()
    assert len(naps) == 3
    assert all(0 <= nap <= 2.0 for nap in naps)


def test_json_is_one_document_a_line():
    """Each has the front-end's answer, the time, and what has changed; errors have the same
    form.
    """
    out = io.StringIO()
    problem = {"error": {"code": 503, "message": "not now"}}
    front = Front(seen(CALM), Answer(503, {}, problem), seen(replaced(DEAD)))
    watch(front, out, 1.0, as_json=True, sleep=lambda _: None)
    first, second, third = map(json.loads, out.getvalue().splitlines())
    assert first["data"]["services"] == CALM
    assert first["changes"] == []
    assert second["error"]["message"] == "not now"
    assert "order-3 does not answer any more" in third["changes"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["time"])


@pytest.fixture
def front_end():
    """A front-end in memory with the calm cluster."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.services, server.asked = CALM, []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_terminal_is_left_as_it_was(front_end, number):
    """Ctrl-C and SIGTERM end it with status 0; the former screen and the cursor are back."""
    url = f"http://127.0.0.1:{front_end.server_port}"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*TWSTOCK, "status", "--watch", "--every", "0.1", "--url", url],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while shown.count(b"\x1b[H") < 3:
            shown += os.read(ours, 65536)
        front_end.services = replaced(DEAD)
        while b"does not answer any more" not in shown:
            shown += os.read(ours, 65536)
        process.send_signal(number)
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert shown.startswith(b"\x1b[?1049h\x1b[?25l")
    assert shown.endswith(b"\x1b[?25h\x1b[?1049l")
    assert shown.count(b"\x1b[?1049") == 2


def test_it_goes_on_trying_a_front_end_that_is_not_there():
    """While nobody listens it says so and does not end; when somebody does it shows the cluster."""
    port = free_ports(1)
    process = subprocess.Popen(
        [*TWSTOCK, "status", "--watch", "--every", "0.1", "--url", f"http://127.0.0.1:{port}"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert "cannot be reached, trying again" in process.stdout.readline()
        server = ThreadingHTTPServer(("127.0.0.1", port), Answers)
        server.services, server.asked = CALM, []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        wait_until(lambda: "the front-end answers again" in process.stdout.readline(), "an answer")
        server.shutdown()
        thread.join()
        server.server_close()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("value", ["0", "-1", "soon", "inf", "nan"])
def test_an_interval_is_a_number_of_seconds(value, capsys):
    """Anything else is wrong usage."""
    from twstock.cli import USAGE, main

    with pytest.raises(SystemExit) as caught:
        main(["status", "--watch", "--every", value])
    assert caught.value.code == USAGE
    assert "seconds" in capsys.readouterr().err
