"""What commands have in common: how one is added, what it prints, and what it cannot help."""

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
"""Adds a command by its name, what runs it, and a word on it."""

DIGITS_MAX = 100
"""More than any number has that the API takes; it says itself what is too large."""


class Unwritten(TwstockError):
    """Standard output takes nothing; the message says what was done all the same."""


@contextmanager
def telling(done: str) -> Iterator[None]:
    """Print what was done. Raises Unwritten with it, in words, when standard output takes nothing;
    a reader that is gone wants nothing.
    """
    try:
        yield
        flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritten(f"{done}; it was done, but standard output: {told(error)}") from None


def flush() -> None:
    """Have everything written that was printed."""
    sys.stdout.flush()


def integer(text: str) -> int:
    """A whole number in plain digits: whoever mistypes one is not to trade another, as with
    ``1_0``, which Python takes for 10.
    """
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > DIGITS_MAX:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def refusing(run: Run) -> Run:
    """The same command; what the file system refuses is refused, but for a reader that is gone.

    Ended by SIGTERM it takes away what is not finished, as it does by Ctrl-C.
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
    """A SIGTERM ends the block as Ctrl-C does, so that what it has begun is put right."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def tell(options: Options, value: object, words: str) -> int:
    """Print what was done, as JSON if asked; returns the exit status. Raises Unwritten."""
    with telling(words):
        print(json.dumps(value) if options.json else words)
    return 0
