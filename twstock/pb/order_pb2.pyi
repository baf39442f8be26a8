from twstock.pb import replication_pb2 as _replication_pb2
from twstock.pb import catalog_pb2 as _catalog_pb2
from twstock.pb import replication_pb2 as _replication_pb2_1
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

class OrderRequest(_message.Message):
    __slots__ = ("name", "number_of_items", "type", "idempotency_key")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUMBER_OF_ITEMS_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    name: str
    number_of_items: int
    type: str
    idempotency_key: str
    def __init__(self, name: _Optional[str] = ..., number_of_items: _Optional[int] = ..., type: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class OrderResponse(_message.Message):
    __slots__ = ("code", "transaction_num", "message", "replayed", "version")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_NUM_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    code: int
    transaction_num: int
    message: str
    replayed: bool
    version: int
    def __init__(self, code: _Optional[int] = ..., transaction_num: _Optional[int] = ..., message: _Optional[str] = ..., replayed: bool = ..., version: _Optional[int] = ...) -> None: ...

class GetOrderDetailsRequest(_message.Message):
    __slots__ = ("transaction_num",)
    TRANSACTION_NUM_FIELD_NUMBER: _ClassVar[int]
    transaction_num: int
    def __init__(self, transaction_num: _Optional[int] = ...) -> None: ...

class GetOrderDetailsResponse(_message.Message):
    __slots__ = ("code", "transaction_num", "name", "type", "volume_traded", "message", "price_cents", "at_ms", "version")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TRANSACTION_NUM_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    VOLUME_TRADED_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PRICE_CENTS_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    code: int
    transaction_num: int
    name: str
    type: str
    volume_traded: int
    message: str
    price_cents: int
    at_ms: int
    version: int
    def __init__(self, code: _Optional[int] = ..., transaction_num: _Optional[int] = ..., name: _Optional[str] = ..., type: _Optional[str] = ..., volume_traded: _Optional[int] = ..., message: _Optional[str] = ..., price_cents: _Optional[int] = ..., at_ms: _Optional[int] = ..., version: _Optional[int] = ...) -> None: ...

class ReplicateOrderRequest(_message.Message):
    __slots__ = ("transaction_num", "name", "number_of_items", "type", "leader_id", "append")
    TRANSACTION_NUM_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUMBER_OF_ITEMS_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    LEADER_ID_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    transaction_num: int
    name: str
    number_of_items: int
    type: str
    leader_id: int
    append: _replication_pb2_1.AppendEntries
    def __init__(self, transaction_num: _Optional[int] = ..., name: _Optional[str] = ..., number_of_items: _Optional[int] = ..., type: _Optional[str] = ..., leader_id: _Optional[int] = ..., append: _Optional[_Union[_replication_pb2_1.AppendEntries, _Mapping]] = ...) -> None: ...

class ReplicateOrderResponse(_message.Message):
    __slots__ = ("code", "append")
    CODE_FIELD_NUMBER: _ClassVar[int]
    APPEND_FIELD_NUMBER: _ClassVar[int]
    code: int
    append: _replication_pb2_1.AppendReply
    def __init__(self, code: _Optional[int] = ..., append: _Optional[_Union[_replication_pb2_1.AppendReply, _Mapping]] = ...) -> None: ...

class OrderDetails(_message.Message):
    __slots__ = ("transaction_num", "name", "number_of_items", "type")
    TRANSACTION_NUM_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUMBER_OF_ITEMS_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    transaction_num: int
    name: str
    number_of_items: int
    type: str
    def __init__(self, transaction_num: _Optional[int] = ..., name: _Optional[str] = ..., number_of_items: _Optional[int] = ..., type: _Optional[str] = ...) -> None: ...

class SyncUpRequest(_message.Message):
    __slots__ = ("transaction_num", "service_id", "fetch", "whole", "limit")
    TRANSACTION_NUM_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    FETCH_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    transaction_num: int
    service_id: int
    fetch: _catalog_pb2.FetchEntriesRequest
    whole: bool
    limit: int
    def __init__(self, transaction_num: _Optional[int] = ..., service_id: _Optional[int] = ..., fetch: _Optional[_Union[_catalog_pb2.FetchEntriesRequest, _Mapping]] = ..., whole: bool = ..., limit: _Optional[int] = ...) -> None: ...

class SyncUpResponse(_message.Message):
    __slots__ = ("orders", "fetched", "more", "columns")
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    FETCHED_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    orders: _containers.RepeatedCompositeFieldContainer[OrderDetails]
    fetched: _catalog_pb2.FetchEntriesResponse
    more: bool
    columns: _catalog_pb2.TradeColumns
    def __init__(self, orders: _Optional[_Iterable[_Union[OrderDetails, _Mapping]]] = ..., fetched: _Optional[_Union[_catalog_pb2.FetchEntriesResponse, _Mapping]] = ..., more: bool = ..., columns: _Optional[_Union[_catalog_pb2.TradeColumns, _Mapping]] = ...) -> None: ...

class PlaceOrdersRequest(_message.Message):
    __slots__ = ("orders",)
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    orders: _catalog_pb2.OrderColumns
    def __init__(self, orders: _Optional[_Union[_catalog_pb2.OrderColumns, _Mapping]] = ...) -> None: ...

class PlaceOrdersResponse(_message.Message):
    __slots__ = ("statuses", "numbers", "messages", "replayed", "versions")
    STATUSES_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    REPLAYED_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    statuses: _containers.RepeatedScalarFieldContainer[int]
    numbers: _containers.RepeatedScalarFieldContainer[int]
    messages: _containers.RepeatedScalarFieldContainer[str]
    replayed: _containers.RepeatedScalarFieldContainer[bool]
    versions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, statuses: _Optional[_Iterable[int]] = ..., numbers: _Optional[_Iterable[int]] = ..., messages: _Optional[_Iterable[str]] = ..., replayed: _Optional[_Iterable[bool]] = ..., versions: _Optional[_Iterable[int]] = ...) -> None: ...

class ListOrdersRequest(_message.Message):
    __slots__ = ("after", "limit")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    after: int
    limit: int
    def __init__(self, after: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ListOrdersResponse(_message.Message):
    __slots__ = ("orders", "next")
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    orders: _containers.RepeatedCompositeFieldContainer[_catalog_pb2.ExecutedTrade]
    next: int
    def __init__(self, orders: _Optional[_Iterable[_Union[_catalog_pb2.ExecutedTrade, _Mapping]]] = ..., next: _Optional[int] = ...) -> None: ...
