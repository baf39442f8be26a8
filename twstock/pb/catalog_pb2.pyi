from twstock.pb import replication_pb2 as _replication_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union
from twstock.pb.replication_pb2 import Peer as Peer
from twstock.pb.replication_pb2 import Entry as Entry
from twstock.pb.replication_pb2 import AppendEntries as AppendEntries
from twstock.pb.replication_pb2 import AppendReply as AppendReply
from twstock.pb.replication_pb2 import VoteRequest as VoteRequest
from twstock.pb.replication_pb2 import VoteReply as VoteReply
from twstock.pb.replication_pb2 import Transfer as Transfer
from twstock.pb.replication_pb2 import MemberStatus as MemberStatus
from twstock.pb.replication_pb2 import Empty as Empty
from twstock.pb.replication_pb2 import HeartbeatResponse as HeartbeatResponse
from twstock.pb.replication_pb2 import NotifyReplicaRequest as NotifyReplicaRequest
from twstock.pb.replication_pb2 import NotifyReplicaResponse as NotifyReplicaResponse
from twstock.pb.replication_pb2 import RequestVoteRequest as RequestVoteRequest
from twstock.pb.replication_pb2 import RequestVoteResponse as RequestVoteResponse

DESCRIPTOR: _descriptor.FileDescriptor

class LookupRequest(_message.Message):
    __slots__ = ("stock_name", "front_id", "session")
    STOCK_NAME_FIELD_NUMBER: _ClassVar[int]
    FRONT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    stock_name: str
    front_id: int
    session: str
    def __init__(self, stock_name: _Optional[str] = ..., front_id: _Optional[int] = ..., session: _Optional[str] = ...) -> None: ...

class LookupResponse(_message.Message):
    __slots__ = ("code", "name", "price", "quantity", "message", "price_cents", "volume", "version", "initial_quantity", "halted")
    CODE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PRICE_CENTS_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INITIAL_QUANTITY_FIELD_NUMBER: _ClassVar[int]
    HALTED_FIELD_NUMBER: _ClassVar[int]
    code: int
    name: str
    price: float
    quantity: int
    message: str
    price_cents: int
    volume: int
    version: int
    initial_quantity: int
    halted: bool
    def __init__(self, code: _Optional[int] = ..., name: _Optional[str] = ..., price: _Optional[float] = ..., quantity: _Optional[int] = ..., message: _Optional[str] = ..., price_cents: _Optional[int] = ..., volume: _Optional[int] = ..., version: _Optional[int] = ..., initial_quantity: _Optional[int] = ..., halted: bool = ...) -> None: ...

class LookupManyRequest(_message.Message):
    __slots__ = ("stock_names", "front_id", "session")
    STOCK_NAMES_FIELD_NUMBER: _ClassVar[int]
    FRONT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    stock_names: _containers.RepeatedScalarFieldContainer[str]
    front_id: int
    session: str
    def __init__(self, stock_names: _Optional[_Iterable[str]] = ..., front_id: _Optional[int] = ..., session: _Optional[str] = ...) -> None: ...

class LookupManyResponse(_message.Message):
    __slots__ = ("stocks",)
    STOCKS_FIELD_NUMBER: _ClassVar[int]
    stocks: _containers.RepeatedCompositeFieldContainer[LookupResponse]
    def __init__(self, stocks: _Optional[_Iterable[_Union[LookupResponse, _Mapping]]] = ...) -> None: ...

class OrderItem(_message.Message):
    __slots__ = ("key", "name", "type", "quantity")
    KEY_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    key: str
    name: str
    type: str
    quantity: int
    def __init__(self, key: _Optional[str] = ..., name: _Optional[str] = ..., type: _Optional[str] = ..., quantity: _Optional[int] = ...) -> None: ...

class ExecutedTrade(_message.Message):
    __slots__ = ("number", "item", "version", "price_cents", "at_ms")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PRICE_CENTS_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    number: int
    item: OrderItem
    version: int
    price_cents: int
    at_ms: int
    def __init__(self, number: _Optional[int] = ..., item: _Optional[_Union[OrderItem, _Mapping]] = ..., version: _Optional[int] = ..., price_cents: _Optional[int] = ..., at_ms: _Optional[int] = ...) -> None: ...

class OrderColumns(_message.Message):
    __slots__ = ("keys", "names", "types", "quantities")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    QUANTITIES_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[str]
    names: _containers.RepeatedScalarFieldContainer[str]
    types: _containers.RepeatedScalarFieldContainer[str]
    quantities: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, keys: _Optional[_Iterable[str]] = ..., names: _Optional[_Iterable[str]] = ..., types: _Optional[_Iterable[str]] = ..., quantities: _Optional[_Iterable[int]] = ...) -> None: ...

