"""What a service writes to its log: a line for each event, as text for people or as JSON.

Loggers are those of ``twisted.logger``, one for each class; the values of an event are keywords,
and each of them appears in the line. Of what libraries log, only warnings and errors are kept.
"""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from string import Formatter
from typing import Any, TextIO

from twisted.logger import FileLogObserver, Logger, LogLevel, formatEvent
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile

FORMATS = ("text", "json")
KEY_CHARS = 8
"""How much of an idempotency key is shown: with all of it one could learn the request's outcome."""
VALUE_CHARS_MAX = 2000
TRACEBACK_CHARS_MAX = 20_000
TWISTD_LOG = "twistd.log"
"""Where a daemon of twistd logs unless it is told otherwise."""
_OWN = ("time", "level", "logger", "member", "message", "traceback")
"""The fields of every JSON line; a value of the same name gets an underscore behind it."""
_LEGACY = frozenset({"format", "isError", "message", "printed", "system", "time", "why", "failure"})
"""What Twisted's older log adds to an event."""
_LIBRARIES = ("twisted", "log_legacy", "klein", "treq", "grpc")
_LEVELS = {LogLevel.warn: "warning"}

Event = Mapping[str, Any]


def is_news(event: Event) -> bool:
    """Whether an event is logged: ours above debug, those of libraries from warnings up."""
    namespace = str(event.get("log_namespace") or "")
    ours = namespace.partition(".")[0] not in _LIBRARIES
    least = LogLevel.info if ours else LogLevel.warn
    return bool(event.get("log_level", LogLevel.info) >= least)


def values_of(event: Event) -> dict[str, Any]:
    """The keyword values of an event, in types that JSON has; idempotency keys are cut short."""
    return {
        name: _shown(name, value)
        for name, value in event.items()
        if not name.startswith("log_") and name not in _LEGACY
    }


def _shown(name: str, value: Any) -> Any:
    if _is_key(name):
        return _cut(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 6) if abs(value) < float("inf") else str(value)
    return str(value)[:VALUE_CHARS_MAX]


def _is_key(name: str) -> bool:
    return name in ("key", "keys") or name.endswith(("_key", "_keys"))


def _cut(value: Any) -> Any:
    if isinstance(value, list | tuple | set | frozenset):
        return [_cut(each) for each in list(value)[:KEY_CHARS]]
    return str(value)[:KEY_CHARS]


def as_json(event: Event, member: str) -> str:
    """One line: the fields that every event has, its values, its traceback."""
    values = values_of(event)
    line = {
        "time": _time(event).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
        "level": _level(event),
        "logger": str(event.get("log_namespace") or ""),
        "member": member,
        "message": _message(event, values),
    }
    if "log_failure" in event:
        line["traceback"] = _traceback(event)
    line |= {f"{name}_" if name in _OWN else name: value for name, value in values.items()}
    return json.dumps(line) + "\n"


def as_text(event: Event, member: str) -> str:
    """One line: time, member, level, message, and the values that the message does not show.

    A traceback follows on lines of its own.
    """
    values = values_of(event)
    told = set(_names(event.get("log_format")))
    rest = [f"{name}={value}" for name, value in values.items() if name not in told]
    words = _message(event, values) + (f" ({', '.join(rest)})" if rest else "")
    at = _time(event).astimezone().isoformat(sep=" ", timespec="milliseconds")
    line = f"{at} {member:<9} {_level(event):<8} {_printable(words)}"
    if "log_failure" in event:
        lines = _traceback(event).rstrip().splitlines()
        line += "".join(f"\n    {_printable(each)}" for each in lines)
    return line + "\n"


def _time(event: Event) -> datetime:
    return datetime.fromtimestamp(event.get("log_time", 0.0), UTC)


def _level(event: Event) -> str:
    level = event.get("log_level", LogLevel.info)
    return _LEVELS.get(level) or str(level.name)


def _message(event: Event, values: Mapping[str, Any]) -> str:
    """The message of an event; idempotency keys in it are cut short, too."""
    text = formatEvent({**event, **{name: values[name] for name in values if _is_key(name)}})
    if not text and "log_failure" in event:
        text = str(event["log_failure"].getErrorMessage())
    return text[:VALUE_CHARS_MAX]


def _names(template: str | None) -> Iterator[str]:
    """The values that a format names: ``{reason}``, ``{peer.id}``, ``{number()}``."""
    try:
        for _, name, _, _ in Formatter().parse(template or ""):
            if name:
                yield name.partition(".")[0].partition("[")[0].removesuffix("()")
    except ValueError:
        return  # Twisted says in the line that it cannot be formatted


def _traceback(event: Event) -> str:
    text: str = event["log_failure"].getTraceback()
    return text[-TRACEBACK_CHARS_MAX:]


def _printable(text: str) -> str:
    """Escapes what a terminal would interpret, and what would begin another line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def observer(form: str, member: str, out: TextIO) -> FileLogObserver:
    """Writes each event of the process to ``out``, in one of ``FORMATS``."""
    line = as_json if form == "json" else as_text
    return FileLogObserver(out, lambda event: line(event, member) if is_news(event) else None)


def output(twistd: Mapping[str, Any]) -> TextIO | None:
    """Where ``twistd`` was told to log: ``--logfile``, or, as it does itself, standard output with
    ``-n`` and ``twistd.log`` without. None if it was told to log in another way (``--logger``,
    ``--syslog``), which twistd does itself, or in a way that it refuses (a daemon to a terminal).
    """
    is_daemon = not twistd["nodaemon"]
    name = twistd["logfile"] or (TWISTD_LOG if is_daemon else "-")
    if twistd["logger"] or twistd["syslog"] or (is_daemon and name == "-"):
        return None
    if name == "-":
        return sys.stdout
    file: TextIO = LogFile.fromFullPath(name)
    return file


class Bridge(logging.Handler):
    """Passes on what libraries log with Python's own ``logging``, as gRPC's server does."""

    _log = Logger()

    def emit(self, record: logging.LogRecord) -> None:
        """One record as one event, with its traceback."""
        level = LogLevel.warn if record.levelno < logging.ERROR else LogLevel.error
        extra: dict[str, Any] = {}
        if record.exc_info and record.exc_info[1] is not None:
            kind, error, place = record.exc_info
            extra["log_failure"] = Failure(error, kind, place)
        self._log.emit(level, "{library}: {text}", library=record.name, text=_text(record), **extra)


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # a format that does not fit its arguments must not hide the record
        return str(record.msg)


def bridge() -> None:
    """Send the warnings and errors of libraries to the log of the process."""
    logging.basicConfig(handlers=[Bridge()], level=logging.WARNING)
