"""Rows as lines of text under the names of their columns: pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


class Table:
    """Rows under the names of ``columns``. Later rows may make a column wider."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._widths = [0] * len(columns)
        self._heading = [[name.replace("_", " ") for name in columns]]

    def lines(self, rows: Iterable[Row]) -> list[str]:
        """A line for each row, numbers aligned right; the first time after the heading."""
        cells = self._heading + [
            [cell(row.get(column)) for column in self._columns] for row in rows
        ]
        self._heading = []
        for line in cells:
            self._widths = [
                max(len(text), width) for text, width in zip(line, self._widths, strict=True)
            ]
        return [
            "  ".join(
                text.rjust(width) if _is_number(text) else text.ljust(width)
                for text, width in zip(line, self._widths, strict=True)
            ).rstrip()
            for line in cells
        ]


def lines(columns: Sequence[str], rows: Iterable[Row]) -> list[str]:
    """The heading, then a line for each row."""
    return Table(columns).lines(rows)


def cell(value: object) -> str:
    """A value as text. What a terminal would interpret is shown as a question mark."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}"
    return "".join(c if c.isprintable() else "?" for c in str(value))


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()
