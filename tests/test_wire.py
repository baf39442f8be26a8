"""Values on the wire: every call there and back, numbers and names of the original, and garbage."""

import gc
import tracemalloc
import weakref
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twstock import errors
from twstock.market import (
    CALL_ITEMS_MAX,
    Batch,
    BeginEpoch,
    ChangeKind,
    ChangeRefusal,
    ChangeRequest,
    ChangeStock,
    DirectTrade,
    Order,
    Outcome,
    Refusal,
    RefusalBounds,
    Seed,
    Side,
    Stock,
    StockChange,
    Trade,
    Verdict,
)
from twstock.pb import catalog_pb2, log_pb2, observe_pb2, order_pb2, replication_pb2
from twstock.replication.messages import (
    AppendEntries,
    AppendReply,
    Committed,
    Entry,
    EntryKind,
    Reach,
    Transfer,
    VoteReply,
    VoteRequest,
)
from twstock.rpc import calls
from twstock.rpc.wire import commands, methods
from twstock.rpc.wire.observe import SAMPLES_MAX
from twstock.tally import Family, Sample

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
INT64 = st.integers(0, 2**63 - 1)
INT32 = st.integers(0, 2**31 - 1)
UINT64 = st.integers(0, 2**64 - 1)
DOUBLE = st.floats(allow_nan=False)
DIGEST = st.binary(max_size=16)
YES = st.booleans()


def tuples(items):
    """Up to three of them."""
    return st.lists(items, max_size=3).map(tuple)


ORDERS = st.builds(Order, TEXT, TEXT, st.sampled_from(Side), INT64)
TRADES = st.builds(Trade, INT64, ORDERS, INT64, INT64, INT64)
STOCKS = st.builds(Stock, TEXT, INT64, INT64, INT64, INT64, INT64, YES)
CHANGE_KINDS = st.sampled_from(ChangeKind)
CHANGE_REQUESTS = st.builds(ChangeRequest, TEXT, CHANGE_KINDS, TEXT, INT64, INT64)
CHANGES = st.builds(StockChange, INT64, CHANGE_KINDS, TEXT, INT64, INT64, INT64, INT64)
CHANGED = st.builds(calls.Changed, INT64, STOCKS, st.just(""), YES) | st.builds(
    calls.Changed, st.just(0), st.none(), st.sampled_from(ChangeRefusal).map(str), YES
)
OUTCOMES = st.one_of(
    st.builds(
        Outcome,
        TRADES.filter(lambda trade: trade.number != 0),
        st.none(),
        st.just(False),
        YES,
    ),
    st.builds(Outcome, st.none(), st.sampled_from(Refusal), st.just(False), YES),
    st.just(Outcome(key_reused=True)),
)
VERSIONS = st.dictionaries(TEXT, INT64, max_size=3)
VERDICTS = OUTCOMES.map(Verdict.of)
BATCHES = st.builds(Batch, INT64, INT64, INT64, INT64, INT64, tuples(ORDERS))
PLACE_ORDERS = st.builds(calls.PlaceOrder, TEXT, TEXT, TEXT, INT64)
PLACED = st.builds(calls.Placement, INT64, st.just(""), YES, INT64)
REFUSALS = st.sampled_from(Refusal).map(str)
REFUSED = st.builds(calls.Placement, st.just(0), REFUSALS, YES, st.just(0))
PEERS = st.builds(calls.Peer, TEXT, TEXT, INT32, UINT64)
ENTRIES = st.builds(Entry, INT64, INT64, st.sampled_from(EntryKind), st.binary(max_size=20))
APPEND_REPLIES = st.builds(
    AppendReply,
    INT32, INT32, INT64, YES, INT64, INT64, INT64, DOUBLE, INT64, YES, st.sampled_from(Reach),
)  # fmt: skip


def connected(message):
    """The same message with entries that can stand one after the other in a log."""
    index, term = abs(message.prev_index) // 4, abs(message.prev_term) // 4
    entries = tuple(
        replace(entry, index=index + place, term=max(term, 1) + place)
        for place, entry in enumerate(message.entries, 1)
    )
    return replace(message, prev_index=index, prev_term=term, entries=entries)


