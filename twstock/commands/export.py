"""``twstock export``: the stocks and every replica's order log as CSV files for people."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from twstock.durable import write_csv
from twstock.errors import TwstockError
from twstock.market import Stock, price_text
from twstock.verify import PATIENCE_S, PAUSE_S, Line, Remote, leader_stocks

STOCK_COLUMNS = ("name", "price", "quantity", "volume")
ORDER_COLUMNS = ("transaction_num", "name", "type", "quantity")


class Behind(TwstockError):
    """A replica does not have the orders that another one has."""


def export(
    directory: Path,
    orders: Mapping[int, Remote],
    catalogs: Sequence[Remote],
    sleep: Callable[[float], None] = time.sleep,
    counted: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Write ``stocks.csv`` and, from each order replica separately, ``order_log_<id>.csv``.

    All logs end with the same order, the last that any replica had committed at the start.
    ``counted`` is called for each order of each log.
    Raises Unreachable, or Behind when a replica does not catch up.
    """
    directory.mkdir(parents=True, exist_ok=True)
    last = max(replica.last_transaction() for replica in orders.values())
    written = [write_csv(directory / "stocks.csv", STOCK_COLUMNS, _stock_rows(catalogs))]
    for number, replica in orders.items():
        _await(replica, last, sleep)
        lines = takewhile(lambda line: line.number <= last, replica.orders())
        path = directory / f"order_log_{number}.csv"
        written.append(write_csv(path, ORDER_COLUMNS, _order_rows(lines, counted)))
    return written


def _await(replica: Remote, last: int, sleep: Callable[[float], None]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (reached := replica.last_transaction()) < last:
        if time.monotonic() > deadline:
            raise Behind(f"{replica.name} has orders up to {reached} of {last}")
        sleep(PAUSE_S)


def _stock_rows(catalogs: Iterable[Remote]) -> Iterable[tuple[object, ...]]:
    return [_stock_row(stock) for stock in leader_stocks(catalogs)]


def _stock_row(stock: Stock) -> tuple[object, ...]:
    return stock.name, price_text(stock.price_cents), stock.quantity, stock.volume


def _order_rows(lines: Iterable[Line], counted: Callable[[], None]) -> Iterator[tuple[object, ...]]:
    for line in lines:
        counted()
        yield line.number, line.name, line.side, line.quantity
