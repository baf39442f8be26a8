"""Changes of stocks, asked for and made, as protobuf and back."""

from typing import Any

from twstock.market import ChangeKind, ChangeRequest, ChangeStock, StockChange
from twstock.pb import catalog_pb2 as catalog
from twstock.pb import log_pb2 as log
from twstock.rpc import calls
from twstock.rpc.wire import trading
from twstock.rpc.wire.base import NOT_FOUND, OK


def request(q: ChangeRequest) -> Any:
    return catalog.ChangeStockRequest(
        idempotency_key=q.key,
        kind=q.kind,
        name=q.name,
        price_cents=q.price_cents,
        quantity=q.quantity,
    )


def to_request(pb: Any) -> ChangeRequest:
    """Raises ValueError for an unknown kind."""
    kind = ChangeKind(pb.kind)
    return ChangeRequest(pb.idempotency_key, kind, pb.name, pb.price_cents, pb.quantity)


def command(c: ChangeStock) -> Any:
    return log.AdministeredChange(request=request(c.request), at_ms=c.at_ms)


def to_command(pb: Any) -> ChangeStock:
    return ChangeStock(to_request(pb.request), pb.at_ms)


def changed(a: calls.Changed) -> Any:
    return catalog.ChangeStockResponse(
        code=NOT_FOUND if a.refusal else OK,
        message=a.refusal,
        change_number=a.number,
        replayed=a.replayed,
        stock=trading.stock(a.stock) if a.stock else None,
    )


def to_changed(pb: Any) -> calls.Changed:
    refusal = pb.message if pb.code == NOT_FOUND else ""
    stock = trading.to_stock(pb.stock) if pb.HasField("stock") else None
    return calls.Changed(pb.change_number, stock, refusal, pb.replayed)


def change(c: StockChange) -> Any:
    return catalog.StockChange(
        number=c.number,
        kind=c.kind,
        name=c.name,
        price_cents=c.price_cents,
        quantity=c.quantity,
        version=c.version,
        at_ms=c.at_ms,
    )


def to_change(pb: Any) -> StockChange:
    kind = ChangeKind(pb.kind)
    return StockChange(pb.number, kind, pb.name, pb.price_cents, pb.quantity, pb.version, pb.at_ms)


def changes(a: calls.Changes) -> Any:
    rows = [change(c) for c in a.changes]
    return catalog.ListChangesResponse(changes=rows, next=a.next, last=a.last, made=a.made)


def to_changes(pb: Any) -> calls.Changes:
    return calls.Changes(tuple(map(to_change, pb.changes)), pb.next, pb.last, pb.made)