COMMITTED = st.builds(
    Committed, st.just(0), st.just(0), INT64, INT64, INT64, INT64, tuples(ENTRIES)
).map(connected)
FETCHES = st.builds(calls.Fetch, PEERS, INT64)
SNAPSHOT_FETCHES = st.builds(calls.FetchSnapshot, PEERS) | st.builds(
    calls.FetchSnapshot, PEERS, st.integers(1, 2**63 - 1), INT64
)
STATUSES = st.builds(
    calls.Status,
    TEXT, INT32, TEXT, UINT64, TEXT, INT64, INT32, INT64, INT64, INT64, DIGEST, INT64, INT64,
    DOUBLE, YES, TEXT, YES, UINT64, tuples(INT32), st.integers(1, 2**63 - 1),
)  # fmt: skip
PEER_NAMED_TRADES = TRADES.map(
    lambda t: Trade(t.number, Order("", t.order.name, t.order.side, t.order.quantity), 0, 0, 0)
)


@st.composite
def envelopes(draw, make):
    """A message in an envelope of the peer that sends it."""
    peer = draw(PEERS)
    return calls.Envelope(peer, draw(make(st.just(peer.id))))


def appends(source, term=None):
    """Appends from one sender."""
    term = INT64 if term is None else term
    return st.builds(
        AppendEntries,
        source, INT32, term, INT64, INT64, INT64, tuples(ENTRIES), INT64, DOUBLE, INT64, DIGEST,
    ).map(connected)  # fmt: skip


@st.composite
def probes(draw):
    """Heartbeats: empty, from a front-end or an order replica, with a peer, and with an append."""
    if draw(YES):
        return calls.Probe(front_id=draw(INT32), order_id=draw(INT32))
    peer = draw(st.none() | PEERS)
    append = draw(st.none() | appends(st.just(peer.id))) if peer else None
    return calls.Probe(peer, append)


VOTES = envelopes(
    lambda source: st.builds(VoteRequest, source, INT32, INT64, INT64, INT64, YES, YES, INT64)
)
VOTE_REPLIES = st.builds(VoteReply, INT32, INT32, INT64, YES, YES, INT64)
NOTIFIES = st.builds(
    calls.Notify,
    INT32,
    st.none() | envelopes(lambda source: st.builds(Transfer, source, INT32, INT64, INT64)),
)
NOTIFIED = st.builds(calls.Notified, INT32, INT64)
PROBE_ANSWERS = st.builds(calls.ProbeAnswer, STATUSES, st.none() | APPEND_REPLIES)
RAFT_APPENDS = envelopes(lambda source: appends(source, st.integers(1, 2**63 - 1)))

