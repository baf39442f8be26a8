"""Who may make which call, by the names in a certificate."""

from typing import Any

import pytest

from twstock.errors import Forbidden
from twstock.market import BeginEpoch, ChangeKind, ChangeRequest
from twstock.replication.messages import AppendEntries, Transfer, VoteRequest
from twstock.rpc import calls
from twstock.rpc.permissions import ANYBODY, RULES, check, parties
from twstock.rpc.wire import methods
from twstock.rpc.wire.methods import Method

EVERYBODY = {"order-1", "order-2", "catalog-1", "catalog-2", "front-1", "front-2", "client"}
ORDERS, FRONTS = {"order-1", "order-2"}, {"front-1", "front-2"}
APPEND = AppendEntries(2, 1, 1, 0, 0, 0, (), 1, 0.0, 0, b"")
VOTE = VoteRequest(2, 1, 1, 0, 0, False, False, 1)
TRANSFER = Transfer(2, 1, 1, 1)
METHODS = [value for value in vars(methods).values() if isinstance(value, Method)]


def envelope(group: str, message: Any = None) -> calls.Envelope:
    """A message from member 2 of a group."""
    return calls.Envelope(calls.Peer(group, "c", 2, 1), message)


def fetch(group: str) -> calls.Fetch:
    """A request of member 2 of a group for entries."""
    return calls.Fetch(calls.Peer(group, "c", 2, 1), 0)


def allowed(path: str, request: Any) -> set[str]:
    """The names that may make a call."""
    found = set()
    for name in EVERYBODY | {"stranger"}:
        try:
            check(parties([name]), path, request)
        except Forbidden:
            continue
        found.add(name)
    return found


def test_every_call_has_a_rule() -> None:
    """No method lacks a rule, and a path without a rule may be called by nobody."""
    assert {method.path for method in METHODS} == set(RULES)
    assert allowed("/twstock.Order/Unheard", None) == set()


@pytest.mark.parametrize("group", ["order", "catalog"])
def test_a_message_of_replication_comes_from_the_member_that_it_names(group: str) -> None:
    """It may not come from another member of the group, nor from the member with that number in the
    other group.
    """
    order = group == "order"
    sender, other = {f"{group}-2"}, "catalog" if order else "order"
    append, vote, heartbeat, notify = (
        (methods.ORDER_APPEND, methods.ORDER_VOTE, methods.ORDER_HEARTBEAT, methods.ORDER_NOTIFY)
        if order
        else (
            methods.CATALOG_APPEND,
            methods.CATALOG_VOTE,
            methods.CATALOG_HEARTBEAT,
            methods.CATALOG_NOTIFY,
        )
    )
    for named in (group, other):  # whatever group it says
        peer = calls.Peer(named, "c", 2, 1)
        assert allowed(append.path, envelope(named, APPEND)) == sender
        assert allowed(vote.path, envelope(named, VOTE)) == sender
        assert allowed(notify.path, calls.Notify(1, envelope(named, TRANSFER))) == sender
        assert allowed(heartbeat.path, calls.Probe(peer, APPEND)) == sender
        assert allowed(heartbeat.path, calls.Probe(peer)) == sender
        assert allowed(heartbeat.path, calls.Probe(peer, APPEND, front_id=1, order_id=1)) == sender
    assert allowed(heartbeat.path, calls.Probe()) == EVERYBODY
    assert allowed(heartbeat.path, calls.Probe(front_id=2)) == {"front-2"}
    assert allowed(heartbeat.path, calls.Probe(front_id=2, order_id=1)) == {"order-1"}
    assert allowed(notify.path, calls.Notify(2)) == FRONTS
    if order:
        path = methods.ORDER_SYNC_UP.path
        assert allowed(path, calls.SyncUp(fetch=fetch("order"))) == sender
        assert allowed(path, calls.SyncUp(1)) == EVERYBODY
    else:
        assert allowed(methods.FETCH_ENTRIES.path, fetch("catalog")) == sender
        snapshot = calls.FetchSnapshot(calls.Peer("catalog", "c", 2, 1))
        assert allowed(methods.FETCH_SNAPSHOT.path, snapshot) == sender


def test_only_order_replicas_trade_in_batches_and_begin_epochs() -> None:
    """The original's single trade is for everybody."""
    path = methods.TRADE.path
    assert allowed(path, calls.AtOnce(None)) == ORDERS  # type: ignore[arg-type]
    assert allowed(path, object()) == ORDERS
    assert allowed(path, calls.PlaceOrder("", "GameStart", "buy", 1)) == EVERYBODY
    assert allowed(methods.BEGIN_EPOCH.path, BeginEpoch(1, 0)) == ORDERS
    assert allowed(methods.AWAIT_PUBLISHED.path, calls.AwaitPublished()) == ORDERS


def test_a_front_end_speaks_for_itself() -> None:
    """A front-end may not take a lease, or look anything up, in the name of another one."""
    assert allowed(methods.REGISTER.path, calls.Register(2, "u", "s")) == {"front-2"}
    assert allowed(methods.REGISTER.path, calls.Register(0, "u", "s")) == set()
    for method, request in (
        (methods.LOOKUP, calls.Lookup("GameStart", 2, "s")),
        (methods.LOOKUP_MANY, calls.LookupMany(("GameStart",), 2, "s")),
    ):
        assert allowed(method.path, request) == {"front-2"}
    assert allowed(methods.LOOKUP.path, calls.Lookup("GameStart")) == EVERYBODY


def test_only_front_ends_change_stocks() -> None:
    """Front-ends check the administrator's token; nobody else may send a change."""
    change = ChangeRequest("k", ChangeKind.HALT, "GameStart")
    assert allowed(methods.CHANGE_STOCK.path, change) == FRONTS


def test_everybody_reads_and_trades() -> None:
    """Whoever has the certificate of a member or of a tool may read and place orders."""
    for method in (
        methods.ORDER,
        methods.PLACE_ORDERS,
        methods.ORDER_DETAILS,
        methods.LIST_ORDERS,
        methods.LIST_STOCKS,
        methods.LIST_CHANGES,
        methods.OBSERVE,
    ):
        assert allowed(method.path, None) == EVERYBODY


@pytest.mark.parametrize(
    "name", ["order", "orders-1", "order-0", "order-1.evil", "xorder-1", "order-1\n", "order-٣",
             "Order-1", "clients", ANYBODY, ""],
)  # fmt: skip
def test_names_that_only_look_like_members_are_nobody(name: str) -> None:
    """A certificate with such a name may make no call."""
    assert parties([name]) == frozenset()


def test_a_certificate_may_have_several_names() -> None:
    """Its holder has the rights of each of them."""
    assert parties(["order-2", "client", "nobody"]) == {"order-2", "order", "client", ANYBODY}


def test_a_refusal_tells_who_was_refused() -> None:
    """The error names the call, for whom it is, and who was refused."""
    with pytest.raises(Forbidden, match=r"^/twstock.Catalog/BeginEpoch is for order, not for "
                       r"client$"):  # fmt: skip
        check(parties(["client"]), methods.BEGIN_EPOCH.path, BeginEpoch(1, 0))
    with pytest.raises(Forbidden, match="not for a stranger"):
        check(parties(["x"]), methods.ORDER.path, None)
