"""The lines of a log, as text and as JSON, and which events become lines at all."""

import io
import json
import logging
import re
import sys
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.application.service import Application
from twisted.logger import ILogObserver, Logger, LoggingFile, LogLevel
from twisted.python.failure import Failure

from twstock import logs, process
from twstock.config import default_cluster, parse
from twstock.errors import ConfigError
from twstock.process import Stages, log_format, logged, panic
from twstock.tomltext import render

AT = 1767323045.678
WHEN = "2026-01-02T03:04:05.678Z"


class Told:
    """A log in memory."""

    def __init__(self, form="json"):
        self.out = io.StringIO()
        self.observer = logs.observer(form, "order-1", self.out)
        self.log = Logger(namespace="twstock.order.Desk", observer=self._timed)

    def _timed(self, event):
        self.observer({**event, "log_time": AT})

    @property
    def lines(self):
        """What was written."""
        return self.out.getvalue().splitlines()

    @property
    def json(self):
        """The only line."""
        (line,) = self.lines
        return json.loads(line)


def failure():
    """An error with a traceback."""
    try:
        raise ValueError("a\x1b[2J\nb")
    except ValueError:
        return Failure()


def test_a_json_line_has_what_every_event_has_and_its_values():
    """Time, level, logger, member and message, and each keyword as a field of its own, unless it is
    None.
    """
    told = Told()
    told.log.info("leads term {term}", term=7, request_id="r-1", share=0.25, done=True, why=None)
    assert told.json == {
        "time": WHEN,
        "level": "info",
        "logger": "twstock.order.Desk",
        "member": "order-1",
        "message": "leads term 7",
        "term": 7,
        "request_id": "r-1",
        "share": 0.25,
        "done": True,
    }


def test_a_text_line_is_for_people_and_has_every_value_too():
    """The values that are not in the message follow in brackets."""
    told = Told("text")
    told.log.warn("leads term {term}", term=7, request_id="r-1")
    (line,) = told.lines
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.678\S+ order-1   warning  leads term 7 "
        r"\(request_id=r-1\)",
        line,
    )


@given(
    form=st.sampled_from(logs.FORMATS),
    text=st.text(max_size=60),
    name=st.sampled_from(["name", "message_", "reason"]),
)
@example(form="json", text="\x7f", name="reason")
def test_no_value_can_begin_another_line_or_move_a_cursor(form, text, name):
    """Whatever a value contains, the event is one printable line."""
    told = Told(form)
    told.log.info("name {" + name + "}", **{name: text, "other": text})
    (line,) = told.out.getvalue().split("\n")[:-1]
    assert line.isprintable()
    if form == "json":
        assert json.loads(line)["other"] == text
        assert line.isascii()


@pytest.mark.parametrize("form", logs.FORMATS)
def test_a_traceback_is_one_field_of_its_event(form):
    """In text it follows on indented lines without control characters, which cannot be taken for
    events.
    """
    told = Told(form)
    told.log.failure("{call} failed", failure(), call="Order")
    if form == "json":
        assert told.json["message"] == "Order failed"
        assert told.json["level"] == "critical"
        assert "ValueError: a\x1b[2J\nb" in told.json["traceback"]
        assert "log_failure" not in told.json
    else:
        first, *rest = told.lines
        assert first.endswith("Order failed")
        assert rest
        assert all(line.startswith("    ") and line.isprintable() for line in rest)


@pytest.mark.parametrize("form", logs.FORMATS)
@pytest.mark.parametrize("name", ["key", "idempotency_key", "keys", "new_keys"])
def test_of_a_key_only_the_beginning_is_shown(form, name):
    """Also in the message: whoever has the whole key can ask what became of its order."""
    told, key = Told(form), "0123456789abcdef"
    told.log.info("key {" + name + "}", **{name: [key] if name.endswith("s") else key})
    assert "01234567" in told.out.getvalue()
    assert "012345678" not in told.out.getvalue()


def test_a_value_named_like_a_field_keeps_apart_from_it():
    """A value cannot change which member or logger an event is from."""
    told = Told()
    told.log.info("x", member="front-9", logger="none")
    assert (told.json["member"], told.json["member_"]) == ("order-1", "front-9")
    assert (told.json["logger"], told.json["logger_"]) == ("twstock.order.Desk", "none")


def test_a_value_of_any_length_and_kind_makes_a_line():
    """Long texts are cut, objects are written as text, and so are numbers that JSON does not
    have.
    """
    told = Told()
    told.log.info("x", long="y" * 10_000, odd=object, many=float("inf"))
    assert len(told.json["long"]) == logs.VALUE_CHARS_MAX
    assert told.json["odd"] == "<class 'object'>"
    assert told.json["many"] == "inf"


