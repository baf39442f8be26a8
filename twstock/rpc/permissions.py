"""Who may make which call, by the names in the caller's certificate.

A request that names its sender (a message of replication, say, or a front-end's registration) has
to come from that member. Other calls are for one tier, or for every caller with a certificate.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twstock.errors import Forbidden
from twstock.rpc.calls import Peer, PlaceOrder
from twstock.rpc.wire import methods

Rule = Callable[[Any], str]
"""Whom a request may come from: a member, a tier, or ``ANYBODY``."""

ANYBODY = "anybody"
"""Every member of any tier, and ``client``."""
_MEMBER = re.compile(r"(?:order|catalog|front)-[1-9][0-9]{0,18}", re.ASCII)


def parties(names: Iterable[str]) -> frozenset[str]:
    """All by which a Rule may name a caller whose certificate has these names: member, tier, ..."""
    found = set()
    for name in names:
        if name == "client" or _MEMBER.fullmatch(name):
            found |= {name, name.partition("-")[0], ANYBODY}
    return frozenset(found)


def check(caller: frozenset[str], path: str, request: Any) -> None:
    """Raise Forbidden unless the caller, given by its ``parties``, may make this call."""
    rule = RULES.get(path)
    wanted = "nobody" if rule is None else rule(request)
    if wanted not in caller:
        who = ", ".join(sorted(caller - {ANYBODY})) or "a stranger"
        raise Forbidden(f"{path} is for {wanted}, not for {who}")


def _only(who: str) -> Rule:
    return lambda _: who


def _replication(group: str) -> tuple[Rule, Rule, Rule]:
    """Rules for an envelope, for a notification, and for fetching entries."""

    def name(peer: Peer | None) -> str:
        return ANYBODY if peer is None else f"{group}-{peer.id}"

    def notify(request: Any) -> str:
        return "front" if request.transfer is None else name(request.transfer.peer)

    def fetch(request: Any) -> str:
        return ANYBODY if request is None else name(request.peer)

    return (lambda sent: name(sent.peer)), notify, fetch


def _probe(sender: Rule) -> Rule:
    """The rule for a probe. A front-end or an order replica that sends one names itself; one with
    a ``peer`` has to come from that member of the group, whatever else it names.
    """

    def rule(sent: Any) -> str:
        if sent.peer is not None:
            return sender(sent)
        if sent.order_id:
            return f"order-{sent.order_id}"
        return f"front-{sent.front_id}" if sent.front_id else ANYBODY

    return rule


def _front(request: Any) -> str:
    return f"front-{request.front_id}" if request.front_id else ANYBODY


def _trade(request: Any) -> str:
    """The original's single trade is for everybody; batches are the order leader's."""
    return ANYBODY if isinstance(request, PlaceOrder) else "order"


_ORDER_SENDER, _ORDER_NOTIFY, _ORDER_FETCH = _replication("order")
_CATALOG_SENDER, _CATALOG_NOTIFY, _CATALOG_FETCH = _replication("catalog")

RULES: Mapping[str, Rule] = {
    methods.ORDER_HEARTBEAT.path: _probe(_ORDER_SENDER),
    methods.ORDER_APPEND.path: _ORDER_SENDER,
    methods.ORDER_VOTE.path: _ORDER_SENDER,
    methods.ORDER_NOTIFY.path: _ORDER_NOTIFY,
    methods.ORDER_SYNC_UP.path: lambda request: _ORDER_FETCH(request.fetch),
    methods.ORDER.path: _only(ANYBODY),
    methods.PLACE_ORDERS.path: _only(ANYBODY),
    methods.ORDER_DETAILS.path: _only(ANYBODY),
    methods.LIST_ORDERS.path: _only(ANYBODY),
    methods.CATALOG_HEARTBEAT.path: _probe(_CATALOG_SENDER),
    methods.CATALOG_APPEND.path: _CATALOG_SENDER,
    methods.CATALOG_VOTE.path: _CATALOG_SENDER,
    methods.CATALOG_NOTIFY.path: _CATALOG_NOTIFY,
    methods.FETCH_ENTRIES.path: _CATALOG_FETCH,
    methods.FETCH_SNAPSHOT.path: _CATALOG_FETCH,
    methods.LOOKUP.path: _front,
    methods.LOOKUP_MANY.path: _front,
    methods.LIST_STOCKS.path: _only(ANYBODY),
    methods.TRADE.path: _trade,
    methods.AWAIT_PUBLISHED.path: _only("order"),
    methods.BEGIN_EPOCH.path: _only("order"),
    methods.REGISTER.path: lambda request: f"front-{request.front_id}",
    # Only front-ends check the administrator's token.
    methods.CHANGE_STOCK.path: _only("front"),
    methods.LIST_CHANGES.path: _only(ANYBODY),
    methods.OBSERVE.path: _only(ANYBODY),
}
"""By the path of the call. A call without a rule is allowed to nobody."""
