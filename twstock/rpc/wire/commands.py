"""What the entries of the two logs hold, as bytes and back."""

from collections.abc import Iterable, Sequence

from google.protobuf.message import DecodeError

from twstock import errors
from twstock.market import (
    Batch,
    BeginEpoch,
    CatalogCommand,
    ChangeStock,
    DirectTrade,
    Order,
    Outcome,
    RefusalBounds,
    Seed,
    Stock,
    Trade,
    Verdict,
)
from twstock.pb import catalog_pb2 as catalog
from twstock.pb import log_pb2 as log
from twstock.rpc.wire import administration, columns
from twstock.rpc.wire.base import to_bytes
from twstock.rpc.wire.trading import batch, item, to_batch, to_order, to_trades


def encode_catalog_command(command: CatalogCommand) -> bytes:
    """A catalog command as the payload of a log entry."""
    match command:
        case Seed():
            return to_bytes(log.CatalogCommand(seed=_seed(command)))
        case Batch():
            return to_bytes(log.CatalogCommand(batch=batch(command)))
        case BeginEpoch(epoch, after):
            begin = catalog.BeginEpochRequest(epoch=epoch, after=after)
            return to_bytes(log.CatalogCommand(begin_epoch=begin))
        case DirectTrade(o, at_ms):
            direct = log.DirectTrade(item=item(o), at_ms=at_ms)
            return to_bytes(log.CatalogCommand(direct=direct))
        case ChangeStock():
            return to_bytes(log.CatalogCommand(change=administration.command(command)))


def decode_catalog_command(payload: bytes) -> CatalogCommand:
    """The catalog command that an entry's payload holds."""
    pb = log.CatalogCommand.FromString(payload)
    match pb.WhichOneof("command"):
        case "seed":
            return _to_seed(pb.seed)
        case "batch":
            return to_batch(pb.batch)
        case "begin_epoch":
            return BeginEpoch(pb.begin_epoch.epoch, pb.begin_epoch.after)
        case "direct":
            return DirectTrade(to_order(pb.direct.item), pb.direct.at_ms)
        case "change":
            return administration.to_command(pb.change)
    raise errors.BrokenInvariant("a catalog log entry holds no command")


def _seed(seed: Seed) -> log.Seed:
    stocks = [
        log.SeedStock(name=s.name, price_cents=s.price_cents, quantity=s.quantity)
        for s in seed.stocks
    ]
    if seed.bounds is None:
        return log.Seed(stocks=stocks)
    bounds = log.RefusalBounds(keys_max=seed.bounds.keys_max, age_ms=seed.bounds.age_ms)
    return log.Seed(stocks=stocks, refusal_bounds=bounds)


def _to_seed(pb: log.Seed) -> Seed:
    stocks = tuple(
        Stock(s.name, s.price_cents, s.quantity, initial_quantity=s.quantity) for s in pb.stocks
    )
    if not pb.HasField("refusal_bounds"):
        return Seed(stocks)
    return Seed(stocks, RefusalBounds(pb.refusal_bounds.keys_max, pb.refusal_bounds.age_ms))


def encode_decided(orders: Sequence[Order], outcomes: Iterable[Outcome]) -> bytes:
    """Orders and what became of them, for the catalog's tables."""
    verdicts = tuple(map(Verdict.of, outcomes))
    decided = log.DecidedBatch(orders=columns.orders(orders), outcomes=columns.verdicts(verdicts))
    return to_bytes(decided)


def decode_decided(data: bytes) -> tuple[tuple[Order, ...], tuple[Outcome, ...]]:
    """The orders and what became of them. Raises ValueError if they do not fit together."""
    try:
        pb = log.DecidedBatch.FromString(data)
    except DecodeError as error:
        raise ValueError(f"a batch and its outcomes: {error}") from None
    orders, verdicts = columns.to_orders(pb.orders), columns.to_verdicts(pb.outcomes)
    pairs = zip(verdicts, orders, strict=True)
    return orders, tuple(verdict.on(order) for verdict, order in pairs)


def encode_order_record(trades: Sequence[Trade]) -> bytes:
    """Orders as the payload of an order log entry."""
    return to_bytes(log.OrderRecord(columns=columns.trades(trades)))


def decode_order_record(payload: bytes) -> tuple[Trade, ...]:
    """The orders that an order log entry holds."""
    record = log.OrderRecord.FromString(payload)
    return columns.to_trades(record.columns) or to_trades(record.trades)
