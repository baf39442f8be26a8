"""Orders, trades and stocks, as protobuf and back."""

from typing import Any

from twstock.market import (
    ORDER_NOT_FOUND,
    SIDES,
    STOCK_NOT_FOUND,
    Batch,
    Order,
    Side,
    Stock,
    Trade,
    decimal_price,
)
from twstock.pb import catalog_pb2 as catalog
from twstock.pb import order_pb2 as order
from twstock.rpc import calls
from twstock.rpc.wire import columns
from twstock.rpc.wire.base import NOT_FOUND, OK, check_count, to_bytes
from twstock.rpc.wire.replicas import fetch, fetched, to_fetch, to_fetched


def item(o: Order) -> Any:
    return catalog.OrderItem(key=o.key, name=o.name, type=o.side, quantity=o.quantity)


def to_order(pb: Any) -> Order:
    side = SIDES.get(pb.type) or Side(pb.type)  # which raises
    return Order(pb.key, pb.name, side, pb.quantity)


def trade(t: Trade) -> Any:
    return catalog.ExecutedTrade(
        number=t.number,
        item=item(t.order),
        version=t.version,
        price_cents=t.price_cents,
        at_ms=t.at_ms,
    )


def to_trade(pb: Any) -> Trade:
    return Trade(pb.number, to_order(pb.item), pb.version, pb.price_cents, pb.at_ms)


def to_trades(pb: Any) -> tuple[Trade, ...]:
    return tuple(to_trade(t) for t in pb)


def batch(b: Batch) -> Any:
    return catalog.TradeBatch(
        epoch=b.epoch,
        number=b.number,
        recorded=b.recorded,
        known=b.known,
        at_ms=b.at_ms,
        orders=columns.orders(b.orders),
    )


def to_batch(pb: Any) -> Batch:
    orders = columns.to_orders(pb.orders) or tuple(map(to_order, pb.items))
    return Batch(pb.epoch, pb.number, pb.recorded, pb.known, pb.at_ms, orders)


def trade_call(q: calls.TradeCall) -> bytes:
    if isinstance(q, calls.AtOnce):
        return to_bytes(catalog.TradeRequest(batch=batch(q.batch), at_once=True))
    if isinstance(q, Batch):
        return to_bytes(catalog.TradeRequest(batch=batch(q)))
    return to_bytes(
        catalog.TradeRequest(
            name=q.name, number_of_items=q.quantity, type=q.type, idempotency_key=q.key
        )
    )


def to_trade_call(data: bytes) -> calls.TradeCall:
    pb = catalog.TradeRequest.FromString(data)
    if pb.HasField("batch"):
        check_count("batch", pb.batch.items)
        columns.check_orders("batch", pb.batch.orders)
        asked = to_batch(pb.batch)
        return calls.AtOnce(asked) if pb.at_once else asked
    return calls.PlaceOrder(pb.idempotency_key, pb.name, pb.type, pb.number_of_items)


def trade_answer(a: calls.Verdicts | calls.Placement) -> bytes:
    if isinstance(a, calls.Placement):
        code = NOT_FOUND if a.refusal else OK
        return to_bytes(catalog.TradeResponse(code=code, message=a.refusal))
    return to_bytes(
        catalog.TradeResponse(
            code=OK,
            outcomes=columns.verdicts(a.verdicts),
            others=columns.trades(a.others) if a.others else None,
            unpublished=a.unpublished,
        )
    )


def to_trade_answer(data: bytes) -> calls.Verdicts | calls.Placement:
    pb = catalog.TradeResponse.FromString(data)
    if pb.code == NOT_FOUND:
        return calls.Placement(refusal=pb.message)
    others, unpublished = columns.to_trades(pb.others), dict(pb.unpublished)
    return calls.Verdicts(columns.to_verdicts(pb.outcomes), others, unpublished)


def place_order(q: calls.PlaceOrder) -> bytes:
    return to_bytes(
        order.OrderRequest(
            name=q.name, number_of_items=q.quantity, type=q.type, idempotency_key=q.key
        )
    )


def to_order_request(data: bytes) -> calls.PlaceOrder:
    pb = order.OrderRequest.FromString(data)
    return calls.PlaceOrder(pb.idempotency_key, pb.name, pb.type, pb.number_of_items)