SAMPLES = st.builds(Sample, TEXT, st.dictionaries(TEXT, TEXT, max_size=3), DOUBLE)
FAMILIES = st.builds(Family, TEXT, TEXT, TEXT, tuples(SAMPLES))
REQUESTS_AND_ANSWERS = {
    "ORDER_HEARTBEAT": (probes(), PROBE_ANSWERS),
    "ORDER_VOTE": (VOTES, VOTE_REPLIES),
    "ORDER_NOTIFY": (NOTIFIES, NOTIFIED),
    "ORDER_APPEND": (RAFT_APPENDS, APPEND_REPLIES),
    "ORDER_SYNC_UP": (
        st.builds(calls.SyncUp, INT64, INT32, st.none() | FETCHES, YES, INT32),
        st.builds(calls.SyncedUp, tuples(PEER_NAMED_TRADES), YES, st.none() | COMMITTED)
        | st.builds(calls.SyncedUp, tuples(TRADES), YES, st.none(), st.just(True)),
    ),
    "ORDER": (PLACE_ORDERS, PLACED | REFUSED),
    "PLACE_ORDERS": (
        st.builds(calls.PlaceOrders, tuples(PLACE_ORDERS)),
        st.builds(calls.Placements, tuples(PLACED | REFUSED)),
    ),
    "ORDER_DETAILS": (
        INT64,
        st.none()
        | TRADES.map(
            lambda t: Trade(
                t.number,
                Order("", t.order.name, t.order.side, t.order.quantity),
                t.version,
                t.price_cents,
                t.at_ms,
            )
        ),
    ),
    "LIST_ORDERS": (
        st.builds(calls.Page, INT64, INT32),
        st.builds(calls.Orders, tuples(TRADES), INT64),
    ),
    "CATALOG_HEARTBEAT": (probes(), PROBE_ANSWERS),
    "CATALOG_VOTE": (VOTES, VOTE_REPLIES),
    "CATALOG_NOTIFY": (NOTIFIES, NOTIFIED),
    "CATALOG_APPEND": (RAFT_APPENDS, APPEND_REPLIES),
    "FETCH_ENTRIES": (FETCHES, COMMITTED),
    "FETCH_SNAPSHOT": (
        SNAPSHOT_FETCHES,
        st.builds(calls.SnapshotPiece, INT64, INT64, st.binary(max_size=20)),
    ),
    "LOOKUP": (st.builds(calls.Lookup, TEXT, INT32, TEXT), st.none() | STOCKS),
    "LOOKUP_MANY": (
        st.builds(calls.LookupMany, tuples(TEXT), INT32, TEXT),
        st.builds(calls.LookedUp, tuples(st.none() | STOCKS)),
    ),
    "TRADE": (
        BATCHES | st.builds(calls.AtOnce, BATCHES) | PLACE_ORDERS,
        st.builds(calls.Verdicts, tuples(VERDICTS), tuples(TRADES), VERSIONS)
        | st.builds(calls.Placement, st.just(0), REFUSALS, st.just(False), st.just(0)),
    ),
    "AWAIT_PUBLISHED": (
        st.builds(calls.AwaitPublished, VERSIONS),
        st.just(calls.Published()),
    ),
    "BEGIN_EPOCH": (
        st.builds(BeginEpoch, INT64, INT64),
        st.builds(calls.ExecutedTrades, tuples(TRADES), INT64),
    ),
    "REGISTER": (
        st.builds(calls.Register, INT32, TEXT, TEXT),
        st.builds(calls.Lease, DOUBLE, YES, st.dictionaries(TEXT, INT64, max_size=3)),
    ),
    "LIST_STOCKS": (
        st.builds(calls.StockPage, TEXT, INT32),
        st.builds(calls.Stocks, tuples(STOCKS), TEXT),
    ),
    "OBSERVE": (
        st.just(calls.Observe()),
        st.builds(calls.Observed, TEXT, tuples(FAMILIES)),
    ),
    "CHANGE_STOCK": (CHANGE_REQUESTS, CHANGED),
    "LIST_CHANGES": (
        st.builds(calls.Page, INT64, INT32),
        st.builds(calls.Changes, tuples(CHANGES), INT64, INT64, INT64),
    ),
}
METHODS = {n: m for n, m in vars(methods).items() if isinstance(m, methods.Method)}
NAMES = sorted(METHODS)


def attempt(decode, data):
    """What ``data`` decodes to; None if it is refused with an ordinary exception."""
    try:
        return decode(data)
    except AssertionError:
        raise
    except Exception:  # the server answers these with INVALID_ARGUMENT
        return None


def test_every_call_has_its_case_here():
    """A call that is added without a case here fails this test."""
    assert METHODS.keys() == REQUESTS_AND_ANSWERS.keys()


@pytest.mark.parametrize("name", NAMES)
def test_requests_and_answers_come_through_whole(name):
    """What one process encodes, the other decodes to an equal value."""
    method, (requests, answers) = METHODS[name], REQUESTS_AND_ANSWERS[name]

    @given(requests, answers)
    def check(request, answer):
        assert method.decode_request(method.encode_request(request)) == request
        assert method.decode_answer(method.encode_answer(answer)) == answer

    check()


@pytest.mark.parametrize("name", NAMES)
def test_garbage_raises_an_ordinary_exception(name):
    """Any bytes decode to a value that encodes again, or raise an Exception."""
    method = METHODS[name]

    @given(st.binary(max_size=60))
    def check(garbage):
        for decode, encode in (
            (method.decode_request, method.encode_request),
            (method.decode_answer, method.encode_answer),
        ):
            value = attempt(decode, garbage)
            if value is not None and not isinstance(value, calls.Probe):
                assert isinstance(encode(value), bytes)

    check()


@pytest.mark.parametrize("name", NAMES)
def test_damaged_messages_never_crash(name):
    """A message with one wrong byte is another message, or is refused with an ordinary
    exception.
    """
    method, (requests, _) = METHODS[name], REQUESTS_AND_ANSWERS[name]

    @given(requests, st.data())
    def check(request, data):
        sent = bytearray(method.encode_request(request))
        if sent:
            sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
        attempt(method.decode_request, bytes(sent))

    check()