@pytest.mark.parametrize(
    ("namespace", "level", "shown"),
    [
        ("twstock.web.http.site.ApiSite", LogLevel.info, True),
        ("twstock.web.http.site.ApiSite", LogLevel.debug, False),
        ("stderr", LogLevel.error, True),
        ("twisted.web.http.HTTPChannel", LogLevel.info, False),
        ("twisted.internet.defer", LogLevel.critical, True),
        ("log_legacy", LogLevel.info, False),
        ("log_legacy", LogLevel.critical, True),
    ],
)
def test_libraries_are_heard_when_they_complain(namespace, level, shown):
    """Not when they only report that a factory starts, or that a client timed out."""
    told = Told()
    Logger(namespace=namespace, observer=told.observer).emit(level, "something")
    assert bool(told.lines) is shown


def test_what_libraries_tell_pythons_own_log_becomes_an_event():
    """As with gRPC's server, traceback included; a message whose arguments do not fit is kept as it
    is.
    """
    told, bridge = Told(), logs.Bridge()
    bridge._log = told.log
    error = failure()
    info = (error.type, error.value, error.getTracebackObject())
    bridge.emit(logging.LogRecord("grpc._server", logging.ERROR, "f", 1, "broke: %s", ("x",), info))
    assert told.json["message"] == "grpc._server: broke: x"
    assert told.json["level"] == "error"
    assert "ValueError" in told.json["traceback"]
    bridge.emit(logging.LogRecord("grpc", logging.WARNING, "f", 1, "odd %s %s", ("x",), None))
    assert json.loads(told.lines[1])["message"] == "grpc: odd %s %s"


# --- how a process comes by its format --------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "environ", "form"),
    [
        ("", {}, "text"),
        ("json", {}, "json"),
        ("text", {"TWSTOCK_LOG_FORMAT": "json"}, "json"),
        ("json", {"TWSTOCK_LOG_FORMAT": ""}, "json"),
    ],
)
def test_the_environment_wins_over_the_file_and_text_is_the_default(written, environ, form):
    """So that a systemd unit can say what journald wants. An empty variable counts as absent."""
    text = render(default_cluster())
    if written:
        text += f'[logging]\nformat = "{written}"\n'
    cluster = parse(text)
    assert log_format(cluster, environ) == form
    assert parse(render(cluster)) == cluster


def test_an_unknown_format_is_an_error_that_names_it():
    """That holds for the environment and for the file."""
    with pytest.raises(ConfigError, match="TWSTOCK_LOG_FORMAT: expected text or json, got 'xml'"):
        log_format(default_cluster(), {"TWSTOCK_LOG_FORMAT": "xml"})
    for table, words in (('format = "xml"', r"logging\.format"), ("color = 1", "logging: ")):
        with pytest.raises(ConfigError, match=words):
            parse(render(default_cluster()) + f"[logging]\n{table}\n")


@pytest.fixture
def service(monkeypatch):
    """A service without stages, and the options of its process."""
    monkeypatch.setattr(logs, "bridge", lambda: None)
    twistd = {"nodaemon": True, "logfile": None, "logger": None, "syslog": False}
    options = SimpleNamespace(tier="order", number=2, log_format="json", parent=twistd)
    return Stages((), lambda _: None), options


def test_twistd_finds_the_observer_in_the_application(service, monkeypatch):
    """No flag is needed: twistd asks its application for an observer before it begins to log."""
    stages, options = service
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    application = Application("test")
    logged(stages, options).setServiceParent(application)
    observer = application.getComponent(ILogObserver)
    Logger(namespace="x", observer=observer).info("hello")
    assert json.loads(out.getvalue())["member"] == "order-2"


@pytest.mark.parametrize(
    "flags",
    [{"logger": "x.y"}, {"syslog": True}, {"nodaemon": False, "logfile": "-"}],
    ids=["logger", "syslog", "a daemon to standard output"],
)
def test_twistds_own_ways_to_log_are_left_to_it(service, flags):
    """Whoever asks for another observer gets it, and twistd refuses what a daemon cannot do."""
    stages, options = service
    options.parent |= flags
    application = Application("test")
    logged(stages, options).setServiceParent(application)
    assert application.getComponent(ILogObserver, None) is None


@pytest.mark.parametrize(
    ("flags", "name"),
    [({"logfile": "x.log"}, "x.log"), ({"nodaemon": False}, "twistd.log")],
    ids=["named", "a daemon's"],
)
def test_a_log_file_gets_the_same_lines(service, flags, name, tmp_path, monkeypatch):
    """``twistd --logfile FILE``, and ``twistd`` without ``-n``, which closes standard output."""
    monkeypatch.chdir(tmp_path)
    stages, options = service
    options.parent |= flags
    logged(stages, options)
    Logger(namespace="x", observer=stages.observer).info("hello")
    assert json.loads((tmp_path / name).read_text())["message"] == "hello"
    stages.observer._outFile.close()


@pytest.mark.parametrize("reason", ["the disk", failure()], ids=["text", "failure"])
def test_a_panic_is_one_event_once_the_log_has_begun(reason, monkeypatch):
    """Its traceback is a field, and not an event for each line."""
    told, codes = Told(), []
    monkeypatch.setattr(process, "_log", told.log)
    monkeypatch.setattr(sys, "stderr", LoggingFile(told.log))
    panic(reason, codes.append)
    assert codes == [process.EXIT_BROKEN]
    assert told.json["message"].startswith("twstock stops: ")
    assert told.json["level"] == "critical"