def placement(p: calls.Placement) -> Any:
    return order.OrderResponse(
        code=NOT_FOUND if p.refusal else OK,
        transaction_num=p.number,
        message=p.refusal or "order placed successfully",
        replayed=p.replayed,
        version=p.version,
    )


def to_placement(pb: Any) -> calls.Placement:
    refusal = pb.message if pb.code == NOT_FOUND else ""
    return calls.Placement(pb.transaction_num, refusal, pb.replayed, pb.version)


def order_details(t: Trade | None) -> bytes:
    if t is None:
        return to_bytes(order.GetOrderDetailsResponse(code=NOT_FOUND, message=ORDER_NOT_FOUND))
    return to_bytes(
        order.GetOrderDetailsResponse(
            code=OK,
            transaction_num=t.number,
            name=t.order.name,
            type=t.order.side,
            volume_traded=t.order.quantity,
            price_cents=t.price_cents,
            at_ms=t.at_ms,
            version=t.version,
        )
    )


def to_order_details(data: bytes) -> Trade | None:
    pb = order.GetOrderDetailsResponse.FromString(data)
    if pb.code == NOT_FOUND:
        return None
    o = Order("", pb.name, Side(pb.type), pb.volume_traded)
    return Trade(pb.transaction_num, o, pb.version, pb.price_cents, pb.at_ms)


def sync_up(q: calls.SyncUp) -> bytes:
    wanted = fetch(q.fetch) if q.fetch else None
    return to_bytes(
        order.SyncUpRequest(
            transaction_num=q.transaction_number,
            service_id=q.service_id,
            fetch=wanted,
            whole=q.whole,
            limit=q.limit,
        )
    )


def to_sync_up(data: bytes) -> calls.SyncUp:
    pb = order.SyncUpRequest.FromString(data)
    fetch = to_fetch(pb.fetch) if pb.HasField("fetch") else None
    return calls.SyncUp(pb.transaction_num, pb.service_id, fetch, pb.whole, pb.limit)


def synced_up(a: calls.SyncedUp) -> bytes:
    if a.whole:
        return to_bytes(order.SyncUpResponse(columns=columns.trades(a.orders), more=a.more))
    return to_bytes(
        order.SyncUpResponse(
            orders=[
                order.OrderDetails(
                    transaction_num=t.number,
                    name=t.order.name,
                    number_of_items=t.order.quantity,
                    type=t.order.side,
                )
                for t in a.orders
            ],
            more=a.more,
            fetched=fetched(a.fetched) if a.fetched else None,
        )
    )


def to_synced_up(data: bytes) -> calls.SyncedUp:
    pb = order.SyncUpResponse.FromString(data)
    if pb.HasField("columns"):
        return calls.SyncedUp(columns.to_trades(pb.columns), pb.more, whole=True)
    orders = tuple(
        Trade(o.transaction_num, Order("", o.name, Side(o.type), o.number_of_items), 0, 0, 0)
        for o in pb.orders
    )
    fetched = to_fetched(pb.fetched) if pb.HasField("fetched") else None
    return calls.SyncedUp(orders, pb.more, fetched)


def stock(s: Stock | None) -> Any:
    if s is None:
        return catalog.LookupResponse(code=NOT_FOUND, message=STOCK_NOT_FOUND)
    return catalog.LookupResponse(
        code=OK,
        name=s.name,
        price=decimal_price(s.price_cents),
        quantity=s.quantity,
        price_cents=s.price_cents,
        volume=s.volume,
        version=s.version,
        initial_quantity=s.initial_quantity,
        halted=s.halted,
    )


def to_stock(pb: Any) -> Stock | None:
    if pb.code == NOT_FOUND:
        return None
    return Stock(
        pb.name,
        pb.price_cents,
        pb.quantity,
        pb.volume,
        pb.version,
        pb.initial_quantity,
        pb.halted,
    )


def to_stocks(data: bytes) -> calls.Stocks:
    pb = catalog.ListStocksResponse.FromString(data)
    stocks = tuple(s for s in map(to_stock, pb.stocks) if s is not None)
    return calls.Stocks(stocks, pb.next)
