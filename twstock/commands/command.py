"""What commands have in common: how one is added, what it prints, and how it fails."""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from twstock.errors import TwstockError, told

Options = argparse.Namespace
Run = Callable[[Options], int]
Add = Callable[[str, Run, str], argparse.ArgumentParser]
"""Adds a command: its name, the function that runs it, and its description."""

DIGITS_MAX = 100
"""More digits than any number that the API takes; the API itself says what is too large."""
_OWN_OPTIONS = ("-h", "--help", "--version")
"""The options of ``twstock`` itself."""


class Unwritten(TwstockError):
    """Standard output cannot be written; the message says what was done nevertheless."""


@contextmanager
def telling(done: str) -> Iterator[None]:
    """The body prints ``done``, what was done. Raises Unwritten with these words when standard
    output cannot be written, but BrokenPipeError when its reader is gone.
    """
    try:
        yield
        flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritten(f"{done}; it was done, but standard output: {told(error)}") from None


def flush() -> None:
    """Flush standard output."""
    sys.stdout.flush()


class GivenUrl(argparse.Action):
    """Takes a URL, and remembers that the command line named it."""

    def __call__(
        self, _parser: argparse.ArgumentParser, namespace: Options, values: Any, *_: object
    ) -> None:
        """The URL was given."""
        namespace.url, namespace.url_from = values, "--url"


def parsed(parser: argparse.ArgumentParser, words: Sequence[str]) -> Options:
    """The options on the command line. If it begins with an option of a command, that is the
    error: argparse would take the value of the option for the command.
    """
    option = words[0].partition("=")[0] if words else ""
    if option.startswith("-") and not any(own.startswith(option) for own in _OWN_OPTIONS):
        parser.error(f"{option} belongs after the command")
    return parser.parse_args(words)


def integer(text: str) -> int:
    """A whole number in plain digits: a typing error must not trade another quantity, as with
    ``1_0``, which Python takes for 10.
    """
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > DIGITS_MAX:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def refusing(run: Run) -> Run:
    """The same command, but an error of the file system (other than a broken pipe) becomes a
    TwstockError, and SIGTERM removes unfinished files as Ctrl-C does.
    """

    def refused(options: Options) -> int:
        try:
            with terminated():
                return run(options)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise TwstockError(told(error)) from None

    return refused


@contextmanager
def terminated() -> Iterator[None]:
    """A SIGTERM ends the block as Ctrl-C does, so that the block can clean up."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def tell(options: Options, value: object, words: str) -> int:
    """Print what was done, as JSON if asked to; returns the exit status. Raises Unwritten."""
    with telling(words):
        print(json.dumps(value) if options.json else words)
    return 0
