"""What commands have in common: how one is added, what it prints, and how it fails."""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from twstock.errors import TwstockError, told

Options = argparse.Namespace
Run = Callable[[Options], int]
Add = Callable[[str, Run, str], argparse.ArgumentParser]
"""Adds a command: its name, the function that runs it, and its description."""

DIGITS_MAX = 100
"""More digits than any number that the API takes; the API itself says what is too large."""


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
