"""Rows as lines of text under the names of their columns: pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def lines(columns: Sequence[str], rows: Iterable[Row]) -> list[str]:
    """The heading, then a line for each row, numbers to the right."""
    cells = [[cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    names = [name.replace("_", " ") for name in columns]
    return [
        "  ".join(
            text.rjust(width) if _is_number(text) else text.ljust(width)
            for text, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in (names, *cells)
    ]


def cell(value: object) -> str:
    """A value in a word. What a terminal would obey is shown as a question mark."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}"
    return "".join(c if c.isprintable() else "?" for c in str(value))


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()
