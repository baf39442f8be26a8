"""The last trades that the feed has sent, for clients that reconnect. Pure."""

from collections.abc import Sequence

from twstock.web.feed.events import Line


class Recent:
    """Up to one and a half times ``size`` trades, without a gap in their numbers."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._trades: list[Line] = []

    def add(self, trades: Sequence[Line]) -> None:
        """Keep trades; their numbers continue those that are kept."""
        self._trades += trades
        if len(self._trades) > self._size * 3 // 2:
            del self._trades[: len(self._trades) - self._size]

    def after(self, number: int, count_max: int) -> Sequence[Line]:
        """The trades that follow a number; none when the first of them is not kept."""
        if not self._trades:
            return ()
        start = number + 1 - self._trades[0].number
        return self._trades[start : start + count_max] if start >= 0 else ()
