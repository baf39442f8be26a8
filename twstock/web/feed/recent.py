"""The last trades that went through the feed, for those who reconnect. Pure."""

from collections.abc import Sequence

from twstock.web.feed.events import Line


class Recent:
    """Up to ``size`` trades and half as many again, without a gap in their numbers."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._trades: list[Line] = []

    def add(self, trades: Sequence[Line]) -> None:
        """Keep trades that follow those that are kept."""
        self._trades += trades
        if len(self._trades) > self._size * 3 // 2:
            del self._trades[: len(self._trades) - self._size]

    def after(self, number: int, count_max: int) -> Sequence[Line]:
        """The trades that follow a number; none when the first of them is not kept."""
        if not self._trades:
            return ()
        start = number + 1 - self._trades[0].number
        return self._trades[start : start + count_max] if start >= 0 else ()
