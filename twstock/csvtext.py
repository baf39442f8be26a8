"""CSV as the files of twstock have it: RFC 4180 with a bare newline at the end of a line."""

import csv
import io
from collections.abc import Iterable


def csv_line(values: Iterable[object]) -> str:
    """One line, quoted where it has to be."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()
