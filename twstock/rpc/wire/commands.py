"""What the entries of the two logs hold, as bytes and back."""

from collections.abc import Iterable

from twstock import errors
from twstock.market import Batch, BeginEpoch, CatalogCommand, DirectTrade, Seed, Stock, Trade
from twstock.pb import catalog_pb2 as catalog
from twstock.pb import log_pb2 as log
from twstock.rpc.wire.base import to_bytes
from twstock.rpc.wire.trading import batch, item, to_batch, to_order, to_trades, trade


def encode_catalog_command(command: CatalogCommand) -> bytes:
    """A catalog command as the payload of a log entry."""
    match command:
        case Seed(stocks):
            seeds = [
                log.SeedStock(name=s.name, price_cents=s.price_cents, quantity=s.quantity)
                for s in stocks
            ]
            return to_bytes(log.CatalogCommand(seed=log.Seed(stocks=seeds)))
        case Batch():
            return to_bytes(log.CatalogCommand(batch=batch(command)))
        case BeginEpoch(epoch, after):
            begin = catalog.BeginEpochRequest(epoch=epoch, after=after)
            return to_bytes(log.CatalogCommand(begin_epoch=begin))
        case DirectTrade(o, at_ms):
            direct = log.DirectTrade(item=item(o), at_ms=at_ms)
            return to_bytes(log.CatalogCommand(direct=direct))


def decode_catalog_command(payload: bytes) -> CatalogCommand:
    """The catalog command that an entry's payload holds."""
    pb = log.CatalogCommand.FromString(payload)
    match pb.WhichOneof("command"):
        case "seed":
            return Seed(
                tuple(
                    Stock(s.name, s.price_cents, s.quantity, initial_quantity=s.quantity)
                    for s in pb.seed.stocks
                )
            )
        case "batch":
            return to_batch(pb.batch)
        case "begin_epoch":
            return BeginEpoch(pb.begin_epoch.epoch, pb.begin_epoch.after)
        case "direct":
            return DirectTrade(to_order(pb.direct.item), pb.direct.at_ms)
    raise errors.BrokenInvariant("a catalog log entry holds no command")


def encode_order_record(trades: Iterable[Trade]) -> bytes:
    """Orders as the payload of an order log entry."""
    return to_bytes(log.OrderRecord(trades=[trade(t) for t in trades]))


def decode_order_record(payload: bytes) -> tuple[Trade, ...]:
    """The orders that an order log entry holds."""
    return to_trades(log.OrderRecord.FromString(payload).trades)
