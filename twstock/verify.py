"""``twstock verify``: checks that the order logs of all replicas are the same and agree with the
catalog.

Every order replica is asked separately, with ``SyncUp``, and the logs are compared number by
number as they arrive, so a log of any length fits into memory. The stocks have to be what the
orders and the administrators' changes make them.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import takewhile, zip_longest
from typing import TYPE_CHECKING, Any, TypeVar

from twstock.consistency import MESSAGE_BYTES_LIMIT
from twstock.market import ChangeKind, Side, Stock, StockChange, Trade
from twstock.rest import Unreachable

if TYPE_CHECKING:
    from twstock.rpc.calls import Status
    from twstock.rpc.security import Way

A = TypeVar("A")
PATIENCE_S = 5.0
PAUSE_S = 0.25
DEADLINE_S = 5.0
DIFFERENCES_MAX = 20
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Line:
    """One order as every replica must have it."""

    number: int
    name: str
    side: str
    quantity: int

    def __str__(self) -> str:
        return f"{self.number} {self.side} {self.quantity} {self.name}"


@dataclass(slots=True)
class Finding:
    """What a comparison found. ``missing``: the members that could not be asked, and why."""

    orders: int = 0
    stocks: int = 0
    changes: int = 0
    replicas: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    def differ(self, what: str) -> None:
        """Note a difference; after ``DIFFERENCES_MAX`` only that there are more."""
        if len(self.differences) < DIFFERENCES_MAX:
            self.differences.append(what)
        elif len(self.differences) == DIFFERENCES_MAX:
            self.differences.append("and more")

    def as_json(self) -> dict[str, Any]:
        """The finding in the words of JSON."""
        return asdict(self)

    def exit_status(self) -> int:
        """0: all the same; 1: not equal; 3: not everybody could be asked."""
        if self.differences:
            return 1
        return 3 if self.missing else 0


class Remote:
    """One member, asked with blocking gRPC calls."""

    def __init__(self, name: str, address: str, way: "Way | None" = None) -> None:
        import grpc  # noqa: PLC0415 (only the commands that need it pay for it)

        from twstock.rpc.security import PlainWay  # noqa: PLC0415

        self.name = name
        options = [
            ("grpc.enable_http_proxy", 0),
            # Its ``message_bytes_max`` is not known here.
            ("grpc.max_receive_message_length", MESSAGE_BYTES_LIMIT),
        ]
        self._channel = (way or PlainWay()).open(address, options)
        self._error = grpc.RpcError

    def __enter__(self) -> "Remote":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: Any, request: Any) -> Any:
        """Make one call of ``twstock.rpc.wire.methods``. Raises Unreachable."""
        ask = self._channel.unary_unary(method.path, method.encode_request, method.decode_answer)
        try:
            return ask(request, timeout=DEADLINE_S)
        except self._error as error:
            details = str(error.details())
            if "Socket closed" in details:  # a TLS server closes what is no handshake
                details += "; perhaps it uses TLS (--tls)"
            raise Unreachable(f"{self.name}: {details}") from None

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def orders(self) -> Iterator[Line]:
        """Every committed order, as this order replica reports them."""
        return map(_line, self.trades(whole=False))

    def trades(self, after: int = 0, whole: bool = True) -> Iterator[Trade]:
        """The committed orders after a number, with all fields of each if ``whole``."""
        from twstock.rpc.calls import SyncUp  # noqa: PLC0415
        from twstock.rpc.wire.methods import ORDER_SYNC_UP  # noqa: PLC0415

        more = True
        while more:
            page = self.call(ORDER_SYNC_UP, SyncUp(after, whole=whole))
            yield from page.orders
            more = page.more
            after = page.orders[-1].number if page.orders else after

    def last_transaction(self) -> int:
        """The highest number that this order replica has committed."""
        return self.status().last_transaction

    def status(self) -> "Status":
        """What this order replica reports about itself."""
        from twstock.rpc.calls import Probe  # noqa: PLC0415
        from twstock.rpc.wire.methods import ORDER_HEARTBEAT  # noqa: PLC0415

        status: Status = self.call(ORDER_HEARTBEAT, Probe()).status
        return status

    def stocks(self) -> Iterator[Stock]:
        """Every stock of this catalog replica; only the leader answers."""
        from twstock.rpc.calls import StockPage  # noqa: PLC0415
        from twstock.rpc.wire.methods import LIST_STOCKS  # noqa: PLC0415

        after, more = "", True
        while more:
            page = self.call(LIST_STOCKS, StockPage(after, PAGE))
            yield from page.stocks
            after, more = page.next, bool(page.next)

    def changes_made(self) -> int:
        """How many changes of stocks there are; only the catalog's leader answers."""
        from twstock.rpc.calls import Page  # noqa: PLC0415
        from twstock.rpc.wire.methods import LIST_CHANGES  # noqa: PLC0415

        return int(self.call(LIST_CHANGES, Page(0, 1)).made)

    def changes(self) -> Iterator[StockChange]:
        """Every change of a stock, from this catalog replica; only the leader answers."""
        from twstock.rpc.calls import Page  # noqa: PLC0415
        from twstock.rpc.wire.methods import LIST_CHANGES  # noqa: PLC0415

        after, more = 0, True
        while more:
            page = self.call(LIST_CHANGES, Page(after, PAGE))
            yield from page.changes
            after, more = page.next, bool(page.next)


