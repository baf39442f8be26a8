"""What a planted bug is (see ``tests/mutants.py``)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A planted bug: in ``file``, ``old`` (there exactly once) becomes ``new``, and at least
    one of ``tests`` (arguments for pytest) must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