class TradeColumns(_message.Message):
    __slots__ = ("orders", "numbers", "versions", "prices_cents", "at_ms")
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    PRICES_CENTS_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    orders: OrderColumns
    numbers: _containers.RepeatedScalarFieldContainer[int]
    versions: _containers.RepeatedScalarFieldContainer[int]
    prices_cents: _containers.RepeatedScalarFieldContainer[int]
    at_ms: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, orders: _Optional[_Union[OrderColumns, _Mapping]] = ..., numbers: _Optional[_Iterable[int]] = ..., versions: _Optional[_Iterable[int]] = ..., prices_cents: _Optional[_Iterable[int]] = ..., at_ms: _Optional[_Iterable[int]] = ...) -> None: ...

class OutcomeColumns(_message.Message):
    __slots__ = ("numbers", "versions", "prices_cents", "at_ms", "refusals", "key_reused", "replayed")
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    PRICES_CENTS_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    KEY_REUSED_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    numbers: _containers.RepeatedScalarFieldContainer[int]
    versions: _containers.RepeatedScalarFieldContainer[int]
    prices_cents: _containers.RepeatedScalarFieldContainer[int]
    at_ms: _containers.RepeatedScalarFieldContainer[int]
    refusals: _containers.RepeatedScalarFieldContainer[str]
    key_reused: _containers.RepeatedScalarFieldContainer[bool]
    replayed: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, numbers: _Optional[_Iterable[int]] = ..., versions: _Optional[_Iterable[int]] = ..., prices_cents: _Optional[_Iterable[int]] = ..., at_ms: _Optional[_Iterable[int]] = ..., refusals: _Optional[_Iterable[str]] = ..., key_reused: _Optional[_Iterable[bool]] = ..., replayed: _Optional[_Iterable[bool]] = ...) -> None: ...

class TradeBatch(_message.Message):
    __slots__ = ("epoch", "number", "recorded", "known", "at_ms", "items", "orders")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RECORDED_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    number: int
    recorded: int
    known: int
    at_ms: int
    items: _containers.RepeatedCompositeFieldContainer[OrderItem]
    orders: OrderColumns
    def __init__(self, epoch: _Optional[int] = ..., number: _Optional[int] = ..., recorded: _Optional[int] = ..., known: _Optional[int] = ..., at_ms: _Optional[int] = ..., items: _Optional[_Iterable[_Union[OrderItem, _Mapping]]] = ..., orders: _Optional[_Union[OrderColumns, _Mapping]] = ...) -> None: ...

class TradeRequest(_message.Message):
    __slots__ = ("name", "number_of_items", "type", "batch", "idempotency_key", "at_once")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUMBER_OF_ITEMS_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    AT_ONCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    number_of_items: int
    type: str
    batch: TradeBatch
    idempotency_key: str
    at_once: bool
    def __init__(self, name: _Optional[str] = ..., number_of_items: _Optional[int] = ..., type: _Optional[str] = ..., batch: _Optional[_Union[TradeBatch, _Mapping]] = ..., idempotency_key: _Optional[str] = ..., at_once: bool = ...) -> None: ...

class TradeResponse(_message.Message):
    __slots__ = ("code", "message", "outcomes", "others", "unpublished")
    class UnpublishedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    OTHERS_FIELD_NUMBER: _ClassVar[int]
    UNPUBLISHED_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    outcomes: OutcomeColumns
    others: TradeColumns
    unpublished: _containers.ScalarMap[str, int]
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., outcomes: _Optional[_Union[OutcomeColumns, _Mapping]] = ..., others: _Optional[_Union[TradeColumns, _Mapping]] = ..., unpublished: _Optional[_Mapping[str, int]] = ...) -> None: ...

class AwaitPublishedRequest(_message.Message):
    __slots__ = ("versions",)
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.ScalarMap[str, int]
    def __init__(self, versions: _Optional[_Mapping[str, int]] = ...) -> None: ...

class AwaitPublishedResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BeginEpochRequest(_message.Message):
    __slots__ = ("epoch", "after")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    after: int
    def __init__(self, epoch: _Optional[int] = ..., after: _Optional[int] = ...) -> None: ...