def _line(trade: Trade) -> Line:
    order = trade.order
    return Line(trade.number, order.name, str(order.side), order.quantity)


@dataclass(slots=True)
class Sums:
    """What the orders of one stock add up to."""

    count: int = 0
    bought: int = 0
    sold: int = 0

    def add(self, line: Line) -> None:
        """Count one order."""
        self.count += 1
        if line.side == Side.BUY:
            self.bought += line.quantity
        else:
            self.sold += line.quantity


@dataclass(slots=True)
class Administered:
    """What the changes of one stock add up to; ``price_cents`` None: it was never set."""

    count: int = 0
    added: int = 0
    price_cents: int | None = None
    halted: bool = False
    is_new: bool = False

    def add(self, change: StockChange) -> None:
        """Count one change."""
        self.count += 1
        self.added += change.quantity
        match change.kind:
            case ChangeKind.ADD:
                self.is_new, self.price_cents = True, change.price_cents
            case ChangeKind.PRICE:
                self.price_cents = change.price_cents
            case ChangeKind.HALT:
                self.halted = True
            case ChangeKind.RESUME:
                self.halted = False


def by_stock(changes: Iterable[StockChange], finding: Finding) -> dict[str, Administered]:
    """What the changes of each stock add up to; their numbers are 1, 2, 3, ..."""
    found: dict[str, Administered] = {}
    for number, change in enumerate(changes, start=1):
        finding.changes = number
        if change.number != number:
            finding.differ(f"the catalog has change {change.number} where {number} belongs")
        found.setdefault(change.name, Administered()).add(change)
    return found


def compare_logs(
    logs: Mapping[str, Iterable[Line]], finding: Finding, compared: Callable[[], None]
) -> dict[str, Sums]:
    """Compare the logs number by number, calling ``compared`` after each; returns the sums by
    stock of the first log.
    """
    names = list(logs)
    sums: dict[str, Sums] = {}
    for number, lines in enumerate(zip_longest(*logs.values()), start=1):
        finding.orders = number
        first = lines[0]
        for name, line in zip(names, lines, strict=True):
            if line is None:
                finding.differ(f"{name} lacks order {number}")
            elif line.number != number:
                finding.differ(f"{name} has order {line.number} where {number} belongs")
            elif first is not None and line != first:
                finding.differ(f"{name} has ({line}) where {names[0]} has ({first})")
        if first is not None:
            sums.setdefault(first.name, Sums()).add(first)
        compared()
    return sums


