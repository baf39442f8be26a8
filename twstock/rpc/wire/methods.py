"""Every call between processes: its service, its name, and how it becomes bytes and back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from twstock.errors import InvalidRequest, TwstockError
from twstock.market import BeginEpoch, ChangeRequest, Stock, Trade
from twstock.pb import catalog_pb2 as catalog
from twstock.pb import order_pb2 as order
from twstock.replication.messages import AppendReply, Committed, VoteReply
from twstock.rpc import calls
from twstock.rpc.wire import administration, columns, observe, replicas, trading
from twstock.rpc.wire.base import OK, check_count, decoder, encoder

Q = TypeVar("Q")
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, A]):
    """One call: its gRPC service and name, and how request and answer become bytes and back."""

    service: str
    name: str
    encode_request: Callable[[Q], bytes]
    decode_request: Callable[[bytes], Q]
    encode_answer: Callable[[A], bytes]
    decode_answer: Callable[[bytes], A]

    @property
    def path(self) -> str:
        """The path of the call on the wire."""
        return f"/twstock.{self.service}/{self.name}"

    def parse_request(self, data: bytes) -> Q:
        """The request; raises InvalidRequest for bytes that are not a valid request."""
        try:
            return self.decode_request(data)
        except TwstockError as error:
            # Until it is answered, a traceback would keep the message, of any size, in memory.
            refusal = error.with_traceback(None)
        except Exception as error:
            # Whatever protobuf or our own types object to is the sender's fault; nothing ran.
            refusal = InvalidRequest("request", str(error) or type(error).__name__)
        try:
            raise refusal
        finally:
            del refusal  # or it and this frame would keep each other, and the data


def _heartbeat(service: str) -> Method[calls.Probe, calls.ProbeAnswer]:
    return Method(
        service,
        "Heartbeat",
        replicas.probe,
        replicas.to_probe,
        replicas.probe_answer,
        replicas.to_probe_answer,
    )


def _vote(service: str) -> Method[calls.Envelope, VoteReply]:
    return Method(
        service,
        "RequestVote",
        replicas.vote_request,
        replicas.to_vote_request,
        replicas.vote_reply,
        replicas.to_vote_reply,
    )


def _notify_replica(service: str) -> Method[calls.Notify, calls.Notified]:
    return Method(
        service,
        "NotifyReplica",
        replicas.notify,
        replicas.to_notify,
        replicas.notified,
        replicas.to_notified,
    )


def _to_lookup_many(pb: Any) -> calls.LookupMany:
    check_count("stock_names", pb.stock_names)
    return calls.LookupMany(tuple(pb.stock_names), pb.front_id, pb.session)


def _to_await_published(pb: Any) -> calls.AwaitPublished:
    check_count("versions", pb.versions)
    return calls.AwaitPublished(dict(pb.versions))


ORDER_HEARTBEAT = _heartbeat("Order")
ORDER_VOTE = _vote("Order")
ORDER_NOTIFY = _notify_replica("Order")
ORDER_APPEND: Method[calls.Envelope, AppendReply] = Method(
    "Order",
    "ReplicateOrder",
    encoder(lambda e: order.ReplicateOrderRequest(append=replicas.append_of(e))),
    decoder(order.ReplicateOrderRequest, replicas.envelope_of_append),
    encoder(lambda a: order.ReplicateOrderResponse(code=OK, append=replicas.append_reply(a))),
    decoder(order.ReplicateOrderResponse, lambda pb: replicas.to_append_reply(pb.append)),
)
ORDER_SYNC_UP: Method[calls.SyncUp, calls.SyncedUp] = Method(
    "Order", "SyncUp", trading.sync_up, trading.to_sync_up, trading.synced_up, trading.to_synced_up
)
ORDER: Method[calls.PlaceOrder, calls.Placement] = Method(
    "Order",
    "Order",
    trading.place_order,
    trading.to_order_request,
    encoder(trading.placement),
    decoder(order.OrderResponse, trading.to_placement),
)
PLACE_ORDERS: Method[calls.PlaceOrders, calls.Placements] = Method(
    "Order",
    "PlaceOrders",
    encoder(lambda q: order.PlaceOrdersRequest(orders=columns.orders(q.orders))),
    decoder(
        order.PlaceOrdersRequest, lambda pb: calls.PlaceOrders(columns.to_place_orders(pb.orders))
    ),
    encoder(lambda a: columns.placements(a.results)),
    decoder(order.PlaceOrdersResponse, lambda pb: calls.Placements(columns.to_placements(pb))),
)
ORDER_DETAILS: Method[int, Trade | None] = Method(
    "Order",
    "GetOrderDetails",
    encoder(lambda number: order.GetOrderDetailsRequest(transaction_num=number)),
    decoder(order.GetOrderDetailsRequest, lambda pb: int(pb.transaction_num)),
    trading.order_details,
    trading.to_order_details,
)
LIST_ORDERS: Method[calls.Page, calls.Orders] = Method(
    "Order",
    "ListOrders",
    encoder(lambda q: order.ListOrdersRequest(after=q.after, limit=q.limit)),
    decoder(order.ListOrdersRequest, lambda pb: calls.Page(pb.after, pb.limit)),
    encoder(
        lambda a: order.ListOrdersResponse(orders=[trading.trade(t) for t in a.orders], next=a.next)
    ),
    decoder(
        order.ListOrdersResponse, lambda pb: calls.Orders(trading.to_trades(pb.orders), pb.next)
    ),
)

CATALOG_HEARTBEAT = _heartbeat("Catalog")
CATALOG_VOTE = _vote("Catalog")
CATALOG_NOTIFY = _notify_replica("Catalog")
CATALOG_APPEND: Method[calls.Envelope, AppendReply] = Method(
    "Catalog",
    "ReplicateTrades",
    encoder(lambda e: catalog.ReplicateTradesRequest(append=replicas.append_of(e))),
    decoder(catalog.ReplicateTradesRequest, replicas.envelope_of_append),
    encoder(lambda a: catalog.ReplicateTradesResponse(append=replicas.append_reply(a))),
    decoder(catalog.ReplicateTradesResponse, lambda pb: replicas.to_append_reply(pb.append)),
)
FETCH_ENTRIES: Method[calls.Fetch, Committed] = Method(
    "Catalog",
    "FetchEntries",
    encoder(replicas.fetch),
    decoder(catalog.FetchEntriesRequest, replicas.to_fetch),
    encoder(replicas.fetched),
    decoder(catalog.FetchEntriesResponse, replicas.to_fetched),
)
FETCH_SNAPSHOT: Method[calls.FetchSnapshot, calls.SnapshotPiece] = Method(
    "Catalog",
    "FetchSnapshot",
    encoder(replicas.fetch_snapshot),
    decoder(catalog.FetchSnapshotRequest, replicas.to_fetch_snapshot),
    encoder(replicas.snapshot_piece),
    decoder(catalog.FetchSnapshotResponse, replicas.to_snapshot_piece),
)
LOOKUP: Method[calls.Lookup, Stock | None] = Method(
    "Catalog",
    "Lookup",
    encoder(
        lambda q: catalog.LookupRequest(stock_name=q.name, front_id=q.front_id, session=q.session)
    ),
    decoder(catalog.LookupRequest, lambda pb: calls.Lookup(pb.stock_name, pb.front_id, pb.session)),
    encoder(trading.stock),
    decoder(catalog.LookupResponse, trading.to_stock),
)
LOOKUP_MANY: Method[calls.LookupMany, calls.LookedUp] = Method(
    "Catalog",
    "LookupMany",
    encoder(
        lambda q: catalog.LookupManyRequest(
            stock_names=q.names, front_id=q.front_id, session=q.session
        )
    ),
    decoder(catalog.LookupManyRequest, _to_lookup_many),
    encoder(lambda a: catalog.LookupManyResponse(stocks=[trading.stock(s) for s in a.stocks])),
    decoder(
        catalog.LookupManyResponse,
        lambda pb: calls.LookedUp(tuple(trading.to_stock(s) for s in pb.stocks)),
    ),
)
TRADE: Method[calls.TradeCall, calls.Verdicts | calls.Placement] = Method(
    "Catalog",
    "Trade",
    trading.trade_call,
    trading.to_trade_call,
    trading.trade_answer,
    trading.to_trade_answer,
)
AWAIT_PUBLISHED: Method[calls.AwaitPublished, calls.Published] = Method(
    "Catalog",
    "AwaitPublished",
    encoder(lambda q: catalog.AwaitPublishedRequest(versions=q.versions)),
    decoder(catalog.AwaitPublishedRequest, _to_await_published),
    encoder(lambda _: catalog.AwaitPublishedResponse()),
    decoder(catalog.AwaitPublishedResponse, lambda _: calls.Published()),
)
BEGIN_EPOCH: Method[BeginEpoch, calls.ExecutedTrades] = Method(
    "Catalog",
    "BeginEpoch",
    encoder(lambda q: catalog.BeginEpochRequest(epoch=q.epoch, after=q.after)),
    decoder(catalog.BeginEpochRequest, lambda pb: BeginEpoch(pb.epoch, pb.after)),
    encoder(
        lambda a: catalog.BeginEpochResponse(
            trades=[trading.trade(t) for t in a.trades], last_number=a.last_number
        )
    ),
    decoder(
        catalog.BeginEpochResponse,
        lambda pb: calls.ExecutedTrades(trading.to_trades(pb.trades), pb.last_number),
    ),
)
REGISTER: Method[calls.Register, calls.Lease] = Method(
    "Catalog",
    "Register",
    encoder(lambda q: catalog.RegisterRequest(front_id=q.front_id, url=q.url, session=q.session)),
    decoder(catalog.RegisterRequest, lambda pb: calls.Register(pb.front_id, pb.url, pb.session)),
    encoder(lambda a: catalog.RegisterResponse(lease_s=a.seconds, fresh=a.fresh, missed=a.missed)),
    decoder(
        catalog.RegisterResponse,
        lambda pb: calls.Lease(pb.lease_s, pb.fresh, dict(pb.missed)),
    ),
)
LIST_STOCKS: Method[calls.StockPage, calls.Stocks] = Method(
    "Catalog",
    "ListStocks",
    encoder(lambda q: catalog.ListStocksRequest(after=q.after, limit=q.limit)),
    decoder(catalog.ListStocksRequest, lambda pb: calls.StockPage(pb.after, pb.limit)),
    encoder(
        lambda a: catalog.ListStocksResponse(
            stocks=[trading.stock(s) for s in a.stocks], next=a.next
        )
    ),
    trading.to_stocks,
)

OBSERVE: Method[calls.Observe, calls.Observed] = Method(
    "Observe",
    "Families",
    observe.observe,
    observe.to_observe,
    observe.observed,
    observe.to_observed,
)
CHANGE_STOCK: Method[ChangeRequest, calls.Changed] = Method(
    "Catalog",
    "ChangeStock",
    encoder(administration.request),
    decoder(catalog.ChangeStockRequest, administration.to_request),
    encoder(administration.changed),
    decoder(catalog.ChangeStockResponse, administration.to_changed),
)
LIST_CHANGES: Method[calls.Page, calls.Changes] = Method(
    "Catalog",
    "ListChanges",
    encoder(lambda q: catalog.ListChangesRequest(after=q.after, limit=q.limit)),
    decoder(catalog.ListChangesRequest, lambda pb: calls.Page(pb.after, pb.limit)),
    encoder(administration.changes),
    decoder(catalog.ListChangesResponse, administration.to_changes),
)
