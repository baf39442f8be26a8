"""CSV as the files of twstock have it: RFC 4180 with a bare newline at the end of a line."""

import csv
import io
import re
from collections.abc import Iterable
from functools import lru_cache

_FORMULA = re.compile("[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""How a text begins that a spreadsheet would carry out (OWASP, CSV Injection)."""
_PLAIN = re.compile(r"[\w .;:/&'+-]+")


@lru_cache(maxsize=4096)
def csv_field(text: str) -> str:
    """One field, quoted if it has to be: quicker than a line where most need no quotes."""
    return text if _PLAIN.fullmatch(text) else csv_line((text, ""))[:-2]


def csv_line(values: Iterable[object]) -> str:
    """One line, quoted where it has to be."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def harmless_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula: what could be one begins with an
    apostrophe.
    """
    return f"'{text}" if _FORMULA.match(text) else text