class BeginEpochResponse(_message.Message):
    __slots__ = ("trades", "last_number")
    TRADES_FIELD_NUMBER: _ClassVar[int]
    LAST_NUMBER_FIELD_NUMBER: _ClassVar[int]
    trades: _containers.RepeatedCompositeFieldContainer[ExecutedTrade]
    last_number: int
    def __init__(self, trades: _Optional[_Iterable[_Union[ExecutedTrade, _Mapping]]] = ..., last_number: _Optional[int] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("front_id", "url", "session")
    FRONT_ID_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    front_id: int
    url: str
    session: str
    def __init__(self, front_id: _Optional[int] = ..., url: _Optional[str] = ..., session: _Optional[str] = ...) -> None: ...

class RegisterResponse(_message.Message):
    __slots__ = ("lease_s", "fresh", "missed")
    class MissedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    FRESH_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    lease_s: float
    fresh: bool
    missed: _containers.ScalarMap[str, int]
    def __init__(self, lease_s: _Optional[float] = ..., fresh: bool = ..., missed: _Optional[_Mapping[str, int]] = ...) -> None: ...

class ListStocksRequest(_message.Message):
    __slots__ = ("after", "limit")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    after: str
    limit: int
    def __init__(self, after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListStocksResponse(_message.Message):
    __slots__ = ("stocks", "next")
    STOCKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    stocks: _containers.RepeatedCompositeFieldContainer[LookupResponse]
    next: str
    def __init__(self, stocks: _Optional[_Iterable[_Union[LookupResponse, _Mapping]]] = ..., next: _Optional[str] = ...) -> None: ...

class ChangeStockRequest(_message.Message):
    __slots__ = ("idempotency_key", "kind", "name", "price_cents", "quantity")
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PRICE_CENTS_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    idempotency_key: str
    kind: str
    name: str
    price_cents: int
    quantity: int
    def __init__(self, idempotency_key: _Optional[str] = ..., kind: _Optional[str] = ..., name: _Optional[str] = ..., price_cents: _Optional[int] = ..., quantity: _Optional[int] = ...) -> None: ...

class ChangeStockResponse(_message.Message):
    __slots__ = ("code", "message", "change_number", "replayed", "stock")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CHANGE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    STOCK_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    change_number: int
    replayed: bool
    stock: LookupResponse
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., change_number: _Optional[int] = ..., replayed: bool = ..., stock: _Optional[_Union[LookupResponse, _Mapping]] = ...) -> None: ...

class StockChange(_message.Message):
    __slots__ = ("number", "kind", "name", "price_cents", "quantity", "version", "at_ms")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PRICE_CENTS_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    number: int
    kind: str
    name: str
    price_cents: int
    quantity: int
    version: int
    at_ms: int
    def __init__(self, number: _Optional[int] = ..., kind: _Optional[str] = ..., name: _Optional[str] = ..., price_cents: _Optional[int] = ..., quantity: _Optional[int] = ..., version: _Optional[int] = ..., at_ms: _Optional[int] = ...) -> None: ...

class ListChangesRequest(_message.Message):
    __slots__ = ("after", "limit")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    after: int
    limit: int
    def __init__(self, after: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ListChangesResponse(_message.Message):
    __slots__ = ("changes", "next", "last", "made")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    MADE_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[StockChange]
    next: int
    last: int
    made: int
    def __init__(self, changes: _Optional[_Iterable[_Union[StockChange, _Mapping]]] = ..., next: _Optional[int] = ..., last: _Optional[int] = ..., made: _Optional[int] = ...) -> None: ...

class ReplicateTradesRequest(_message.Message):
    __slots__ = ("append",)
    APPEND_FIELD_NUMBER: _ClassVar[int]
    append: _replication_pb2.AppendEntries
    def __init__(self, append: _Optional[_Union[_replication_pb2.AppendEntries, _Mapping]] = ...) -> None: ...

class ReplicateTradesResponse(_message.Message):
    __slots__ = ("append",)
    APPEND_FIELD_NUMBER: _ClassVar[int]
    append: _replication_pb2.AppendReply
    def __init__(self, append: _Optional[_Union[_replication_pb2.AppendReply, _Mapping]] = ...) -> None: ...

class FetchEntriesRequest(_message.Message):
    __slots__ = ("peer", "after_index")
    PEER_FIELD_NUMBER: _ClassVar[int]
    AFTER_INDEX_FIELD_NUMBER: _ClassVar[int]
    peer: _replication_pb2.Peer
    after_index: int
    def __init__(self, peer: _Optional[_Union[_replication_pb2.Peer, _Mapping]] = ..., after_index: _Optional[int] = ...) -> None: ...

class FetchEntriesResponse(_message.Message):
    __slots__ = ("prev_index", "prev_term", "entries", "commit", "term")
    PREV_INDEX_FIELD_NUMBER: _ClassVar[int]
    PREV_TERM_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    prev_index: int
    prev_term: int
    entries: _containers.RepeatedCompositeFieldContainer[_replication_pb2.Entry]
    commit: int
    term: int
    def __init__(self, prev_index: _Optional[int] = ..., prev_term: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[_replication_pb2.Entry, _Mapping]]] = ..., commit: _Optional[int] = ..., term: _Optional[int] = ...) -> None: ...

class FetchSnapshotRequest(_message.Message):
    __slots__ = ("peer", "index", "offset")
    PEER_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    peer: _replication_pb2.Peer
    index: int
    offset: int
    def __init__(self, peer: _Optional[_Union[_replication_pb2.Peer, _Mapping]] = ..., index: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class FetchSnapshotResponse(_message.Message):
    __slots__ = ("index", "size", "content")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    index: int
    size: int
    content: bytes
    def __init__(self, index: _Optional[int] = ..., size: _Optional[int] = ..., content: _Optional[bytes] = ...) -> None: ...
