"""Refuses requests that no correct caller would send, before they reach the log. Pure."""

from collections.abc import Callable, Collection

from twstock.errors import InvalidRequest, Unavailable
from twstock.market import (
    CALL_ITEMS_MAX,
    KEY_CHARS_MAX,
    NAME_CHARS_MAX,
    NAME_RULE,
    PRICE_CENTS_MAX,
    QUANTITY_MAX,
    Batch,
    BeginEpoch,
    ChangeKind,
    ChangeRequest,
    Stock,
    is_stock_name,
)
from twstock.rpc.calls import AwaitPublished, PlaceOrder, Register

EPOCHS_AHEAD_MAX = 2**24
"""How far an epoch may be above the fence: as far as ten elections a second lead in 19 days, if
none of their leaders reaches the catalog. Order leaders do not adopt the fence's epoch, so a wrong
one within this bound stops orders until their terms have reached it."""
_URL_CHARS_MAX = 255
_PRICED = (ChangeKind.ADD, ChangeKind.PRICE)
_COUNTED = (ChangeKind.ADD, ChangeKind.RESTOCK)


def check_batch(batch: Batch) -> None:
    """Refuse what no order leader would send, whatever its settings: it must not reach the log."""
    if len(batch.orders) > CALL_ITEMS_MAX:
        raise InvalidRequest("batch", f"expected at most {CALL_ITEMS_MAX} orders")
    for order in batch.orders:
        if not 0 < len(order.key.encode()) <= KEY_CHARS_MAX:
            raise InvalidRequest("key", f"expected 1 to {KEY_CHARS_MAX} bytes")
        if len(order.name) > NAME_CHARS_MAX:
            raise InvalidRequest("name", f"expected at most {NAME_CHARS_MAX} characters")
        if not 1 <= order.quantity <= QUANTITY_MAX:
            raise InvalidRequest("quantity", f"expected 1 to {QUANTITY_MAX}")


def check_epoch(request: BeginEpoch, fence: int) -> None:
    """Refuse an epoch that no election of order replicas can have led to: the fence is never
    lowered, and no order leader's term would reach it.
    """
    if request.epoch > fence + EPOCHS_AHEAD_MAX:
        raise InvalidRequest("epoch", f"no election can have led from {fence} to it")


def check_register(request: Register, fronts: Collection[int]) -> None:
    """Refuse a malformed session, or one of a front-end that is not in the cluster."""
    if request.front_id not in fronts:
        raise InvalidRequest("front_id", f"front-{request.front_id} is not in the cluster")
    if not 0 < len(request.session) <= KEY_CHARS_MAX:
        raise InvalidRequest("session", f"expected 1 to {KEY_CHARS_MAX} characters")
    if not request.url.startswith("http://") or len(request.url) > _URL_CHARS_MAX:
        raise InvalidRequest("url", "expected http://HOST:PORT")


def check_committed(request: AwaitPublished, find: Callable[[str], Stock | None]) -> None:
    """Refuse to wait for versions that do not exist here, and might never. Callers ask about
    committed ones, which a leader has unless it was replaced: raises Unavailable. Raises
    InvalidRequest for more than an order leader asks about at once.
    """
    if len(request.versions) > CALL_ITEMS_MAX:
        raise InvalidRequest("versions", f"expected at most {CALL_ITEMS_MAX}")
    for name, version in request.versions.items():
        stock = find(name)
        if stock is None or stock.version < version:
            raise Unavailable(f"version {version} of {name} is not known here")


def check_direct(request: PlaceOrder) -> None:
    """Refuse a single trade that must not reach the log.

    A direct trade takes no key: the catalog forgets the keys of recorded trades (the order leader
    keeps them), so it could not promise to trade at most once, and a key that an order has already
    would be recorded twice.
    """
    if request.key:
        raise InvalidRequest("idempotency_key", "place an order to use a key")
    if request.quantity > QUANTITY_MAX:
        raise InvalidRequest("number_of_items", f"expected at most {QUANTITY_MAX}")


def check_change(request: ChangeRequest) -> None:
    """Refuse a malformed change: raises InvalidRequest naming the field."""
    if len(request.key.encode()) > KEY_CHARS_MAX:
        raise InvalidRequest("idempotency_key", f"expected at most {KEY_CHARS_MAX} bytes")
    if request.kind is ChangeKind.ADD and not is_stock_name(request.name):
        raise InvalidRequest("name", f"expected {NAME_RULE}")
    if len(request.name) > NAME_CHARS_MAX:
        raise InvalidRequest("name", f"expected at most {NAME_CHARS_MAX} characters")
    priced, counted = request.kind in _PRICED, request.kind in _COUNTED
    if not 0 <= request.price_cents <= (PRICE_CENTS_MAX if priced else 0):
        raise InvalidRequest("price_cents", f"expected 0 to {PRICE_CENTS_MAX if priced else 0}")
    least = 1 if request.kind is ChangeKind.RESTOCK else 0
    most = QUANTITY_MAX if counted else 0
    if not least <= request.quantity <= most:
        raise InvalidRequest("quantity", f"expected {least} to {most}")
