from twstock.pb import catalog_pb2 as _catalog_pb2
from twstock.pb import replication_pb2 as _replication_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SeedStock(_message.Message):
    __slots__ = ("name", "price_cents", "quantity")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PRICE_CENTS_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    name: str
    price_cents: int
    quantity: int
    def __init__(self, name: _Optional[str] = ..., price_cents: _Optional[int] = ..., quantity: _Optional[int] = ...) -> None: ...

class RefusalBounds(_message.Message):
    __slots__ = ("keys_max", "age_ms")
    KEYS_MAX_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    keys_max: int
    age_ms: int
    def __init__(self, keys_max: _Optional[int] = ..., age_ms: _Optional[int] = ...) -> None: ...

class Seed(_message.Message):
    __slots__ = ("stocks", "refusal_bounds")
    STOCKS_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_BOUNDS_FIELD_NUMBER: _ClassVar[int]
    stocks: _containers.RepeatedCompositeFieldContainer[SeedStock]
    refusal_bounds: RefusalBounds
    def __init__(self, stocks: _Optional[_Iterable[_Union[SeedStock, _Mapping]]] = ..., refusal_bounds: _Optional[_Union[RefusalBounds, _Mapping]] = ...) -> None: ...

class DirectTrade(_message.Message):
    __slots__ = ("item", "at_ms")
    ITEM_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    item: _catalog_pb2.OrderItem
    at_ms: int
    def __init__(self, item: _Optional[_Union[_catalog_pb2.OrderItem, _Mapping]] = ..., at_ms: _Optional[int] = ...) -> None: ...

class AdministeredChange(_message.Message):
    __slots__ = ("request", "at_ms")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    request: _catalog_pb2.ChangeStockRequest
    at_ms: int
    def __init__(self, request: _Optional[_Union[_catalog_pb2.ChangeStockRequest, _Mapping]] = ..., at_ms: _Optional[int] = ...) -> None: ...

class CatalogCommand(_message.Message):
    __slots__ = ("seed", "batch", "begin_epoch", "direct", "change")
    SEED_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    BEGIN_EPOCH_FIELD_NUMBER: _ClassVar[int]
    DIRECT_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    seed: Seed
    batch: _catalog_pb2.TradeBatch
    begin_epoch: _catalog_pb2.BeginEpochRequest
    direct: DirectTrade
    change: AdministeredChange
    def __init__(self, seed: _Optional[_Union[Seed, _Mapping]] = ..., batch: _Optional[_Union[_catalog_pb2.TradeBatch, _Mapping]] = ..., begin_epoch: _Optional[_Union[_catalog_pb2.BeginEpochRequest, _Mapping]] = ..., direct: _Optional[_Union[DirectTrade, _Mapping]] = ..., change: _Optional[_Union[AdministeredChange, _Mapping]] = ...) -> None: ...

class DecidedBatch(_message.Message):
    __slots__ = ("orders", "outcomes")
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    orders: _catalog_pb2.OrderColumns
    outcomes: _catalog_pb2.OutcomeColumns
    def __init__(self, orders: _Optional[_Union[_catalog_pb2.OrderColumns, _Mapping]] = ..., outcomes: _Optional[_Union[_catalog_pb2.OutcomeColumns, _Mapping]] = ...) -> None: ...

class OrderRecord(_message.Message):
    __slots__ = ("trades", "columns")
    TRADES_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    trades: _containers.RepeatedCompositeFieldContainer[_catalog_pb2.ExecutedTrade]
    columns: _catalog_pb2.TradeColumns
    def __init__(self, trades: _Optional[_Iterable[_Union[_catalog_pb2.ExecutedTrade, _Mapping]]] = ..., columns: _Optional[_Union[_catalog_pb2.TradeColumns, _Mapping]] = ...) -> None: ...
