"""CSV as twstock writes it: RFC 4180, but with a bare newline at the end of a line."""

import csv
import io
import re
from collections.abc import Iterable
from functools import lru_cache

_FORMULA = re.compile("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""The first characters of what a spreadsheet may take for a formula (OWASP, CSV Injection)."""
_PLAIN = re.compile(r"[\w .;:/&'+-]+")


@lru_cache(maxsize=4096)
def csv_field(text: str) -> str:
    """One field, quoted if necessary: faster than ``csv_line`` where most need no quotes."""
    return text if _PLAIN.fullmatch(text) else csv_line((text, ""))[:-2]


def csv_line(values: Iterable[object]) -> str:
    """One line, with quotes where necessary."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def harmless_cell(text: str) -> str:
    """The text, with an apostrophe before it if a spreadsheet could take it for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text
