"""The requests and answers of every call between processes, as plain values.

Services and clients speak these; ``wire`` turns them into protobuf and back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from twstock.market import Batch, Stock, StockChange, Trade, Verdict
from twstock.replication.messages import AppendEntries, AppendReply, Committed, Request
from twstock.tally import Family


@dataclass(frozen=True, slots=True)
class Peer:
    """The sender of a message; one of another cluster, group or incarnation is refused."""

    group: str
    cluster_id: str
    id: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class Status:
    """What a member reports about itself. ``role`` is leader, follower or candidate (``joining``
    before it is formed); ``knows_asker_as`` is the incarnation that it knows of the asking peer, 0:
    none; ``members`` are the ids of all members of its group, as it is configured; ``first_index``
    is the first entry of its log, above 1 once earlier entries were dropped.
    """

    group: str
    id: int
    cluster_id: str
    incarnation: int
    role: str
    term: int
    leader_id: int
    last_index: int
    commit: int
    applied: int
    digest: bytes
    last_transaction: int
    pid: int
    uptime_s: float
    ready: bool
    reason: str
    formed: bool
    knows_asker_as: int = 0
    members: tuple[int, ...] = ()
    first_index: int = 1


@dataclass(frozen=True, slots=True)
class Probe:
    """Heartbeat: empty, it asks who leads; with ``append`` it is Raft's own. Front-ends and order
    replicas add their number: a leader that none of them reaches is of no use.
    """

    peer: Peer | None = None
    append: AppendEntries | None = None
    front_id: int = 0
    order_id: int = 0


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """The answer to a Probe."""

    status: Status
    append: AppendReply | None = None


@dataclass(frozen=True, slots=True)
class Envelope:
    """A request of the replication protocol and who sent it."""

    peer: Peer
    message: Request


@dataclass(frozen=True, slots=True)
class Notify:
    """NotifyReplica: a nomination of ``leader_id``, or with ``transfer`` Raft's TimeoutNow."""

    leader_id: int
    transfer: Envelope | None = None


@dataclass(frozen=True, slots=True)
class Notified:
    """The leader that the notified replica knows after it acted on a nomination."""

    leader_id: int
    term: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """Asks any member for committed entries after an index."""

    peer: Peer
    after_index: int


@dataclass(frozen=True, slots=True)
class FetchSnapshot:
    """Asks a catalog for its snapshot of everything up to ``index``, from the byte ``offset`` on;
    with index 0, for the beginning of its newest intact snapshot.
    """

    peer: Peer
    index: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class SnapshotPiece:
    """A piece of the snapshot at ``index``, whose file has ``size`` bytes."""

    index: int
    size: int
    content: bytes


@dataclass(frozen=True, slots=True)
class SyncUp:
    """The order group's SyncUp: orders after a number, or with ``fetch`` log entries.

    Without ``whole`` the answer lacks the orders' keys, versions, prices and times. ``limit`` is
    how many orders are wanted at most, 0: as many as an answer takes.
    """

    transaction_number: int = 0
    service_id: int = 0
    fetch: Fetch | None = None
    whole: bool = False
    limit: int = 0


@dataclass(frozen=True, slots=True)
class SyncedUp:
    """The answer to a SyncUp; ``more``: orders were left for the next call."""

    orders: tuple[Trade, ...] = ()
    more: bool = False
    fetched: Committed | None = None
    whole: bool = False


class PlaceOrder(NamedTuple):
    """An order in the words of a request, not yet checked."""

    key: str
    name: str
    type: str
    quantity: int


class Placement(NamedTuple):
    """What became of an order: a transaction number (then ``version`` is the stock's), or
    the words of a refusal. ``replayed``: the answer was remembered.
    """

    number: int = 0
    refusal: str = ""
    replayed: bool = False
    version: int = 0


@dataclass(frozen=True, slots=True)
class PlaceOrders:
    """Many orders in one call."""

    orders: tuple[PlaceOrder, ...]


