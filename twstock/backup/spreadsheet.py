"""``twstock export --csv``: the orders and the stocks of one moment, for spreadsheets.

Every text is in quotes, and none begins like a formula: anybody may have chosen names and keys.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from twstock.backup.ledger import Ledger, merge
from twstock.backup.source import Picture
from twstock.csvtext import harmless_cell
from twstock.durable import PRIVATE, write_csv
from twstock.market import Trade

ORDER_COLUMNS = ("order_num", "time", "name", "type", "quantity", "price", "version", "key")
STOCK_COLUMNS = (
    "name", "price", "quantity", "volume", "version", "initial_quantity", "halted",
)  # fmt: skip


def export_csv(directory: Path, picture: Picture, done: Callable[[], None]) -> list[Path]:
    """Write ``orders.csv`` and, as of the last order in it, ``stocks.csv``.

    The orders are readable by their owner only, because they include the keys of all requests.
    Calls ``done`` after each order. Raises Unreachable, OSError, and Contradiction when the
    cluster does not agree with itself.
    """
    directory.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(picture.began)

    def orders() -> Iterator[Sequence[object]]:
        for event in merge(ledger, picture.trades(), picture.changes):
            if isinstance(event, Trade):
                yield _order_row(event)
                done()

    quoting = csv.QUOTE_NONNUMERIC
    return [
        write_csv(directory / "orders.csv", ORDER_COLUMNS, orders(), quoting, PRIVATE),
        write_csv(directory / "stocks.csv", STOCK_COLUMNS, _stock_rows(ledger), quoting),
    ]


def _order_row(trade: Trade) -> Sequence[object]:
    number, (key, name, side, quantity), version, price_cents, at_ms = trade
    price = Decimal(price_cents).scaleb(-2)
    texts = harmless_cell(name), str(side)
    return number, _time(at_ms), *texts, quantity, price, version, harmless_cell(key)


def _stock_rows(ledger: Ledger) -> Iterator[Sequence[object]]:
    for name, price_cents, quantity, volume, version, initial, halted in ledger.stocks():
        price, word = Decimal(price_cents).scaleb(-2), "yes" if halted else "no"
        yield harmless_cell(name), price, quantity, volume, version, initial, word


def _time(at_ms: int) -> str:
    """A time as in RFC 3339, in UTC."""
    moment = datetime.fromtimestamp(at_ms // 1000, UTC).replace(microsecond=at_ms % 1000 * 1000)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