@pytest.mark.parametrize(
    "error",
    [
        errors.NotLeader(),
        errors.KeyReused(),
        errors.StaleEpoch("stale"),
        errors.Unavailable("no quorum"),
        errors.OutcomeUnknown("lost"),
        errors.Overloaded("full"),
        errors.DiskFull("disk full"),
        errors.InvalidRequest("name", "bad"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_in_placements_stays_that_error(error):
    """Each order of a batch has its own result, and an error arrives as the same error."""
    method = methods.PLACE_ORDERS
    placed = calls.Placement(3, "", False, 1)
    sent = method.encode_answer(calls.Placements((placed, error, placed)))
    first, found, last = method.decode_answer(sent).results
    assert (first, last) == (placed, placed)
    assert type(found) is type(error)
    assert str(found) == str(error)


def test_an_unforeseen_error_in_placements_leaves_the_outcome_unknown():
    """It must not look as if nothing had happened."""
    method = methods.PLACE_ORDERS
    sent = method.encode_answer(calls.Placements((ZeroDivisionError("oops"),)))
    assert type(method.decode_answer(sent).results[0]) is errors.OutcomeUnknown


@given(
    st.builds(
        Seed,
        tuples(
            st.builds(
                lambda name, cents, quantity: Stock(
                    name, cents, quantity, initial_quantity=quantity
                ),
                TEXT,
                INT64,
                INT64,
            )
        ),
        st.none() | st.builds(RefusalBounds, INT64, INT64),
    )
    | BATCHES
    | st.builds(BeginEpoch, INT64, INT64)
    | st.builds(DirectTrade, ORDERS, INT64)
    | st.builds(ChangeStock, CHANGE_REQUESTS, INT64)
)
def test_catalog_commands_come_out_of_the_log_whole(command):
    """A command that was written to the catalog's log is read back."""
    payload = commands.encode_catalog_command(command)
    assert commands.decode_catalog_command(payload) == command


@given(tuples(TRADES))
def test_order_records_come_out_of_the_log_whole(trades):
    """A record that was written to the order log is read back."""
    assert commands.decode_order_record(commands.encode_order_record(trades)) == trades


@given(tuples(TRADES))
def test_order_records_of_the_first_format_are_still_read(trades):
    """Logs are kept for ever, also those with a message for each order."""
    items = [
        catalog_pb2.ExecutedTrade(
            number=t.number,
            item=catalog_pb2.OrderItem(
                key=t.order.key, name=t.order.name, type=t.order.side, quantity=t.order.quantity
            ),
            version=t.version,
            price_cents=t.price_cents,
            at_ms=t.at_ms,
        )
        for t in trades
    ]
    payload = log_pb2.OrderRecord(trades=items).SerializeToString()
    assert commands.decode_order_record(payload) == trades


@given(BATCHES)
def test_batches_of_the_first_format_are_still_read(batch):
    """The catalog's log may have batches with a message for each order, too."""
    pb = catalog_pb2.TradeBatch(
        epoch=batch.epoch,
        number=batch.number,
        recorded=batch.recorded,
        known=batch.known,
        at_ms=batch.at_ms,
        items=[
            catalog_pb2.OrderItem(key=o.key, name=o.name, type=o.side, quantity=o.quantity)
            for o in batch.orders
        ],
    )
    payload = log_pb2.CatalogCommand(batch=pb).SerializeToString()
    assert commands.decode_catalog_command(payload) == batch


@given(OUTCOMES, ORDERS)
def test_a_verdict_and_its_order_are_the_outcome(outcome, order):
    """Whoever placed an order is told only what the order does not have, and gets the whole outcome
    from both.
    """
    if outcome.trade is not None:
        order = outcome.trade.order
    assert Verdict.of(outcome).on(order) == outcome


def test_a_verdict_that_says_nothing_is_none():
    """A verdict that is neither executed nor refused is an error, since no server of ours sends
    one.
    """
    with pytest.raises(ValueError, match="neither"):
        Verdict().on(Order("k", "GameStart", Side.BUY, 1))


def test_columns_of_different_lengths_are_no_orders():
    """A message that says less of one order than of the others is refused."""
    pb = order_pb2.PlaceOrdersRequest(
        orders=catalog_pb2.OrderColumns(keys=["a", "b"], names=["X"], types=["buy"], quantities=[1])
    )
    with pytest.raises(ValueError, match="columns of different lengths"):
        methods.PLACE_ORDERS.decode_request(pb.SerializeToString())


@given(st.binary(max_size=60))
def test_a_damaged_payload_is_no_command(garbage):
    """Garbage in a log raises, or is a command of one of the known kinds."""
    kinds = Seed | Batch | BeginEpoch | DirectTrade | ChangeStock
    command = attempt(commands.decode_catalog_command, garbage)
    assert command is None or isinstance(command, kinds)
    trades = attempt(commands.decode_order_record, garbage)
    assert trades is None or all(isinstance(trade, Trade) for trade in trades)


def test_an_entry_without_a_command_breaks_an_invariant():
    """The catalog never writes an empty payload, so one means that the log is broken."""
    with pytest.raises(errors.BrokenInvariant):
        commands.decode_catalog_command(b"")


# --- the original ------------------------------------------------------------------------------

STRING, DOUBLE_, INT32_, INT64_, MESSAGE = 9, 1, 5, 3, 11
SEED = {
    catalog_pb2.LookupRequest: [("stock_name", STRING)],
    catalog_pb2.LookupResponse: [
        ("code", INT32_), ("name", STRING), ("price", DOUBLE_), ("quantity", INT64_),
    ],
    catalog_pb2.TradeRequest: [("name", STRING), ("number_of_items", INT64_), ("type", STRING)],
    catalog_pb2.TradeResponse: [("code", INT32_)],
    order_pb2.OrderRequest: [("name", STRING), ("number_of_items", INT64_), ("type", STRING)],
    order_pb2.OrderResponse: [("code", INT32_), ("transaction_num", INT64_), ("message", STRING)],
    order_pb2.GetOrderDetailsRequest: [("transaction_num", INT64_)],
    order_pb2.GetOrderDetailsResponse: [
        ("code", INT32_), ("transaction_num", INT64_), ("name", STRING), ("type", STRING),
        ("volume_traded", INT64_), ("message", STRING),
    ],
    replication_pb2.Empty: [],
    replication_pb2.HeartbeatResponse: [("code", INT32_)],
    replication_pb2.NotifyReplicaRequest: [("leader_id", INT32_)],
    replication_pb2.NotifyReplicaResponse: [("code", INT32_)],
    order_pb2.ReplicateOrderRequest: [
        ("transaction_num", INT64_), ("name", STRING), ("number_of_items", INT64_),
        ("type", STRING), ("leader_id", INT32_),
    ],
    order_pb2.ReplicateOrderResponse: [("code", INT32_)],
    order_pb2.SyncUpRequest: [("transaction_num", INT64_), ("service_id", INT32_)],
    order_pb2.SyncUpResponse: [("orders", MESSAGE)],
    order_pb2.OrderDetails: [
        ("transaction_num", INT64_), ("name", STRING), ("number_of_items", INT64_),
        ("type", STRING),
    ],
}  # fmt: skip


@pytest.mark.parametrize("message", SEED, ids=lambda message: message.DESCRIPTOR.name)
def test_the_seeds_fields_keep_numbers_names_and_types(message):
    """The original's fields are numbered from 1 in its order; all that were added have numbers from
    100.
    """
    fields = sorted(message.DESCRIPTOR.fields, key=lambda field: field.number)
    kept = [(f.name, f.type, f.number) for f in fields if f.number < 100]
    assert kept == [(name, kind, k + 1) for k, (name, kind) in enumerate(SEED[message])]
    assert message.DESCRIPTOR.full_name == f"twstock.{message.DESCRIPTOR.name}"


def test_the_seeds_calls_keep_their_names_and_messages():
    """The two services offer the original's calls with its requests and answers."""
    services = {
        "Catalog": catalog_pb2.DESCRIPTOR.services_by_name["Catalog"],
        "Order": order_pb2.DESCRIPTOR.services_by_name["Order"],
    }
    expected = {
        "Catalog": {"Lookup": "Lookup", "Trade": "Trade"},
        "Order": {
            "Order": "Order",
            "GetOrderDetails": "GetOrderDetails",
            "NotifyReplica": "NotifyReplica",
            "ReplicateOrder": "ReplicateOrder",
            "SyncUp": "SyncUp",
        },
    }
    for service, names in expected.items():
        assert services[service].full_name == f"twstock.{service}"
        for name, stem in names.items():
            method = services[service].methods_by_name[name]
            assert method.input_type.name == f"{stem}Request"
            assert method.output_type.name == f"{stem}Response"
    heartbeat = services["Order"].methods_by_name["Heartbeat"]
    assert (heartbeat.input_type.name, heartbeat.output_type.name) == ("Empty", "HeartbeatResponse")


@pytest.mark.parametrize("name", NAMES)
def test_every_call_is_declared(name):
    """The .proto files declare each call in its service."""
    method = METHODS[name]
    modules = {"Catalog": catalog_pb2, "Order": order_pb2, "Observe": observe_pb2}
    module = modules[method.service]
    service = module.DESCRIPTOR.services_by_name[method.service]
    assert method.name in service.methods_by_name
    assert method.path == f"/{service.full_name}/{method.name}"


def test_a_seed_message_keeps_its_meaning():
    """What the original's clients send is decoded to what they mean."""
    order = order_pb2.OrderRequest(name="GameStart", number_of_items=3, type="buy")
    placed = methods.ORDER.decode_request(order.SerializeToString())
    assert placed == calls.PlaceOrder("", "GameStart", "buy", 3)

    trade = catalog_pb2.TradeRequest(name="GameStart", number_of_items=3, type="sell")
    traded = methods.TRADE.decode_request(trade.SerializeToString())
    assert traded == calls.PlaceOrder("", "GameStart", "sell", 3)

    assert methods.ORDER_HEARTBEAT.decode_request(b"") == calls.Probe()
    lookup = catalog_pb2.LookupRequest(stock_name="GameStart")
    asked = methods.LOOKUP.decode_request(lookup.SerializeToString())
    assert asked == calls.Lookup("GameStart")

    sync = order_pb2.SyncUpRequest(transaction_num=37, service_id=2)
    assert methods.ORDER_SYNC_UP.decode_request(sync.SerializeToString()) == calls.SyncUp(37, 2)

    notify = replication_pb2.NotifyReplicaRequest(leader_id=3)
    told = methods.ORDER_NOTIFY.decode_request(notify.SerializeToString())
    assert told == calls.Notify(3)


@given(st.lists(TRADES, min_size=1, max_size=20), st.integers(1, 3000))
@example([Trade(1, Order("k", "\N{FISH}" * 200, Side.BUY, 1), 1, 1, 1)] * 5, 2000)
def test_trades_that_fit_are_no_more_than_a_message_takes(trades, room):
    """Trades that are put into one message fit, in each form in which they are sent, unless a
    single one is too large; and no more are left out than have to be.
    """
    some = tuple(calls.fitting(trades, 2 * room))
    assert some == tuple(trades[: len(some)]) != ()
    if len(some) > 1:
        for data in (
            methods.ORDER_SYNC_UP.encode_answer(calls.SyncedUp(some, True)),
            methods.ORDER_SYNC_UP.encode_answer(calls.SyncedUp(some, True, whole=True)),
            methods.BEGIN_EPOCH.encode_answer(calls.ExecutedTrades(some, 1)),
        ):
            assert len(data) <= room + 40
    if len(some) < len(trades):
        sizes = [len(t.order.name.encode()) + len(t.order.key.encode()) for t in trades]
        assert sum(sizes[: len(some) + 1]) + calls.TRADE_BYTES * (len(some) + 1) > room


def test_a_seed_client_reads_our_answers():
    """The original's fields of our answers hold what its clients look for."""
    stock = Stock("GameStart", 1599, 100, 0, 0, 100)
    found = catalog_pb2.LookupResponse.FromString(methods.LOOKUP.encode_answer(stock))
    assert (found.code, found.name, found.price, found.quantity) == (200, "GameStart", 15.99, 100)
    halted = methods.LOOKUP.encode_answer(stock._replace(halted=True))
    assert catalog_pb2.LookupResponse.FromString(halted).halted
    missing = catalog_pb2.LookupResponse.FromString(methods.LOOKUP.encode_answer(None))
    assert (missing.code, missing.message) == (404, "stock not found")

    answer = methods.ORDER.encode_answer(calls.Placement(42))
    placed = order_pb2.OrderResponse.FromString(answer)
    assert (placed.code, placed.transaction_num) == (200, 42)
    assert placed.message == "order placed successfully"
    answer = methods.ORDER.encode_answer(calls.Placement(refusal="invalid stock name"))
    refused = order_pb2.OrderResponse.FromString(answer)
    assert (refused.code, refused.message) == (404, "invalid stock name")

    trade = Trade(42, Order("key", "GameStart", Side.BUY, 1), 7, 1599, 1)
    details = order_pb2.GetOrderDetailsResponse.FromString(
        methods.ORDER_DETAILS.encode_answer(trade)
    )
    assert (details.code, details.transaction_num, details.name) == (200, 42, "GameStart")
    assert (details.type, details.volume_traded) == ("buy", 1)
    unknown = order_pb2.GetOrderDetailsResponse.FromString(
        methods.ORDER_DETAILS.encode_answer(None)
    )
    assert (unknown.code, unknown.message) == (404, "Transaction number not found")

    synced = order_pb2.SyncUpResponse.FromString(
        methods.ORDER_SYNC_UP.encode_answer(calls.SyncedUp((trade,)))
    )
    assert [(o.transaction_num, o.name, o.number_of_items, o.type) for o in synced.orders] == [
        (42, "GameStart", 1, "buy")
    ]
    traded = catalog_pb2.TradeResponse.FromString(methods.TRADE.encode_answer(calls.Placement(1)))
    assert traded.code == 200


def test_a_bare_order_of_the_seed_is_refused_as_replication():
    """The original's ReplicateOrder has no term and no place in the log, so it must not add an
    entry.
    """
    bare = order_pb2.ReplicateOrderRequest(transaction_num=42, name="GameStart", leader_id=3)
    with pytest.raises(errors.InvalidRequest, match="term and place"):
        methods.ORDER_APPEND.decode_request(bare.SerializeToString())
    termless = order_pb2.ReplicateOrderRequest(append=replication_pb2.AppendEntries(term=0))
    with pytest.raises(errors.InvalidRequest):
        methods.ORDER_APPEND.decode_request(termless.SerializeToString())


def test_a_newer_peers_fields_are_passed_over():
    """Fields that this version does not know are ignored."""
    request = methods.LOOKUP.encode_request(calls.Lookup("GameStart"))
    unknown = b"\xc2\x3e\x03abc"  # field 1000, three bytes
    assert methods.LOOKUP.decode_request(request + unknown) == calls.Lookup("GameStart")


def test_a_member_of_an_older_version_has_its_whole_log():
    """It does not say where its log begins, so that is at the first entry."""
    old = replication_pb2.HeartbeatResponse(status=replication_pb2.MemberStatus(last_index=5))
    told = methods.CATALOG_HEARTBEAT.decode_answer(old.SerializeToString())
    assert told.status.first_index == 1


@pytest.mark.parametrize(("index", "offset"), [(0, 1), (-1, 0), (5, -1)])
def test_a_place_that_no_snapshot_has_is_refused(index, offset):
    """An offset needs the index of the snapshot that was begun, and neither may be negative."""
    fetch = catalog_pb2.FetchSnapshotRequest(index=index, offset=offset)
    with pytest.raises(errors.InvalidRequest, match="offset"):
        methods.FETCH_SNAPSHOT.parse_request(fetch.SerializeToString())


@pytest.mark.parametrize(
    "entries",
    [
        (Entry(6, 1, EntryKind.NOOP),),
        (Entry(5, 2, EntryKind.NOOP), Entry(7, 2, EntryKind.NOOP)),
        (Entry(5, 2, EntryKind.NOOP), Entry(6, 1, EntryKind.NOOP)),
        (Entry(5, 0, EntryKind.NOOP),),
    ],
)
def test_entries_that_no_log_can_hold_are_refused(entries):
    """A gap or a falling term is the sender's fault, and no broken invariant of the receiver."""
    peer = calls.Peer("order", "c", 1, 1)
    append = AppendEntries(1, 2, 3, 4, 1, 0, entries)
    data = methods.ORDER_APPEND.encode_request(calls.Envelope(peer, append))
    with pytest.raises(errors.InvalidRequest, match="entries"):
        methods.ORDER_APPEND.decode_request(data)


def _columns(count, column):
    """Columns of orders, of which one has so many values and the others have none."""
    word = 7 if column == "quantities" else "buy"
    return catalog_pb2.OrderColumns(**{column: [word] * count})


def _append(count):
    return replication_pb2.AppendEntries(term=1, entries=[replication_pb2.Entry()] * count)


def _versions(count):
    return catalog_pb2.AwaitPublishedRequest(versions={f"S{n}": 1 for n in range(count)})


_COLUMNS = ("keys", "names", "types", "quantities")
MANY = {
    "stock_names": (
        methods.LOOKUP_MANY,
        lambda count: catalog_pb2.LookupManyRequest(stock_names=["A"] * count),
    ),
    "versions": (methods.AWAIT_PUBLISHED, _versions),
    "entries": (
        methods.ORDER_APPEND,
        lambda count: order_pb2.ReplicateOrderRequest(append=_append(count)),
    ),
    "entries of a heartbeat": (
        methods.CATALOG_HEARTBEAT,
        lambda count: replication_pb2.Empty(append=_append(count)),
    ),
    "batch of the first format": (
        methods.TRADE,
        lambda count: catalog_pb2.TradeRequest(
            batch=catalog_pb2.TradeBatch(items=[catalog_pb2.OrderItem(type="buy")] * count)
        ),
    ),
    **{
        f"orders' {column}": (
            methods.PLACE_ORDERS,
            lambda count, column=column: order_pb2.PlaceOrdersRequest(
                orders=_columns(count, column)
            ),
        )
        for column in _COLUMNS
    },
    **{
        f"batch's {column}": (
            methods.TRADE,
            lambda count, column=column: catalog_pb2.TradeRequest(
                batch=catalog_pb2.TradeBatch(orders=_columns(count, column))
            ),
        )
        for column in _COLUMNS
    },
}


@pytest.mark.parametrize("what", MANY)
def test_a_request_of_too_many_items_is_refused_before_they_are_made(what):
    """An item may take two bytes, so the values of a message of megabytes could take gigabytes."""
    method, make = MANY[what]
    data = make(100_000).SerializeToString()
    tracemalloc.start()
    try:
        with pytest.raises(errors.InvalidRequest, match="expected at most 4096") as caught:
            method.parse_request(data)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert caught.value.field == what.split()[0].removesuffix("'").removesuffix("'s")
    with pytest.raises(errors.InvalidRequest, match="expected at most 4096"):
        method.parse_request(make(CALL_ITEMS_MAX + 1).SerializeToString())


@pytest.mark.parametrize("what", MANY)
def test_as_many_items_as_one_call_brings_are_taken(what):
    """Any member may send ``CALL_ITEMS_MAX``, whatever is configured here."""
    method, make = MANY[what]
    problem = ""
    try:
        method.parse_request(make(CALL_ITEMS_MAX).SerializeToString())
    except errors.InvalidRequest as error:  # the columns differ, and the entries follow nothing
        problem = str(error)
    assert "expected at most" not in problem


@pytest.mark.parametrize("error", [lambda: errors.InvalidRequest("a", "b"), ValueError])
def test_a_refusal_keeps_no_message(error):
    """The error does not keep the decoded message in memory. Otherwise a client that reads no
    answers would fill the memory with them.
    """
    kept = []

    class Message:
        """What was decoded so far."""

    def decode(_):
        message = Message()
        kept.append(weakref.ref(message))
        raise error()

    method = replace(methods.LOOKUP, decode_request=decode)
    with pytest.raises(errors.InvalidRequest) as caught:
        method.parse_request(b"")
    assert caught.value.__traceback__ is not None
    assert kept[0]() is None


@pytest.mark.parametrize("error", [lambda: errors.InvalidRequest("a", "b"), ValueError])
def test_a_refusal_that_was_answered_keeps_no_request(error):
    """The request is freed at once, without waiting for the garbage collector, which runs
    seldom.
    """

    class Data:
        """Stands for the bytes of a request, of which nobody can tell whether they are kept."""

    def decode(_):
        raise error()

    def refused():
        data = Data()
        with suppress(errors.InvalidRequest):
            replace(methods.LOOKUP, decode_request=decode).parse_request(data)
        return weakref.ref(data)

    gc.disable()
    try:
        assert refused()() is None
    finally:
        gc.enable()


def test_no_member_tells_more_than_anybody_counts():
    """An answer with more samples than a member of ours can have is refused."""
    many = tuple(Sample("a", {}, 1.0) for _ in range(SAMPLES_MAX + 1))
    data = methods.OBSERVE.encode_answer(calls.Observed("x", (Family("a", "gauge", "", many),)))
    with pytest.raises(ValueError, match="samples"):
        methods.OBSERVE.decode_answer(data)