@dataclass(frozen=True, slots=True)
class Placements:
    """One result for each order: a Placement, or the error (from ``errors``) of that order."""

    results: tuple[Placement | Exception, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Asks for up to ``limit`` orders, or changes, after a number."""

    after: int
    limit: int


@dataclass(frozen=True, slots=True)
class Orders:
    """A page of orders; ``next`` is the number to go on after, 0 at the end."""

    orders: tuple[Trade, ...]
    next: int


@dataclass(frozen=True, slots=True)
class Lookup:
    """Asks for a stock; a front-end that will cache the answer names itself and its session."""

    name: str
    front_id: int = 0
    session: str = ""


@dataclass(frozen=True, slots=True)
class LookupMany:
    """Asks for many stocks at once, all of them for the same session, as in Lookup."""

    names: tuple[str, ...]
    front_id: int = 0
    session: str = ""


@dataclass(frozen=True, slots=True)
class LookedUp:
    """One answer for each name, in the sequence of the names; None: no stock of that name."""

    stocks: tuple[Stock | None, ...]


@dataclass(frozen=True, slots=True)
class StockPage:
    """Asks for up to ``limit`` stocks whose names sort after one."""

    after: str
    limit: int


@dataclass(frozen=True, slots=True)
class Stocks:
    """A page of stocks; ``next`` is the name to go on after, empty at the end."""

    stocks: tuple[Stock, ...]
    next: str


@dataclass(frozen=True, slots=True)
class ExecutedTrades:
    """The executed trades after the number asked for, as many as an answer takes, and the last
    number there is.
    """

    trades: tuple[Trade, ...]
    last_number: int


@dataclass(frozen=True, slots=True)
class Changed:
    """The answer to a ChangeRequest: the number of the change and the stock as lookups show it
    now, or the words of a refusal. ``replayed``: the answer was remembered.
    """

    number: int = 0
    stock: Stock | None = None
    refusal: str = ""
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """A page of changes; ``next`` is the number to go on after, 0 at the end; ``last`` is the
    number of the last change that may be shown, ``made`` of the last one that was made.
    """

    changes: tuple[StockChange, ...]
    next: int = 0
    last: int = 0
    made: int = 0


@dataclass(frozen=True, slots=True)
class Register:
    """A front-end takes or renews its cache lease."""

    front_id: int
    url: str
    session: str


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease of ``seconds``, counted from before the request was sent; 0: none now. ``missed`` are
    the versions of stocks whose invalidation this session has not answered. ``fresh``: start with
    an empty cache.
    """

    seconds: float
    fresh: bool
    missed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AtOnce:
    """A Batch to be answered as soon as it is committed. Before its sender gives the outcomes to
    anybody, it calls AwaitPublished for the versions that the answer lists as ``unpublished``.
    """

    batch: Batch


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The answer to a Batch: one verdict for each order, and ``others`` and ``unpublished`` of a
    BatchResult.
    """

    verdicts: tuple[Verdict, ...]
    others: tuple[Trade, ...] = ()
    unpublished: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AwaitPublished:
    """Asks to be answered when no cache hides these versions of stocks any more, by name;
    without any: all that is committed when the question comes.
    """

    versions: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Published:
    """The answer to AwaitPublished: lookups at any front-end show these versions, or newer ones."""


@dataclass(frozen=True, slots=True)
class Observe:
    """Asks a member for its metrics."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The metrics of the member of that name."""

    member: str
    families: tuple[Family, ...]


TradeCall = AtOnce | Batch | PlaceOrder
"""Trade: a batch of the order leader, or the original's single trade."""


LOOKUPS_MAX = 256
"""How many stocks a front-end asks for in one call. A catalog answers as many whatever its own
``page_max``, which may differ from the front-end's while members are configured one by one."""
TRADE_BYTES = 80
"""The most bytes that a trade takes in a message, its name and its key not counted."""


def page_limit(limit: int, page_max: int) -> int:
    """How many items the page of a request with this ``limit`` has at most; 0 asks for all that
    a page may have.
    """
    return max(1, min(limit or page_max, page_max))


def fitting(trades: Sequence[Trade], message_bytes_max: int) -> Sequence[Trade]:
    """As many of the first trades as fit into half of a message of so many bytes, one at least: the
    other half is for the rest of the message, and for future fields.
    """
    left = message_bytes_max // 2
    for count, trade in enumerate(trades):
        key, name, _, _ = trade.order
        left -= TRADE_BYTES + len(key.encode()) + len(name.encode())
        if left < 0 and count:
            return trades[:count]
    return trades
