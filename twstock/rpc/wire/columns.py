"""Many orders, trades and outcomes in one message, as columns, and back.

The n-th value of each column belongs to the n-th order. Rows become columns and columns rows
by ``zip`` and ``map`` over tuples, in C: nothing here is a Python call for each order unless
it says so. Columns of different lengths raise ValueError.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import repeat
from typing import Any, cast

from grpc import StatusCode

from twstock import errors
from twstock.market import SIDES, Order, Trade, Verdict
from twstock.pb import catalog_pb2 as catalog
from twstock.pb import order_pb2 as order
from twstock.rpc import calls
from twstock.rpc.status import CERTAIN, CODE_OF_INT, OUTCOME, code_of, error_of
from twstock.rpc.wire.base import check_count

_DISK_FULL = "disk full"


def _maker(kind: type[Any]) -> Callable[[tuple[Any, ...]], Any]:
    """Makes named tuples of rows, in C; ``_make`` is a Python function."""
    made: Any = partial(tuple.__new__, kind)
    return cast(Callable[[tuple[Any, ...]], Any], made)


_order = _maker(Order)
_place_order = _maker(calls.PlaceOrder)
_trade = _maker(Trade)
_verdict = _maker(Verdict)
_placement = _maker(calls.Placement)


def _columns(rows: Iterable[Sequence[Any]], count: int) -> Iterable[Sequence[Any]]:
    """The columns of rows that have ``count`` values each."""
    return tuple(zip(*rows, strict=True)) or repeat((), count)


def _rows(*columns: Sequence[Any]) -> Iterable[tuple[Any, ...]]:
    """The rows of columns."""
    if len(set(map(len, columns))) > 1:
        raise ValueError("columns of different lengths")
    return zip(*columns, strict=True)


def orders(rows: Sequence[Order] | Sequence[calls.PlaceOrder]) -> Any:
    keys, names, types, quantities = _columns(rows, 4)
    return catalog.OrderColumns(keys=keys, names=names, types=types, quantities=quantities)


def to_orders(pb: Any) -> tuple[Order, ...]:
    """Raises ValueError for an unknown type."""
    try:
        sides = [SIDES[word] for word in pb.types]
    except KeyError as error:
        raise ValueError(f"{error} is not a type of order") from None
    return tuple(map(_order, _rows(pb.keys, pb.names, sides, pb.quantities)))


def check_orders(field: str, pb: Any) -> None:
    """Refuse more orders than a call may bring, before any is made."""
    check_count(field, pb.keys, pb.names, pb.types, pb.quantities)


def to_place_orders(pb: Any) -> tuple[calls.PlaceOrder, ...]:
    check_orders("orders", pb)
    columns = (pb.keys, pb.names, pb.types, pb.quantities)
    return tuple(map(_place_order, _rows(*columns)))


def trades(rows: Sequence[Trade]) -> Any:
    numbers, placed, versions, prices_cents, at_ms = _columns(rows, 5)
    return catalog.TradeColumns(
        orders=orders(placed),
        numbers=numbers,
        versions=versions,
        prices_cents=prices_cents,
        at_ms=at_ms,
    )


def to_trades(pb: Any) -> tuple[Trade, ...]:
    columns = (pb.numbers, to_orders(pb.orders), pb.versions, pb.prices_cents, pb.at_ms)
    return tuple(map(_trade, _rows(*columns)))


def verdicts(rows: Sequence[Verdict]) -> Any:
    numbers, versions, prices_cents, at_ms, refusals, key_reused, replayed = _columns(rows, 7)
    return catalog.OutcomeColumns(
        numbers=numbers,
        versions=versions,
        prices_cents=prices_cents,
        at_ms=at_ms,
        refusals=refusals,
        key_reused=key_reused,
        replayed=replayed,
    )


def to_verdicts(pb: Any) -> tuple[Verdict, ...]:
    traded = (pb.numbers, pb.versions, pb.prices_cents, pb.at_ms)
    columns = (*traded, pb.refusals, pb.key_reused, pb.replayed)
    return tuple(map(_verdict, _rows(*columns)))


def placements(results: Sequence[calls.Placement | Exception]) -> Any:
    statuses, numbers, messages, replayed, versions = _columns(map(_placed, results), 5)
    return order.PlaceOrdersResponse(
        statuses=statuses,
        numbers=numbers,
        messages=messages,
        replayed=replayed,
        versions=versions,
    )


def to_placements(pb: Any) -> tuple[calls.Placement | Exception, ...]:
    statuses, columns = list(pb.statuses), (pb.numbers, pb.messages, pb.replayed, pb.versions)
    if not any(statuses) and len(statuses) == len(pb.numbers):
        return tuple(map(_placement, _rows(*columns)))
    return tuple(_to_placed(status, row) for status, *row in _rows(statuses, *columns))


def _placed(result: calls.Placement | Exception) -> tuple[Any, ...]:
    """One order's row: a Python call for each."""
    if isinstance(result, calls.Placement):
        return (0, *result)
    message = _DISK_FULL if isinstance(result, errors.DiskFull) else str(result)
    return (code_of(result).value[0], 0, message, False, 0)


def _to_placed(status: int, row: Sequence[Any]) -> calls.Placement | Exception:
    if status == 0:
        return cast(calls.Placement, _placement(tuple(row)))
    code, message = CODE_OF_INT.get(status, StatusCode.UNKNOWN), row[1]
    outcome = "disk-full" if message == _DISK_FULL else "none"
    if code not in CERTAIN:
        outcome = "unknown"
    return error_of(code, message, [(OUTCOME, outcome)])
