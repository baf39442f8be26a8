"""What an empty catalog starts with: ``name,price,quantity`` in a CSV file, every line checked."""

import csv
import importlib.resources
import re
from collections.abc import Iterator
from pathlib import Path

from twstock.errors import ConfigError
from twstock.market import NAME_RULE, QUANTITY_MAX, Seed, Stock, cents_of, is_stock_name

STOCKS_MAX = 10_000
"""The most stocks in a file: one log entry has to hold all of them."""
STOCK_BYTES = 32
"""The most bytes that a stock takes in that entry, its name not counted."""

_COLUMNS = ["name", "price", "quantity"]
_QUANTITY = re.compile(r"[0-9]{1,16}", re.ASCII)


class TooLarge(ConfigError):
    """The stocks of a file do not fit into a message."""


def read_seed(path: Path | None, message_bytes_max: int) -> Seed:
    """The stocks in a file, or in the one that ships with the package (``None``).

    Raises ConfigError naming the file, and the line where there is one; TooLarge if the stocks take
    more than half of the message that has to bring them to another replica.
    """
    file = path or importlib.resources.files("twstock").joinpath("catalog.csv")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    seed = parse_seed(content, str(file))
    size = sum(STOCK_BYTES + len(stock.name.encode()) for stock in seed.stocks)
    if size > message_bytes_max // 2:
        half = f"half of limits.message_bytes_max, which is {message_bytes_max}"
        raise TooLarge(f"{file}: its stocks may take {size} bytes of a message, more than {half}")
    return seed


def parse_seed(content: bytes, file: str) -> Seed:
    """The stocks that the content of a file lists; a byte order mark and CRLF are accepted."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{file}:{line}: not UTF-8") from None
    stocks: dict[str, Stock] = {}
    for line, cells in _rows(text, file):
        try:
            stock = _stock(cells)
            if stock.name in stocks:
                raise ConfigError(f"the name {stock.name!r} appears twice")
        except ConfigError as error:
            raise ConfigError(f"{file}:{line}: {error}") from None
        stocks[stock.name] = stock
    if not 1 <= len(stocks) <= STOCKS_MAX:
        raise ConfigError(f"{file}: expected 1 to {STOCKS_MAX} stocks, found {len(stocks)}")
    return Seed(tuple(stocks.values()))


def _rows(text: str, file: str) -> Iterator[tuple[int, list[str]]]:
    """The numbers and cells of the lines below the header that are not blank."""
    reader = csv.reader(text.splitlines(), strict=True)
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        if header != _COLUMNS:
            raise ConfigError(f"{file}:1: expected the header name,price,quantity")
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield reader.line_num, stripped
    except csv.Error as error:
        raise ConfigError(f"{file}:{reader.line_num}: {error}") from None


def _stock(cells: list[str]) -> Stock:
    if len(cells) != len(_COLUMNS):
        raise ConfigError(f"expected name,price,quantity, found {len(cells)} cells")
    name, price, quantity = cells
    if not is_stock_name(name):
        raise ConfigError(f"a name has {NAME_RULE}, got {name!r}")
    price_cents = cents_of(price)
    if price_cents is None:
        rule = "a price is a number from 0 up with at most two decimals, like 15.99"
        raise ConfigError(f"{rule}, got {price!r}")
    if not _QUANTITY.fullmatch(quantity) or int(quantity) > QUANTITY_MAX:
        raise ConfigError(f"a quantity is a number from 0 to {QUANTITY_MAX}, got {quantity!r}")
    shares = int(quantity)
    return Stock(name, price_cents, shares, initial_quantity=shares)