def compare_stocks(
    stocks: Iterable[Stock],
    sums: Mapping[str, Sums],
    administered: Mapping[str, Administered],
    finding: Finding,
) -> None:
    """Check that every stock is what its orders and its changes made of it."""
    left, changed = dict(sums), dict(administered)
    for stock in stocks:
        finding.stocks += 1
        of, by = left.pop(stock.name, Sums()), changed.pop(stock.name, Administered())
        initial = by.added if by.is_new else max(stock.initial_quantity, by.added)
        price = stock.price_cents if by.price_cents is None else by.price_cents
        for what, found, wanted in (
            ("volume", stock.volume, of.bought + of.sold),
            ("version", stock.version, of.count + by.count),
            ("quantity", stock.quantity, stock.initial_quantity - of.bought + of.sold),
            ("initial quantity", stock.initial_quantity, initial),
            ("price", stock.price_cents, price),
            ("halted", stock.halted, by.halted),
        ):
            if found != wanted:
                whose = "orders and changes" if by.count else "orders"
                finding.differ(f"{stock.name}: {what} is {found}, its {whose} make it {wanted}")
    for name in left:
        finding.differ(f"there are orders of {name}, which the catalog does not have")
    for name in changed:
        finding.differ(f"there are changes of {name}, which the catalog does not have")


def leader_stocks(catalogs: Iterable[Remote]) -> list[Stock]:
    """The stocks, from whichever catalog replica leads. Raises Unreachable."""
    return of_leader(catalogs, lambda catalog: list(catalog.stocks()))


def of_leader(catalogs: Iterable[Remote], ask: Callable[[Remote], A]) -> A:
    """What whichever catalog replica leads answers. Raises Unreachable."""
    problems = []
    for catalog in catalogs:
        try:
            return ask(catalog)
        except Unreachable as error:
            problems.append(str(error))
    raise Unreachable("; ".join(problems))


def examine(
    orders: Iterable[Remote], catalogs: Iterable[Remote], compared: Callable[[], None]
) -> Finding:
    """Ask every member once. Trades may go on: the logs are compared up to the order that was the
    last when this began, and the stocks with everything traded until they were read.
    """
    finding = Finding()
    found: dict[Remote, Status] = {}
    for replica in orders:
        try:
            found[replica] = replica.status()
        except Unreachable as error:
            finding.missing.append(str(error))
    finding.replicas = [replica.name for replica in found]
    if not found:
        return finding
    is_led = any(status.role == "leader" and status.ready for status in found.values())
    numbers = {replica: status.last_transaction for replica, status in found.items()}
    newest = max(numbers, key=lambda replica: numbers[replica])
    # Without a leader, no replica learns what else is committed: only what all of them know to be
    # committed can be compared.
    last = numbers[newest] if is_led else min(numbers.values())
    logs = {r.name: takewhile(lambda line: line.number <= last, r.orders()) for r in found}
    try:
        sums = compare_logs(logs, finding, compared)
        if not is_led:
            raise Unreachable("an order replica that leads: the stocks were not compared")
        changes, stocks = of_leader(catalogs, lambda c: (list(c.changes()), list(c.stocks())))
        add_shown(newest.trades(last), stocks, sums)
        compare_stocks(stocks, sums, by_stock(changes, finding), finding)
    except Unreachable as error:
        finding.missing.append(str(error))
    return finding


def add_shown(trades: Iterable[Trade], stocks: Iterable[Stock], sums: dict[str, Sums]) -> None:
    """Count those later orders that the stocks already show."""
    versions = {stock.name: stock.version for stock in stocks}
    for trade in trades:
        line = _line(trade)
        if trade.version <= versions.get(line.name, 0):
            sums.setdefault(line.name, Sums()).add(line)


def verify(
    orders: list[Remote],
    catalogs: list[Remote],
    patience_s: float = PATIENCE_S,
    sleep: Callable[[float], None] = time.sleep,
    compared: Callable[[], None] = lambda: None,
) -> Finding:
    """Examine again until all is equal, for ``patience_s`` seconds: trades may be under way and
    replicas behind. A difference that is still there then is real.
    """
    deadline = time.monotonic() + patience_s
    while True:
        finding = examine(orders, catalogs, compared)
        if finding.exit_status() == 0 or time.monotonic() > deadline:
            return finding
        sleep(PAUSE_S)
